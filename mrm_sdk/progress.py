"""The type of progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Is called after each part of a stage, with the stage's name, how much of it is done, and of how much."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Does nothing: the default."""
