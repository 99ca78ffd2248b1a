"""Chat messages as programs write them: each says what it says in a data set, and what is not understood is refused."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
from pydantic import BaseModel

from mrm_sdk.errors import InvalidInputError
from mrm_sdk.schemas.feedback import Comparison, Ranking, Rating, Thumb
from mrm_sdk.schemas.items import Item, Message, Response, prompt_text
from mrm_sdk.schemas.messages import content_of, role_and_text, said

SECRET = "s3cret-word"
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


class Function(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str = "call_1"
    type: str = "function"
    function: Function


class Written(BaseModel):
    """A message as the openai client gives it back."""

    role: str = "assistant"
    content: str | None = None
    refusal: str | None = None
    annotations: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    provider_specific_fields: dict[str, str] | None = None


ASKED = ToolCall(function=Function(name="weather", arguments='{"city": "Oslo"}'))
MESSAGES: list[tuple[Any, str]] = [
    ({"role": "user", "content": "hi"}, "hi"),
    ({"role": "user", "content": ""}, ""),
    ({"role": "user", "content": "hi", "name": "ann"}, "hi"),
    ({"role": "tool", "content": "7", "tool_call_id": "call_1"}, "7"),
    ({"role": "assistant", "content": None, "tool_calls": [CALL]}, '[call weather {"city": "Oslo"}]'),
    ({"role": "assistant", "tool_calls": [CALL, CALL]}, '[call weather {"city": "Oslo"}]\n' * 2),
    ({"role": "assistant", "content": "One moment.", "tool_calls": [ASKED]},
     'One moment.\n[call weather {"city": "Oslo"}]'),
    ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, "[call f {}]"),
    ({"role": "assistant", "content": None, "refusal": "No."}, "No."),
    ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]}, "a\nb"),
    ({"role": "user", "content": ({"type": "text", "text": "a"},)}, "a"),
    ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, "No."),
    (UserDict({"role": "user", "content": "hi"}), "hi"),
    (Message(role="user", content="hi"), "hi"),
    (Written(content="hi"), "hi"),
    (Written(content="hi", provider_specific_fields={"cached": "yes"}), "hi"),
    (Written(tool_calls=[ASKED]), '[call weather {"city": "Oslo"}]'),
]  # fmt: skip


@pytest.mark.parametrize(("message", "text"), MESSAGES, ids=[str(n) for n in range(len(MESSAGES))])
def test_what_a_message_says(message: Any, text: str) -> None:
    text = text.strip()
    role = role_and_text(message)[0]
    assert role_and_text(message)[1] == text
    feedback = Comparison(user_id="ada", prompt=[message], chosen=message, rejected=[{"role": "user", "content": "?"}])
    assert feedback.prompt == (Message(role=role, content=text),)
    assert (feedback.chosen, feedback.rejected) == (text, "?")
    assert prompt_text([message]) == f"{role}: {text}"
    assert Item.of([message], [message]).key == Item.of(f"{role}: {text}", text).key
    assert Response.of(message) == Response.of([message]) == Response(text=text)


def test_all_kinds_of_feedback_take_messages() -> None:
    yes, no = ([{"role": "assistant", "content": word}] for word in ("yes", "no"))
    assert Rating(user_id="ada", response=yes, value=1).response == "yes"
    assert Thumb(user_id="ada", response=yes, up=True).response == "yes"
    assert Ranking(user_id="ada", responses=[yes, no, "maybe"]).responses == ("yes", "no", "maybe")
    with pytest.raises(InvalidInputError, match="those at 0 and 1 are the same"):
        Ranking(user_id="ada", responses=[yes, "yes"])


def test_pictures_are_told_apart() -> None:
    shown = content_of([{"type": "text", "text": "What is it?"}, IMAGE])
    assert str(shown).startswith("What is it?\n[image_url ")
    other = content_of([{"type": "text", "text": "What is it?"}, {**IMAGE, "image_url": {"url": "b.png"}}])
    assert shown != other
    assert prompt_text([{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}]) == (
        f"user: {shown}"
    )


REFUSED: list[tuple[Any, str]] = [
    ({"role": "user"}, "says nothing"),
    ({"role": "user", "content": None}, "says nothing"),
    ({"role": "assistant", "content": None, "tool_calls": []}, "says nothing"),
    ({"content": SECRET}, "needs a role"),
    ({"role": 7, "content": SECRET}, "needs a role"),
    ({"role": "user", "content": 7}, "content: expected a text"),
    ({"role": "user", "content": [{"text": 7}]}, "content: expected a text"),
    ({"role": "user", "content": [{"type": "text"}]}, "content: expected a text"),
    ({"role": "user", "content": SECRET, "tool_cals": [CALL]}, "there is no tool_cals; did you mean tool_calls?"),
    ({"role": "user", "content": SECRET, "weather": SECRET}, "there is no weather"),
    ({"role": "assistant", "content": None, "tool_calls": [SECRET]}, "tool_calls: expected"),
    ({"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}]}, "tool_calls: expected"),
    ({"role": "assistant", "content": SECRET, "refusal": 7}, "refusal: expected"),
    ({"role": "user", "content": "\ud800"}, "not valid Unicode"),
    (Written(), "says nothing"),
    (7, "expected a chat message with role and content, not int"),
    (None, "not NoneType"),
    (Written, "not ModelMetaclass"),
    (b"hi", "not bytes"),
]


@pytest.mark.parametrize(("message", "why"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_is_not_understood_is_refused(message: Any, why: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Comparison(user_id="ada", prompt=[{"role": "user", "content": "hi"}, message], chosen="a", rejected="b")
    assert str(caught.value).startswith("Invalid Comparison: prompt: message 1: ")
    assert why in str(caught.value)
    assert SECRET not in str(caught.value)
    with pytest.raises(InvalidInputError, match=r"Invalid [rR]esponse: ") as caught:
        Response.of(message)
    assert SECRET not in str(caught.value)


def test_a_message_nested_without_end() -> None:
    message: dict[str, Any] = {"role": "user", "content": []}
    message["content"].append({"type": "text", "text": "hi", "inner": message})
    with pytest.raises(InvalidInputError, match="nested too deeply"):
        prompt_text([message])


def test_an_answer_is_one_message() -> None:
    turns = [{"role": "user", "content": SECRET}, {"role": "assistant", "content": SECRET}]
    for answer in (turns, [], [SECRET], turns[0]["content"].encode()):
        with pytest.raises(InvalidInputError, match=r"expected (one message, not 2|a text, a Response)") as caught:
            Rating(user_id="ada", response=answer, value=1)  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)


def test_parts_of_content() -> None:
    assert content_of(["a", {"type": "text", "text": "b"}, {"type": "refusal", "refusal": "No."}]) == "a\nb\nNo."
    assert content_of([{"type": "tool_use", "name": "f", "input": {"x": 1}}]) == '[call f {"x": 1}]'
    assert content_of([{"type": "text"}]) is None
    assert content_of([7]) is None
    assert content_of(None) is None
    assert said({"role": "user"}) == ""
