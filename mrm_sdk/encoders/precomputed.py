"""For teams that bring embeddings of their own: text alone is an error that says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import EncoderError


class PrecomputedEncoder:
    """Stands where an encoder would, and refuses text: every response must carry its embedding.

    Args:
        dimension: D, the length of the embeddings that the host brings.
        fingerprint: the host's name for the encoder that made them.
    """

    takes_text = False

    def __init__(self, dimension: int, fingerprint: str) -> None:
        self.dimension = dimension
        self.fingerprint = fingerprint

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Refuses.

        Raises:
            EncoderError: always; there is no encoder for text here.
        """
        raise EncoderError(
            "This bundle was trained on embeddings and carries no encoder: give Response(embedding=…) for every "
            "response, or pass the encoder that made them as Client(encoder=…)."
        )
