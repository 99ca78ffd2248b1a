"""PRISM's ``conversations.jsonl``: people chat with several models at once and choose a reply.

One record is a turn: the chosen reply is compared with each other reply of the same turn, and the prompt is the path
that the person chose so far. A conversation is a group, so it is never split between support and query.
``survey.jsonl`` may lie beside it; nothing in it says which reply is better, so it is not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from mrm_sdk.data.readers.fields import need
from mrm_sdk.data.readers.source import Outcome, Row, only, per_record
from mrm_sdk.errors import InvalidInputError

_ROLES = {"user": "user", "model": "assistant"}


def _turns(conversation: Row) -> Iterator[Outcome]:
    user_id, group = str(need(conversation, "user_id", (str, int))), need(conversation, "conversation_id")
    history = need(conversation, "conversation_history", list)
    turns: dict[int, list[Row]] = {}
    for entry in history:
        if not isinstance(entry, dict) or entry.get("role") not in _ROLES:
            raise InvalidInputError("'conversation_history' must hold entries with the role 'user' or 'model'")
        turns.setdefault(need(entry, "turn", int), []).append(entry)
    path: list[dict[str, str]] = []
    lost = False
    for _, entries in sorted(turns.items()):
        prompts = [need(entry, "content") for entry in entries if entry["role"] == "user"]
        replies = [entry for entry in entries if entry["role"] == "model"]
        chosen = [need(entry, "content") for entry in replies if entry.get("if_chosen") is True]
        others = [need(entry, "content") for entry in replies if entry.get("if_chosen") is not True]
        if lost:
            yield "an earlier turn of the conversation lacks the chosen reply"
            continue
        if len(prompts) != 1 or len(chosen) != 1:
            lost = True
            yield "the turn has no message of the user" if not prompts else f"{len(chosen)} replies are chosen, not one"
            continue
        path.append({"role": "user", "content": prompts[0]})
        common = {"user_id": user_id, "group": group, "prompt": list(path), "chosen": chosen[0]}
        path.append({"role": "assistant", "content": chosen[0]})
        distinct = [other for other in dict.fromkeys(others) if other != chosen[0]]
        if distinct:
            yield [{**common, "rejected": other} for other in distinct]
        else:
            yield "all replies are the same text" if others else "there is only one reply"


read = per_record("conversations", _turns, only("user_id", "conversation_id", "conversation_history"))
