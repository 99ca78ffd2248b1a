"""The experiment: users that no fit has seen give some comparisons and are judged on others.

Each user is judged before adapting (0 shots), after adapting to the first n support comparisons, with the weights of
another user, and after adapting to reversed choices: personalization is shown only if users' own weights, from the
right labels, do better than these. ``docs/evaluation.md`` defines every figure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.ratings import with_threshold
from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.vectors import OnRefused, embed_dataset, log_refusal
from mrm_sdk.encoders import Encoder
from mrm_sdk.errors import BundleMismatchError, ConfigurationError
from mrm_sdk.evaluation.bootstrap import Interval, paired_intervals
from mrm_sdk.evaluation.measure import Measured, judgeable, measure, most_shots
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.metrics import BINS, ece, worst_share
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.training.basis import chunks

SHOTS = (0, 2, 5, 10, 20, 40, 60)
_CELLS = 2**20


@dataclass(frozen=True)
class Point:
    """The figures at one number of shots; accuracies are means per user, then over users.

    Args:
        shots: support comparisons that each user adapted to (or all, if a user has fewer).
        accuracy: with users' own weights.
        worst_tenth: of the tenth of users who fare worst at this number of shots.
        worst_fifth: of the worst fifth.
        worst_half: of the worst half.
        control: with another user's weights; ``None`` if there is only one user.
        flipped: with users' own weights, adapted to the reverse of every choice.
        loss: mean Bradley–Terry loss in nats.
        brier: mean squared error of the predicted probability.
        ece: expected calibration error of the predicted probability.
        gain: accuracy minus the accuracy without adapting.
        over_control: accuracy minus that with another user's weights.
        flip_drop: the accuracy without adapting minus that after reversed choices.
    """

    shots: int
    accuracy: float
    worst_tenth: float
    worst_fifth: float
    worst_half: float
    control: float | None
    flipped: float
    loss: float
    brier: float
    ece: float
    gain: Interval
    over_control: Interval | None
    flip_drop: Interval


@dataclass(frozen=True)
class Report:
    """The outcome of an evaluation.

    Args:
        points: one per number of shots, in order.
        user_ids: of the judged users, [users].
        per_user: accuracy of each user at each number of shots, [shots, users].
        reliability: sums over users per bin of confidence, see ``metrics.reliability``, [shots, 3, bins].
        bundle: name and fingerprint, or what else the caller says of the judged method.
        data: description of the data set.
        seconds: of adapting and judging all users at all shots, without encoding.
    """

    points: list[Point]
    user_ids: list[str]
    per_user: NDArray[np.float64]
    reliability: NDArray[np.float64]
    bundle: dict[str, str]
    data: dict[str, Any]
    seconds: float

    def at(self, shots: int) -> Point:
        """The point measured at ``shots``."""
        return next(point for point in self.points if point.shots == shots)

    def bins(self) -> list[dict[str, float]]:
        """The reliability diagram at most shots: one entry per bin of confidence that holds a comparison."""
        share, confidence, right = self.reliability[-1]
        return [
            {
                "from": 0.5 + i / (2 * BINS),
                "to": 0.5 + (i + 1) / (2 * BINS),
                "share": float(share[i] / share.sum()),
                "confidence": float(confidence[i] / share[i]),
                "accuracy": float(right[i] / share[i]),
            }
            for i in np.flatnonzero(share)
        ]

    def doubts(self) -> list[str]:
        """What speaks against personalization at most shots, a sentence each; empty if it is shown."""
        point, sentences = self.points[-1], []
        if point.shots and point.gain.low <= 0:
            sentences.append("Accuracy after adapting is not clearly above the accuracy before")
        if point.shots and point.over_control is not None and point.over_control.low <= 0:
            sentences.append("Own weights are not clearly better than another user's")
        if point.shots and point.flip_drop.low <= 0:
            sentences.append("Adapting to reversed choices does not clearly lower the accuracy")
        return [f"{sentence}: personalization is not shown." for sentence in sentences]

    def as_json(self) -> dict[str, Any]:
        """Everything except the single users, for programs to read."""
        return {
            "bundle": self.bundle,
            "data": self.data,
            "users": len(self.user_ids),
            "seconds": round(self.seconds, 3),
            "results": [asdict(point) for point in self.points],
            "reliability": {"shots": self.points[-1].shots, "bins": self.bins()},
            "doubts": self.doubts(),
        }


def usable_shots(shots: Sequence[int], most: int) -> list[int]:
    """Numbers of shots in order; larger ones become ``most``, the number of comparisons that the largest user has.

    Raises:
        ConfigurationError: a number of shots is negative, or none is given.
    """
    if not shots or min(shots) < 0:
        raise ConfigurationError("Shots must be numbers of comparisons, 0 or more.")
    return sorted({min(n, most) for n in shots})


def summarise(runs: Sequence[Measured], measured: Sequence[int], shots: Sequence[int]) -> list[Point]:
    """Points from figures per user.

    Args:
        runs: of the same users, one per seed: figures are means over runs, and intervals are of the users' means.
        measured: the numbers of shots in ``runs``; the first is 0.
        shots: those of them that get a point.
    """
    before, own, flipped, control = (
        np.mean([getattr(run, name) for run in runs], axis=0) for name in ("accuracy", "accuracy", "flipped", "control")
    )
    alone = bool(np.isnan(control).any())
    other = own if alone else control
    intervals = paired_intervals(np.concatenate([own - before[:1], own - other, before[:1] - flipped]))

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    points = []
    for n in shots:
        i = list(measured).index(n)
        tenth, fifth, half = (
            mean([worst_share(torch.from_numpy(run.accuracy[i]), share) for run in runs]) for share in (0.1, 0.2, 0.5)
        )
        points.append(
            Point(
                shots=n,
                accuracy=mean(own[i]),
                worst_tenth=tenth,
                worst_fifth=fifth,
                worst_half=half,
                control=None if alone else mean(control[i]),
                flipped=mean(flipped[i]),
                loss=mean([run.loss[i].mean() for run in runs]),
                brier=mean([run.brier[i].mean() for run in runs]),
                ece=mean([ece(torch.from_numpy(run.reliability[i])) for run in runs]),
                gain=intervals[i],
                over_control=None if alone else intervals[len(measured) + i],
                flip_drop=intervals[2 * len(measured) + i],
            )
        )
    return points


def judge(
    fitted: FittedMethod,
    dataset: Dataset,
    *,
    users: NDArray[np.int64] | None = None,
    shots: Sequence[int] = SHOTS,
    about: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Judges a fitted method on users of a data set.

    Args:
        fitted: the method, with features of the data set's items.
        dataset: the users' comparisons.
        users: indices into its ``user_ids``, of users who took no part in fitting; all by default.
        shots: how many support comparisons to adapt to; a user with fewer adapts to all of them.
        about: what the report says about ``fitted``.
        progress: called with stage, done, total.

    Returns:
        The report.

    Raises:
        ConfigurationError: a number of shots is negative, or none is given.
        DatasetError: no user has a decided comparison to be judged by.
        TrainingError: adapting gave NaN or infinity.
    """
    began = time.perf_counter()
    usable_shots(shots, 0)
    judged = judgeable(dataset, users)
    shots = usable_shots(shots, most_shots(dataset, judged))
    measured = sorted({0, *shots})
    run = measure(fitted, dataset, judged, measured, progress=progress)
    rows = [measured.index(n) for n in shots]
    return Report(
        points=summarise([run], measured, shots),
        user_ids=[dataset.user_ids[user] for user in run.users],
        per_user=run.accuracy[rows],
        reliability=run.reliability[rows],
        bundle=dict(about or {}),
        data=dataset.describe(),
        seconds=time.perf_counter() - began,
    )


