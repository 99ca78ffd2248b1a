"""What can be counted in an answer, as numbers beside its embedding.

An embedding says what a text is about, and hardly how long it is or how it is laid out; people's tastes differ in both.
Word lists and reading ease are English: of other languages they see nothing, and the rest is counted all the same.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import EncoderError

VERSION = 1
"""Changes whenever :func:`count_features` would give other numbers for the same text."""
SHARE = 0.1
"""Variance of the features, as a share of the embedding's: chosen in export/experiments/choose_features.py."""
_CLIP = 5.0
_ROWS = 8192
# Less than this is rounding of a feature that is the same everywhere.
_LEAST_SPREAD = 1e-6


class Features(NamedTuple):
    """One answer in numbers: logarithms ``ln(1 + count)``, and shares as they are.

    Args:
        characters: log.
        words: log.
        sentences: log; a line that ends without a full stop is one too.
        sentence_words: log of words per sentence.
        word_letters: log of letters per word.
        reading_ease: Flesch's, divided by 100 and cut to [−1, 1.2]; 0 without words (R. Flesch, "A new readability
            yardstick", Journal of Applied Psychology 32, 1948).
        variety: ln(1 + distinct words) / ln(1 + words) (after G. Herdan, 1960).
        repetition: share of runs of three words that were there before.
        lines: log, without blank ones.
        paragraphs: log.
        bullets: log of list items with a bullet.
        numbered: log of list items with a number.
        headings: log.
        table_rows: log.
        code_lines: log of lines between fences.
        inline_code: log of spans in backticks.
        emphasis: log of bold spans.
        links: log.
        numbers: log.
        emoji: log.
        quotes: log of quotation marks.
        commas: per word, at most 1.
        questions: log of question marks.
        exclamations: log of exclamation marks.
        punctuation: share of characters.
        uppercase: share of letters.
        non_ascii: share of characters.
        first_person: share of words, as are the next six.
        second_person: "you" and its forms.
        hedges: "perhaps", "might" and the like.
        certainty: "always", "clearly" and the like.
        politeness: "please", "sorry" and the like.
        negations: "not", "can't" and the like.
        connectives: "because", "however" and the like.
        affirms: 1 if it starts with "sure", "of course" and the like.
        declines: 1 if it starts with "sorry", "as an AI" and the like.
        unfinished: 1 if the last character closes nothing.
        prompt_length: log of its characters minus log of the prompt's; 0 without a prompt, as are the next two.
        prompt_covered: share of the prompt's long words that it uses.
        prompt_repeated: share of its own long words that the prompt has.
    """

    characters: float
    words: float
    sentences: float
    sentence_words: float
    word_letters: float
    reading_ease: float
    variety: float
    repetition: float
    lines: float
    paragraphs: float
    bullets: float
    numbered: float
    headings: float
    table_rows: float
    code_lines: float
    inline_code: float
    emphasis: float
    links: float
    numbers: float
    emoji: float
    quotes: float
    commas: float
    questions: float
    exclamations: float
    punctuation: float
    uppercase: float
    non_ascii: float
    first_person: float
    second_person: float
    hedges: float
    certainty: float
    politeness: float
    negations: float
    connectives: float
    affirms: float
    declines: float
    unfinished: float
    prompt_length: float
    prompt_covered: float
    prompt_repeated: float


NAMES: tuple[str, ...] = Features._fields

# None of these patterns starts in the middle of what it repeats, so each takes time linear in the text.
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_CLOSING = r"\"'”’»)\]*_`"
_SENTENCE_END = re.compile(
    rf"[.!?…](?=[{_CLOSING}]{{0,3}}(?:\s|\Z))|[。！？؟।]|[^\s.!?…。！？؟।{_CLOSING}](?=[ \t]*+(?:\n|\Z))"
)
_LINE = re.compile(r"^[^\S\n]*+\S", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n[^\S\n]*+\n\s*+")
_LINE_START = re.compile(
    r"^[ \t]*+(?:(?P<fence>```|~~~)|(?P<heading>#{1,6}[ \t]|\*\*[^*\n]+\*\*:?[ \t]*$)|(?P<bullet>[-*+•‣◦▪–][ \t])"
    r"|(?P<numbered>\(?\d{1,3}[.)][ \t])|(?P<table>\|))",
    re.MULTILINE,
)
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_LINK = re.compile(r"(?:https?://|www\.)\S")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_VOWELS = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûü]+")
_FINISHED = frozenset(".!?…。！？؟।:\"'”’»)]}*_`|>")
_AFFIRMS = re.compile(r"(?:sure|certainly|of course|absolutely|yes|great|thanks?|happy|glad|here(?:'s| is| are))\b")
_DECLINES = re.compile(
    r"(?:(?:i'm |i am )?(?:so |very )?sorry|i apologi[sz]e|unfortunately|as an? (?:ai|artificial|language|large)"
    r"|i (?:can't|cannot|can not|don't|do not|won't)|(?:i'm|i am) (?:unable|not able|an ai|a language|just))\b"
)
_LONG_WORD = 4

