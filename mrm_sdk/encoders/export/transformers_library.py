"""The transformers library, silenced: its errors become errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mrm_sdk.errors import MissingDependencyError


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """The library, without messages and progress bars of its own meanwhile.

    Raises:
        MissingDependencyError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError.of("transformers", "minilm", "Loading a model") from None
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def short_message(error: Exception) -> str:
    """The first 300 characters of an error, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
