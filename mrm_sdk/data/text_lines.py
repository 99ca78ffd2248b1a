"""Lines of a text file, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from mrm_sdk.errors import DatasetError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields ``(number, line)``, counted from 1; bytes that are not UTF-8 become lone surrogates (:func:`is_utf8`).

    Raises:
        DatasetError: the file cannot be read.
    """
    number = 0
    try:
        with _open(path) as file:
            if any(file.buffer.peek(2).startswith(mark) for mark in _UTF_16):  # type: ignore[attr-defined]  # TextIO hides it
                raise DatasetError(f"{path} is UTF-16 text, not UTF-8. Save it as UTF-8.")
            for number, line in enumerate(file, 1):
                yield number, line
    except (OSError, EOFError, zlib.error) as error:  # gzip reports damage as any of these
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read after line {number}: {reason}") from None


def is_utf8(text: str) -> bool:
    """Whether a text out of :func:`lines` was valid UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _open(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=""))
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
