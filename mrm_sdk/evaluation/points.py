"""Figures at numbers of shots, from the figures of single users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.errors import ConfigurationError
from mrm_sdk.evaluation.bootstrap import Interval, paired_intervals
from mrm_sdk.evaluation.measure import Measured
from mrm_sdk.evaluation.metrics import ece, worst_again, worst_share


@dataclass(frozen=True)
class Point:
    """The figures at one number of shots; accuracies are means per user, then over users.

    Args:
        shots: support comparisons that each user adapted to (or all, if a user has fewer).
        accuracy: with users' own weights.
        worst_tenth: of the tenth of users who fare worst at this number of shots.
        worst_fifth: of the worst fifth.
        worst_half: of the worst half.
        worst_tenth_again: what the worst tenth would score on other questions, without the part that is bad luck.
        control: with another user's weights; ``None`` if there is only one user.
        flipped: with users' own weights, adapted to the reverse of every choice.
        loss: mean Bradley–Terry loss in nats.
        loss_change: loss minus the loss without adapting.
        brier: mean squared error of the predicted probability.
        ece: expected calibration error of the predicted probability.
        gain: accuracy minus the accuracy without adapting.
        over_control: accuracy minus that with another user's weights.
        over_population: accuracy minus that of one reward for all; ``None`` if there is none to compare with.
        flip_drop: the accuracy without adapting minus that after reversed choices.
    """

    shots: int
    accuracy: float
    worst_tenth: float
    worst_fifth: float
    worst_half: float
    worst_tenth_again: float
    control: float | None
    flipped: float
    loss: float
    loss_change: float
    brier: float
    ece: float
    gain: Interval
    over_control: Interval | None
    over_population: Interval | None
    flip_drop: Interval


def usable_shots(shots: Sequence[int], most: int) -> list[int]:
    """Numbers of shots in order; larger ones become ``most``, the number of comparisons that the largest user has.

    Raises:
        ConfigurationError: a number of shots is negative, or none is given.
    """
    if not shots or min(shots) < 0:
        raise ConfigurationError("Shots must be numbers of comparisons, 0 or more.")
    return sorted({min(n, most) for n in shots})


def users_of(runs: Sequence[Measured]) -> NDArray[np.int64]:
    """Users who were judged in any run, ascending."""
    return np.unique(np.concatenate([run.users for run in runs]))


def mean_by_user(runs: Sequence[Measured], name: str) -> NDArray[np.float64]:
    """A figure of each user of :func:`users_of`, [shots, users]: its mean over the runs in which they were judged."""
    users = users_of(runs)
    total = np.zeros((len(getattr(runs[0], name)), len(users)))
    times = np.zeros(len(users))
    for run in runs:
        at = np.searchsorted(users, run.users)
        total[:, at] += getattr(run, name)
        times[at] += 1
    return total / times


def summarise(
    runs: Sequence[Measured],
    measured: Sequence[int],
    shots: Sequence[int],
    population: NDArray[np.float64] | None = None,
) -> list[Point]:
    """Points from figures per user.

    Args:
        runs: one per seed: figures are means over runs, and intervals are of the users' means over theirs.
        measured: the numbers of shots in ``runs``; the first is 0.
        shots: those of them that get a point.
        population: accuracy of one reward for all on the users of :func:`users_of`, [users].
    """
    own, flipped, control = (mean_by_user(runs, name) for name in ("accuracy", "flipped", "control"))
    before, alone = own[:1], bool(np.isnan(control).any())
    other, shared = own if alone else control, own if population is None else population[None]
    intervals = paired_intervals(np.concatenate([own - before, own - other, before - flipped, own - shared]))
    gains, over_control, drops, over_population = (
        intervals[part * len(measured) : (part + 1) * len(measured)] for part in range(4)
    )

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    loss = np.mean([run.loss.mean(1) for run in runs], axis=0)
    points = []
    for n in shots:
        i = list(measured).index(n)
        tenths, fifths, halves = (
            [worst_share(torch.from_numpy(run.accuracy[i]), share) for run in runs] for share in (0.1, 0.2, 0.5)
        )
        again = [
            worst_again(torch.from_numpy(run.accuracy[i]), torch.from_numpy(run.questions), worst)
            for run, worst in zip(runs, tenths, strict=True)
        ]
        points.append(
            Point(
                shots=n,
                accuracy=mean(own[i]),
                worst_tenth=mean(tenths),
                worst_fifth=mean(fifths),
                worst_half=mean(halves),
                worst_tenth_again=mean(again),
                control=None if alone else mean(control[i]),
                flipped=mean(flipped[i]),
                loss=float(loss[i]),
                loss_change=float(loss[i] - loss[0]),
                brier=mean([run.brier[i].mean() for run in runs]),
                ece=mean([ece(torch.from_numpy(run.reliability[i])) for run in runs]),
                gain=gains[i],
                over_control=None if alone else over_control[i],
                over_population=None if population is None else over_population[i],
                flip_drop=drops[i],
            )
        )
    return points
