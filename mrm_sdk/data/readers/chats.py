"""Chats, prompts and answers in the forms that programs write them: OpenAI, Anthropic, Gemini, LangChain, templates.

What a form leaves no doubt about is read; anything else is ``None``, and its record is left out and counted. A prompt
never becomes ``None`` in a record that is used: ratings are compared where their prompts are equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from mrm_sdk.schemas.messages import as_json, content_of, said

Chat: TypeAlias = list[dict[str, str]]

# Where programs that trace calls put an answer, the likeliest first.
_ANSWERS: Final = ("output", "answer", "response", "completion", "text", "content", "message", "messages")
# Of a request to a model what is no part of the question.
_PARAMETERS: Final = {
    "model", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "seed",
    "stop", "stop_sequences", "stream", "stream_options", "frequency_penalty", "presence_penalty", "logit_bias",
    "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "functions", "user",
    "function_call", "metadata", "config", "generation_config", "generationConfig", "safety_settings", "reasoning",
    "safetySettings", "reasoning_effort", "store", "timeout", "callbacks", "run_id", "session_id",
}  # fmt: skip
_ROLES: Final = {
    "human": "user", "HumanMessage": "user", "HumanMessageChunk": "user",
    "ai": "assistant", "AIMessage": "assistant", "AIMessageChunk": "assistant", "model": "assistant",
    "SystemMessage": "system", "ToolMessage": "tool", "FunctionMessage": "function",
    "system": "system", "developer": "developer", "tool": "tool", "function": "function",
    "user": "user", "assistant": "assistant", "gpt": "assistant",
}  # fmt: skip
_SAYING: Final = ("content", "parts", "tool_calls", "function_call", "refusal")
_SYSTEM: Final = ("system", "instructions", "system_prompt", "system_instruction", "systemInstruction")
_NO_TEXT: Final = ("", "null")
_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {})
# JSON in JSON in JSON: no program was seen to go further.
_DEPTH: Final = 4


def unpacked(value: Any) -> Any:
    """JSON within a text becomes what it says, also where it is packed several times; anything else stays."""
    for _ in range(_DEPTH):
        if not isinstance(value, str) or value.strip()[:1] not in ("{", "[", '"'):
            return value
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def prompt_of(value: Any) -> str | Chat | None:
    """The prompt in a traced call's input: a text or chat messages; ``None`` where it is not to be found.

    Variables of a template become one text with a line for each: inputs that differ are prompts that differ.
    """
    inner = unpacked(value)
    if isinstance(inner, str):
        return None if inner.strip() in _NO_TEXT else inner
    prompt = _prompt_of_object(inner)
    # A text that happens to be JSON is a prompt all the same.
    return value if prompt is None and isinstance(value, str) and inner not in _NOTHING else prompt


def answer_of(value: Any) -> str | None:
    """The answer in a traced call's output: a text, or the last message's; ``None`` where it is not to be found."""
    inner = unpacked(value)
    if isinstance(inner, str):
        return None if inner.strip() in _NO_TEXT else inner
    answer = _answer_of_object(inner)
    return value if answer is None and isinstance(value, str) and inner not in _NOTHING else answer


def chat_of(value: Any) -> Chat | None:
    """Messages with ``role`` and ``content``; ``None`` where a value is no chat, or one in which nothing is said."""
    chat = [{"role": message["role"], "content": said(message)} for message in _messages(unpacked(value))]
    return chat if any(message["content"].strip() for message in chat) else None


def _messages(value: Any) -> list[dict[str, Any]]:
    """The messages of a chat, in one form; none where it is no chat."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) and _message(value[0]) is None:
        value = value[0]  # a batch of one
    messages = [_message(unpacked(one)) for one in value] if isinstance(value, list) else []
    return [] if None in messages else [message for message in messages if message is not None]


