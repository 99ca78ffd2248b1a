"""Fits base rewards and a prior to users: outer loop, choice of K and of the prior's strength, final fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import TrainingError
from mrm_sdk.progress import Progress
from mrm_sdk.training.basis import gather
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.device import one_thread
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.folds import Fold, make_folds
from mrm_sdk.training.maml import meta_train
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.new_texts import judged_often, without
from mrm_sdk.training.outer_loops import EmpiricalBayes, Maml, OuterLoop
from mrm_sdk.training.prior_strength import (
    SHARES,
    SHOTS,
    SIZES,
    Trials,
    choose,
    choose_share,
    choose_spread,
    run_trials,
)
from mrm_sdk.training.reduction import freeze

MIN_USERS = 4
"""Two folds, each with two users who can differ."""


class Trained(NamedTuple):
    """What meta-training learned.

    Args:
        module: φ, [batch, D] -> [batch, K].
        prior: of the inner loop, float64.
        held_out: how many users only took part in choosing; with cross-validation every user did both.
        metrics: the curve by which K and the prior's strength were chosen.
        population: the best rewards for all users alike, linear in the embedding: over texts that the fit knows, and
            over new ones, [D] float64 each; ``None`` for MAML.
    """

    module: BaseRewards
    prior: Prior
    held_out: int
    metrics: dict[str, Any]
    population: tuple[Tensor, Tensor] | None = None


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
    with one_thread():
        if config.method == "gradient":
            rng = np.random.default_rng(config.seed)
            packed = pack(dataset, np.sort(users), limit=config.max_pairs, rng=rng)
            model = meta_train(packed, embeddings, config, progress, checkpoint)
            module, prior = model.freeze()
            return _require_finite(Trained(module, prior, 0, {}))
        packed, folds = make_folds(dataset, users, config)
        outer: OuterLoop
        if isinstance(config.outer, MamlConfig):
            outer = Maml(embeddings, config, progress, checkpoint)
        else:
            outer = EmpiricalBayes(dataset, users, embeddings, config, progress, checkpoint)
            outer.choose_penalty([draw for fold in folds for draw in fold.draws()])
        return _require_finite(_fit_newton(outer, packed, folds, embeddings, config, progress))


def _fit_newton(
    outer: OuterLoop,
    packed: Packed,
    folds: Sequence[Fold],
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    progress: Progress,
) -> Trained:
    """Lets held-out users choose K, the prior's strength and what new texts count, then fits to all users.

    Args:
        outer: the outer loop.
        packed: all users.
        folds: people are judged on texts that a fit knows, and by a second fit on texts that it does not.
        embeddings: of all items, [items, D].
        config: sizes.
        progress: called with stage, done, total.
    """
    by_text = isinstance(outer, EmpiricalBayes)
    known: list[Trials] = []
    unknown: list[dict[float, Trials]] = []
    for number, fold in enumerate(folds):
        progress("choosing on users set aside", number, len(folds))
        learned = outer.learn(fold.learners, f"fold-{number}")
        sizes = _sizes(config, learned.base_rewards.shape[1])
        known.append(run_trials(learned, fold.judged, sizes))
        if by_text and len(fold.newcomers.items):
            learned = outer.learn(without(fold.learners, fold.new), f"fold-{number}-new-texts")
            unknown.append({s: run_trials(learned.with_new_texts(s, fold.new), fold.newcomers, sizes) for s in SHARES})
    choice = choose(known)
    share, on_new = choose_share(unknown, choice)
    key = choice.base_functions, choice.strength
    spread, by_spread = choose_spread([fold[key] for fold in known], [fold[share][key] for fold in unknown])
    progress("choosing on users set aside", len(folds), len(folds))
    learned = outer.learn(packed, "final")
    size = min(choice.base_functions, learned.base_rewards.shape[1])
    again = None
    if learned.residual is not None:
        items = judged_often(packed, embeddings.shape)
        again = items, gather(embeddings, items)
    module, prior = freeze(learned, size, choice.strength, share, again, spread)
    metrics = {
        "chosen": {
            "base_functions": size,
            "prior_strength": choice.strength,
            "held_out_gain": choice.gain,
            "new_texts_share": share,
            "spread": spread,
            "known_texts": 0 if again is None else len(again[0]),
        },
        "held_out_accuracy": _before_and_after(choice.before, choice.after),
        "held_out_accuracy_new_texts": None if on_new is None else _before_and_after(*on_new),
        "held_out_query_loss": choice.curve,
        "held_out_query_loss_by_spread": by_spread,
    }
    held_out = sum(len(fold.judged.items) for fold in folds)
    population = None
    if isinstance(outer, EmpiricalBayes):
        of_known = outer.population([(fold.learners, fold.judged) for fold in folds], packed)
        population = of_known, learned.basis.projection[:, 0].cpu()
    return Trained(module, prior, held_out, metrics, population)


def _before_and_after(before: float, after: float) -> dict[str, Any] | None:
    return None if math.isnan(after) else {"before": before, "after": after, "shots": list(SHOTS)}


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
