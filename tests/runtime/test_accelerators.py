"""What is listed is tried, and nothing that is tried can take the caller down or write to its terminal."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mrm_sdk.runtime import accelerators
from mrm_sdk.runtime.accelerators import GRAPH, Trial, has_card, libraries, survey
from mrm_sdk.runtime.providers import CPU
from mrm_sdk.settings import Settings

STRANGE_RUNTIME = '''
"""An ONNX Runtime whose every provider fails in another way."""
import os, signal

def get_available_providers():
    return ["Crashing", "Wrong", "Silent", "Raising", "Incomplete", "CPUExecutionProvider"]

class SessionOptions: pass

class InferenceSession:
    def __init__(self, graph, options, providers, enable_fallback):
        self.names = [name for name, _ in providers]
        print("a banner on standard output", flush=True)
        if self.names[0] == "Crashing":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.names[0] == "Raising":
            raise ValueError("no such\\n  device")
        if self.names[0] == "Incomplete":
            os.write(2, b"\\x1b[1;31m[E] Failed to load x with error: libcublas.so.13: cannot open shared object file: No\\n\\x1b[m\\n")
            raise RuntimeError("Please install everything")
        if self.names[0] == "Silent":
            os.write(2, b"\\x1b[0;93mFailed to create Silent.\\x1b[m\\n")
            self.names = self.names[1:]

    def get_providers(self):
        return self.names

    def run(self, outputs, inputs):
        x = inputs["x"]
        return [x @ [[1, 2], [3, 4]] + (self.names[0] == "Wrong")]
'''  # noqa: E501


def test_the_graph_is_what_it_is_said_to_be() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [1, 2, 3, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert onnx.load_from_string(GRAPH) == model
    onnx.checker.check_model(GRAPH, full_check=True)
    x = np.array(accelerators._INPUT, np.float32)
    assert np.array_equal(x @ np.array([[1, 2], [3, 4]], np.float32), accelerators._OUTPUT)


@pytest.mark.slow
def test_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MRM_THREADS", "many")  # the caller has other settings; this must not reach the child
    machine = survey(Settings.model_construct())
    assert machine.error == ""
    assert machine.listed == onnxruntime.get_available_providers()
    assert CPU in machine.started
    assert all(trial.started != bool(trial.why) for trial in machine.trials)
    assert "CUDA" in machine.torch
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_every_way_to_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "onnxruntime.py").write_text(STRANGE_RUNTIME)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    machine = survey(Settings())
    assert machine.trials == (
        Trial("Crashing", False, "it took its process down (SIGSEGV)"),
        Trial("Wrong", False, "it computes wrongly: [[2.0, 3.0], [4.0, 5.0], [12.0, 17.0]]"),
        Trial("Silent", False, "Failed to create Silent."),
        Trial("Raising", False, "no such device"),
        Trial("Incomplete", False, "libcublas.so.13 cannot be loaded"),
        Trial(CPU, True, ""),
    )
    assert machine.started == {CPU}
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_hollow_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "onnxruntime" / "__init__.py").write_text("")
    machine = survey(Settings())
    assert "left hollow" in machine.error
    assert (machine.trials, machine.cuda) == ((), "")
    assert machine.torch  # the rest was found out all the same


@pytest.mark.slow
def test_a_runtime_that_crashes_on_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    machine = survey(Settings())
    assert machine.error == "it took its process down (SIGILL)"
    assert machine.torch


@pytest.mark.slow
def test_a_driver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    child = f"""
import json, sys, time
mark, known = {accelerators._MARK!r}, json.load(sys.stdin)["answers"]
def say(**message): print(mark + json.dumps(message), flush=True)
if "runtime" not in known:
    say(question="runtime"); say(answer={{"listed": ["CPUExecutionProvider"], "cuda": "13.0"}})
if "nvidia" not in known:
    say(question="nvidia"); time.sleep(600)
say(question="torch"); say(answer={{"says": "no CUDA"}})
say(question="CPUExecutionProvider"); say(answer={{}})
"""
    monkeypatch.setattr(accelerators, "_CHILD", child)
    machine = survey(Settings(), timeout=5)
    assert (machine.nvidia.card, machine.nvidia.why) == (True, "no answer within 5 s")
    assert (machine.cuda, machine.torch, machine.started) == ("13.0", "no CUDA", {CPU})


@pytest.mark.slow
def test_a_child_that_cannot_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    child = f"""
import json, sys
mark, known = {accelerators._MARK!r}, json.load(sys.stdin)["answers"]
if known:
    sys.exit(3)
