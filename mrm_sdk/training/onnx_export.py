"""Torch modules -> ONNX graphs as they ship: one file, no trace of the machine, checked against torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mrm_sdk.encoders.onnx import INPUTS
from mrm_sdk.errors import MissingDependencyError
from mrm_sdk.training.model import BaseRewards


def export_base_rewards(module: BaseRewards) -> bytes:
    """φ as a graph ``embedding`` [batch, D] -> ``base_rewards`` [batch, K].

    Raises:
        MissingDependencyError: the extra ``[train]`` is not installed.
    """
    example = torch.zeros(2, module.weight.shape[1])
    batch = {0: torch.export.Dim("batch")}
    return _export(module, {"embedding": example}, {"embedding": batch}, "base_rewards")


def export_encoder(module: nn.Module) -> bytes:
    """An encoder as a graph from three token inputs [batch, tokens] to ``pooled`` [batch, D].

    Raises:
        MissingDependencyError: the extra ``[train]`` is not installed.
    """
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    example = {name: torch.ones(2, 7, dtype=torch.int64) for name in INPUTS}
    # An output called "embedding" would clash with a name inside the graph.
    return _export(module, example, dict.fromkeys(INPUTS, sizes), "pooled")


def _export(module: nn.Module, example: Mapping[str, Tensor], dynamic_shapes: Mapping[str, Any], output: str) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401  the exporter needs it, and says so less clearly
    except ImportError:
        raise MissingDependencyError.of("onnx and onnxscript", "train", "Exporting to ONNX") from None
    # The exporter warns of operators of packages that are not installed, and of its own deprecations.
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                kwargs=dict(example),
                dynamo=True,
                dynamic_shapes=dict(dynamic_shapes),
                input_names=list(example),
                output_names=[output],
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # noqa: S101  with dynamo=True there always is one
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(model: Any) -> None:
    """Removes what tells of the exporting machine: stack traces with file paths on every node and value."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del graph.value_info[:]
    for function in model.functions:
        for part in (function, *function.node, *function.value_info):
            del part.metadata_props[:]
            part.ClearField("doc_string")
