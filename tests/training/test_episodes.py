"""The padded table of users' comparisons, and meta-batches drawn from it."""

from __future__ import annotations

import numpy as np
import torch

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.training.episodes import draw, pack


def small(lengths: list[tuple[int, int]]) -> Dataset:
    """Users with so many support and query comparisons; items are numbered in order of appearance."""
    rows = [
        (user, phase) for user, counts in enumerate(lengths) for phase, count in enumerate(counts) for _ in range(count)
    ]
    user, phase = (np.array(column) for column in zip(*rows, strict=True))
    n = len(rows)
    return Dataset(
        items=[],
        user_ids=[f"u{i}" for i in range(len(lengths))],
        user=user,
        chosen=np.arange(n),
        rejected=np.arange(n) + n,
        tie=np.arange(n) % 3 == 0,
        strength=np.full(n, 2.0),
        phase=phase,
        event_ids=[str(i) for i in range(n)],
        created_at=[None] * n,
        sha256="",
    )


def test_pack_keeps_order_and_marks_padding() -> None:
    data = small([(2, 1), (0, 3), (1, 1)])
    packed = pack(data, np.array([2, 0]))
    assert packed.items.shape == (2, 2, 2, 2)
    assert packed.strength[0].tolist() == [[2, 0], [2, 0]]
    assert packed.strength[1].tolist() == [[2, 2], [2, 0]]
    assert packed.items[1, SUPPORT, :, 0].tolist() == [0, 1]
    assert packed.items[1, QUERY, 0].tolist() == [2, 2 + len(data)]
    assert packed.tie[1].tolist() == [[1, 0], [0, 0]]


def test_a_giant_user_is_cut_at_random_and_sets_no_width() -> None:
    data = small([(50_000, 1), (3, 3)])
    packed = pack(data, np.array([0, 1]), limit=8, rng=np.random.default_rng(0))
    assert packed.strength.shape == (2, 2, 8)
    kept = packed.items[0, SUPPORT, :, 0]
    assert len(set(kept.tolist())) == 8
    assert int(kept.max()) > 100
    assert int((packed.strength[1] > 0).sum()) == 6


def test_draw_cuts_support_alike_and_never_the_query() -> None:
    packed = pack(small([(4, 4)] * 10), np.arange(10))
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(60):
        batch = draw(packed, 6, generator)
        shots = (batch.strength[:, 0] > 0).sum(-1)
        assert len(set(shots.tolist())) == 1
        seen.add(int(shots[0]))
        assert bool((batch.strength[:, 1] > 0).all())
    assert seen == {0, 1, 2, 3, 4}


def test_draw_swaps_roles_but_never_leaves_a_query_empty() -> None:
    packed = pack(small([(0, 3), (3, 0), (3, 3)]), np.arange(3))
    generator = torch.Generator().manual_seed(1)
    swapped = set()
    for _ in range(40):
        batch = draw(packed, 3, generator)
        assert bool((batch.strength[:, 1] > 0).any(-1).all())
        swapped |= set(batch.items[:, 1, 0, 0].tolist())
    assert {6, 9} <= swapped  # the last user's halves both served as query


def test_the_same_seed_draws_the_same_batches() -> None:
    packed = pack(small([(4, 4)] * 20), np.arange(20))
    batches = [draw(packed, 8, torch.Generator().manual_seed(5)) for _ in range(2)]
    for first, second in zip(*batches, strict=True):
        assert torch.equal(first, second)


def test_a_batch_numbers_its_own_items_anew() -> None:
    packed = pack(small([(4, 4)] * 10), np.arange(10)).users(torch.tensor([7, 2]))
    local, rows = packed.local()
    assert len(rows) == 32 == len(set(rows.tolist()))  # padding would name item 0 as well
    rewards = torch.randn(160, 3, generator=torch.Generator().manual_seed(0))
    for phase in (SUPPORT, QUERY):
        for ours, theirs in zip(local.pairs(phase, rewards[rows]), packed.pairs(phase, rewards), strict=True):
            assert torch.equal(ours, theirs)
