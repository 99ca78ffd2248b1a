"""A training that is stopped, however, and goes on: the result is the same to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrm_sdk.bundle import Manifest
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.errors import ConfigurationError, OutputError
from mrm_sdk.training import maml as meta
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.fitting import Trained, fit
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import MRM, mrm, write_embedded_dataset
from tests.training.people import FIXED, embeddings_of, people, quiet
from tests.training.test_fitting import equal

ADAM = TrainingConfig(outer=MamlConfig(steps=9), base_functions=2, folds=2)
CONFIGS = {
    "em": replace(FIXED, folds=2),
    "adam": ADAM,
    "paper": TrainingConfig.preset("paper").with_settings(epochs=6),
}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta, "_STEPS_BETWEEN_CHECKPOINTS", 4)


class Stop:
    """Progress that is interrupted at a certain call."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.calls = at, 0
        self.seen: list[tuple[str, int]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.seen.append((stage, done))
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt


def run(config: TrainingConfig, folder: Path | None, progress: Callable[[str, int, int], None] = quiet) -> Trained:
    data = people(8)
    kept = None if folder is None else Checkpoint(folder, "the same")
    return fit(data, np.arange(8), embeddings_of(data), config, progress, kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_interrupted_anywhere_it_goes_on_to_the_same_result(name: str, tmp_path: Path) -> None:
    config, counting = CONFIGS[name], Stop()
    whole = run(config, None, counting)
    for at in np.unique(np.linspace(1, counting.calls, 8).astype(int)):
        folder = tmp_path / f"{at}"
        with pytest.raises(KeyboardInterrupt):
            run(config, folder, Stop(int(at)))
        assert equal(run(config, folder), whole), at


@pytest.mark.parametrize("name", CONFIGS)
def test_interrupted_again_and_again(name: str, tmp_path: Path) -> None:
    config, counting = CONFIGS[name], Stop()
    whole = run(config, None, counting)
    for _ in range(4 * counting.calls):
        try:
            trained = run(config, tmp_path / "c", Stop(counting.calls * 2 // 3))
        except KeyboardInterrupt:
            continue
        break
    assert equal(trained, whole)


@pytest.mark.parametrize("at", [1, 6, 13, 22])
def test_interrupted_in_the_middle_of_a_step(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(ADAM, None)
    step, calls = meta.meta_step, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        report = step(*arguments)
        if calls == at:  # parameters and random numbers have moved, but the step is not counted
            raise KeyboardInterrupt
        return report

    monkeypatch.setattr(meta, "meta_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(ADAM, tmp_path / "c")
    assert equal(run(ADAM, tmp_path / "c"), whole)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_finished_is_not_done_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(CONFIGS[name], tmp_path / "c")
    again = Stop()
    monkeypatch.setattr(meta, "meta_step", lambda *arguments: pytest.fail("a step was done again"))
    assert equal(run(CONFIGS[name], tmp_path / "c", again), whole)
    assert "meta-training" not in [stage for stage, _ in again.seen]


def test_a_bundle_is_the_same_with_and_without_a_checkpoint(tmp_path: Path) -> None:
    data = people(8)
    bundles = [
        train_bundle(data, tmp_path / f"b{n}", config=FIXED, checkpoint=kept)
        for n, kept in enumerate((None, tmp_path / "c", tmp_path / "c"))
    ]
    assert len({bundle.fingerprint for bundle in bundles}) == 1


def changed(data: Dataset) -> Dataset:
    """What ratings in place of comparisons come to: the file is the same, the comparisons are others."""
    return replace(data, chosen=data.rejected, rejected=data.chosen)


@pytest.mark.parametrize(
    "other",
    [
        lambda data: (data, replace(FIXED, seed=1)),
        lambda data: (data, FIXED.with_settings(iterations=4)),
        lambda data: (replace(data, sha256="other"), FIXED),
        lambda data: (changed(data), FIXED),
        lambda data: (replace(data, strength=data.strength * 2), FIXED),
    ],
    ids=["seed", "settings", "file", "comparisons", "strengths"],
)
def test_another_trainings_checkpoint_is_refused(other: Callable[[Dataset], Any], tmp_path: Path) -> None:
    data = people(8)
    with pytest.raises(KeyboardInterrupt):
        train_bundle(data, tmp_path / "b", config=FIXED, checkpoint=tmp_path / "c", progress=Stop(6))
    before = {path: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    assert len(before) > 1
    theirs, config = other(data)
    with pytest.raises(ConfigurationError, match="another training"):
        train_bundle(theirs, tmp_path / "b", config=config, checkpoint=tmp_path / "c")
    assert {path: path.read_bytes() for path in (tmp_path / "c").iterdir()} == before
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("content", [b"", b"\x08", b"x" * 400])
def test_a_damaged_file_is_told(content: bytes, tmp_path: Path) -> None:
    whole = run(FIXED, tmp_path / "c")
    (tmp_path / "c" / "fold-1.safetensors").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"fold-1\.safetensors is damaged.*delete it"):
        run(FIXED, tmp_path / "c")
    (tmp_path / "c" / "fold-1.safetensors").unlink()
    assert equal(run(FIXED, tmp_path / "c"), whole)


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    run(ADAM, tmp_path / "c")
    path = tmp_path / "c" / "final.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ConfigurationError, match="damaged"):
        run(ADAM, tmp_path / "c")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}"])
def test_a_damaged_identity_is_another_trainings(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match="another training"):
        Checkpoint(tmp_path, "mine")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        Checkpoint(tmp_path, "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_start_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.new").write_text("{")
    Checkpoint(tmp_path, "mine")
    assert Checkpoint(tmp_path, "mine").read("final") is None


def test_a_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot keep a checkpoint"):
        Checkpoint(tmp_path / "file", "mine")
    kept = Checkpoint(tmp_path / "c", "mine")
    kept.write("final", {"x": torch.ones(2)})
    (tmp_path / "c" / "final.new").mkdir()
    with pytest.raises(OutputError, match="Cannot keep a checkpoint"):
        kept.write("final", {"x": torch.zeros(2)})
    found = kept.read("final")
    assert found is not None
    assert found["x"].tolist() == [1, 1]


@pytest.mark.parametrize("place", ["b", "b/c"])
def test_the_bundles_folder_is_no_place_for_it(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another folder for the checkpoint"):
        train_bundle(people(8), tmp_path / "b", config=FIXED, checkpoint=tmp_path / place)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_process_that_is_interrupted_and_killed_goes_on(tmp_path: Path) -> None:
    folder = write_embedded_dataset(tmp_path / "d", users=16, pairs=8)
    expected = train_bundle(read_dataset(folder), tmp_path / "b").fingerprint
    kept = tmp_path / "c"
    command = ["train", folder, "--out", tmp_path / "out", "--checkpoint", kept]
    for stage, sent in (("fold-0", signal.SIGINT), ("fold-2", signal.SIGKILL)):
        process = subprocess.Popen([*MRM, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with process:
            while process.poll() is None and not (kept / f"{stage}.safetensors").exists():
                time.sleep(0.001)
            process.send_signal(sent)
            _, said = process.communicate(timeout=60)
        assert process.returncode == (130 if sent == signal.SIGINT else -sent), said.decode()
        assert b"Traceback" not in said
        if sent == signal.SIGINT:
            assert b"interrupted" in said
        assert not (tmp_path / "out").exists()
    done = mrm(*command)
    assert (done.code, done.err) == (0, "")
    assert Manifest.read(tmp_path / "out").fingerprint == expected
