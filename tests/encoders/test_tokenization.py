"""From texts to tokens: as transformers makes them, one BOS, the end of an answer kept, and whatever users write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from mrm_sdk.bundle.encoder_spec import CHAT_TEMPLATE, TOKENIZER, EncoderFile, EncoderSpec, digest
from mrm_sdk.encoders.export.tokenizer_files import load_tokenizer, tokenizer_files
from mrm_sdk.encoders.tokenization import Chat, Segments, messages_of
from mrm_sdk.errors import BundleMismatchError, EncoderError, TextRefusedError
from tests.encoders.export.tiny_models import letters, words
from tests.encoders.tiny_llama import TEMPLATE, write_tiny_llama

BOS, END = 0, 2
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start|>' + message['role'] + '\n\n' + message['content'] | trim + '<|end|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n\n' }}{% endif %}"
)
CHATML = """\
{%- if tools is not none %}
    {{- 'tools: ' ~ (tools | tojson) }}
{%- endif %}
{%- if messages[0].role != 'system' %}
    {{- '<|start|>system\nYou help.<|end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|start|>' + message.role + '\n' + message.content + '<|end|>' + '\n' }}
{%- endfor %}
"""
GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate') }}
    {%- endif -%}
    {{ '<|start|>' + ('model' if message['role'] == 'assistant' else message['role']) }}
    {{ message['content'] | trim }}<|end|>
{%- endfor -%}
"""
LLAMA_32 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- set ns = namespace(turns=0) %}
{{- "Today: " + date_string + "\n" }}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.turns = ns.turns + 1 %}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message | tojson(indent=1) }}<|end|>{% endgeneration %}
    {%- else %}
        {{- ns.turns ~ message.content }}
    {%- endif %}
{%- endfor %}
"""
TEMPLATES = {"plain": TEMPLATE, "llama 3": LLAMA_3, "chatml": CHATML, "gemma": GEMMA, "llama 3.2": LLAMA_32}
CHATS: list[tuple[str | None, str]] = [
    ("What is DNS?", "A phone book."),
    ("user: Hi\nassistant: Yes? \nuser: And?", " Two\nlines. \n"),
    ("שלום", "مرحبا 🙂 e\u0301 日本語"),
    ("q", ""),
    (None, "nul\0l \u202e\ufeff"),
    ("<b>\"quoted\"</b> & 'so'", "{{ bos_token }}{% raw %}"),
    ("Says <|bos|> itself", "<|end|><|start|>user\nand more"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


def made(folder: Path, template: str = TEMPLATE) -> dict[EncoderFile, bytes]:
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = template
    return tokenizer_files(tokenizer, "tiny", chat=True)


def chat(files: dict[EncoderFile, bytes], max_tokens: int = 10_000) -> Chat:
    return Chat(files[TOKENIZER], files[CHAT_TEMPLATE], max_tokens)


@pytest.mark.parametrize("style", TEMPLATES)
def test_chats_are_those_of_transformers(folder: Path, style: str) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    theirs.chat_template = TEMPLATES[style]
    ours = chat(made(folder, TEMPLATES[style]))
    for (prompt, response), row in zip(CHATS, ours(CHATS), strict=True):
        messages = [*messages_of(prompt), {"role": "assistant", "content": response}]
        expected = theirs.apply_chat_template(messages, tokenize=True, date_string="26 Jul 2024")
        assert list(row.ids) == expected["input_ids"]
        assert set(row.segments) == {0}


def test_one_bos_where_the_template_writes_it_and_none_where_it_does_not(folder: Path) -> None:
    """The tokenizer adds a BOS of its own to every text, unless it is told not to."""
    assert AutoTokenizer.from_pretrained(folder)("x")["input_ids"][0] == BOS
    for style, template in TEMPLATES.items():
        (row,) = chat(made(folder, template))([CHATS[0]])
        assert list(row.ids).count(BOS) == (style != "chatml")


def test_templates_that_refuse(folder: Path) -> None:
    gemma = chat(made(folder, GEMMA))
    with pytest.raises(EncoderError, match="refuses a conversation: System role not supported"):
        gemma([("system: Be brief.\nuser: Hi", "Hello.")])
    with pytest.raises(EncoderError, match="refuses a conversation: Conversation roles must alternate"):
        gemma([("user: Hi\nassistant: What?", "Hello.")])
    told: dict[str, str] = {
        "{{ raise_exception('Not: ' + messages[0]['content']) }}": "its words may quote it and are not shown",
        "{{ raise_exception(messages[0]['content']) }}": "its words may quote it and are not shown",
        "{{ raise_exception('') }}": "its words may quote it and are not shown",
        "{{ {}[messages[0]['content']].x }}": "UndefinedError",
        "{{ messages[0]['content'] | int + messages[0]['content'] }}": "TypeError",
    }
    for template, reason in told.items():
        with pytest.raises(TextRefusedError) as caught:
            chat(made(folder, template))([("My secret", "Hello.")])
        assert caught.value.reasons == {0: f"The chat template refuses a conversation: {reason}"}
    for attack in ("{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__.os }}"):
        with pytest.raises(EncoderError, match="refuses a conversation: SecurityError"):
            chat(made(folder, attack))([CHATS[0]])


@pytest.mark.parametrize("broken", [b"", b"[]", b"{}", b'{"template": "{% if %}", "tokens": {}}'])
def test_templates_that_are_none(folder: Path, broken: bytes) -> None:
    files: Any = {**made(folder), CHAT_TEMPLATE: broken}
    with pytest.raises(BundleMismatchError, match=r"chat_template\.json cannot be read"):
        chat(files)


def test_of_long_conversations_the_first_token_and_the_end_are_kept(folder: Path) -> None:
    files = made(folder)
    (whole,), (cut,) = (chat(files, most)([("p" * 100, "x" * 100 + " the end")]) for most in (10_000, 20))
    assert list(cut.ids) == [BOS, *whole.ids[-19:]]
    assert cut.ids[-1] == END


@pytest.mark.parametrize("tokenizer", [words, letters])
def test_segments_are_those_of_transformers(tokenizer: Any) -> None:
    theirs = tokenizer()
    ours = Segments(tokenizer_files(theirs, "tiny", chat=False)[TOKENIZER], 24)
    texts: list[tuple[str | None, str]] = [
        *((None, response) for _, response in CHATS),
        *((prompt, response or "-") for prompt, response in CHATS),
        ("prompt " * 20, "answer " * 20), ("prompt " * 20, "a"), ("p", "answer " * 20), ("", "a"),
    ]  # fmt: skip
    for (prompt, response), row in zip(texts, ours(texts), strict=True):
        texts = (response,) if prompt is None else (prompt, response)
        expected = theirs(*texts, truncation="longest_first", max_length=24, return_token_type_ids=True)
        assert (list(row.ids), list(row.segments)) == (expected["input_ids"], expected["token_type_ids"])


def test_an_empty_answer_is_an_answer() -> None:
    ours = Segments(tokenizer_files(words(), "tiny", chat=False)[TOKENIZER], 24)
    alone, answered, asked = ours([(None, ""), ("", ""), ("a", "")])
    assert [len(row.ids) for row in (alone, answered, asked)] == [2, 3, 4]


def test_the_side_that_is_cut_is_the_tokenizers() -> None:
    tokenizer = letters()
    tokenizer.truncation_side = "left"
    ours = Segments(tokenizer_files(tokenizer, "tiny", chat=False)[TOKENIZER], 8)
    expected = tokenizer("x" * 20 + "the end", truncation=True, max_length=8)["input_ids"]
    assert list(ours([(None, "x" * 20 + "the end")])[0].ids) == expected


def test_what_has_no_utf_8_form(folder: Path) -> None:
    segments = Segments(tokenizer_files(words(), "tiny", chat=False)[TOKENIZER], 24)
    for ours in (segments, chat(made(folder))):
        for pair in ((None, "\ud800"), ("\udfff", "x"), ("x", "half \ud83d of a smile")):
            with pytest.raises(EncoderError, match="lone surrogates"):
                ours([CHATS[0], pair])


@pytest.mark.slow
@pytest.mark.parametrize("text", ["some words " * 90_000, "x" * 1_000_000, "\0" * 1_000_000, "🙂" * 250_000])
def test_a_megabyte(folder: Path, text: str) -> None:
    (cut,) = Segments(tokenizer_files(letters(), "tiny", chat=False)[TOKENIZER], 24)([(text, text)])
    (said,) = chat(made(folder), 24)([(text, text)])
    assert len(cut.ids) == len(said.ids) == 24


def test_a_tokenizer_without_special_tokens() -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "a": 1, "b": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    alone, pair, nothing = Segments(tokenizer.to_str().encode(), 4)(
        [(None, "b a b a b"), ("b b b b b", "a"), (None, "")]
    )
    assert [list(alone.ids), list(pair.ids), list(nothing.ids)] == [[2, 1, 2, 1], [2, 2, 2, 1], []]
    tokenizer.model = models.BPE({"b": 0}, [])
    with pytest.raises(BundleMismatchError, match="makes no tokens of plain text"):
        Segments(tokenizer.to_str().encode(), 4)
    tokenizer.model = models.WordLevel({"b": 0})
    with pytest.raises(BundleMismatchError, match="does not take plain text"):
        Segments(tokenizer.to_str().encode(), 4)
    tokenizer.model = models.WordLevel({"a": 0})
    with pytest.raises(TextRefusedError) as caught:
        Segments(tokenizer.to_str().encode(), 4)([(None, "a b")])
    assert caught.value.reasons == {0: "A text cannot be made into tokens: the tokenizer fails with Exception"}


def test_a_tokenizer_that_leaves_no_room() -> None:
    files = tokenizer_files(words(), "tiny", chat=False)
    with pytest.raises(BundleMismatchError, match="3 tokens leave no room"):
        Segments(files[TOKENIZER], 3)
    with pytest.raises(BundleMismatchError, match=r"tokenizer\.json cannot be read"):
        Segments(json.dumps({}).encode(), 24)


FORK = """
import os, pathlib, signal, sys, time, warnings
from mrm_sdk.encoders.tokenization import Segments
warnings.simplefilter("ignore")  # of forking with threads, in Python 3.12
segments = Segments(pathlib.Path(sys.argv[1]).read_bytes(), 16)
texts = [(None, "the text")] * int(sys.argv[2])
here = segments(texts)
child = os.fork()
if not child:
    os._exit(segments(texts) != here)