def _message(value: Any) -> dict[str, Any] | None:
    """A message with its role in OpenAI's words and its content; ``None`` where it is none."""
    if isinstance(value, list | tuple) and len(value) == 2:
        role, content = value
        return {"role": _ROLES[role], "content": content} if _is_role(role) and isinstance(content, str) else None
    if not isinstance(value, dict):
        return None
    inner, kind = value, value.get("type")
    if kind == "constructor" and isinstance(value.get("kwargs"), dict):  # LangChain's own serialisation
        names = value.get("id")
        inner, kind = value["kwargs"], names[-1] if isinstance(names, list) and names else None
    elif isinstance(value.get("data"), dict) and isinstance(kind, str):  # its messages_to_dict
        inner = value["data"]
    elif value.keys() >= {"from", "value"}:  # ShareGPT's
        inner = {"role": value["from"], "content": value["value"]}
    role = next((one for one in (inner.get("role"), kind, inner.get("type")) if _is_role(one)), inner.get("role"))
    content = inner.get("content", inner.get("parts"))
    if (
        not isinstance(role, str)
        or not any(key in inner for key in _SAYING)
        or (content_of(content) is None and content is not None)
    ):
        return None
    return {**inner, "role": _ROLES.get(role, role), "content": content}


def _is_role(value: Any) -> bool:
    return isinstance(value, str) and value in _ROLES


def _prompt_of_object(value: Any) -> str | Chat | None:
    chat = chat_of(value)
    if chat is not None:
        return chat
    if isinstance(value, list):
        if len(value) == 1:
            return prompt_of(value[0])
        return as_json(value) if value and all(_is_plain(one) for one in value) else _parts(value)
    if isinstance(value, dict):
        return prompt_of(value["kwargs"]) if _is_langchain(value) else _prompt_of_variables(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _prompt_of_variables(value: Mapping[str, Any]) -> str | Chat | None:
    if value.keys() == {"args", "kwargs"} and isinstance(value["args"], list) and isinstance(value["kwargs"], dict):
        value = {**{str(number): one for number, one in enumerate(value["args"], 1)}, **value["kwargs"]}
    told = {key: one for key, one in value.items() if unpacked(one) not in _NOTHING}
    asked = {key: one for key, one in told.items() if key not in _PARAMETERS} or told
    system = next((asked[key] for key in _SYSTEM if key in asked), None)
    rest = [one for key, one in asked.items() if key not in _SYSTEM]
    if len(asked) == 1:
        return prompt_of(*asked.values())
    if system is not None and len(rest) == 1 and len(asked) == 2:
        chat, text = chat_of(rest[0]), _parts(system.get("parts") if isinstance(system, dict) else system)
        if chat is not None and text is not None:  # as it would stand in a chat
            return [{"role": "system", "content": text}, *chat]
    lines = [_line(key, one) for key, one in asked.items()]
    return None if not lines or None in lines else "\n".join(str(line) for line in lines)


def _line(name: str, value: Any) -> str | None:
    """One variable as a line; ``None`` where it is neither a text, a number, a list of those, nor a chat."""
    value = unpacked(value)
    chat = chat_of(value)
    if chat is not None:
        value = "\n".join(f"{message['role']}: {message['content']}" for message in chat)
    elif isinstance(value, list) and all(_is_plain(one) for one in value):
        value = as_json(value)
    return f"{name}: {value}" if _is_plain(value) else None


def _answer_of_object(value: Any) -> str | None:
    messages = _messages(value)
    if messages:
        return content_of(messages[-1]["content"]) or None
    if isinstance(value, list):
        # Among steps of reasoning and calls of tools, the last message is the answer.
        written = [part for part in value if isinstance(part, dict) and part.get("type") == "message"]
        return answer_of(written[-1] if written else value[0]) if written or len(value) == 1 else _parts(value)
    if not isinstance(value, dict):
        return None
    if _is_langchain(value):
        return answer_of(value["kwargs"])
    choices = value.get("choices") or value.get("generations") or value.get("candidates")
    keys = [key for key in _ANSWERS if key in value] or (list(value) if len(value) == 1 else [])
    tried = [choices] if choices else [value[key] for key in keys]
    return next((text for one in tried if (text := answer_of(one)) is not None), None)


def _parts(value: Any) -> str | None:
    """A text, or one in parts; ``None`` where a list holds anything else."""
    if isinstance(value, list) and not all(isinstance(part, dict) for part in value):
        return None
    return content_of(value) or None


def _is_langchain(value: Mapping[str, Any]) -> bool:
    return "lc" in value and isinstance(value.get("kwargs"), dict)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)
