"""The files of a bundle or an encoder: hashed, verified, and too large for memory at times."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from mrm_sdk.errors import BundleDamagedError


def sha256_of(data: bytes | Path) -> str:
    """SHA-256 of bytes, or of a file's, in hexadecimal."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, data: bytes | Path) -> None:
    """Writes bytes, or brings another file here: as a second name of it where the disk can, else as a copy."""
    if isinstance(data, bytes):
        path.write_bytes(data)
        return
    try:
        os.link(data, path)
    except OSError:
        shutil.copyfile(data, path)


def read_verified(path: Path, expected: str | None) -> bytes:
    """Returns a file's bytes.

    Raises:
        BundleDamagedError: the file is missing, unreadable, or its SHA-256 is not ``expected``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleDamagedError(f"{path} cannot be read: {error.strerror}") from None
    if sha256_of(data) != expected:
        raise _damaged(path)
    return data


def verify(path: Path, expected: str | None) -> None:
    """Makes sure of a file that is too large to be read into memory.

    Raises:
        BundleDamagedError: as for :func:`read_verified`.
    """
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise BundleDamagedError(f"{path} cannot be read: {error.strerror}") from None
    if actual != expected:
        raise _damaged(path)


def _damaged(path: Path) -> BundleDamagedError:
    return BundleDamagedError(
        f"{path} is not the file that was shipped: its SHA-256 differs from the manifest's. "
        "Where it was replaced while in use, open the bundle again; else copy it again from its source."
    )
