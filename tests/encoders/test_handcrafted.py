"""Handcrafted features: what is counted, in texts of every kind, and how it is set beside an embedding."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mrm_sdk.encoders.handcrafted import NAMES, Statistics, count_features
from mrm_sdk.errors import EncoderError
from tests.conftest import ROOT


def of(text: str, prompt: str | None = None) -> dict[str, float]:
    return dict(zip(NAMES, count_features([(prompt, text)])[0].tolist(), strict=True))


def count(value: float) -> float:
    """The count behind a logarithm."""
    return round(math.expm1(value), 3)


ANSWER = """\
# How to bake

Sure, you could try **this**:

- Mix 500 g of `flour` with 3.5 dl of water!
- Wait. Isn't waiting "fun"?

1. Bake it 🙂
2) Eat it: https://example.org

| a | b |
```python
x = 1
y = 2
```
"""


def test_what_is_counted() -> None:
    features = of(ANSWER)
    counted = {
        "characters": len(ANSWER),
        "lines": 11,
        "paragraphs": 5,
        "bullets": 2,
        "numbered": 2,
        "headings": 1,
        "table_rows": 1,
        "code_lines": 2,
        "inline_code": 1,
        "emphasis": 1,
        "links": 1,
        "emoji": 1,
        "quotes": 2,
        "questions": 1,
        "exclamations": 1,
    }
    assert {name: count(features[name]) for name in counted} == counted
    assert features["non_ascii"] == pytest.approx(1 / len(ANSWER))
    assert features["unfinished"] == features["affirms"] == 0  # it starts with a heading, and ends with a fence


def test_words_and_sentences() -> None:
    features = of("I can’t say. Perhaps YOU can, because you are 12.5! And so on")
    assert (count(features["words"]), count(features["sentences"]), count(features["numbers"])) == (14, 3, 1)
    shares = {"first_person": 1, "second_person": 2, "hedges": 1, "negations": 1, "connectives": 2, "certainty": 0}
    assert {name: round(features[name] * 14, 4) for name in shares} == shares
    assert features["uppercase"] == pytest.approx(6 / 41)
    assert features["commas"] == pytest.approx(1 / 14)
    assert features["unfinished"] == 1
    assert of("Sure! Here you are.")["affirms"] == 1
    assert of("I’m sorry, but no.")["declines"] == of("As an AI, I …")["declines"] == 1
    assert of("It is sorry.")["declines"] == of("Surely.")["affirms"] == 0
    assert of("Thank you, please.")["politeness"] == pytest.approx(2 / 3)


def test_how_it_reads() -> None:
    """The ease of a sentence by hand: 6 words, 1 sentence, 6 syllables."""
    assert of("The cat sat on the mat.")["reading_ease"] == pytest.approx((206.835 - 1.015 * 6 - 84.6) / 100)
    hard = of("Institutional considerations necessitate interdisciplinary collaboration.")["reading_ease"]
    assert hard == -1
    assert of("no no no no")["variety"] == pytest.approx(math.log(2) / math.log(5))
    assert of("no no no no")["repetition"] == pytest.approx(0.5)
    assert of("one two three four")["repetition"] == 0


def test_lists_and_lines_end_sentences_too() -> None:
    assert count(of("Eggs\nFlour\nMilk")["sentences"]) == 3
    assert count(of("1. Eggs\n2. Flour")["sentences"]) == 2
    assert count(of("Really?! Yes... (Or no.) e.g. this")["sentences"]) == 5
    assert count(of("今日は。元気？")["sentences"]) == 2


def test_the_prompt() -> None:
    features = of("Paris is the capital, surely.", "What is the capital of France?")
    assert features["prompt_length"] == pytest.approx(math.log(30 / 31))
    assert features["prompt_covered"] == pytest.approx(1 / 3)  # what, CAPITAL, france
    assert features["prompt_repeated"] == pytest.approx(1 / 3)  # paris, CAPITAL, surely
    for prompt in (None, ""):
        alone = of("Paris is the capital, surely.", prompt)
        assert [alone[name] for name in NAMES if name.startswith("prompt")] == [0, 0, 0]
    # Nothing else depends on the prompt, nor on the answers beside it.
    pairs = [(None, ANSWER), ("Why?", "Because."), ("Why?", ANSWER), (None, "Because.")]
    together = count_features(pairs)
    for row, pair in zip(together, pairs, strict=True):
        np.testing.assert_array_equal(row, count_features([pair])[0])
    np.testing.assert_array_equal(together[0, :-3], together[2, :-3])


def test_line_ends_of_other_systems() -> None:
    np.testing.assert_allclose(count_features([(None, ANSWER.replace("\n", "\r\n"))]), count_features([(None, ANSWER)]))


STRANGE = {
    "nothing": "",
    "blanks": " \n\t  \n",
    "no letters": "?!… 123 —",
    "lone surrogates": "a\ud800b \udfff",
    "right to left": "שלום, מה שלומך? كيف حالك؟",
    "emoji": "👩‍👩‍👧 🇨🇭🙂",
    "no spaces": "日本語の文章です。",
    "control": "\x00\x1b[0m\x7f\u202e\ufeff",
    "lowercased to more": "İ" * 9,
    "a fence that stays open": "```\na\nb",
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_any_text_can_be_measured(text: str) -> None:
    both = count_features([(None, text), (text, text)])
    assert both.shape == (2, len(NAMES))
    assert both.dtype == np.float32
    assert np.isfinite(both).all()
    assert np.abs(both).max() < 10
    assert count_features([]).shape == (0, len(NAMES))


# With a pattern that is not linear, one of these would take hours.
LONG = ["a", " ", "\n", "a\n", "\n\u2003", ".", '."', "**a", "`a", "\n ", "a'", "- \n", "http://", "eu ", "|\n", "😀"]


@pytest.mark.slow
@pytest.mark.parametrize("piece", LONG)
def test_a_megabyte_of_text(piece: str) -> None:
    text = (piece * 2**20)[: 2**20]
    measured = count_features([("Why?", text), (None, text + "x")])
    assert np.isfinite(measured).all()
    np.testing.assert_allclose(np.expm1(measured[:, 0]), [2**20, 2**20 + 1], rtol=1e-5)


@pytest.fixture
def training() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of 200 items, of which the first is always the same and the second far larger; and embeddings."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((200, 4)) * [0, 1000, 1, 0.01] + [7, 50, -3, 0.5]
    return features.astype(np.float32), rng.standard_normal((200, 16)).astype(np.float32) / 4


def test_features_get_their_share(training: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    features, embeddings = training
    statistics = Statistics.of(features, embeddings, share=0.25)
    beside = statistics.apply(features)
    assert beside.dtype == np.float32
    np.testing.assert_allclose(beside.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(beside.var(0).sum(), 0.25 * embeddings.var(0).sum(), rtol=1e-4)
    np.testing.assert_allclose(beside[:, 1:].std(0), statistics.limit / 5, rtol=1e-4)
    assert statistics.scale[0] == 0
    # Ten times the embedding, ten times the coordinates: the encoder's own scale does not matter.
    np.testing.assert_allclose(Statistics.of(features, embeddings * 10, share=0.25).apply(features), 10 * beside, 1e-4)


def test_an_unusual_text_does_not_dominate(training: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    statistics = Statistics.of(*training)
    unusual = statistics.apply(np.array([[1e6, 1e9, -3.0, -1e9]], np.float32))[0]
    np.testing.assert_allclose(unusual, [0, statistics.limit, 0, -statistics.limit], atol=statistics.limit / 10)


def test_statistics_survive_json(training: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    statistics = Statistics.of(*training)
    again = Statistics(*(tuple(v) if isinstance(v, list) else v for v in json.loads(json.dumps(statistics))))
    assert again == statistics
    np.testing.assert_array_equal(again.apply(training[0]), statistics.apply(training[0]))


def test_items_that_do_not_differ_get_no_features() -> None:
    same = np.ones((3, 4), np.float32)
    statistics = Statistics.of(same, np.eye(3, dtype=np.float32))
    assert statistics.scale == (0, 0, 0, 0)
    np.testing.assert_array_equal(statistics.apply(same * 9), np.zeros((3, 4)))


@pytest.mark.parametrize(("items", "embedded"), [(0, 0), (2, 3)])
def test_statistics_need_items(items: int, embedded: int) -> None:
    with pytest.raises(EncoderError, match=f"found {items} and {embedded}"):
        Statistics.of(np.ones((items, 4), np.float32), np.ones((embedded, 8), np.float32))


@pytest.mark.slow
def test_the_experiment_runs(tmp_path: Path) -> None:
    """On people of whom half like long answers, with embeddings that say nothing of length."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    lengths = rng.permutation(24) + 1
    with (data / "items.jsonl").open("w") as file:
        for number, length in enumerate(lengths):
            row = {"item_id": f"i{number}", "prompt": "Why?", "response": "Because. " * int(length)}
            file.write(json.dumps({**row, "embedding": rng.standard_normal(6).tolist()}) + "\n")
    with (data / "comparisons.csv").open("w") as file:
        file.write("user_id,phase,chosen,rejected\n")
        for user in range(20):
            for number in range(40):
                a, b = sorted(rng.choice(24, 2, replace=False), key=lambda item: lengths[item], reverse=user % 2 == 0)
                file.write(f"u{user},{('support', 'query')[number % 2]},i{a},i{b}\n")
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "export" / "experiments" / "choose_features.py",
            data,
            "--quick",
            "--single",
            "characters,bullets",
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {line[:16].strip(): line[16:].split() for line in done.stdout.splitlines()[2:]}
    after = {name: float(values[3]) for name, values in rows.items()}
    assert after["share 1.0"] > after["without"] + 0.1
    assert after["bullets"] == after["without"]  # there are none
    assert rows["without"][-3:] == ["+0.0000", "[+0.0000,", "+0.0000]"]
