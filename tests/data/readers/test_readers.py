"""Public research data in the shapes they are published in, with made-up content: exact rows, counts and reasons."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.data.readers import READERS, personalllm, recognise
from mrm_sdk.errors import ConfigurationError, DatasetError
from mrm_sdk.schemas.feedback import Comparison
from tests.data.test_datasets import ROW, write_lines


def said(data: Dataset) -> list[tuple[str, Any, str | None, str | None]]:
    """User, prompt, chosen and rejected of each comparison."""

    def text(side: Any) -> str | None:
        return side.text  # type: ignore[no-any-return]

    rows: list[Comparison] = list(data.comparisons())
    return [(row.user_id, row.prompt, text(row.chosen), text(row.rejected)) for row in rows]


def counted(data: Dataset) -> tuple[int, int, dict[str, int]]:
    assert data.reading is not None
    assert data.reading.used + sum(data.reading.skipped.values()) == data.reading.read
    return data.reading.read, data.reading.used, dict(data.reading.skipped)


def entry(turn: int, role: str, content: str, chosen: bool | None = None, **more: Any) -> dict[str, Any]:
    extra = {} if chosen is None else {"if_chosen": chosen, "score": 50, "model_name": "m", "within_turn_id": 0}
    return {"turn": turn, "role": role, "content": content, **extra, **more}


def conversation(number: int, user: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    names = {"conversation_id": f"c{number}", "user_id": user, "conversation_turns": 2, "open_feedback": ""}
    return {**names, "conversation_history": history}


PRISM = [
    conversation(0, "user0", [
        entry(0, "user", "Hi"), entry(0, "model", "A", True), entry(0, "model", "B", False),
        entry(0, "model", "B", False), entry(0, "model", "C", False),
        entry(1, "user", "And?"), entry(1, "model", "D", False), entry(1, "model", "E", True),
    ]),
    conversation(1, "user1", [
        entry(0, "user", "Yo"), entry(0, "model", "A", True), entry(0, "model", "A", False),
        entry(1, "user", "So"), entry(1, "model", "F", False), entry(1, "model", "G", False),
        entry(2, "user", "Oh"), entry(2, "model", "H", True), entry(2, "model", "I", False),
    ]),
    conversation(2, "user1", [entry(0, "user", "Hm"), entry(0, "model", "A", True)]),
]  # fmt: skip


def test_prism(tmp_path: Path) -> None:
    write_lines(tmp_path / "conversations.jsonl", PRISM)
    write_lines(tmp_path / "survey.jsonl", [{"user_id": "user0", "age": "18-24"}])
    data = read_dataset(tmp_path)
    path = "user: Hi\nassistant: A\nuser: And?"
    assert said(data) == [
        ("user0", "user: Hi", "A", "B"), ("user0", "user: Hi", "A", "C"), ("user0", path, "E", "D"),
    ]  # fmt: skip
    assert counted(data) == (6, 2, {
        "all replies are the same text": 1,
        "0 replies are chosen, not one": 1,
        "an earlier turn of the conversation lacks the chosen reply": 1,
        "there is only one reply": 1,
    })  # fmt: skip
    assert str(data.reading).startswith("6 records read, 2 used; 1 left out: ")
    assert len(set(data.phase.tolist())) == 1  # one conversation


def test_prism_conversations_are_halves(tmp_path: Path) -> None:
    history = PRISM[0]["conversation_history"]
    rows = [conversation(n, "u", [{**e, "content": f"{e['content']}{n}"} for e in history]) for n in range(4)]
    data = read_dataset(write_lines(tmp_path / "conversations.jsonl", rows), format="prism")
    assert Counter(data.phase.tolist()) == {0: 6, 1: 6}
    assert all(len({int(p) for p in data.phase[n * 3 : n * 3 + 3]}) == 1 for n in range(4))


def summary(choice: Any = 1, worker: Any = "w", texts: tuple[str, ...] = ("s0", "s1"), **info: Any) -> dict[str, Any]:
    told = {"id": "t3", "post": "the post", "title": "t", "subreddit": "r", "site": None, "article": None, **info}
    summaries = [{"text": text, "policy": "sup", "note": None} for text in texts]
    return {"info": told, "summaries": summaries, "choice": choice, "worker": worker, "batch": "b", "split": "train"}


def test_tldr(tmp_path: Path) -> None:
    (tmp_path / "comparisons").mkdir()
    write_lines(tmp_path / "comparisons" / "batch3.json", [summary(), summary(0, "v", post=None, article="news")])
    others = [summary(None), summary(worker=None), summary(texts=("s", "s")), summary(post="")]
    write_lines(tmp_path / "comparisons" / "batch4.json", others)
    data = read_dataset(tmp_path)
    assert said(data) == [("w", "the post", "s1", "s0"), ("v", "news", "s0", "s1")]
    assert counted(data) == (6, 2, {
        "no choice was made": 1, "the worker is not known": 1, "both summaries are the same text": 1,
        "neither post nor article is there": 1,
    })  # fmt: skip


def scored(number: int, scores: list[tuple[float, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": f"p{number}", "prompt_id": number, "subset": "s"}
    for i, (kind, strict) in enumerate(scores, 1):
        told = {"": f"{number}:{i}", "_model": "m", "_rm_kind": kind, "_rm_strict": strict}
        row |= {f"response_{i}{suffix}": value for suffix, value in told.items()}
    return row


@pytest.mark.slow
def test_personalllm(tmp_path: Path) -> None:
    """With two reward models that contradict each other, a user sides with one of them, and always with the same."""
    rng = np.random.default_rng(0)
    rows = [scored(n, [(float(v), 5 - 100 * float(v)) for v in rng.standard_normal(8)]) for n in range(30)]
    kind = {r[f"response_{i}"]: r[f"response_{i}_rm_kind"] for r in rows for i in range(1, 9)}
    bad = [scored(90, [(1.0, 2.0)]), {**scored(91, [(1.0, 2.0), (2.0, 1.0)]), "response_1_rm_new": 1.0}]
    bad[1]["response_2_rm_new"] = 2.0
    path = write_lines(tmp_path / "train.jsonl", [*rows, *bad])
    reader = personalllm.reader(users=20, comparisons=25, seed=3)
    data = read_dataset(path, format=reader)
    assert (len(data), len(data.user_ids)) == (20 * 25, 20)
    sides: dict[str, set[bool]] = {}
    for user, prompt, chosen, rejected in said(data):
        assert prompt == f"p{str(chosen).split(':')[0]}"
        sides.setdefault(user, set()).add(kind[str(chosen)] > kind[str(rejected)])
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(side.pop() for side in sides.values()).keys() == {True, False}
    read, used, skipped = counted(data)
    assert (read, used) == (32, 30)
    assert skipped == {
        "fewer than two different answers have scores": 1,
        "the scores are not of the same reward models as the first record's": 1,
    }
    assert read_dataset(path, format=reader).sha256 == data.sha256
    assert read_dataset(path, format=personalllm.reader(users=20, comparisons=25)).sha256 != data.sha256
    assert len(read_dataset(path).user_ids) == 1000
    with pytest.raises(ConfigurationError, match="must be above 0"):
        personalllm.reader(concentration=0)


def chat(*contents: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if n % 2 else "user", "content": content} for n, content in enumerate(contents)]


ANSWER = [{"role": "assistant", "content": "good"}]
TRL: list[tuple[dict[str, Any], list[tuple[Any, str, str]]]] = [
    ({"prompt": "p", "chosen": "good", "rejected": "bad"}, [("p", "good", "bad")]),
    ({"prompt": chat("p"), "chosen": ANSWER, "rejected": chat("", "bad")[1:]}, [("user: p", "good", "bad")]),
    ({"chosen": chat("p", "good"), "rejected": chat("p", "bad")}, [("user: p", "good", "bad")]),
    ({"prompt": chat("p"), "chosen": chat("x", "y", "z", "good")[1:], "rejected": chat("x", "y", "z", "bad")[1:]},
     [("user: p\nassistant: y\nuser: z", "good", "bad")]),
    ({"prompt": "p", "chosen": "good", "rejected": ["bad", "worse", "good", "bad"]},
     [("p", "good", "bad"), ("p", "good", "worse")]),
    ({"chosen": "\n\nHuman: p\n\nAssistant: The good", "rejected": "\n\nHuman: p\n\nAssistant: The bad"},
     [("Human: p", "The good", "The bad")]),
    ({"chosen": "The good", "rejected": "The bad"}, [(None, "The good", "The bad")]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "wanted"), TRL, ids=[str(n) for n in range(len(TRL))])
def test_trl_forms(tmp_path: Path, row: dict[str, Any], wanted: list[tuple[Any, str, str]]) -> None:
    data = read_dataset(write_lines(tmp_path / "a.jsonl", [{"user_id": 7, **row}]), format="trl")
    assert said(data) == [("7", *one) for one in wanted]


def test_trl_does_not_say_a_prompt_twice(tmp_path: Path) -> None:
    sides = {"chosen": chat("p", "a"), "rejected": chat("p", "b")}
    rows = [{"user_id": "u", "prompt": prompt, **sides} for prompt in ("p", chat("p"), "other")]
    data = read_dataset(write_lines(tmp_path / "a.jsonl", rows), format="trl")
    prompts = [data.items[i].prompt for i in data.chosen]
    assert prompts[:2] == ["user: p"] * 2
    assert "other" in str(prompts[2])


def test_trl_does_not_say_a_prompt_twice_after_a_system_message(tmp_path: Path) -> None:
    system = {"role": "system", "content": "s"}
    sides = {"chosen": [system, *chat("p", "a")], "rejected": [system, *chat("p", "b")]}
    rows = [{"user_id": "u", "prompt": prompt, **sides} for prompt in ("p", chat("p"), [system, *chat("p")])]
    data = read_dataset(write_lines(tmp_path / "a.jsonl", rows), format="trl")
    assert [data.items[i].prompt for i in data.chosen] == ["system: s\nuser: p"] * 3


def test_trl_margins_labels_and_our_own_columns(tmp_path: Path) -> None:
    rows = [
        {**ROW, "margin": 2.5, "event_id": "e", "phase": "query"},
        {**ROW, "margin": 0},
        {**ROW, "margin": -1},
        {**ROW, "rejected": "a"},
        {"user_id": "u", "prompt": chat("p"), "completion": ANSWER, "label": True},
        {"user_id": "u", "prompt": "p", "completion": "bad", "label": False},
        {"user_id": "u", "prompt": "p", "ranking": ["x", "y"]},
    ]
    data = read_dataset(write_lines(tmp_path / "a.jsonl", rows), format="trl")
    assert [(c.strength, c.tie) for c in data.comparisons()] == [(2.5, False), (1.0, True), (1.0, False)]
    assert (data.event_ids[0], data.phase[0]) == ("e", 1)
    assert data.ratings is not None
    assert data.ratings.value.tolist() == [1.0, -1.0]
    assert [data.items[i].prompt for i in data.ratings.item] == ["user: p", "p"]
    assert counted(data) == (7, 5, {
        "the margin is negative: the other side may be the better one": 1, "both sides are the same": 1,
    })  # fmt: skip


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("prism", {"user_id": "u", "conversation_id": "c"}, "line 1: 'conversation_history' missing; found: user_id"),
    ("prism", conversation(0, "u", [entry(0, "bot", "x")]), "line 1: .*the role 'user' or 'model'"),
    ("prism", conversation(0, "u", [entry(0, "user", None)]), "line 1: 'content' must be str, not NoneType"),  # type: ignore[arg-type]
    ("tldr", summary(texts=("one",)), "line 1: 'summaries' must hold two"),
    ("tldr", summary(2), "line 1: 'choice' must be 0 or 1"),
    ("tldr", summary("1"), "line 1: 'choice' must be int, not str"),
    ("personalllm", {"prompt": "p"}, "fewer than two different answers"),
    ("personalllm", {**scored(0, [(1, 2), (2, 1)]), "response_1": 3}, "line 1: 'response_1' must be str"),
    ("trl", {"prompt": "p", "chosen": "a", "rejected": "b"}, "line 1: 'user_id' missing: TRL's data do not say"),
    ("trl", {**ROW, "rejected": [1]}, "line 1: 'rejected' must be chat messages"),
    ("trl", {**ROW, "margin": "2"}, "line 1: 'margin' must be int or float"),
    ("trl", {**ROW, "margin": 1000}, "line 1: .*strength"),
    ("trl", {"user_id": "u", "chosen": chat("p", "a"), "rejected": chat("q", "b")}, "line 1: .* part before their"),
    ("trl", {"user_id": "u", "completion": "x", "label": 1}, "line 1: 'label' must be bool"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "message"), BAD, ids=[message for *_, message in BAD])
def test_broken_records_are_named(tmp_path: Path, name: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_dataset(write_lines(tmp_path / "a.jsonl", [row]), format=name)


def test_what_is_recognised_and_what_is_not(tmp_path: Path) -> None:
    for name, row in (("prism", PRISM[0]), ("tldr", summary()), ("personalllm", scored(0, [(1, 2), (2, 1)])),
                      ("trl", {"user_id": "u", "chosen": chat("p", "a"), "rejected": chat("p", "b")}),
                      ("own", ROW), ("own", {"nothing": 1})):  # fmt: skip
        assert recognise(write_lines(tmp_path / f"{name}.jsonl", [row])) == name
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
        assert recognise(tmp_path / f"{name}.json") == name
    assert recognise(tmp_path) == "own"
    with pytest.raises(ConfigurationError, match="no format 'prisma'; use auto, own, argilla, "):
        read_dataset(tmp_path / "own.jsonl", format="prisma")
    with pytest.raises(ConfigurationError, match="nothing to choose by 'x'"):
        read_dataset(tmp_path / "own.jsonl", format="prism:x")
    with pytest.raises(DatasetError, match="holds no table 'conversations'"):
        read_dataset(tmp_path, format="prism")
    with pytest.raises(DatasetError, match=r"element 1: expected a JSON object"):
        (tmp_path / "own.json").write_text("[[1]]")
        read_dataset(tmp_path / "own.json", format="trl")
    with pytest.raises(DatasetError, match=r"own\.json: not JSON"):
        (tmp_path / "own.json").write_text("[{]")
        read_dataset(tmp_path / "own.json", format="trl")
    assert set(READERS) == {p.stem for p in Path(personalllm.__file__).parent.glob("*.py")} - {
        "__init__", "source", "fields", "traces", "chats",
    }  # fmt: skip
