"""Sessions whose inputs and outputs stay where they are: on the CPU, which takes the same way as a GPU.

What the CPU build of ONNX Runtime has no operators for, onnx's own reference evaluator runs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

from mrm_sdk.bundle import Bundle
from mrm_sdk.errors import ProviderError
from mrm_sdk.runtime.binding import BoundSession
from mrm_sdk.runtime.session import GraphSession
from mrm_sdk.settings import Settings
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.onnx_export import export_base_rewards

D, K = 24, 5
DTYPES = {torch.float32: 1e-6, torch.float16: 2e-2, torch.bfloat16: 2e-1}


def module() -> BaseRewards:
    generator = torch.Generator().manual_seed(0)
    return BaseRewards(torch.randn(K, D, generator=generator), torch.randn(K, generator=generator))


def opened(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def bound(graph: bytes) -> BoundSession:
    return BoundSession(onnxruntime, opened(graph), "cpu", 0)


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, D)).astype(np.float32)


def expected(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    return module()(torch.from_numpy(embeddings)).detach().numpy()


def test_arrays_of_every_size_class() -> None:
    """Buffers are made by powers of two and used again: nothing of an earlier, larger run shows in a later one."""
    session = bound(export_base_rewards(module()))
    for seed, count in enumerate((1, 42, 43, 400, 2, 43, 1000, 1, 0, 3)):
        embeddings = rows(count, seed)
        result = session.run({"embedding": embeddings}, "base_rewards")
        assert (result.shape, result.dtype) == ((count, K), np.float32)
        np.testing.assert_allclose(result, expected(embeddings), atol=1e-5)


def test_memory_grows_with_the_sizes_and_not_with_the_calls() -> None:
    session = bound(export_base_rewards(module()))
    for count in (*range(1, 300), *range(1, 300)):
        session.run({"embedding": rows(count)}, "base_rewards")
    capacities = [len(staged) for (name, _), (staged, _) in session._buffers.items() if name == "embedding"]
    assert sorted(capacities) == [1024, 2048, 4096, 8192]
    assert sum(capacities) < 2 * max(capacities)


def test_results_are_the_callers_own() -> None:
    session = bound(export_base_rewards(module()))
    first = session.run({"embedding": rows(7, 1)}, "base_rewards")
    before = first.copy()
    session.run({"embedding": rows(7, 2)}, "base_rewards")
    np.testing.assert_array_equal(first, before)


def two_inputs() -> bytes:
    """``ids`` and ``mask`` [n, tokens] int64 -> ``pooled`` [n, 3]: sums of ids, of mask, and their product's."""
    token_inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "tokens"]) for name in ("ids", "mask")]
    result = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["n", 3])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("Mul", ["ids", "mask"], ["both"])]
    summed = ("ids", "mask", "both")
    nodes += [helper.make_node("ReduceSum", [name, "axis"], [f"{name}_sum"], keepdims=1) for name in summed]
    nodes.append(helper.make_node("Concat", ["ids_sum", "mask_sum", "both_sum"], ["sums"], axis=1))
    nodes.append(helper.make_node("Cast", ["sums"], ["pooled"], to=TensorProto.FLOAT))
    graph = helper.make_graph(nodes, "g", token_inputs, [result], [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_several_inputs_and_views_of_a_larger_array() -> None:
    session, rng = bound(two_inputs()), np.random.default_rng(0)
    for shape in ((4, 3), (1, 2000), (64, 64), (3, 1)):
        batch = rng.integers(0, 9, (2, *shape))
        for ids, mask in (batch, batch[:, ::-1]):
            result = session.run({"ids": ids, "mask": mask}, "pooled")
            sums = [ids.sum(1), mask.sum(1), (ids * mask).sum(1)]
            np.testing.assert_array_equal(result, np.stack(sums, 1).astype(np.float32))


def test_threads_take_turns() -> None:
    session = bound(export_base_rewards(module()))

    def run(seed: int) -> None:
        embeddings = rows(1 + seed % 60, seed)
        result = session.run({"embedding": embeddings}, "base_rewards")
        np.testing.assert_allclose(result, expected(embeddings), atol=1e-5)
        tensor = session.run_tensor("embedding", torch.from_numpy(embeddings), "base_rewards")
        np.testing.assert_allclose(tensor.numpy(), expected(embeddings), atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run, range(400)))


def runs_on_cpu(dtype: torch.dtype) -> bool:
    try:
        opened(export_base_rewards(module(), dtype))
    except NotImplemented:
        return False
    return True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_are_read_where_they_lie(dtype: torch.dtype) -> None:
    if not runs_on_cpu(dtype):
        pytest.skip(f"this ONNX Runtime has no {dtype} on the CPU; the reference evaluator has it below")
    session = bound(export_base_rewards(module(), dtype))
    embeddings = torch.from_numpy(rows(33))
    transposed = embeddings.T.contiguous().T
    for array in (embeddings, transposed, embeddings[:1], embeddings[::2], embeddings[:0]):
        result = session.run_tensor("embedding", array.to(dtype).requires_grad_(), "base_rewards")
        assert (result.dtype, result.requires_grad, result.shape) == (dtype, False, (len(array), K))
        torch.testing.assert_close(result.float(), module()(array).detach(), atol=DTYPES[dtype], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_graphs_of_every_precision_say_what_torch_says(dtype: torch.dtype) -> None:
    graph = onnx.load_model_from_string(export_base_rewards(module(), dtype))
    onnx.checker.check_model(graph, full_check=True)
    kind = helper.tensor_dtype_to_np_dtype(graph.graph.input[0].type.tensor_type.elem_type)
    embeddings = rows(50)
    (result,) = ReferenceEvaluator(graph).run(None, {"embedding": embeddings.astype(kind)})
    assert result.dtype == kind
    weight, bias = (parameter.detach().to(dtype) for parameter in module().parameters())
    halved = torch.nn.functional.linear(torch.from_numpy(embeddings).to(dtype), weight, bias).float().numpy()
    np.testing.assert_allclose(result.astype(np.float32), halved, rtol=1e-6, atol=DTYPES[dtype])
    np.testing.assert_allclose(result.astype(np.float32), expected(embeddings), rtol=1e-6, atol=DTYPES[dtype])


def test_a_bundle_without_cuda_never_opens_its_half_graphs(
    embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torch with CUDA beside an ONNX Runtime without: half tensors go through the float32 graph."""
    read: list[str] = []
    bundle = Bundle(embedded_bundle.path)
    real = bundle.read
    monkeypatch.setattr(bundle, "read", lambda name: (read.append(name), real(name))[1])

    class Elsewhere(torch.Tensor):
        is_cuda = True

    for dtype in (torch.float16, torch.bfloat16):
        embeddings: Any = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 6))).to(dtype)
        result = bundle.base_rewards(embeddings.as_subclass(Elsewhere))
        assert result.dtype == dtype
        torch.testing.assert_close(
            result.as_subclass(torch.Tensor).float(), bundle.base_rewards(embeddings.float()), atol=0.1, rtol=0
        )
    assert read == ["base_rewards.onnx"]


def test_why_a_gpu_did_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And on a GPU no plan of memory is kept for every shape: the CPU, whose batches are small, keeps them."""
    graph, asked = export_base_rewards(module()), []

    def start_on(self: GraphSession, runtime: Any, graph: bytes, options: Any, providers: list[str]) -> Any:
        asked.append((providers[0], options.enable_mem_pattern))
        if providers[0] != "CPUExecutionProvider":
            raise RuntimeError("CUDA failure 101:\n invalid device ordinal")
        return opened(graph)

    monkeypatch.setattr(GraphSession, "_start_on", start_on)
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)

    def session(**settings: Any) -> GraphSession:
        names = frozenset(["embedding"]), frozenset(["base_rewards"])
        return GraphSession("x.onnx", lambda: graph, *names, Settings(**settings))

    with pytest.raises(ProviderError, match=r"CPUExecutionProvider \(CUDA failure 101: invalid device ordinal\)\."):
        _ = session(providers="cuda", strict_providers=True).providers
    lenient = session(providers="cuda")
    assert (lenient.on_cpu, lenient.on_cuda) == (True, False)
    assert session(providers="cpu").on_cpu
    gpu, cpu = (both[0], False), (both[1], False)
    assert asked == [gpu, cpu, gpu, cpu, (both[1], True)]
