"""The outer loop by gradient; that its steps are the published ones is held by the released trajectory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.errors import ConfigurationError, TrainingError
from mrm_sdk.training import maml as meta
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.device import one_thread
from mrm_sdk.training.episodes import pack
from mrm_sdk.training.maml import StepReport, adapt, meta_train, query_losses
from mrm_sdk.training.model import MetaModel
from tests.training.people import embeddings_of, people, quiet

ADAM = TrainingConfig(outer=MamlConfig(steps=6), base_functions=3)


def trained(config: TrainingConfig, embeddings: np.ndarray | None = None) -> MetaModel:
    data = people()
    return meta_train(
        pack(data, np.arange(12)), embeddings_of(data) if embeddings is None else embeddings, config, quiet
    )


def same(first: MetaModel, second: MetaModel) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.slow
def test_training_lowers_the_query_loss() -> None:
    data = people(30)
    packed, embeddings = pack(data, np.arange(30)), embeddings_of(data)
    losses = []
    for steps in (1, 60):
        config = ADAM.with_settings(steps=steps)
        model = meta_train(packed, embeddings, config, quiet)
        with torch.no_grad():
            rewards = model(torch.from_numpy(embeddings))
            losses.append(float(query_losses(packed, rewards, adapt(model, packed, rewards, config)).mean()))
    assert losses[1] < losses[0] - 0.04


@pytest.mark.parametrize(
    "change", [{"embedding_noise": 0.5}, {"random_shots": False}, {"robust_gamma": 0.5}, {"embedding_scale": 2.0}]
)
def test_settings_change_the_result(change: dict[str, float]) -> None:
    config = ADAM.with_settings(**change)
    assert same(trained(config), trained(config))
    assert not same(trained(config), trained(ADAM))


def test_a_mapped_file_gives_what_the_array_gives(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", embeddings_of(people()))
    assert same(trained(ADAM, np.load(tmp_path / "e.npy", mmap_mode="r")), trained(ADAM))


def test_epochs_are_passes_over_the_users() -> None:
    seen: list[tuple[int, int]] = []
    config = ADAM.with_settings(epochs=4, users_per_batch=5)
    data = people()
    meta_train(
        pack(data, np.arange(12)), embeddings_of(data), config, lambda _, done, total: seen.append((done, total))
    )
    assert seen == [(n, 9) for n in range(1, 10)]


def test_divergence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = StepReport(torch.zeros(1), float("nan"), 0.0, 0.0)
    monkeypatch.setattr(meta, "meta_step", lambda *arguments: lost)
    with pytest.raises(TrainingError, match="diverged at step 1: the objective is nan"):
        trained(ADAM)


def test_the_number_of_base_functions_cannot_be_left_open() -> None:
    with pytest.raises(ConfigurationError, match="base_functions"):
        trained(replace(ADAM, base_functions=None))


def test_a_user_without_support_starts_at_the_prior() -> None:
    data = people()
    packed, model = pack(data, np.arange(12)), trained(ADAM)
    strength = packed.strength.clone()
    strength[:, SUPPORT] = 0
    rewards = model(torch.from_numpy(embeddings_of(data)))
    weights = adapt(model, packed._replace(strength=strength), rewards, ADAM)
    torch.testing.assert_close(weights, model.w0.expand(12, -1))
    nothing = packed._replace(strength=torch.zeros_like(packed.strength))
    assert nothing.strength[:, QUERY].sum() == 0
    assert not bool(query_losses(nothing, rewards, weights).any())


def test_one_thread_is_for_a_while() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
