"""Rows of CSV and TSV files."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mrm_sdk.data.naming import TableNaming
from mrm_sdk.data.problems import OnBadRow
from mrm_sdk.data.text_lines import is_utf8, lines
from mrm_sdk.errors import DatasetError

# Of a cell, in characters: as many as csv can count on every system.
LONGEST_CELL = 2**31 - 1
_DELIMITERS = (",", "\t", ";", "|")


def read_delimited(
    path: Path, naming: TableNaming | None, on_bad_row: OnBadRow
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ``(location, row)``; an empty cell is an absent value, as a missing key is in JSON.

    The delimiter is that of the file's kind, or, where the header would then be one cell, the only other one that
    parts it.

    Raises:
        DatasetError: the file cannot be read, or its header is not clear.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))  # for the process: csv knows no other way
    text = (line for _, line in lines(path))
    first = next(text, None)
    if first is None:
        return
    delimiter = _delimiter(first, "\t" if ".tsv" in path.name.lower() else ",")
    parts = first.split(delimiter)
    # "user_id, prompt": the space belongs to the delimiter, and would hide a quote behind it.
    spaced = len(parts) > 1 and all(part.startswith(" ") for part in parts[1:])
    reader = csv.reader(chain([first], text), delimiter=delimiter, skipinitialspace=spaced)
    try:
        header = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise DatasetError(f"{path}, line 1: not CSV ({error})") from None
    if not all(map(is_utf8, header)):
        raise DatasetError(f"{path}, line 1: not UTF-8 text. Save the file as UTF-8.")
    columns = dict(zip(header, header, strict=False)) if naming is None else naming.of_header(f"{path}, line 1", header)
    twice = [name for name, count in Counter(header).items() if count > 1 and name in columns]
    if twice:
        raise DatasetError(f"{path}, line 1: the header names {twice[0][:40]!r} twice; rename one of the columns")
    places = [(columns[name], place) for place, name in enumerate(header) if name in columns]
    where, width = f"{path}, line ", len(header)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            on_bad_row(DatasetError(f"{where}{line}: not CSV ({error})"))
            continue
        if cells is None:
            return
        if cells and len(cells) != width:
            lines_more = reader.line_num - line
            quote = f"; it ends {lines_more} lines later: is a quote left open?" if lines_more else ""
            problem = f"{len(cells)} columns where the header has {width}{quote}"
            on_bad_row(DatasetError(f"{where}{line}: {problem}"))
        elif not is_utf8("".join(cells)):
            on_bad_row(DatasetError(f"{where}{line}: not UTF-8 text. Save the file as UTF-8."))
        elif cells:
            yield f"{where}{line}", {ours: cells[place] for ours, place in places if cells[place]}


def _delimiter(header: str, usual: str) -> str:
    others = [delimiter for delimiter in _DELIMITERS if delimiter != usual and delimiter in header]
    return others[0] if usual not in header and len(others) == 1 else usual
