"""How far the vectors of an exported graph are from those of its model, and how far they may be."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import Precision
from mrm_sdk.errors import EncoderError

_PARITY: Final = 1e-4
_DIRECTIONS: Final = 64
# Of a text's vector with the model's own. Rounding costs far less (all-MiniLM-L6-v2: .999999 in float16, .996 in int8):
# .999 is a distance of 4.5 % of the length, about the probe's tolerance; .95 is 32 %, more than any rounding.
_HALF_COSINE: Final = 0.999
_INT8_COSINE: Final = 0.95
_LEAST_COSINE: Final = {"float16": _HALF_COSINE, "bfloat16": _HALF_COSINE, "int8": _INT8_COSINE}


def measure_parity(vectors: NDArray[np.float32], exact: NDArray[np.float32]) -> dict[str, float]:
    """Differences of vectors [n, D] from exact ones, and how often they would change which of two answers is better."""
    directions = np.random.default_rng(0).standard_normal((exact.shape[1], _DIRECTIONS))
    first, second = np.triu_indices(len(exact), 1)
    before, after = ((matrix @ directions)[first] > (matrix @ directions)[second] for matrix in (exact, vectors))
    return {
        "texts": len(exact),
        "largest_difference": float(np.abs(vectors - exact).max()),
        "least_cosine": _least_cosine(vectors, exact),
        "orders_changed": float((before != after).mean()),
    }


def _least_cosine(vectors: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(exact, axis=1)
    return float(((vectors * exact).sum(1) / np.maximum(lengths, 1e-12)).min())


def require_parity(name: str, precision: Precision, vectors: NDArray[np.float32], exact: NDArray[np.float32]) -> None:
    """Checks vectors [n, D] against the model's own.

    Raises:
        EncoderError: they are not finite, or too far from them for ``precision``.
    """
    if not np.isfinite(exact).all():
        raise EncoderError(f"{name} gives NaN or infinity for ordinary text: its weights are damaged.")
    if not np.isfinite(vectors).all():
        raise EncoderError(f"{name} overflows in {precision}; export it as bfloat16 or float32.")
    difference = float(np.abs(vectors - exact).max())
    if precision == "float32" and difference > _PARITY * max(1.0, float(np.abs(exact).max())):
        raise EncoderError(f"The graph of {name} differs from the model by {difference:.2e}; nothing was written.")
    least, cosine = _LEAST_COSINE.get(precision), _least_cosine(vectors, exact)
    if least is not None and not cosine >= least:
        raise EncoderError(
            f"{name} in {precision} has a cosine of {cosine:.4f} to the model's own vector for one text, where {least} "
            "is the least that is of use; nothing was written. Export it in another precision."
        )
