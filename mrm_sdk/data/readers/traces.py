"""What the readers of LangSmith and Langfuse share: one scale at a time, and answers of traces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mrm_sdk.data.readers.chats import answer_of, prompt_of
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


def traced(call: str, record: Row, asked: str, answered: str) -> Row | str:
    """Prompt and response of a traced ``call`` from the fields of these names, or why there are none."""
    prompt, response = prompt_of(record.get(asked)), answer_of(record.get(answered))
    if response is None:
        return f"no answer is found in {call}'s {answered}"
    return f"no prompt is found in {call}'s {asked}" if prompt is None else {"prompt": prompt, "response": response}


def last_of_each_id(records: list[tuple[str, Row]]) -> set[int]:
    """The numbers of the records that count: of several with one id the last, and those without an id."""
    last = {str(record.get("id", number)): number for number, (_, record) in enumerate(records)}
    return set(last.values())


def dig(record: Any, *path: str) -> Any:
    """The value at a path of keys; ``None`` where the path ends early."""
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record
