"""What a person sees who prints an object: its name and size, not its arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mrm_sdk import Bundle, Counted, UserReward
from mrm_sdk.data.datasets import Dataset


def test_a_users_reward() -> None:
    reward = UserReward(
        user_id="ada",
        weights=np.ones(3),
        covariance=np.eye(3),
        comparisons=2,
        counted=Counted(comparisons=2, rating_pairs=0, ratings_alone=0),
        revision=1,
        fingerprint="f" * 64,
    )
    assert "covariance" not in repr(reward)
    assert repr(reward).startswith("UserReward(user_id='ada', weights=array([1., 1., 1.]), comparisons=2")
    assert "\n" not in repr(reward)
    assert reward.model_dump()["covariance"] is not None


def test_a_bundle(embedded_bundle: Bundle) -> None:
    shown = repr(embedded_bundle)
    assert embedded_bundle.manifest.name in shown
    assert embedded_bundle.fingerprint in shown
    assert str(embedded_bundle.path) in shown


def test_a_data_set(embedded_dataset: Dataset) -> None:
    users, items, rows = len(embedded_dataset.user_ids), len(embedded_dataset.items), len(embedded_dataset)
    assert repr(embedded_dataset) == f"Dataset({users} users, {items} items, {rows} comparisons)"
    assert "ratings" in repr(replace(embedded_dataset, ratings=type("R", (), {"user": [1]})()))
