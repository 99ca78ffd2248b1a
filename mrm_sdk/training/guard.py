"""Chooses how strong the prior must be on users who were never trained on; imports core and torch."""

from __future__ import annotations

import torch
from torch import Tensor

from mrm_sdk.core.inner_loop import Prior, newton_serving
from mrm_sdk.training.datasets import SUPPORT
from mrm_sdk.training.episodes import Packed
from mrm_sdk.training.meta import query_losses

STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0)
SHOTS = (2, 5, 10, 20, 40)


@torch.no_grad()
def choose_prior_strength(prior: Prior, users: Packed, base_rewards: Tensor) -> tuple[Prior, dict[str, float]]:
    """Multiplies Λ by the strength that gives held-out users the lowest query loss, over several numbers of shots.

    A prior learned from few users is too sure that people differ as those few did, and adapting then hurts.

    Args:
        prior: as learned.
        users: held out from training.
        base_rewards: of all items, [items, K] float64.

    Returns:
        The prior to ship, and the mean query loss in nats by strength.
    """
    support = users.pairs(SUPPORT, base_rewards)
    width = support.strength.shape[-1]
    shots = sorted({min(n, width) for n in SHOTS} | {width})
    curve: dict[str, float] = {}
    for strength in STRENGTHS:
        scaled = prior._replace(precision=prior.precision * strength)
        losses = [
            query_losses(
                users, base_rewards, newton_serving(support.first(n), scaled, max_steps=8, tolerance=1e-6)
            ).mean()
            for n in shots
        ]
        curve[f"{strength:g}"] = float(torch.stack(losses).mean())
    best = min(STRENGTHS, key=lambda strength: curve[f"{strength:g}"])
    return prior._replace(precision=prior.precision * best), curve
