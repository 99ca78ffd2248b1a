"""The protocol of an encoder, and items with and without embeddings as one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.encoders.refusals import Text, encode_accepted
from mrm_sdk.errors import EmbeddingError
from mrm_sdk.schemas.items import Item


class Encoder(Protocol):
    """Turns text into embeddings; a host may bring its own.

    :class:`mrm_sdk.testing.EncoderContract` tests what it promises: a text's vector is the same in every call, every
    batch and every thread, and ``fingerprint`` changes whenever the vectors do, because stored features belong to it.
    """

    @property
    def dimension(self) -> int:
        """D, the length of an embedding."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the encoder: equal fingerprints promise equal vectors."""
        ...

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Encodes (prompt or ``None``, response) pairs: n of them -> [n, D] finite float32.

        Raises:
            TextRefusedError: it will never take some of these texts.
        """
        ...


def embed(encoder: Encoder, items: Sequence[Item], refused: dict[int, str] | None = None) -> NDArray[np.float32]:
    """Returns the embeddings [n, D] of items: their own if they have one, else the encoder's.

    Args:
        encoder: encodes items without an embedding.
        items: n of them.
        refused: gets, by index, why an item's text is not taken; its row is zeros. Without it, that is an error.

    Raises:
        EmbeddingError: an item's own embedding is not of D numbers.
        EncoderError: the encoder failed, or returned something else than finite [n, D].
    """
    out = np.zeros((len(items), encoder.dimension), np.float32)
    texts: list[int] = []
    for index, item in enumerate(items):
        if item.embedding is not None:
            out[index] = check_dimension(item.embedding, encoder.dimension)
        else:
            texts.append(index)
    if texts:
        not_taken: dict[int, str] | None = None if refused is None else {}
        out[texts] = encode_accepted(
            encoder.encode, [_text(items[i]) for i in texts], encoder.dimension, not_taken, encoder.fingerprint
        )
        if refused is not None:
            refused.update((texts[i], reason) for i, reason in (not_taken or {}).items())
    return out


def _text(item: Item) -> Text:
    return item.prompt, item.text or ""


class JoinedEncoder(Encoder, Protocol):
    """An encoder whose graph also gives base rewards, so that embeddings never leave the device."""

    @property
    def features_hash(self) -> str | None:
        """Identifies encoder and base rewards of the bundle they come from; ``None`` without base rewards."""
        ...

    def base_rewards(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Base rewards of (prompt or ``None``, response) pairs: n of them -> [n, K]."""
        ...


def base_rewards(
    encoder: Encoder, bundle: Bundle, items: Sequence[Item], refused: dict[int, str] | None = None
) -> NDArray[np.float32]:
    """φ of items, [n, K]: by one graph if all are text and the bundle has a joined graph, else by two.

    Args:
        encoder: of the bundle.
        bundle: base reward functions.
        items: n of them.
        refused: as for :func:`embed`; the rows of refused items mean nothing.

    Raises:
        EmbeddingError: an item's own embedding is not of D numbers.
        EncoderError: the encoder failed.
    """
    if getattr(encoder, "features_hash", None) == bundle.features_hash and all(
        item.embedding is None for item in items
    ):
        joined = cast(JoinedEncoder, encoder)
        return encode_accepted(joined.base_rewards, list(map(_text, items)), bundle.manifest.base_functions, refused)
    return bundle.base_rewards(embed(encoder, items, refused))


def close(encoder: Encoder) -> None:
    """Closes an encoder that holds connections or files open; others need no closing."""
    if callable(closing := getattr(encoder, "close", None)):
        closing()


def check(encoder: Encoder, item: Item) -> None:
    """Makes sure that an item can be embedded.

    Raises:
        EmbeddingError: its own embedding has another length than the encoder's.
        EncoderError: it has only text, and this encoder takes none.
    """
    if item.embedding is not None:
        check_dimension(item.embedding, encoder.dimension)
    elif not getattr(encoder, "takes_text", True):
        encoder.encode([(item.prompt, item.text or "")])


def check_dimension(embedding: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Returns ``embedding`` if it has ``dimension`` numbers.

    Raises:
        EmbeddingError: it has another length.
    """
    if embedding.shape != (dimension,):
        raise EmbeddingError(
            f"An embedding has {embedding.shape[0]} numbers where this encoder's have {dimension}. "
            "Use the encoder that the bundle was trained with."
        )
    return embedding
