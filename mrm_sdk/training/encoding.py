"""The encoder that a bundle is trained with: opened by name, with the files that the bundle will carry."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import (
    CHAT_TEMPLATE,
    ENCODER,
    ENCODER_DATA,
    TOKENIZER,
    EncoderSpec,
    Handcrafted,
    Probe,
    RemoteSpec,
    digest,
)
from mrm_sdk.bundle.manifest import FileName
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.encoders.base import Encoder
from mrm_sdk.encoders.export.pipeline import prepare_export
from mrm_sdk.encoders.folder import ENCODER_JSON, EncoderFolder
from mrm_sdk.encoders.handcrafted import SHARE, VERSION, Statistics
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.encoders.precomputed import PrecomputedEncoder
from mrm_sdk.encoders.remote.encoder import RemoteEncoder
from mrm_sdk.encoders.remote.protocols import PROTOCOLS
from mrm_sdk.encoders.with_handcrafted import WithHandcrafted
from mrm_sdk.errors import ConfigurationError
from mrm_sdk.progress import Progress
from mrm_sdk.settings import Settings

# After a protocol: prompt and response are sent as chat messages, for the server's own chat template.
_CHAT = "+chat"


@dataclass(frozen=True)
class PreparedEncoder:
    """An encoder ready to embed a data set, and what a bundle needs to carry it.

    Args:
        encoder: embeds.
        spec: as the manifest states it.
        files: of the bundle, by name.
    """

    encoder: Encoder
    spec: EncoderSpec
    files: Mapping[FileName, bytes | Path] = field(default_factory=dict)


def prepare_encoder(name: str, dataset: Dataset, settings: Settings, progress: Progress) -> PreparedEncoder:
    """Opens the encoder called ``name``; a data set with embeddings of its own gets none.

    Args:
        name: ``minilm``, ``precomputed``, the folder of an exported encoder, or ``remote:PROTOCOL:MODEL``, with the
            server's address in the settings.
        dataset: the items to encode.
        settings: of the encoder.
        progress: called with stage, done, total.

    Raises:
        ConfigurationError: there is no such encoder, or the data set lacks the embeddings it needs.
        NotFoundError: there is no such folder.
        BundleError: the exported encoder is damaged.
        MissingDependencyError: its extra is not installed.
    """
    dimension = dataset.dimension
    is_remote, is_known = name.startswith("remote:"), name in ("minilm", "precomputed")
    if not is_remote and not is_known and not _is_exported(name):
        raise ConfigurationError(
            f"There is no encoder {name!r}: use minilm, precomputed, remote:PROTOCOL:MODEL, or the folder of an "
            "exported one (mrm encoder export MODEL --out FOLDER)."
        )
    if is_remote:
        _remote_name(name)
    if dimension is not None:
        fingerprint = digest(["precomputed", dimension])
        spec = EncoderSpec(kind="precomputed", name="precomputed", dimension=dimension, model_fingerprint=fingerprint)
        return PreparedEncoder(PrecomputedEncoder(dimension, fingerprint), spec)
    if name == "precomputed":
        raise ConfigurationError("The data set's items hold no 'embedding'; use --encoder minilm.")
    if is_remote:
        return _remote(name, settings)
    if name != "minilm":
        return _exported(Path(name), settings)
    with tempfile.TemporaryDirectory(prefix="mrm-") as scratch:
        exported = prepare_export(name, Path(scratch), progress=progress)
    files: dict[Any, Any] = dict(exported.files)
    encoder = OnnxEncoder(lambda file: files[file], exported.spec, settings=settings)
    return PreparedEncoder(encoder, exported.spec, files)


def add_handcrafted(
    prepared: PreparedEncoder,
    embeddings: NDArray[np.floating],
    measured: NDArray[np.floating],
    share: float = SHARE,
) -> tuple[PreparedEncoder, NDArray[np.floating]]:
    """Adds handcrafted features to an encoder's vectors, and to the items' embeddings.

    Args:
        prepared: an encoder of text.
        embeddings: of the items, [items, D].
        measured: features of the items, [items, F], whose statistics become part of the encoder.
        share: of the embeddings' variance that all features together have.

    Returns:
        The encoder, whose dimension is D + F, and embeddings [items, D + F].
    """
    statistics = Statistics.of(measured, embeddings, share=share)
    handcrafted = Handcrafted(version=VERSION, **statistics._asdict())
    spec = prepared.spec.model_copy(
        update={
            "dimension": prepared.spec.dimension + measured.shape[1],
            "handcrafted": handcrafted,
        }
    )
    joined = np.concatenate([np.asarray(embeddings, np.float32), statistics.apply(measured)], axis=1)
    return replace(prepared, encoder=WithHandcrafted(prepared.encoder, handcrafted), spec=spec), joined


def _exported(path: Path, settings: Settings) -> PreparedEncoder:
    folder = EncoderFolder(path)
    spec = folder.manifest.encoder
    encoder = OnnxEncoder(folder.read, spec, settings=settings, folder=path)
    files: dict[FileName, bytes | Path] = {ENCODER: folder.read(ENCODER), TOKENIZER: folder.read(TOKENIZER)}
    if spec.layout == "chat":
        files[CHAT_TEMPLATE] = folder.read(CHAT_TEMPLATE)
    if ENCODER_DATA in folder.manifest.files:
        files[ENCODER_DATA] = path / ENCODER_DATA
    return PreparedEncoder(encoder, spec, files)


def _is_exported(name: str) -> bool:
    try:
        return bool(name) and (Path(name) / ENCODER_JSON).is_file()
    except OSError:  # a name that no file system accepts
        return False


def _remote_name(name: str) -> tuple[str, str]:
    protocol, _, model = name.removeprefix("remote:").partition(":")
    if protocol.removesuffix(_CHAT) not in PROTOCOLS or not model:
        known = ", ".join((*PROTOCOLS, f"vllm{_CHAT}"))
        raise ConfigurationError(f"{name!r} must be remote:PROTOCOL:MODEL, with a protocol of {known}.")
    return protocol, model


def _remote(name: str, settings: Settings) -> PreparedEncoder:
    protocol, model = _remote_name(name)
    if settings.encoder_url is None:
        raise ConfigurationError("Set the encoder server's address: MRM_ENCODER_URL, or Settings(encoder_url=…).")
    template = {"template": None} if protocol.endswith(_CHAT) else {}
    remote = RemoteSpec.model_validate({"protocol": protocol.removesuffix(_CHAT), "model": model, **template})
    encoder = RemoteEncoder(
        settings.encoder_url,
        protocol=remote.protocol,
        model=model,
        template=remote.template,
        api_key=settings.encoder_api_key,
        api_key_header=settings.encoder_api_key_header,
        cache=settings.encoder_cache,
    )
    spec = EncoderSpec(
        kind="remote",
        name=model,
        dimension=encoder.dimension,
        remote=remote,
        probe=Probe.of(encoder.probe_vector()),
        model_fingerprint=encoder.fingerprint,
    )
    return PreparedEncoder(encoder, spec)
