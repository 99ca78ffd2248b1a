"""A bundle on disk, opened and verified; imports core, and safetensors for the prior."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle.manifest import BASE_REWARDS, ENCODER, PRIOR, TOKENIZER, FileName, Manifest
from mrm_sdk.bundle.providers import GraphSession
from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, gradient_descent, newton_serving
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.errors import BundleDamagedError, BundleMismatchError, ConfigurationError, InvalidInputError, NotFoundError
from mrm_sdk.settings import Settings


class Bundle:
    """Base reward functions, prior and encoder of one meta-training run; immutable, safe to share between threads.

    Args:
        path: the bundle's folder.
        settings: execution providers and threads.

    Raises:
        ConfigurationError: ``path`` is no path.
        NotFoundError: there is no such folder.
        BundleMismatchError: it is no bundle, or one of another format.
        BundleDamagedError: a file is missing or its bytes are not those that were shipped.
    """

    def __init__(self, path: str | Path, settings: Settings | None = None) -> None:
        try:
            self.path = Path(path)
        except TypeError:
            raise ConfigurationError(f"A bundle is a folder's path, not a {type(path).__name__}.") from None
        self.settings = settings or Settings()
        try:
            found = self.path.exists()
        except OSError as error:
            raise NotFoundError(f"{self.path} cannot be opened: {error.strerror}. Check the path.") from None
        if not found:
            raise NotFoundError(f"There is no bundle at {self.path}. Make one with 'mrm train', or check the path.")
        self.manifest = Manifest.read(self.path)
        for name in self._expected():
            self.read(name)
        self.prior = self._read_prior()
        self._base_rewards = GraphSession(
            BASE_REWARDS, lambda: self.read(BASE_REWARDS), frozenset({"embedding"}), self.settings
        )

    @property
    def features(self) -> str:
        """Identifies encoder and base rewards; stored feature differences belong to it."""
        return self.manifest.features

    @property
    def fingerprint(self) -> str:
        """Identifies the whole bundle; stored weights belong to it."""
        return self.manifest.fingerprint

    @property
    def providers(self) -> list[str]:
        """The execution providers that really started for φ."""
        return self._base_rewards.providers

    def read(self, name: FileName) -> bytes:
        """Returns the bytes of one of the bundle's files, verified against the manifest.

        Raises:
            BundleDamagedError: the file is missing, unreadable, or not what was shipped.
        """
        expected = self.manifest.files.get(name)
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise BundleDamagedError(f"{self.path / name} cannot be read: {error.strerror}") from None
        if hashlib.sha256(data).hexdigest() != expected:
            raise BundleDamagedError(
                f"{self.path / name} is not the file that was shipped: its SHA-256 differs from the manifest's. "
                "Where it was replaced while in use, open the bundle again; else copy it again from its source."
            )
        return data

    def base_rewards(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Evaluates φ: embeddings [n, D] -> base rewards [n, K].

        Raises:
            BundleMismatchError: D is not the bundle's.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.manifest.dimension:
            raise BundleMismatchError(
                f"This bundle takes embeddings of {self.manifest.dimension} numbers, not of shape "
                f"{list(embeddings.shape)}."
            )
        if not len(embeddings):
            return np.zeros((0, self.manifest.base_functions), np.float32)
        return self._base_rewards.run({"embedding": np.ascontiguousarray(embeddings, np.float32)})

    def adapt(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Adapts users with the inner loop the bundle was trained for.

        Args:
            pairs: comparisons of a batch of users, [users, pairs, ...], float64.

        Returns:
            Weights [users, K], and their covariance [users, K, K] (``None`` for ``gradient``).
        """
        adaptation = self.manifest.adaptation
        if adaptation.method == "gradient":
            rate = adaptation.learning_rate
            return gradient_descent(pairs, self.prior.w0, steps=adaptation.steps, learning_rate=rate), None
        try:
            weights = newton_serving(pairs, self.prior, max_steps=adaptation.steps, tolerance=adaptation.tolerance)
            return weights, laplace_covariance(weights, pairs, self.prior)
        except RuntimeError:  # what torch raises for a singular matrix
            raise InvalidInputError("Rewards this large cannot be adapted to; check the encoder's scale.") from None

    def _expected(self) -> list[FileName]:
        expected: list[FileName] = [BASE_REWARDS, PRIOR]
        if self.manifest.encoder.kind == "onnx":
            expected += [ENCODER, TOKENIZER]
        if set(expected) != set(self.manifest.files):
            raise BundleDamagedError(f"{self.path} must list the files {expected}, not {sorted(self.manifest.files)}.")
        return expected

    def _read_prior(self) -> Prior:
        from safetensors import SafetensorError
        from safetensors.torch import load

        size = self.manifest.base_functions
        try:
            tensors = load(self.read(PRIOR))
            prior = Prior(*(tensors[name].to(torch.float64) for name in ("w0", "precision", "rho")))
        except (SafetensorError, KeyError) as error:
            raise BundleMismatchError(f"{self.path / PRIOR} holds no prior: {error}") from None
        shapes = [tuple(tensor.shape) for tensor in prior]
        if shapes != [(size,), (size, size), ()]:
            raise BundleMismatchError(f"{self.path / PRIOR} has shapes {shapes}, which do not fit K = {size}.")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in prior):
            raise BundleMismatchError(f"{self.path / PRIOR} holds NaN or infinity.")
        definite = bool(torch.linalg.cholesky_ex(prior.precision).info == 0)
        if not definite or not torch.equal(prior.precision, prior.precision.T) or prior.rho <= 0:
            raise BundleMismatchError(f"{self.path / PRIOR} is no prior: precision and rho must be positive definite.")
        return prior
