"""What meta-training learns: base reward functions and the prior."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrm_sdk.core.inner_loop import Prior


class BaseRewards(nn.Module):
    """Shared base reward functions φ, linear in the embedding: [batch, D] -> [batch, K]."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """Embeddings [batch, D] -> base rewards [batch, K]."""
        return nn.functional.linear(embedding, self.weight, self.bias)


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
