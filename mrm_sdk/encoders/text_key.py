"""What stands for a text under an encoder, where the text itself must not be."""

from __future__ import annotations

import hashlib


def text_key(fingerprint: str, prompt: str | None, response: str) -> bytes:
    """SHA-256 that stands for a text under an encoder's fingerprint: 32 bytes; no prompt is not an empty prompt.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
    """
    hashed = hashlib.sha256(fingerprint.encode())
    for part in (None if prompt is None else prompt.encode(), response.encode()):
        # Lengths go in, so that no two pairs of texts give the same bytes.
        hashed.update(b"-" if part is None else b"%d:" % len(part) + part)
    return hashed.digest()
