"""How fast data sets are read, by form; the floor is the parser alone."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from pyarrow import csv as arrow_csv
from pyarrow import parquet

from mrm_sdk.data.datasets import read_dataset
from tests.benchmarks.generated import write_pairs
from tests.benchmarks.table import median, publish

USERS, ITEMS = 2_000, 10_000
REPEATS = 3


def main() -> None:
    """Measures, prints and saves; what a folder's items take is in its time and in its floor."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_pairs(Path(scratch) / "csv", users=USERS, items=ITEMS, dimension=16)
        count = 20 * USERS
        for form, floor in forms(folder).items():
            path = folder.parent / form
            seconds = median(lambda path=path: read_dataset(path), REPEATS)
            ratio = seconds / median(floor, REPEATS)
            rows.append({"what": form, "rows_per_second": count / seconds, "ratio": ratio, "floor": "its parser alone"})
    columns = {"rows_per_second": ("comparisons/s", ",.0f"), "ratio": ("ratio", ".1f"), "floor": ("to", "")}
    publish("reading", rows, columns)


def forms(folder: Path) -> dict[str, Callable[[], object]]:
    """Writes the data set of ``folder`` in every form beside it; how each one's files are parsed, by name."""
    items, beside = folder / "items.jsonl", folder.parent
    table = arrow_csv.read_csv(folder / "comparisons.csv")
    (beside / "parquet").mkdir()
    (beside / "parquet" / "items.jsonl").symlink_to(items)
    (beside / "parquet" / "embeddings.npy").symlink_to(folder / "embeddings.npy")
    parquet.write_table(table, beside / "parquet" / "comparisons.parquet")
    texts = [json.loads(line)["response"] for line in items.open()]
    lines = []
    for row in table.to_pylist():
        chosen, rejected = (texts[int(row[side].removeprefix("item-"))] for side in ("chosen", "rejected"))
        lines.append(json.dumps({**row, "prompt": None, "chosen": chosen, "rejected": rejected}) + "\n")
    text = "".join(lines)
    (beside / "comparisons.jsonl").write_text(text)
    (beside / "comparisons.jsonl.gz").write_bytes(gzip.compress(text.encode()))

    def parsed(path: Path) -> list[object]:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt") as file:
            return [json.loads(line) for line in file]

    def table_of(path: Path) -> object:
        if path.suffix == ".parquet":
            return parquet.read_table(path).to_pylist()
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return {
        "csv": lambda: (parsed(items), table_of(folder / "comparisons.csv")),
        "parquet": lambda: (parsed(items), table_of(beside / "parquet" / "comparisons.parquet")),
        "comparisons.jsonl": lambda: parsed(beside / "comparisons.jsonl"),
        "comparisons.jsonl.gz": lambda: parsed(beside / "comparisons.jsonl.gz"),
    }
