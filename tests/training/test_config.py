"""Settings: presets, and what is out of bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mrm_sdk.errors import ConfigurationError
from mrm_sdk.training.config import TrainingConfig


def test_presets() -> None:
    assert TrainingConfig.preset("newton", seed=3) == TrainingConfig(seed=3)
    paper = TrainingConfig.preset("paper", seed=3)
    assert (paper.method, paper.outer, paper.base_functions, paper.seed) == ("gradient", "adam", 2, 3)


@pytest.mark.parametrize(("name", "seed"), [("best", 0), ("newton", -1), ("newton", 2**63)])
def test_unknown_presets_and_seeds(name: str, seed: int) -> None:
    with pytest.raises(ConfigurationError):
        TrainingConfig.preset(name, seed=seed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_functions": 0}, {"base_functions": -2}, {"iterations": 0}, {"directions": 0}, {"steps": 0},
        {"epochs": 0}, {"users_per_iteration": 0}, {"users_per_batch": 0}, {"inner_steps": 0}, {"max_pairs": 0},
        {"seed": -1}, {"seed": 2**63}, {"folds": 1},
        {"robust_ratio": 0.0}, {"robust_ratio": 1.5}, {"robust_gamma": math.nan},
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_told(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=name):
        TrainingConfig(**wrong)
