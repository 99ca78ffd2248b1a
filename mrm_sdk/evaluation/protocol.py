"""The experiment: users that no fit has seen give some comparisons and are judged on others.

Each user is judged before adapting (0 shots), after adapting to the first n support comparisons, with the weights of
another user, and after adapting to reversed choices: personalization is shown only if users' own weights, from the
right labels, do better than these, and than one reward for all. Texts that the fit has seen and new ones are judged
apart as well. ``docs/evaluation.md`` defines every figure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.bundle.reference import Reference
from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.core.ratings import with_threshold
from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.data.contents import QUERY
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.vectors import OnRefused, embed_dataset, log_refusal
from mrm_sdk.encoders import Encoder
from mrm_sdk.errors import BundleMismatchError, DatasetError
from mrm_sdk.evaluation.corners import judged_by
from mrm_sdk.evaluation.measure import judgeable, measure, most_shots
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.metrics import BINS
from mrm_sdk.evaluation.points import Point, summarise, usable_shots
from mrm_sdk.evaluation.texts import CORNERS, Corner, Texts, as_texts
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.training.basis import chunks

SHOTS = (0, 2, 5, 10, 20, 40, 60)
_CELLS = 2**20
# Nats by which a mean loss may differ for no better reason than rounding.
_NOTICEABLE = 1e-4


@dataclass(frozen=True)
class Population:
    """How one reward for all, which the bundle brings along, fares on the same comparisons.

    Args:
        accuracy: mean per user, then over users.
        loss: mean Bradley–Terry loss in nats.
    """

    accuracy: float
    loss: float


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
        population: one reward for all, on the same comparisons; ``None`` if there is none to compare with.
        texts: which kind of texts all comparisons are of; ``None``: of both, or it is not known.
        corners: the same, judged by comparisons of two texts that the fit has seen (``known``), and of two that it has
            not (``new``); empty unless there are both.
    """

    points: list[Point]
    user_ids: list[str]
    per_user: NDArray[np.float64]
    reliability: NDArray[np.float64]
    bundle: dict[str, str]
    data: dict[str, Any]
    seconds: float
    population: Population | None = None
    texts: Corner | None = None
    corners: Mapping[Corner, Report] = field(default_factory=dict)

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
        doubts = [f"{sentence}: personalization is not shown." for sentence in sentences]
        over = point.over_population
        if over is not None and over.high < 0:
            doubts.append("One reward for all is more accurate: train again with more users, or serve that.")
        if point.loss_change > _NOTICEABLE:
            doubts.append("Probabilities are worse after adapting than before: rank by scores, trust no probability.")
        return doubts

    def as_json(self) -> dict[str, Any]:
        """Everything except the single users, for programs to read."""
        return {
            "bundle": self.bundle,
            "data": self.data,
            "seconds": round(self.seconds, 3),
            **self._figures(),
            "corners": {corner: report._figures() for corner, report in self.corners.items()},
        }

    def _figures(self) -> dict[str, Any]:
        return {
            "users": len(self.user_ids),
            "texts": self.texts,
            "population": None if self.population is None else asdict(self.population),
            "results": [asdict(point) for point in self.points],
            "reliability": {"shots": self.points[-1].shots, "bins": self.bins()},
            "doubts": self.doubts(),
        }


