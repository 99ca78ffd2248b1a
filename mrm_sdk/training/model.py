"""What meta-training learns: base reward functions and the prior."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrm_sdk.core.inner_loop import Prior

_NEARNESS = 1e-4


class KnownTexts(NamedTuple):
    """What the judgements of single texts said about them, beyond what can be told from a text.

    A text is known again by its embedding: one that is closer to a known one than a hundredth of what embeddings
    usually differ by is the same text.

    Args:
        embedding: of each text, centred, [texts, D] float32.
        centre: subtracted from an embedding before it is compared, [D] float32.
        nearness: squared distance below which two embeddings are of one text.
        residual: added to a known text's base rewards, [texts, K] float32.
    """

    embedding: Tensor
    centre: Tensor
    nearness: float
    residual: Tensor

    @classmethod
    def of(cls, embeddings: Tensor, residual: Tensor) -> KnownTexts:
        """Texts by their embeddings [texts, D] as the encoder gives them, and their residuals [texts, K]."""
        centre = embeddings.mean(0)
        centred = embeddings - centre
        # Of one text alone nothing tells how much others differ.
        usual = float((centred if len(embeddings) > 1 else embeddings).square().sum(1).mean())
        return cls(centred, centre, _NEARNESS * max(usual, torch.finfo(torch.float32).tiny), residual)


class BaseRewards(nn.Module):
    """Shared base reward functions φ: [batch, D] -> [batch, K], linear in the embedding, plus what known texts add.

    Args:
        weight: [K, D].
        bias: [K].
        known: texts with a residual of their own, if there are any.
    """

    def __init__(self, weight: Tensor, bias: Tensor, known: KnownTexts | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.known = known

    def forward(self, embedding: Tensor) -> Tensor:
        """Embeddings [batch, D] -> base rewards [batch, K]."""
        rewards = nn.functional.linear(embedding, self.weight, self.bias)
        if self.known is None:
            return rewards
        known = self.known
        centred = embedding - known.centre
        squares = centred.square().sum(1, keepdim=True) + known.embedding.square().sum(1)
        same = (squares - 2 * (centred @ known.embedding.T) < known.nearness).to(rewards)
        # Texts that differ beyond what the encoder reads have one embedding: the mean stands for all of them.
        return rewards + (same / same.sum(1, keepdim=True).clamp_min(1)) @ known.residual


class MetaModel(nn.Module):
    """φ on scaled embeddings, and where every user starts.

    Args:
        dimension: D.
        base_functions: K.
        centre: subtracted from embeddings, [D]; it moves all rewards of a bundle alike and keeps φ well scaled.
        scale: embeddings are multiplied by it, after centring.
        generator: source of the initial values.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self, dimension: int, base_functions: int, *, centre: Tensor, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(base_functions, dimension, generator=generator) / dimension**0.5)
        self.w0 = nn.Parameter(torch.full((base_functions,), 1 / base_functions))
        # Λ = L Lᵀ with a positive diagonal: positive definite whatever the optimiser does.
        self.factor = nn.Parameter(torch.zeros(base_functions, base_functions))
        self.log_rho = nn.Parameter(torch.zeros(()))
        self.register_buffer("centre", centre)
        self.register_buffer("scale", torch.tensor(scale, dtype=centre.dtype))

    def forward(self, embedding: Tensor) -> Tensor:
        """Embeddings [batch, D] -> base rewards [batch, K]."""
        return nn.functional.linear((embedding - self.centre) * self.scale, self.weight)

    def prior(self) -> Prior:
        """The prior, differentiable."""
        lower = torch.tril(self.factor, -1) + torch.diag(torch.exp(torch.diagonal(self.factor)))
        return Prior(self.w0, lower @ lower.T, torch.exp(self.log_rho))

    @torch.no_grad()
    def freeze(self) -> tuple[BaseRewards, Prior]:
        """φ and prior of ``gradient`` as a bundle stores them, with centring and scaling folded in.

        Returns:
            The module [batch, D] -> [batch, K] in float32, and the prior in float64.
        """
        weight = self.weight.double() * self.scale.double()
        prior = Prior(*(tensor.detach().double() for tensor in self.prior()))
        return BaseRewards(weight.float(), (-(weight @ self.centre.double())).float()).eval(), prior
