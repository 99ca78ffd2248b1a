"""The experiment behind what repetition counts and how sure probabilities are, on people that a fit has not seen.

Needs the extras ``[cpu,train,minilm]`` and data sets whose items have text. Each quarter of the people of a data set is
judged by fits to the others: as shipped; with the whole Laplace covariance in probabilities; with every comparison
counting in full in expectation-maximisation; and with every comparison counting in full there and in adapting. Prints
accuracy, loss in nats and calibration error at each number of comparisons, and at most of them what a row differs from
the first, with the standard error over people::

    python export/experiments/choose_repetition.py JESTER/train POLIS/train [--folds 4] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.data.vectors import embed_dataset
from mrm_sdk.evaluation.measure import Measured, measure, merge
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.methods.mrm import fit_newton
from mrm_sdk.evaluation.metrics import ece
from mrm_sdk.evaluation.splits import Split, fold_splits
from mrm_sdk.progress import no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.training.encoding import prepare_encoder
from mrm_sdk.training.episodes import Packed

SHOTS = (0, 2, 10, 20, 40, 60)
ROWS = ("as shipped", "the whole covariance", "in full while learning", "in full everywhere")


@contextmanager
def counted_in_full(*, adapting: bool) -> Iterator[None]:
    """Comparisons are taken as independent in expectation-maximisation, and where users adapt if ``adapting``."""
    discounted = Packed.independent

    def first(users: Packed, shots: int | None = None) -> Packed:
        if shots is not None and not adapting:  # only users who adapt have a number of shots
            return discounted(users, shots)
        return Packed(users.items[:, :, :shots], users.strength[:, :, :shots], users.tie[:, :, :shots])

    with patch.object(Packed, "independent", first):
        yield


def with_whole_covariance(fitted: FittedMethod) -> FittedMethod:
    """The same weights; their covariance is the inverse Hessian of J as it would be with ρ = 1."""
    prior: Prior = fitted.adapt.keywords["prior"]  # type: ignore[attr-defined]  # of a partial
    plain = Prior(prior.w0, prior.precision / prior.rho, torch.ones_like(prior.rho))
    return fitted._replace(covariance=lambda weights, pairs: laplace_covariance(weights, pairs, plain))


def judged(dataset: Dataset, split: Split, embeddings: Tensor) -> list[Measured]:
    """One fold's people under each of :data:`ROWS`."""
    fitted = fit_newton(split.training, split.learners, embeddings, seed=0, progress=no_progress)
    found = [measure(method, dataset, split.users, SHOTS) for method in (fitted, with_whole_covariance(fitted))]
    for adapting in (False, True):
        with counted_in_full(adapting=adapting):
            in_full = fit_newton(split.training, split.learners, embeddings, seed=0, progress=no_progress)
            found.append(measure(in_full, dataset, split.users, SHOTS))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--encoder", default="minilm", help="minilm, or the folder of an exported encoder")
    parser.add_argument("--quick", action="store_true", help="one fold: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for path in options.data:
        dataset = read_dataset(path)
        encoder = prepare_encoder(options.encoder, dataset, Settings(), no_progress).encoder
        dataset, vectors = embed_dataset(encoder, dataset, no_progress)
        embeddings = torch.from_numpy(np.asarray(vectors, np.float32))
        splits = list(fold_splits(dataset, options.folds, seed=0))[: 1 if options.quick else None]
        rows = [merge(parts) for parts in zip(*(judged(dataset, split, embeddings) for split in splits), strict=True)]
        print(f"\n{path}: {len(rows[0].users)} people; accuracy, loss, calibration error at {SHOTS} comparisons")
        for name, row in zip(ROWS, rows, strict=True):
            errors = [ece(torch.from_numpy(sums)) for sums in row.reliability]
            figures = zip(row.accuracy.mean(1), row.loss.mean(1), errors, strict=True)
            cells = " | ".join(f"{a:.4f} {b:.4f} {c:.3f}" for a, b, c in figures)
            apart = [getattr(row, figure)[-1] - getattr(rows[0], figure)[-1] for figure in ("accuracy", "loss")]
            most = ", ".join(f"{one.mean():+.4f} ± {one.std() / len(one) ** 0.5:.4f}" for one in apart)
            print(f"{name:26} {cells} | {most}", flush=True)


if __name__ == "__main__":
    main()
