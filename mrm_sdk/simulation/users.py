"""Synthetic users: known tastes over style axes, and judgements as noisy as people's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.schemas.items import Item
from mrm_sdk.simulation.corpus import AXES, Question

# What most users prefer (plain, warm, in steps), and how far single users differ from it.
COMMON_TASTE = np.array([0.3, -0.6, 0.9, 0.6, 0.2])
SPREAD = 0.8
UNUSUAL_SHARE = 0.15
SHARPNESS = 1.5


@dataclass(frozen=True)
class SyntheticUsers:
    """Users with known tastes.

    Args:
        user_ids: names, [users].
        tastes: value put on each style axis, [users, axes]; the unit is logits of a choice, before sharpness.
        unusual: whether a user's taste runs against the common one, [users] bool.
    """

    user_ids: list[str]
    tastes: NDArray[np.float64]
    unusual: NDArray[np.bool_]


def draw_users(size: int, *, seed: int, prefix: str = "person") -> SyntheticUsers:
    """Draws users: most scatter around a common taste; a share scatters around its opposite.

    Args:
        size: how many.
        seed: the only source of randomness.
        prefix: of the user ids.
    """
    rng = np.random.default_rng(seed)
    unusual = rng.random(size) < UNUSUAL_SHARE
    tastes = COMMON_TASTE + SPREAD * rng.standard_normal((size, len(AXES)))
    against = -COMMON_TASTE + SPREAD * rng.standard_normal((size, len(AXES)))
    return SyntheticUsers(
        user_ids=[f"{prefix}-{seed}-{number}" for number in range(size)],
        tastes=np.where(unusual[:, None], against, tastes),
        unusual=unusual,
    )


def simulate_judgements(
    users: SyntheticUsers,
    questions: Sequence[Question],
    *,
    support: Sequence[int],
    query: Sequence[int],
    support_pairs: int,
    query_pairs: int,
    seed: int,
    noisy_query: bool = True,
) -> Dataset:
    """Lets each user compare pairs of answers to the same prompt.

    A user chooses by Bradley–Terry: ``P(a over b) = σ(sharpness · taste · (style a − style b))``.

    Args:
        users: who judge.
        questions: prompts and answers.
        support: which questions the support comparisons are about.
        query: which questions the query comparisons are about.
        support_pairs: per user, drawn without repetition.
        query_pairs: per user, drawn without repetition.
        seed: the only source of randomness.
        noisy_query: with ``False``, query comparisons are what a user truly prefers: accuracy is then agreement with
            the true taste, and can reach 1.
    """
    rng = np.random.default_rng(seed)
    styles = np.concatenate([question.styles for question in questions])
    items = [Item(question.prompt, answer, None) for question in questions for answer in question.answers]
    starts = np.cumsum([0, *(len(question.answers) for question in questions)])
    parts = []
    for phase, chosen_questions, count in ((SUPPORT, support, support_pairs), (QUERY, query, query_pairs)):
        pool = np.array([pair for q in chosen_questions for pair in combinations(range(starts[q], starts[q + 1]), 2)])
        judges = np.repeat(np.arange(len(users.user_ids)), count)
        draws = rng.random((len(users.user_ids), len(pool))).argsort(1)[:, :count]
        first, second = pool[draws.reshape(-1)].T
        gain = ((styles[first] - styles[second]) * users.tastes[judges]).sum(-1)
        noisy = phase == SUPPORT or noisy_query
        wins = rng.random(len(gain)) < 1 / (1 + np.exp(-SHARPNESS * gain)) if noisy else gain > 0
        chosen, rejected = np.where(wins, first, second), np.where(wins, second, first)
        parts.append((judges, chosen, rejected, np.full(len(judges), phase)))
    user, chosen, rejected, phase_column = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Dataset(
        items=items,
        user_ids=users.user_ids,
        user=user,
        chosen=chosen,
        rejected=rejected,
        tie=np.zeros(len(user), bool),
        strength=np.ones(len(user)),
        phase=phase_column,
        event_ids=[f"{users.user_ids[u]}-{n}" for n, u in enumerate(user)],
        created_at=[None] * len(user),
        sha256=f"simulated with seed {seed}",
    )
