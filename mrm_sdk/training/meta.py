"""The outer loop: many users -> base reward functions and prior; imports core, episodes and torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from mrm_sdk.core.inner_loop import gradient_descent, newton
from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.core.robust import robust_objective
from mrm_sdk.errors import TrainingError
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.datasets import QUERY, SUPPORT
from mrm_sdk.training.episodes import Packed, draw
from mrm_sdk.training.model import MetaModel

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how many of its units are done, and how many there are."""


class StepReport(NamedTuple):
    """What one meta-step saw: query losses [users], objective, gradient norm before clipping, learning rate."""

    losses: Tensor
    objective: float
    gradient_norm: float
    learning_rate: float


def adapt(model: MetaModel, packed: Packed, base_rewards: Tensor, config: TrainingConfig) -> Tensor:
    """Weights of each user after the differentiable inner loop on the support: [users, K]."""
    support = packed.pairs(SUPPORT, base_rewards)
    if config.method == "newton":
        return newton(support, model.prior(), steps=config.inner_steps)
    return gradient_descent(support, model.w0, steps=config.inner_steps, learning_rate=config.inner_learning_rate)


def query_losses(packed: Packed, base_rewards: Tensor, weights: Tensor) -> Tensor:
    """Mean Bradley–Terry loss of each user on the query, [users]."""
    query = packed.pairs(QUERY, base_rewards)
    margin = (query.z @ weights.unsqueeze(-1)).squeeze(-1)
    return weighted_mean(bradley_terry(margin, query.tie), query.strength)


def outer_optimiser(
    model: MetaModel, config: TrainingConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Adam over everything the inner loop uses, with linear warm-up and cosine decay to 0."""
    parameters = [model.weight, model.w0]
    if config.method == "newton":
        parameters += [model.factor, model.log_rho]
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
    warmup = int(config.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def meta_step(
    model: MetaModel,
    packed: Packed,
    embeddings: Tensor,
    config: TrainingConfig,
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    generator: torch.Generator | None = None,
) -> StepReport:
    """One step of the outer loop on one meta-batch (arXiv 2601.18731, algorithm 1, batched over users).

    Args:
        model: changed in place.
        packed: the meta-batch.
        embeddings: of all items, [items, D].
        config: inner loop and robust objective.
        optimiser: of the outer loop.
        scheduler: its learning rate.
        generator: source of the noise on embeddings, where the configuration asks for any.

    Returns:
        What the step saw, before it changed the model.
    """
    used, index = torch.unique(packed.items, return_inverse=True)
    seen = embeddings[used]
    if config.embedding_noise:
        seen = seen + config.embedding_noise / model.scale * torch.randn(seen.shape, generator=generator)
    base_rewards = model(seen)
    local = packed._replace(items=index)
    losses = query_losses(local, base_rewards, adapt(model, local, base_rewards, config))
    objective = robust_objective(losses, ratio=config.robust_ratio, gamma=config.robust_gamma)
    optimiser.zero_grad()
    objective.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    rate = float(scheduler.get_last_lr()[0])
    optimiser.step()
    scheduler.step()
    return StepReport(losses.detach(), float(objective.detach()), float(norm), rate)


def meta_train(packed: Packed, embeddings: Tensor, config: TrainingConfig, progress: Progress) -> MetaModel:
    """Runs the outer loop over users.

    Args:
        packed: users for training, each with support and query.
        embeddings: of all items, [items, D] float32.
        config: everything else; its seed alone decides the result.
        progress: called after every step.

    Returns:
        The trained model.

    Raises:
        TrainingError: embeddings do not differ, or training diverged.
    """
    generator = torch.Generator().manual_seed(config.seed)
    centre, scale = torch.zeros(embeddings.shape[1]), config.embedding_scale or 1.0
    if config.embedding_scale is None:
        centre = embeddings.mean(0)
        spread = float((embeddings - centre).double().pow(2).mean().sqrt())
        if not spread > 1e-12 * max(1.0, float(centre.abs().max())):
            raise TrainingError("All items have the same embedding, so nothing can be learned. Check the encoder.")
        scale = 1 / spread
    model = MetaModel(embeddings.shape[1], config.base_functions, centre=centre, scale=scale, generator=generator)
    users = len(packed.items)
    steps = config.steps if config.epochs is None else max(1, config.epochs * users // config.users_per_batch)
    optimiser, scheduler = outer_optimiser(model, config, steps)
    with _one_thread():
        for step in range(steps):
            batch = draw(packed, config.users_per_batch, generator, random_shots=config.random_shots)
            report = meta_step(model, batch, embeddings, config, optimiser, scheduler, generator)
            if not math.isfinite(report.objective):
                raise TrainingError(f"Training diverged at step {step + 1}: the objective is {report.objective}.")
            progress("meta-training", step + 1, steps)
    return model


@contextmanager
def _one_thread() -> Iterator[None]:
    """The tensors are small: threads gain nothing, and spin for each other where another process needs a core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
