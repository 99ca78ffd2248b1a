"""Writes a data set with its embeddings, and goes on where it was stopped; imports encoders and data sets."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.columns import SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.items import EMBEDDINGS
from mrm_sdk.encoders.base import Encoder, embed
from mrm_sdk.errors import ConfigurationError, DatasetError, OutputError
from mrm_sdk.progress import Progress, no_progress

_CHUNK = 256
# Beside the embeddings: which encoder makes them, of which items.
_CLAIM = "embeddings.json"


def write_embedded(
    dataset: Dataset,
    encoder: Encoder,
    folder: Path,
    *,
    store: Literal["float16", "float32"] = "float16",
    progress: Progress = no_progress,
) -> None:
    """Writes ``items.jsonl``, ``comparisons.csv`` and ``embeddings.npy``; a second call does what a first left undone.

    Unfinished embeddings lie in ``embeddings.npy.part``, whose missing rows are NaN. float16 holds every bfloat16 from
    6e-5 to 65504 exactly (11 bits of precision against 8), so for hidden states of a bfloat16 model it loses nothing
    that matters, at half the space; what is larger is an error that says so.

    Args:
        dataset: what is written; its comparisons keep their phases.
        encoder: embeds what has no embedding yet.
        folder: is created; a data set there that another encoder or other items made is refused.
        store: the type that is written.
        progress: called with stage, done, total.

    Raises:
        OutputError: the folder cannot be written.
        ConfigurationError: the folder holds embeddings of another encoder, or of other items.
        DatasetError: an embedding is too large for float16.
        EncoderError: the encoder failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_items(dataset, folder / "items.jsonl.new")
        _claim(folder, encoder, (folder / "items.jsonl.new").read_bytes(), store)
        (folder / "items.jsonl.new").replace(folder / "items.jsonl")
        _write_comparisons(dataset, folder / "comparisons.csv")
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
    total, done = len(rows), len(rows) - len(missing)
    items = {row: dataset.items[row] for row in missing}
    # Like lengths together: a batch then holds little padding; the longest first, so that memory runs out at once.
    missing.sort(key=lambda row: -len(items[row].prompt or "") - len(items[row].text or ""))
    largest = float(np.finfo(rows.dtype).max)
    for start in range(0, len(missing), _CHUNK):
        chunk = missing[start : start + _CHUNK]
        vectors = embed(encoder, [items[row] for row in chunk])
        if not np.abs(vectors).max() <= largest:
            raise DatasetError(f"An embedding holds a number above {largest:g}, where {rows.dtype} ends; use float32.")
        rows[chunk] = vectors
        done += len(chunk)
        progress("encoding", done, total)


def _open_part(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.memmap[Any, np.dtype[Any]]:
    if not path.is_file():
        new = path.with_suffix(".new")
        made: np.memmap[Any, np.dtype[Any]] = np.lib.format.open_memmap(new, mode="w+", dtype=dtype, shape=shape)
        for start in range(0, len(made), _CHUNK):
            made[start : start + _CHUNK] = np.nan
        made.flush()
        new.replace(path)  # only now: a row that is not NaN counts as done
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


def _write_items(dataset: Dataset, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, item in enumerate(dataset.items):
            file.write(json.dumps({"item_id": f"i{number}", "prompt": item.prompt, "response": item.text}) + "\n")


def _write_comparisons(dataset: Dataset, path: Path) -> None:
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
