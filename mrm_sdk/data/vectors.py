"""Embeds a data set's items, in memory or into a folder; an interrupted writing resumes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.items import EMBEDDINGS
from mrm_sdk.data.writing import write_comparisons, write_items
from mrm_sdk.encoders.base import Encoder, embed
from mrm_sdk.errors import ConfigurationError, DatasetError, EncoderError, OutputError
from mrm_sdk.progress import Progress, no_progress

logger = logging.getLogger("mrm_sdk")

# Called with a data set, those of its comparisons that are left out [n], and the reason of an encoder.
OnRefused: TypeAlias = Callable[[Dataset, NDArray[np.int64], str], None]
_CHUNK, _WRITTEN_CHUNK = 1024, 256
# Beside the embeddings: which encoder made them, of which items.
_CLAIM = "embeddings.json"


class EmbeddedDataset(NamedTuple):
    """A data set with the embeddings of its items.

    Args:
        dataset: the comparisons whose texts the encoder takes.
        embeddings: of ``dataset.items``, [items, D].
    """

    dataset: Dataset
    embeddings: NDArray[np.floating]


def log_refusal(dataset: Dataset, rows: NDArray[np.int64], reason: str) -> None:
    """Writes into the log which comparisons are left out; user ids do not belong there."""
    others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    logger.warning("comparison %d (event %s)%s left out: %s", rows[0] + 1, dataset.event_ids[rows[0]], others, reason)


def embed_dataset(
    encoder: Encoder, dataset: Dataset, progress: Progress, on_refused: OnRefused = log_refusal
) -> EmbeddedDataset:
    """Embeds all items: the data set's own embeddings, mapped where they are, else each item encoded once.

    Args:
        encoder: embeds items without an embedding.
        dataset: its items.
        progress: called with stage, done, total.
        on_refused: called with ``dataset``, the comparisons [n] that are left out because the encoder does not take one
            of their texts, and its reason, for each such text; each comparison once.

    Raises:
        EncoderError: the encoder failed, or takes no text.
    """
    if dataset.embeddings is not None:
        return EmbeddedDataset(dataset, dataset.embeddings)
    out = np.empty((len(dataset.items), encoder.dimension), np.float32)
    refused: dict[int, str] = {}
    for rows, vectors in _embedded(encoder, dataset, range(len(out)), progress, refused):
        out[rows] = vectors
    if not refused:
        return EmbeddedDataset(dataset, out)
    kept, used = _without(dataset, refused, on_refused)
    return EmbeddedDataset(kept, out[used])


def _without(dataset: Dataset, refused: dict[int, str], on_refused: OnRefused) -> tuple[Dataset, NDArray[np.int64]]:
    """The comparisons of texts that are not refused, and which items are left; reports the others."""
    left_out = np.zeros(len(dataset), np.bool_)
    for item, reason in sorted(refused.items()):
        # A comparison of two refused texts is told of once.
        rows = np.flatnonzero(((dataset.chosen == item) | (dataset.rejected == item)) & ~left_out)
        left_out[rows] = True
        if len(rows):
            on_refused(dataset, rows, reason)
    if len(dataset) and left_out.all():
        raise EncoderError(f"The encoder does not take the texts of this data set: {next(iter(refused.values()))}")
    rows = np.flatnonzero(~left_out)
    # As a subset keeps items: those of its comparisons, in order.
    used = np.unique(np.concatenate([dataset.chosen[rows], dataset.rejected[rows]]))
    return dataset.subset(rows), used[used < len(dataset.items)]


def _embedded(
    encoder: Encoder,
    dataset: Dataset,
    rows: Iterable[int],
    progress: Progress,
    refused: dict[int, str],
    chunk: int = _CHUNK,
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Encodes the items of ``rows``; yields row numbers and their vectors [rows, D], a chunk at a time.

    Texts that the encoder does not take are in ``refused`` instead, with the reason.
    """
    items = {row: dataset.items[row] for row in rows}
    total = len(dataset.items)
    done = total - len(items)
    # Similar lengths together: a batch then has little padding. The longest first, so that memory runs out at once.
    order = sorted(items, key=lambda row: -len(items[row].prompt or "") - len(items[row].text or ""))
    for start in range(0, len(order), chunk):
        numbers = order[start : start + chunk]
        reasons: dict[int, str] = {}
        vectors = embed(encoder, [items[row] for row in numbers], reasons)
        refused.update((numbers[i], reason) for i, reason in reasons.items())
        taken = [i for i in range(len(numbers)) if i not in reasons]
        yield [numbers[i] for i in taken], vectors[taken]
        done += len(numbers)
        progress("encoding", done, total)


def write_embedded(
    dataset: Dataset,
    encoder: Encoder,
    folder: Path,
    *,
    store: Literal["float16", "float32"] = "float16",
    progress: Progress = no_progress,
    on_refused: OnRefused = log_refusal,
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
        on_refused: see :func:`embed_dataset`.

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
        final, part = folder / EMBEDDINGS, folder / f"{EMBEDDINGS}.part"
        if final.is_file():
            (folder / "items.jsonl.new").unlink()
            part.unlink(missing_ok=True)
            return
        (folder / "items.jsonl.new").replace(folder / "items.jsonl")
        rows = _open_part(part, (len(dataset.items), encoder.dimension), np.dtype(store))
        refused = _fill(rows, dataset, encoder, progress)
        rows.flush()
        del rows
        if refused:
            dataset, used = _without(dataset, refused, on_refused)
            write_items(dataset, folder / "items.jsonl")
        write_comparisons(dataset, folder / "comparisons.csv")
        # Last: until then the part has a row for each item, and a call after an interruption can resume from it.
        if refused:
            _copy_rows(part, used, final)
            part.unlink()
        else:
            part.replace(final)
    except OSError as error:
        raise OutputError(f"Cannot write {folder}: {error.strerror or error}.") from None


def _copy_rows(path: Path, kept: NDArray[np.int64], to: Path) -> None:
    """Writes some rows of a file of embeddings to another one, which is there as a whole or not at all."""
    rows, new = np.load(path, mmap_mode="r"), path.with_suffix(".kept")
    made = np.lib.format.open_memmap(new, mode="w+", dtype=rows.dtype, shape=(len(kept), rows.shape[1]))
    for start in range(0, len(kept), _CHUNK):
        made[start : start + _CHUNK] = rows[kept[start : start + _CHUNK]]
    made.flush()
    new.replace(to)


def _fill(rows: NDArray[Any], dataset: Dataset, encoder: Encoder, progress: Progress) -> dict[int, str]:
    """Embeds what is missing; returns why some items are refused, by their number."""
    refused: dict[int, str] = {}
    missing = [
        start + int(i)
        for start in range(0, len(rows), _CHUNK)
        for i in np.flatnonzero(np.isnan(rows[start : start + _CHUNK]).any(1))
    ]
    largest = float(np.finfo(rows.dtype).max)
    # Small chunks: after an interruption little is encoded again.
    for numbers, vectors in _embedded(encoder, dataset, missing, progress, refused, _WRITTEN_CHUNK):
        if not np.abs(vectors).max(initial=0) <= largest:
            raise DatasetError(f"An embedding holds a number above {largest:g}, where {rows.dtype} ends; use float32.")
        rows[numbers] = vectors
    return refused


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
