"""Items of a data set, and embeddings beside them that are mapped, not read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.ids import id_text
from mrm_sdk.data.naming import TableNaming
from mrm_sdk.data.problems import OnBadRow, stop
from mrm_sdk.data.rows import read_rows
from mrm_sdk.errors import DatasetError, InvalidInputError
from mrm_sdk.schemas.frozen import checked_text
from mrm_sdk.schemas.items import Item, Response

EMBEDDINGS = "embeddings.npy"
_SAMPLED = 64


class MappedItems(Sequence[Item]):
    """Items whose embeddings lie in a file: each is made when it is asked for, with its row of the file.

    Args:
        prompts: of the items.
        texts: of the items; ``None`` where only the embedding is known.
        embeddings: row i belongs to item i, [items, D] float16 or float32.
    """

    def __init__(self, prompts: list[str | None], texts: list[str | None], embeddings: NDArray[Any]) -> None:
        self._prompts, self._texts, self._embeddings = prompts, texts, embeddings

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return Item(self._prompts[index], self._texts[index], vectors(self._embeddings, [index])[0])


def vectors(embeddings: NDArray[Any], rows: Sequence[int] | NDArray[np.int64] | slice) -> NDArray[np.float32]:
    """Reads some rows of embeddings, and only those: [rows, D] float32.

    Raises:
        DatasetError: a row holds NaN or infinity; the message says which one.
    """
    with np.errstate(invalid="ignore"):
        out = np.asarray(embeddings[rows], np.float32)
    finite = np.isfinite(out).all(1)
    if not finite.all():
        first = np.arange(len(embeddings))[rows][int(np.argmin(finite))]
        raise DatasetError(
            f"{EMBEDDINGS}, row {first} (counted from 0): NaN or infinity. Check the encoder that made it; "
            "float16 ends at 65504, so save larger values as float32."
        )
    return out


@dataclass(frozen=True)
class Catalogue:
    """Items that rows name by id.

    Args:
        index: item id -> location in ``items``.
        items: in the order of the file.
        keys: what tells items apart, 32 bytes each: content; with mapped embeddings, id and text.
        embeddings: mapped from a file, [items, D]; ``None`` where items bring their own, or have none.
    """

    index: dict[str, int]
    items: Sequence[Item]
    keys: list[bytes]
    embeddings: NDArray[Any] | None


def read_items(path: Path, naming: TableNaming | None = None, on_bad_row: OnBadRow = stop) -> Catalogue:
    """Reads ``items.jsonl[.gz]``, and maps ``embeddings.npy`` where one lies beside it.

    Args:
        path: of the items.
        naming: says what the columns are called.
        on_bad_row: called with a row that is wrong; it is left out.

    Raises:
        DatasetError: the content is wrong; the message names file and line, or the row of the embeddings. Beside
            ``embeddings.npy`` no row can be left out.
    """
    mapped = path.parent / EMBEDDINGS
    index: dict[str, int] = {}
    items: list[Item] = []
    prompts: list[str | None] = []
    texts: list[str | None] = []
    keys: list[bytes] = []
    shared: dict[str, str] = {}  # prompts are long and come once per response
    with_file = mapped.is_file()
    bad = 0

    def report(problem: DatasetError) -> None:
        nonlocal bad
        bad += 1
        on_bad_row(problem)

    for location, row in read_rows(path, naming, report):
        try:
            if "item_id" not in row:
                raise InvalidInputError("'item_id' is missing")
            name = id_text("item_id", row["item_id"])
            if name in index:
                raise InvalidInputError(f"item id {name!r} appears twice")
            if with_file:
                if row.get("embedding") is not None:
                    raise InvalidInputError(
                        f"an 'embedding' here and {EMBEDDINGS} beside the file; keep one of the two"
                    )
                prompt, text = _texts(row)
                prompts.append(prompt if prompt is None else shared.setdefault(prompt, prompt))
                texts.append(text)
                keys.append(hashlib.sha256(json.dumps([name, prompt, text]).encode()).digest())
            else:
                item = _item(row)
                check_size(item, size_of(items[0]) if items else None)
                items.append(item)
                keys.append(item.key)
        except InvalidInputError as error:
            report(DatasetError(f"{location}: {error}"))
            continue
        index[name] = len(index)
    if not index:
        raise DatasetError(f"{path} holds no items.")
    if not with_file:
        return Catalogue(index, items, keys, None)
    if bad:
        raise DatasetError(
            f"{path} has {bad} bad lines, which cannot be left out: row i of {EMBEDDINGS} belongs to line i. "
            "Correct them, or take both away."
        )
    embeddings = _map(mapped, len(index), path.name)
    return Catalogue(index, MappedItems(prompts, texts, embeddings), keys, embeddings)


def size_of(item: Item) -> int:
    """How many numbers the item's own embedding has; 0 where there is none."""
    return 0 if item.embedding is None else len(item.embedding)


def check_size(item: Item, size: int | None) -> None:
    """Checks that an item's embedding has as many numbers as those before; ``None``: there are none before.

    Raises:
        InvalidInputError: it has not.
    """
    if size is not None and size_of(item) != size:
        raise InvalidInputError(
            f"all items must have embeddings of one size, or none; this one has {size_of(item) or 'none'}, "
            f"earlier ones have {size or 'none'}"
        )


def sample_bytes(embeddings: NDArray[Any]) -> bytes:
    """What stands for a file of embeddings in a hash: its shape, its type, and some of its rows."""
    rows = np.unique(np.linspace(0, len(embeddings) - 1, _SAMPLED).astype(np.int64))
    return repr((embeddings.shape, embeddings.dtype.str)).encode() + embeddings[rows].tobytes()


def is_plain(text: object) -> bool:
    """Whether ``text`` needs no further check: a ``str`` that every database can hold."""
    if type(text) is not str:
        return False
    try:
        checked_text(text)
    except ValueError:
        return False
    return True


def _item(row: dict[str, Any]) -> Item:
    if is_plain(row.get("response")) and row.get("embedding") is None and _is_plain_prompt(row.get("prompt")):
        return Item(row.get("prompt"), row["response"], None)
    return Item.of(row.get("prompt"), Response(text=row.get("response"), embedding=row.get("embedding")))


def _texts(row: dict[str, Any]) -> tuple[str | None, str | None]:
    prompt, text = row.get("prompt"), row.get("response")
    if not (_is_plain_prompt(prompt) and (text is None or is_plain(text))):
        item = Item.of(prompt, Response(text="" if text is None else text))
        prompt = item.prompt
    return prompt, text


def _is_plain_prompt(prompt: object) -> bool:
    return prompt is None or is_plain(prompt)


def _map(path: Path, count: int, beside: str) -> NDArray[Any]:
    try:
        embeddings: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read as .npy: {error}. Write it with numpy.save.") from None
    if embeddings.dtype not in (np.float16, np.float32):
        raise DatasetError(f"{path} holds {embeddings.dtype}; expected float16 or float32.")
    if embeddings.ndim != 2 or not embeddings.shape[-1]:
        raise DatasetError(f"{path} has the shape {list(embeddings.shape)}; expected [items, D].")
    if len(embeddings) != count:
        raise DatasetError(
            f"{path} has {len(embeddings)} rows, {beside} has {count} items; row i must belong to line i. "
            f"The first without a counterpart is row {min(len(embeddings), count)} (counted from 0)."
        )
    return embeddings
