"""The settings of meta-training: what both outer loops share, one object for each loop's own, and presets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mrm_sdk.errors import ConfigurationError


@dataclass(frozen=True)
class EmpiricalBayesConfig:
    """The default outer loop: expectation–maximisation over users (``newton`` inner loop only).

    Args:
        directions: most directions of the embeddings that tastes may lie in, R.
        iterations: EM steps over users.
        most_users: users that loadings are learned from, at most; more add little, and each takes time in every step.
        known_texts: let texts that many have judged have base rewards of their own, which a new text cannot have.
    """

    directions: int = 512
    iterations: int = 12
    most_users: int = 16_384
    known_texts: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigurationError if a setting is out of bounds."""
        for name in ("directions", "iterations", "most_users"):
            _require_count(name, getattr(self, name))


@dataclass(frozen=True)
class MamlConfig:
    """The published outer loop: Adam, differentiating through the inner loop (arXiv 2601.18731, algorithm 1).

    Args:
        steps: meta-batches; with ``epochs`` set, as many as that many passes over the users take.
        epochs: passes over the users.
        users_per_batch: users in a meta-batch.
        learning_rate: of the outer Adam.
        warmup: share of the steps in which the learning rate rises; it falls along a cosine afterwards.
        gradient_clip: largest norm of the outer gradient.
        inner_steps: Newton or Adam steps of the inner loop, differentiated through.
        inner_learning_rate: of the inner Adam (``gradient``).
        embedding_scale: embeddings are multiplied by it; ``None`` centres them and scales to unit variance.
        embedding_noise: noise added to embeddings in training, in units of their standard deviation.
        random_shots: halves swap roles at random, and each batch's support is cut to a random number of shots.
    """

    steps: int = 800
    epochs: int | None = None
    users_per_batch: int = 256
    learning_rate: float = 0.01
    warmup: float = 0.0
    gradient_clip: float = 1.0
    inner_steps: int = 3
    inner_learning_rate: float = 0.005
    embedding_scale: float | None = None
    embedding_noise: float = 0.0
    random_shots: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigurationError if a setting is out of bounds."""
        for name in ("steps", "epochs", "users_per_batch", "inner_steps"):
            _require_count(name, getattr(self, name))
        rates = (self.learning_rate, self.inner_learning_rate, self.gradient_clip)
        if not all(0 < rate < math.inf for rate in rates) or not 0 <= self.warmup < 1:
            raise ConfigurationError("Learning rates and gradient_clip must be above 0; warmup in [0, 1).")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of meta-training; the defaults are the preset ``newton``.

    Args:
        method: the inner loop.
        outer: the outer loop, by its settings.
        base_functions: K; ``None`` lets held-out users choose (empirical Bayes only).
        robust_ratio: RPO's share of users that count as hard.
        robust_gamma: RPO's softness in nats; infinite is the plain mean.
        max_pairs: most comparisons of one user and phase that are used.
        folds: with fewer users than ``large``, cross-validation over this many folds chooses K and the prior's
            strength; with more, the first fold alone is set aside.
        large: from how many users on one fold is enough.
        seed: the only source of randomness.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one. On a CPU a seed gives the same result to the
            last bit; a GPU differs by rounding.

    Example:
        >>> from mrm_sdk.training import MamlConfig, TrainingConfig
        >>> TrainingConfig().with_settings(iterations=6).empirical_bayes.iterations
        6
        >>> TrainingConfig(outer=MamlConfig(steps=400)).maml.steps
        400
    """

    method: Literal["newton", "gradient"] = "newton"
    outer: EmpiricalBayesConfig | MamlConfig = field(default_factory=EmpiricalBayesConfig)
    base_functions: int | None = 16
    robust_ratio: float = 0.5
    robust_gamma: float = math.inf
    max_pairs: int = 64
    folds: int = 5
    large: int = 500
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Checks what would end in a wrong result, or in an error of the libraries below.

        Raises:
            ConfigurationError: a setting is out of bounds, or the loops do not go together.
        """
        if not 0 <= self.seed < 2**63:
            raise ConfigurationError(f"A seed must be 0 or more, and below 2^63; not {self.seed}.")
        for name in ("base_functions", "max_pairs", "folds", "large"):
            _require_count(name, getattr(self, name), least=2 if name == "folds" else 1)
        if self.method not in ("newton", "gradient"):
            raise ConfigurationError(f"method is 'newton' or 'gradient', not {self.method!r}.")
        if not isinstance(self.outer, EmpiricalBayesConfig | MamlConfig):
            raise ConfigurationError(f"outer is an EmpiricalBayesConfig or a MamlConfig, not {self.outer!r}.")
        if self.method == "gradient" and not isinstance(self.outer, MamlConfig):
            raise ConfigurationError("The gradient inner loop needs outer=MamlConfig(…).")
        if self.device not in ("cpu", "cuda", "auto"):
            raise ConfigurationError(f"device is 'cpu', 'cuda' or 'auto', not {self.device!r}.")
        if not 0 < self.robust_ratio <= 1 or math.isnan(self.robust_gamma):
            raise ConfigurationError("robust_ratio must be above 0 and at most 1, and robust_gamma a number.")

    @property
    def empirical_bayes(self) -> EmpiricalBayesConfig:
        """The settings of this outer loop.

        Raises:
            ConfigurationError: the configuration names the other one.
        """
        if not isinstance(self.outer, EmpiricalBayesConfig):
            raise ConfigurationError("This needs outer=EmpiricalBayesConfig(…).")
        return self.outer

    @property
    def maml(self) -> MamlConfig:
        """The settings of this outer loop.

        Raises:
            ConfigurationError: the configuration names the other one.
        """
        if not isinstance(self.outer, MamlConfig):
            raise ConfigurationError("This needs outer=MamlConfig(…).")
        return self.outer

    def with_settings(self, **settings: Any) -> TrainingConfig:
        """The same configuration with other settings, its own or its outer loop's, by name.

        Raises:
            ConfigurationError: there is no such setting, or it is out of bounds.
        """
        own = {name: settings.pop(name) for name in list(settings) if name in self.__dataclass_fields__}
        changed = replace(self, **own)
        for name in settings:
            if name not in changed.outer.__dataclass_fields__:
                raise ConfigurationError(f"There is no setting {name!r} with this outer loop.")
        return replace(changed, outer=replace(changed.outer, **settings))

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, as manifests and checkpoints hold them.

        ``outer`` is ``em`` or ``adam``. Settings of the outer loop that is not used have their defaults.
        """
        used = "adam" if isinstance(self.outer, MamlConfig) else "em"
        loops = asdict(EmpiricalBayesConfig()) | asdict(MamlConfig()) | asdict(self.outer)
        return {**asdict(self), "outer": used, **loops}

    @classmethod
    def preset(cls, name: str, *, seed: int = 0) -> TrainingConfig:
        """``newton`` (default), or ``paper``: the published method's settings.

        Raises:
            ConfigurationError: there is no such preset, or the seed is negative.
        """
        if name == "newton":
            return cls(seed=seed)
        if name == "paper":
            maml = MamlConfig(
                epochs=60,
                users_per_batch=8,
                learning_rate=0.005,
                warmup=0.05,
                inner_steps=1,
                embedding_scale=1.0,
                random_shots=False,
            )
            return cls(method="gradient", outer=maml, base_functions=2, robust_gamma=0.5, seed=seed)
        raise ConfigurationError(f"There is no preset {name!r}; use 'newton' or 'paper'.")


def _require_count(name: str, value: int | None, *, least: int = 1) -> None:
    if value is not None and value < least:
        raise ConfigurationError(f"{name} must be {least} or more, not {value}.")
