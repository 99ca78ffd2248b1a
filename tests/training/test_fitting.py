"""From users to base rewards and prior: who is judged by whom, and what the result may depend on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import ConfigurationError, TrainingError
from mrm_sdk.training import fitting
from mrm_sdk.training.config import EmpiricalBayesConfig, MamlConfig, TrainingConfig
from mrm_sdk.training.episodes import Packed
from mrm_sdk.training.fitting import Trained, fit
from tests.training.people import FIXED, QUICK, embeddings_of, people, quiet

ADAM = TrainingConfig(outer=MamlConfig(steps=6), base_functions=3)
PAPER = TrainingConfig.preset("paper").with_settings(epochs=2)


def learn(data: Dataset, config: TrainingConfig = FIXED, users: int | None = None) -> Trained:
    index = np.arange(len(data.user_ids) if users is None else users)
    return fit(data, index, embeddings_of(data), config, quiet)


def tensors(trained: Trained) -> list[torch.Tensor]:
    return [*trained.prior, trained.module.weight.detach(), trained.module.bias.detach()]


def equal(first: Trained, second: Trained) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


class Spy:
    """Notes whom each population was learned from, and whom it was judged by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learned: list[set[bytes]] = []
        self.judged: list[set[bytes]] = []
        learn, run_trials = fitting.EmpiricalBayes.learn, fitting.run_trials

        def learning(loop: Any, packed: Packed, stage: str) -> Any:
            if not stage.endswith("new-texts"):
                self.learned.append(self.names(packed))
                self.known = self.names(packed)
            else:
                assert self.names(packed) == self.known  # the same users, without some texts
            return learn(loop, packed, stage)

        def judging(learned: Any, users: Packed, sizes: Any) -> Any:
            if len(self.judged) < len(self.learned):
                self.judged.append(self.names(users))
            else:
                assert self.names(users) <= self.judged[-1]
            return run_trials(learned, users, sizes)

        monkeypatch.setattr(fitting.EmpiricalBayes, "learn", learning)
        monkeypatch.setattr(fitting, "run_trials", judging)

    @staticmethod
    def names(packed: Packed) -> set[bytes]:
        """What users compared tells them apart."""
        return {bytes(items.numpy().tobytes()) for items in packed.items}


def test_few_users_are_all_judged_once_by_a_population_learned_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    trained = learn(people(12), QUICK)
    all_users = spy.learned[-1]
    assert len(all_users) == 12
    assert len(spy.judged) == QUICK.folds == len(spy.learned) - 1
    assert sum(map(len, spy.judged)) == 12
    assert set.union(*spy.judged) == all_users
    for judged, learned in zip(spy.judged, spy.learned[:-1], strict=True):
        assert learned == all_users - judged
    assert trained.held_out == 12


def test_of_many_users_one_share_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    trained = learn(people(20), replace(QUICK, large=20))
    assert [len(names) for names in spy.learned] == [17, 20]
    assert [len(names) for names in spy.judged] == [3]
    assert spy.learned[0] | spy.judged[0] == spy.learned[1]
    assert trained.held_out == 3


def test_four_users_are_enough_and_three_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    assert learn(people(4)).held_out == 4
    assert [len(names) for names in spy.judged] == [2, 2]
    for config in (FIXED, ADAM, PAPER):
        with pytest.raises(TrainingError, match="at least 4 users, not 3"):
            learn(people(3), config)


@pytest.mark.parametrize("config", [QUICK, ADAM, PAPER], ids=["em", "adam", "paper"])
def test_a_seed_repeats(config: TrainingConfig) -> None:
    data = people()
    first = learn(data, config)
    before = torch.get_rng_state()
    assert equal(learn(data, config), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("config", [FIXED, ADAM, PAPER], ids=["em", "adam", "paper"])
def test_another_seed_gives_another_result(config: TrainingConfig) -> None:
    data = people(16)
    config = config.with_settings(most_users=8) if isinstance(config.outer, EmpiricalBayesConfig) else config
    assert not equal(learn(data, config), learn(data, replace(config, seed=1)))


@pytest.mark.slow
@pytest.mark.parametrize("config", [QUICK, ADAM, PAPER], ids=["em", "adam", "paper"])
def test_no_user_else_is_looked_at(config: TrainingConfig) -> None:
    data = people(16)
    others = data.user >= 12
    changed = replace(
        data,
        chosen=np.where(others, data.rejected, data.chosen),
        rejected=np.where(others, data.chosen, data.rejected),
        strength=np.where(others, 7.0, data.strength),
        tie=others,
        phase=np.where(others, 1 - data.phase, data.phase),
    )
    first = learn(data, config, users=12)
    assert equal(learn(changed, config, users=12), first)
    assert not equal(learn(data, config, users=16), first)


@pytest.mark.slow
@pytest.mark.parametrize("config", [FIXED, ADAM], ids=["em", "adam"])
def test_a_number_of_base_functions_is_honoured(config: TrainingConfig) -> None:
    for size in (1, 2, 6):
        trained = learn(people(), replace(config, base_functions=size))
        assert trained.module.weight.shape == (size, 6)
        assert trained.prior.precision.shape == (size, size)
        assert list(trained.metrics["held_out_query_loss"]) == [str(size)]
        assert trained.metrics["chosen"]["base_functions"] == size


def test_more_base_functions_than_directions_are_as_many_as_there_are() -> None:
    data = people(dimension=2)
    # Two directions in which people differ, and what they share.
    assert learn(data, replace(FIXED, base_functions=5)).module.weight.shape == (3, 2)
    assert learn(data, QUICK).module.weight.shape == (3, 2)


def test_held_out_users_choose_among_several_sizes() -> None:
    trained = learn(people(dimension=20), QUICK)
    assert list(trained.metrics["held_out_query_loss"]) == ["4", "8", "16", "21"]
    assert len(trained.module.weight) == trained.metrics["chosen"]["base_functions"]
    assert all(np.isfinite(v) for row in trained.metrics["held_out_query_loss"].values() for v in row.values())


@pytest.mark.slow
@pytest.mark.parametrize("config", [TrainingConfig(), ADAM.with_settings(steps=100)], ids=["em", "adam"])
def test_the_inner_loop_learns_people(config: TrainingConfig) -> None:
    trained = learn(people(40, noise=0.3), config)
    assert trained.metrics["chosen"]["held_out_gain"] > 0.05
    assert float(torch.linalg.eigvalsh(trained.prior.precision)[0]) > 0
    assert trained.prior.w0.dtype == torch.float64


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match=r"gradient inner loop needs outer=MamlConfig"):
        TrainingConfig(method="gradient")
    with pytest.raises(ConfigurationError, match="base_functions"):
        learn(people(), replace(ADAM, base_functions=None))


@pytest.mark.parametrize("config", [FIXED, ADAM], ids=["em", "adam"])
def test_the_largest_seed_is_one(config: TrainingConfig) -> None:
    assert learn(people(), replace(config, seed=2**63 - 1)).held_out == 12


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(TrainingError):
        fit(people(), np.arange(12), np.ones((40, 6), np.float32), FIXED, quiet)
    assert torch.get_num_threads() == before
