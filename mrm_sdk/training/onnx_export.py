"""φ as graphs: for embeddings, in three precisions, and joined to an encoder's graph."""

from __future__ import annotations

from typing import Any

import torch

from mrm_sdk.bundle.bundle import EMBEDDING, REWARDS
from mrm_sdk.encoders.export.graphs import finished
from mrm_sdk.encoders.onnx import HANDCRAFTED, POOLED
from mrm_sdk.errors import MissingDependencyError
from mrm_sdk.training.model import BaseRewards

# What every ONNX Runtime that this package accepts can read.
_OPSET, _IR = 17, 9
_WEIGHT, _BIAS, _JOINED = "mrm_weight", "mrm_bias", "mrm_embedding"


def export_base_rewards(module: BaseRewards, dtype: torch.dtype = torch.float32) -> bytes:
    """φ as a graph ``embedding`` [batch, D] -> ``base_rewards`` [batch, K], both of ``dtype``.

    φ is linear, so the graph is one Gemm node; writing it down takes a thousandth of what tracing it would.

    Raises:
        MissingDependencyError: the extra ``[train]`` is not installed.
    """
    try:
        from onnx import helper
    except ImportError:
        raise MissingDependencyError.of("onnx", "train", "Exporting to ONNX") from None
    kind = _kind(dtype)
    functions, dimension = module.weight.shape
    graph = helper.make_graph(
        [_gemm(EMBEDDING)],
        "base_rewards",
        [helper.make_tensor_value_info(EMBEDDING, kind, ["batch", dimension])],
        [helper.make_tensor_value_info(REWARDS, kind, ["batch", functions])],
        _constants(module, dtype),
    )
    return finished(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR))


def join_base_rewards(encoder: bytes, module: BaseRewards, handcrafted_count: int = 0) -> bytes:
    """An encoder's graph with φ behind it: where only ``base_rewards`` are asked for, embeddings stay on the device.

    Args:
        encoder: a graph that gives ``pooled`` [batch, D − handcrafted_count].
        module: φ [batch, D] -> [batch, K].
        handcrafted_count: how many features the graph is to take as ``handcrafted`` [batch, handcrafted_count].

    Returns:
        The same graph with the output ``base_rewards`` beside ``pooled``.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_model_from_string(encoder)
    graph = model.graph
    input_name = POOLED
    if handcrafted_count:
        graph.input.append(helper.make_tensor_value_info(HANDCRAFTED, TensorProto.FLOAT, ["batch", handcrafted_count]))
        graph.node.append(helper.make_node("Concat", [POOLED, HANDCRAFTED], [_JOINED], axis=1))
        input_name = _JOINED
    graph.initializer.extend(_constants(module, torch.float32))
    graph.node.append(_gemm(input_name))
    graph.output.append(helper.make_tensor_value_info(REWARDS, TensorProto.FLOAT, ["batch", len(module.bias)]))
    return finished(model, check=not any(part.external_data for part in graph.initializer))


def _gemm(input_name: str) -> Any:
    from onnx import helper

    return helper.make_node("Gemm", [input_name, _WEIGHT, _BIAS], [REWARDS], name=f"{REWARDS}_gemm", transB=1)


def _constants(module: BaseRewards, dtype: torch.dtype) -> list[Any]:
    from onnx import helper

    return [
        helper.make_tensor(name, _kind(dtype), tensor.shape, _bytes(tensor.detach().to(dtype)), raw=True)
        for name, tensor in ((_WEIGHT, module.weight), (_BIAS, module.bias))
    ]


def _bytes(tensor: torch.Tensor) -> bytes:
    # Not through numpy: it has no bfloat16.
    return bytes(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def _kind(dtype: torch.dtype) -> int:
    from onnx import TensorProto

    kinds = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16, torch.bfloat16: TensorProto.BFLOAT16}
    return int(kinds[dtype])
