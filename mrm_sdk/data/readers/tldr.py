"""OpenAI's summarize_from_feedback, comparisons: which of two summaries a worker chose.

One record is a comparison. The worker is the user and the post (or article) the prompt; comparisons of one post are a
group. Download the folder ``comparisons`` (its ``batch*.json``), or read ``hub:openai/summarize_from_feedback``.
"""

from __future__ import annotations

from collections.abc import Iterator

from mrm_sdk.data.readers.fields import need
from mrm_sdk.data.readers.source import Outcome, Reader, Row, only, per_record
from mrm_sdk.errors import InvalidInputError


def reader(*, phases_by_split: bool = False) -> Reader:
    """A reader that, if ``phases_by_split``, takes the split ``train`` as support and any other one as query."""

    def with_phase(record: Row) -> Iterator[Outcome]:
        phase = {"phase": "support" if need(record, "split") == "train" else "query"} if phases_by_split else {}
        for outcome in _comparison(record):
            yield outcome if isinstance(outcome, str) else [{**row, **phase} for row in outcome]

    return per_record("comparisons", with_phase, only("info", "summaries", "choice", "worker", also=("split",)))


def _comparison(record: Row) -> Iterator[Outcome]:
    info, summaries = need(record, "info", dict), need(record, "summaries", list)
    if len(summaries) != 2 or not all(isinstance(summary, dict) for summary in summaries):
        raise InvalidInputError("'summaries' must hold two summaries")
    texts = [need(summary, "text") for summary in summaries]
    prompt = info.get("post") or info.get("article")
    if record.get("choice") is None:
        yield "no choice was made"
        return
    choice = need(record, "choice", int)
    if choice not in (0, 1):
        raise InvalidInputError("'choice' must be 0 or 1")
    if not record.get("worker"):
        yield "the worker is not known"
    elif not prompt:
        yield "neither post nor article is there"
    elif texts[0] == texts[1]:
        yield "both summaries are the same text"
    else:
        group = {} if info.get("id") is None else {"group": str(info["id"])}
        pair = {"chosen": texts[choice], "rejected": texts[1 - choice]}
        yield [{"user_id": str(record["worker"]), "prompt": prompt, **pair, **group}]


read = reader()
