"""Meta-training on a GPU: nothing is left on the CPU, the result is the same, and without a GPU it is said at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import ConfigurationError
from mrm_sdk.training import folds, outer_loops
from mrm_sdk.training import maml as meta
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import EmpiricalBayesConfig, MamlConfig, TrainingConfig
from mrm_sdk.training.device import device_of
from mrm_sdk.training.fitting import Trained, fit
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import mrm
from tests.training.people import FIXED, embeddings_of, people, quiet
from tests.training.pretended_gpu import GPU, OnGpu, PretendedGpu

CONFIGS = {
    "em": replace(FIXED, folds=2),
    "robust em": replace(FIXED, folds=2, robust_gamma=0.5),
    "adam": TrainingConfig(outer=MamlConfig(steps=9, embedding_noise=0.1), base_functions=2, folds=2),
    "paper": TrainingConfig.preset("paper").with_settings(epochs=6),
}


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (folds, outer_loops, meta):
        monkeypatch.setattr(module, "device_of", lambda name: GPU if name == "cuda" else device_of(name))


def run(config: TrainingConfig, folder: Path | None = None) -> Trained:
    kept = None if folder is None else Checkpoint(folder, "the same")
    data = people(8)
    return fit(data, np.arange(8), embeddings_of(data), config, quiet, kept)


def assert_same(one: Trained, other: Trained) -> None:
    for a, b in zip([*one.module.parameters(), *one.prior], [*other.module.parameters(), *other.prior], strict=True):
        assert a.device.type == b.device.type == "cpu"
        assert not isinstance(b.data, OnGpu)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert one.metrics.keys() == other.metrics.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("name", CONFIGS)
def test_no_tensor_is_left_behind(name: str) -> None:
    """Every operation of both outer loops refuses to mix devices, and comes to what the CPU comes to."""
    with PretendedGpu() as gpu:
        there = run(replace(CONFIGS[name], device="cuda"))
    assert gpu.ran > 200
    assert_same(run(CONFIGS[name]), there)


def test_the_pretended_gpu_refuses_what_a_real_one_refuses() -> None:
    with PretendedGpu():
        there = torch.ones(3, device=GPU)
        assert float((there + 1).sum()) == 6
        with pytest.raises(RuntimeError, match="others are on the GPU"):
            _ = there + torch.ones(3)


@pytest.mark.slow
@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("name", ["em", "adam"])
def test_a_checkpoint_moves_between_devices(name: str, tmp_path: Path) -> None:
    with PretendedGpu():
        there = run(replace(CONFIGS[name], device="cuda"), tmp_path)
    assert_same(run(CONFIGS[name], tmp_path), there)
    with PretendedGpu():
        assert_same(there, run(replace(CONFIGS[name], device="cuda"), tmp_path))


def test_the_device_does_not_make_a_checkpoint_another_one(
    embedded_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(outer=EmpiricalBayesConfig(iterations=2), base_functions=3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cpu", "auto"):
        settings = replace(config, device=device)
        train_bundle(embedded_dataset, tmp_path / device, config=settings, checkpoint=tmp_path / "kept")
    one, other = ((tmp_path / device / "prior.safetensors").read_bytes() for device in ("cpu", "auto"))
    assert one == other


def test_without_a_gpu(embedded_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("cpu") == device_of("auto") == torch.device("cpu")
    stages: list[str] = []
    with pytest.raises(ConfigurationError, match=r"can use no GPU here: train with device='cpu' \(--device cpu\)"):
        train_bundle(
            embedded_dataset,
            tmp_path / "bundle",
            config=TrainingConfig(device="cuda"),
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert stages == []
    with pytest.raises(ConfigurationError, match="'cpu', 'cuda' or 'auto', not 'gpu'"):
        TrainingConfig(device="gpu")


@pytest.mark.slow
def test_the_command_has_the_option(embedded: Path, tmp_path: Path) -> None:
    done = mrm("train", embedded, "--out", tmp_path / "bundle", "--device", "gpu")
    assert (done.code, done.err.strip()) == (2, "error: device is 'cpu', 'cuda' or 'auto', not 'gpu'.")