def say(**message): print(mark + json.dumps(message), flush=True)
say(question="runtime"); say(answer={{"listed": ["A", "B"], "cuda": ""}})
say(question="A"); sys.exit(2)
"""
    monkeypatch.setattr(accelerators, "_CHILD", child)
    machine = survey(Settings())
    assert machine.trials == (
        Trial("A", False, "its process ended with exit code 2"),
        Trial("B", False, "it could not be tried"),
    )


@pytest.mark.slow
def test_children_that_never_get_as_far_as_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "_CHILD", "raise SystemError('a broken installation')")
    machine = survey(Settings())
    assert machine.error == "its process ended with exit code 1: SystemError: a broken installation"
    monkeypatch.setattr(accelerators.sys, "executable", "/nowhere/python")
    assert "/nowhere/python cannot be started" in survey(Settings()).error


def test_libraries_are_those_of_the_runtimes_cuda() -> None:
    assert {"libcudart.so.12", "libcublasLt.so.12", "libcufft.so.11", "libcudnn.so.9"} < set(libraries("12.8"))
    assert {"libcudart.so.13", "libcublasLt.so.13", "libcufft.so.12", "libcudnn.so.9"} < set(libraries("13.0"))


@pytest.mark.parametrize(
    ("vendor", "kind", "found"),
    [("0x10de", "0x030200", True), ("0x10de", "0x040300", False), ("0x1002", "0x030000", False), ("", "", False)],
)
def test_cards_without_a_driver_are_seen(tmp_path: Path, vendor: str, kind: str, found: bool) -> None:
    (tmp_path / "0000:00:01.0").mkdir()
    (tmp_path / "0000:00:02.0").mkdir()
    (tmp_path / "0000:00:02.0" / "vendor").write_text(vendor + "\n")
    (tmp_path / "0000:00:02.0" / "class").write_text(kind + "\n")
    assert has_card(tmp_path) is found
    assert not has_card(tmp_path / "absent")


class Driver:
    """NVIDIA's libraries, as far as they are asked."""

    def __init__(self, version: int, gpus: list[bytes], code: int = 0) -> None:
        self.version, self.gpus, self.code = version, gpus, code

    def cuInit(self, _: int) -> int:
        return self.code

    def cuGetErrorString(self, code: int, out: Any) -> None:
        out._obj.value = b"no device is detected"

    def cuDriverGetVersion(self, out: Any) -> None:
        out._obj.value = self.version

    cudaRuntimeGetVersion = cuDriverGetVersion

    def cudnnGetVersion(self) -> int:
        return self.version

    def cuDeviceGetCount(self, out: Any) -> None:
        out._obj.value = len(self.gpus)

    def cuDeviceGetName(self, out: Any, size: int, device: int) -> None:
        out.value = self.gpus[device]


def installed(monkeypatch: pytest.MonkeyPatch, **libraries: Driver) -> None:
    """Makes these, and no other, loadable."""

    def load(name: str) -> Driver:
        if name.partition(".")[0] not in libraries:
            raise OSError(f"{name}: cannot open shared object file")
        return libraries[name.partition(".")[0]]

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(accelerators.sys, "platform", "linux")


def test_driver_and_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    absent = {"libraries": [], "missing": [], "why": "no driver of NVIDIA's is installed"}
    assert accelerators._nvidia("") == absent
    assert accelerators._nvidia("13.0") == {**absent, "missing": list(libraries("13.0"))}
    installed(monkeypatch, libcuda=Driver(12080, [], 100))
    broken = {"libraries": [], "missing": [], "driver": "12.8", "why": "no device is detected (100)"}
    assert accelerators._nvidia("") == broken
    installed(
        monkeypatch,
        libcuda=Driver(13020, [b"NVIDIA H100", b"NVIDIA T4"]),
        libcudart=Driver(13010, []),
        libcudnn=Driver(91400, []),
        **{name: Driver(0, []) for name in ("libcublas", "libcublasLt", "libnvrtc", "libcurand")},
    )
    assert accelerators._nvidia("13.0") == {
        "driver": "13.2",
        "gpus": ["NVIDIA H100", "NVIDIA T4"],
        "libraries": ["CUDA runtime 13.1", "cuDNN 9.14"],
        "missing": ["libcufft.so.12"],
    }
    installed(monkeypatch, nvcuda=Driver(12080, [b"NVIDIA RTX"]))
    monkeypatch.setattr(accelerators.sys, "platform", "win32")
    assert accelerators._nvidia("12.8") == {"libraries": [], "missing": [], "driver": "12.8", "gpus": ["NVIDIA RTX"]}
