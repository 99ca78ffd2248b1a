"""An exported encoder on disk, opened and verified, or written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from mrm_sdk.bundle.encoder_spec import ENCODER, TOKENIZER, EncoderFile, EncoderSpec
from mrm_sdk.bundle.hashing import read_verified, sha256_of, verify
from mrm_sdk.bundle.writing import publish
from mrm_sdk.errors import BundleDamagedError, BundleMismatchError, NotFoundError
from mrm_sdk.schemas.frozen import Frozen

ENCODER_JSON: Final = "encoder.json"


class EncoderManifest(Frozen):
    """What ``encoder.json`` holds.

    Args:
        format: of this file.
        sdk_version: that exported it.
        licence: of the model.
        encoder: what it is.
        metrics: what was measured when it was exported.
        files: SHA-256 of each file.
    """

    format: Literal[1] = 1
    sdk_version: str
    licence: str
    encoder: EncoderSpec
    metrics: dict[str, Any]
    files: dict[EncoderFile, str]


class EncoderFolder:
    """An encoder that ``mrm encoder export`` wrote, every file of it verified.

    Args:
        path: the folder.

    Raises:
        NotFoundError: there is no such folder, or it holds no encoder.
        BundleDamagedError: a file is missing or its bytes are not those that were exported.
        BundleMismatchError: it is of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = _read(path)
        for name, expected in self.manifest.files.items():
            verify(path / name, expected)

    def read(self, name: EncoderFile) -> bytes:
        """Returns the verified bytes of a file.

        Raises:
            BundleDamagedError: they are not those that were exported.
        """
        return read_verified(self.path / name, self.manifest.files.get(name))


def write_encoder(
    path: Path,
    contents: Mapping[EncoderFile, bytes | Path],
    *,
    spec: EncoderSpec,
    sdk_version: str,
    licence: str,
    metrics: Mapping[str, Any],
) -> EncoderManifest:
    """Writes an encoder so that a reader sees the whole of it or nothing; an older one at ``path`` is replaced.

    Raises:
        OutputError: the disk refused, or something else stands there.
    """
    hashes = {name: sha256_of(data) for name, data in contents.items()}
    manifest = EncoderManifest(
        sdk_version=sdk_version, licence=licence, encoder=spec, metrics=dict(metrics), files=hashes
    )
    publish(path, contents, ENCODER_JSON, manifest.model_dump_json(indent=2))
    return manifest


def _read(path: Path) -> EncoderManifest:
    try:
        raw = json.loads((path / ENCODER_JSON).read_text(encoding="utf-8"))
    except OSError:
        raise NotFoundError(
            f"{path} is no exported encoder: it has no {ENCODER_JSON}. Make one: mrm encoder export MODEL --out {path}"
        ) from None
    except (ValueError, RecursionError):
        raise BundleDamagedError(f"{path / ENCODER_JSON} is not JSON. Export the encoder again.") from None
    version = raw.get("format") if isinstance(raw, dict) else None
    if version != 1:
        raise BundleMismatchError(f"{path} has encoder format {version!r}, this package reads 1. Export it again.")
    try:
        manifest = EncoderManifest.model_validate(raw)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise BundleDamagedError(f"{path / ENCODER_JSON} has missing or invalid fields: {fields}") from None
    spec, files = manifest.encoder, manifest.files
    # The fingerprint is of the graph that the specification names, which must be the one that lies here.
    its_own = TOKENIZER in files and files.get(ENCODER) == spec.graph and spec == spec.of_files(files)
    if spec.kind != "onnx" or not its_own:
        raise BundleDamagedError(f"{path / ENCODER_JSON} was changed after the export: its fingerprint does not fit.")
    return manifest
