"""The published method, step by step: the numbers that the released implementation gives on a fixed problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import gradient_descent
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.episodes import Packed
from mrm_sdk.training.maml import meta_step, outer_optimiser
from mrm_sdk.training.model import MetaModel

CASES = json.loads((Path(__file__).parent / "official_trajectory.json").read_text())["cases"]


def load(case: dict[str, Any]) -> tuple[MetaModel, TrainingConfig, torch.Tensor]:
    settings = case["config"]
    config = TrainingConfig(
        method="gradient",
        outer=MamlConfig(
            epochs=settings["epochs"],
            users_per_batch=settings["tasks_per_batch"],
            learning_rate=settings["meta_lr"],
            warmup=settings["warmup_ratio"],
            gradient_clip=settings["grad_clip"],
            inner_steps=settings["inner_steps"],
            inner_learning_rate=settings["inner_lr"],
            embedding_noise=0.0,
        ),
        base_functions=settings["base_functions"],
        robust_ratio=settings["rpo_ratio"],
        robust_gamma=settings["rpo_gamma"],
    )
    size = settings["embedding_dim"]
    centre = torch.zeros(size, dtype=torch.float64)
    model = MetaModel(
        size,
        config.base_functions,
        centre=centre,
        scale=settings["embedding_scale"],
        generator=torch.Generator().manual_seed(0),
    ).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(case["initial"]["base"], dtype=torch.float64))
        model.w0.copy_(torch.tensor(case["initial"]["logits"], dtype=torch.float64))
    names = ("support_chosen", "support_rejected", "query_chosen", "query_rejected")
    embeddings = torch.cat(
        [torch.tensor(case["inputs"][name], dtype=torch.float64).reshape(-1, size) for name in names]
    )
    return model, config, embeddings


def table(case: dict[str, Any]) -> Packed:
    """Every pair has items of its own; support and query may differ in length and are padded."""
    settings = case["config"]
    users, counts = settings["users"], (settings["support_pairs"], settings["query_pairs"])
    width = max(counts)
    items = torch.zeros(users, 2, width, 2, dtype=torch.int64)
    strength = torch.zeros(users, 2, width)
    offset = 0
    for phase, count in enumerate(counts):
        for side in (0, 1):
            items[:, phase, :count, side] = offset + torch.arange(users * count).reshape(users, count)
            offset += users * count
        strength[:, phase, :count] = 1
    return Packed(items, strength, torch.zeros_like(strength))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_released_trajectory_is_reproduced(case: dict[str, Any]) -> None:
    model, config, embeddings = load(case)
    packed, batch = table(case), config.maml.users_per_batch
    steps = case["config"]["users"] * case["config"]["epochs"] // batch
    optimiser, scheduler = outer_optimiser(model, config, steps)
    assert steps == len(case["steps"])
    for number, expected in enumerate(case["steps"]):
        start = number * batch % case["config"]["users"]
        local, rows = packed.users(torch.arange(start, start + batch)).local()
        report = meta_step(model, local, embeddings[rows], config, optimiser, scheduler)
        assert report.losses.tolist() == pytest.approx(expected["query_losses"], abs=2e-5)
        assert report.objective == pytest.approx(expected["objective"], abs=2e-5)
        assert report.gradient_norm == pytest.approx(expected["grad_norm"], abs=2e-4)
        assert report.learning_rate == pytest.approx(expected["lr"], abs=1e-9)
    base = torch.tensor(case["final"]["base"], dtype=torch.float64)
    torch.testing.assert_close(model.weight.detach(), base, atol=2e-5, rtol=0)
    logits = torch.tensor(case["final"]["logits"], dtype=torch.float64)
    torch.testing.assert_close(model.w0.detach(), logits, atol=2e-5, rtol=0)

    adapted = case["adapted_user_0"]
    pairs = packed.users(torch.tensor([0])).pairs(0, model(embeddings).detach())
    support = Pairs(pairs.z, pairs.strength, pairs.tie)
    weights = gradient_descent(
        support, model.w0.detach(), steps=config.maml.inner_steps, learning_rate=config.maml.inner_learning_rate
    )
    expected_weights = torch.softmax(torch.tensor(adapted["logits"], dtype=torch.float64), -1)
    torch.testing.assert_close(weights[0], expected_weights, atol=2e-5, rtol=0)
