"""Embeddings that lie beside the items: mapped, read row by row, and what is wrong with them said with the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.errors import DatasetError
from tests.data.test_datasets import write_folder

ITEMS = [{"item_id": i, "prompt": "p", "response": None if i == "c" else f"text {i}"} for i in "abcd"]
ROWS = "user_id,chosen,rejected\nu,b,a\nu,b,a\nv,c,d\n"
VALUES = np.arange(12).reshape(4, 3) / 4


def folder(path: Path, embeddings: Any, text: str = ROWS) -> Path:
    write_folder(path, text, ITEMS)
    np.save(path / "embeddings.npy", embeddings)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_belong_to_lines(tmp_path: Path, dtype: Any) -> None:
    data = read_dataset(folder(tmp_path / "d", VALUES.astype(dtype)))
    assert isinstance(data.embeddings, np.memmap)
    assert (data.dimension, len(data.items), data.describe()["items"]) == (3, 4, 4)
    assert (data.chosen.tolist(), data.rejected.tolist()) == ([1, 1, 2], [0, 0, 3])
    assert [item.text for item in data.items] == ["text a", "text b", None, "text d"]
    first, _, third = data.comparisons()
    for got, row in ((first.chosen, 1), (first.rejected, 0), (third.chosen, 2)):
        assert got.embedding.dtype == np.float32  # type: ignore[union-attr]
        np.testing.assert_array_equal(got.embedding, VALUES[row])  # type: ignore[union-attr]
    np.testing.assert_array_equal(data.vectors([3, 1]), VALUES[[3, 1]])
    np.testing.assert_array_equal(data.vectors(slice(1, 3)), VALUES[1:3])
    assert data.items[-1].text == data.items[1:][-1].text == "text d"
    with pytest.raises(IndexError):
        data.items[4]


def test_the_same_items_inline_have_vectors_too(tmp_path: Path, embedded: Path) -> None:
    data = read_dataset(embedded)
    assert data.dimension == 6
    np.testing.assert_array_equal(data.vectors([5, 0])[1], data.items[0].embedding)  # type: ignore[arg-type]
    text = read_dataset(write_folder(tmp_path / "d", "user_id,chosen,rejected\nu,a,b\n"))
    assert text.dimension is None
    with pytest.raises(DatasetError, match="brings no embeddings"):
        text.vectors([0])


def test_ids_and_halves_do_not_depend_on_embeddings_and_repeat_exactly(tmp_path: Path) -> None:
    rows = "user_id,chosen,rejected\n" + "".join(f"u,{a},{b}\n" for a in "abcd" for b in "abcd" if a < b)
    first = read_dataset(folder(tmp_path / "a", VALUES.astype(np.float32), rows))
    other = read_dataset(folder(tmp_path / "b", -VALUES.astype(np.float32), rows))
    assert first.event_ids == other.event_ids
    assert first.event_ids != list(first.event_ids)[:-1]
    assert first.phase.tolist() == other.phase.tolist()
    assert sorted(first.phase.tolist()) == [SUPPORT] * 3 + [QUERY] * 3
    assert first.sha256 != other.sha256
    twice = read_dataset(folder(tmp_path / "c", VALUES.astype(np.float32)))
    assert [name.rsplit("-")[1] for name in twice.event_ids] == ["1", "2", "1"]
    assert len(set(twice.event_ids)) == 3


WRONG_FILES: list[tuple[Any, str]] = [
    (VALUES[:3].astype(np.float32), r"3 rows, items.jsonl has 4 items.*row 3 "),
    (np.zeros((5, 3), np.float32), r"5 rows, items.jsonl has 4 items.*row 4 "),
    (VALUES, "holds float64; expected float16 or float32"),
    (VALUES.astype(">f4"), "holds >f4"),
    (np.zeros((4, 3), int), "holds int64"),
    (np.zeros((4, 0), np.float32), r"shape \[4, 0\]"),
    (np.zeros(4, np.float32), r"shape \[4\]"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_FILES, ids=[message for _, message in WRONG_FILES])
def test_wrong_files_are_refused_at_once(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_dataset(folder(tmp_path / "d", values))


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", VALUES.astype(np.float32))
    for content in (b"", b"no array", (path / "embeddings.npy").read_bytes()[:-8]):
        (path / "embeddings.npy").write_bytes(content)
        with pytest.raises(DatasetError, match=r"cannot be read as \.npy"):
            read_dataset(path)


def test_what_is_not_finite_is_named_when_it_is_used(tmp_path: Path) -> None:
    with np.errstate(over="ignore"):
        values = np.where(np.arange(4)[:, None] == 2, 1e6, VALUES).astype(np.float16)  # overflows to infinity
    data = read_dataset(folder(tmp_path / "d", values))
    assert next(data.comparisons()).user_id == "u"
    for use in (lambda: data.vectors([0, 2]), lambda: data.items[2], lambda: list(data.comparisons())):
        with pytest.raises(DatasetError, match=r"row 2 .*NaN or infinity.*65504"):
            use()


def test_embeddings_in_both_places_are_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "d", ROWS, [{**ITEMS[0], "embedding": [1.0]}])
    np.save(path / "embeddings.npy", np.ones((1, 1), np.float32))
    with pytest.raises(DatasetError, match=r"line 1: an 'embedding' here and embeddings\.npy"):
        read_dataset(path)


def test_two_ids_of_one_item_are_not_recorded_as_a_comparison(tmp_path: Path) -> None:
    items = [{"item_id": i, "prompt": "p", "response": "text"} for i in "abc"]
    write_folder(tmp_path / "d", "user_id,chosen,rejected\nu,a,c\nu,a,b\n", items)
    np.save(tmp_path / "d" / "embeddings.npy", VALUES[[0, 0, 1]].astype(np.float32))
    data = read_dataset(tmp_path / "d")
    assert len(data) == 2
    with pytest.raises(DatasetError, match=r"comparison 2 of the data set: .* are the same response"):
        list(data.comparisons())
