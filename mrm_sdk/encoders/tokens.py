"""From a prompt and a response to token ids: as a pair of segments, or as a chat in the model's own template.

Imports bundle's specification, tokenizers and jinja2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mrm_sdk.bundle.specification import CHAT_TEMPLATE, TOKENIZER, EncoderSpec
from mrm_sdk.errors import BundleMismatchError, EncoderError

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

_ROLE = re.compile(r"^(system|user|assistant): ", re.MULTILINE)
_SURROGATE = re.compile("[\ud800-\udfff]")


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

    The longer of the two is truncated first, at its end, so that neither pushes the other out.

    Args:
        tokenizer: bytes of a ``tokenizer.json``.
        max_tokens: special tokens included.

    Raises:
        BundleMismatchError: the tokenizer cannot be read, or needs more than that for special tokens alone.
    """

    def __init__(self, tokenizer: bytes, max_tokens: int) -> None:
        self._tokenizer = read_tokenizer(tokenizer)
        if max_tokens <= self._tokenizer.num_special_tokens_to_add(True):
            raise BundleMismatchError(f"{max_tokens} tokens leave no room for text beside the special ones.")
        self._tokenizer.enable_truncation(max_tokens)

    def __call__(self, texts: Sequence[tuple[str | None, str]]) -> list[Tokens]:
        """Tokens of (prompt or ``None``, response) pairs.

        Raises:
            EncoderError: a text cannot be encoded as UTF-8.
        """
        pairs = [response if prompt is None else (prompt, response) for prompt, response in texts]
        try:
            encodings = self._tokenizer.encode_batch(pairs)
        except (TypeError, UnicodeEncodeError):  # the library says the first of what is the second
            for prompt, response in texts:
                check_text(prompt, response)
            raise
        return [Tokens(encoding.ids, encoding.type_ids) for encoding in encodings]


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
        self._tokenizer, self._max_tokens = read_tokenizer(tokenizer), max_tokens
        try:
            given = json.loads(template)
            self._special = {str(name): str(token) for name, token in given["tokens"].items()}
            self._template = _compiled(given["template"])
        except Exception as error:  # templates are programs, whose compiler raises errors of its own
            raise BundleMismatchError(f"{CHAT_TEMPLATE} cannot be read: {str(error)[:200]}") from None

    def __call__(self, texts: Sequence[tuple[str | None, str]]) -> list[Tokens]:
        """Tokens of (prompt or ``None``, response) pairs.

        Raises:
            EncoderError: the template refuses a conversation, or a text cannot be encoded as UTF-8.
        """
        chats = [self._rendered(prompt, response) for prompt, response in texts]
        encodings = self._tokenizer.encode_batch(chats, add_special_tokens=False)
        rows = (encoding.ids for encoding in encodings)
        cut = (ids if len(ids) <= self._max_tokens else [ids[0], *ids[1 - self._max_tokens :]] for ids in rows)
        return [Tokens(ids, [0] * len(ids)) for ids in cut]

    def _rendered(self, prompt: str | None, response: str) -> str:
        check_text(prompt, response)
        messages = [*messages_of(prompt), {"role": "assistant", "content": response}]
        try:
            return self._template.render(messages=messages, add_generation_prompt=False, **self._special)
        except Exception as error:  # as above
            raise EncoderError(f"The chat template refuses a conversation: {str(error)[:200]}") from error


def layout(spec: EncoderSpec, read: Callable[[Any], bytes]) -> Segments | Chat:
    """The layout that ``spec`` names, from what ``read`` returns for a file's name.

    Raises:
        BundleMismatchError: a file cannot be read, or the tokenizer has tokens that the graph does not know.
    """
    if spec.vocabulary and max(read_tokenizer(read(TOKENIZER)).get_vocab().values(), default=0) >= spec.vocabulary:
        raise BundleMismatchError(
            f"{TOKENIZER} has tokens beyond the {spec.vocabulary} that the graph knows: it is another model's."
        )
    if spec.layout == "chat":
        return Chat(read(TOKENIZER), read(CHAT_TEMPLATE), spec.max_tokens)
    return Segments(read(TOKENIZER), spec.max_tokens)


def read_tokenizer(data: bytes) -> Tokenizer:
    """Opens a ``tokenizer.json``, without padding or truncation.

    Raises:
        BundleMismatchError: it cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # noqa: BLE001  the library raises plain Exception
        raise BundleMismatchError(f"{TOKENIZER} cannot be read: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_text(prompt: str | None, response: str) -> None:
    """Makes sure that a text has a UTF-8 form, without which no tokenizer takes it.

    Raises:
        EncoderError: it holds lone surrogates.
    """
    if _SURROGATE.search(prompt or "") or _SURROGATE.search(response):
        raise EncoderError(
            "A text holds lone surrogates, which no encoding has; decode it with errors='replace' where it is read."
        )


def messages_of(prompt: str | None) -> list[dict[str, str]]:
    """Chat messages of a prompt: those that its ``role: content`` lines tell, else one message of the user."""
    starts = list(_ROLE.finditer(prompt or ""))
    if prompt is None or not starts or starts[0].start() != 0:
        return [{"role": "user", "content": prompt or ""}]
    ends = [*(match.start() - 1 for match in starts[1:]), len(prompt)]
    return [{"role": match[1], "content": prompt[match.end() : end]} for match, end in zip(starts, ends, strict=True)]


def _compiled(source: str) -> Template:
    """A template as the authors of chat templates expect it, in a sandbox: it comes with a model, from anybody."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(source)
