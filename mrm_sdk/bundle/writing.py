"""Writes a bundle so that a reader sees the whole of it or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from mrm_sdk.bundle.encoder_spec import EncoderSpec
from mrm_sdk.bundle.hashing import sha256_of, write_file
from mrm_sdk.bundle.manifest import MANIFEST, PRIOR, Adaptation, FileName, Manifest
from mrm_sdk.bundle.reference import Reference
from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.errors import OutputError


def check_output(path: Path, marker: str = MANIFEST) -> None:
    """Makes sure, before any work is done, that a folder can be written to ``path``.

    Args:
        path: of the folder.
        marker: the file by which an older folder of this kind, which may be replaced, is known.

    Raises:
        OutputError: its parent cannot be written, or something else stands there.
    """
    try:
        if path.exists() and not (path / marker).is_file() and not (path.is_dir() and not any(path.iterdir())):
            raise OutputError(f"{path} exists and holds no {marker}; it is left as it is. Choose another place.")
        existing = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryDirectory(prefix=".mrm-", dir=existing).cleanup()
    except OSError as error:
        raise OutputError(f"Cannot write to {path.parent}: {error.strerror}. Choose another place.") from None


def publish(path: Path, contents: Mapping[Any, bytes | Path], marker: str, description: str) -> None:
    """Writes files into a folder beside ``path``, then moves it there; an older folder is replaced only then.

    Args:
        path: of the folder.
        contents: files by name.
        marker: name of the file that ``description`` becomes, and by which an older folder is known.
        description: the manifest.

    Raises:
        OutputError: the disk refused; ``path`` is unchanged.
    """
    check_output(path, marker)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mrm-", dir=path.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir(mode=0o755)
            for file, data in contents.items():
                write_file(new / file, data)
            (new / marker).write_text(description + "\n", encoding="utf-8")
            if path.exists():
                os.rename(path, old)
            try:
                os.rename(new, path)
            except OSError:
                if old.exists():
                    shutil.move(old, path)
                raise
    except OSError as error:
        raise OutputError(f"Cannot write to {path}: {error.strerror}") from None


def write_bundle(
    path: Path,
    *,
    name: str,
    sdk_version: str,
    licence: str,
    encoder: EncoderSpec,
    adaptation: Adaptation,
    files: Mapping[FileName, bytes | Path],
    prior: Prior,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    reference: Reference | None = None,
) -> Manifest:
    """Writes all files into a folder beside ``path``, then moves it there; an older bundle is replaced only then.

    Args:
        path: the bundle's folder.
        files: base rewards and, where it travels along, the encoder; large ones as paths, which are linked or copied.
        prior: of the inner loop, as are ``adaptation``'s settings.
        name: as the other arguments, see :class:`Manifest`.
        sdk_version: that trained it.
        licence: of the training data.
        encoder: specification of the encoder.
        adaptation: the inner loop.
        training: settings and data of the training.
        metrics: what was measured.
        reference: what evaluations compare with.

    Raises:
        OutputError: the disk refused; ``path`` is unchanged.
    """
    tensors = {key: tensor.detach().contiguous() for key, tensor in prior._asdict().items()}
    tensors |= reference.tensors() if reference else {}
    contents: dict[FileName, bytes | Path] = {**files, PRIOR: save(tensors)}
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
        files={file: sha256_of(data) for file, data in contents.items()},
    ).identified()
    publish(path, contents, MANIFEST, manifest.model_dump_json(indent=2))
    return manifest
