"""An encoder with handcrafted features beside its vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import Handcrafted, handcrafted_fingerprint
from mrm_sdk.encoders.base import Encoder, close
from mrm_sdk.encoders.handcrafted import NAMES, VERSION, Statistics, count_features
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.encoders.refusals import held_vectors
from mrm_sdk.encoders.text_key import text_key
from mrm_sdk.errors import BundleMismatchError, TextRefusedError


class WithHandcrafted:
    """Encodes text as an encoder's vector [D] and standardised features [F] beside it, D + F numbers.

    Args:
        encoder: gives the vector.
        handcrafted: statistics of the training items.

    Raises:
        BundleMismatchError: the features are of another version than this package measures.
    """

    def __init__(self, encoder: Encoder, handcrafted: Handcrafted) -> None:
        if handcrafted.version != VERSION or len(handcrafted.mean) != len(NAMES):
            raise BundleMismatchError(
                f"The bundle's handcrafted features are of version {handcrafted.version}, this package measures "
                f"version {VERSION}: train the bundle again, or install the version of mrm-sdk that made it."
            )
        self._encoder = encoder
        self._statistics = Statistics(handcrafted.mean, handcrafted.scale, handcrafted.limit)
        self.dimension = encoder.dimension + len(NAMES)
        self.fingerprint = handcrafted_fingerprint(encoder.fingerprint, handcrafted)
        self.features_hash = encoder.features_hash if isinstance(encoder, OnnxEncoder) else None

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Encodes (prompt or ``None``, response) pairs: n of them -> [n, D + F]; raises what its encoder raises."""
        try:
            vectors = self._encoder.encode(texts)
        except TextRefusedError as error:
            known = held_vectors(error, texts, self._encoder.fingerprint, self._encoder.dimension)
            taken = [texts[i] for i in known]
            wider = self._beside(np.array(list(known.values())), taken) if known else ()
            error.vectors = {text_key(self.fingerprint, *text): row for text, row in zip(taken, wider, strict=True)}
            raise
        return self._beside(vectors, texts)

    def _beside(self, vectors: NDArray[np.float32], texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        return np.concatenate([vectors, self._statistics.apply(count_features(texts))], axis=1)

    def close(self) -> None:
        """Closes the encoder, if it can be closed."""
        close(self._encoder)

    def base_rewards(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Base rewards of texts, [n, K], if they are joined to the encoder's graph."""
        assert isinstance(self._encoder, OnnxEncoder)  # noqa: S101  only it has a features_hash
        return self._encoder.base_rewards(texts, self._statistics.apply(count_features(texts)))
