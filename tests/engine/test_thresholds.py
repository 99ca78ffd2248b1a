"""The user's own threshold for ratings and thumbs, through a client: real bundle, real database."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.schemas.feedback import Thumb
from mrm_sdk.schemas.items import Response
from mrm_sdk.schemas.results import Counted
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.pipeline import train_bundle
from tests.engine.test_ratings_and_rankings import MANY, A, B, C, D, adapted, prefer, rate, same, thumb


def test_the_joint_optimum(embedded_bundle: Bundle) -> None:
    """Comparison, pair and single ratings in one objective, whose minimum another optimiser finds too."""
    feedback = [prefer(A, B), rate(B, 5), rate(C, 2, strength=3), rate(D, 1, prompt="why?")]
    user = adapted(embedded_bundle, feedback)
    phi = embedded_bundle.base_rewards(np.array([one.embedding for one in (A, B, C, D)])).astype(np.float64)
    prior = embedded_bundle.prior
    away = (np.array([5, 2, 1]) - 8 / 3) / np.std([5, 2, 1])
    rows = [
        (phi[0] - phi[1], 0, 1),
        # Two ratings of one prompt: 2/n = 1, and each alone counts ½.
        (phi[1] - phi[2], 0, (3 / np.std([5, 2, 1])) ** 0.5 * 3**0.5),
        (phi[1], -1, away[0] ** 0.5 / 2),
        (-phi[2], 1, (-away[1]) ** 0.5 * 3 / 2),
        (-phi[3], 1, (-away[2]) ** 0.5),
    ]
    z, sign, strength = (torch.from_numpy(np.array(column, np.float64)) for column in zip(*rows, strict=True))
    # Five pairs connect four responses and the threshold: they count as four.
    strength *= min(1.0, 4 * float(strength.clamp_min(1).mean() / strength.sum()))
    w = torch.cat([prior.w0, torch.zeros(1, dtype=torch.float64)]).requires_grad_()
    optimiser = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def objective() -> torch.Tensor:
        optimiser.zero_grad()
        offset = w[:-1] - prior.w0
        loss = strength @ torch.nn.functional.softplus(-(z @ w[:-1] + sign * w[-1]))
        value: torch.Tensor = prior.rho * loss + offset @ prior.precision @ offset / 2 + prior.rho * w[-1] ** 2 / 2
        value.backward()
        return value

    optimiser.step(objective)
    np.testing.assert_allclose(user.weights, w[:-1].detach().numpy(), rtol=0, atol=1e-5)  # of φ in float32
    assert user.counted == Counted(comparisons=1, rating_pairs=1, ratings_alone=3)


def test_several_ratings_of_a_prompt_count_once_against_the_threshold(embedded_bundle: Bundle) -> None:
    # Equal thumbs on equal responses to one prompt are as one of them: no pairs, and each counts 1/n.
    alike = [Response(text=str(n), embedding=A.embedding) for n in range(4)]
    one = adapted(embedded_bundle, [thumb(A, False)])
    same(one, adapted(embedded_bundle, [thumb(response, False) for response in alike]))
    apart = [thumb(response, False, prompt=str(n)) for n, response in enumerate(alike)]
    same(adapted(embedded_bundle, apart), adapted(embedded_bundle, [thumb(A, False, strength=4)]))


def test_who_likes_everything_moves_little(embedded_bundle: Bundle) -> None:
    prior = adapted(embedded_bundle, [])

    def moved(likes: list[bool]) -> float:
        thumbs = [thumb(one, up, prompt=str(n)) for n, (one, up) in enumerate(zip(MANY, likes, strict=True))]
        user = adapted(embedded_bundle, thumbs)
        assert user.counted.ratings_alone == len(MANY)
        offset = user.weights - prior.weights
        return float(offset @ embedded_bundle.prior.precision.numpy() @ offset) ** 0.5

    taste = np.array([one.embedding for one in MANY])[:, 0]
    assert 0 < moved([True] * len(MANY)) < 0.7 * moved(list(taste > np.median(taste)))


def test_many_users_at_once_are_as_one_by_one(embedded_bundle: Bundle) -> None:
    users = {user: [thumb(MANY[n], bool((n + k) % 3), prompt=str(n)) for n in range(9)] for k, user in enumerate("xyz")}
    with Client("sqlite://", bundle=embedded_bundle) as client:
        for user, thumbs in users.items():
            client.record_many(one.model_copy(update={"user_id": user}) for one in thumbs)
        together = client.personalize_many(list(users))
    for user, thumbs in users.items():
        np.testing.assert_array_equal(together[user].weights, adapted(embedded_bundle, thumbs).weights)


def test_the_gradient_inner_loop_keeps_to_pairs(embedded_dataset: Dataset, tmp_path: Path) -> None:
    config = TrainingConfig(method="gradient", outer=MamlConfig(steps=2, inner_steps=5), base_functions=3)
    train_bundle(embedded_dataset, tmp_path / "b", config=config)
    bundle = Bundle(tmp_path / "b")
    prior, single = adapted(bundle, []), adapted(bundle, [thumb(A, True), thumb(B, False, prompt="why?")])
    np.testing.assert_array_equal(single.weights, prior.weights)
    assert (single.comparisons, single.counted) == (2, Counted(comparisons=0, rating_pairs=0, ratings_alone=0))
    pair = adapted(bundle, [rate(A, 5, strength=3), rate(B, 2, strength=12)])
    assert pair.counted == Counted(comparisons=0, rating_pairs=1, ratings_alone=0)
    # Two values alone lie two standard deviations apart.
    compared = adapted(bundle, [prefer(A, B, strength=6 * 2**0.5)])
    np.testing.assert_allclose(pair.weights, compared.weights, rtol=0, atol=1e-6)  # of z in float32
    assert np.abs(pair.weights - prior.weights).max() > 1e-4


@pytest.mark.slow
def test_one_thumb_per_prompt_teaches(text_bundle: Bundle) -> None:
    answers = {True: "Do it today.", False: "Perhaps it may depend."}
    with Client("sqlite://", bundle=text_bundle) as client:
        before = client.personalize("v")
        client.record_many(
            Thumb(user_id="v", prompt=f"question {i}?", response=answers[bool(i % 2)], up=bool(i % 2))
            for i in range(40)
        )
        after = client.personalize("v")
        assert np.abs(after.weights - before.weights).max() > 0.1
        assert (after.comparisons, after.counted) == (40, Counted(comparisons=0, rating_pairs=0, ratings_alone=40))
        ranked = client.rank("v", list(answers.values()), prompt="And what now?")
        assert ranked[0].response == answers[True]
        assert ranked[0].score - ranked[1].score > 1