for _ in range(200):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, signal.SIGKILL)
sys.exit("the child hangs")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("texts", [1, 100])
def test_a_forked_child_encodes_too(texts: int, tmp_path: Path) -> None:
    """The library's own pool of threads, which TOKENIZERS_PARALLELISM=true keeps after a fork, is never used."""
    words().save_pretrained(tmp_path)
    command = [sys.executable, "-c", FORK, str(tmp_path / "tokenizer.json"), str(texts)]
    done = subprocess.run(
        command, env={**os.environ, "TOKENIZERS_PARALLELISM": "true"}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_of_a_conversation_the_end_and_the_whole_answer_are_kept() -> None:
    files = tokenizer_files(words(), "tiny", chat=False)[TOKENIZER]
    whole, cut = Segments(files, 10_000, "conversation"), Segments(files, 24, "conversation")
    assert whole([("a prompt", "an answer")]) == Segments(files, 10_000)([("a prompt", "an answer")])
    for prompt, response in (("x " * 40 + "the question", "y"), ("x " * 40 + "q", "y " * 5 + "z"), ("q", "y " * 40)):
        (all_ids, segments), (ids, cut_segments) = whole([(prompt, response)])[0], cut([(prompt, response)])[0]
        sides = [[i for i, s in zip(all_ids, segments, strict=True) if s == n] for n in (0, 1)]
        kept = [[i for i, s in zip(ids, cut_segments, strict=True) if s == n] for n in (0, 1)]
        assert len(ids) == 24
        assert kept[0][1:] == sides[0][len(sides[0]) - len(kept[0]) + 1 :]  # the end, after the first special token
        if len(sides[1]) <= 18:
            assert kept[1] == sides[1]
        else:
            assert kept[1][:-1] == sides[1][: len(kept[1]) - 1]


def test_what_is_known_of_old_encoders_stays() -> None:
    old = EncoderSpec(kind="onnx", name="m", dimension=4, graph="g", model_fingerprint="")
    assert "truncation" not in old.described
    assert old.of_files({}).model_fingerprint == digest(["g", None, None, None, 256, "segments"])
    new = old.model_copy(update={"truncation": "conversation"})
    assert new.described["truncation"] == "conversation"
    assert new.of_files({}).model_fingerprint != old.of_files({}).model_fingerprint
