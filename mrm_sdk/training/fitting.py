"""Fits base rewards and a prior to users: outer loop, choice of K and of the prior's strength, final fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import TrainingError
from mrm_sdk.progress import Progress
from mrm_sdk.training.basis import gather
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.device import device_of, one_thread
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.maml import meta_train
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.new_texts import judged_often, judged_on, text_folds, with_query, without
from mrm_sdk.training.outer_loops import EmpiricalBayes, Maml, OuterLoop
from mrm_sdk.training.prior_strength import SHARES, SHOTS, SIZES, Trials, choose, choose_share, run_trials
from mrm_sdk.training.reduction import freeze

_HELD_OUT_SHARE = 0.15
_MOST_HELD_OUT = 1000
MIN_USERS = 4
"""Two folds, each with two users who can differ."""


class Trained(NamedTuple):
    """What meta-training learned.

    Args:
        module: φ, [batch, D] -> [batch, K].
        prior: of the inner loop, float64.
        held_out: how many users only took part in choosing; with cross-validation every user did both.
        metrics: the curve by which K and the prior's strength were chosen.
    """

    module: BaseRewards
    prior: Prior
    held_out: int
    metrics: dict[str, Any]


@own_torch_defaults()
def fit(
    dataset: Dataset,
    users: NDArray[np.int64],
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Meta-trains on some users of a data set; comparisons of other users are not read.

    Args:
        dataset: users' comparisons.
        users: indices of those to learn from.
        embeddings: of all items, [items, D]; may be memory-mapped, and is then never in memory as a whole.
        config: everything else; the same configuration gives the same result.
        progress: called with stage, done, total.
        checkpoint: where to keep the state, and to resume from.

    Returns:
        Base rewards and prior.

    Raises:
        TrainingError: too few users, embeddings do not differ or are not finite, or training diverged.
        ConfigurationError: MAML without a number of base functions, or ``cuda`` without a GPU.
    """
    if len(users) < MIN_USERS:
        raise TrainingError(f"Meta-training needs at least {MIN_USERS} users, not {len(users)}. Add users.")
    rng = np.random.default_rng(config.seed)
    shuffled = rng.permutation(users)
    with one_thread():
        if config.method == "gradient":
            packed = pack(dataset, np.sort(users), limit=config.max_pairs, rng=rng)
            model = meta_train(packed, embeddings, config, progress, checkpoint)
            module, prior = model.freeze()
            return _require_finite(Trained(module, prior, 0, {}))
        folds = len(held_out_users(len(shuffled), config))
        outer: OuterLoop
        if isinstance(config.outer, MamlConfig):
            outer = Maml(embeddings, config, progress, checkpoint)
            texts = [np.zeros(len(dataset.items), np.bool_)] * folds  # as published: texts are not held back
        else:
            outer = EmpiricalBayes(dataset, shuffled, embeddings, config, progress, checkpoint, rng)
            texts = text_folds(dataset, np.flatnonzero(np.isin(dataset.user, users)), folds, rng)
        # The comparisons that are kept of a user with many depend on the user alone, not on the fold.
        packed = pack(dataset, np.sort(shuffled), limit=config.max_pairs, rng=rng).to(device_of(config.device))
        return _require_finite(_fit_newton(outer, packed, shuffled, texts, embeddings, config, progress))


def _fit_newton(
    outer: OuterLoop,
    packed: Packed,
    shuffled: NDArray[np.int64],
    texts: Sequence[NDArray[np.bool_]],
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    progress: Progress,
) -> Trained:
    """Lets held-out users choose K and the prior's strength, then fits to all users.

    Each fold holds back users and texts: people are judged on texts that the fit knows, and on texts that it does not.

    Args:
        outer: the outer loop.
        packed: all users, in order of their indices.
        shuffled: the indices in the order by which they are held out.
        texts: which items each fold holds back, [items] bool.
        embeddings: of all items, [items, D].
        config: sizes and folds.
        progress: called with stage, done, total.
    """
    folds = []
    row_of = np.searchsorted(np.sort(shuffled), shuffled)
    for held_out, held_back in zip(held_out_users(len(shuffled), config), texts, strict=True):
        is_learner = torch.ones(len(shuffled), dtype=torch.bool)
        is_learner[torch.from_numpy(row_of[held_out])] = False
        new = torch.from_numpy(held_back).to(packed.items.device)
        folds.append((without(packed.users(is_learner), new), packed.users(~is_learner), new))
    if isinstance(outer, EmpiricalBayes):
        outer.choose_penalty([(learners, judged_on(judged, new)) for learners, judged, new in folds])
    known: list[Trials] = []
    unknown: list[dict[float, Trials]] = []
    for number, (learners, judged, new) in enumerate(folds):
        progress("choosing on users set aside", number, len(folds))
        learned = outer.learn(learners, f"fold-{number}")
        sizes = _sizes(config, learned.base_rewards.shape[1])
        known.append(run_trials(learned, with_query(without(judged, new)), sizes))
        newcomers = judged_on(judged, new)
        if len(newcomers.items):
            unknown.append({s: run_trials(learned.with_new_texts(s, new), newcomers, sizes) for s in SHARES})
    choice = choose(known)
    share, on_new = choose_share(unknown, choice)
    progress("choosing on users set aside", len(folds), len(folds))
    learned = outer.learn(packed, "final")
    size = min(choice.base_functions, learned.base_rewards.shape[1])
    again = None
    if learned.residual is not None:
        items = judged_often(packed, embeddings.shape)
        again = items, gather(embeddings, items)
    module, prior = freeze(learned, size, choice.strength, share, again)
    metrics = {
        "chosen": {
            "base_functions": size,
            "prior_strength": choice.strength,
            "held_out_gain": choice.gain,
            "new_texts_share": share,
            "known_texts": 0 if again is None else len(again[0]),
        },
        "held_out_accuracy": _before_and_after(choice.before, choice.after),
        "held_out_accuracy_new_texts": None if on_new is None else _before_and_after(*on_new),
        "held_out_query_loss": choice.curve,
    }
    return Trained(module, prior, sum(len(judged.items) for _, judged, _ in folds), metrics)


def _before_and_after(before: float, after: float) -> dict[str, Any] | None:
    return None if math.isnan(after) else {"before": before, "after": after, "shots": list(SHOTS)}


def held_out_users(count: int, config: TrainingConfig) -> list[NDArray[np.int64]]:
    """Positions of the users that are held out, fold by fold; all users take part if there are few."""
    if count >= config.large:
        return [np.arange(min(round(_HELD_OUT_SHARE * count), _MOST_HELD_OUT))]
    return np.array_split(np.arange(count), min(config.folds, count // 2))


def _sizes(config: TrainingConfig, width: int) -> list[int]:
    if isinstance(config.outer, MamlConfig):
        return [width]
    if config.base_functions is not None:
        return [min(config.base_functions, width)]
    return sorted({min(size, width) for size in SIZES})


def _require_finite(trained: Trained) -> Trained:
    if not all(bool(torch.isfinite(t).all()) for t in (*trained.prior, *trained.module.parameters())):
        raise TrainingError("Training gave NaN or infinity; nothing was written. Check the embeddings' scale.")
    return trained
