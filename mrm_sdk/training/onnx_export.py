"""φ as graphs: for embeddings, in three precisions, and joined to an encoder's graph; imports encoders and the model."""

from __future__ import annotations

from typing import Any

import torch

from mrm_sdk.bundle.loading import EMBEDDING, REWARDS
from mrm_sdk.encoders.graphs import finished, to_onnx
from mrm_sdk.encoders.onnx import HANDCRAFTED, POOLED
from mrm_sdk.training.model import BaseRewards


def export_base_rewards(module: BaseRewards, dtype: torch.dtype = torch.float32) -> bytes:
    """φ as a graph ``embedding`` [batch, D] -> ``base_rewards`` [batch, K], both of ``dtype``.

    Raises:
        MissingDependencyError: the extra ``[train]`` is not installed.
    """
    weight, bias = module.weight.detach().to(dtype), module.bias.detach().to(dtype)
    example = torch.zeros(2, weight.shape[1], dtype=dtype)
    batch = {0: torch.export.Dim("batch")}
    return to_onnx(BaseRewards(weight, bias), {EMBEDDING: example}, {EMBEDDING: batch}, REWARDS)


def join_base_rewards(encoder: bytes, module: BaseRewards, features: int = 0) -> bytes:
    """An encoder's graph with φ behind it: where only ``base_rewards`` are asked for, embeddings stay on the device.

    Args:
        encoder: a graph that gives ``pooled`` [batch, D − features].
        module: φ [batch, D] -> [batch, K].
        features: how many handcrafted features the graph is to take as ``handcrafted`` [batch, features].

    Returns:
        The same graph with the output ``base_rewards`` beside ``pooled``.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_model_from_string(encoder)
    graph = model.graph
    given = POOLED
    if features:
        graph.input.append(_value(HANDCRAFTED, features))
        graph.node.append(helper.make_node("Concat", [POOLED, HANDCRAFTED], ["mrm_embedding"], axis=1))
        given = "mrm_embedding"
    weight, bias = module.weight.detach().float().numpy(), module.bias.detach().float().numpy()
    graph.initializer.append(numpy_helper.from_array(weight, "mrm_weight"))
    graph.initializer.append(numpy_helper.from_array(bias, "mrm_bias"))
    graph.node.append(helper.make_node("Gemm", [given, "mrm_weight", "mrm_bias"], [REWARDS], transB=1))
    graph.output.append(_value(REWARDS, len(bias)))
    return finished(model, check=not any(part.external_data for part in graph.initializer))


def _value(name: str, width: int) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
