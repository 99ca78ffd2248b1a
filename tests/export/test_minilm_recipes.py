"""The recipes with MiniLM, run on real people's data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT, SHARED
from tests.export.scripts import run

pytestmark = pytest.mark.slow


@pytest.mark.shared
def test_recipes(tmp_path: Path) -> None:
    out = run(ROOT / "export" / "minilm_jester.py", SHARED / "jester", tmp_path / "b", cwd=tmp_path)
    assert "799 users: accuracy" in out


@pytest.mark.shared
def test_recipe_for_few_people(four_questions: Path, tmp_path: Path) -> None:
    out = run(ROOT / "export" / "minilm_llmfao.py", four_questions, tmp_path / "b", cwd=tmp_path)
    assert "newton" in out
    assert (tmp_path / "b" / "manifest.json").is_file()