@own_torch_defaults()
def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    encoder: Encoder,
    *,
    shots: Sequence[int] = SHOTS,
    progress: Progress = no_progress,
    on_refused: OnRefused = log_refusal,
) -> Report:
    """Judges a bundle on the users of a data set.

    Args:
        bundle: the bundle to judge.
        dataset: users who took no part in training; ``from_ratings(…, alone=True)`` makes one of ratings in which they
            count as in a client.
        encoder: of the bundle.
        shots: how many support comparisons to adapt to; a user with fewer adapts to all of them.
        progress: called with stage, done, total.
        on_refused: see :func:`~mrm_sdk.data.vectors.embed_dataset`.

    Returns:
        The report.

    Raises:
        ConfigurationError: a number of shots is negative, or none is given.
        BundleMismatchError: the data set's embeddings are not of the bundle's size.
        DatasetError: no user has a decided comparison to be judged by.
    """
    usable_shots(shots, 0)
    if dataset.dimension not in (None, encoder.dimension):
        raise BundleMismatchError(
            f"The data set's embeddings have {dataset.dimension} numbers, the bundle's have {encoder.dimension}."
        )
    # In single precision, unlike other methods' features: a host computes and stores differences in it.
    dataset, embeddings = embed_dataset(encoder, dataset, progress, on_refused)
    parts = []
    for start, rows in chunks(embeddings):
        parts.append(bundle.base_rewards(rows.numpy()))
        progress("base rewards of items", start + len(rows), len(embeddings))
    base_rewards, width = torch.from_numpy(np.concatenate(parts)), bundle.manifest.base_functions
    if max(dataset.chosen.max(), dataset.rejected.max()) == len(base_rewards):
        base_rewards = with_threshold(base_rewards)
    # A Newton step holds a matrix [K, K] per user, which is more than short histories take.
    users_per_chunk = max(1, _CELLS // base_rewards.shape[1] ** 2)

    def adapt(pairs: Pairs) -> Tensor:
        parts = zip(*(torch.split(field, users_per_chunk) for field in pairs), strict=True)
        weights = torch.cat([bundle.adapt(Pairs(*part))[0] for part in parts])
        return torch.nn.functional.pad(weights, (0, base_rewards.shape[1] - width))

    fitted = FittedMethod(base_rewards, adapt)
    about = {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint}
    return judge(fitted, dataset, shots=shots, about=about, progress=progress)
