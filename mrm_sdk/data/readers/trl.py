"""TRL's preference and unpaired data with a column ``user_id``, and our own columns.

Texts or chat messages, with a prompt of their own, which both sides may repeat, or one that both begin with. A list
of texts as ``rejected`` is as many comparisons. ``margin`` becomes the strength, 0 a tie. ``completion`` with ``label``
becomes a thumb.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mrm_sdk.data.readers.chats import chat_of
from mrm_sdk.data.readers.fields import messages, need
from mrm_sdk.data.readers.source import Outcome, Row, per_record
from mrm_sdk.errors import InvalidInputError

_KEPT = ("user_id", "event_id", "created_at", "phase", "group", "tie", "strength")
_OWN = ("ranking", "rating", "thumb")
_ASSISTANT = "\n\nAssistant:"


def _record(record: Row) -> Iterator[Outcome]:
    if "user_id" not in record:
        raise InvalidInputError(
            "'user_id' missing: TRL's data do not say who judged; add it, or name the column that does: "
            "--column user_id=NAME"
        )
    common = {key: record[key] for key in _KEPT if key in record}
    if "completion" in record and "label" in record:
        prompt, text = _completed(record, "completion")
        yield [{**common, "prompt": prompt, "response": text, "thumb": need(record, "label", bool)}]
    elif any(key in record for key in _OWN) and "chosen" not in record:
        yield [record]
    else:
        yield _pairs(record, common)


def _pairs(record: Row, common: Row) -> Outcome:
    margin = record.get("margin")
    if margin is not None:
        margin = float(need(record, "margin", (int, float)))
        if margin < 0:
            return "the margin is negative: the other side may be the better one"
        common |= {"strength": margin} if margin else {"tie": True}
    rejected = need(record, "rejected", (str, list))
    if isinstance(rejected, list) and all(isinstance(text, str) for text in rejected):
        sides = [{**record, "rejected": text} for text in dict.fromkeys(rejected)]
    else:
        sides = [record]
    rows = []
    for number, side in enumerate(sides, 1):
        prompt, chosen, other = _shared(side) if "prompt" not in side else _explicit(side)
        if chosen != other:
            named = {"event_id": f"{common['event_id']}-{number}"} if "event_id" in common and len(sides) > 1 else {}
            rows.append({**common, **named, "prompt": prompt, "chosen": chosen, "rejected": other})
    return rows or "both sides are the same"


def _explicit(record: Row) -> tuple[Any, str, str]:
    prompt, chosen = _completed(record, "chosen")
    other_prompt, rejected = _completed(record, "rejected")
    if prompt != other_prompt:
        raise InvalidInputError("'chosen' and 'rejected' part before their last message; give one answer each")
    return prompt, chosen, rejected


def _completed(record: Row, key: str) -> tuple[Any, str]:
    """Prompt and answer, where all but the last message of several belong to the prompt."""
    prompt = record.get("prompt")
    if isinstance(need(record, key, (str, list)), str):
        return prompt, record[key]
    said = messages(record, key)
    before = said[:-1]
    if prompt is not None and chat_of(prompt) is None:
        prompt = [{"role": "user", "content": need(record, "prompt")}]
    prompt_messages = messages({"prompt": prompt}, "prompt") if prompt else []
    # Full chats begin with the prompt, perhaps after a system message of their own: it is not said twice.
    start = next((i for i, message in enumerate(before) if message["role"] != "system"), 0)
    repeated = prompt_messages in (before[: len(prompt_messages)], before[start : start + len(prompt_messages)])
    return (before if repeated else [*prompt_messages, *before]) or None, said[-1]["content"]


def _shared(record: Row) -> tuple[Any, str, str]:
    """The implicit form: both sides begin with the prompt."""
    if isinstance(need(record, "chosen", (str, list)), list):
        chosen, rejected = messages(record, "chosen"), messages(record, "rejected")
        if chosen[:-1] != rejected[:-1]:
            raise InvalidInputError("'chosen' and 'rejected' part before their last message; give one answer each")
        return chosen[:-1] or None, chosen[-1]["content"], rejected[-1]["content"]
    texts = record["chosen"], need(record, "rejected")
    # Only at the last turn: answers may begin with the same words, which are no part of the prompt.
    ends = [text.rfind(_ASSISTANT) for text in texts]
    if min(ends) < 0 or texts[0][: ends[0]] != texts[1][: ends[1]]:
        return None, *texts
    return texts[0][: ends[0]].strip(), *(
        text[end + len(_ASSISTANT) :].strip() for text, end in zip(texts, ends, strict=True)
    )


read = per_record("train", _record)
