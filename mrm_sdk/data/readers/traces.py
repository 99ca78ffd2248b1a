"""What LangSmith's and Langfuse's readers share: one scale at a time, and answers looked up; imports the fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mrm_sdk.data.readers.fields import answer_of, prompt_of
from mrm_sdk.data.readers.source import Row, Source
from mrm_sdk.errors import DatasetError


def one_scale(names: Iterable[str], wanted: str | None, source: Source, program: str) -> str | None:
    """The name whose scores are read: that which is wanted, or the only one; scales are never mixed.

    Raises:
        DatasetError: the wanted one is not there, or there are several and none is wanted.
    """
    found = sorted(set(names))
    if wanted is None and len(found) <= 1:
        return found[0] if found else None
    if wanted not in found:
        raise DatasetError(
            f"{source.name} holds scores called {', '.join(found) or 'nothing'}; name one, as --format {program}:NAME."
        )
    return wanted


def answer(record: Row, given: str, got: str) -> Row | None:
    """Prompt and response of a traced call; ``None`` where the answer's text is not to be found."""
    text = answer_of(record.get(got))
    return None if text is None else {"prompt": prompt_of(record.get(given)), "response": text}


def dig(record: Any, *path: str) -> Any:
    """The value at a path of keys; ``None`` where the path ends early."""
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record
