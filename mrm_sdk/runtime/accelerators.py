"""Which execution providers really work on this machine, tried in a child process.

Loading a driver and its libraries can hang, crash, or write to the terminal from C++. All of it happens in a child
process: its output becomes the reason of a failure, and a question that kills it is skipped when the rest is retried.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from mrm_sdk.runtime.providers import CPU, onnxruntime, preload, with_options
from mrm_sdk.settings import Settings

# x [n, 2] float32 -> y = x [[1, 2], [3, 4]]: a matrix product, the operation that our graphs consist of.
GRAPH: Final = base64.b64decode(
    "CAg6YwoRCgF4CgF3EgF5IgZNYXRNdWwSBXByb2JlKhsIAggCEAEiEAAAgD8AAABAAABAQAAAgEBCAXdaFAoBeBIPCg0IARIJCgMSAW4KAggCYhQK"
    "AXkSDwoNCAESCQoDEgFuCgIIAkIECgAQEQ=="
)
_INPUT: Final = ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0))
_OUTPUT: Final = ((1.0, 2.0), (3.0, 4.0), (11.0, 16.0))

_TIMEOUT: Final = 90.0
_CHILD: Final = "from mrm_sdk.runtime.accelerators import answer_questions; answer_questions()"
# Marks the lines that the child itself writes, as opposed to a library.
_MARK: Final = "\x1emrm "
_PASSED_ON: Final = {"providers", "device_id", "gpu_mem_limit", "arena_extend_strategy"}
_COLOUR: Final = re.compile(r"\x1b?\[[0-9;]*m")
_ABSENT: Final = re.compile(r"(lib[\w.+-]+): cannot open shared object file")
_NVIDIA_VENDOR: Final = "0x10de"
_UNTRIED: Final = {"error": "it could not be tried"}


@dataclass(frozen=True)
class Trial:
    """An execution provider that ONNX Runtime lists, and whether a graph gave the right numbers on it."""

    provider: str
    started: bool
    why: str


@dataclass(frozen=True)
class Nvidia:
    """NVIDIA's driver, GPUs and libraries on this machine.

    Args:
        card: whether the machine has an NVIDIA GPU, usable or not.
        gpus: the names of those that this process may use.
        driver: the newest CUDA version that the driver runs, as ``13.0``; empty without a driver.
        why: the driver's reason for giving no GPU.
        libraries: versions of the CUDA runtime and of cuDNN, if they can be loaded.
        missing: libraries that the installed ONNX Runtime needs and that cannot be loaded, on Linux.
    """

    card: bool = False
    gpus: tuple[str, ...] = ()
    driver: str = ""
    why: str = ""
    libraries: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What works on this machine.

    Args:
        trials: of every provider that ONNX Runtime lists.
        cuda: the version of CUDA that ONNX Runtime was built for; empty for a build without it.
        nvidia: driver, GPUs and libraries.
        torch: what torch says about CUDA.
        error: why ONNX Runtime could not be loaded.
    """

    trials: tuple[Trial, ...]
    cuda: str
    nvidia: Nvidia
    torch: str
    error: str

    @property
    def listed(self) -> list[str]:
        """The providers that ONNX Runtime lists."""
        return [trial.provider for trial in self.trials]

    @property
    def started(self) -> frozenset[str]:
        """The providers that work."""
        return frozenset(trial.provider for trial in self.trials if trial.started)


