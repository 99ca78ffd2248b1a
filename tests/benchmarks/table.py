"""Medians over repeats, a table on the terminal, JSON under ``tests/benchmarks/results``."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def median(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of one call, after one call that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(work: Callable[[], object], repeats: int, prepare: Callable[[], object] = lambda: None) -> list[float]:
    """Seconds of each of ``repeats`` calls, sorted, after two that are not counted.

    Args:
        work: what is measured.
        repeats: how often.
        prepare: goes before each call, and is not measured.
    """
    times = []
    for _ in range(repeats + 2):
        prepare()
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times[2:])


def publish(name: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> None:
    """Prints rows as a table and saves them as ``results/NAME.json``.

    Args:
        name: of the file.
        rows: each with ``what`` it measured, and figures; those that a row lacks are left blank.
        columns: what is printed beside ``what``: title and format of each figure.
    """
    cells = [[name, *(title for title, _ in columns.values())]]
    for row in rows:
        figures = (format(row[key], form) if row.get(key) is not None else "" for key, (_, form) in columns.items())
        cells.append([row["what"], *figures])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        first, *others = (cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(line))
        print("  ".join([first, *others]).rstrip())
    print()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"versions": versions, "rows": list(rows)}, indent=2) + "\n")
