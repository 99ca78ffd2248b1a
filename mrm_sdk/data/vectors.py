"""Embeds a data set's items, in memory or into a folder; an interrupted writing resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.items import EMBEDDINGS
from mrm_sdk.data.writing import write_comparisons, write_items
from mrm_sdk.encoders.base import Encoder, embed
from mrm_sdk.errors import ConfigurationError, DatasetError, OutputError
from mrm_sdk.progress import Progress, no_progress

_CHUNK, _WRITTEN_CHUNK = 1024, 256
# Beside the embeddings: which encoder made them, of which items.
_CLAIM = "embeddings.json"


def embed_items(encoder: Encoder, dataset: Dataset, progress: Progress) -> NDArray[np.floating]:
    """Embeddings of all items, [items, D]: the data set's own, mapped where they are, else each item encoded once.

    Raises:
        EncoderError: the encoder failed.
    """
    if dataset.embeddings is not None:
        return dataset.embeddings
    out = np.empty((len(dataset.items), encoder.dimension), np.float32)
    for rows, vectors in _embedded(encoder, dataset, range(len(out)), progress):
        out[rows] = vectors
    return out


def _embedded(
    encoder: Encoder, dataset: Dataset, rows: Iterable[int], progress: Progress, chunk: int = _CHUNK
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Encodes the items of ``rows``; yields row numbers and their vectors [rows, D], a chunk at a time."""
    items = {row: dataset.items[row] for row in rows}
    total = len(dataset.items)
    done = total - len(items)
    # Similar lengths together: a batch then has little padding. The longest first, so that memory runs out at once.
    order = sorted(items, key=lambda row: -len(items[row].prompt or "") - len(items[row].text or ""))
    for start in range(0, len(order), chunk):
        numbers = order[start : start + chunk]
        yield numbers, embed(encoder, [items[row] for row in numbers])
        done += len(numbers)
        progress("encoding", done, total)


def write_embedded(
    dataset: Dataset,
    encoder: Encoder,
    folder: Path,
    *,
    store: Literal["float16", "float32"] = "float16",
    progress: Progress = no_progress,
) -> None:
    """Writes ``items.jsonl``, ``comparisons.csv`` and ``embeddings.npy``; a second call resumes an interrupted one.

    Unfinished embeddings are in ``embeddings.npy.part``, whose missing rows are NaN. float16 holds every bfloat16 from
    6e-5 to 65504 exactly (11 bits of precision against 8), so for hidden states of a bfloat16 model it loses nothing
    that matters, at half the space; larger numbers are an error.

    Args:
        dataset: to write; its comparisons keep their phases.
        encoder: embeds items without an embedding.
        folder: is created; embeddings of another encoder or of other items there are an error.
        store: the type on disk.
        progress: called with stage, done, total.

    Raises:
        OutputError: the folder cannot be written.
        ConfigurationError: the folder holds embeddings of another encoder, or of other items.
        DatasetError: an embedding is too large for float16.
        EncoderError: the encoder failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_items(dataset, folder / "items.jsonl.new")
        _claim(folder, encoder, (folder / "items.jsonl.new").read_bytes(), store)
        (folder / "items.jsonl.new").replace(folder / "items.jsonl")
        write_comparisons(dataset, folder / "comparisons.csv")
        final, part = folder / EMBEDDINGS, folder / f"{EMBEDDINGS}.part"
        if final.is_file():
            return
        rows = _open_part(part, (len(dataset.items), encoder.dimension), np.dtype(store))
        _fill(rows, dataset, encoder, progress)
        rows.flush()
        del rows
        part.replace(final)
    except OSError as error:
        raise OutputError(f"Cannot write {folder}: {error.strerror or error}.") from None


def _fill(rows: NDArray[Any], dataset: Dataset, encoder: Encoder, progress: Progress) -> None:
    missing = [
        start + int(i)
        for start in range(0, len(rows), _CHUNK)
        for i in np.flatnonzero(np.isnan(rows[start : start + _CHUNK]).any(1))
    ]
    largest = float(np.finfo(rows.dtype).max)
    # Small chunks: after an interruption little is encoded again.
    for numbers, vectors in _embedded(encoder, dataset, missing, progress, _WRITTEN_CHUNK):
        if not np.abs(vectors).max() <= largest:
            raise DatasetError(f"An embedding holds a number above {largest:g}, where {rows.dtype} ends; use float32.")
        rows[numbers] = vectors


def _open_part(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.memmap[Any, np.dtype[Any]]:
    if not path.is_file():
        new = path.with_suffix(".new")
        made: np.memmap[Any, np.dtype[Any]] = np.lib.format.open_memmap(new, mode="w+", dtype=dtype, shape=shape)
        for start in range(0, len(made), _CHUNK):
            made[start : start + _CHUNK] = np.nan
        made.flush()
        new.replace(path)  # only now: from here on, a row that is not NaN counts as done
    opened: np.memmap[Any, np.dtype[Any]] = np.lib.format.open_memmap(path, mode="r+")
    return opened


def _claim(folder: Path, encoder: Encoder, items: bytes, store: str) -> None:
    path = folder / _CLAIM
    made_by = {"encoder": encoder.fingerprint, "items": hashlib.sha256(items).hexdigest(), "dtype": store}
    ours = not (folder / "items.jsonl").exists() or path.is_file()
    if not ours or (path.is_file() and path.read_text(encoding="utf-8") != json.dumps(made_by)):
        (folder / "items.jsonl.new").unlink()
        raise ConfigurationError(f"{folder} holds another data set, or another encoder's; choose another folder.")
    path.write_text(json.dumps(made_by), encoding="utf-8")
