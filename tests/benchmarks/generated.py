"""Data sets of any size with embeddings in a file of their own, for benchmarks and tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LATENT = 16
_ROWS_AT_ONCE = 20_000


class Judgements(NamedTuple):
    """Columns of n comparisons: user, phase (0 support, 1 query), chosen and rejected item, int64."""

    user: NDArray[np.int64]
    phase: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]


def write_mapped_dataset(folder: Path, latent: NDArray[np.float32], judged: Judgements, *, dimension: int) -> Path:
    """Writes ``items.jsonl``, ``comparisons.csv`` and ``embeddings.npy`` (float16); never holds all embeddings.

    Args:
        folder: is created.
        latent: what users' tastes are about, [items, 16]; embeddings are a linear image of it, and noise.
        judged: the comparisons.
        dimension: D.
    """
    rng = np.random.default_rng(1)
    image = rng.standard_normal((_LATENT, dimension), np.float32)
    # Noise is a stretch of one table that is read from another place for each row: cheap, and no two rows are alike.
    table = rng.standard_normal(dimension + 2**20, np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(table, dimension)
    folder.mkdir(parents=True)
    shape = (len(latent), dimension)
    out = np.lib.format.open_memmap(folder / "embeddings.npy", mode="w+", dtype=np.float16, shape=shape)
    for start in range(0, len(latent), _ROWS_AT_ONCE):
        rows = latent[start : start + _ROWS_AT_ONCE]
        out[start : start + len(rows)] = rows @ image + windows[rng.integers(0, len(windows), len(rows))]
    out.flush()
    with (folder / "items.jsonl").open("w") as file:
        for number in range(len(latent)):
            row = {"item_id": f"item-{number}", "prompt": f"prompt {number // 4}", "response": f"answer {number}"}
            file.write(json.dumps(row) + "\n")
    with (folder / "comparisons.csv").open("w") as file:
        file.write("user_id,phase,chosen,rejected\n")
        for user, phase, chosen, rejected in zip(*(column.tolist() for column in judged), strict=True):
            file.write(f"user-{user},{'query' if phase else 'support'},item-{chosen},item-{rejected}\n")
    return folder


def write_pairs(folder: Path, *, users: int, items: int, dimension: int, pairs: int = 10) -> Path:
    """Users who compare two items drawn from all of them, ``pairs`` times in each phase."""
    rng = np.random.default_rng(0)
    latent, tastes = (rng.standard_normal((count, _LATENT), np.float32) for count in (items, users))
    user = np.repeat(np.arange(users), 2 * pairs)
    phase = np.tile(np.repeat([0, 1], pairs), users)
    one = rng.integers(0, items, len(user))
    other = (one + rng.integers(1, items, len(user))) % items
    better = ((latent[one] - latent[other]) * tastes[user]).sum(1) + rng.logistic(size=len(user)) > 0
    judged = Judgements(user, phase, np.where(better, one, other), np.where(better, other, one))
    return write_mapped_dataset(folder, latent, judged, dimension=dimension)


def write_conversations(folder: Path, *, users: int, dimension: int, conversations: int = 3, answers: int = 4) -> Path:
    """Users who choose one of four answers in each of three conversations per phase: a comparison with each other one.

    With 650 users this is the size of PRISM (Kirk et al., arXiv 2404.16019) as the published method was trained on it.
    """
    rng = np.random.default_rng(0)
    held = 2 * conversations
    latent = rng.standard_normal((users * held * answers, _LATENT), np.float32)
    tastes = rng.standard_normal((users, _LATENT), np.float32)
    rewards = np.einsum("ucal,ul->uca", latent.reshape(users, held, answers, _LATENT), tastes)
    order = np.argsort(-rewards - rng.gumbel(size=rewards.shape), axis=-1)
    order += np.arange(users * held).reshape(users, held, 1) * answers
    chosen, rejected = np.broadcast_to(order[..., :1], order[..., 1:].shape), order[..., 1:]
    user = np.broadcast_to(np.arange(users)[:, None, None], rejected.shape)
    phase = np.broadcast_to((np.arange(held) >= conversations)[None, :, None], rejected.shape).astype(np.int64)
    judged = Judgements(*(column.ravel() for column in (user, phase, chosen, rejected)))
    return write_mapped_dataset(folder, latent, judged, dimension=dimension)
