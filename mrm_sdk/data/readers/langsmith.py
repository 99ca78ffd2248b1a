"""LangSmith's feedback, with the runs it is about.

Feedback holds no texts: export a folder with ``feedback.jsonl`` (``list_feedback``) and ``runs.jsonl`` (``list_runs``:
``id``, ``inputs``, ``outputs``). One record is a pairwise judgement (``comparative_experiment_id`` or
``feedback_group_id``, one score per run), or a single score, which becomes a rating. The user is
``feedback_source.user_id``, else ``user_id`` in the metadata of the feedback's source or of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from mrm_sdk.data.ids import id_text
from mrm_sdk.data.readers.chats import unpacked
from mrm_sdk.data.readers.fields import need
from mrm_sdk.data.readers.source import Outcome, Reader, Row, Source, only
from mrm_sdk.data.readers.traces import dig, last_of_each_id, one_scale, traced
from mrm_sdk.errors import DatasetError, InvalidInputError

_RUNS = "LangSmith's feedback holds no texts: put the runs beside it as runs.jsonl (id, inputs, outputs)."
_RUNS_USED = only("id", "inputs", "outputs", also=("extra", "reference_example_id"))
_FEEDBACK_USED = only(
    "run_id", "key", "score", also=("id", "feedback_source", "feedback_group_id", "comparative_experiment_id")
)


def reader(key: str | None = None) -> Reader:
    """A reader of the feedback with one ``key``; without it, of the only one."""

    def read(source: Source) -> Iterator[tuple[str, Outcome]]:
        feedback = list(source.table("feedback", "Export it with list_feedback as feedback.jsonl.", _FEEDBACK_USED))
        runs = {str(run.get("id")): run for _, run in source.table("runs", _RUNS, _RUNS_USED)}
        chosen = one_scale((str(row.get("key")) for _, row in feedback), key, source, "langsmith")
        groups: dict[object, list[tuple[Row, Any]]] = {}
        locations: dict[object, str] = {}
        counting = last_of_each_id(feedback)
        for number, (location, row) in enumerate(feedback):
            if number not in counting:
                yield location, "later feedback has the same id"
                continue
            try:
                run = runs.get(str(need(row, "run_id")), {})
                judged = "feedback with another key" if str(row.get("key")) != chosen else _judged(row, run)
            except InvalidInputError as error:
                source.on_bad_row(DatasetError(f"{location}: {error}"))
                continue
            if isinstance(judged, str):
                yield location, judged
                continue
            group = _group(row, run) or location
            locations.setdefault(group, location)
            groups.setdefault(group, []).append((judged, unpacked(run.get("inputs"))))
        for name, rated in groups.items():
            yield locations[name], [rated[0][0]] if name == locations[name] else _pairs(rated)

    return read


def _judged(row: Row, run: Row) -> Row | str:
    """Whose feedback it is, on what, and its score; or why it is of no use."""
    if dig(unpacked(row.get("feedback_source")), "type") in ("model", "auto_eval"):
        return "a model judged"
    if not isinstance(row.get("score"), bool | int | float):
        return "the feedback has no score"
    if not run:
        return "its run is not in runs.jsonl"
    said = traced("the run", run, "inputs", "outputs")
    if isinstance(said, str):
        return said
    user_id = _user(row, run)
    return "the user is not known" if user_id is None else {"user_id": user_id, **said, "rating": float(row["score"])}


def _user(row: Row, run: Row) -> str | None:
    source, extra = unpacked(row.get("feedback_source")), unpacked(run.get("extra"))
    user_id = dig(source, "user_id") or dig(source, "metadata", "user_id") or dig(extra, "metadata", "user_id")
    return None if user_id is None else id_text("user_id", user_id)


def _group(row: Row, run: Row) -> tuple[str, ...] | None:
    """What the scores of one pairwise judgement have in common; ``None`` where it is a single score."""
    by = str(_user(row, run))
    if row.get("feedback_group_id") is not None:
        return "group", str(row["feedback_group_id"]), by
    if row.get("comparative_experiment_id") is not None:
        return "experiment", str(row["comparative_experiment_id"]), str(run.get("reference_example_id")), by
    return None


def _pairs(group: list[tuple[Row, Any]]) -> Outcome:
    """The comparisons that scores of one judgement make; each comes with all that its run was given."""
    if len(group) < 2:
        return "a pairwise judgement with only one run"
    if any(inputs != group[0][1] for _, inputs in group):
        return "the runs compared have different inputs"
    rated = sorted((row for row, _ in group), key=lambda row: -row["rating"])
    common = {"user_id": rated[0]["user_id"], "prompt": rated[0]["prompt"]}
    rows = []
    for first, second in combinations(rated, 2):
        if first["response"] != second["response"]:
            sides = {"chosen": first["response"], "rejected": second["response"]}
            rows.append({**common, **sides, "tie": first["rating"] == second["rating"]})
    return rows or "the runs compared gave the same text"


read = reader()
