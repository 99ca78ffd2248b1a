"""Which texts a fit does not see, and which a bundle knows again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.schemas.items import Item
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.folds import make_folds
from mrm_sdk.training.new_texts import judged_often, judged_on, text_folds, text_groups, without
from tests.training.people import people


def asked(prompts: int, answers: int = 4) -> Dataset:
    """People who compare answers to one prompt."""
    data = people(20, items=prompts * answers)
    first = data.chosen // answers * answers
    items = [Item(f"prompt {i // answers}", f"text {i}", None) for i in range(prompts * answers)]
    return replace(data, items=items, rejected=first + (data.chosen - first + 1) % answers)


def folds_of(data: Dataset, folds: int = 5) -> list[np.ndarray]:
    return text_folds(text_groups(data, np.arange(len(data))), folds, np.random.default_rng(0))


def test_answers_to_a_prompt_are_held_back_together() -> None:
    held_back = folds_of(asked(15))
    assert len(held_back) == 5
    for new in held_back:
        whole = new.reshape(15, 4)
        assert (whole.all(1) == whole.any(1)).all()
        assert whole.all(1).sum() == 3
    assert (np.sum(held_back, axis=0) == 1).all()  # each once


@pytest.mark.parametrize("data", [people(20), asked(3)], ids=["no prompts", "few prompts"])
def test_otherwise_each_text_for_itself(data: Dataset) -> None:
    for new in folds_of(data):
        assert 0 < new.sum() < len(data.items)
    (alone,) = folds_of(data, 1)
    assert alone.sum() == round(len(data.items) / 4)


def test_only_texts_that_the_fit_may_see_are_drawn_from() -> None:
    data = people(20)
    rows = np.flatnonzero((data.chosen < 10) & (data.rejected < 10))
    for new in text_folds(text_groups(data, rows), 2, np.random.default_rng(0)):
        assert not new[10:].any()


def test_people_are_learned_from_and_judged_without_what_is_not_theirs() -> None:
    data = people(12)
    users = pack(data, np.arange(12))
    new = torch.arange(40) % 3 == 0
    known = without(users, new)
    kept = known.strength > 0
    assert torch.equal(kept, ~new[users.items].any(-1))
    judged = judged_on(users, new)
    assert 0 < len(judged.items) < 12
    asked_of = judged.items[:, QUERY][judged.strength[:, QUERY] > 0]
    assert bool(new[asked_of].all())
    assert bool((judged.strength[:, SUPPORT] > 0).all())  # all they said before stays
    assert len(judged_on(users, torch.zeros(40, dtype=torch.bool)).items) == 0


def test_texts_that_many_have_judged_are_known_again() -> None:
    items = torch.tensor([[0, 1]] * 5 + [[2, 3]] * 4 + [[2, 4]] * 3)
    users = Packed(items.view(1, 1, 12, 2), torch.ones(1, 1, 12), torch.zeros(1, 1, 12))
    assert judged_often(users, (6, 8)).tolist() == [0, 1, 2, 3]
    assert judged_often(users, (6, 2**21)).tolist() == [2]  # where each takes much space, those of most comparisons
    padded = users._replace(strength=users.strength * (torch.arange(12) >= 5))
    assert judged_often(padded, (6, 8)).tolist() == [2, 3]


def test_folds_divide_users() -> None:
    data = asked(15)
    packed, folds = make_folds(data, np.arange(20), TrainingConfig(folds=4))
    assert len(packed.items) == 20
    assert [len(fold.judged.items) for fold in folds] == [5] * 4
    for fold in folds:
        assert len(fold.learners.items) == 15
        assert len(fold.newcomers.items) <= 5
        assert int(fold.new.sum()) in (3 * 4, 4 * 4)  # a quarter of the prompts
    again = make_folds(data, np.arange(20), TrainingConfig(folds=4))[1]
    assert all(torch.equal(a.new, b.new) for a, b in zip(folds, again, strict=True))
