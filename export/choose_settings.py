"""The experiment behind the default settings: each is tried on people set aside from training.

Needs the extras ``[cpu,train,minilm]`` and the ``train`` folder of the Jester data (docs/how.md); prints one row per
setting: the mean over seeds of accuracy on held-out people at 0, 2, 10 and 60 comparisons, and with another's weights;
and, on the demo's synthetic people, accuracy at 10 comparisons on texts that training never saw::

    python export/choose_settings.py path/to/jester/train [--seeds 3] [--steps 800]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.core.inner_loop import newton_serving
from mrm_sdk.evaluation.metrics import accuracy
from mrm_sdk.settings import Settings
from mrm_sdk.simulation.corpus import load_corpus
from mrm_sdk.simulation.population import draw_population, judge
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.datasets import QUERY, SUPPORT, Dataset, read_dataset
from mrm_sdk.training.episodes import pack
from mrm_sdk.training.guard import choose_prior_strength
from mrm_sdk.training.meta import meta_train
from mrm_sdk.training.pipeline import embed_items, prepare_encoder

TRIED = {
    "γ 1, no noise": {"robust_gamma": 1.0, "embedding_noise": 0.0},
    "γ 1, noise 0.3": {"robust_gamma": 1.0},
    "γ 3, noise 0.3 (default)": {},
    "γ 10, noise 0.3": {"robust_gamma": 10.0},
    "γ 0.3, noise 0.3": {"robust_gamma": 0.3},
    "γ 3, noise 0.3, K 12": {"base_functions": 12},
}


def measure(
    dataset: Dataset, embeddings: torch.Tensor, config: TrainingConfig, judged: Dataset | None, shots: tuple[int, ...]
) -> list[float]:
    """Trains on most people, chooses the prior on some, and judges the same or ``judged``."""
    rng = np.random.default_rng(config.seed)
    people: NDArray[np.int64] = rng.permutation(len(dataset.user_ids))
    aside = len(people) * 15 // 100
    packed = pack(dataset, np.sort(people[aside:]), limit=config.max_pairs, rng=rng)
    model = meta_train(packed, embeddings, config, lambda stage, done, total: None)
    module, prior = model.freeze(embeddings, rescale=True)
    base_rewards = module(embeddings).detach().double()
    held_out = pack(dataset, np.sort(people[:aside]))
    prior, _ = choose_prior_strength(prior, held_out, base_rewards)
    if judged is not None:
        held_out = pack(judged, np.arange(len(judged.user_ids)))
    support, query = held_out.pairs(SUPPORT, base_rewards), held_out.pairs(QUERY, base_rewards)
    weights = [newton_serving(support.first(n), prior, max_steps=50, tolerance=1e-9) for n in shots]
    return [float(accuracy(query, w).mean()) for w in (*weights, weights[-1].roll(1, 0))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    options = parser.parse_args()

    jester, questions = read_dataset(options.data), load_corpus()
    # 64 prompts to train on and 32 others to judge on; the demo's own 32 are left alone.
    texts, support, query = range(64), range(64, 80), range(80, 96)
    people = judge(
        draw_population(1000, seed=11), questions, support=texts, query=texts, support_pairs=30, query_pairs=30, seed=11
    )
    newcomers = judge(
        draw_population(300, seed=12), questions, support=support, query=query, support_pairs=20, query_pairs=40,
        seed=12, noisy_query=False,
    )  # fmt: skip
    encoder = prepare_encoder("minilm", jester, Settings(), lambda stage, done, total: None).encoder
    jokes, answers = (
        torch.from_numpy(embed_items(encoder, data, lambda stage, done, total: None)) for data in (jester, people)
    )
    print(f"{'':26}    0      2      10     60    another's   new texts, 10")
    for name, changes in TRIED.items():
        rows = []
        for seed in range(options.seeds):
            config = replace(TrainingConfig(seed=seed, steps=options.steps), **changes)
            row = measure(jester, jokes, config, None, (0, 2, 10, 60))
            shorter = replace(config, steps=max(1, options.steps // 2))
            rows.append(row + measure(people, answers, shorter, newcomers, (10,))[:1])
        print(f"{name:26}" + "".join(f"{value:7.4f}" for value in np.mean(rows, 0)), flush=True)


if __name__ == "__main__":
    main()
