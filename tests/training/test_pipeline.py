"""From data to a bundle: reproducible, verified, and never half-written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.bundle import Bundle, Manifest
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.errors import ConfigurationError, OutputError, TrainingError
from mrm_sdk.schemas.items import Item
from mrm_sdk.training.config import EmpiricalBayesConfig, TrainingConfig
from mrm_sdk.training.model import MetaModel
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import write_embedded_dataset

QUICK = TrainingConfig(outer=EmpiricalBayesConfig(iterations=3), base_functions=3)


def test_a_seed_gives_the_same_bundle(embedded_dataset: Dataset, tmp_path: Path) -> None:
    first, second = (train_bundle(embedded_dataset, tmp_path / name, config=QUICK) for name in ("a", "b"))
    assert first.fingerprint == second.fingerprint
    other = train_bundle(embedded_dataset, tmp_path / "c", config=replace(QUICK, seed=1))
    assert other.fingerprint != first.fingerprint


def test_the_manifest_tells_how_it_was_made(embedded_bundle: Bundle, embedded_dataset: Dataset) -> None:
    manifest = embedded_bundle.manifest
    assert (manifest.base_functions, manifest.dimension, manifest.encoder.kind) == (3, 6, "precomputed")
    assert manifest.training["data"]["sha256"] == embedded_dataset.sha256
    assert (manifest.training["users_trained"], manifest.training["users_chosen_on"]) == (40, 40)
    (curve,) = manifest.metrics["held_out_query_loss"].values()
    assert all(np.isfinite(loss) for loss in curve.values())
    assert manifest.metrics["chosen"]["base_functions"] == 3
    assert str(embedded_bundle.path.parent) not in manifest.model_dump_json()


def test_onnx_agrees_with_torch_on_base_rewards() -> None:
    from mrm_sdk.runtime.session import GraphSession
    from mrm_sdk.settings import Settings
    from mrm_sdk.training.onnx_export import export_base_rewards

    embeddings = torch.randn(500, 384, generator=torch.Generator().manual_seed(0)) * 0.05
    model = MetaModel(384, 8, centre=embeddings.mean(0), scale=20.0, generator=torch.Generator().manual_seed(1))
    module, _ = model.freeze()
    graph = export_base_rewards(module)
    session = GraphSession(
        "base_rewards.onnx", lambda: graph, frozenset({"embedding"}), frozenset({"base_rewards"}), Settings()
    )
    for size in (1, 2, 500):
        got = session.run({"embedding": embeddings[:size].numpy()}, "base_rewards")
        np.testing.assert_allclose(got, module(embeddings[:size]).detach().numpy(), atol=1e-5, rtol=0)


def test_centring_and_scaling_are_folded_into_what_is_stored() -> None:
    embeddings = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 3
    model = MetaModel(6, 3, centre=embeddings.mean(0), scale=2.5, generator=torch.Generator().manual_seed(1))
    module, prior = model.freeze()
    torch.testing.assert_close(module(embeddings), model(embeddings), atol=1e-4, rtol=0)
    assert torch.equal(prior.w0, model.w0.detach().double())


def test_the_published_method_trains_too(embedded_dataset: Dataset, tmp_path: Path) -> None:
    config = TrainingConfig.preset("paper", seed=0).with_settings(epochs=2)
    manifest = train_bundle(embedded_dataset, tmp_path / "b", config=config)
    assert manifest.adaptation.method == "gradient"
    assert manifest.base_functions == 2


def test_one_user_cannot_be_learned_from(tmp_path: Path) -> None:
    data = read_dataset(write_embedded_dataset(tmp_path / "d", users=1))
    with pytest.raises(TrainingError, match="at least 4 users"):
        train_bundle(data, tmp_path / "out", config=QUICK)
    assert not (tmp_path / "out").exists()


def test_equal_embeddings_cannot_be_learned_from(embedded_dataset: Dataset, tmp_path: Path) -> None:
    same = np.full(6, 0.3, np.float32)
    data = replace(embedded_dataset, items=[Item(None, i.text, same) for i in embedded_dataset.items])
    with pytest.raises(TrainingError, match="same embedding"):
        train_bundle(data, tmp_path / "out", config=QUICK)
    assert not (tmp_path / "out").exists()


def test_an_older_bundle_is_replaced_and_nothing_else_ever(embedded_dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "b"
    first = train_bundle(embedded_dataset, out, config=QUICK)
    second = train_bundle(embedded_dataset, out, config=replace(QUICK, seed=3))
    assert Manifest.read(out).fingerprint == second.fingerprint != first.fingerprint
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("ten years of work")
    with pytest.raises(OutputError, match=r"holds no manifest\.json"):
        train_bundle(embedded_dataset, precious, config=QUICK)
    assert (precious / "chapter.txt").read_text() == "ten years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "thesis"]


def test_an_output_that_cannot_be_written_is_told_before_training(embedded_dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stages: list[str] = []
    with pytest.raises(OutputError, match=r"Cannot write|exists"):
        train_bundle(
            embedded_dataset,
            tmp_path / "file" / "out",
            config=QUICK,
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert not stages


def test_unknown_encoder(embedded_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no encoder 'gpt'"):
        train_bundle(embedded_dataset, tmp_path / "out", encoder="gpt", config=QUICK)


def test_the_manifest_is_json_that_people_can_read(embedded_bundle: Bundle) -> None:
    raw = json.loads((embedded_bundle.path / "manifest.json").read_text())
    assert raw["files"].keys() == {
        *(f"base_rewards{kind}.onnx" for kind in ("", "_float16", "_bfloat16")),
        "prior.safetensors",
    }
