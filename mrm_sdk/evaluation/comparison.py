"""Compares several methods on the same users, texts, splits and embeddings, over several seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.vectors import OnRefused, embed_dataset, log_refusal
from mrm_sdk.errors import ConfigurationError, DatasetError
from mrm_sdk.evaluation.bootstrap import Interval, paired_intervals
from mrm_sdk.evaluation.corners import cornered, corners_of
from mrm_sdk.evaluation.measure import Measured, judgeable, measure, merge, most_shots
from mrm_sdk.evaluation.method import Method
from mrm_sdk.evaluation.methods import METHODS
from mrm_sdk.evaluation.points import Point, mean_by_user, summarise, usable_shots, users_of
from mrm_sdk.evaluation.protocol import SHOTS
from mrm_sdk.evaluation.splits import Split, fold_splits, unseen_split
from mrm_sdk.evaluation.texts import Corner, Texts, as_texts
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.training.encoding import prepare_encoder

FOLDS = 5
SEEDS = (0, 1, 2)
REFERENCE = "newton"
POPULATION = "population"


@dataclass(frozen=True)
class MethodResult:
    """What was measured of one method.

    Args:
        name: of the method.
        points: one per number of shots, in order; figures are means over seeds, intervals are of users' means.
        spread: standard deviation (n − 1) of the accuracy over seeds at each number of shots; 0 with one seed.
        against: accuracy at most shots minus that of the reference; ``None`` for the reference itself.
        seconds: one fit, on average.
    """

    name: str
    points: list[Point]
    spread: list[float]
    against: Interval | None
    seconds: float


@dataclass(frozen=True)
class Standings:
    """The outcome of a comparison of methods.

    Args:
        texts: that judge: seen by the fits, or new to them.
        methods: in the order of the call.
        reference: the method that ``against`` refers to.
        users: how many were judged.
        folds: over users; ``None`` if another data set was judged.
        seeds: of splits and fits.
        data: description of the data set.
        unseen: description of the data set that was judged, if it is another one.
        seconds: everything but encoding.
        new_texts: the same with new texts, if these standings are of texts that the fits have seen.
    """

    texts: Corner
    methods: list[MethodResult]
    reference: str
    users: int
    folds: int | None
    seeds: list[int]
    data: dict[str, Any]
    unseen: dict[str, Any] | None
    seconds: float
    new_texts: Standings | None = None

    def of(self, name: str) -> MethodResult:
        """The result of the method ``name``."""
        return next(method for method in self.methods if method.name == name)

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs to read."""
        return asdict(self)


@own_torch_defaults()
def compare(
    dataset: Dataset,
    methods: Mapping[str, Method] = METHODS,
    *,
    unseen: Dataset | None = None,
    folds: int | None = None,
    seeds: Sequence[int] = SEEDS,
    shots: Sequence[int] = SHOTS,
    texts: Texts = "auto",
    encoder: str = "minilm",
    settings: Settings | None = None,
    progress: Progress = no_progress,
    on_refused: OnRefused = log_refusal,
) -> Standings:
    """Fits every method to the same users and judges it on the same other users.

    Without ``unseen``, users are split into folds, again for each seed, and each user is judged by a fit that never saw
    a comparison of theirs. A method chooses its own settings on the users it is fitted to. New texts are such as no
    comparison that is learned from is of: those that the data has, or a quarter of all texts, held back anew for each
    seed and fold.

    Args:
        dataset: users' comparisons.
        methods: by name.
        unseen: other users, to judge; then all of ``dataset`` is learned from.
        folds: over users, 5 by default; not together with ``unseen``.
        seeds: one run each.
        shots: how many support comparisons to adapt to; a user with fewer adapts to all of them.
        texts: judge by texts that the fits have seen (``known``), by new ones (``new``), or by both, each in standings
            of its own (``auto``; new ones alone where most of what is judged is of texts that do not come again).
        encoder: as in training; ignored if the data sets have embeddings.
        settings: of the encoder's session.
        progress: called with stage, done, total.
        on_refused: see :func:`~mrm_sdk.data.vectors.embed_dataset`.

    Returns:
        The standings.

    Raises:
        ConfigurationError: methods, folds, seeds, shots or texts are wrong, or there is no such encoder.
        DatasetError: no user can be judged, or not by such texts; or the two data sets share users.
        TrainingError: a method cannot learn from these users.
        MissingDependencyError: an extra is not installed.
    """
    usable_shots(shots, 0)
    as_texts(texts)
    _require_valid(methods, seeds)
    if unseen is not None and folds is not None:
        raise ConfigurationError("Folds split one data set's users; with a data set of unseen users, leave folds out.")
    if unseen is None and folds is None:
        folds = FOLDS
    splits = _splits(dataset, unseen, folds)
    corners: list[Corner] = corners_of(next(iter(splits(seeds[0])))) if texts == "auto" else [texts]
    for corner in corners:  # what cannot be judged is told before the encoder runs
        _require_users(corner, _cornered(splits(seeds[0]), corner, seeds[0]))
    dataset, unseen, embeddings = _embed(dataset, unseen, encoder, settings or Settings(), progress, on_refused)
    splits = _splits(dataset, unseen, folds)

    judged = dataset if unseen is None else unseen
    shots = usable_shots(shots, most_shots(judged, judgeable(judged)))
    fits = len(corners) * len(seeds) * (folds or 1) * len(methods)
    done = count(1)
    standings: list[Standings] = []
    for corner in corners:
        began = time.perf_counter()
        runs, seconds = _run(
            methods,
            {seed: _cornered(splits(seed), corner, seed) for seed in seeds},
            embeddings,
            sorted({0, *shots}),
            lambda: progress("comparing", next(done), fits),
            progress,
        )
        found = Standings(
            texts=corner,
            **_results(runs, seconds, shots),
            folds=folds,
            seeds=list(seeds),
            data=dataset.describe(),
            unseen=None if unseen is None else unseen.describe(),
            seconds=round(time.perf_counter() - began, 3),
        )
        standings.append(found)
    first, *others = standings
    return replace(first, new_texts=others[0]) if others else first


