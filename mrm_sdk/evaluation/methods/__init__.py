"""The methods to compare, by name; a method's module is imported when it is first used."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import cast

from mrm_sdk.evaluation.method import Fit


@dataclass(frozen=True)
class RegisteredMethod:
    """A :class:`~mrm_sdk.evaluation.method.Method` in a module of this package.

    Args:
        description: one line.
        module: of this package.
        function: a :class:`~mrm_sdk.evaluation.method.Fit` in it.
    """

    description: str
    module: str
    function: str = "fit"

    @property
    def fit(self) -> Fit:
        """The function that fits it; imports its module."""
        return cast(Fit, getattr(import_module(f"{__name__}.{self.module}"), self.function))


METHODS: dict[str, RegisteredMethod] = {
    "population": RegisteredMethod("one reward for all users (Bradley–Terry), without adapting", "population"),
    "per_user": RegisteredMethod("a logistic regression per user; nothing is learned from other users", "per_user"),
    "lore": RegisteredMethod("a low-rank basis of rewards, mixed for each user (LoRe, arXiv 2504.14439)", "lore"),
    "in_context": RegisteredMethod("a set network that reads the comparisons and gives weights", "in_context"),
    "paper": RegisteredMethod("Meta Reward Modeling as published (arXiv 2601.18731)", "mrm", "fit_paper"),
    "newton": RegisteredMethod(
        "Meta Reward Modeling with a learned prior and Newton steps; the default", "mrm", "fit_newton"
    ),
}
