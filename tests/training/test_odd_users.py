"""Bad and extreme input of meta-training: finite weights, or an error of ours; never NaN in a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.bundle import Bundle
from mrm_sdk.core.inner_loop import gradient_descent, newton_serving
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.errors import MrmError, TrainingError
from mrm_sdk.schemas.items import Item
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.episodes import pack
from mrm_sdk.training.fitting import fit
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import write_embedded_dataset
from tests.training.people import FIXED, QUICK, embeddings_of, people, quiet, rows

CONFIGS = {
    "em": QUICK,
    "robust": replace(FIXED, robust_gamma=0.5),
    "adam": TrainingConfig(outer=MamlConfig(steps=6), base_functions=3, folds=2),
    "paper": TrainingConfig.preset("paper").with_settings(epochs=2),
}


def contradicting(data: Dataset) -> Dataset:
    """Every comparison is followed by its opposite."""
    double = rows(data, np.repeat(np.arange(len(data)), 2))
    odd = np.arange(len(double)) % 2 == 1
    return replace(
        double,
        chosen=np.where(odd, double.rejected, double.chosen),
        rejected=np.where(odd, double.chosen, double.rejected),
    )


def giant(data: Dataset) -> Dataset:
    more = np.random.default_rng(0).choice(np.flatnonzero(data.user == 0), 50_000)
    return rows(data, np.append(np.arange(len(data)), more))


def two_items(data: Dataset, agree: bool) -> Dataset:
    first = np.zeros(len(data), int) if agree else (data.chosen > data.rejected).astype(int)
    embeddings = np.stack([np.zeros(6), np.ones(6)]).astype(np.float32)
    return replace(data, items=data.items[:2], embeddings=embeddings, chosen=first, rejected=1 - first)


def scaled(data: Dataset, scale: float) -> Dataset:
    return replace(data, embeddings=(embeddings_of(data) * scale).astype(np.float32))


ODD: dict[str, Callable[[Dataset], Dataset]] = {
    "one user always ties": lambda d: replace(d, tie=d.user == 1),
    "all always tie": lambda d: replace(d, tie=np.ones(len(d), bool)),
    "all contradict themselves": contradicting,
    "a giant": giant,
    "duplicates": lambda d: rows(d, np.repeat(np.arange(len(d)), 5)),
    "tiny strengths": lambda d: replace(d, strength=np.full(len(d), 1e-6)),
    "large strengths": lambda d: replace(d, strength=np.full(len(d), 100.0)),
    "all strengths": lambda d: replace(d, strength=10 ** np.linspace(-6, 2, len(d))),
    "huge embeddings": lambda d: scaled(d, 1e20),
    "tiny embeddings": lambda d: scaled(d, 1e-20),
    "embeddings far from 0": lambda d: replace(d, embeddings=embeddings_of(d) + np.float32(1000)),
    "float16": lambda d: replace(d, embeddings=embeddings_of(d).astype(np.float16)),
    "two items, two opinions": lambda d: two_items(d, agree=False),
    "two items, one opinion": lambda d: two_items(d, agree=True),
    "an item against itself": lambda d: replace(d, rejected=d.chosen),
    "support without query": lambda d: replace(d, phase=np.where(d.user < 4, SUPPORT, d.phase)),
    "query without support": lambda d: replace(d, phase=np.where(d.user < 4, QUERY, d.phase)),
    "no support at all": lambda d: replace(d, phase=np.full(len(d), QUERY)),
    "exactly 4 users": lambda d: people(4),
    "4 users, a comparison each": lambda d: people(4, pairs=1),
    "more directions than comparisons": lambda d: people(8, dimension=100, pairs=2),
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("odd", ODD)
def test_odd_users_give_finite_weights(odd: str, config: str) -> None:
    data, settings = ODD[odd](people(8)), CONFIGS[config]
    users = np.unique(data.user[data.phase == QUERY])
    trained = fit(data, users, embeddings_of(data), settings, quiet)
    prior = trained.prior
    for tensor in (*prior, *trained.module.parameters()):
        assert bool(torch.isfinite(tensor).all())
    with torch.no_grad():
        rewards = trained.module(torch.from_numpy(embeddings_of(data).astype(np.float32))).double()
    support = pack(data, users, limit=64).pairs(SUPPORT, rewards)
    if settings.method == "gradient":
        weights = gradient_descent(support, prior.w0, steps=1, learning_rate=0.005)
    else:
        assert float(torch.linalg.eigvalsh(prior.precision)[0]) > 0
        weights = newton_serving(support, prior, max_steps=50, tolerance=1e-9)
    assert bool(torch.isfinite(weights).all())
    assert bool(torch.isfinite(rewards @ weights.T).all())


@pytest.mark.parametrize("config", CONFIGS)
def test_what_cannot_be_learned_from_is_told(config: str, tmp_path: Path) -> None:
    data = people(8)
    nan, unused = embeddings_of(data).copy(), np.zeros((41, 6), np.float32)
    nan[3, 2], unused[:40], unused[40] = np.nan, embeddings_of(data), np.inf
    cases = [
        (replace(data, embeddings=np.full_like(nan, 0.3)), "same embedding"),
        (scaled(data, 1e-35), "same embedding"),
        (replace(data, embeddings=nan), "NaN or infinity"),
        (replace(data, embeddings=unused, items=[*data.items, Item(None, "unused", None)]), "NaN or infinity"),
        (replace(data, phase=np.full(len(data), SUPPORT)), "at least 4 users.*has 0"),
        (people(3), "at least 4 users.*has 3"),
    ]
    for wrong, message in cases:
        with pytest.raises(TrainingError, match=message):
            train_bundle(wrong, tmp_path / "b", config=CONFIGS[config])
        assert not (tmp_path / "b").exists()


def test_users_without_query_are_not_learned_from(tmp_path: Path) -> None:
    data = people(8)
    data = replace(data, phase=np.where(data.user < 3, SUPPORT, data.phase))
    assert train_bundle(data, tmp_path / "b", config=FIXED).training["users_trained"] == 5


def test_float16_that_overflowed_is_told(tmp_path: Path) -> None:
    folder = write_embedded_dataset(tmp_path / "d", users=6, pairs=4)
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    embeddings = np.array([item.pop("embedding") for item in items])
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    np.save(folder / "embeddings.npy", embeddings.astype(np.float16))
    train_bundle(read_dataset(folder), tmp_path / "b", config=FIXED)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in Bundle(tmp_path / "b").prior)
    half = embeddings.astype(np.float16)
    half[7, 1] = np.inf
    np.save(folder / "embeddings.npy", half)
    with pytest.raises(MrmError, match="NaN or infinity"):
        train_bundle(read_dataset(folder), tmp_path / "c", config=FIXED)
    assert not (tmp_path / "c").exists()
