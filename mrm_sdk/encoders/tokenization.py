"""From a prompt and a response to token ids: as a pair of segments, or as a chat in the model's own template."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mrm_sdk.bundle.encoder_spec import CHAT_TEMPLATE, TOKENIZER, EncoderSpec, Truncation
from mrm_sdk.errors import BundleMismatchError, TextRefusedError

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

_Cut = TypeVar("_Cut")
_ROLE = re.compile(r"^(system|user|assistant): ", re.MULTILINE)
_SURROGATE = re.compile("[\ud800-\udfff]")
# The same text must have the same vector tomorrow: templates that write the day get the one which those of Llama 3
# write where they are told none.
_DAY = date(2024, 7, 26)


class _RaisedByTemplateError(Exception):
    """What a template says through ``raise_exception``."""


class Tokens(NamedTuple):
    """One text as a model takes it.

    Args:
        ids: token ids.
        segments: of each token, 0 for the first of two texts and 1 for the second.
    """

    ids: Sequence[int]
    segments: Sequence[int]


class Segments:
    """A response alone, or prompt and response as a pair; the tokenizer adds its special tokens.

    A response is truncated at its end, unless the tokenizer's file says ``left``. How much is left of a prompt beside
    it, and which part, ``truncation`` says. ``conversation``: the end of the prompt, where the newest question is; the
    response comes first and has all the room except what the last tokens of the prompt need, an eighth of the room at
    most. ``longest_first``: the longer of the two is truncated first, at its end.

    Args:
        tokenizer: bytes of a ``tokenizer.json``.
        max_tokens: special tokens included.
        truncation: of a pair that does not fit.

    Raises:
        BundleMismatchError: the tokenizer cannot be read, or needs more than that for special tokens alone.
    """

    def __init__(self, tokenizer: bytes, max_tokens: int, truncation: Truncation = "longest_first") -> None:
        self.tokenizer, side = read_tokenizer(tokenizer)
        self._truncation = truncation
        self._keep_response = _keep_end if side == "left" else _keep_beginning
        self._keep_prompt = _keep_end if truncation == "conversation" else self._keep_response
        self._frames = {pair: _frame(self.tokenizer, pair=pair) for pair in (False, True)}
        self._room = {
            pair: max_tokens - sum(part.sequence is None for part in frame) for pair, frame in self._frames.items()
        }
        if min(self._room.values()) < 1:
            raise BundleMismatchError(f"{max_tokens} tokens leave no room for text beside the special ones.")

    def __call__(self, texts: Sequence[tuple[str | None, str]]) -> list[Tokens]:
        """Tokens of (prompt or ``None``, response) pairs.

        Raises:
            TextRefusedError: a text cannot be encoded as UTF-8, or made into tokens.
        """
        refused = _without_utf8(texts)
        most = max(self._room.values())
        prompts = _token_ids(
            self.tokenizer,
            {i: prompt for i, (prompt, _) in enumerate(texts) if prompt is not None and i not in refused},
            lambda row: (len(row), self._keep_prompt(row, most)),
            refused,
        )
        responses = _token_ids(
            self.tokenizer,
            {i: response for i, (_, response) in enumerate(texts) if i not in refused},
            lambda row: (len(row), self._keep_response(row, most)),
            refused,
        )
        if refused:
            raise TextRefusedError.of(refused)
        return [self._framed(prompts.get(i), responses[i]) for i in range(len(texts))]

    def _framed(self, prompt: tuple[int, Sequence[int]] | None, response: tuple[int, Sequence[int]]) -> Tokens:
        """Special tokens about the ids of one or two texts, which are shortened to leave room for these.

        The library's own truncation keeps what it cuts off, for two long texts in every combination: gigabytes.

        Args:
            prompt: its whole length, and its ids, of which some may have been cut; ``None`` without a prompt.
            response: likewise.
        """
        pair = prompt is not None
        room = self._room[pair]
        if prompt is None:
            truncated = [self._keep_response(response[1], room)]
        else:
            for_response = self._room_for_response(prompt[0], response[0], room)
            answer = self._keep_response(response[1], for_response)
            truncated = [self._keep_prompt(prompt[1], room - len(answer)), answer]
        ids: list[int] = []
        segments: list[int] = []
        for sequence, token, segment in self._frames[pair]:
            inserted = [token] if sequence is None else truncated[sequence]
            ids += inserted
            segments += [segment] * len(inserted)
        return Tokens(ids, segments)

    def _room_for_response(self, prompt: int, response: int, room: int) -> int:
        """The most tokens of a response, by the lengths of both."""
        if self._truncation == "conversation":
            return room - min(prompt, room // 8)
        if prompt + response <= room:
            return response
        return min(response, room // 2) if response < prompt else room - min(prompt, room // 2)


def _keep_beginning(row: Sequence[int], most: int) -> Sequence[int]:
    return row[:most]


def _keep_end(row: Sequence[int], most: int) -> Sequence[int]:
    return row[max(0, len(row) - most) :]


class _Part(NamedTuple):
    """Of what a tokenizer makes of one or two texts: a special token, or the place of a text (``sequence``)."""

    sequence: int | None
    token: int
    segment: int


def _frame(tokenizer: Tokenizer, *, pair: bool) -> list[_Part]:
    try:
        encoding = tokenizer.encode("a", "a" if pair else None)
    except Exception as error:  # noqa: BLE001  the library raises plain Exception
        raise BundleMismatchError(f"{TOKENIZER} does not take plain text: {error}") from None
    parts = map(_Part, encoding.sequence_ids, encoding.ids, encoding.type_ids)
    frame: list[_Part] = []
    for part in parts:
        if part.sequence is None or not frame or frame[-1].sequence != part.sequence:
            frame.append(part)
    if not {0, int(pair)} <= {part.sequence for part in frame}:
        raise BundleMismatchError(f"{TOKENIZER} makes no tokens of plain text: it is incomplete. Export it again.")
    return frame


class Chat:
    """A conversation in the model's chat template, whose text is tokenised without adding special tokens.

    So a BOS which the template writes stays the only one. A prompt of ``role: content`` lines, which is how a data set
    and a client hand chat messages on, becomes these messages again; any other prompt is one message of the user. Of
    longer conversations the first token and the end are kept, for the answer is at the end.

    Args:
        tokenizer: bytes of a ``tokenizer.json``.
        template: bytes of a ``chat_template.json``: ``{"template": Jinja source, "tokens": {"bos_token": …}}``.
        max_tokens: of a conversation.

    Raises:
        BundleMismatchError: tokenizer or template cannot be read.
    """

    def __init__(self, tokenizer: bytes, template: bytes, max_tokens: int) -> None:
        self.tokenizer, self._max_tokens = read_tokenizer(tokenizer)[0], max_tokens
        try:
            parsed = json.loads(template)
            self._special = {str(name): str(token) for name, token in parsed["tokens"].items()}
            self._source = str(parsed["template"])
            self._template = _compiled(parsed["template"])
        except Exception as error:  # noqa: BLE001  templates are programs, whose compiler raises what it likes
            raise BundleMismatchError(f"{CHAT_TEMPLATE} cannot be read: {str(error)[:200]}") from None

    def __call__(self, texts: Sequence[tuple[str | None, str]]) -> list[Tokens]:
        """Tokens of (prompt or ``None``, response) pairs.

        Raises:
            TextRefusedError: the template refuses a conversation, or a text cannot be encoded as UTF-8.
        """
        refused = _without_utf8(texts)
        chats: dict[int, str] = {}
        for i, (prompt, response) in enumerate(texts):
            if i in refused:
                continue
            try:
                chats[i] = self._rendered(prompt, response)
            except Exception as error:  # noqa: BLE001  as above
                refused[i] = f"The chat template refuses a conversation: {self._told(error)}"
        rows = _token_ids(self.tokenizer, chats, self._cut, refused)
        if refused:
            raise TextRefusedError.of(refused)
        return [Tokens(ids, [0] * len(ids)) for ids in rows.values()]

    def _told(self, error: Exception) -> str:
        """What the template itself says; of any other message, which may quote the conversation, the error's kind."""
        words = str(error)
        # A message that is put together while it runs, as of a role, stands in no template.
        if not isinstance(error, _RaisedByTemplateError):
            return type(error).__name__
        return words[:200] if words.strip() and words in self._source else "its words may quote it and are not shown"

    def _cut(self, ids: Sequence[int]) -> Sequence[int]:
        return ids if len(ids) <= self._max_tokens else [ids[0], *ids[1 - self._max_tokens :]]

    def _rendered(self, prompt: str | None, response: str) -> str:
        messages = [*messages_of(prompt), {"role": "assistant", "content": response}]
        # Templates tell "none" from "not defined": what transformers defines is defined here.
        variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": False}
        return self._template.render(variables, **self._special)


