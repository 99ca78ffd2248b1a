"""A part of ``gpu_check``: meta-training on the GPU beside the CPU, at the size of PRISM, and whether they agree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.fitting import Trained, fit
from tests.benchmarks.generated import write_conversations
from tests.benchmarks.gpu_place import Place, changed_orders

USERS = 650


def fits(place: Place) -> Iterator[dict[str, Any]]:
    """Both outer loops and the published method, on either device."""
    users = place.some(USERS, 12)
    dataset = read_dataset(write_conversations(place.folder / "conversations", users=users, dimension=place.dimension))
    em = TrainingConfig().with_settings(iterations=2, base_functions=3) if place.rehearse else TrainingConfig()
    configs = {
        "newton": em,
        "newton, outer Adam": TrainingConfig(outer=MamlConfig(steps=place.some(20, 2))),
        "paper": TrainingConfig.preset("paper").with_settings(epochs=1),
    }
    _fit(dataset, em.with_settings(iterations=1), place.device.type)  # loads the GPU's libraries
    for name, config in configs.items():
        on_cpu, seconds, slow = _fit(dataset, config, "cpu")
        on_gpu, taken, fast = _fit(dataset, config, place.device.type)
        yield {
            "what": f"{name}, K = {config.base_functions}, D = {place.dimension}",
            "cpu_seconds": seconds,
            "gpu_seconds": taken,
            "cpu_users_per_second": slow,
            "gpu_users_per_second": fast,
            **_agreement(on_cpu, on_gpu, dataset.embeddings),
        }


def _fit(dataset: Dataset, config: TrainingConfig, device: str) -> tuple[Trained, float, float | None]:
    """What was learned, seconds in all, and users visited per second in the last run of the outer loop."""
    assert dataset.embeddings is not None
    users = np.arange(len(dataset.user_ids))
    steps: list[tuple[int, float]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "meta-training":
            steps.append((done, time.perf_counter()))

    began = time.perf_counter()
    trained = fit(dataset, users, dataset.embeddings, replace(config, device=device), progress)
    seconds = time.perf_counter() - began
    first = max(index for index, (done, _) in enumerate(steps) if done == 1)
    (start, since), (end, until) = steps[first], steps[-1]
    outer = config.outer
    at_once = outer.users_per_batch if isinstance(outer, MamlConfig) else outer.most_users
    visited = (end - start) * min(len(users), at_once)
    return trained, seconds, visited / (until - since) if visited else None


def _agreement(one: Trained, other: Trained, embeddings: NDArray[np.floating] | None) -> dict[str, float]:
    """How far base rewards and the average user's reward lie apart; base rewards have a variance of about 1."""
    assert embeddings is not None
    sample = torch.from_numpy(np.array(embeddings[:2048], np.float32))
    with torch.no_grad():
        rewards = [trained.module(sample).double() for trained in (one, other)]
    average = [(values @ trained.prior.w0).numpy() for values, trained in zip(rewards, (one, other), strict=True)]
    return {
        "base_rewards_apart": float((rewards[0] - rewards[1]).abs().max()),
        "average_reward_apart": float(np.abs(average[0] - average[1]).max() / max(average[0].std(), 1e-12)),
        "orders_changed": changed_orders(rewards[1].numpy(), rewards[0].numpy()),
    }
