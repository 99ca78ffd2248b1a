"""Data sets of the hub, loaded by the real ``datasets`` library from folders in its layout."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.data.readers import READERS, find_reader
from mrm_sdk.errors import ConfigurationError, DatasetError, MissingDependencyError, NotFoundError
from tests.conftest import mrm
from tests.data.readers.test_readers import PRISM, counted, said
from tests.data.test_datasets import ROW, write_lines


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write_hub_folder(folder: Path, configs: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
    """A data set as the hub keeps it: JSON Lines per configuration and split, named by a README."""
    folder.mkdir()
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            write_lines(folder / f"{config}-{split}.jsonl", rows)
            lines += [f"  - split: {split}", f"    path: {config}-{split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def test_configurations_are_tables(tmp_path: Path) -> None:
    survey = [{"user_id": "user0", "age": "18-24"}]
    folder = write_hub_folder(tmp_path / "prism", {"survey": {"train": survey}, "conversations": {"train": PRISM}})
    data, local = read_dataset(f"hub:{folder}", format="prism"), read_dataset(folder / "conversations-train.jsonl")
    assert said(data) == said(local)
    assert counted(data) == counted(local)
    assert data.sha256 == local.sha256


def test_splits_and_our_own_columns(tmp_path: Path) -> None:
    rows = {"train": [ROW, {**ROW, "prompt": "q"}], "test": [{**ROW, "user_id": "v"}]}
    folder = write_hub_folder(tmp_path / "own", {"a": rows, "b": {"train": [{**ROW, "user_id": "w"}]}})
    assert read_dataset(f"hub:{folder}:a").user_ids == ["u", "v"]
    assert len(read_dataset(f"hub:{folder}:a@train")) == 2
    assert read_dataset(f"hub:{folder}:b", format="own").user_ids == ["w"]
    with pytest.raises(DatasetError, match="several configurations; add one of them: :a, :b"):
        read_dataset(f"hub:{folder}")
    with pytest.raises(NotFoundError, match=r"cannot be loaded .*split"):
        read_dataset(f"hub:{folder}:a@nothing")
    with pytest.raises(DatasetError, match=r"own, train, record 1: 'user_id' missing"):
        read_dataset(f"hub:{write_hub_folder(tmp_path / 'xown', {'a': {'train': [{'chosen': 'a'}]}})}")


def test_columns_by_other_names(tmp_path: Path) -> None:
    rows = [{"who": "u", "prompt": "p", "chosen": "a", "rejected": "b", "user_id": None, "image": "x" * 99}]
    folder = write_hub_folder(tmp_path / "own", {"a": {"train": rows, "test": rows}})
    assert read_dataset(f"hub:{folder}", columns={"user_id": "who"}).user_ids == ["u"]
    with pytest.raises(ConfigurationError, match=r"no column 'whom' for user_id. Did you mean 'who'"):
        read_dataset(f"hub:{folder}", columns={"user_id": "whom"})


def test_known_names_have_their_reader() -> None:
    for path, name in (
        ("hub:HannahRoseKirk/prism-alignment", "prism"),
        ("hub:openai/summarize_from_feedback:comparisons@train", "tldr"),
        ("hub:namkoong-lab/PersonalLLM@train", "personalllm"),
        ("hub:another/owner", "trl"),
    ):
        assert find_reader("auto", path) is READERS[name]


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match="Check the name and the network"):
        read_dataset(f"hub:{tmp_path / 'nothing'}")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mrm-sdk\[hub\]'"):
        read_dataset("hub:owner/name")


@pytest.mark.slow
def test_commands_say_what_was_left_out(tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "prism", {"conversations": {"train": PRISM}})
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    arguments = ("import", f"hub:{folder}", "--database", f"sqlite:///{tmp_path}/m.db", "--format", "prism")
    done = mrm(*arguments, **cache)
    assert (done.code, done.out.split()[:2]) == (0, ["accepted", "3"]), done.err
    assert "6 records read, 2 used; 1 left out: " in done.err
    assert mrm(*arguments[:-1], "nothing").code == 2
