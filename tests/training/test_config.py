"""Settings: presets, and what is out of bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mrm_sdk.errors import ConfigurationError
from mrm_sdk.training.config import EmpiricalBayesConfig, MamlConfig, TrainingConfig


def test_presets() -> None:
    assert TrainingConfig.preset("newton", seed=3) == TrainingConfig(seed=3)
    paper = TrainingConfig.preset("paper", seed=3)
    assert (paper.method, paper.base_functions, paper.seed) == ("gradient", 2, 3)
    assert (paper.maml.epochs, paper.maml.inner_steps) == (60, 1)


def test_each_outer_loop_has_settings_of_its_own() -> None:
    newton, paper = (TrainingConfig.preset(name) for name in ("newton", "paper"))
    assert newton.empirical_bayes == EmpiricalBayesConfig()
    for wrong in (lambda: newton.maml, lambda: paper.empirical_bayes):
        with pytest.raises(ConfigurationError, match="This needs outer="):
            wrong()
    with pytest.raises(ConfigurationError, match=r"needs outer=MamlConfig"):
        TrainingConfig(method="gradient")
    with pytest.raises(ConfigurationError, match="outer is an EmpiricalBayesConfig or a MamlConfig"):
        TrainingConfig(outer="adam")  # type: ignore[arg-type]


def test_other_settings_by_name() -> None:
    changed = TrainingConfig().with_settings(seed=4, iterations=2)
    assert (changed.seed, changed.empirical_bayes.iterations, changed.empirical_bayes.directions) == (4, 2, 512)
    assert TrainingConfig().with_settings(outer=MamlConfig(), steps=3).maml.steps == 3
    with pytest.raises(ConfigurationError, match="no setting 'steps' with this outer loop"):
        TrainingConfig().with_settings(steps=3)
    with pytest.raises(ConfigurationError, match="iterations must be 1 or more"):
        TrainingConfig().with_settings(iterations=0)


def test_all_settings_by_name() -> None:
    """What manifests and checkpoints hold: flat, with the same names for both outer loops."""
    newton, paper = (TrainingConfig.preset(name).as_dict() for name in ("newton", "paper"))
    assert newton.keys() == paper.keys()
    assert (newton["outer"], newton["iterations"], newton["steps"], newton["epochs"]) == ("em", 12, 800, None)
    assert (paper["outer"], paper["iterations"], paper["steps"], paper["epochs"]) == ("adam", 12, 800, 60)


@pytest.mark.parametrize(("name", "seed"), [("best", 0), ("newton", -1), ("newton", 2**63)])
def test_unknown_presets_and_seeds(name: str, seed: int) -> None:
    with pytest.raises(ConfigurationError):
        TrainingConfig.preset(name, seed=seed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_functions": 0}, {"base_functions": -2}, {"max_pairs": 0}, {"seed": -1}, {"seed": 2**63}, {"folds": 1},
        {"robust_ratio": 0.0}, {"robust_ratio": 1.5}, {"robust_gamma": math.nan},
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=name):
        TrainingConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"directions": 0}, {"most_users": 0}])
def test_what_empirical_bayes_refuses(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=name):
        EmpiricalBayesConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"epochs": 0}, {"users_per_batch": 0}, {"inner_steps": 0}])
def test_what_maml_refuses(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=name):
        MamlConfig(**wrong)
