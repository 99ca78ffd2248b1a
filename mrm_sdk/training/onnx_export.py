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
_KNOWN, _SQUARES, _CENTRE = "mrm_known", "mrm_known_squares", "mrm_centre"
_NEARNESS, _RESIDUAL = "mrm_nearness", "mrm_known_residual"
_AXES, _ONE = "mrm_axes", "mrm_one"


def export_base_rewards(module: BaseRewards, dtype: torch.dtype = torch.float32) -> bytes:
    """φ as a graph ``embedding`` [batch, D] -> ``base_rewards`` [batch, K], both of ``dtype``.

    φ is linear, so without known texts the graph is one Gemm node; writing it down takes a thousandth of what tracing
    it would.

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
        _nodes(EMBEDDING, module, dtype),
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
    graph.node.extend(_nodes(input_name, module))
    graph.output.append(helper.make_tensor_value_info(REWARDS, TensorProto.FLOAT, ["batch", len(module.bias)]))
    return finished(model, check=not any(part.external_data for part in graph.initializer))


def _nodes(embedding: str, module: BaseRewards, dtype: torch.dtype = torch.float32) -> list[Any]:
    """φ of the tensor called ``embedding``, as :class:`BaseRewards` computes it."""
    from onnx import helper

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs, [output], name=f"{output}_{kind.lower()}", **attributes)

    if module.known is None:
        return [node("Gemm", [embedding, _WEIGHT, _BIAS], REWARDS, transB=1)]
    single = _kind(torch.float32)  # half precision could not tell small distances apart
    exact = dtype == torch.float32
    nodes = [] if exact else [node("Cast", [embedding], "mrm_single", to=single)]
    nodes += [
        node("Gemm", [embedding, _WEIGHT, _BIAS], "mrm_linear", transB=1),
        node("Sub", [embedding if exact else "mrm_single", _CENTRE], "mrm_centred"),
        node("Gemm", ["mrm_centred", _KNOWN], "mrm_products", transB=1, alpha=-2.0),
        node("Mul", ["mrm_centred", "mrm_centred"], "mrm_squared"),
        node("ReduceSum", ["mrm_squared", _AXES], "mrm_squares", keepdims=1),
        node("Sum", ["mrm_products", "mrm_squares", _SQUARES], "mrm_distances"),
        node("Less", ["mrm_distances", _NEARNESS], "mrm_is_same"),
        node("Cast", ["mrm_is_same"], "mrm_same", to=single),
        node("ReduceSum", ["mrm_same", _AXES], "mrm_found", keepdims=1),
        node("Max", ["mrm_found", _ONE], "mrm_count"),
        node("Div", ["mrm_same", "mrm_count"], "mrm_share"),
    ]
    if exact:
        return [*nodes, node("Gemm", ["mrm_share", _RESIDUAL, "mrm_linear"], REWARDS)]
    return [
        *nodes,
        node("MatMul", ["mrm_share", _RESIDUAL], "mrm_exact_residual"),
        node("Cast", ["mrm_exact_residual"], "mrm_residual", to=_kind(dtype)),
        node("Add", ["mrm_linear", "mrm_residual"], REWARDS),
    ]


def _constants(module: BaseRewards, dtype: torch.dtype) -> list[Any]:
    from onnx import helper

    tensors = {_WEIGHT: module.weight.detach().to(dtype), _BIAS: module.bias.detach().to(dtype)}
    if module.known is not None:
        known = module.known
        # As a graph of this type would be given them: an embedding in half precision is compared with one that was
        # rounded in the same way.
        embedding = (known.embedding + known.centre).to(dtype).float() - known.centre
        tensors |= {
            _KNOWN: embedding,
            _CENTRE: known.centre,
            _SQUARES: embedding.square().sum(1),
            _RESIDUAL: known.residual,
            _NEARNESS: torch.tensor(known.nearness),
            _ONE: torch.ones(()),
            _AXES: torch.ones(1, dtype=torch.int64),
        }
    return [
        helper.make_tensor(name, _kind(tensor.dtype), tensor.shape, _bytes(tensor), raw=True)
        for name, tensor in tensors.items()
    ]


def _bytes(tensor: torch.Tensor) -> bytes:
    # Not through numpy: it has no bfloat16.
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _kind(dtype: torch.dtype) -> int:
    from onnx import TensorProto

    kinds = {
        torch.float32: TensorProto.FLOAT,
        torch.float16: TensorProto.FLOAT16,
        torch.bfloat16: TensorProto.BFLOAT16,
        torch.int64: TensorProto.INT64,
    }
    return int(kinds[dtype])
