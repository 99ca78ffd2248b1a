"""From a data set to a bundle on disk, in one call."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mrm_sdk.bundle.bundle import EMBEDDING, REWARDS
from mrm_sdk.bundle.encoder_spec import ENCODER
from mrm_sdk.bundle.manifest import (
    BASE_REWARDS,
    BASE_REWARDS_BFLOAT16,
    BASE_REWARDS_FLOAT16,
    Adaptation,
    FileName,
    Manifest,
)
from mrm_sdk.bundle.reference import Reference
from mrm_sdk.bundle.writing import check_output, write_bundle
from mrm_sdk.core.inner_loop import SERVING_STEPS, Prior
from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.data.contents import QUERY
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.vectors import OnRefused, embed_dataset, log_refusal
from mrm_sdk.encoders.base import close
from mrm_sdk.encoders.handcrafted import SHARE, count_features
from mrm_sdk.errors import ConfigurationError, TrainingError
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.runtime.session import GraphSession
from mrm_sdk.schemas.items import Item
from mrm_sdk.settings import Settings
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.device import device_of
from mrm_sdk.training.encoding import PreparedEncoder, add_handcrafted, prepare_encoder
from mrm_sdk.training.fitting import MIN_USERS, Trained, fit
from mrm_sdk.training.handcrafted_share import choose_handcrafted_share
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.onnx_export import export_base_rewards, join_base_rewards
from mrm_sdk.version import __version__

PARITY = 1e-5
_SAMPLE = 1024
_HALF_PRECISION: dict[FileName, torch.dtype] = {
    BASE_REWARDS_FLOAT16: torch.float16,
    BASE_REWARDS_BFLOAT16: torch.bfloat16,
}


@own_torch_defaults()
def train_bundle(
    dataset: Dataset,
    out: str | Path,
    *,
    encoder: str = "minilm",
    handcrafted: bool | None = None,
    config: TrainingConfig | None = None,
    name: str | None = None,
    licence: str = "not stated",
    half_life: timedelta | None = None,
    settings: Settings | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress = no_progress,
    on_refused: OnRefused = log_refusal,
) -> Manifest:
    """Meta-trains on a data set and writes a verified bundle.

    Args:
        dataset: users' comparisons.
        out: the bundle's folder; an older bundle there is replaced, anything else there is an error.
        encoder: see :func:`~mrm_sdk.training.encoding.prepare_encoder`; ignored if the data set has embeddings.
        handcrafted: put features that are counted in the text beside the embeddings. ``None``: where they help to
            judge texts that the fit does not know (never with the preset ``paper``, or with a data set's embeddings).
        config: preset and seed.
        name: of the bundle; its folder's by default.
        licence: of the training data, as the manifest should state it.
        half_life: the age at which clients of this bundle count a judgement half; ``None``: all count in full.
        settings: of the encoder's session.
        checkpoint: a folder that keeps the training's state, and is resumed from if it has one.
        progress: called with stage, done, total.
        on_refused: called with the data set, those of its comparisons that are left out because the encoder does not
            take one of their texts, and its reason; by default, it goes to the log.

    Returns:
        The written manifest.

    Raises:
        TrainingError: too few users, or training cannot give a usable bundle.
        OutputError: ``out`` cannot be written.
        ConfigurationError: no such encoder, ``cuda`` without a GPU, a half-life of 0 or less, or the checkpoint is of
            another training, or in the bundle's folder.
        MissingDependencyError: an extra is not installed.
    """
    config, settings, out = config or TrainingConfig(), settings or Settings(), Path(out)
    check_output(out)
    if half_life is not None and half_life <= timedelta(0):
        raise ConfigurationError("A half-life must be above 0; leave it out, and all judgements count in full.")
    device_of(config.device)  # raises before the encoding what it would raise after it
    _usable_users(dataset)
    if handcrafted and dataset.dimension is not None:
        raise ConfigurationError(
            "Handcrafted features need text, and this data set has embeddings: add features to these yourself, or "
            "leave handcrafted off."
        )
    prepared = prepare_encoder(encoder, dataset, settings, progress)
    state = None
    if checkpoint is not None:
        state = _checkpoint(Path(checkpoint), out, dataset, config, prepared, handcrafted)
    try:
        learned, embeddings = embed_dataset(prepared.encoder, dataset, progress, on_refused)
        users, left_out = _usable_users(learned), len(dataset) - len(learned)
        if state is not None:  # the state of other comparisons would not fit
            state.require_learned(_columns_hash(learned))
        if handcrafted is not False and prepared.spec.kind != "precomputed":
            prepared, embeddings = _with_handcrafted(
                prepared, learned, users, embeddings, config, handcrafted, progress
            )
    finally:
        close(prepared.encoder)

    began = time.perf_counter()
    trained = fit(learned, users, embeddings, config, progress, state)
    seconds = time.perf_counter() - began

    progress("exporting base rewards", 0, 1)
    files, errors = _export(trained, prepared, embeddings, settings)
    progress("exporting base rewards", 1, 1)
    return write_bundle(
        out,
        name=name or out.resolve().name,
        sdk_version=__version__,
        licence=licence,
        encoder=prepared.spec,
        adaptation=_adaptation(config, half_life),
        files=files,
        prior=trained.prior,
        reference=Reference.of(trained.population, _seen_items(learned, users)),
        training={
            **config.as_dict(),
            "robust_gamma": str(config.robust_gamma),  # JSON has no infinity
            # The file's own hash, by which an evaluation knows it again.
            "data": {**learned.describe(), "sha256": dataset.sha256, **({"left_out": left_out} if left_out else {})},
            "users_trained": len(users),
            "users_chosen_on": trained.held_out,
            "seconds": round(seconds, 2),
        },
        metrics=trained.metrics | errors,
    )


def _with_handcrafted(
    prepared: PreparedEncoder,
    dataset: Dataset,
    users: NDArray[np.int64],
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    wanted: bool | None,
    progress: Progress,
) -> tuple[PreparedEncoder, NDArray[np.floating]]:
    """Adds handcrafted features with the share that suits the data, if they help or are ``wanted``."""
    progress("counting features in the text", 0, 1)
    measured = count_features([(item.prompt, item.text or "") for item in dataset.items])
    share = choose_handcrafted_share(dataset, users, embeddings, measured, config)
    progress("counting features in the text", 1, 1)
    if not share and not wanted:
        return prepared, embeddings
    return add_handcrafted(prepared, embeddings, measured, share or SHARE)


def _checkpoint(
    folder: Path,
    out: Path,
    dataset: Dataset,
    config: TrainingConfig,
    prepared: PreparedEncoder,
    handcrafted: bool | None,
) -> Checkpoint:
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ConfigurationError(f"{out} will hold the bundle alone; choose another folder for the checkpoint.")
    # Not the device: a checkpoint may be resumed on another one.
    settings = {name: value for name, value in config.as_dict().items() if name != "device"}
    data = [dataset.sha256, _columns_hash(dataset)]
    return Checkpoint(folder, [settings, *data, prepared.spec.fingerprint, handcrafted, __version__])


def _export(
    trained: Trained, prepared: PreparedEncoder, embeddings: NDArray[np.floating], settings: Settings
) -> tuple[dict[FileName, bytes | Path], dict[str, Any]]:
    """Returns the bundle's files, and how far their graphs differ from torch."""
    module, prior = trained.module, trained.prior
    files: dict[FileName, bytes | Path] = {**prepared.files, BASE_REWARDS: export_base_rewards(module)}
    half: dict[str, dict[str, float]] = {}
    errors = {
        "onnx_torch_largest_difference": _verify(module, files[BASE_REWARDS], embeddings, settings),
        "half": half,
    }
    for file, dtype in _HALF_PRECISION.items():
        files[file] = export_base_rewards(module, dtype)
        half[str(dtype).removeprefix("torch.")] = _half_error(module, prior, dtype, embeddings)
    if ENCODER in files:
        handcrafted = prepared.spec.dimension - prepared.spec.own_dimension
        files[ENCODER] = join_base_rewards(_graph(files), module, handcrafted)
    return files, errors


def _adaptation(config: TrainingConfig, half_life: timedelta | None) -> Adaptation:
    seconds = None if half_life is None else half_life.total_seconds()
    if not isinstance(config.outer, MamlConfig):
        return Adaptation(method=config.method, half_life=seconds)
    maml = config.outer
    steps = maml.inner_steps if config.method == "gradient" else SERVING_STEPS
    return Adaptation(method=config.method, steps=steps, learning_rate=maml.inner_learning_rate, half_life=seconds)


def _usable_users(dataset: Dataset) -> NDArray[np.int64]:
    """Users with at least one query comparison: only these can be learned from."""
    users = np.unique(dataset.user[dataset.phase == QUERY])
    if len(users) < MIN_USERS:
        raise TrainingError(
            f"Meta-training learns how people differ and needs at least {MIN_USERS} users with query comparisons; "
            f"this data set has {len(users)}. Add users, or rows of phase query; or adapt with an existing bundle."
        )
    return users


def _seen_items(dataset: Dataset, users: NDArray[np.int64]) -> Iterator[Item]:
    """The items that users who are learned from compare."""
    rows = np.isin(dataset.user, users)
    return (dataset.items[i] for i in np.unique([dataset.chosen[rows], dataset.rejected[rows]]).tolist())


def _columns_hash(dataset: Dataset) -> str:
    """A hash of the comparisons themselves: those made from ratings have the same file hash as other ones."""
    columns = (dataset.user, dataset.chosen, dataset.rejected, dataset.tie, dataset.strength, dataset.phase)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def _verify(module: BaseRewards, graph: Any, embeddings: NDArray[np.floating], settings: Settings) -> float:
    """Runs the graph in ONNX Runtime on embeddings of the data set; returns the largest difference from torch."""
    sample = np.array(embeddings[:_SAMPLE], np.float32)
    session = GraphSession(BASE_REWARDS, lambda: graph, frozenset([EMBEDDING]), frozenset([REWARDS]), settings)
    expected = module(torch.from_numpy(sample)).detach().numpy()
    difference = float(np.abs(session.run({EMBEDDING: sample}, REWARDS) - expected).max())
    if not difference <= PARITY * max(1.0, float(np.abs(expected).max())):
        raise TrainingError(f"The ONNX graph differs from torch by {difference:.2e}; nothing was written.")
    return difference


@torch.no_grad()
def _half_error(
    module: BaseRewards, prior: Prior, dtype: torch.dtype, embeddings: NDArray[np.floating]
) -> dict[str, float]:
    """What base rewards lose in half precision, on embeddings of the data set.

    Returns:
        The largest difference of a base reward (their variance over the training items is about 1), and the share of
        pairs of items that the average user's weights then order the other way round.
    """
    sample = torch.from_numpy(np.array(embeddings[:_SAMPLE], np.float32))
    exact = module(sample).double()
    halved = nn.functional.linear(sample.to(dtype), module.weight.to(dtype), module.bias.to(dtype)).double()
    before, after = ((rewards @ prior.w0)[:, None] - rewards @ prior.w0 for rewards in (exact, halved))
    pairs = torch.triu(torch.ones_like(before), 1).bool()
    changed = ((before > 0) != (after > 0))[pairs]
    return {
        "largest_difference": float((halved - exact).abs().max()),
        "orders_changed": float(changed.double().mean()) if len(changed) else 0.0,
    }


def _graph(files: Mapping[FileName, bytes | Path]) -> bytes:
    graph = files[ENCODER]
    return graph if isinstance(graph, bytes) else graph.read_bytes()
