"""The encoder that travels in a bundle, with the real all-MiniLM-L6-v2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.bundle import Bundle
from mrm_sdk.bundle.encoder_spec import EncoderSpec
from mrm_sdk.encoders import Encoder, OnnxEncoder, PrecomputedEncoder, embed
from mrm_sdk.encoders.export.local_model import load_local
from mrm_sdk.errors import BundleMismatchError, EmbeddingError, EncoderError
from mrm_sdk.schemas.items import Item
from mrm_sdk.settings import Settings

TEXTS = ["Short.", "A rather longer answer, in two parts. " * 6, "Réponse — 日本語 🙂 עברית", ""]


@pytest.fixture(scope="module")
def encoder(text_bundle: Bundle) -> Encoder:
    return OnnxEncoder.of(text_bundle)


def test_it_is_the_model_that_others_run(encoder: Encoder) -> None:
    """Vectors equal those of the published model run in torch, one text at a time."""
    from tokenizers import Tokenizer

    local = load_local("minilm")
    module, tokenizer = local.module, Tokenizer.from_buffer(local.files["tokenizer.json"])
    for prompt, text in [(None, TEXTS[0]), (None, TEXTS[1]), ("What?", TEXTS[2])]:
        tokens = tokenizer.encode(text) if prompt is None else tokenizer.encode(prompt, text)
        length = tokens.attention_mask.index(0) if 0 in tokens.attention_mask else len(tokens.ids)
        inputs = [torch.tensor([ids[:length]]) for ids in (tokens.ids, tokens.attention_mask, tokens.type_ids)]
        with torch.no_grad():
            expected = module(*inputs)[0].numpy()
        np.testing.assert_allclose(encoder.encode([(prompt, text)])[0], expected, atol=1e-5)


def test_batching_and_order_change_nothing(encoder: Encoder) -> None:
    texts = [(prompt, text) for prompt in (None, "A prompt") for text in TEXTS] * 6
    together = encoder.encode(texts)
    assert together.shape == (len(texts), 384)
    for row, text in zip(together[:8], texts[:8], strict=True):
        np.testing.assert_allclose(row, encoder.encode([text])[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_threads_and_budgets_change_nothing(text_bundle: Bundle) -> None:
    texts = [("A prompt", text * (1 + number % 3)) for number in range(8) for text in TEXTS]
    expected = OnnxEncoder.of(text_bundle).encode(texts)
    for settings in (Settings(threads=1), Settings(threads=3, encode_tokens=64), Settings(encode_tokens=100_000)):
        encoder = OnnxEncoder(text_bundle.read, text_bundle.manifest.encoder, settings=settings)
        np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)


ODD = {
    "empty": "",
    "blank": " \n\t ",
    "a megabyte": "A sentence of a long story. " * 40_000,
    "a megabyte without a space": "x" * 1_000_000,
    "right to left": "שלום עולם — مرحبا بالعالم",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 50,
    "combining": "Z͑ͫ̓a̴l͝g͏o" * 20,
    "null and controls": "a\x00b\x07\u202ec\ufeff",
    "private use": "\ue000\U0010ffff",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_texts_are_encoded(encoder: Encoder, text: str) -> None:
    vectors = encoder.encode([(None, text), (text, "An answer."), (text, text)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_lone_surrogates_are_refused_before_anything_is_run(encoder: Encoder) -> None:
    for texts in ([("p", "a\ud800b")], [(None, "fine"), (None, "\udfff")], [("\ud800", "r")]):
        with pytest.raises(EncoderError, match="lone surrogates"):
            encoder.encode(texts)


def test_a_tokenizer_of_another_model_is_refused(text_bundle: Bundle) -> None:
    """Its tokens would lie beyond the graph's vocabulary."""
    spec = text_bundle.manifest.encoder.model_copy(update={"vocabulary": 1000})
    with pytest.raises(BundleMismatchError, match="beyond the 1000 that the graph knows"):
        OnnxEncoder(text_bundle.read, spec, settings=Settings())


def test_neither_prompt_nor_response_is_pushed_out(encoder: Encoder) -> None:
    long = "word " * 5000
    by_response = encoder.encode([(long, "Yes, of course."), (long, "No, certainly not.")])
    by_prompt = encoder.encode([("Is it raining?", long), ("Who wrote Faust?", long)])
    for pair in (by_response, by_prompt):
        assert np.abs(pair[0] - pair[1]).max() > 1e-3


def test_nothing_gives_nothing(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_items_with_embeddings_of_their_own_need_no_encoder() -> None:
    encoder = PrecomputedEncoder(3, "mine")
    items = [Item(None, None, np.array([n, 0, 1], np.float32)) for n in range(3)]
    assert embed(encoder, items)[:, 0].tolist() == [0, 1, 2]
    with pytest.raises(EncoderError, match=r"Response\(embedding=…\)"):
        embed(encoder, [*items, Item(None, "text", None)])
    with pytest.raises(EmbeddingError, match="4 numbers where this encoder's have 3"):
        embed(encoder, [Item(None, None, np.zeros(4, np.float32))])


class Broken:
    """An encoder of the host's that returns something wrong."""

    dimension, fingerprint = 3, "broken"

    def __init__(self, result: object) -> None:
        self.result = result

    def encode(self, texts: object) -> object:
        return self.result


@pytest.mark.parametrize("result", [np.zeros((2, 3)), np.zeros((1, 4)), np.full((1, 3), np.nan)])
def test_what_an_encoder_returns_is_checked(result: object) -> None:
    with pytest.raises(EncoderError, match="The encoder returned"):
        embed(Broken(result), [Item(None, "text", None)])  # type: ignore[arg-type]


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    spec = EncoderSpec(kind="onnx", name="x", dimension=3, max_tokens=8, model_fingerprint="")
    with pytest.raises(BundleMismatchError, match=r"tokenizer\.json cannot be read"):
        OnnxEncoder(lambda name: b"{}", spec, settings=Settings())


def test_a_request_is_one_run_where_one_runs_at_a_time(text_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: texts of unlike length are padded, rather than run after each other."""
    encoder = OnnxEncoder.of(Bundle(text_bundle.path, Settings(threads=1)))
    request: list[tuple[str | None, str]] = [
        (None, text) for text in ("Yes.", "word " * 20, "word " * 40, "No, never.")
    ]
    expected = [encoder.encode([text])[0] for text in request]
    runs: list[int] = []
    real = encoder._session.run
    monkeypatch.setattr(
        encoder._session, "run", lambda inputs, output: (runs.append(len(inputs["input_ids"])), real(inputs, output))[1]
    )
    np.testing.assert_allclose(encoder.encode(request), expected, atol=1e-5)
    assert runs == [4]
