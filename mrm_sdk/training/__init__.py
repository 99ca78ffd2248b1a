"""Meta-training: users' comparisons become a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mrm_sdk.lazy import lazy_exports

if TYPE_CHECKING:
    from mrm_sdk.training.config import EmpiricalBayesConfig, MamlConfig, TrainingConfig
    from mrm_sdk.training.pipeline import train_bundle

__all__ = [
    "EmpiricalBayesConfig",
    "MamlConfig",
    "TrainingConfig",
    "train_bundle",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "EmpiricalBayesConfig": "mrm_sdk.training.config",
        "MamlConfig": "mrm_sdk.training.config",
        "TrainingConfig": "mrm_sdk.training.config",
        "train_bundle": "mrm_sdk.training.pipeline",
    },
)