def survey(settings: Settings, timeout: float = _TIMEOUT) -> Survey:
    """Tries every provider that ONNX Runtime lists, and looks for NVIDIA's driver and libraries.

    Takes a few seconds; nothing reaches the terminal and nothing is left loaded in this process.

    Args:
        settings: which device, and how much of its memory.
        timeout: seconds of silence after which the child is stopped.
    """
    answers: dict[str, dict[str, Any]] = {}
    while (unanswered := _run_child(settings, answers, timeout)) is not None:
        name, reason = unanswered
        answers[name] = {"error": reason}
    runtime, nvidia, torch = (answers.get(name, {}) for name in ("runtime", "nvidia", "torch"))
    errors = {name: answers.get(name, _UNTRIED).get("error") for name in runtime.get("listed", ())}
    return Survey(
        trials=tuple(Trial(name, error is None, error or "") for name, error in errors.items()),
        cuda=runtime.get("cuda", ""),
        nvidia=Nvidia(
            card=has_card() or "error" in nvidia,  # a driver that fails belongs to a GPU
            gpus=tuple(nvidia.get("gpus", ())),
            driver=nvidia.get("driver", ""),
            why=nvidia.get("error", nvidia.get("why", "")),
            libraries=tuple(nvidia.get("libraries", ())),
            missing=tuple(nvidia.get("missing", ())),
        ),
        torch=torch.get("error", torch.get("says", "")),
        error=runtime.get("error", ""),
    )


def _run_child(settings: Settings, answers: dict[str, dict[str, Any]], timeout: float) -> tuple[str, str] | None:
    """Lets a child process answer open questions, into ``answers``; returns the question it died of, and the reason."""
    request = json.dumps({"settings": settings.model_dump(include=_PASSED_ON), "answers": answers})
    # The child's settings are those given, not those of an environment in which another may be invalid.
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("MRM_")}
    environment["ORT_DISABLE_TELEMETRY"] = "1"  # from 1.29 on, importing it would leave files in the home folder
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter, our own code
            [sys.executable, "-P", "-c", _CHILD],
            input=request.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=timeout,
            check=False,
        )
        written, ending = done.stdout, _ending(done.returncode)
    except subprocess.TimeoutExpired as late:
        written, ending = late.stdout or b"", f"no answer within {timeout:.0f} s"
    except OSError as error:
        written, ending = b"", f"{sys.executable} cannot be started: {error.strerror}"
    question, noise = "", []
    for line in written.decode("utf-8", "replace").split("\n"):
        before, mark, said = line.partition(_MARK)
        noise.append(before)
        if mark:
            message = json.loads(said)
            if "answer" in message:
                if "error" in message["answer"]:
                    message["answer"]["error"] = _reason(noise, message["answer"]["error"])
                answers[question] = message["answer"]
            question, noise = message.get("question", ""), []
    if question:
        return question, ending
    # It died before the first question: there is nothing that could be left out.
    return ("runtime", f"{ending}: {_reason(noise, '')}") if ending and "runtime" not in answers else None


def _ending(code: int) -> str:
    if code < 0:
        return f"it took its process down ({signal.Signals(-code).name})"
    return f"its process ended with exit code {code}" if code else ""


def _reason(noise: list[str], error: str) -> str:
    """Why something failed, in a line: a file that is missing, else the error, else what a library wrote last."""
    text = [line for line in (_COLOUR.sub("", line).strip() for line in noise) if line]
    absent = _ABSENT.search("\n".join(text))
    return f"{absent[1]} cannot be loaded" if absent else error or "".join(text[-1:])[-300:] or "it gave no reason"


def answer_questions() -> None:
    """The child's side: settings and what is known on standard input, questions and answers on standard output."""
    request = json.load(sys.stdin)
    answers: dict[str, dict[str, Any]] = request["answers"]
    for name, question in _questions(Settings(**request["settings"]), answers):
        if name in answers:
            continue
        _tell({"question": name})
        try:
            answers[name] = question()
        except Exception as error:  # noqa: BLE001  the runtime's exceptions share no public base class
            answers[name] = {"error": " ".join(str(error).split())[:300] or type(error).__name__}
        _tell({"answer": answers[name]})


def _tell(message: dict[str, Any]) -> None:
    print(f"{_MARK}{json.dumps(message)}", flush=True)  # noqa: T201  to the parent


