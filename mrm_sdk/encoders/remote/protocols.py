"""The requests and answers of four kinds of embedding servers.

Requests ask for raw vectors if the server has the choice, and truncate long texts at their beginning, not at the end of
the answer. Field names are those in the sources of vLLM, text-embeddings-inference and SGLang.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.encoders.remote.refusal import RequestRefusedError
from mrm_sdk.errors import EncoderError

# A text, or the messages of one conversation.
Input = str | list[dict[str, Any]]


class ServerProtocol(NamedTuple):
    """One kind of server.

    Args:
        path: of its endpoint, below the server's address.
        body: model, inputs and requested dimensions (``None``: the model's own) -> the request.
        rows: the answer, decoded -> one row per input, in the order of the inputs.
    """

    path: str
    body: Callable[[str, Sequence[Input], int | None], dict[str, Any]]
    rows: Callable[[Any], list[Any]]


def _openai(model: str, inputs: Sequence[Input], dimensions: int | None) -> dict[str, Any]:
    body = {"model": model, "input": list(inputs), "encoding_format": "float"}
    return body if dimensions is None else {**body, "dimensions": dimensions}


def _vllm(model: str, inputs: Sequence[Input], _dimensions: int | None) -> dict[str, Any]:
    # The server applies its chat template to messages, and adds no second BOS to them; it takes one conversation only.
    content = {"input": list(inputs)} if isinstance(inputs[0], str) else {"messages": inputs[0]}
    truncation = {"truncate_prompt_tokens": -1, "truncation_side": "left"}
    return {"model": model, **content, "encoding_format": "float", "use_activation": False, **truncation}


def _tei(_model: str, inputs: Sequence[Input], _dimensions: int | None) -> dict[str, Any]:
    return {"inputs": list(inputs), "normalize": False, "truncate": True, "truncation_direction": "Left"}


def _sglang(model: str, inputs: Sequence[Input], _dimensions: int | None) -> dict[str, Any]:
    return {"model": model, "text": list(inputs)}


def _by_index(answer: Any, field: str) -> list[Any]:
    rows = {row["index"]: row[field] for row in answer["data"]}
    return [rows[index] for index in range(len(answer["data"]))]


PROTOCOLS: Final = {
    "openai": ServerProtocol("/v1/embeddings", _openai, lambda answer: _by_index(answer, "embedding")),
    "vllm": ServerProtocol("/pooling", _vllm, lambda answer: _by_index(answer, "data")),
    "tei": ServerProtocol("/embed", _tei, list),
    "sglang": ServerProtocol(
        "/encode",
        _sglang,
        lambda answer: [row["embedding"] for row in (answer if isinstance(answer, list) else [answer])],
    ),
}


def parse_answer(
    protocol: ServerProtocol, answer: bytes, count: int, dimension: int | None, host: str
) -> NDArray[np.float32]:
    """Returns the vectors [count, D] of an answer.

    Args:
        protocol: of the server.
        answer: its body.
        count: of the inputs.
        dimension: D, or ``None`` if it is not known yet.
        host: for messages.

    Raises:
        RequestRefusedError: a vector is missing, or not finite.
        EncoderError: it is not an answer of this kind, or not ``count`` vectors of D numbers.
    """
    try:
        rows = protocol.rows(json.loads(answer))
        if any(row is None or (isinstance(row, list) and None in row) for row in rows):  # how JSON writes NaN
            raise _not_finite(host)
        array = np.array(rows)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise EncoderError(
            f"{host} did not answer with one vector per text, as {protocol.path} does. "
            "Check that the address and the protocol belong together."
        ) from None
    if len(rows) != count:
        raise EncoderError(f"{host} returned {len(rows)} vectors for {count} texts; nothing of this answer was used.")
    if array.ndim == 3:
        raise EncoderError(
            f"{host} returned one vector per token, not one per text. Start the server so that it pools: for vLLM, "
            "with a pooler configuration whose pooling type is LAST (reward models) or MEAN."
        )
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
        raise EncoderError(f"{host} returned something else than lists of numbers; nothing of this answer was used.")
    if dimension is not None and array.shape[1] != dimension:
        raise EncoderError(
            f"{host} returned vectors of {array.shape[1]} numbers where {dimension} are expected. "
            "Use the model that the bundle was trained with."
        )
    if not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise _not_finite(host)
    return array.astype(np.float32)


def _not_finite(host: str) -> RequestRefusedError:
    return RequestRefusedError(
        f"{host} returns NaN or infinity for this text. Shorten or leave out the text.",
        EncoderError(f"{host} returned NaN or infinity; nothing of this answer was used."),
    )
