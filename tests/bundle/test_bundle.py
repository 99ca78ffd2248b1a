"""A bundle is used whole and as shipped, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from mrm_sdk.bundle import Bundle
from mrm_sdk.bundle.manifest import Manifest
from mrm_sdk.errors import BundleDamagedError, BundleMismatchError, NotFoundError


@pytest.fixture
def copy(embedded_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded_bundle.path, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = False) -> None:
    """Changes a manifest; ``sign`` makes its fingerprints fit again, as a careful forger would."""
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    if sign:
        raw = json.loads(Manifest.model_validate(raw).identified().model_dump_json())
    path.write_text(json.dumps(raw))


def test_a_copy_is_the_same_bundle(embedded_bundle: Bundle, copy: Path) -> None:
    again = Bundle(copy)
    assert (again.features_hash, again.fingerprint) == (embedded_bundle.features_hash, embedded_bundle.fingerprint)
    embeddings = np.ones((2, 6), np.float32)
    assert np.array_equal(again.base_rewards(embeddings), embedded_bundle.base_rewards(embeddings))


@pytest.mark.parametrize("name", ["base_rewards.onnx", "prior.safetensors"])
def test_a_changed_byte_is_noticed(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleDamagedError, match=f"{name} is not the file that was shipped"):
        Bundle(copy)


def test_a_file_swapped_after_loading_is_noticed(copy: Path) -> None:
    bundle = Bundle(copy)
    (copy / "base_rewards.onnx").write_bytes(b"something else")
    with pytest.raises(BundleDamagedError):
        bundle.base_rewards(np.ones((1, 6), np.float32))


@pytest.mark.parametrize("name", ["base_rewards.onnx", "prior.safetensors"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleDamagedError, match=name):
        Bundle(copy)


def test_a_relative_path_means_the_folder_at_the_start(
    embedded_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(embedded_bundle.path.parent)
    bundle = Bundle(embedded_bundle.path.name)
    monkeypatch.chdir(tmp_path)
    assert bundle.path == embedded_bundle.path
    vectors = np.eye(2, bundle.manifest.dimension, dtype=np.float32)
    np.testing.assert_array_equal(bundle.base_rewards(vectors), embedded_bundle.base_rewards(vectors))


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no bundle at"):
        Bundle(tmp_path / "nothing")
    with pytest.raises(BundleMismatchError, match=r"no manifest\.json"):
        Bundle(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleMismatchError, match="is a file"):
        Bundle(tmp_path / "file")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BundleDamagedError, match="is not JSON"):
        Bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(BundleMismatchError, match="format None"):
        Bundle(tmp_path)


def test_manifests_that_were_changed(copy: Path) -> None:
    edit(copy, lambda raw: raw.update(format=1))
    with pytest.raises(BundleMismatchError, match="format 1"):
        Bundle(copy)
    edit(copy, lambda raw: raw.update(format=2, base_functions=4))
    with pytest.raises(BundleDamagedError, match="changed after training"):
        Bundle(copy)
    edit(copy, lambda raw: raw.update(base_functions="many"))
    with pytest.raises(BundleDamagedError, match="base_functions"):
        Bundle(copy)


def test_a_manifest_cannot_point_outside_its_folder(copy: Path) -> None:
    edit(copy, lambda raw: raw["files"].update({"../../secret": "0" * 64}))
    with pytest.raises(BundleDamagedError, match="files"):
        Bundle(copy)


def forge_prior(folder: Path, **tensors: torch.Tensor) -> None:
    import hashlib

    save_file(tensors, folder / "prior.safetensors")
    digest = hashlib.sha256((folder / "prior.safetensors").read_bytes()).hexdigest()
    edit(folder, lambda raw: raw["files"].update({"prior.safetensors": digest}), sign=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w0": torch.full((3,), float("nan"))}, "NaN"),
        ({"w0": torch.zeros(4)}, "do not fit K = 3"),
        ({"precision": -torch.eye(3)}, "positive definite"),
        ({"precision": torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]])}, "positive definite"),
        ({"rho": torch.tensor(0.0)}, "positive definite"),
    ],
)
def test_priors_that_cannot_be_used(copy: Path, change: dict[str, torch.Tensor], message: str) -> None:
    good = {"w0": torch.zeros(3), "precision": torch.eye(3), "rho": torch.tensor(1.0)}
    forge_prior(copy, **{**good, **change})
    with pytest.raises(BundleMismatchError, match=message):
        Bundle(copy)


def test_a_prior_without_a_tensor(copy: Path) -> None:
    forge_prior(copy, w0=torch.zeros(3))
    with pytest.raises(BundleMismatchError, match="holds no prior"):
        Bundle(copy)


def test_another_encoder_under_the_same_name_is_noticed(text_bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(text_bundle.path, tmp_path / "copy", copy_function=os.link))
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").unlink()  # a hard link: the original stays
    (copy / "manifest.json").write_text(text)
    edit(copy, lambda raw: raw["encoder"].update(max_tokens=3), sign=True)
    with pytest.raises(BundleDamagedError, match="changed after training"):
        Bundle(copy)


def test_another_graph_under_the_same_specification_is_another_bundle(text_bundle: Bundle) -> None:
    manifest = text_bundle.manifest
    other = manifest.model_copy(update={"files": {**manifest.files, "encoder.onnx": "0" * 64}}).identified()
    assert other.features != manifest.features
    unprobed = manifest.encoder.model_copy(update={"probe": None})
    assert manifest.model_copy(update={"encoder": unprobed}).identified().fingerprint != manifest.fingerprint


@pytest.mark.parametrize("shape", [(6,), (2, 5), (1, 2, 6)])
def test_embeddings_of_another_size(embedded_bundle: Bundle, shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleMismatchError, match="6 numbers"):
        embedded_bundle.base_rewards(np.zeros(shape, np.float32))


def test_no_embeddings_give_no_rewards(embedded_bundle: Bundle) -> None:
    assert embedded_bundle.base_rewards(np.zeros((0, 6), np.float32)).shape == (0, 3)


def test_shipped_graphs_are_optimised(text_bundle: Bundle, tmp_path: Path) -> None:
    """What every execution provider can run: the runtime's portable optimisations find nothing left to do."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    shipped = text_bundle.read("encoder.onnx")
    onnxruntime.InferenceSession(shipped, options, providers=["CPUExecutionProvider"])
    assert len(onnx.load(tmp_path / "optimised.onnx").graph.node) == len(onnx.load_from_string(shipped).graph.node)


def test_shipped_graphs_tell_nothing_of_the_machine(embedded_bundle: Bundle, text_bundle: Bundle) -> None:
    for bundle in (embedded_bundle, text_bundle):
        for path in bundle.path.glob("*.onnx"):
            data = path.read_bytes()
            for trace in (b"site-packages", b"stack_trace", b"modeling_", str(Path.home()).encode() + b"/"):
                assert trace not in data
            onnx.checker.check_model(onnx.load(path))
