"""What a host's type checker says of the documented calls, under its strictest settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from mrm_sdk.settings import Settings, SettingsArguments
from tests.conftest import ROOT

HOST = Path(__file__).with_name("typed_host.py")


@pytest.mark.slow
def test_mypy() -> None:
    # Beside the cache of `make lint`, and of other settings: a host has its own, and does not check this package.
    cache = ROOT / ".mypy_cache" / "host"
    options = ["--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={cache}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, HOST], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="needs pyright, which loads itself from npm: not installed")
def test_pyright(tmp_path: Path) -> None:
    shutil.copy(HOST, tmp_path)
    settings = {
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "extraPaths": [str(ROOT)],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        ["pyright", "--pythonpath", sys.executable], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_is_typed_as_an_argument() -> None:
    assert get_type_hints(SettingsArguments).keys() == Settings.model_fields.keys()
