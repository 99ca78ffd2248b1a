"""From a data set to a bundle on disk, in one call; the only place where training's parts meet."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle.manifest import Adaptation, EncoderSpec, Manifest, digest, encoder_fingerprint
from mrm_sdk.bundle.providers import GraphSession
from mrm_sdk.bundle.writing import check_output, write_bundle
from mrm_sdk.encoders.base import Encoder, embed
from mrm_sdk.encoders.minilm import MAX_TOKENS, load_minilm
from mrm_sdk.encoders.minilm import NAME as MINILM
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.encoders.precomputed import PrecomputedEncoder
from mrm_sdk.errors import ConfigurationError, TrainingError
from mrm_sdk.settings import Settings
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.datasets import QUERY, Dataset
from mrm_sdk.training.fitting import MIN_USERS, fit
from mrm_sdk.training.meta import Progress
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.onnx_export import export_base_rewards, export_encoder
from mrm_sdk.version import __version__

PARITY = 1e-5
# Ordinary users converge in 4 to 6 steps; the rest is for contradictory or extreme feedback.
SERVING_STEPS = 50


@dataclass(frozen=True)
class PreparedEncoder:
    """An encoder ready to embed a data set, and what a bundle needs to carry it along."""

    encoder: Encoder
    spec: EncoderSpec
    files: tuple[bytes, bytes] | None


def prepare_encoder(name: str, dataset: Dataset, settings: Settings, progress: Progress) -> PreparedEncoder:
    """Makes the encoder called ``name``; a data set with embeddings of its own needs, and gets, none.

    Raises:
        ConfigurationError: there is no such encoder, or the data set lacks the embeddings it needs.
        MissingDependencyError: its extra is not installed.
    """
    own = dataset.dimension
    if name not in ("minilm", "precomputed"):
        raise ConfigurationError(f"There is no encoder {name!r}; use 'minilm' or 'precomputed'.")
    if own is not None:
        spec = EncoderSpec(
            kind="precomputed", name="precomputed", dimension=own, fingerprint=digest(["precomputed", own])
        )
        return PreparedEncoder(PrecomputedEncoder(spec.dimension, spec.fingerprint), spec, None)
    if name == "precomputed":
        raise ConfigurationError("The data set's items hold no 'embedding'; use --encoder minilm.")
    progress("exporting encoder", 0, 1)
    module, tokenizer = load_minilm()
    graph = export_encoder(module)
    hashes = [hashlib.sha256(data).hexdigest() for data in (graph, tokenizer)]
    fingerprint = encoder_fingerprint(hashes[0], hashes[1], MAX_TOKENS)
    spec = EncoderSpec(kind="onnx", name=MINILM, dimension=384, max_tokens=MAX_TOKENS, fingerprint=fingerprint)
    encoder = OnnxEncoder(
        lambda: graph,
        tokenizer,
        dimension=spec.dimension,
        max_tokens=spec.max_tokens,
        fingerprint=fingerprint,
        settings=settings,
    )
    progress("exporting encoder", 1, 1)
    return PreparedEncoder(encoder, spec, (graph, tokenizer))


def embed_items(encoder: Encoder, dataset: Dataset, progress: Progress) -> NDArray[np.floating]:
    """Embeddings of all items, [items, D]: those of the data set, mapped where they are, else each encoded once."""
    if dataset.embeddings is not None:
        return dataset.embeddings
    size, out = 128, np.empty((len(dataset.items), encoder.dimension), np.float32)
    # Sorted by length, a chunk's batches hold little padding.
    order = sorted(range(len(out)), key=lambda i: len(dataset.items[i].text or ""))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        out[rows] = embed(encoder, [dataset.items[i] for i in rows])
        progress("encoding", min(start + size, len(order)), len(order))
    return out


def train_bundle(
    dataset: Dataset,
    out: str | Path,
    *,
    encoder: str = "minilm",
    config: TrainingConfig | None = None,
    name: str | None = None,
    licence: str = "not stated",
    settings: Settings | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """Meta-trains on a data set and writes a verified bundle.

    Args:
        dataset: users' comparisons.
        out: the bundle's folder; an older bundle there is replaced, anything else is left alone.
        encoder: ``minilm``; ignored where the data set brings embeddings.
        config: preset and seed.
        name: of the bundle; its folder's by default.
        licence: of the training data, as the manifest should state it.
        settings: of the encoder's session.
        checkpoint: a folder to keep the training's state in, and to go on from where it holds one.
        progress: called with stage, done, total.

    Returns:
        The written manifest.

    Raises:
        TrainingError: too few users, or training cannot give a usable bundle.
        OutputError: ``out`` cannot be written.
        ConfigurationError: no such encoder, or the checkpoint is of another training, or in the bundle's folder.
        MissingDependencyError: an extra is not installed.
    """
    config, settings, out = config or TrainingConfig(), settings or Settings(), Path(out)
    check_output(out)
    users = _usable_users(dataset)
    prepared = prepare_encoder(encoder, dataset, settings, progress)
    kept = None
    if checkpoint is not None:
        if out.resolve() in (Path(checkpoint).resolve(), *Path(checkpoint).resolve().parents):
            raise ConfigurationError(f"{out} will hold the bundle alone; choose another folder for the checkpoint.")
        identity = [asdict(config), dataset.sha256, _columns_hash(dataset), prepared.spec.fingerprint, __version__]
        kept = Checkpoint(Path(checkpoint), identity)
    embeddings = embed_items(prepared.encoder, dataset, progress)

    began = time.perf_counter()
    module, prior, held_out, metrics = fit(dataset, users, embeddings, config, progress, kept)
    seconds = time.perf_counter() - began

    progress("exporting base rewards", 0, 1)
    graph = export_base_rewards(module)
    metrics["onnx_torch_largest_difference"] = _verify(module, graph, embeddings, settings)
    progress("exporting base rewards", 1, 1)
    steps = SERVING_STEPS if config.method == "newton" else config.inner_steps
    return write_bundle(
        out,
        name=name or out.resolve().name,
        sdk_version=__version__,
        licence=licence,
        encoder=prepared.spec,
        adaptation=Adaptation(method=config.method, steps=steps, learning_rate=config.inner_learning_rate),
        base_rewards=graph,
        prior=prior,
        encoder_files=prepared.files,
        training={
            **asdict(config),
            "robust_gamma": str(config.robust_gamma),  # JSON knows no infinity
            "data": dataset.describe(),
            "users_trained": len(users),
            "users_chosen_on": held_out,
            "seconds": round(seconds, 2),
        },
        metrics=metrics,
    )


def _usable_users(dataset: Dataset) -> NDArray[np.int64]:
    """Users who can be learned from: those with at least one comparison to judge by."""
    users = np.unique(dataset.user[dataset.phase == QUERY])
    if len(users) < MIN_USERS:
        raise TrainingError(
            f"Meta-training learns how people differ and needs at least {MIN_USERS} users with query comparisons; "
            f"this data set has {len(users)}. Add users, or rows of phase query; or adapt with an existing bundle."
        )
    return users


def _columns_hash(dataset: Dataset) -> str:
    """Of the comparisons as they are: those that ratings gave keep the hash of the file."""
    columns = (dataset.user, dataset.chosen, dataset.rejected, dataset.tie, dataset.strength, dataset.phase)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def _verify(module: BaseRewards, graph: bytes, embeddings: NDArray[np.floating], settings: Settings) -> float:
    """Runs the graph in ONNX Runtime on real embeddings and compares it with torch."""
    sample = np.array(embeddings[:1024], np.float32)
    session = GraphSession("base_rewards.onnx", lambda: graph, frozenset({"embedding"}), settings)
    expected = module(torch.from_numpy(sample)).detach().numpy()
    difference = float(np.abs(session.run({"embedding": sample}) - expected).max())
    if not difference <= PARITY * max(1.0, float(np.abs(expected).max())):
        raise TrainingError(f"The ONNX graph differs from torch by {difference:.2e}; nothing was written.")
    return difference
