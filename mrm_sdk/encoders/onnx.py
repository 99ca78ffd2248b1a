"""The encoder that travels in a bundle: tokens -> pooled vector, run by ONNX Runtime; imports bundle and tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.loading import Bundle
from mrm_sdk.bundle.manifest import ENCODER, TOKENIZER
from mrm_sdk.bundle.providers import GraphSession
from mrm_sdk.errors import BundleMismatchError
from mrm_sdk.settings import Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class OnnxEncoder:
    """Encodes a response, or a prompt and a response as a pair of segments, with one ONNX graph.

    The longer of prompt and response is truncated first, so that neither pushes the other out.

    Args:
        graph: returns the bytes of a graph from ``input_ids``, ``attention_mask`` and ``token_type_ids``
            ([batch, tokens] int64) to one vector per row ([batch, D] float32).
        tokenizer: bytes of a ``tokenizer.json``.
        dimension: D.
        max_tokens: longer inputs are truncated.
        fingerprint: identifies graph, tokenizer and truncation.
        settings: batch size, execution providers, threads.

    Raises:
        BundleMismatchError: the tokenizer cannot be read.
    """

    def __init__(
        self,
        graph: Callable[[], bytes],
        tokenizer: bytes,
        *,
        dimension: int,
        max_tokens: int,
        fingerprint: str,
        settings: Settings,
    ) -> None:
        self.dimension = dimension
        self.fingerprint = fingerprint
        self._batch_size = settings.encode_batch_size
        self._tokenizer = _tokenizer(tokenizer, max_tokens)
        self._session = GraphSession(ENCODER, graph, frozenset(INPUTS), settings)

    @classmethod
    def of(cls, bundle: Bundle) -> OnnxEncoder:
        """Opens the encoder that ``bundle`` carries."""
        spec = bundle.manifest.encoder
        return cls(
            lambda: bundle.read(ENCODER),
            bundle.read(TOKENIZER),
            dimension=spec.dimension,
            max_tokens=spec.max_tokens,
            fingerprint=spec.fingerprint,
            settings=bundle.settings,
        )

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Encodes (prompt or ``None``, response) pairs: n of them -> [n, D].

        Texts of similar length share a batch, so that little is spent on padding.
        """
        tokens = [
            self._tokenizer.encode(response) if prompt is None else self._tokenizer.encode(prompt, response)
            for prompt, response in texts
        ]
        out = np.empty((len(texts), self.dimension), np.float32)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i].ids))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            batch = np.zeros((3, len(rows), max(1, len(tokens[rows[-1]].ids))), np.int64)
            for row, index in enumerate(rows):
                length = len(tokens[index].ids)
                batch[0, row, :length] = tokens[index].ids
                batch[1, row, :length] = 1
                batch[2, row, :length] = tokens[index].type_ids
            out[rows] = self._session.run(dict(zip(INPUTS, batch, strict=True)))
        return out


def _tokenizer(data: bytes, max_tokens: int) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # noqa: BLE001  the library raises plain Exception
        raise BundleMismatchError(f"{TOKENIZER} cannot be read: {error}") from None
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer
