"""Old judgements count less, where a half-life says so: real bundle, real database."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mrm_sdk.bundle import Bundle, Manifest
from mrm_sdk.bundle.manifest import Adaptation
from mrm_sdk.client import Client
from mrm_sdk.core.batching import Pairs, pad
from mrm_sdk.core.redundancy import independent_share
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import ConfigurationError, InvalidInputError
from mrm_sdk.schemas.feedback import Comparison, Feedback, Ranking, Rating
from mrm_sdk.schemas.items import Response
from mrm_sdk.schemas.results import UserReward
from mrm_sdk.settings import Settings
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import mrm

RNG = np.random.default_rng(11)
MANY = [Response(embedding=RNG.standard_normal(6)) for _ in range(8)]
A, B, C, D = MANY[:4]
NOW = datetime.now(UTC)
HOUR, DAY, YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)
LONG = timedelta(days=999_999_999)


def prefer(chosen: Response, rejected: Response, age: timedelta = timedelta(0), **values: Any) -> Comparison:
    return Comparison(**{"user_id": "ada", "chosen": chosen, "rejected": rejected, "created_at": NOW - age, **values})


def rate(response: Response, value: float, age: timedelta = timedelta(0), **values: Any) -> Rating:
    return Rating(**{"user_id": "ada", "response": response, "value": value, "created_at": NOW - age, **values})


@pytest.fixture(scope="module")
def daily(embedded_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same training as ``embedded_bundle``, with a default of a day."""
    path = tmp_path_factory.mktemp("bundles") / "daily"
    train_bundle(embedded_dataset, path, config=TrainingConfig(base_functions=3), half_life=DAY)
    return Bundle(path)


def adapted(bundle: Bundle, feedback: Sequence[Feedback], half_life: timedelta | None = None) -> UserReward:
    """What becomes of one user, in a database of its own."""
    with Client("sqlite://", bundle=bundle, settings=Settings(half_life=half_life)) as client:
        assert client.record_many(feedback).rejected == ()
        return client.personalize("ada")


def same(one: UserReward, other: UserReward) -> bool:
    """To the last bit."""
    return one.weights.tobytes() == other.weights.tobytes() and np.array_equal(one.covariance, other.covariance)


def close(one: UserReward, other: UserReward, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(one.weights, other.weights, rtol=0, atol=atol)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=0, atol=atol)


PLACES = st.lists(st.integers(0, 7), min_size=2, max_size=2, unique=True)
AGED = st.lists(
    st.tuples(PLACES, st.integers(0, 10**8), st.sampled_from([0.5, 1.0, 3.0]), st.booleans()), min_size=1, max_size=12
)
HALF_LIVES = st.integers(1, 10**8).map(lambda seconds: timedelta(seconds=seconds))


def compared(drawn: Sequence[tuple[list[int], int, float, bool]], *, ages: bool = True) -> list[Comparison]:
    return [
        prefer(
            MANY[chosen], MANY[rejected], timedelta(seconds=age if ages else 7), strength=strength, tie=tie,
            event_id=f"e{number:02}",
        )
        for number, ((chosen, rejected), age, strength, tie) in enumerate(drawn)
    ]  # fmt: skip


def expected(bundle: Bundle, comparisons: Sequence[Comparison], half_life: timedelta | None) -> NDArray[np.float64]:
    """The weights as the inner loop gives them, discounted one by one or not at all, then by repetition."""
    features = dict(zip(MANY, bundle.base_rewards(np.array([one.embedding for one in MANY])), strict=True))
    newest = max(comparison.created_at for comparison in comparisons)
    strength = np.array(
        [c.strength * (1 if half_life is None else 0.5 ** ((newest - c.created_at) / half_life)) for c in comparisons]
    )
    numbers: dict[str | Response, int] = {}
    sides = [[numbers.setdefault(one, len(numbers)) for one in (c.chosen, c.rejected)] for c in comparisons]
    chosen, rejected = np.array(sides, np.int64).T
    strength *= independent_share(chosen, rejected, strength)
    z = np.array([features[c.chosen] - features[c.rejected] for c in comparisons], np.float64)  # type: ignore[index]
    tie = torch.tensor([c.tie for c in comparisons], dtype=torch.float64)
    pairs = Pairs(torch.from_numpy(z), torch.from_numpy(strength), tie)
    return bundle.adapt(pad([pairs]))[0][0].numpy()


class TestRule:
    @pytest.mark.slow
    @settings(deadline=None, max_examples=25)
    @given(drawn=AGED)
    def test_without_a_half_life_nothing_changes_to_the_last_bit(
        self, embedded_bundle: Bundle, drawn: list[Any]
    ) -> None:
        comparisons = compared(drawn)
        reward = adapted(embedded_bundle, comparisons)
        np.testing.assert_array_equal(reward.weights, expected(embedded_bundle, comparisons, None))
        assert same(reward, adapted(embedded_bundle, comparisons, timedelta(0)))

    @pytest.mark.slow
    @settings(deadline=None, max_examples=25)
    @given(drawn=AGED, half_life=HALF_LIVES)
    def test_strength_halves_with_each_half_life(
        self, embedded_bundle: Bundle, drawn: list[Any], half_life: timedelta
    ) -> None:
        comparisons = compared(drawn)
        reward = adapted(embedded_bundle, comparisons, half_life)
        np.testing.assert_allclose(reward.weights, expected(embedded_bundle, comparisons, half_life), rtol=0, atol=1e-9)
        assert reward.comparisons == len(comparisons)

    @pytest.mark.slow
    @settings(deadline=None, max_examples=25)
    @given(drawn=AGED, half_life=HALF_LIVES)
    def test_a_very_long_half_life_is_none_and_equal_times_count_alike(
        self, embedded_bundle: Bundle, drawn: list[Any], half_life: timedelta
    ) -> None:
        comparisons = compared(drawn)
        close(adapted(embedded_bundle, comparisons, LONG), adapted(embedded_bundle, comparisons), atol=1e-5)
        equal = compared(drawn, ages=False)
        assert same(adapted(embedded_bundle, equal, half_life), adapted(embedded_bundle, equal))

    @pytest.mark.slow
    @settings(deadline=None, max_examples=15)
    @given(drawn=AGED, half_life=HALF_LIVES, shuffle=st.randoms(use_true_random=False))
    def test_the_order_of_arrival_does_not_matter(
        self, embedded_bundle: Bundle, drawn: list[Any], half_life: timedelta, shuffle: random.Random
    ) -> None:
        feedback: list[Feedback] = [
            *compared(drawn),
            *(rate(MANY[places[0]], float(places[1]), timedelta(seconds=age), event_id=f"r{n}")
              for n, (places, age, *_) in enumerate(drawn)),
        ]  # fmt: skip
        reward = adapted(embedded_bundle, feedback, half_life)
        shuffle.shuffle(feedback)
        settings = Settings(half_life=half_life)
        with Client("sqlite://", bundle=embedded_bundle, settings=settings) as client:
            for one in feedback:
                client.record(one)
                client.personalize("ada")
            assert same(client.personalize("ada"), reward)

    def test_age_is_measured_from_the_newest_event_not_from_the_clock(self, embedded_bundle: Bundle) -> None:
        ages = [timedelta(0), 3 * HOUR, 10 * HOUR]
        recent = [prefer(A, B, ages[0]), prefer(C, B, ages[1]), prefer(D, A, ages[2])]
        past = [comparison.model_copy(update={"created_at": comparison.created_at - YEAR}) for comparison in recent]
        reward = adapted(embedded_bundle, sorted(recent, key=lambda c: c.event_id), HOUR)
        assert same(adapted(embedded_bundle, past, HOUR), reward)

    def test_who_changes_their_mind_is_believed(self, embedded_bundle: Bundle) -> None:
        feedback = [prefer(A, B, 30 * DAY + n * HOUR) for n in range(20)] + [prefer(B, A, n * HOUR) for n in range(5)]
        z = np.subtract(*embedded_bundle.base_rewards(np.array([A.embedding, B.embedding])))
        assert adapted(embedded_bundle, feedback).weights @ z > 0
        assert adapted(embedded_bundle, feedback, 2 * DAY).weights @ z < 0

    def test_the_gradient_inner_loop_too(self, embedded_dataset: Dataset, tmp_path: Path) -> None:
        config = TrainingConfig(method="gradient", outer=MamlConfig(steps=2, inner_steps=5), base_functions=3)
        train_bundle(embedded_dataset, tmp_path / "b", config=config, half_life=DAY)
        bundle = Bundle(tmp_path / "b")
        comparisons = compared([([0, 1], 0, 1.0, False), ([2, 1], 86_400, 1.0, False), ([3, 0], 172_800, 2.0, False)])
        reward = adapted(bundle, comparisons)
        np.testing.assert_allclose(reward.weights, expected(bundle, comparisons, DAY), rtol=0, atol=1e-12)
        assert not np.allclose(reward.weights, expected(bundle, comparisons, None), rtol=0, atol=1e-6)


class TestOtherFeedback:
    def test_a_pair_of_ratings_counts_by_the_geometric_mean(self, embedded_bundle: Bundle) -> None:
        aged = adapted(embedded_bundle, [rate(A, 5), rate(B, 1, 2 * DAY)], DAY)
        # √(1 · ¼) = ½, and (1 + ½)² / (1 + ¼) stands for the two: 2 / 1.8 in place of 2 / 2.
        as_strong = [rate(A, 5, strength=1 / 0.9), rate(B, 1, strength=0.25 / 0.9)]
        close(aged, adapted(embedded_bundle, as_strong))
        assert aged.comparisons == 2

    def test_very_old_ratings_are_as_if_they_were_not_there(self, embedded_bundle: Bundle) -> None:
        new = [rate(A, 5, HOUR), rate(B, 1), rate(C, 3)]
        old = [rate(response, value, 5000 * DAY) for response, value in zip(MANY[3:], (5, 1, 3, 5, 1), strict=True)]
        # Equal spread of all values: that scale has no age.
        spread = np.std([5, 1, 3, 5, 1, 3, 5, 1]) / np.std([5, 1, 3])
        alone = [r.model_copy(update={"strength": spread**-0.5}) for r in new]
        close(adapted(embedded_bundle, [*new, *old], DAY), adapted(embedded_bundle, alone, DAY))

    def test_a_single_rating_counts_by_its_age(self, embedded_bundle: Bundle) -> None:
        aged = [rate(A, 1), rate(B, -1, 2 * DAY, prompt="why?")]
        close(
            adapted(embedded_bundle, aged, DAY),
            adapted(embedded_bundle, [aged[0], rate(B, -1, strength=0.25, prompt="why?")]),
        )

    def test_a_ranking_is_of_one_age(self, embedded_bundle: Bundle) -> None:
        order = Ranking(user_id="ada", responses=[A, B, C], created_at=NOW - DAY)
        newest = prefer(D, C)
        weaker = order.model_copy(update={"strength": 0.5, "created_at": NOW})
        close(adapted(embedded_bundle, [order, newest], DAY), adapted(embedded_bundle, [weaker, newest], DAY))

    def test_the_newest_of_either_kind_is_what_age_is_measured_from(self, embedded_bundle: Bundle) -> None:
        # A single rating compares nothing, but the user was here.
        reward = adapted(embedded_bundle, [prefer(A, B, DAY), rate(C, 3)], DAY)
        close(reward, adapted(embedded_bundle, [prefer(A, B, strength=0.5), rate(C, 3)]))


