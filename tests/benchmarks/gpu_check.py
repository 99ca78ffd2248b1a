"""``make gpu-check``: what a machine's GPU does for this package, in one JSON file; top imports are the library's only.

Runs on a machine without a network, with whatever torch and ONNX Runtime it has (docs/gpu.md). Parts run in a child
process: one that fails, hangs or takes its process down costs its own figures and no others'.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
OUT = ROOT / "tests" / "benchmarks" / "results" / "gpu.json"
NEEDED = (
    *("numpy", "torch", "onnxruntime", "tokenizers", "safetensors"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "pydantic_settings", "dotenv"),
)
TO_EXPORT = ("onnx", "onnxscript", "transformers")
# Begins the lines that are the child's own and not a library's.
_MARK = "\x1egpu "


class Part(NamedTuple):
    """A part of the check: ``module.function``, seconds it may take, and where it needs CUDA."""

    where: str
    limit: float
    torch: bool
    runtime: bool


# In this order: what matters most comes before the time is up.
PARTS = {
    "versions": Part("gpu_base_rewards.versions", 90, torch=False, runtime=False),
    "torch": Part("gpu_base_rewards.peers", 45, torch=True, runtime=False),
    "base rewards": Part("gpu_base_rewards.speed", 60, torch=True, runtime=True),
    "models": Part("gpu_encoding.models", 120, torch=False, runtime=False),
    "parity": Part("gpu_parity.parity", 60, torch=False, runtime=True),
    "latency": Part("gpu_encoding.latency", 45, torch=False, runtime=True),
    "encoding": Part("gpu_encoding.speed", 90, torch=False, runtime=True),
    "eager": Part("gpu_encoding.eager", 45, torch=True, runtime=False),
    "training": Part("gpu_training.fits", 120, torch=True, runtime=False),
    "fallback": Part("gpu_base_rewards.fallback", 60, torch=False, runtime=False),
    "memory limit": Part("gpu_memory.limited", 45, torch=False, runtime=True),
    "memory": Part("gpu_memory.varied", 75, torch=False, runtime=True),
}


class Found(NamedTuple):
    """Whether torch, and whether ONNX Runtime, can use a GPU here as far as can be told without trying."""

    torch: bool
    runtime: bool


def found() -> Found:
    """Looks for a GPU; what is not installed has none."""
    torch = runtime = False
    if find_spec("torch"):
        torch = bool(import_module("torch").cuda.is_available())
    if find_spec("onnxruntime"):
        providers = getattr(import_module("onnxruntime"), "get_available_providers", list)()
        runtime = "CUDAExecutionProvider" in providers and (torch or _driver_has_gpu())
    return Found(torch, runtime)


def _driver_has_gpu() -> bool:
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except OSError:
        return False


def main(arguments: list[str] | None = None) -> None:
    """Checks, prints tables, and writes the JSON file; exit code 1 where a part failed."""
    options = _options(arguments)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if options.child:
        answer(json.loads(options.child))
        return
    gpu = Found(True, True) if options.rehearse else found()
    if not any(gpu):
        print("No GPU that torch or ONNX Runtime could use: nothing to check.")
        return
    missing = [name for name in (*NEEDED, *(() if options.bundle else TO_EXPORT)) if find_spec(name) is None]
    if missing:
        sys.exit(f"gpu-check needs {', '.join(missing)}: bring the wheels and put them on PYTHONPATH (docs/gpu.md).")
    for able, library in zip(gpu, ("torch", "ONNX Runtime"), strict=True):
        if not able:
            print(f"This {library} has no CUDA: what needs it is left out. Bring one that has (docs/gpu.md).")
    names = _with_models(options.only) if options.only else list(PARTS)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    report: dict[str, Any] = {"rehearsal": options.rehearse, "began": at, "parts": {}}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mrm-gpu-") as scratch:
        place = {
            "folder": scratch,
            "bundle": str(options.bundle.resolve()) if options.bundle else None,
            "rehearse": options.rehearse,
            "torch": gpu.torch,
            "runtime": gpu.runtime,
        }
        for name, result in run(names, gpu, place, began + options.limit):
            report["parts"][name] = result
            report["seconds"] = round(time.perf_counter() - began, 1)
            show(name, result)
            if options.out:  # after each part: whatever comes, what was measured is kept
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(report, indent=2) + "\n")
    if options.out:
        print(f"written  {options.out}")
    failed = [name for name, result in report["parts"].items() if "error" in result]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _with_models(chosen: list[str]) -> list[str]:
    """These parts in order, and the encoder's export where one of them needs it."""
    needed = {"models"} if {"parity", "latency", "encoding", "eager", "memory limit", "memory"} & {*chosen} else set()
    return [name for name in PARTS if name in needed.union(chosen)]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("gpu_check", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="the JSON file; tests/benchmarks/results/gpu.json if not given")
    parser.add_argument("--bundle", type=Path, help="take this bundle's encoder, and export none")
    parser.add_argument("--rehearse", action="store_true", help="all parts in small, with the CPU in place of the GPU")
    parser.add_argument("--limit", type=float, default=360.0, help="seconds; parts left then are skipped")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given several times")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.rehearse and options.out is None:
        options.out = OUT
    return options


