"""Langfuse's scores, with the traces they are about.

A score holds neither texts nor its user: export a folder with ``scores.jsonl`` and ``traces.jsonl`` (``id``,
``userId``, ``input``, ``output``). One record is a score: NUMERIC becomes a rating, BOOLEAN a thumb, and a CORRECTION a
comparison of the corrected text with the output. Posting upserts, so of scores with one id the last one counts. The
tables of the blob storage export (``trace_id``) and CSV are read too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from mrm_sdk.data.parquet import Used
from mrm_sdk.data.readers.fields import need
from mrm_sdk.data.readers.source import Outcome, Reader, Row, Source, only
from mrm_sdk.data.readers.traces import last_of_each_id, one_scale, traced
from mrm_sdk.errors import DatasetError, InvalidInputError

_TRACES = "Langfuse's scores hold neither texts nor users: put traces.jsonl beside them (id, userId, input, output)."


def reader(name: str | None = None) -> Reader:
    """A reader of the scores with one ``name``; without it, of the only one."""

    def read(source: Source) -> Iterator[tuple[str, Outcome]]:
        table = source.table("scores", "Export scores as scores.jsonl.", _SCORES_USED)
        scores = [(location, _named(row)) for location, row in table]
        traces = {str(row.get("id")): _named(row) for _, row in source.table("traces", _TRACES, _TRACES_USED)}
        wanted = one_scale((str(score.get("name")) for _, score in scores), name, source, "langfuse")
        counting = last_of_each_id(scores)
        for number, (location, score) in enumerate(scores):
            if str(score.get("name")) != wanted:
                yield location, "a score of another name"
            elif number not in counting:
                yield location, "a later score has the same id"
            else:
                try:
                    yield location, _judged(score, traces.get(str(score.get("traceId")), {}))
                except InvalidInputError as error:
                    source.on_bad_row(DatasetError(f"{location}: {error}"))

    return read


def _named(record: Row) -> Row:
    """A record with the names of the API, where the export to a blob storage has ``trace_id`` for ``traceId``."""
    return {_name(column): value for column, value in record.items()}


def _name(column: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), column)


def _only(*needed: str, also: Collection[str] = ()) -> Used:
    chosen = only(*needed, also=also)

    def used(columns: Sequence[str]) -> Collection[str]:
        names = set(chosen([_name(column) for column in columns]))
        return [column for column in columns if _name(column) in names]

    return used


_SCORES_USED = _only("name", "traceId", "value", also=("id", "source", "observationId", "dataType", "stringValue"))
_TRACES_USED = _only("id", "userId", "input", "output")


def _judged(score: Row, trace: Row) -> Outcome:
    if score.get("source") == "EVAL":
        return "a model judged"
    if score.get("observationId"):
        return "the score is about one observation, not about the trace's answer"
    if not trace:
        return "its trace is not in traces.jsonl"
    if not trace.get("userId"):
        return "the trace has no userId"
    said = traced("the trace", trace, "input", "output")
    if isinstance(said, str):
        return said
    common, kind = {"user_id": trace["userId"], "prompt": said["prompt"]}, score.get("dataType", "NUMERIC")
    if kind == "CORRECTION":
        corrected = score.get("stringValue", score.get("value"))
        if not isinstance(corrected, str) or corrected in ("", said["response"]):
            return "the correction changes nothing"
        return [{**common, "chosen": corrected, "rejected": said["response"]}]
    if kind not in ("NUMERIC", "BOOLEAN"):
        return "the score is CATEGORICAL, and which category is better is not stated"
    value = need(score, "value", (bool, int, float))
    judged = {"thumb": bool(value)} if kind == "BOOLEAN" else {"rating": float(value)}
    return [{**common, "response": said["response"], **judged}]


read = reader()
