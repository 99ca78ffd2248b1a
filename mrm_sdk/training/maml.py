"""MAML: the published outer loop, Adam through the inner loop, over many users (arXiv 2601.18731)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.inner_loop import gradient_descent, newton
from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.core.robust import robust_objective
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.errors import ConfigurationError, TrainingError
from mrm_sdk.progress import Progress
from mrm_sdk.training.basis import gather, moments
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.device import CPU, device_of
from mrm_sdk.training.episodes import Packed, draw
from mrm_sdk.training.model import MetaModel

_STEPS_BETWEEN_CHECKPOINTS = 50


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
        return newton(support, model.prior(), steps=config.maml.inner_steps)
    maml = config.maml
    return gradient_descent(support, model.w0, steps=maml.inner_steps, learning_rate=maml.inner_learning_rate)


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
    optimiser = torch.optim.Adam(parameters, lr=config.maml.learning_rate)
    warmup = int(config.maml.warmup * steps)

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
        embeddings: of the items that the meta-batch names, [items, D].
        config: inner loop and robust objective.
        optimiser: of the outer loop.
        scheduler: its learning rate.
        generator: source of the noise on embeddings, if the configuration has any.

    Returns:
        What the step saw, before it changed the model.
    """
    if config.maml.embedding_noise:
        # Drawn where the generator is, so that a seed gives the same noise on every device.
        noise = torch.randn(embeddings.shape, generator=generator).to(embeddings.device)
        embeddings = embeddings + config.maml.embedding_noise / model.scale * noise
    base_rewards = model(embeddings)
    losses = query_losses(packed, base_rewards, adapt(model, packed, base_rewards, config))
    objective = robust_objective(losses, ratio=config.robust_ratio, gamma=config.robust_gamma)
    optimiser.zero_grad()
    objective.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.maml.gradient_clip)
    rate = float(scheduler.get_last_lr()[0])
    optimiser.step()
    scheduler.step()
    return StepReport(losses.detach(), float(objective.detach()), float(norm), rate)


def meta_train(
    packed: Packed,
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    stage: str = "final",
) -> MetaModel:
    """Runs the outer loop over users.

    Args:
        packed: users for training, each with support and query.
        embeddings: of all items, [items, D]; may be memory-mapped.
        config: everything else; its seed alone decides the result.
        progress: called after every step.
        checkpoint: where to keep the state every now and then, and to resume from.
        stage: names the state in the checkpoint.

    Returns:
        The trained model, on the CPU.

    Raises:
        TrainingError: embeddings do not differ, or training diverged.
        ConfigurationError: the number of base rewards is left open, or ``cuda`` is configured without a GPU.
    """
    if config.base_functions is None:
        raise ConfigurationError("MAML needs a number of base_functions.")
    maml = config.maml
    generator = torch.Generator().manual_seed(config.seed)
    centre, scale = moments(embeddings)  # also if they are used unscaled: this checks them
    if maml.embedding_scale is not None:
        centre, scale = torch.zeros_like(centre), maml.embedding_scale
    device = device_of(config.device)
    model = MetaModel(embeddings.shape[1], config.base_functions, centre=centre, scale=scale, generator=generator)
    model = model.to(device)
    users = len(packed.items)
    steps = maml.steps if maml.epochs is None else max(1, maml.epochs * users // maml.users_per_batch)
    optimiser, scheduler = outer_optimiser(model, config, steps)
    state = RunState(model, optimiser, scheduler, generator)
    done = 0 if checkpoint is None else state.load(checkpoint.read(stage))
    for step in range(done, steps):
        batch = draw(packed, maml.users_per_batch, generator, random_shots=maml.random_shots)
        local, rows = batch.local()
        gathered = gather(embeddings, rows).to(device)
        report = meta_step(model, local.to(device), gathered, config, optimiser, scheduler, generator)
        if not math.isfinite(report.objective):
            raise TrainingError(f"Training diverged at step {step + 1}: the objective is {report.objective}.")
        done = step + 1
        # Not on an interrupt: that may come in the middle of a step, half of which would then be done twice.
        if checkpoint is not None and (done % _STEPS_BETWEEN_CHECKPOINTS == 0 or done == steps):
            checkpoint.write(stage, state.tensors(done))
        progress("meta-training", done, steps)
    return model.to(CPU)


class RunState(NamedTuple):
    """Everything that the outer loop's next step depends on."""

    model: MetaModel
    optimiser: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    generator: torch.Generator

    def tensors(self, done: int) -> dict[str, Tensor]:
        """The state after ``done`` steps, as a checkpoint holds it."""
        out = {f"model.{name}": tensor.detach() for name, tensor in self.model.named_parameters()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            out |= {f"adam.{index}.{name}": tensor for name, tensor in slots.items()}
        return out | {"generator": self.generator.get_state(), "steps": torch.tensor(done)}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor] | None) -> int:
        """Restores the state from a checkpoint; returns how many steps it has seen."""
        if tensors is None:
            return 0
        for name, parameter in self.model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, slot = name.split(".")
                slots.setdefault(int(index), {})[slot] = tensor
        done = int(tensors["steps"])
        # The schedule first: its state has no tensor, and the optimiser's groups hold the rate that it gave.
        self.scheduler.last_epoch = done
        rates = [
            base * function(done)
            for base, function in zip(self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
        ]
        state = self.optimiser.state_dict()
        groups = [{**group, "lr": rate} for group, rate in zip(state["param_groups"], rates, strict=True)]
        self.optimiser.load_state_dict({"state": slots, "param_groups": groups})
        self.scheduler._last_lr = rates
        self.generator.set_state(tensors["generator"])
        return done
