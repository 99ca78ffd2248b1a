"""What the recipes on Skywork's reward model share: encode, split by user, train on the seen, report on the unseen.

The released experiments of MRM and LoRe split users in half at random and keep, per user, one half of the data to
adapt and the other to be judged on. They pick the best epoch on the unseen users; here nothing is chosen on them: the
prior's strength is chosen on seen users who are set aside from training.

Embeddings are float16: the model's are bfloat16, of which float16 loses nothing between 6e-5 and 65504, and what is
larger stops the recipe with a message (``--store float32`` then). Interrupted encoding resumes when the same
command is run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrm_sdk import Bundle
from mrm_sdk.data import QUERY, SUPPORT, Dataset, read_dataset, write_embedded
from mrm_sdk.encoders.hidden_state import DTYPES, HiddenStateEncoder
from mrm_sdk.evaluation import evaluate, evaluation_table
from mrm_sdk.training import MamlConfig, TrainingConfig, train_bundle

MODEL = "Skywork/Skywork-Reward-V2-Llama-3.1-8B"


def options(description: str | None, data: str) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the data with embeddings and for the bundle")
    parser.add_argument("--data", default=data, help="file, folder or hub:owner/name (default: %(default)s)")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--store", default="float16", choices=("float16", "float32"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--preset", default="newton", help="newton or paper")
    parser.add_argument("--steps", type=int, help="fewer steps over users than the preset's, to try the recipe out")
    parser.add_argument("--seed", type=int, default=0, help="of the users' split and of training")
    return parser.parse_args()


def run(
    chosen: argparse.Namespace,
    dataset: Dataset,
    *,
    licence: str,
    seen_pairs: int | None = None,
    unseen_pairs: int | None = None,
    shots: Sequence[int] = (0, 2, 5, 10, 20, 40, 60),
) -> None:
    """Encodes, trains on half of the users, and prints what the bundle reaches on the other half.

    Args:
        chosen: the command line.
        dataset: with phases.
        licence: of data and model, for the manifest.
        seen_pairs: most comparisons per phase of a user to learn from.
        unseen_pairs: most comparisons per phase of a user to judge.
        shots: see ``evaluate``.
    """
    print(f"{dataset.reading}\n{dataset.describe()}")
    encoder = HiddenStateEncoder(
        chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        max_tokens=chosen.max_tokens,
        batch_size=chosen.batch_size,
    )
    halves: list[Dataset] = []
    for name, rows in zip(("seen", "unseen"), split(dataset, chosen.seed, seen_pairs, unseen_pairs), strict=True):
        folder = chosen.out / name
        write_embedded(dataset.subset(rows), encoder, folder, store=chosen.store, progress=progress(name))
        halves.append(read_dataset(folder))
    seen, unseen = halves
    config = TrainingConfig.preset(chosen.preset, seed=chosen.seed)
    config = config.with_settings(max_pairs=max(config.max_pairs, seen_pairs or 0))
    if chosen.steps is not None:
        by_steps = isinstance(config.outer, MamlConfig)
        settings = {"steps": chosen.steps, "epochs": None} if by_steps else {"iterations": chosen.steps}
        config = config.with_settings(**settings)
    train_bundle(seen, chosen.out / "bundle", config=config, licence=licence)
    print(evaluation_table(evaluate(Bundle(chosen.out / "bundle"), unseen, encoder, shots=shots)))


def split(
    dataset: Dataset, seed: int, seen_pairs: int | None, unseen_pairs: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the seen and of the unseen users: those with data to adapt to and to be judged on, halved at random."""
    rng = np.random.default_rng(seed)
    able = np.intersect1d(dataset.user[dataset.phase == SUPPORT], dataset.user[dataset.phase == QUERY])
    users = rng.permutation(able)
    # Drawn for all users together, so that the split does not depend on how many comparisons a user has.
    order = rng.permutation(len(dataset))
    parts = []
    for half, most in ((users[: len(users) // 2], seen_pairs), (users[len(users) // 2 :], unseen_pairs)):
        rows = order[np.isin(dataset.user[order], half)]
        group = dataset.user[rows] * 2 + dataset.phase[rows]
        by_group = np.argsort(group, kind="stable")
        rank = np.empty(len(rows), np.int64)
        rank[by_group] = np.arange(len(rows)) - np.searchsorted(group[by_group], group[by_group])
        parts.append(np.sort(rows if most is None else rows[rank < most]))
    return parts[0], parts[1]


def progress(name: str) -> Callable[[str, int, int], None]:
    """Prints a line per step, with flush: encoding takes hours."""
    return lambda stage, done, total: print(f"{stage} {name}: {done} of {total}", flush=True)
