"""``make gpu-check`` rehearsed with the CPU in place of the GPU, and what it says where something is missing."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import gpu_check
from tests.benchmarks.gpu_check import OUT, PARTS, Found
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

PLACE = {"folder": "", "bundle": None, "rehearse": True, "torch": True, "runtime": True}


def rehearse(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", "gpu_check", "--rehearse", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)


def test_a_rehearsal_runs_every_part(tmp_path: Path) -> None:
    before = OUT.read_bytes() if OUT.exists() else None
    done = rehearse("--out", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (OUT.read_bytes() if OUT.exists() else None) == before
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["rehearsal"] is True
    assert list(report["parts"]) == list(PARTS)
    rows = {name: {row["what"]: row for row in part["rows"]} for name, part in report["parts"].items()}
    assert all(rows.values())
    assert "reached" not in json.dumps(report)  # what the CPU reaches is no figure of a GPU
    # Each part's own rows came under its name.
    assert rows["versions"]["CPUExecutionProvider"]["is"] == "starts"
    assert rows["fallback"]["and is right"]["is"] is True
    assert rows["fallback"]["falls back"]["warnings"] == 1
    assert rows["fallback"]["strict"]["is"] == "ProviderError"
    assert rows["base rewards"]["base rewards, float16"]["share_of_copy"] > 0
    parity = rows["parity"]
    assert parity["fused base rewards, float32"]["largest_difference"] == 0
    assert 0 < parity["fused base rewards, float16"]["largest_difference"] < 0.01
    assert all(row.get("same_type_and_device", True) for row in parity.values())
    assert rows["latency"]["request, float32"]["calls"] == 20
    assert rows["eager"]["60 short texts, float32"]["from_tokens"] > 0
    assert all(row["base_rewards_apart"] == 0 for row in rows["training"].values())
    assert all(row["largest_difference"] < 1e-5 for row in rows["memory limit"].values())
    assert rows["memory"]["40 calls"]["host_MiB"] > 0
    for name in PARTS:
        assert f"\n{name} " in done.stdout


def test_a_part_that_fails_costs_no_other(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = rehearse("--bundle", tmp_path / "none", "--only", "parity", "--only", "training", "--out", out)
    assert done.returncode == 1
    assert "failed: parity" in done.stderr
    parts = json.loads(out.read_text())["parts"]
    assert list(parts) == ["models", "parity", "training"]
    assert parts["parity"]["error"].startswith("NotFoundError: There is no bundle at")
    assert any("Traceback" in line for line in parts["parity"]["said"])
    assert parts["parity"]["rows"][0]["what"] == "base rewards, float32 array"
    assert len(parts["training"]["rows"]) == 3


def part(code: str, seconds: float = 30) -> dict[str, Any]:
    """What is kept of a part named ``latency`` in a process that runs ``code``."""
    lines: queue.Queue[str | None] = queue.Queue()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8") as child:
        if seconds:
            gpu_check._read(child.stdout, lines)
        return gpu_check._part("latency", lines, child, time.perf_counter() + seconds)


def test_a_part_that_takes_its_process_down_keeps_its_rows() -> None:
    tell = "from tests.benchmarks.gpu_check import _tell; import os; "
    result = part(tell + "print('a library speaks', end=''); _tell('latency', row={'what': 1}); os._exit(3)")
    assert result == {
        "rows": [{"what": 1}],
        "error": "its process ended with exit code 3",
        "said": ["a library speaks"],
    }


def test_a_part_that_hangs_is_given_up() -> None:
    assert part("pass", seconds=0)["error"] == "not done in time"


def test_rows_of_another_part_are_refused() -> None:
    result = part("from tests.benchmarks.gpu_check import _tell; _tell('memory', row={'what': 1})")
    assert (result["rows"], result["error"]) == ([], "the process is at memory")


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "found", lambda: Found(False, False))
    gpu_check.main([])
    assert capsys.readouterr().out == "No GPU that torch or ONNX Runtime could use: nothing to check.\n"


def test_what_is_not_installed_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "found", lambda: Found(True, False))
    real = gpu_check.find_spec
    absent = {"pydantic", "pydantic_settings", "onnx"}
    monkeypatch.setattr(gpu_check, "find_spec", lambda name: None if name in absent else real(name))
    with pytest.raises(SystemExit, match=r"^gpu-check needs pydantic, pydantic_settings, onnx: .*\(docs/gpu.md\)\.$"):
        gpu_check.main([])


def test_a_library_without_cuda_leaves_the_others_part() -> None:
    for gpu, lacking in ((Found(True, False), "ONNX Runtime"), (Found(False, True), "torch")):
        able = {name for name, part in PARTS.items() if gpu.torch >= part.torch and gpu.runtime >= part.runtime}
        left_out = [name for name in PARTS if name not in able]
        assert left_out
        results = list(gpu_check.run(left_out, gpu, PLACE, deadline=0))
        assert results == [(name, {"skipped": f"needs CUDA in {lacking}"}) for name in left_out]


def test_when_the_time_is_up_the_rest_is_skipped() -> None:
    results = list(gpu_check.run(["versions", "training"], Found(True, True), PLACE, deadline=0))
    assert results == [(name, {"skipped": "out of time (--limit)"}) for name in ("versions", "training")]


def test_a_rehearsal_never_writes_the_results() -> None:
    assert gpu_check._options(["--rehearse"]).out is None
    assert gpu_check._options([]).out == OUT


def test_looking_for_a_gpu() -> None:
    import onnxruntime
    import torch

    found = gpu_check.found()
    assert found.torch == torch.cuda.is_available()
    assert not found.runtime or "CUDAExecutionProvider" in onnxruntime.get_available_providers()
