"""Writes a data set in our own format: ``items.jsonl`` and ``comparisons.csv``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from mrm_sdk.data.contents import SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import OutputError


def write_dataset(dataset: Dataset, folder: Path) -> None:
    """Writes the texts and the comparisons of a data set; files of the same names are replaced.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_items(dataset, folder / "items.jsonl")
        write_comparisons(dataset, folder / "comparisons.csv")
    except OSError as error:
        raise OutputError(f"Cannot write {folder}: {error.strerror or error}.") from None


def write_items(dataset: Dataset, path: Path) -> None:
    """Writes prompts and responses, one item a line; ids are their numbers."""
    with path.open("w", encoding="utf-8") as file:
        for number, item in enumerate(dataset.items):
            file.write(json.dumps({"item_id": f"i{number}", "prompt": item.prompt, "response": item.text}) + "\n")


def write_comparisons(dataset: Dataset, path: Path) -> None:
    """Writes comparisons with their phases, by the ids of :func:`write_items`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "phase", "chosen", "rejected", "tie", "strength", "event_id"))
        for row, event_id in enumerate(dataset.event_ids):
            writer.writerow(
                (
                    dataset.user_ids[dataset.user[row]],
                    "support" if dataset.phase[row] == SUPPORT else "query",
                    f"i{dataset.chosen[row]}",
                    f"i{dataset.rejected[row]}",
                    bool(dataset.tie[row]),
                    float(dataset.strength[row]),
                    event_id,
                )
            )