def _questions(
    settings: Settings, answers: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    yield "runtime", _runtime
    yield "nvidia", lambda: _nvidia(answers["runtime"].get("cuda", ""))
    yield "torch", _torch
    for provider in answers["runtime"].get("listed", ()):
        yield provider, partial(_try, provider, settings)


def _runtime() -> dict[str, Any]:
    runtime = onnxruntime()
    try:
        from onnxruntime.capi.build_and_package_info import cuda_version as cuda
    except ImportError:  # a build without CUDA
        cuda = ""
    return {"listed": runtime.get_available_providers(), "cuda": cuda or ""}


def _try(provider: str, settings: Settings) -> dict[str, Any]:
    runtime = onnxruntime()
    if provider != CPU:
        preload(runtime)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with_cpu = [with_options(name, settings) for name in dict.fromkeys((provider, CPU))]
    session = runtime.InferenceSession(GRAPH, options, providers=with_cpu, enable_fallback=0)
    if provider not in session.get_providers():
        return {"error": ""}  # the reason is in what it wrote
    (result,) = session.run(None, {"x": np.array(_INPUT, np.float32)})
    return {} if np.array_equal(result, _OUTPUT) else {"error": f"it computes wrongly: {result.tolist()}"}


def _torch() -> dict[str, Any]:
    import torch

    if torch.version.cuda is None:
        return {"says": "built without CUDA"}
    sees = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {"says": f"built for CUDA {torch.version.cuda}, sees {sees} GPU{'' if sees == 1 else 's'}"}


def _nvidia(cuda: str) -> dict[str, Any]:
    versions: list[str] = []
    missing: list[str] = []
    if cuda and sys.platform == "linux":
        preload(onnxruntime())
        for name in libraries(cuda):
            try:
                library = ctypes.CDLL(name)
            except OSError:
                missing.append(name)
                continue
            if name.startswith("libcudart"):
                versions.append(f"CUDA runtime {_dotted(_number(library.cudaRuntimeGetVersion))}")
            if name.startswith("libcudnn"):
                versions.append(f"cuDNN {_dotted(library.cudnnGetVersion() // 10)}")
    return {"libraries": versions, "missing": missing, **_driver()}


def libraries(cuda: str) -> tuple[str, ...]:
    """The files that a build of ONNX Runtime for this version of CUDA (12 or later) loads, on Linux."""
    major = cuda.partition(".")[0]
    fft = 11 if major == "12" else 12
    return (
        *(f"lib{name}.so.{major}" for name in ("cudart", "cublasLt", "cublas", "nvrtc")),
        "libcurand.so.10",
        f"libcufft.so.{fft}",
        "libcudnn.so.9",
    )


def has_card(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether the machine has a GPU of NVIDIA's, with or without a driver.

    Args:
        devices: where Linux lists the machine's PCI devices.
    """
    for device in devices.glob("*"):
        try:
            vendor, kind = ((device / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
        except (OSError, ValueError):
            continue
        if vendor == _NVIDIA_VENDOR and kind.startswith("0x03"):  # a display controller; NVIDIA makes others too
            return True
    return False


def _driver() -> dict[str, Any]:
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return {"why": "no driver of NVIDIA's is installed"}
    code = cuda.cuInit(0)
    driver = _dotted(_number(cuda.cuDriverGetVersion))
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        return {"driver": driver, "why": f"{(text.value or b'error').decode()} ({code})"}
    gpus = []
    for device in range(_number(cuda.cuDeviceGetCount)):
        name = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(name, len(name), device)
        gpus.append(name.value.decode("utf-8", "replace"))
    return {"driver": driver, "gpus": gpus}


def _number(ask: Any) -> int:
    """What a C function of CUDA's writes to the address of its one argument."""
    value = ctypes.c_int()
    ask(ctypes.byref(value))
    return value.value


def _dotted(version: int) -> str:
    """13020 -> 13.2, as CUDA counts."""
    return f"{version // 1000}.{version % 1000 // 10}"