def run(names: list[str], gpu: Found, place: dict[str, Any], deadline: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each part's name and what came of it; after a part that failed the rest goes on in a fresh process."""
    able: list[str] = []
    for name in names:
        needs = {"torch": PARTS[name].torch and not gpu.torch, "ONNX Runtime": PARTS[name].runtime and not gpu.runtime}
        lacks = [library for library, lacking in needs.items() if lacking]
        if lacks:
            yield name, {"skipped": f"needs CUDA in {' and in '.join(lacks)}"}
        else:
            able.append(name)
    while able:
        done = 0
        for result in _in_child(able, place, deadline):
            yield able[done], result
            done += 1
        able = able[done:]


def _in_child(names: list[str], place: dict[str, Any], deadline: float) -> Iterator[dict[str, Any]]:
    """Has a process run parts, in order, until one of them fails; yields what came of each."""
    command = [sys.executable, "-u", "-m", "tests.benchmarks.gpu_check", "--child"]
    command.append(json.dumps({"names": names, "place": place}))
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as child:
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            for name in names:
                began = time.perf_counter()
                if began > deadline:
                    yield {"skipped": "out of time (--limit)"}
                    continue
                print(f"… {name}", flush=True)
                result = _part(name, lines, child, min(deadline, began + PARTS[name].limit))
                yield {**result, "seconds": round(time.perf_counter() - began, 1)}
                if "error" in result:
                    return
        finally:
            child.kill()
            reader.join(5)


def _part(name: str, lines: queue.Queue[str | None], child: subprocess.Popen[str], until: float) -> dict[str, Any]:
    """What the child says of one part, by then."""
    rows: list[dict[str, Any]] = []
    said: list[str] = []
    error = None
    while error is None:
        try:
            line = lines.get(timeout=max(0.0, until - time.perf_counter()))
        except queue.Empty:
            error = "not done in time"
            continue
        if line is None:
            error = f"its process ended with exit code {child.wait()}"
        elif not line.startswith(_MARK):
            said = [*said, *([line.rstrip()[:300]] if line.strip() else [])][-20:]
        else:
            message = json.loads(line[len(_MARK) :])
            if message["part"] != name:
                error = f"the process is at {message['part']}"
            elif "row" in message:
                rows.append(message["row"])
            elif "error" in message:
                error = message["error"]
            else:
                return {"rows": rows}
    return {"rows": rows, "error": error, "said": said}


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    with contextlib.suppress(ValueError):  # the other end is closed
        for line in stream:
            lines.put(line)
    lines.put(None)


def answer(job: dict[str, Any]) -> None:
    """The child's side: runs parts and tells their rows, until one fails."""
    import torch

    from tests.benchmarks.gpu_place import Place

    place = Place.of(job["place"])
    for name in job["names"]:
        module, _, function = PARTS[name].where.partition(".")
        try:
            for row in getattr(import_module(f"tests.benchmarks.{module}"), function)(place):
                _tell(name, row=row)
        except Exception as error:  # noqa: BLE001  whatever it is, it goes into the file
            traceback.print_exc()
            said = " ".join(str(error).split())[:500]
            _tell(name, error=f"{type(error).__name__}: {said}")
            sys.exit(1)
        # What a part has taken of the GPU is not to be missing in the next.
        gc.collect()
        torch.cuda.empty_cache()
        _tell(name)


def _tell(name: str, **message: Any) -> None:
    # Begins a line of its own, whatever a library has left unfinished.
    print(f"\n{_MARK}{json.dumps({'part': name, **message})}", flush=True)


def show(name: str, result: dict[str, Any]) -> None:
    """Prints what came of a part as a table."""
    rows = result.get("rows", [])
    titles = list(dict.fromkeys(key for row in rows for key in row if key != "what"))
    cells = [[name, *titles], *([row["what"], *(_cell(row.get(key)) for key in titles)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        first, *others = (c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        print("  ".join([first, *others]).rstrip())
    for key in ("skipped", "error"):
        if key in result:
            print(f"  {key}: {result[key]}")
    print(flush=True)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