# By feature: the share of an answer's words that are in the list.
_LISTS = {
    name: tuple(words.split())
    for name, words in {
        "first_person": "i me my mine myself i'm i've i'd i'll we us our ours ourselves we're we've we'd we'll",
        "second_person": "you your yours yourself yourselves you're you've you'd you'll",
        "hedges": "maybe perhaps possibly probably likely unlikely might may could seem seems seemed appear appears "
        "apparently roughly approximately about around somewhat sometimes often usually generally typically tend tends "
        "suggest suggests guess suppose unsure uncertain depends",
        "certainty": "always never definitely certainly clearly obviously absolutely undoubtedly surely must all none "
        "every completely totally exactly simply undeniably indeed",
        "politeness": "please thank thanks sorry apologies apologize apologise welcome glad happy hope feel appreciate "
        "kindly dear wonderful great understand",
        "negations": "no not nor neither none nothing nobody nowhere without cannot can't don't doesn't didn't won't "
        "wouldn't isn't aren't wasn't weren't shouldn't couldn't haven't hasn't hadn't",
        "connectives": "because therefore thus hence however although though whereas while since so but moreover "
        "furthermore additionally also finally first second third next then instead overall example",
    }.items()
}


def count_features(texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
    """Measures answers, each with its prompt or without one; in time linear in their length.

    Args:
        texts: (prompt or ``None``, response) pairs, n of them; any string will do.

    Returns:
        The features called :data:`NAMES`, finite, [n, F].
    """
    out = np.zeros((len(texts), len(NAMES)), np.float32)
    # Answers to one prompt mostly follow each other.
    last, prompt_words = None, _PromptWords.of(None)
    for row, (prompt, response) in enumerate(texts):
        if prompt != last:
            last, prompt_words = prompt, _PromptWords.of(prompt)
        out[row] = _features(response, prompt_words)
    return out


class Statistics(NamedTuple):
    """How features become coordinates beside an embedding.

    Args:
        mean: over the training items, F numbers.
        scale: what a feature is multiplied by, F numbers; 0 for one that was the same in all training items.
        limit: the largest coordinate; one unusual text must not outweigh its embedding.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    limit: float

    @classmethod
    def of(cls, measured: NDArray[np.floating], embeddings: NDArray[np.floating], *, share: float = SHARE) -> Self:
        """Gives every feature that differs the same variance, and all of them together ``share`` of the embedding's.

        Args:
            measured: features of the training items, [n, F].
            embeddings: of the same items, [n, D]; of very many a sample is looked at.
            share: of the embeddings' total variance.

        Raises:
            EncoderError: there are no items, or the two are not of the same ones.
        """
        if not len(measured) or len(measured) != len(embeddings):
            raise EncoderError(
                f"Statistics of features need the embeddings of the same items, at least one; "
                f"found {len(measured)} and {len(embeddings)}."
            )
        sample = np.asarray(embeddings[:: -(-len(embeddings) // _ROWS)], np.float64)
        mean, spread = measured.mean(0, dtype=np.float64), measured.std(0, dtype=np.float64)
        differs = spread > _LEAST_SPREAD
        size = math.sqrt(share * float(sample.var(0).sum()) / max(1, int(differs.sum())))
        scale = np.where(differs, size / np.where(differs, spread, 1), 0)
        return cls(tuple(mean.tolist()), tuple(scale.tolist()), _CLIP * size)

    def apply(self, measured: NDArray[np.floating]) -> NDArray[np.float32]:
        """Features [n, F] -> coordinates [n, F], none larger than five standard deviations of the training items."""
        moved = (measured - np.array(self.mean)) * np.array(self.scale)
        coordinates: NDArray[np.float32] = np.clip(moved, -self.limit, self.limit).astype(np.float32)
        return coordinates


class _PromptWords(NamedTuple):
    """What is compared with an answer: the prompt's length, and its long words."""

    characters: int
    words: frozenset[str]

    @classmethod
    def of(cls, prompt: str | None) -> Self:
        return cls(len(prompt or ""), _long(_words(prompt or "")))


def _features(text: str, prompt_words: _PromptWords) -> Features:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    body = text.strip()
    # Properties of single characters are computed once per distinct character.
    characters = Counter(text)
    letters = _total(characters, str.isalpha)
    words = _words(text)
    counts = Counter(words)
    starts = Counter(match.lastgroup for match in _LINE_START.finditer(text))
    sentences = max(int(bool(words)), _found(_SENTENCE_END, text) - starts["numbered"])
    long, start = _long(counts), body[:80].lower().replace("’", "'")
    return Features(
        characters=math.log1p(len(text)),
        words=math.log1p(len(words)),
        sentences=math.log1p(sentences),
        sentence_words=math.log1p(len(words) / max(1, sentences)),
        word_letters=math.log1p(letters / max(1, len(words))),
        reading_ease=_reading_ease(counts, len(words), sentences),
        variety=math.log1p(len(counts)) / math.log1p(max(1, len(words))),
        repetition=_repetition(words),
        lines=math.log1p(_found(_LINE, text)),
        paragraphs=math.log1p(_found(_BLANK_LINES, body) + bool(body)),
        bullets=math.log1p(starts["bullet"]),
        numbered=math.log1p(starts["numbered"]),
        headings=math.log1p(starts["heading"]),
        table_rows=math.log1p(starts["table"]),
        code_lines=math.log1p(_code_lines(text) if starts["fence"] else 0),
        inline_code=math.log1p(_found(_INLINE_CODE, text)),
        emphasis=math.log1p(_found(_BOLD, text)),
        links=math.log1p(_found(_LINK, text)),
        numbers=math.log1p(_found(_NUMBER, text)),
        emoji=math.log1p(_total(characters, _is_emoji)),
        quotes=math.log1p(_total(characters, '"“”„«»「」'.__contains__)),
        commas=min(1.0, _total(characters, ",，،、;".__contains__) / max(1, len(words))),
        questions=math.log1p(_total(characters, "?？؟".__contains__)),
        exclamations=math.log1p(_total(characters, "!！¡".__contains__)),
        punctuation=_total(characters, _is_punctuation) / max(1, len(text)),
        uppercase=_total(characters, str.isupper) / max(1, letters),
        non_ascii=1 - _total(characters, str.isascii) / max(1, len(text)) if text else 0.0,
        affirms=float(_AFFIRMS.match(start) is not None),
        declines=float(_DECLINES.match(start) is not None),
        unfinished=float(bool(body) and body[-1] not in _FINISHED),
        prompt_length=math.log1p(len(text)) - math.log1p(prompt_words.characters) if prompt_words.characters else 0.0,
        prompt_covered=len(long & prompt_words.words) / max(1, len(prompt_words.words)),
        prompt_repeated=len(long & prompt_words.words) / max(1, len(long)),
        **{name: sum(counts[word] for word in listed) / max(1, len(words)) for name, listed in _LISTS.items()},
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _long(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word for word in words if len(word) >= _LONG_WORD)


def _found(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))


def _total(characters: Counter[str], holds: Callable[[str], bool]) -> int:
    return sum(count for character, count in characters.items() if holds(character))


def _is_emoji(character: str) -> bool:
    # Below are arrows and signs such as ©, which the same category holds.
    return character >= "\u2600" and unicodedata.category(character) == "So"


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


def _repetition(words: list[str]) -> float:
    runs = len(words) - 2
    return 1 - len(set(zip(words, words[1:], words[2:], strict=False))) / runs if runs > 0 else 0.0


def _code_lines(text: str) -> int:
    """Lines between fences; a fence that is never closed ends with the text."""
    places = [match.start() for match in _LINE_START.finditer(text) if match.lastgroup == "fence"]
    ends = [*places[1::2], len(text)]
    return sum(max(0, text.count("\n", start, end) - 1) for start, end in zip(places[::2], ends, strict=False))


def _reading_ease(counts: Counter[str], words: int, sentences: int) -> float:
    if not words:
        return 0.0
    syllables = sum(count * _syllables(word) for word, count in counts.items())
    ease = 206.835 - 1.015 * words / sentences - 84.6 * syllables / words
    return min(max(ease / 100, -1.0), 1.2)


def _syllables(word: str) -> int:
    """Groups of vowels, without a silent e at the end; at least one."""
    silent = word.endswith("e") and not word.endswith("le")
    return max(1, _found(_VOWELS, word) - silent)
