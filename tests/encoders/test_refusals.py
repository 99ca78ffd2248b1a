"""Texts that a host's encoder does not take, told from those that it does."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mrm_sdk.encoders.refusals import Text, encode_accepted
from mrm_sdk.errors import BundleMismatchError, EncoderError, MrmError, TextRefusedError

BAD = "bad"


class Failing:
    """Fails with what ``fail`` returns where it is called with a bad text; counts its calls."""

    def __init__(self, fail: Callable[[dict[int, str]], Exception]) -> None:
        self.fail, self.calls = fail, 0

    def __call__(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        self.calls += 1
        bad = {i: f"no {text}" for i, (_, text) in enumerate(texts) if BAD in text}
        if bad:
            raise self.fail(bad)
        return vectors(texts)


def vectors(texts: Sequence[Text]) -> NDArray[np.float32]:
    return np.array([[len(text), 1] for _, text in texts], np.float32).reshape(len(texts), 2)


FAILURES: dict[str, Callable[[dict[int, str]], Exception]] = {
    "all named": TextRefusedError.of,
    "one named at a time": lambda bad: TextRefusedError.of({min(bad): bad[min(bad)]}),
    "none named": lambda _: TextRefusedError("too long"),
    "named out of range": lambda _: TextRefusedError("too long", {-1: "", 99: ""}),
    "an error of its own": lambda _: ValueError("token 7"),
    "out of memory": lambda _: MemoryError(),
}


@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
@given(pattern=st.lists(st.booleans(), max_size=12))
def test_the_others_are_encoded(fail: Callable[[dict[int, str]], Exception], pattern: list[bool]) -> None:
    texts = [(None, f"{BAD if is_bad else 'good'} {i}" * (i + 1)) for i, is_bad in enumerate(pattern)]
    refused: dict[int, str] = {}
    encoded = encode_accepted(Failing(fail), texts, 2, refused)
    assert set(refused) == {i for i, is_bad in enumerate(pattern) if is_bad}
    assert all(refused.values())
    kept = [i for i, is_bad in enumerate(pattern) if not is_bad]
    np.testing.assert_array_equal(encoded[kept], vectors([texts[i] for i in kept]))
    assert not encoded[list(refused)].any()


def test_reasons_are_those_of_the_encoder() -> None:
    refused: dict[int, str] = {}
    encode_accepted(Failing(TextRefusedError.of), [(None, "good"), (None, "bad one")], 2, refused)
    assert refused == {1: "no bad one"}
    refused.clear()
    encode_accepted(Failing(lambda _: KeyError("what a user wrote")), [(None, "good"), (None, "bad one")], 2, refused)
    assert refused == {1: "the encoder fails with KeyError"}  # its message may quote the text


def test_rows_that_are_not_finite() -> None:
    def encode(texts: Sequence[Text]) -> NDArray[np.float32]:
        return np.where([[BAD in text] for _, text in texts], np.float32(np.nan), vectors(texts))

    refused: dict[int, str] = {}
    encoded = encode_accepted(encode, [(None, "bad"), (None, "good")], 2, refused)
    assert refused == {0: "The encoder returned NaN or infinity."}
    np.testing.assert_array_equal(encoded, [[0, 0], [4, 1]])
    with pytest.raises(EncoderError, match="NaN or infinity"):
        encode_accepted(encode, [(None, "bad"), (None, "good")], 2, None)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (TimeoutError(), "failed with TimeoutError"),
        (ConnectionResetError(), "failed with ConnectionResetError"),
        (EncoderError("the server is gone"), "the server is gone"),
        (BundleMismatchError("another model"), "another model"),
    ],
)
def test_what_is_not_the_texts_fault_is_an_error_at_once(error: Exception, raised: str) -> None:
    encode = Failing(lambda _: error)
    with pytest.raises(MrmError, match=raised):
        encode_accepted(encode, [(None, f"{BAD} {i}") for i in range(64)], 2, {})
    assert encode.calls == 1


def test_an_encoder_that_takes_nothing() -> None:
    calls = 0

    def encode(texts: Sequence[Text]) -> NDArray[np.float32]:
        nonlocal calls
        calls += 1
        raise RuntimeError

    with pytest.raises(EncoderError, match="failed with RuntimeError; nothing was stored"):
        encode_accepted(encode, [(None, f"{i}") for i in range(64)], 2, {})
    assert calls == 2  # the texts, and one that should pass


def test_a_failure_that_passes_is_nobodys_fault() -> None:
    failures = [RuntimeError("busy")]

    def encode(texts: Sequence[Text]) -> NDArray[np.float32]:
        if failures:
            raise failures.pop()
        return vectors(texts)

    for count in (1, 2, 5):
        failures.append(RuntimeError("busy"))
        with pytest.raises(EncoderError, match="failed with RuntimeError"):
            encode_accepted(encode, [(None, "good")] * count, 2, {})


def test_without_a_place_for_refusals_they_are_errors() -> None:
    with pytest.raises(TextRefusedError, match=r"Text 1 of this call is refused: no bad \(and 1 more of this call\)"):
        encode_accepted(Failing(TextRefusedError.of), [(None, "good"), (None, "bad"), (None, "bad")], 2, None)


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(TextRefusedError.of({3: "too long"})))
    assert (str(error), error.reasons) == ("Text 3 of this call is refused: too long", {3: "too long"})


def test_an_encoder_whose_every_number_is_nan_refuses_no_text() -> None:
    def encode(texts: Sequence[Text]) -> NDArray[np.float32]:
        return np.full((len(texts), 2), np.nan, np.float32)

    refused: dict[int, str] = {}
    with pytest.raises(EncoderError, match="NaN or infinity"):
        encode_accepted(encode, [(None, "good"), (None, "fine")], 2, refused)
    assert not refused
