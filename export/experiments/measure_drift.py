"""What a half-life does where tastes change half-way, and what it costs where they do not.

Needs the extras ``[cpu,train,minilm]`` and no data: trains on synthetic people of the demo's corpus, then lets others,
asked about other prompts, compare 60 pairs of answers, one a day; changes their tastes to others drawn from the same
population; and lets them compare 60 more. Prints, for each half-life, how often they rank pairs of answers to further
prompts by the taste they have by then, as comparisons come in; and the same for people who keep their taste. A
difference to the first row stands with its standard error over people::

    python export/experiments/measure_drift.py [--seeds 3] [--quick]
"""

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.drift import discounts
from mrm_sdk.core.inner_loop import SERVING_STEPS, SERVING_TOLERANCE, Prior, newton_serving
from mrm_sdk.data import QUERY, SUPPORT, Dataset
from mrm_sdk.data.vectors import embed_dataset
from mrm_sdk.evaluation.metrics import accuracy, margins
from mrm_sdk.progress import no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.simulation.corpus import Question, load_corpus
from mrm_sdk.simulation.users import SyntheticUsers, draw_users, simulate_judgements
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.encoding import prepare_encoder
from mrm_sdk.training.episodes import pack
from mrm_sdk.training.fitting import fit

TRAINED, FEEDBACK, JUDGED = range(64), range(64, 80), range(80, 96)
BEFORE = 60
AFTER = (0, 2, 5, 10, 20, 40, 60)
HALF_LIVES = (None, 160, 80, 40, 20, 10, 5, 2)
DAY = timedelta(days=1)


class People(NamedTuple):
    """What people of one seed said before the change and after it, and what they prefer in the end."""

    before: Pairs
    after: Pairs
    query: Pairs
    prior: Prior


def simulate(
    questions: Sequence[Question], embeddings: NDArray[np.float32], config: TrainingConfig, size: int
) -> tuple[People, People]:
    """Trains on other people, and returns those whose tastes change and, with the same start, those who keep theirs."""
    seed = 10 * config.seed
    users = draw_users(1000 if size > 100 else 100, seed=seed, prefix="trained")
    data = simulate_judgements(
        users, questions, support=TRAINED, query=TRAINED, support_pairs=30, query_pairs=30, seed=seed
    )
    trained = fit(data, np.arange(len(users.user_ids)), embeddings, config, no_progress)
    with torch.no_grad():
        base_rewards = trained.module(torch.from_numpy(embeddings)).double()

    def asked(people: SyntheticUsers, number: int) -> Dataset:
        return simulate_judgements(
            people, questions, support=FEEDBACK, query=JUDGED, support_pairs=BEFORE, query_pairs=BEFORE,
            seed=seed + number, noisy_query=False,
        )  # fmt: skip

    first, second = (draw_users(size, seed=seed + number) for number in (1, 2))
    told = [pack(asked(people, 3 + n), np.arange(size)) for n, people in enumerate((first, second, first))]
    before, *later = (packed.pairs(SUPPORT, base_rewards) for packed in told)
    queries = [packed.pairs(QUERY, base_rewards) for packed in told[1:]]
    change, keep = (People(before, after, query, trained.prior) for after, query in zip(later, queries, strict=True))
    return change, keep


def adapted(people: People, half_life: float | None, after: int, before: int = BEFORE) -> Tensor:
    """Accuracy of each person once ``after`` comparisons came in, [people]; a half-life is in days."""
    pairs = Pairs(
        *(torch.cat(sides, 1) for sides in zip(people.before.first(before), people.after.first(after), strict=True))
    )
    days = [datetime(2026, 1, 1, tzinfo=UTC) + day * DAY for day in range(before + after)]
    factors = discounts(days, None if half_life is None else half_life * DAY.total_seconds())
    pairs = pairs._replace(strength=pairs.strength * torch.from_numpy(factors))
    weights = newton_serving(pairs, people.prior, max_steps=SERVING_STEPS, tolerance=SERVING_TOLERANCE)
    return accuracy(people.query, margins(people.query, weights))


def show(title: str, rows: dict[str, Callable[[People, int], Tensor]], seeds: Sequence[People]) -> None:
    """Prints a table: a row per half-life, a column per number of comparisons, means over people of all seeds."""
    print(f"\n{title:34}" + "".join(f"{after:>16}" for after in AFTER))
    reference: list[Tensor] = []
    for name, measure in rows.items():
        line = f"{name:34}"
        for column, after in enumerate(AFTER):
            accuracy = torch.cat([measure(people, after) for people in seeds])
            if len(reference) < len(AFTER):
                reference.append(accuracy)
            difference = accuracy - reference[column]
            error = float(difference.std()) / len(difference) ** 0.5
            line += f"{float(accuracy.mean()):8.4f}" + (f" ± {error:.3f}" if error else " " * 8)
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few people, two steps of training: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    questions = load_corpus()
    once = simulate_judgements(
        draw_users(1, seed=0), questions, support=TRAINED, query=JUDGED, support_pairs=1, query_pairs=1, seed=0
    )  # holds all texts, as every other draw does
    embeddings = np.array(
        embed_dataset(prepare_encoder("minilm", once, Settings(), no_progress).encoder, once, no_progress).embeddings
    )
    seeds = range(1 if options.quick else options.seeds)
    settings = {"iterations": 2} if options.quick else {}
    size = 20 if options.quick else 300
    drawn = [
        simulate(questions, embeddings, TrainingConfig(seed=seed).with_settings(**settings), size) for seed in seeds
    ]
    rows: dict[str, Callable[[People, int], Tensor]] = {
        "none" if half_life is None else f"{half_life} days": lambda people, after, half_life=half_life: adapted(
            people, half_life, after
        )
        for half_life in HALF_LIVES
    }
    fresh = {"none, and the first 60 forgotten": lambda people, after: adapted(people, None, after, before=0)}
    show("tastes change; comparisons since", rows | fresh, [change for change, _ in drawn])
    show("tastes stay; comparisons since 60", rows | fresh, [keep for _, keep in drawn])


if __name__ == "__main__":
    main()
