"""The recipes on Skywork's reward model, run end to end with a tiny Llama on made-up PRISM and TL;DR data.

What both share, ``skywork_protocol.py``, is run by them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mrm_sdk.bundle import Bundle
from mrm_sdk.data.datasets import read_dataset
from tests.conftest import ROOT
from tests.data.readers.test_readers import conversation, entry, summary
from tests.data.test_datasets import write_lines
from tests.encoders.tiny_llama import write_tiny_llama

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("model"))


def recipe(name: str, model: Path, data: Path, out: Path) -> str:
    options = ["--device", "cpu", "--batch-size", "16", "--max-tokens", "64", "--steps", "5"]
    done = subprocess.run(
        [sys.executable, ROOT / "export" / name, out, "--data", data, "--model", model, *options],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(out: str) -> list[int]:
    """Numbers of shots in the printed table."""
    return [int(n) for n in re.findall(r"^ *(\d+)(?: +[\d.]+%?){3}", out, re.MULTILINE)]


def test_prism(model: Path, tmp_path: Path) -> None:
    def talk(user: int, number: int) -> dict[str, Any]:
        replies = [entry(0, "model", f"reply {reply} of {user}", reply == number % 3) for reply in range(3)]
        return conversation(10 * user + number, f"u{user}", [entry(0, "user", f"question {number}"), *replies])

    data = tmp_path / "prism"
    data.mkdir()
    write_lines(data / "conversations.jsonl", [talk(user, number) for user in range(16) for number in range(4)])
    out = recipe("skywork_prism.py", model, data, tmp_path / "out")
    assert out.startswith("64 records read, 64 used\n")
    seen, unseen = (read_dataset(tmp_path / "out" / name) for name in ("seen", "unseen"))
    assert not set(seen.user_ids) & set(unseen.user_ids)
    assert (len(seen.user_ids), len(unseen.user_ids), seen.dimension) == (8, 8, 16)
    assert seen.items[0].prompt is not None
    assert seen.items[0].prompt.startswith("user: question")
    bundle = Bundle(tmp_path / "out" / "bundle")
    assert bundle.manifest.training["data"]["sha256"] == seen.sha256
    assert shown(out) == [0, 2, 4]
    again = recipe("skywork_prism.py", model, data, tmp_path / "out")
    assert "encoding" in out
    assert "encoding" not in again
    assert Bundle(tmp_path / "out" / "bundle").fingerprint == bundle.fingerprint


def test_tldr(model: Path, tmp_path: Path) -> None:
    def compared(worker: int, number: int, split: str) -> dict[str, Any]:
        texts = (f"short {number}", f"a longer summary {number} {split}")
        row = summary(number % 2, f"w{worker}", texts, id=f"t{number}", post=f"post {number} {split}")
        return {**row, "split": split}

    rows = [compared(w, n, split) for w in range(12) for n in range(60) for split in ("train", "valid1")]
    rows += [compared(99, n, "train") for n in range(5)]  # a worker of one split alone
    path = write_lines(tmp_path / "comparisons.jsonl", rows)
    out = recipe("skywork_tldr.py", model, path, tmp_path / "out")
    seen, unseen = (read_dataset(tmp_path / "out" / name) for name in ("seen", "unseen"))
    assert (len(seen.user_ids), len(seen)) == (6, 6 * 120)
    assert (len(unseen.user_ids), len(unseen)) == (6, 6 * 2 * 50)  # capped
    assert "w99" not in {*seen.user_ids, *unseen.user_ids}
    support = next(c for c, phase in zip(seen.comparisons(), seen.phase, strict=True) if phase == 0)
    assert str(support.prompt).endswith("train")
    assert shown(out) == [0, 2, 5, 10, 20, 50]
    assert Bundle(tmp_path / "out" / "bundle").manifest.training["max_pairs"] == 150
