"""An encoder's graph in 8-bit integers, for CPUs: what hurts stays in float32.

Weights are rounded once, per output channel; what flows between them is rounded as it comes, with one range per batch
(dynamic quantisation). A single large activation widens that range for all, so some matrix products lose far more than
others: each is tried alone, and the worst keep their precision.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.encoders.export.graphs import finished
from mrm_sdk.errors import ConfigurationError, MissingDependencyError
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.runtime.providers import CPU, onnxruntime

FLOAT_SHARE = 0.25

Batch = Mapping[str, NDArray[Any]]


def quantise(
    graph: bytes,
    batches: Sequence[Batch],
    *,
    float_share: float = FLOAT_SHARE,
    progress: Progress = no_progress,
) -> bytes:
    """Rounds the weights of matrix products to 8 bits, but for those whose rounding moves the output most.

    Args:
        graph: of an encoder in float32, whose first output is [batch, D].
        batches: inputs of the graph, to measure on.
        float_share: share of matrix products that stay in float32.
        progress: called with stage, done, total.

    Returns:
        The graph with the same inputs and outputs.

    Raises:
        ConfigurationError: the graph holds no matrix product with a constant.
        MissingDependencyError: the extra ``[train]`` is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError.of("onnx", "train", "Quantising") from None
    model = onnx.load_model_from_string(graph)
    products = _products(model)
    if not products:
        raise ConfigurationError("This graph holds no matrix product with a constant; int8 would change nothing.")
    expected = _outputs(graph, batches)
    damage = []
    for number, product in enumerate(products):
        alone = _rounded(model, [other for other in products if other != product])
        damage.append(_distance(_outputs(alone, batches), expected))
        progress("quantising", number + 1, len(products))
    worst = np.argsort(damage)[::-1][: round(float_share * len(products))]
    return _rounded(model, [products[number] for number in worst])


def _products(model: Any) -> list[str]:
    """Names of the nodes that multiply by a constant matrix."""
    constants = {initializer.name for initializer in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants]


def _rounded(model: Any, float_nodes: list[str]) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    # Says that shapes were looked at, without which the library advises, on the root logger, to have that done.
    add_pre_process_metadata(copied)
    with tempfile.TemporaryDirectory(prefix="mrm-") as scratch:
        path = Path(scratch) / "int8.onnx"
        quantize_dynamic(
            copied,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=float_nodes,
        )
        rounded = onnx.load(str(path))
    del rounded.metadata_props[:]
    return finished(rounded, check=False)  # the checker does not know the runtime's own operators


def _outputs(graph: bytes, batches: Sequence[Batch]) -> NDArray[np.float32]:
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(graph, options, providers=[CPU])
    return np.concatenate([session.run(None, dict(batch))[0] for batch in batches])


def _distance(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Mean distance of vectors [n, D] from what they should be, relative to their length."""
    length = np.maximum(np.linalg.norm(expected, axis=1), 1e-12)
    return float((np.linalg.norm(vectors - expected, axis=1) / length).mean())