def layout(spec: EncoderSpec, read: Callable[[Any], bytes]) -> Segments | Chat:
    """The layout that ``spec`` names, from what ``read`` returns for a file's name.

    Raises:
        BundleMismatchError: a file cannot be read, or the tokenizer has tokens that the graph does not know.
    """
    chosen: Segments | Chat
    if spec.layout == "chat":
        chosen = Chat(read(TOKENIZER), read(CHAT_TEMPLATE), spec.max_tokens)
    else:
        chosen = Segments(read(TOKENIZER), spec.max_tokens, spec.truncation)
    vocabulary = chosen.tokenizer.get_vocab() if spec.vocabulary else {}
    if max(vocabulary.values(), default=-1) >= spec.vocabulary > 0:
        raise BundleMismatchError(
            f"{TOKENIZER} has tokens beyond the {spec.vocabulary} that the graph knows: it is another model's."
        )
    return chosen


def _token_ids(
    tokenizer: Tokenizer, texts: Mapping[int, str], cut: Callable[[Sequence[int]], _Cut], refused: dict[int, str]
) -> dict[int, _Cut]:
    """What ``cut`` leaves of each text's ids, special ones not added, by number.

    Texts without tokens are in ``refused`` instead, with the reason.
    """
    rows: dict[int, _Cut] = {}
    for i, text in texts.items():
        try:
            # One by one: the pool of threads behind encode_batch does not survive a fork.
            rows[i] = cut(tokenizer.encode(text, add_special_tokens=False).ids)
        except Exception as error:  # noqa: BLE001  as for the template
            # Its message may quote the text.
            refused[i] = f"A text cannot be made into tokens: the tokenizer fails with {type(error).__name__}"
    return rows