def _results(runs: Mapping[str, list[Measured]], seconds: Mapping[str, float], shots: Sequence[int]) -> dict[str, Any]:
    """The standings' fields that depend on what was measured."""
    measured = sorted({0, *shots})
    reference = REFERENCE if REFERENCE in runs else next(iter(runs))
    against = _against(runs, reference)
    population = mean_by_user(runs[POPULATION], "accuracy")[-1] if POPULATION in runs else None
    methods = [
        MethodResult(
            name=name,
            points=summarise(runs[name], measured, shots, None if name == POPULATION else population),
            spread=[_spread([run.accuracy[measured.index(n)].mean() for run in runs[name]]) for n in shots],
            against=against[name],
            seconds=round(seconds[name], 3),
        )
        for name in runs
    ]
    return {"methods": methods, "reference": reference, "users": len(users_of(runs[reference]))}


def _require_valid(methods: Mapping[str, Method], seeds: Sequence[int]) -> None:
    if not methods:
        raise ConfigurationError("There is no method to compare; name at least one.")
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigurationError("Seeds must be distinct numbers, 0 or more; at least one.")


def _splits(dataset: Dataset, unseen: Dataset | None, folds: int | None) -> Callable[[int], Iterable[Split]]:
    """The splits of a seed: of ``dataset`` into ``folds``, or always the one that judges ``unseen``."""
    if unseen is None:
        return partial(fold_splits, dataset, FOLDS if folds is None else folds)
    return partial(_same_split, unseen_split(dataset, unseen))


def _same_split(split: Split, _seed: int) -> Iterable[Split]:
    return (split,)


def _cornered(splits: Iterable[Split], corner: Corner, seed: int) -> Iterator[Split]:
    for fold, split in enumerate(splits):
        yield cornered(split, corner, np.random.default_rng([seed, fold]))


def _require_users(corner: Corner, splits: Iterable[Split]) -> None:
    if not any(len(split.users) for split in splits):
        raise DatasetError(
            f"No user judges two texts that are {corner} to a fit: choose another kind with --texts, or judge others."
        )


def _embed(
    dataset: Dataset,
    unseen: Dataset | None,
    encoder: str,
    settings: Settings,
    progress: Progress,
    on_refused: OnRefused,
) -> tuple[Dataset, Dataset | None, Tensor]:
    """Both data sets without the texts that the encoder refuses, and their items' embeddings [items, D] float32."""
    prepared = prepare_encoder(encoder, dataset, settings, progress)
    parts = (dataset,) if unseen is None else (dataset, unseen)
    embedded = [embed_dataset(prepared.encoder, part, progress, on_refused) for part in parts]
    vectors = torch.from_numpy(np.concatenate([part.embeddings for part in embedded]).astype(np.float32))
    return embedded[0].dataset, None if unseen is None else embedded[1].dataset, vectors


def _run(
    methods: Mapping[str, Method],
    splits: Mapping[int, Iterable[Split]],
    embeddings: Tensor,
    shots: Sequence[int],
    after_fit: Callable[[], None],
    progress: Progress,
) -> tuple[dict[str, list[Measured]], dict[str, float]]:
    """Fits and measures each method on each split of each seed.

    Returns:
        What was measured of each method, one entry per seed, and the mean seconds of its fits.
    """
    runs: dict[str, list[Measured]] = {name: [] for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for seed, parts_of_users in splits.items():
        parts: dict[str, list[Measured]] = {name: [] for name in methods}
        for split in parts_of_users:
            for name, method in methods.items():
                if len(split.users):  # else none of them judges such texts
                    report = _of(name, progress)
                    began = time.perf_counter()
                    fitted = method.fit(split.training, split.learners, embeddings, seed=seed, progress=report)
                    seconds[name].append(time.perf_counter() - began)
                    parts[name].append(measure(fitted, split.judged, split.users, shots))
                after_fit()
        for name in methods:
            if parts[name]:
                runs[name].append(merge(parts[name]))
    return runs, {name: float(np.mean(times)) for name, times in seconds.items()}


def _of(name: str, progress: Progress) -> Progress:
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _against(runs: Mapping[str, Sequence[Measured]], reference: str) -> dict[str, Interval | None]:
    """Paired intervals of every method's accuracy at most shots minus the reference's, per user over seeds."""
    last = {name: mean_by_user(measured, "accuracy")[-1] for name, measured in runs.items()}
    intervals = paired_intervals(np.stack([values - last[reference] for values in last.values()]))
    return {name: None if name == reference else interval for name, interval in zip(last, intervals, strict=True)}
