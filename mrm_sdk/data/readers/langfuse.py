"""Langfuse's scores, with the traces they are about.

A score holds neither texts nor its user: export a folder with ``scores.jsonl`` and ``traces.jsonl`` (``id``,
``userId``, ``input``, ``output``). One record is a score: NUMERIC becomes a rating, BOOLEAN a thumb, and a CORRECTION a
comparison of the corrected text with the output. Posting upserts, so of scores with one id the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from mrm_sdk.data.readers.fields import need
from mrm_sdk.data.readers.source import Outcome, Reader, Row, Source
from mrm_sdk.data.readers.traces import answer, one_scale
from mrm_sdk.errors import DatasetError, InvalidInputError

_TRACES = "Langfuse's scores hold neither texts nor users: put traces.jsonl beside them (id, userId, input, output)."


def reader(name: str | None = None) -> Reader:
    """A reader of the scores with one ``name``; without it, of the only one."""

    def read(source: Source) -> Iterator[tuple[str, Outcome]]:
        scores = list(source.table("scores", "Export scores as scores.jsonl."))
        traces = {str(trace.get("id")): trace for _, trace in source.table("traces", _TRACES)}
        wanted = one_scale((str(score.get("name")) for _, score in scores), name, source, "langfuse")
        last = {str(score.get("id", number)): number for number, (_, score) in enumerate(scores)}
        for number, (location, score) in enumerate(scores):
            if str(score.get("name")) != wanted:
                yield location, "a score of another name"
            elif last[str(score.get("id", number))] != number:
                yield location, "a later score has the same id"
            else:
                try:
                    yield location, _judged(score, traces.get(str(score.get("traceId")), {}))
                except InvalidInputError as error:
                    raise DatasetError(f"{location}: {error}") from None

    return read


def _judged(score: Row, trace: Row) -> Outcome:
    if score.get("source") == "EVAL":
        return "a model judged"
    if not trace:
        return "its trace is not in traces.jsonl"
    if not trace.get("userId"):
        return "the trace has no userId"
    answered = answer(trace, "input", "output")
    if answered is None:
        return "no answer is found in the trace's output"
    common, kind = {"user_id": str(trace["userId"]), "prompt": answered["prompt"]}, score.get("dataType", "NUMERIC")
    if kind == "CORRECTION":
        corrected = score.get("stringValue", score.get("value"))
        if not isinstance(corrected, str) or corrected in ("", answered["response"]):
            return "the correction changes nothing"
        return [{**common, "chosen": corrected, "rejected": answered["response"]}]
    if kind not in ("NUMERIC", "BOOLEAN"):
        return "the score is CATEGORICAL, and which category is better is not stated"
    value = need(score, "value", (bool, int, float))
    judged = {"thumb": bool(value)} if kind == "BOOLEAN" else {"rating": float(value)}
    return [{**common, "response": answered["response"], **judged}]


read = reader()
