"""What is refused of an encoder's folder whose manifest was edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mrm_sdk.bundle.encoder_spec import ENCODER, TOKENIZER, EncoderFile, EncoderSpec
from mrm_sdk.bundle.hashing import sha256_of
from mrm_sdk.encoders.folder import ENCODER_JSON, EncoderFolder, write_encoder
from mrm_sdk.errors import BundleDamagedError

FILES: dict[EncoderFile, bytes] = {ENCODER: b"float32", TOKENIZER: b"{}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph = sha256_of(FILES[ENCODER])
    spec = EncoderSpec(kind="onnx", name="m", dimension=4, graph=graph, model_fingerprint="")
    identified = spec.of_files({name: sha256_of(data) for name, data in FILES.items()})
    write_encoder(tmp_path / "e", FILES, spec=identified, sdk_version="1", licence="MIT", metrics={})
    return tmp_path / "e"


def replace(folder: Path, name: EncoderFile, data: bytes, **encoder: Any) -> None:
    """Puts another file there, and its SHA-256 and more into the manifest."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / ENCODER_JSON).read_text(encoding="utf-8"))
    manifest["files"][name] = sha256_of(data)
    manifest["encoder"] |= encoder
    (folder / ENCODER_JSON).write_text(json.dumps(manifest), encoding="utf-8")


def test_what_was_written_is_read(folder: Path) -> None:
    assert EncoderFolder(folder).read(ENCODER) == FILES[ENCODER]


def test_another_graph_under_the_same_fingerprint(folder: Path) -> None:
    replace(folder, ENCODER, b"int8")
    with pytest.raises(BundleDamagedError, match="was changed after the export"):
        EncoderFolder(folder)


def test_another_graph_or_tokenizer_with_the_old_fingerprint(folder: Path) -> None:
    replace(folder, TOKENIZER, b"[]")
    with pytest.raises(BundleDamagedError, match="was changed after the export"):
        EncoderFolder(folder)
    replace(folder, TOKENIZER, FILES[TOKENIZER])
    EncoderFolder(folder)
    replace(folder, ENCODER, b"int8", graph=sha256_of(b"int8"))
    with pytest.raises(BundleDamagedError, match="was changed after the export"):
        EncoderFolder(folder)
