"""Texts that a host's encoder does not take, told from those that it does."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT, Handcrafted, Probe
from mrm_sdk.encoders.base import Encoder, embed
from mrm_sdk.encoders.handcrafted import NAMES, VERSION, count_features
from mrm_sdk.encoders.probe import ProbedEncoder
from mrm_sdk.encoders.refusals import Text, encode_accepted
from mrm_sdk.encoders.text_key import text_key
from mrm_sdk.encoders.with_handcrafted import WithHandcrafted
from mrm_sdk.errors import BundleMismatchError, EncoderError, MrmError, TextRefusedError
from mrm_sdk.schemas.items import Item

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
    "named by no index": lambda bad: TextRefusedError("too long", dict.fromkeys([*map(str, bad), 0.5], "")),
    "named by numpy": lambda bad: TextRefusedError("too long", {np.int64(i): bad[i] for i in bad}),
    "without a word": lambda bad: TextRefusedError(" ", dict.fromkeys(bad, "")),
    "without a reason": lambda bad: TextRefusedError("", dict.fromkeys(bad)),  # type: ignore[arg-type]  # hosts may
    "without any word": lambda _: TextRefusedError(""),
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
    assert all(reason and reason != "None" for reason in refused.values())
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


def test_a_text_is_at_fault_only_if_it_fails_three_times() -> None:
    """What httpx, openai and grpc raise is no OSError: an outage may look like a text's fault."""
    failures: list[Exception | None] = []

    def encode(texts: Sequence[Text]) -> NDArray[np.float32]:
        if texts == [(None, "good")] and failures and (failure := failures.pop(0)) is not None:
            raise failure
        return vectors(texts)

    for again in (None, OSError(), EncoderError("the server is gone")):
        failures[:] = [RuntimeError("busy"), RuntimeError("busy"), again]
        refused: dict[int, str] = {}
        with pytest.raises(EncoderError):
            encode_accepted(encode, [(None, "good")], 2, refused)
        assert not refused
        assert not failures
    failures[:] = [RuntimeError("busy")] * 3
    encode_accepted(encode, [(None, "good")], 2, refused)
    assert refused == {0: "the encoder fails with RuntimeError"}
    failures[:] = [RuntimeError("busy"), TextRefusedError("too long")]
    encode_accepted(encode, [(None, "good")], 2, refused)
    assert refused == {0: "too long"}


class Holding:
    """Refuses bad texts, and holds the vectors of the others in its error, as an encoder on a server does."""

    dimension, fingerprint = 2, "holding"

    def __init__(self) -> None:
        self.sent: list[Text] = []

    def encode(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        self.sent += texts
        bad = {i: "too long" for i, (_, text) in enumerate(texts) if BAD in text}
        if bad:
            good = [text for i, text in enumerate(texts) if i not in bad]
            held = zip(good, vectors(good), strict=True)
            raise TextRefusedError.of(bad, {text_key("holding", *text): row for text, row in held})
        return vectors(texts)


class Reversing(Holding):
    """Hands texts on in another order, and without those that it knows."""

    def __init__(self, inner: Holding) -> None:
        super().__init__()
        self.inner = inner

    def encode(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        try:
            return self.inner.encode(texts[::-1])[::-1]
        except TextRefusedError as error:
            error.reasons = {len(texts) - 1 - i: reason for i, reason in error.reasons.items()}
            raise


class Scaling(Reversing):
    """Has other vectors of the same length, and so another fingerprint; it hands errors on as they are."""

    fingerprint = "scaling"

    def encode(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        return 3 * self.inner.encode(texts)


MIXED: list[Text] = [(None, "good"), (None, "bad"), (None, "better"), ("p", "good"), (None, "bad\udc80")]
TAKEN = [0, 2, 3]


def check_mixed(encoder: Encoder, expected: NDArray[np.float32]) -> None:
    refused: dict[int, str] = {}
    items = [Item(prompt, text, None) for prompt, text in MIXED]
    out = embed(encoder, items, refused)
    assert sorted(refused) == [1, 4]
    np.testing.assert_allclose(out[TAKEN], expected, rtol=1e-6)
    assert not out[[1, 4]].any()


def test_what_an_error_holds_is_not_encoded_again() -> None:
    good = vectors([MIXED[i] for i in TAKEN])
    inner = Holding()
    check_mixed(inner, good)
    assert inner.sent == MIXED
    inner = Holding()
    check_mixed(Reversing(inner), good)
    assert inner.sent == MIXED[::-1]
    inner = Holding()
    check_mixed(Scaling(inner), 3 * good)  # not the vectors that the inner error holds
    assert inner.sent == [*MIXED, *(MIXED[i] for i in TAKEN)]


def test_what_an_error_holds_goes_through_our_wrappers() -> None:
    good = vectors([MIXED[i] for i in TAKEN])
    probe = Probe.of(vectors([PROBE_TEXT])[0])
    count = len(NAMES)
    statistics = Handcrafted(version=VERSION, mean=(0.5,) * count, scale=(2.0,) * count, limit=100)
    features = 2 * (count_features([MIXED[i] for i in TAKEN]) - 0.5)
    for probed in (False, True):
        inner = Holding()
        encoder = ProbedEncoder(inner, probe) if probed else inner
        check_mixed(encoder, good)
        check_mixed(WithHandcrafted(encoder, statistics), np.concatenate([good, features], axis=1))
        assert [text for text in inner.sent if text != PROBE_TEXT] == [*MIXED, *MIXED]


@pytest.mark.parametrize("held", [[1, 2, 3], [[1, 2]], [np.nan, 1], 7, None, "xy", [[1], 2]])
def test_what_is_no_vector_is_encoded_again(held: Any) -> None:
    def encode(texts: Sequence[Text]) -> NDArray[np.float32]:
        if len(texts) > 1:
            raise TextRefusedError.of({0: "too long"}, {text_key("mine", *texts[1]): held})
        return vectors(texts)

    refused: dict[int, str] = {}
    out = encode_accepted(encode, [(None, "bad"), (None, "good")], 2, refused, "mine")
    np.testing.assert_array_equal(out, [[0, 0], [4, 1]])


def test_an_encoder_that_refuses_the_probe_refuses_no_text() -> None:
    class Refusing(Holding):
        def encode(self, texts: Sequence[Text]) -> NDArray[np.float32]:
            raise TextRefusedError.of({0: "no model"})

    refused: dict[int, str] = {}
    encoder = ProbedEncoder(Refusing(), Probe.of(np.ones(2, np.float32)))
    with pytest.raises(EncoderError, match="Refusing does not take the text that shows which model it runs"):
        embed(encoder, [Item(None, "good", None)], refused)
    assert not refused


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
    error = pickle.loads(pickle.dumps(TextRefusedError.of({3: "too long"}, {b"key": np.ones(2)})))
    np.testing.assert_array_equal(error.vectors[b"key"], [1, 1])
    assert (str(error), error.reasons) == ("Text 3 of this call is refused: too long", {3: "too long"})


def test_an_encoder_whose_every_number_is_nan_refuses_no_text() -> None:
    def encode(texts: Sequence[Text]) -> NDArray[np.float32]:
        return np.full((len(texts), 2), np.nan, np.float32)

    refused: dict[int, str] = {}
    with pytest.raises(EncoderError, match="NaN or infinity"):
        encode_accepted(encode, [(None, "good"), (None, "fine")], 2, refused)
    assert not refused
