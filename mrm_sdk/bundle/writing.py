"""Writes a bundle so that a reader sees the whole of it or nothing; imports the manifest and safetensors."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from mrm_sdk.bundle.manifest import (
    BASE_REWARDS,
    ENCODER,
    MANIFEST,
    PRIOR,
    TOKENIZER,
    Adaptation,
    EncoderSpec,
    FileName,
    Manifest,
)
from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.errors import OutputError


def check_output(path: Path) -> None:
    """Makes sure, before any work is done, that a bundle can be written to ``path``.

    Raises:
        OutputError: its parent cannot be written, or something that is no bundle stands there.
    """
    try:
        if path.exists() and not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
            raise OutputError(f"{path} exists and is no bundle; it is left as it is. Choose another place.")
        existing = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryDirectory(prefix=".mrm-", dir=existing).cleanup()
    except OSError as error:
        raise OutputError(f"Cannot write to {path.parent}: {error.strerror}. Choose another place.") from None


def write_bundle(
    path: Path,
    *,
    name: str,
    sdk_version: str,
    licence: str,
    encoder: EncoderSpec,
    adaptation: Adaptation,
    base_rewards: bytes,
    prior: Prior,
    encoder_files: tuple[bytes, bytes] | None,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Manifest:
    """Writes all files into a folder beside ``path``, then moves it there; an older bundle is replaced only then.

    Raises:
        OutputError: the disk refused; what stood at ``path`` still stands.
    """
    check_output(path)
    tensors = {key: tensor.detach().contiguous() for key, tensor in prior._asdict().items()}
    contents: dict[FileName, bytes] = {BASE_REWARDS: base_rewards, PRIOR: save(tensors)}
    if encoder_files is not None:
        contents[ENCODER], contents[TOKENIZER] = encoder_files
    manifest = Manifest(
        name=name,
        sdk_version=sdk_version,
        licence=licence,
        base_functions=prior.w0.shape[0],
        dimension=encoder.dimension,
        encoder=encoder,
        adaptation=adaptation,
        training=dict(training),
        metrics=dict(metrics),
        files={file: hashlib.sha256(data).hexdigest() for file, data in contents.items()},
    ).identified()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mrm-", dir=path.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir(mode=0o755)
            for file, data in contents.items():
                (new / file).write_bytes(data)
            (new / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
            if path.exists():
                os.rename(path, old)
            try:
                os.rename(new, path)
            except OSError:
                if old.exists():
                    shutil.move(old, path)
                raise
    except OSError as error:
        raise OutputError(f"Cannot write the bundle to {path}: {error.strerror}") from None
    return manifest
