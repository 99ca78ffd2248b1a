"""A data set written with its embeddings: the same data again, resumable, never mixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.data.vectors import write_embedded
from mrm_sdk.errors import ConfigurationError, DatasetError, OutputError
from tests.data.test_datasets import write_lines
from tests.small_encoders import CountingEncoder, Other


class Stopping(CountingEncoder):
    """Fails in its second batch, as a process does that is stopped."""

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        if self.encoded:
            raise KeyboardInterrupt
        return super().encode(texts)


class Huge(CountingEncoder):
    """Vectors that float16 cannot hold."""

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        return super().encode(texts) * 1e5


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    rows = [
        {"user_id": f"u{n % 5}", "prompt": f"p{n}", "chosen": f"a{n}", "rejected": "b" * (n % 9), "tie": n % 7 == 0,
         "strength": 1 + n % 3} for n in range(300)
    ]  # fmt: skip
    return read_dataset(write_lines(tmp_path / "rows.jsonl", rows))


def test_what_is_written_is_what_was_read(data: Dataset, tmp_path: Path) -> None:
    encoder, told = CountingEncoder(), []
    write_embedded(data, encoder, tmp_path / "d", progress=lambda *step: told.append(step))
    written = read_dataset(tmp_path / "d")
    assert len(encoder.encoded) == len(data.items) == len(written.items) == 600
    assert told[-1] == ("encoding", 600, 600)
    assert written.embeddings is not None
    assert written.embeddings.dtype == np.float16
    expected = encoder.encode([(item.prompt, item.text or "") for item in data.items])
    np.testing.assert_array_equal(written.vectors(slice(None)), expected.astype(np.float16).astype(np.float32))
    for name in ("user", "chosen", "rejected", "tie", "strength", "phase"):
        np.testing.assert_array_equal(getattr(written, name), getattr(data, name))
    assert (written.event_ids, written.user_ids) == (data.event_ids, data.user_ids)


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_embedded(data, Stopping(), tmp_path / "a")
    assert not (tmp_path / "a" / "embeddings.npy").exists()
    rest = CountingEncoder()
    write_embedded(data, rest, tmp_path / "a")
    assert 0 < len(rest.encoded) < 600
    write_embedded(data, CountingEncoder(), tmp_path / "b")
    for name in ("items.jsonl", "comparisons.csv", "embeddings.npy"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    again = CountingEncoder()
    write_embedded(data, again, tmp_path / "a")
    assert again.encoded == []
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "comparisons.csv", "embeddings.json", "embeddings.npy", "items.jsonl",
    ]  # fmt: skip


def test_vectors_of_two_encoders_or_data_sets_never_meet(data: Dataset, tmp_path: Path) -> None:
    write_embedded(data, CountingEncoder(), tmp_path / "d")
    before = {path: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    for dataset, encoder in ((data, Other()), (data.subset(np.arange(9)), CountingEncoder())):
        with pytest.raises(ConfigurationError, match="another data set, or another encoder's"):
            write_embedded(dataset, encoder, tmp_path / "d")
    with pytest.raises(ConfigurationError, match="another data set"):
        write_embedded(data, CountingEncoder(), tmp_path / "d", store="float32")
    assert before == {path: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "items.jsonl").write_text("another program's")
    with pytest.raises(ConfigurationError, match="another data set"):
        write_embedded(data, CountingEncoder(), tmp_path / "own")
    assert (tmp_path / "own" / "items.jsonl").read_text() == "another program's"


def test_what_float16_cannot_hold(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="above 65504, where float16 ends; use float32"):
        write_embedded(data, Huge(), tmp_path / "a")
    write_embedded(data, Huge(), tmp_path / "b", store="float32")
    assert np.abs(read_dataset(tmp_path / "b").vectors(slice(None))).max() > 65504
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="Cannot write"):
        write_embedded(data, CountingEncoder(), tmp_path / "file")


def test_a_subset_keeps_what_its_rows_say(data: Dataset, tmp_path: Path) -> None:
    rows = np.array([7, 3, 250])
    part = data.subset(rows)
    ours, theirs = (
        [comparison.model_dump(exclude={"created_at"}) for comparison in comparisons]
        for comparisons in (part.comparisons(), data.comparisons(rows))
    )
    assert ours == theirs
    assert (len(part.items), part.user_ids, part.describe()["users"]) == (6, ["u0", "u2", "u3"], 3)
    assert part.sha256 not in (data.sha256, data.subset(rows[:2]).sha256)
    write_embedded(data, CountingEncoder(), tmp_path / "d")
    mapped = read_dataset(tmp_path / "d").subset(rows)
    assert len(mapped.items) == 600
    assert [c.chosen.text for c in mapped.comparisons()] == ["a7", "a3", "a250"]  # type: ignore[union-attr]