class TestWhichHalfLife:
    FEEDBACK = (prefer(A, B), prefer(C, D, DAY), prefer(B, D, 3 * DAY))

    def test_the_bundles_holds_unless_settings_say_otherwise(self, embedded_bundle: Bundle, daily: Bundle) -> None:
        assert daily.manifest.adaptation.half_life == 86_400
        assert daily.features_hash == embedded_bundle.features_hash
        assert same(adapted(daily, self.FEEDBACK), adapted(embedded_bundle, self.FEEDBACK, DAY))
        assert same(adapted(daily, self.FEEDBACK, HOUR), adapted(embedded_bundle, self.FEEDBACK, HOUR))
        assert same(adapted(daily, self.FEEDBACK, timedelta(0)), adapted(embedded_bundle, self.FEEDBACK))
        assert not same(adapted(daily, self.FEEDBACK), adapted(embedded_bundle, self.FEEDBACK))

    def test_weights_of_another_half_life_are_not_taken_for_current(self, daily: Bundle, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'mrm.db'}"
        by_half_life = {}
        for half_life in (None, HOUR, timedelta(0), 30 * DAY, None, HOUR):
            with Client(url, bundle=daily, settings=Settings(half_life=half_life)) as client:
                client.record_many(self.FEEDBACK)
                user = client.personalize("ada")
                assert same(user, adapted(daily, self.FEEDBACK, half_life))
                assert same(user, by_half_life.setdefault(half_life, user))
                assert user.revision == 1  # those of its own half-life it finds again
        assert len({user.fingerprint for user in by_half_life.values()}) == 4
        assert len({user.weights.tobytes() for user in by_half_life.values()}) == 4

    def test_the_same_half_life_keeps_the_bundles_fingerprint(self, embedded_bundle: Bundle, daily: Bundle) -> None:
        assert adapted(daily, self.FEEDBACK, DAY).fingerprint == daily.fingerprint
        assert adapted(embedded_bundle, self.FEEDBACK, timedelta(0)).fingerprint == embedded_bundle.fingerprint
        assert daily.fingerprint != embedded_bundle.fingerprint

    def test_a_bundle_without_one_has_the_fingerprint_of_before(self, embedded_bundle: Bundle) -> None:
        manifest = embedded_bundle.manifest
        adaptation = manifest.adaptation.model_dump()
        assert adaptation.pop("half_life") is None
        old = manifest.model_copy(update={"adaptation": Adaptation(**adaptation)})
        assert old.identified().fingerprint == manifest.fingerprint
        changed = manifest.model_copy(update={"adaptation": Adaptation(**adaptation, half_life=1)})
        assert changed.identified().fingerprint != manifest.fingerprint
        assert changed.identified().features == manifest.features


class TestSaying:
    @pytest.mark.parametrize(
        ("text", "meant"),
        [("90d", 90 * DAY), ("12h", 12 * HOUR), ("2w", 14 * DAY), ("1.5h", 1.5 * HOUR), ("P90D", 90 * DAY),
         ("PT12H", 12 * HOUR), ("3600", HOUR), ("0", timedelta(0))],
    )  # fmt: skip
    def test_durations(self, text: str, meant: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MRM_HALF_LIFE", text)
        assert Settings().half_life == meant
        assert Settings(half_life=text).half_life == meant

    @pytest.mark.parametrize("value", ["soon", "", -1, "-3d", float("nan"), float("inf"), "9" * 30 + "d", "3 moons"])
    def test_what_is_no_half_life(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="half_life"):
            Settings(half_life=value)

    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
    def test_what_no_manifest_can_hold(self, value: float) -> None:
        with pytest.raises(InvalidInputError, match="half_life"):
            Adaptation(half_life=value)

    @pytest.mark.slow
    def test_train_stores_it(self, embedded: Path, tmp_path: Path) -> None:
        run = mrm("train", embedded, "--out", tmp_path / "b", "--half-life", "12h", "--json", "-")
        assert run.code == 0, run.err
        assert json.loads(run.out)["adaptation"]["half_life"] == 43_200
        assert Manifest.read(tmp_path / "b").adaptation.half_life == 43_200

    @pytest.mark.slow
    @pytest.mark.parametrize(("text", "says"), [("soon", "90d, 12h"), ("0", "above 0"), ("-3d", "above 0")])
    def test_train_refuses_at_once(self, embedded: Path, tmp_path: Path, text: str, says: str) -> None:
        run = mrm("train", embedded, "--out", tmp_path / "b", "--half-life", text)
        assert (run.code, run.out) == (2, "")
        assert run.err.startswith("error: ")
        assert says in run.err
        assert not (tmp_path / "b").exists()
