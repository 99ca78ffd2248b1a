"""The settings of meta-training and their presets; imports errors only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mrm_sdk.errors import ConfigurationError


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of meta-training; the defaults are the preset ``newton``.

    Args:
        method: the inner loop.
        outer: the outer loop: ``em`` (empirical Bayes, with ``newton`` only) or ``adam`` (differentiates through the
            inner loop, as published).
        base_functions: K; ``None`` lets held-out users choose (``em`` only).
        directions: em: most directions of the embeddings that tastes may lie in, R.
        whitening: em: 0 keeps the scale of each direction, 1 makes all alike.
        iterations: em: steps over users.
        users_per_iteration: em: users drawn for a step.
        steps: adam: meta-batches; with ``epochs`` set, as many as that many passes over the users take.
        epochs: adam: passes over the users.
        users_per_batch: adam: users in a meta-batch.
        learning_rate: of the outer Adam.
        warmup: adam: share of the steps in which the learning rate rises; it falls along a cosine afterwards.
        gradient_clip: adam: largest norm of the outer gradient.
        inner_steps: adam: Newton or Adam steps of the inner loop, differentiated through.
        inner_learning_rate: of the inner Adam (``gradient``).
        robust_ratio: RPO's share of users that count as hard.
        robust_gamma: RPO's softness in nats; infinite is the plain mean.
        embedding_scale: adam: embeddings are multiplied by it; ``None`` centres them and scales to unit variance.
        embedding_noise: adam: noise added to embeddings in training, in units of their standard deviation.
        random_shots: adam: halves swap roles at random, and each batch's support is cut to a random number of shots.
        max_pairs: most comparisons of one user and phase that are used.
        folds: with fewer users than ``large``, cross-validation over this many folds chooses K and the prior's
            strength; with more, the first fold alone is set aside.
        large: from how many users on one fold is enough.
        seed: the only source of randomness.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one. On a CPU a seed gives the same result to the
            last bit; a GPU differs by rounding.
    """

    method: Literal["newton", "gradient"] = "newton"
    outer: Literal["em", "adam"] = "em"
    base_functions: int | None = 16
    directions: int = 256
    whitening: float = 0.5
    iterations: int = 12
    users_per_iteration: int = 768
    steps: int = 800
    epochs: int | None = None
    users_per_batch: int = 256
    learning_rate: float = 0.01
    warmup: float = 0.0
    gradient_clip: float = 1.0
    inner_steps: int = 3
    inner_learning_rate: float = 0.005
    robust_ratio: float = 0.5
    robust_gamma: float = math.inf
    embedding_scale: float | None = None
    embedding_noise: float = 0.0
    random_shots: bool = True
    max_pairs: int = 64
    folds: int = 5
    large: int = 500
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Checks what would end in a wrong result, or in an error of the libraries below.

        Raises:
            ConfigurationError: a setting is out of bounds.
        """
        if not 0 <= self.seed < 2**63:
            raise ConfigurationError(f"A seed must be 0 or more, and below 2^63; not {self.seed}.")
        counts = ("base_functions", "directions", "iterations", "users_per_iteration", "steps", "epochs")
        for name in (*counts, "users_per_batch", "inner_steps", "max_pairs", "folds", "large"):
            value, least = getattr(self, name), 2 if name == "folds" else 1
            if value is not None and value < least:
                raise ConfigurationError(f"{name} must be {least} or more, not {value}.")
        if self.method not in ("newton", "gradient") or self.outer not in ("em", "adam"):
            raise ConfigurationError("method is 'newton' or 'gradient', and outer 'em' or 'adam'.")
        if self.device not in ("cpu", "cuda", "auto"):
            raise ConfigurationError(f"device is 'cpu', 'cuda' or 'auto', not {self.device!r}.")
        rates = (self.learning_rate, self.inner_learning_rate, self.gradient_clip)
        if not all(0 < rate < math.inf for rate in rates) or not 0 <= self.warmup < 1 or not 0 <= self.whitening <= 1:
            raise ConfigurationError(
                "Learning rates and gradient_clip must be above 0; warmup and whitening in [0, 1]."
            )
        if not 0 < self.robust_ratio <= 1 or math.isnan(self.robust_gamma):
            raise ConfigurationError("robust_ratio must be above 0 and at most 1, and robust_gamma a number.")

    @classmethod
    def preset(cls, name: str, *, seed: int = 0) -> TrainingConfig:
        """``newton`` (default), or ``paper``: the published method's settings.

        Raises:
            ConfigurationError: there is no such preset, or the seed is negative.
        """
        if name == "newton":
            return cls(seed=seed)
        if name == "paper":
            return cls(
                method="gradient",
                outer="adam",
                base_functions=2,
                epochs=60,
                users_per_batch=8,
                learning_rate=0.005,
                warmup=0.05,
                inner_steps=1,
                robust_gamma=0.5,
                embedding_scale=1.0,
                random_shots=False,
                seed=seed,
            )
        raise ConfigurationError(f"There is no preset {name!r}; use 'newton' or 'paper'.")
