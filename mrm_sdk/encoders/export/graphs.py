"""Torch modules -> ONNX graphs as they ship: no trace of the machine, weights inside while they fit."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch import onnx as torch_onnx

from mrm_sdk.errors import MissingDependencyError


def to_onnx(
    module: nn.Module,
    example: Mapping[str, Tensor],
    dynamic_shapes: Mapping[str, Any],
    output: str,
    *,
    data: Path | None = None,
) -> bytes:
    """Exports a module as one graph.

    Args:
        module: takes the example's tensors by name.
        example: inputs, with at least 2 rows.
        dynamic_shapes: which of their sizes may change, as ``torch.export`` takes it.
        output: the output's name; one that equals a name inside the module makes an invalid graph.
        data: a file to write the weights to, where the graph would not fit into the 2 GB of a protobuf message.

    Raises:
        MissingDependencyError: the extra ``[train]`` is not installed.
    """
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
            program = torch_onnx.export(
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
    if data is None:
        return finished(program.model_proto)
    graph = data.with_suffix(".graph")
    program.save(str(graph), external_data=True)
    written = graph.with_name(f"{graph.name}.data")
    model = onnx.load(str(graph), load_external_data=False)
    for initializer in model.graph.initializer:
        for entry in initializer.external_data:
            if entry.key == "location":
                entry.value = data.name
    graph.unlink()
    written.replace(data)
    return finished(model, check=False)


def finished(model: Any, *, check: bool = True) -> bytes:
    """The bytes of a graph without what tells of the exporting machine: paths in stack traces, on every node."""
    import onnx

    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del graph.value_info[:]
    for function in model.functions:
        for part in (function, *function.node, *function.value_info):
            del part.metadata_props[:]
            part.ClearField("doc_string")
    if check:
        onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
