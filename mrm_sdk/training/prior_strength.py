"""Chooses K, the strength of the prior, what new texts count, and how sure of weights to be, on users set aside.

From few training users the prior becomes too certain that people differ as those few did, and adapting then hurts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.core.posterior import moderated
from mrm_sdk.core.ranking import mean_decided, right
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.training.distribution import adapt_white
from mrm_sdk.training.episodes import Packed
from mrm_sdk.training.outer_loops import Learned, spread_rows
from mrm_sdk.training.reduction import reduce

SIZES = (4, 8, 16, 32)
SHARES = (0.0, 0.5, 1.0)
"""By how much people may differ over a text that the fit does not know, as a share of what its text suggests."""
# At this strength all users stay where the average user is: adapting cannot cost accuracy.
UNADAPTED = 1e6
STRENGTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0, 16.0, UNADAPTED)
SPREADS = (0.01, 0.1, 0.3, 1.0)
"""By how much the uncertainty of weights, as the Laplace posterior has it, counts in a predicted probability."""
SHOTS = (2, 10, 40)
_USERS_PER_CHUNK = 128


class Trial(NamedTuple):
    """How held-out users fared with one choice, on average over several numbers of shots.

    Args:
        loss: query loss in nats of predictions that know how sure the weights are, for each of :data:`SPREADS`,
            [spreads, users].
        accuracy: share of decided query comparisons ranked right, [users]; NaN for users who have none.
    """

    loss: Tensor
    accuracy: Tensor


Trials = Mapping[tuple[int, float], Trial]
"""By K and strength of the prior."""


class Choice(NamedTuple):
    """The choice of the held-out users.

    Args:
        base_functions: K.
        strength: of the prior.
        gain: accuracy gained by adapting at that strength, on average over users and numbers of shots.
        before: accuracy of the same users before adapting; NaN if none has a decided query comparison.
        after: and after it, at the strength that was chosen.
        curve: mean query loss in nats, by K and strength.
    """

    base_functions: int
    strength: float
    gain: float
    before: float
    after: float
    curve: dict[str, dict[str, float]]


@torch.no_grad()
def run_trials(learned: Learned, users: Packed, sizes: Sequence[int]) -> Trials:
    """Adapts users who took no part in learning, and judges them on their query comparisons.

    Args:
        learned: from other users.
        users: held out.
        sizes: the numbers of base rewards to try.

    Returns:
        How each choice fared.
    """
    trials: dict[tuple[int, float], Trial] = {}
    projections = learned.base_rewards
    for size in sizes:
        reduced = reduce(learned.distribution, projections[spread_rows(len(projections))], size)
        parts: dict[float, list[Trial]] = {strength: [] for strength in STRENGTHS}
        for part in torch.split(torch.arange(len(users.items)), _USERS_PER_CHUNK):
            chunk = users.users(part)
            query = chunk.pairs(QUERY, projections)
            most = int((chunk.strength[:, SUPPORT] > 0).any(0).sum())
            shots = sorted({max(1, min(n, most)) for n in SHOTS})  # without any support the one comparison is padding
            supports = [chunk.independent(n).pairs(SUPPORT, projections) for n in shots]
            for strength in STRENGTHS:
                scale = (reduced.directions / strength**0.5).float()
                mean = (reduced.mean * strength**0.5).float()
                judged = query.z @ scale
                loss, ranked = judged.new_zeros(len(SPREADS), len(part)), judged.new_zeros(len(part))
                for support in supports:
                    posterior = adapt_white(support._replace(z=support.z @ scale), mean)
                    weights = mean + posterior.offset
                    margin = (judged @ weights.unsqueeze(-1)).squeeze(-1)
                    ranked += mean_decided(right(margin), query) / len(shots)
                    variance = judged.square().sum(-1) - (judged @ posterior.explained.mT).square().sum(-1)
                    for row, spread in zip(loss, SPREADS, strict=True):
                        cautious = bradley_terry(moderated(margin, spread * variance), query.tie)
                        row += weighted_mean(cautious, query.strength) / len(shots)
                parts[strength].append(Trial(loss, ranked))
        for strength, chunks in parts.items():
            trials[size, strength] = Trial(*(torch.cat(field, -1) for field in zip(*chunks, strict=True)))
    return trials


def choose(folds: Sequence[Trials]) -> Choice:
    """The fewest base rewards within one standard error of the best accuracy (Breiman et al. 1984), and least loss.

    Accuracy is what users notice, but too coarse to tell strengths apart: among those as accurate as the best, to one
    standard error, the loss decides. If adapting gains less than half its standard error, users stay unadapted.

    Args:
        folds: trials of disjoint groups of held-out users, of the same sizes and strengths.
    """
    trials = {key: _joined([fold[key] for fold in folds]) for key in folds[0]}
    loss = {key: _least_loss(trial) for key, trial in trials.items()}
    gain = {
        (size, strength): (trial.accuracy - trials[size, UNADAPTED].accuracy).nan_to_num()
        for (size, strength), trial in trials.items()
    }
    best = max(gain.values(), key=lambda values: float(values.mean()))
    size, strength = min(
        (key for key in trials if _is_within_one_error(best - gain[key])), key=lambda key: (key[0], loss[key])
    )
    curve: dict[str, dict[str, float]] = {}
    for (k, s), mean in loss.items():
        curve.setdefault(str(k), {})[f"{s:g}"] = mean
    mean_gain = float(gain[size, strength].mean())
    error = float(gain[size, strength].std(correction=0)) / len(gain[size, strength]) ** 0.5
    strength = strength if mean_gain >= error / 2 else UNADAPTED
    before, after = (float(trials[size, s].accuracy.nanmean()) for s in (UNADAPTED, strength))
    return Choice(size, strength, mean_gain, before, after, curve)


def choose_share(folds: Sequence[Mapping[float, Trials]], choice: Choice) -> tuple[float, tuple[float, float] | None]:
    """How much people may differ over new texts: the share of least loss, or 0 if it would cost accuracy.

    Args:
        folds: trials on new texts, by share; none if no text could be held back, and then the whole share is taken.
        choice: of K and strength.

    Returns:
        The share, and the accuracy on new texts before and after adapting with it; ``None`` if nothing was judged.
    """
    if not folds:
        return 1.0, None
    key = choice.base_functions, choice.strength
    trials = {share: _joined([fold[share][key] for fold in folds]) for share in SHARES}
    share = min(SHARES, key=lambda share: _least_loss(trials[share]))
    before, after = (float(trials[s].accuracy.nanmean()) for s in (0.0, share))
    return (share, (before, after)) if after >= before else (0.0, (before, before))


def choose_spread(folds: Sequence[Trial], new: Sequence[Trial]) -> tuple[float, dict[str, float]]:
    """How sure of weights to be: what gives the least loss, where texts that the fit knows and new ones count alike.

    Args:
        folds: trials at the choice of K and strength, on texts that the fit knows.
        new: on new texts, at the choice of their share; may be empty.

    Returns:
        The factor, and the mean loss in nats of each.
    """
    losses = torch.stack([_joined(parts).loss.mean(1) for parts in (folds, new) if parts]).mean(0)
    curve = {f"{spread:g}": float(loss) for spread, loss in zip(SPREADS, losses, strict=True)}
    return SPREADS[int(losses.argmin())], curve


def _joined(parts: Sequence[Trial]) -> Trial:
    return Trial(*(torch.cat(field, -1).double() for field in zip(*parts, strict=True)))


def _least_loss(trial: Trial) -> float:
    return float(trial.loss.mean(1).min())


def _is_within_one_error(behind: Tensor) -> bool:
    return bool(behind.mean() <= behind.std(correction=0) / len(behind) ** 0.5)
