"""A bundle on disk, opened and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Final, overload

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import CHAT_TEMPLATE, ENCODER, ENCODER_DATA, TOKENIZER
from mrm_sdk.bundle.hashing import read_verified, verify
from mrm_sdk.bundle.manifest import (
    BASE_REWARDS,
    BASE_REWARDS_BFLOAT16,
    BASE_REWARDS_FLOAT16,
    PRIOR,
    FileName,
    Manifest,
)
from mrm_sdk.bundle.reference import Reference
from mrm_sdk.core import one_user
from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, gradient_descent, newton_serving
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.errors import BundleDamagedError, BundleMismatchError, ConfigurationError, InvalidInputError, NotFoundError
from mrm_sdk.runtime.session import GraphSession
from mrm_sdk.settings import Settings

EMBEDDING: Final = "embedding"
REWARDS: Final = "base_rewards"
_HALF: Final[dict[torch.dtype, FileName]] = {
    torch.float16: BASE_REWARDS_FLOAT16,
    torch.bfloat16: BASE_REWARDS_BFLOAT16,
}
# Multiplications of a Newton step, above which torch's threads are worth their cost for a single user too.
_ALONE = 1 << 20
# Numbers of a run over embeddings: 4 MB, which a core's cache holds for the most part.
_CHUNK = 1 << 20


class Bundle:
    """Base reward functions, prior and encoder of one meta-training run; immutable, safe to share between threads.

    Args:
        path: the bundle's folder.
        settings: execution providers and threads.

    Raises:
        ConfigurationError: ``path`` is not a path.
        NotFoundError: there is no such folder.
        BundleMismatchError: it is not a bundle, or has another format.
        BundleDamagedError: a file is missing or its bytes are not those that were shipped.

    Example:
        >>> from mrm_sdk import Bundle
        >>> bundle = Bundle("models/mine")
        >>> bundle.manifest.encoder.name
        'sentence-transformers/all-MiniLM-L6-v2'
    """

    def __init__(self, path: str | Path, settings: Settings | None = None) -> None:
        try:
            self.path = Path(path).absolute()  # a host may change its folder, as daemons do
        except TypeError:
            raise ConfigurationError(f"A bundle is a folder's path, not a {type(path).__name__}.") from None
        self.settings = settings or Settings()
        try:
            exists = self.path.exists()
        except OSError as error:
            raise NotFoundError(f"{self.path} cannot be opened: {error.strerror}. Check the path.") from None
        if not exists:
            raise NotFoundError(f"There is no bundle at {self.path}. Make one with 'mrm train', or check the path.")
        self.manifest = Manifest.read(self.path)
        self._check_files()
        self.prior = self._read_prior()
        # By how many numbers a comparison has: K, or one more for the user's threshold.
        self._priors = {len(prior.w0): prior for prior in (self.prior, self.prior.with_threshold())}
        self._prior_arrays = {width: one_user.PriorArrays.of(prior) for width, prior in self._priors.items()}
        graphs: tuple[FileName, ...] = (BASE_REWARDS, BASE_REWARDS_FLOAT16, BASE_REWARDS_BFLOAT16)
        self._sessions = {name: self._session(name) for name in graphs if name in self.manifest.files}

    @property
    def features_hash(self) -> str:
        """Identifies encoder and base rewards; stored feature differences belong to it."""
        return self.manifest.features

    features = features_hash  # its name in the manifest

    @property
    def fingerprint(self) -> str:
        """Identifies the whole bundle; stored weights belong to it."""
        return self.manifest.fingerprint

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, name={self.manifest.name!r}, fingerprint={self.fingerprint!r})"

    @property
    def providers(self) -> list[str]:
        """The execution providers that really started for φ."""
        return self._sessions[BASE_REWARDS].providers

    def read(self, name: FileName) -> bytes:
        """Returns the bytes of one of the bundle's files, verified against the manifest.

        Raises:
            BundleDamagedError: the file is missing, unreadable, or not what was shipped.
        """
        return read_verified(self.path / name, self.manifest.files.get(name))

    @overload
    def base_rewards(self, embeddings: NDArray[np.floating]) -> NDArray[np.float32]: ...
    @overload
    def base_rewards(self, embeddings: torch.Tensor) -> torch.Tensor: ...
    def base_rewards(self, embeddings: NDArray[np.floating] | torch.Tensor) -> NDArray[np.float32] | torch.Tensor:
        """Evaluates φ: embeddings [n, D] -> base rewards [n, K].

        Of an array, rows are taken a few megabytes at a time, so it may be mapped from disk and of any length. A
        tensor on the GPU that the bundle runs on is read where it lies, without a copy; float16 and bfloat16 have
        graphs of their own there, whose error ``manifest.metrics["half"]`` states.

        Args:
            embeddings: a numpy array of any floating type, or a torch tensor.

        Returns:
            float32 for an array; for a tensor, one of its type on its device.

        Raises:
            BundleMismatchError: D is not the bundle's.
            InvalidInputError: a tensor's numbers are no floating-point ones.
            ConfigurationError: the tensor lies on another GPU than the bundle's.
            OutOfMemoryError: not even one row fits.
        """
        dimension, width = self.manifest.dimension, self.manifest.base_functions
        if embeddings.ndim != 2 or embeddings.shape[1] != dimension:
            raise BundleMismatchError(
                f"This bundle takes embeddings of {dimension} numbers, not of shape {list(embeddings.shape)}."
            )
        if isinstance(embeddings, torch.Tensor):
            return self._of_tensor(embeddings)
        out = np.empty((len(embeddings), width), np.float32)
        size = max(1, _CHUNK // dimension)
        self._sessions[BASE_REWARDS].fill(
            out,
            (np.arange(start, min(start + size, len(out))) for start in range(0, len(out), size)),
            lambda rows: {EMBEDDING: np.ascontiguousarray(embeddings[rows[0] : rows[-1] + 1], np.float32)},
            REWARDS,
        )
        return out

    def _of_tensor(self, embeddings: torch.Tensor) -> torch.Tensor:
        if not embeddings.is_floating_point():
            raise InvalidInputError(f"Embeddings are floating-point numbers, not {embeddings.dtype}.")
        # Where the runtime has no CUDA, the half graphs may not even open: the CPU lacks some of their operators.
        if not embeddings.is_cuda or not self._sessions[BASE_REWARDS].on_cuda:
            host = self.base_rewards(embeddings.detach().cpu().float().numpy())
            return torch.from_numpy(host).to(embeddings.device, embeddings.dtype)
        half = _HALF.get(embeddings.dtype)
        name = half if half in self._sessions else BASE_REWARDS
        converted = embeddings if half in self._sessions else embeddings.float()
        return self._sessions[name].run_tensor(EMBEDDING, converted, REWARDS).to(embeddings.dtype)

    def reference(self) -> Reference:
        """What an evaluation of the bundle compares with; read from the disk by each call.

        Raises:
            BundleDamagedError: the file is missing, unreadable, or not what was shipped.
        """
        from safetensors.torch import load

        return Reference.read(load(self.read(PRIOR)))

    def adapt(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Adapts users with the inner loop the bundle was trained for.

        Args:
            pairs: comparisons of a batch of users, [users, pairs, ...], float64; of K numbers, or of one more where
                ratings are compared with the user's threshold (:mod:`mrm_sdk.core.ratings`).

        Returns:
            Weights [users, W] with as many numbers as a comparison has, the threshold behind the K others, and their
            covariance [users, W, W] (``None`` for ``gradient``). ``gradient`` has no threshold: it is 0, and what was
            compared with it is left out.
        """
        adaptation, width = self.manifest.adaptation, self.manifest.base_functions
        if adaptation.method == "gradient" and pairs.z.shape[-1] > width:
            without = Pairs(pairs.z[..., :width], pairs.strength * (pairs.z[..., width] == 0), pairs.tie)
            return torch.nn.functional.pad(self.adapt(without)[0], (0, 1)), None
        if len(pairs.z) == 1 and pairs.z.numel() * self.manifest.base_functions <= _ALONE:
            return self._adapt_one(one_user.OneUser.of(pairs))
        prior = self._priors[pairs.z.shape[-1]]
        if adaptation.method == "gradient":
            rate = adaptation.learning_rate
            return gradient_descent(pairs, prior.w0, steps=adaptation.steps, learning_rate=rate), None
        try:
            weights = newton_serving(pairs, prior, max_steps=adaptation.steps, tolerance=adaptation.tolerance)
            return weights, laplace_covariance(weights, pairs, prior)
        except RuntimeError:  # what torch raises for a singular matrix
            raise _too_large() from None

    def _adapt_one(self, user: one_user.OneUser) -> tuple[torch.Tensor, torch.Tensor | None]:
        adaptation, prior = self.manifest.adaptation, self._prior_arrays[user.z.shape[-1]]
        if adaptation.method == "gradient":
            rate = adaptation.learning_rate
            weights = one_user.gradient_descent(user, prior.w0, steps=adaptation.steps, learning_rate=rate)
            return torch.from_numpy(weights[None]), None
        try:
            weights, covariance = one_user.newton(
                user, prior, max_steps=adaptation.steps, tolerance=adaptation.tolerance
            )
        except np.linalg.LinAlgError:
            raise _too_large() from None
        return torch.from_numpy(weights[None]), torch.from_numpy(covariance[None])

    def _check_files(self) -> None:
        needed, known = {BASE_REWARDS, PRIOR}, {BASE_REWARDS_FLOAT16, BASE_REWARDS_BFLOAT16}
        if self.manifest.encoder.kind == "onnx":
            needed |= {ENCODER, TOKENIZER, *([CHAT_TEMPLATE] if self.manifest.encoder.layout == "chat" else [])}
            known |= {ENCODER_DATA}
        files = self.manifest.files
        if not needed <= set(files) <= needed | known:
            raise BundleDamagedError(f"{self.path} must list the files {sorted(needed)}, not {sorted(files)}.")
        for name, expected in files.items():
            verify(self.path / name, expected)

    def _session(self, name: FileName) -> GraphSession:
        return GraphSession(name, lambda: self.read(name), frozenset([EMBEDDING]), frozenset([REWARDS]), self.settings)

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


def _too_large() -> InvalidInputError:
    return InvalidInputError("Rewards this large cannot be adapted to; check the encoder's scale.")