def read_tokenizer(data: bytes) -> tuple[Tokenizer, str]:
    """Opens a ``tokenizer.json``, without padding or truncation, and tells the side at which it is to truncate.

    Raises:
        BundleMismatchError: it cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # noqa: BLE001  the library raises plain Exception
        raise BundleMismatchError(f"{TOKENIZER} cannot be read: {error}") from None
    side = (tokenizer.truncation or {}).get("direction", "right")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, side


def _without_utf8(texts: Sequence[tuple[str | None, str]]) -> dict[int, str]:
    """Which texts have no UTF-8 form, without which no tokenizer takes them, and what to do."""
    reason = "A text holds lone surrogates, which no encoding has; decode it with errors='replace' where it is read."
    return {
        i: reason
        for i, (prompt, response) in enumerate(texts)
        if _SURROGATE.search(prompt or "") or _SURROGATE.search(response)
    }


def messages_of(prompt: str | None) -> list[dict[str, str]]:
    """Chat messages of a prompt: those that its ``role: content`` lines tell, else one message of the user."""
    starts = list(_ROLE.finditer(prompt or ""))
    if prompt is None or not starts or starts[0].start() != 0:
        return [{"role": "user", "content": prompt or ""}]
    ends = [*(match.start() - 1 for match in starts[1:]), len(prompt)]
    return [{"role": match[1], "content": prompt[match.end() : end]} for match, end in zip(starts, ends, strict=True)]


def _compiled(source: str) -> Template:
    """Compiles a chat template as its authors expect, in a sandbox, because it comes with an untrusted model."""
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise _RaisedByTemplateError(message)

    class Generation(Extension):
        """``{% generation %}``, by which templates mark what the assistant said, changes nothing."""

        tags = {"generation"}  # noqa: RUF012  as the base class has it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    extensions: list[type[Extension]] = [loopcontrols, Generation]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = _DAY.strftime
    return environment.from_string(source)
