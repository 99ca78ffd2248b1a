"""Texts that an encoder does not take, told from those that it does: one bad text never holds up the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT
from mrm_sdk.encoders.text_key import text_key
from mrm_sdk.errors import EncoderError, MrmError, TextRefusedError

# A prompt, or none, and a response.
Text: TypeAlias = tuple[str | None, str]
Encode: TypeAlias = Callable[[Sequence[Text]], NDArray[np.float32]]

# How often a text must fail by itself, while a fixed one passes, before it is held to be at fault.
_ATTEMPTS = 3
_NOT_FINITE = "The encoder returned NaN or infinity."
_NO_REASON = "the encoder gives no reason"


def encode_accepted(
    encode: Encode,
    texts: Sequence[Text],
    width: int,
    refused: dict[int, str] | None,
    fingerprint: str | None = None,
) -> NDArray[np.float32]:
    """What ``encode`` makes of texts, [n, width].

    Args:
        encode: of an encoder; a host's may raise anything.
        texts: n of them.
        width: of a row.
        refused: gets, by index, why a text is not taken; its row is zeros. Without it, that is an error.
        fingerprint: of the encoder, whose errors may hold vectors of ``width`` numbers; ``None``: they are not used.

    Raises:
        EncoderError: the encoder failed, or returned something else than finite [n, width].
    """
    out = np.zeros((len(texts), width), np.float32)
    rows = list(range(len(texts)))
    while rows:
        part = [texts[row] for row in rows]
        try:
            encoded = np.asarray(encode(part), np.float32)
        except Exception as error:  # noqa: BLE001  a host's encoder may raise anything
            if refused is None:
                _raise_ours(error)
            reasons = _reasons(encode, part, error)
            refused.update((rows[i], reason) for i, reason in reasons.items())
            known = {} if fingerprint is None else held_vectors(error, part, fingerprint, width)
            known = {i: vector for i, vector in known.items() if i not in reasons}
            for i, vector in known.items():
                out[rows[i]] = vector
            rows = [row for i, row in enumerate(rows) if i not in reasons and i not in known]
            continue
        if encoded.shape != (len(rows), width):
            raise EncoderError(f"The encoder returned {list(encoded.shape)}, not {[len(rows), width]}.")
        finite = np.asarray(np.isfinite(encoded).all(axis=1))
        if not finite.all():
            if refused is None or not _is_fit(encode):
                raise EncoderError(_NOT_FINITE)
            refused.update((rows[i], _NOT_FINITE) for i in np.flatnonzero(~finite))
        out[rows] = np.where(finite[:, None], encoded, np.float32(0))
        break
    return out


def held_vectors(
    error: Exception, texts: Sequence[Text], fingerprint: str, width: int
) -> dict[int, NDArray[np.float32]]:
    """The finite vectors [width] that an encoder's error holds of some of these texts, by their index."""
    found: dict[int, NDArray[np.float32]] = {}
    if not isinstance(error, TextRefusedError) or not error.vectors:
        return found
    for i, (prompt, response) in enumerate(texts):
        try:
            vector = np.asarray(error.vectors[text_key(fingerprint, prompt, response)], np.float32)
        except (KeyError, TypeError, ValueError):  # not held, or no vector; a lone surrogate has no key
            continue
        if vector.shape == (width,) and np.isfinite(vector).all():
            found[i] = vector
    return found


def _reasons(encode: Encode, texts: Sequence[Text], error: Exception) -> dict[int, str]:
    """Why an encoder that failed does not take some of these texts, by their index; at least one.

    Raises:
        EncoderError: the failure, where it is not the texts' fault.
    """
    if isinstance(error, TextRefusedError):
        known = _named(error.reasons, len(texts))
        if known or len(texts) == 1:
            return known or {0: str(error).strip() or _NO_REASON}
    # Only these texts can be at fault if a fixed one passes; what the system reports (OSError: a network, a disk)
    # is no text's fault, and may be over in a moment.
    elif isinstance(error, MrmError | OSError) or _failure(encode, [PROBE_TEXT]) is not None:
        _raise_ours(error)
    elif len(texts) == 1:
        return _reason_of_one(encode, texts, error)
    found: dict[int, str] = {}
    half = len(texts) // 2
    for start, part in ((0, texts[:half]), (half, texts[half:])):
        failure = _failure(encode, part)
        if failure is not None:
            found.update((start + i, reason) for i, reason in _reasons(encode, part, failure).items())
    if not found:  # both halves pass: it is not one of the texts
        _raise_ours(error)
    return found


def _reason_of_one(encode: Encode, texts: Sequence[Text], error: Exception) -> dict[int, str]:
    """Why an encoder that takes a fixed text does not take this one, which it failed with once.

    Raises:
        EncoderError: the failure, where it passes: an outage that the encoder has no word for.
    """
    for _ in range(_ATTEMPTS - 1):
        again = _failure(encode, texts)
        if isinstance(again, TextRefusedError):
            return _reasons(encode, texts, again)
        if again is None or isinstance(again, MrmError | OSError):
            _raise_ours(again or error)
    return {0: f"the encoder fails with {type(error).__name__}"}


def _named(reasons: Mapping[Any, Any], count: int) -> dict[int, str]:
    """What a host's encoder says of texts, without what is no index of one."""
    return {
        int(i): str(reason or "").strip() or _NO_REASON
        for i, reason in reasons.items()
        if isinstance(i, Integral) and 0 <= int(i) < count
    }


def _is_fit(encode: Encode) -> bool:
    """Whether a fixed text gets finite numbers: if not, the encoder is at fault, and no text."""
    try:
        return bool(np.isfinite(np.asarray(encode([PROBE_TEXT]), np.float32)).all())
    except Exception:  # noqa: BLE001  as above
        return False


def _failure(encode: Encode, texts: Sequence[Text]) -> Exception | None:
    try:
        encode(texts)
    except Exception as error:  # noqa: BLE001  as above
        return error
    return None


def _raise_ours(error: Exception) -> NoReturn:
    if isinstance(error, MrmError):
        raise error
    raise EncoderError(f"The encoder failed with {type(error).__name__}; nothing was stored.") from error
