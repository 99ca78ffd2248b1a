"""Graphs are run on what really started, batches beside each other, and what cannot be run says why."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mrm_sdk.bundle import Bundle
from mrm_sdk.errors import (
    BundleMismatchError,
    ConfigurationError,
    EncoderError,
    InvalidInputError,
    MissingDependencyError,
    OutOfMemoryError,
    ProviderError,
)
from mrm_sdk.runtime import session as session_module
from mrm_sdk.runtime.providers import wanted_providers, with_options
from mrm_sdk.runtime.session import GraphSession
from mrm_sdk.settings import Settings
from tests.conftest import ROOT

BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]
ONE = np.ones((1, 6), np.float32)


def session(
    graph: bytes, inputs: set[str] | None = None, outputs: str = "base_rewards", **settings: Any
) -> GraphSession:
    return GraphSession(
        "x.onnx", lambda: graph, frozenset(inputs or {"embedding"}), frozenset([outputs]), Settings(**settings)
    )


@pytest.fixture
def graph(embedded_bundle: Bundle) -> bytes:
    return embedded_bundle.read("base_rewards.onnx")


def model(opset: int = 17, operation: str = "Identity") -> onnx.ModelProto:
    """``embedding`` [n, 6] -> ``base_rewards``, the same."""
    x, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6]) for name in ("embedding", "base_rewards")
    )
    graph = helper.make_graph([helper.make_node(operation, ["embedding"], ["base_rewards"])], "g", [x], [result])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no graph", r"x\.onnx cannot be opened"),
        (b"", r"x\.onnx cannot be opened"),
        (model(opset=999).SerializeToString(), r"x\.onnx cannot be opened.*[Oo]pset"),
        (model(operation="NoSuchOperator").SerializeToString(), r"x\.onnx cannot be opened.*NoSuchOperator"),
    ],
)
def test_graphs_that_cannot_be_opened(data: bytes, message: str) -> None:
    with pytest.raises(BundleMismatchError, match=message):
        session(data).run({"embedding": ONE}, "base_rewards")


def test_a_corrupted_graph_is_refused_whatever_byte_it_is(graph: bytes) -> None:
    """The hash catches it first; without one, the runtime's own refusal is ours."""
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 200, 40):
        broken = bytearray(graph)
        broken[position] ^= 0xFF
        try:
            session(bytes(broken)).run({"embedding": ONE}, "base_rewards")
        except (BundleMismatchError, EncoderError):
            continue
    with pytest.raises(BundleMismatchError, match="cannot be opened"):
        session(graph[: len(graph) // 2]).run({"embedding": ONE}, "base_rewards")


def test_names_of_inputs_and_outputs(graph: bytes) -> None:
    with pytest.raises(BundleMismatchError, match=r"must have the inputs \['tokens'\]"):
        session(graph, {"tokens"}).run({"tokens": ONE}, "base_rewards")
    with pytest.raises(BundleMismatchError, match=r"the outputs \['pooled'\]"):
        session(graph, outputs="pooled").run({"embedding": ONE}, "pooled")


def test_inputs_that_the_graph_does_not_take(graph: bytes) -> None:
    with pytest.raises(EncoderError, match=r"x\.onnx failed to run"):
        session(graph).run({"embedding": np.ones((1, 5), np.float32)}, "base_rewards")


def test_providers_asked_for() -> None:
    assert wanted_providers(Settings(), BOTH) == BOTH
    assert wanted_providers(Settings(), BOTH[1:]) == BOTH[1:]
    assert wanted_providers(Settings(providers="cpu"), BOTH) == BOTH[1:]
    assert wanted_providers(Settings(providers="tensorrt"), BOTH) == ["TensorrtExecutionProvider", *BOTH]
    for name, provider in (("openvino", "OpenVINO"), ("coreml", "CoreML"), ("directml", "Dml")):
        assert wanted_providers(Settings(providers=name), BOTH) == [f"{provider}ExecutionProvider", BOTH[1]]


def test_options_of_providers() -> None:
    settings = Settings(device_id=1, gpu_mem_limit=2**30, arena_extend_strategy="as_requested")
    assert with_options(BOTH[0], settings) == (
        BOTH[0],
        {"device_id": "1", "arena_extend_strategy": "kSameAsRequested", "use_tf32": "0", "gpu_mem_limit": str(2**30)},
    )
    assert "gpu_mem_limit" not in with_options(BOTH[0], Settings())[1]
    assert with_options(BOTH[1], settings) == (BOTH[1], {})
    for name in ("Tensorrt", "Dml"):
        assert with_options(f"{name}ExecutionProvider", settings)[1] == {"device_id": "1"}


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "openvino", "coreml", "directml"])
def test_what_did_not_start_is_said_once_and_refused_under_strict(
    graph: bytes,
    name: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(session_module, "_warned", set())
    first = session(graph, providers=name)
    if first.providers != BOTH[1:]:
        pytest.skip(f"{name} starts on this machine")
    np.testing.assert_array_equal(first.run({"embedding": ONE}, "base_rewards").shape, (1, 3))
    assert session(graph, providers=name).providers == BOTH[1:]
    assert sum("did not start" in record.message for record in caplog.records) == 1
    with pytest.raises(ProviderError, match="did not start; running on CPUExecutionProvider"):
        _ = session(graph, providers=name, strict_providers=True).providers
    assert capfd.readouterr() == ("", "")


def test_without_an_onnx_runtime_the_extra_is_named(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for absent in (None, types.ModuleType("onnxruntime")):  # not installed; or hollow, as its removal leaves it
        monkeypatch.setitem(sys.modules, "onnxruntime", absent)
        with pytest.raises(MissingDependencyError, match=r"pip install 'mrm-sdk\[gpu\]'"):
            session(graph).run({"embedding": ONE}, "base_rewards")


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_fill_their_rows(graph: bytes, threads: int) -> None:
    opened = session(graph, threads=threads)
    embeddings = np.random.default_rng(0).standard_normal((100, 6)).astype(np.float32)
    out = np.zeros((100, 3), np.float32)
    rows = np.random.default_rng(1).permutation(100)
    opened.fill(out, np.array_split(rows, 9), lambda batch: {"embedding": embeddings[batch]}, "base_rewards")
    np.testing.assert_allclose(out, opened.run({"embedding": embeddings}, "base_rewards"), atol=1e-6)
    assert opened.threads == threads


def test_a_small_request_does_not_wait_for_all_of_a_large_one(graph: bytes) -> None:
    """Of a thousand batches, each held until it is let go, one thread's single batch gets through."""
    opened, done = session(graph, threads=2), threading.Event()
    embeddings, began = np.ones((1000, 6), np.float32), []

    def held(rows: NDArray[np.intp]) -> dict[str, NDArray[np.float32]]:
        began.append(rows)
        done.wait(timeout=60)
        return {"embedding": embeddings[rows]}

    large = threading.Thread(
        target=lambda: opened.fill(
            np.zeros((1000, 3), np.float32), np.split(np.arange(1000), 1000), held, "base_rewards"
        )
    )
    large.start()
    out = np.zeros((1, 3), np.float32)
    opened.fill(out, [np.arange(1)], lambda rows: {"embedding": embeddings[rows]}, "base_rewards")
    assert out.any()
    assert len(began) <= 2
    done.set()
    large.join()
    assert len(began) == 1000


def test_threads_that_start_together_open_one_session(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, starts = session(graph), []
    start = opened._start
    monkeypatch.setattr(opened, "_start", lambda: starts.append(None) or start())
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        opened.run({"embedding": ONE}, "base_rewards")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(starts) == 1


def test_an_error_in_one_batch_is_the_callers(graph: bytes) -> None:
    def prepare(rows: NDArray[np.intp]) -> dict[str, NDArray[np.float32]]:
        return {"embedding": np.ones((len(rows), 5 if 7 in rows else 6), np.float32)}

    for threads in (1, 2):
        with pytest.raises(EncoderError, match="failed to run"):
            session(graph, threads=threads).fill(
                np.zeros((10, 3), np.float32), np.array_split(np.arange(10), 5), prepare, "base_rewards"
            )


SMALL_MEMORY = """
import logging, resource, sys
import numpy as np
from mrm_sdk.bundle import Bundle
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
bundle = Bundle(sys.argv[1])
session = next(iter(bundle._sessions.values()))
embeddings = np.random.default_rng(0).standard_normal((6_000_000, 6)).astype(np.float32)
expected = bundle.base_rewards(embeddings[:1000])
out = np.empty((len(embeddings), 3), np.float32)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, used + 60_000_000))
session.fill(out, [np.arange(len(out))], lambda rows: {"embedding": embeddings[rows[0]:rows[-1] + 1]}, "base_rewards")
assert np.allclose(out[:1000], expected, atol=1e-6) and np.isfinite(out).all()
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_a_batch_that_does_not_fit_is_run_in_halves(embedded_bundle: Bundle) -> None:
    """With a real limit on the process: its result alone would take more than is left."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL_MEMORY, str(embedded_bundle.path)],
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MRM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "did not fit into memory; it is run in halves" in done.stdout
    assert done.stdout.endswith("done\n")


def test_a_row_that_does_not_fit_is_an_error(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = session(graph, threads=1)
    sizes: list[int] = []

    class Full:
        def run(self, outputs: Any, inputs: dict[str, NDArray[np.float32]]) -> None:
            sizes.append(len(inputs["embedding"]))
            raise RuntimeError("[ONNXRuntimeError] : 6 : BFCArena::AllocateRawInternal Failed to allocate memory")

        def get_providers(self) -> list[str]:
            return BOTH[1:]

    real = opened._open()
    monkeypatch.setattr(opened, "_opened", type(real)(real.pid, Full(), real.providers, None, 1, None))
    with pytest.raises(OutOfMemoryError, match="Lower encode_tokens"):
        opened.fill(
            np.zeros((8, 3), np.float32),
            [np.arange(8)],
            lambda rows: {"embedding": np.ones((len(rows), 6), np.float32)},
            "base_rewards",
        )
    assert sizes == [8, 4, 2, 1]


def test_tensors_of_the_cpu(embedded_bundle: Bundle) -> None:
    embeddings = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    expected = embedded_bundle.base_rewards(embeddings.numpy())
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 1e-2), (torch.bfloat16, 1e-1)):
        result = embedded_bundle.base_rewards(embeddings.to(dtype).requires_grad_())
        assert (result.dtype, result.device.type) == (dtype, "cpu")
        np.testing.assert_allclose(result.float().numpy(), expected, atol=tolerance)
    with pytest.raises(InvalidInputError, match=r"floating-point numbers, not torch\.int64"):
        embedded_bundle.base_rewards(embeddings.long())


def test_settings_of_sessions_are_checked() -> None:
    for wrong in ({"providers": "gpu"}, {"device_id": -1}, {"gpu_mem_limit": -1}, {"arena_extend_strategy": "x"}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Settings(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_nothing_is_left_in_the_home_folder(embedded_bundle: Bundle, tmp_path: Path) -> None:
    """The runtime's telemetry would leave an identifier there as soon as it is imported."""
    code = "import sys; from mrm_sdk import Bundle; Bundle(sys.argv[1]).providers"
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR")}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", code, str(embedded_bundle.path)]
    subprocess.run(command, env=environment | home, cwd=ROOT, check=True)
    assert not list(tmp_path.iterdir())


def test_nothing_is_logged_where_all_is_well(graph: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    session(graph).run({"embedding": ONE}, "base_rewards")
    assert not caplog.records
