"""Readers of other programs' formats: records become rows of our own JSONL shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mrm_sdk.data.naming import TRL, Naming, TableNaming
from mrm_sdk.data.readers import argilla, labelstudio, langfuse, langsmith, personalllm, prism, tldr, trl
from mrm_sdk.data.readers.chats import chat_of, unpacked
from mrm_sdk.data.readers.source import Outcome, Reader, Reading, Row, Source, files
from mrm_sdk.data.rows import DELIMITED, SUFFIXES, first_row
from mrm_sdk.errors import ConfigurationError, MrmError

__all__ = ["READERS", "Outcome", "Reader", "Reading", "Source", "find_reader", "naming_of", "recognise"]

READERS: dict[str, Reader] = {
    "argilla": argilla.read,
    "labelstudio": labelstudio.read,
    "langfuse": langfuse.read,
    "langsmith": langsmith.read,
    "personalllm": personalllm.read,
    "prism": prism.read,
    "tldr": tldr.read,
    "trl": trl.read,
}
# Formats that may hold several questions or scales: ``argilla:QUESTION`` reads one.
_CHOOSING: dict[str, Callable[[str], Reader]] = {
    "argilla": argilla.reader,
    "langfuse": langfuse.reader,
    "langsmith": langsmith.reader,
}
_HUB = {
    "HannahRoseKirk/prism-alignment": "prism",
    "openai/summarize_from_feedback": "tldr",
    "namkoong-lab/PersonalLLM": "personalllm",
}


def find_reader(format: str | Reader, path: str) -> Reader:
    """The reader of that name, as ``prism`` or ``argilla:QUESTION``; for ``auto``, what fits a data set of the hub.

    Raises:
        ConfigurationError: there is no such format, or it has nothing to choose from.
    """
    if not isinstance(format, str):
        return format
    if format in ("auto", "own"):  # TRL's reader passes our own columns on
        known = path.removeprefix("hub:").partition("@")[0].partition(":")[0]
        format = _HUB.get(known, "trl") if format == "auto" else "trl"
    name, _, choice = format.partition(":")
    if name not in READERS:
        raise ConfigurationError(f"There is no format {name!r}; use auto, own, {', '.join(READERS)}.")
    if choice and name not in _CHOOSING:
        raise ConfigurationError(f"Format {name!r} has nothing to choose by {choice!r}; say just {name}.")
    return _CHOOSING[name](choice) if choice else READERS[name]


def naming_of(reader: Reader, naming: Naming) -> TableNaming | None:
    """What the columns of a reader's tables are called; ``None``: as they are.

    Raises:
        ConfigurationError: columns are named for another program's format, whose names are fixed.
    """
    if reader is trl.read:
        return naming.of(TRL, alone=True)
    if naming.stated:
        raise ConfigurationError("--column is for our own format and TRL's; others have names of their own.")
    return None


def recognise(path: Path, columns: Mapping[str, str] | None = None) -> str:
    """The format of a file or folder, by the names of files and the first record; ``own`` where in doubt.

    Args:
        path: of the file or folder.
        columns: see :class:`~mrm_sdk.data.naming.Naming`.
    """
    if path.is_dir():
        for name, first, second in (("langfuse", "scores", "traces"), ("langsmith", "feedback", "runs")):
            if files(path, first) and files(path, second):
                return name
        if any((path / f"{kind}{suffix}").is_file() for kind in ("items", "ratings") for suffix in SUFFIXES):
            return "own"
        tables = [matches[0] for table in ("conversations", "comparisons") if (matches := files(path, table))]
    else:
        tables = [path] if path.name.lower().endswith(SUFFIXES) else []
    for table in tables:
        try:
            row = first_row(table)
            if table.name.lower().endswith(DELIMITED):
                row = {name: unpacked(cell) if chat_of(cell) else cell for name, cell in row.items()}
            named = Naming(columns).of(TRL).of_rows(str(table), list(row))
        except MrmError:  # what is wrong with it is said when it is read
            return "own"
        return _by_keys({named.get(name, name): value for name, value in row.items()})
    return "own"


def _by_keys(row: Row) -> str:
    if "conversation_history" in row:
        return "prism"
    if {"info", "summaries", "choice"} <= row.keys():
        return "tldr"
    if {"data", "annotations"} <= row.keys():
        return "labelstudio"
    if {"prompt", "response_1", "response_2", "response_1_model"} <= row.keys():
        return "personalllm"
    if any(key.endswith(".responses.users") for key in row):
        return "argilla"
    if (
        isinstance(row.get("chosen"), list)
        or isinstance(row.get("rejected"), list)
        or {"completion", "label"} <= row.keys()
    ):
        return "trl"
    return "own"
