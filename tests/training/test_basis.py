"""The directions of embeddings: numpy's principal components, from arrays and files alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.errors import TrainingError
from mrm_sdk.training import basis as module
from mrm_sdk.training.basis import chunks, gather, moments, principal_basis


def cloud(items: int = 60, dimension: int = 5, seed: int = 0) -> np.ndarray:
    """Points with another spread in each direction."""
    rng = np.random.default_rng(seed)
    scales = 2.0 ** -np.arange(dimension)
    turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    return (rng.standard_normal((items, dimension)) * scales @ turn + rng.standard_normal(dimension)).astype(np.float32)


def basis_of(embeddings: np.ndarray, rows: np.ndarray | None = None, **options: float) -> module.Basis:
    settings = {"limit": 256, **options}
    rows = np.arange(len(embeddings)) if rows is None else rows
    return principal_basis(embeddings, rows, **settings, rng=np.random.default_rng(0))


@pytest.mark.parametrize("limit", [5, 2])
def test_directions_are_principal_components(limit: int) -> None:
    embeddings = cloud()
    basis = basis_of(embeddings, limit=limit)
    exact = embeddings.astype(float) - embeddings.mean(0, dtype=float)
    _, _, directions = np.linalg.svd(exact, full_matrices=False)
    expected = exact @ directions[:limit].T / exact.std()
    got = basis.project(embeddings).numpy()
    got = got * np.sign((got * expected).sum(0))  # a direction may point either way
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_only_the_given_rows_are_looked_at() -> None:
    embeddings = cloud()
    other = embeddings.copy()
    other[40:] = 1e3
    rows = np.arange(40)
    first, second = basis_of(embeddings, rows), basis_of(other, rows)
    assert torch.equal(first.centre, second.centre)
    assert torch.equal(first.projection, second.projection)


def test_directions_without_spread_are_left_out() -> None:
    flat = np.repeat(cloud(dimension=2), 3, axis=1)
    assert basis_of(flat).projection.shape == (6, 2)
    assert basis_of(cloud(items=3, dimension=50)).projection.shape == (50, 2)


@pytest.mark.slow
def test_many_wide_embeddings_are_projected_at_random_to_the_same_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    size = 2 * 4 + 512 + 20
    scales = np.where(np.arange(size) < 4, 20.0 * 0.7 ** np.arange(size), 0.3)
    turn = np.linalg.qr(rng.standard_normal((size, size)))[0]
    embeddings = (rng.standard_normal((size + 20, size)) * scales @ turn).astype(np.float32)
    calls = []
    lowrank = torch.svd_lowrank
    monkeypatch.setattr(torch, "svd_lowrank", lambda *a, **k: calls.append(k) or lowrank(*a, **k))
    before = torch.get_rng_state()
    basis = basis_of(embeddings, limit=4)
    assert len(calls) == 1
    assert torch.equal(torch.get_rng_state(), before)  # a host's own random numbers stay as they were
    cosines = np.linalg.svd(turn[:4] @ np.linalg.qr(basis.projection.numpy())[0])[1]
    assert cosines.min() > 0.99


def test_of_very_many_items_a_sample_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLE", 200)
    embeddings = cloud(items=2000)
    sampled = basis_of(embeddings).project(embeddings)
    monkeypatch.setattr(module, "_SAMPLE", 4000)
    whole = basis_of(embeddings).project(embeddings)
    for column in range(2):
        assert abs(float(torch.corrcoef(torch.stack([sampled[:, column], whole[:, column]]))[0, 1])) > 0.98


def test_a_mapped_file_gives_what_the_array_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_CHUNK", 7)
    embeddings = cloud().astype(np.float16)
    np.save(tmp_path / "e.npy", embeddings)
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    array, file = basis_of(embeddings), basis_of(mapped)
    assert torch.equal(array.projection, file.projection)
    assert torch.equal(array.project(embeddings), file.project(mapped))
    assert torch.equal(gather(mapped, torch.tensor([3, 1])), torch.from_numpy(embeddings[[3, 1]]).float())
    assert torch.equal(moments(mapped)[0], moments(embeddings)[0])
    parts = list(chunks(mapped))
    assert [start for start, _ in parts] == list(range(0, 60, 7))
    assert torch.equal(torch.cat([part for _, part in parts]), torch.from_numpy(embeddings).float())


def test_moments() -> None:
    embeddings = cloud() * 3
    centre, scale = moments(embeddings)
    np.testing.assert_allclose(centre, embeddings.mean(0), atol=1e-5)
    assert float((((embeddings - centre.numpy()) * scale) ** 2).mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN"), (np.inf, "NaN"), (-np.inf, "NaN")])
def test_what_is_not_finite_is_told(bad: float, message: str) -> None:
    embeddings = cloud()
    embeddings[4, 2] = bad
    with pytest.raises(TrainingError, match=message):
        basis_of(embeddings)
    with pytest.raises(TrainingError, match=message):
        moments(embeddings)
    with pytest.raises(TrainingError, match=message):  # of an item in no comparison
        basis_of(embeddings, np.arange(10, 60)).project(embeddings)


@pytest.mark.parametrize("value", [0.0, 0.3, -6e4])
def test_equal_embeddings_are_told(value: float) -> None:
    for kind in (np.float32, np.float16):
        embeddings = np.full((20, 4), value, kind)
        with pytest.raises(TrainingError, match="same embedding"):
            basis_of(embeddings)
        with pytest.raises(TrainingError, match="same embedding"):
            moments(embeddings)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_unit_of_embeddings_does_not_matter(scale: float) -> None:
    embeddings = cloud()
    expected = basis_of(embeddings).project(embeddings)
    scaled = (embeddings * scale).astype(np.float32)
    torch.testing.assert_close(basis_of(scaled).project(scaled).abs(), expected.abs(), atol=1e-4, rtol=0)