def judge(
    fitted: FittedMethod,
    dataset: Dataset,
    *,
    users: NDArray[np.int64] | None = None,
    shots: Sequence[int] = SHOTS,
    about: Mapping[str, str] | None = None,
    population: FittedMethod | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Judges a fitted method on users of a data set.

    Args:
        fitted: the method, with features of the data set's items.
        dataset: the users' comparisons.
        users: indices into its ``user_ids``, of users who took no part in fitting; all by default.
        shots: how many support comparisons to adapt to; a user with fewer adapts to all of them.
        about: what the report says about ``fitted``.
        population: one reward for all, to judge beside it.
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
    shared = None if population is None else measure(population, dataset, judged, [0])
    return Report(
        points=summarise([run], measured, shots, None if shared is None else shared.accuracy[0]),
        user_ids=[dataset.user_ids[user] for user in run.users],
        per_user=run.accuracy[rows],
        reliability=run.reliability[rows],
        bundle=dict(about or {}),
        data=dataset.describe(),
        seconds=time.perf_counter() - began,
        population=None if shared is None else Population(float(shared.accuracy.mean()), float(shared.loss.mean())),
    )


@own_torch_defaults()
def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    encoder: Encoder,
    *,
    shots: Sequence[int] = SHOTS,
    texts: Texts = "auto",
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
        texts: judge by comparisons of two texts that the bundle's training has seen (``known``), of two that it has not
            (``new``), or by all, with both kinds by themselves where there are both (``auto``).
        progress: called with stage, done, total.
        on_refused: see :func:`~mrm_sdk.data.vectors.embed_dataset`.

    Returns:
        The report.

    Raises:
        ConfigurationError: a number of shots is negative, none is given, or ``texts`` is something else.
        BundleMismatchError: the bundle does not say which texts it has seen, and ``texts`` asks for it; or:
            the data set's embeddings are not of the bundle's size.
        DatasetError: no user has a decided comparison to be judged by.
    """
    usable_shots(shots, 0)
    as_texts(texts)
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
    base_rewards = torch.from_numpy(np.concatenate(parts))
    is_rated = max(dataset.chosen.max(), dataset.rejected.max()) == len(base_rewards)
    if is_rated:
        base_rewards = with_threshold(base_rewards)
    reference = bundle.reference()
    fitted = _fitted(bundle, base_rewards)
    about = {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint}
    by_corner = _corners(dataset, reference, texts)

    def judged(part: Dataset, corner: Corner | None) -> Report:
        direction = reference.new if corner == "new" else reference.known
        population = None
        if direction is not None:
            rewards = torch.from_numpy(np.asarray(embeddings, np.float64)) @ direction
            rewards = torch.nn.functional.pad(rewards, (0, int(is_rated)))  # no support is read
            population = FittedMethod(rewards.unsqueeze(1), lambda support: support.z.new_ones(len(support.z), 1))
        report = judge(fitted, part, shots=shots, about=about, population=population, progress=progress)
        return replace(report, texts=corner)

    if texts != "auto":
        return judged(by_corner[texts], texts)
    if len(by_corner) == 2:
        return replace(judged(dataset, None), corners={name: judged(part, name) for name, part in by_corner.items()})
    only = [corner for corner, part in by_corner.items() if len(part) == len(dataset)]
    return judged(dataset, only[0] if only else None)


def _corners(dataset: Dataset, reference: Reference, texts: Texts) -> dict[Corner, Dataset]:
    """The data set by the texts that judge: the kind that ``texts`` asks for, or those that there are."""
    query = dataset.phase == QUERY
    used = np.unique([dataset.chosen[query], dataset.rejected[query]])
    seen = reference.knows(dataset.items[i] for i in used.tolist())
    if seen is None:
        if texts == "auto":
            return {}
        raise BundleMismatchError(
            "This bundle does not say which texts its training has seen: train it again, or leave --texts out."
        )
    known = np.zeros(len(dataset.items) + 1, np.bool_)  # the last is the threshold of ratings
    known[used] = seen
    parts: dict[Corner, Dataset] = {}
    for corner in CORNERS if texts == "auto" else (texts,):
        part = judged_by(dataset, corner, known)
        try:
            judgeable(part)
        except DatasetError:
            if texts == "auto":
                continue
            raise DatasetError(f"No user in this data set judges two texts that are {corner} to the bundle.") from None
        parts[corner] = part
    return parts


def _fitted(bundle: Bundle, base_rewards: Tensor) -> FittedMethod:
    # A Newton step holds a matrix per user, which is more than short histories take.
    users_per_chunk = max(1, _CELLS // base_rewards.shape[1] ** 2)
    is_rated = base_rewards.shape[1] > bundle.manifest.base_functions
    prior = bundle.prior.with_threshold() if is_rated else bundle.prior

    def adapt(pairs: Pairs) -> Tensor:
        parts = zip(*(torch.split(field, users_per_chunk) for field in pairs), strict=True)
        return torch.cat([bundle.adapt(Pairs(*part))[0] for part in parts])

    def covariance(weights: Tensor, pairs: Pairs) -> Tensor:
        parts = zip(*(torch.split(field, users_per_chunk) for field in (weights, *pairs)), strict=True)
        return torch.cat([laplace_covariance(own, Pairs(*part), prior) for own, *part in parts])

    newton = bundle.manifest.adaptation.method == "newton"
    return FittedMethod(base_rewards, adapt, covariance if newton else None, discounts_repetition=newton)
