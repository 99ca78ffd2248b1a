"""``mrm compare``: several methods on the same users of a data set, as a table, as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mrm_sdk.cli.datasets import read
from mrm_sdk.cli.output import echo
from mrm_sdk.cli.progress import progress
from mrm_sdk.errors import ConfigurationError, OutputError
from mrm_sdk.evaluation.methods import METHODS


def run(
    dataset: Path,
    *,
    unseen: Path | None,
    folds: int | None,
    seeds: Sequence[int],
    methods: str,
    shots: Sequence[int],
    encoder: str,
    json_file: Path | None,
    report_file: Path | None,
    data_format: str,
) -> None:
    """Compares, prints the table, and writes the files asked for.

    Raises:
        ConfigurationError: there is no such method, or the numbers are wrong.
        OutputError: a file cannot be written where it was asked for.
    """
    chosen = {name: METHODS[name] for name in _names(methods)}
    # Fits take minutes: what would fail after them is tried before.
    for path in (json_file, report_file):
        if path is not None and (path.is_dir() or (path.parent.exists() and not path.parent.is_dir())):
            raise OutputError(f"{path} cannot become a file; choose another place.")
    if report_file is not None:
        from mrm_sdk.evaluation.reports.figures import require_matplotlib

        require_matplotlib()
    with progress() as report:
        report("reading", 0, 1)
        data = read(dataset, data_format)  # before torch is loaded: what is wrong with a file is said at once
        others = None if unseen is None else read(unseen, data_format)
        report("reading", 1, 1)
        from mrm_sdk.evaluation.comparison import compare
        from mrm_sdk.evaluation.reports.comparison import page, table
        from mrm_sdk.evaluation.reports.page import write

        standings = compare(
            data, chosen, unseen=others, folds=folds, seeds=seeds, shots=shots, encoder=encoder, progress=report
        )
    # Before anything is written: no full disk shall cost the result.
    echo(table(standings))
    if json_file is not None:
        write(json_file, json.dumps(standings.as_json(), indent=2) + "\n")
    if report_file is not None:
        write(report_file, page(standings, "Methods compared"))


def _names(text: str) -> list[str]:
    names = [name.strip().replace("-", "_") for name in text.split(",")]
    for name in names:
        if name not in METHODS:
            raise ConfigurationError(f"There is no method {name!r}; use some of {', '.join(METHODS)}.")
    return list(dict.fromkeys(names))
