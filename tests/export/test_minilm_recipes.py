"""The recipes with MiniLM, run on real people's data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT, Finished, run_script

pytestmark = pytest.mark.slow


@pytest.mark.shared
def test_recipes(jester: Finished) -> None:
    assert "799 users: accuracy" in jester.run.out
    assert (jester.folder / "bundle-report" / "accuracy.html").is_file()


@pytest.mark.shared
def test_recipe_for_few_people(four_questions: Path, tmp_path: Path) -> None:
    done = run_script(ROOT / "export" / "minilm_llmfao.py", four_questions, tmp_path / "b", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "newton" in done.out
    assert (tmp_path / "b" / "manifest.json").is_file()
