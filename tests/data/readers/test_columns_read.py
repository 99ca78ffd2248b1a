"""Other programs' tables as Parquet, beside a column that cannot be read: readers leave alone what they do not use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.errors import DatasetError
from tests.data.readers.test_feedback_tools import by, feedback, pairwise, record, run, score, task
from tests.data.readers.test_readers import PRISM, counted, said, summary
from tests.data.test_datasets import write_lines
from tests.data.test_parquet import write_beside_a_ruin

TRACES = [{"id": "t1", "userId": "ann", "input": "q", "output": "one", "tags": ["x"]}]
FORMATS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "argilla": {"records": [{**record("better", ["response_1"], ["u"]), "better.suggestion": "response_2"}]},
    "labelstudio": {"tasks": [task(1, pairwise("left")), task(2, pairwise("right"))]},
    "langfuse": {"scores": [score("t1", "better", "CORRECTION")], "traces": TRACES},
    "langsmith": {
        "feedback": [feedback(name, value, feedback_group_id="g", **by("ann")) for name, value in (("a", 1), ("b", 0))],
        "runs": [run("a", {"output": "one"}), run("b", {"output": "two"})],
    },
    "prism": {"conversations": PRISM},
    "tldr": {"comparisons": [summary(), summary(0, "v")]},
}


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_not_used_is_not_read(tmp_path: Path, name: str) -> None:
    for folder in ("lines", "parquet"):
        (tmp_path / folder).mkdir()
    for table, rows in FORMATS[name].items():
        write_lines(tmp_path / "lines" / f"{table}.jsonl", rows)
        ruin = "vectors" if name == "argilla" else "screenshot"  # there, any other column may be an answer
        write_beside_a_ruin(tmp_path / "parquet" / f"{table}.parquet", pa.Table.from_pylist(rows), ruin)
    lines, parquet = (read_dataset(tmp_path / folder, format=name) for folder in ("lines", "parquet"))
    assert said(lines) == said(parquet)
    assert len(lines)
    assert counted(lines) == counted(parquet)


def test_langfuses_other_names(tmp_path: Path) -> None:
    rows = [{"name": "liked", "value": 1.0, "trace_id": "t1", "data_type": "NUMERIC", "comment": "x"}]
    traces = [{"id": "t1", "user_id": "ann", "input": "q", "output": "one"}]
    for table, records in (("scores", rows), ("traces", traces)):
        write_beside_a_ruin(tmp_path / f"{table}.parquet", pa.Table.from_pylist(records))
    data = read_dataset(tmp_path, format="langfuse")
    assert data.ratings is not None
    assert data.ratings.value.tolist() == [1.0]


def test_a_missing_column_is_named_beside_those_that_are_there(tmp_path: Path) -> None:
    rows = [{"conversation_id": "c", "conversation_history": PRISM[0]["conversation_history"], "annotator": "ann"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "conversations.parquet")
    with pytest.raises(DatasetError, match=r"row 1: 'user_id' missing; found: .*annotator"):
        read_dataset(tmp_path, format="prism")
