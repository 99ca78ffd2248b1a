"""PersonalLLM: answers scored by several reward models, and users who weigh these models.

A user is a draw of weights from a Dirichlet distribution over the reward models, whose scores are standardised over
the data first; the better of two answers is the one with the larger weighted score (Zollo et al., arXiv 2409.20296).
One record is a prompt. The users are simulated: a seed decides who they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from mrm_sdk.data.readers.fields import need, number_of
from mrm_sdk.data.readers.source import Outcome, Reader, Row, Source
from mrm_sdk.errors import ConfigurationError, DatasetError, InvalidInputError

_SCORE = re.compile(r"response_(\d+)_(.+)")


def reader(*, users: int = 1000, concentration: float = 0.05, comparisons: int = 50, seed: int = 0) -> Reader:
    """A reader for a population of one's own; the defaults are the paper's.

    Args:
        users: how many are drawn.
        concentration: of the Dirichlet distribution: the smaller, the more a user leans on one reward model.
        comparisons: of each user, at most: each of another prompt, of two answers, all drawn at random.
        seed: the only source of randomness.

    Raises:
        ConfigurationError: a number is not above 0.
    """
    if min(users, concentration, comparisons) <= 0 or seed < 0:
        raise ConfigurationError("Users, concentration and comparisons must be above 0, and the seed 0 or more.")

    def read(source: Source) -> Iterator[tuple[str, Outcome]]:
        usable: list[tuple[str, str, list[str], list[list[float]]]] = []
        names: list[str] = []
        for location, record in source.table("train"):
            try:
                prompt, texts, scores, models = _scored(record)
            except InvalidInputError as error:
                source.on_bad_row(DatasetError(f"{location}: {error}"))
                continue
            names = names or models
            if len(texts) < 2:
                yield location, "fewer than two different answers have scores"
            elif models != names:
                yield location, "the scores are not of the same reward models as the first record's"
            else:
                usable.append((location, prompt, texts, scores))
        if usable:
            yield from zip([location for location, *_ in usable], _judged(usable), strict=True)

    def _judged(usable: list[tuple[str, str, list[str], list[list[float]]]]) -> Iterator[Outcome]:
        rng = np.random.default_rng(seed)
        every = np.array([row for *_, scores in usable for row in scores])
        mean, spread = every.mean(0), every.std(0)
        weights = rng.dirichlet(np.full(every.shape[1], concentration), users) / np.where(spread > 0, spread, 1)
        count = min(comparisons, len(usable))
        judged: list[list[Row]] = [[] for _ in usable]
        for user in range(users):
            for number in rng.choice(len(usable), count, replace=False):
                _, prompt, texts, scores = usable[number]
                first, second = rng.choice(len(texts), 2, replace=False)
                if (np.array(scores[first]) - mean) @ weights[user] < (np.array(scores[second]) - mean) @ weights[user]:
                    first, second = second, first
                pair = {"chosen": texts[first], "rejected": texts[second]}
                judged[number].append({"user_id": f"persona-{seed}-{user}", "prompt": prompt, **pair})
        for rows in judged:
            yield rows or "no user drew this prompt"

    return read


def _scored(record: Row) -> tuple[str, list[str], list[list[float]], list[str]]:
    """Prompt, distinct answers, their scores [answers, models], and the models' names in order."""
    by_answer: dict[str, dict[str, float]] = {}
    for key, value in record.items():
        match = _SCORE.fullmatch(key)
        score = number_of(value) if match else None
        if match and score is not None and math.isfinite(score):
            by_answer.setdefault(match[1], {})[match[2]] = score
    models = sorted({name for scores in by_answer.values() for name in scores})
    answers: dict[str, list[float]] = {}
    for number, scores in sorted(by_answer.items(), key=lambda pair: int(pair[0])):
        if len(scores) == len(models):
            answers.setdefault(need(record, f"response_{number}"), [scores[name] for name in models])
    return need(record, "prompt"), list(answers), list(answers.values()), models


read = reader()
