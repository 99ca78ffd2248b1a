"""What the readers of LangSmith and Langfuse share: one scale at a time, and answers of traces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mrm_sdk.data.readers.fields import answer_of, prompt_of
from mrm_sdk.data.readers.source import Row, Source
from mrm_sdk.errors import DatasetError


def one_scale(names: Iterable[str], wanted: str | None, source: Source, program: str) -> str | None:
    """The name whose scores are read: the requested one, or the only one; scales are never mixed.

    Raises:
        DatasetError: the requested name is missing, or there are several and none is requested.
    """
    distinct = sorted(set(names))
    if wanted is None and len(distinct) <= 1:
        return distinct[0] if distinct else None
    if wanted not in distinct:
        raise DatasetError(
            f"{source.name} holds scores called {', '.join(distinct) or 'nothing'}; "
            f"name one, as --format {program}:NAME."
        )
    return wanted


def answer(record: Row, input_field: str, output_field: str) -> Row | None:
    """Prompt and response of a traced call; ``None`` if the answer has no text."""
    text = answer_of(record.get(output_field))
    return None if text is None else {"prompt": prompt_of(record.get(input_field)), "response": text}


def dig(record: Any, *path: str) -> Any:
    """The value at a path of keys; ``None`` where the path ends early."""
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record
