"""Hidden states of a tiny Llama: one BOS, no trace of padding, the end of the answer kept, the score head's input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mrm_sdk.encoders.hidden_state import HiddenStateEncoder
from mrm_sdk.encoders.tokenization import messages_of
from mrm_sdk.errors import ConfigurationError, EncoderError
from tests.encoders.tiny_llama import TEMPLATE, write_tiny_llama

TEXTS: list[tuple[str | None, str]] = [
    ("What is DNS?", "A phone book."),
    (None, "Hm."),
    ("user: Hi\nassistant: Yes?\nuser: And?", "A rather longer answer, in two parts. " * 4),
    ("Réponse", "日本語 🙂"),
    ("p", ""),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


def tiny(folder: Path, **changes: Any) -> HiddenStateEncoder:
    return HiddenStateEncoder(str(folder), **{"device": "cpu", "dtype": "float32", "max_tokens": 512, **changes})


def test_the_template_is_applied_once(folder: Path) -> None:
    encoder = tiny(folder)
    for prompt, response in TEXTS:
        ids = encoder.tokens(prompt, response)
        assert ids.count(0) == 1
        assert (ids[0], ids[-1]) == (0, 2)
    text = AutoTokenizer.from_pretrained(folder).decode(encoder.tokens(*TEXTS[2]))
    assert text.startswith("<|bos|><|start|>user\nHi<|end|><|start|>assistant\nYes?<|end|><|start|>user\nAnd?<|end|>")


def test_a_batch_equals_one_at_a_time_whatever_side_is_padded(folder: Path, tmp_path: Path) -> None:
    right = tiny(write_tiny_llama(tmp_path / "right", side="right"), batch_size=3)
    left = tiny(folder, batch_size=5)
    single = np.concatenate([left.encode([text]) for text in TEXTS])
    assert single.shape == (len(TEXTS), 16)
    assert single.dtype == np.float32
    np.testing.assert_allclose(left.encode(TEXTS), single, atol=1e-5)
    np.testing.assert_allclose(right.encode(TEXTS), single, atol=1e-5)
    assert len({row.tobytes() for row in single}) == len(TEXTS)


def test_it_is_what_the_score_head_sees(folder: Path) -> None:
    encoder, model = tiny(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        rewards = [model(torch.tensor([encoder.tokens(*text)])).logits.item() for text in TEXTS]
        scored = model.score(torch.from_numpy(encoder.encode(TEXTS)))[:, 0]
    np.testing.assert_allclose(scored, rewards, atol=1e-5)


def test_truncation_keeps_the_end_of_the_answer(folder: Path) -> None:
    encoder, whole = tiny(folder, max_tokens=20), tiny(folder)
    full, cut = (e.tokens("p" * 50, "x" * 50 + "the end") for e in (whole, encoder))
    assert (len(full) > 20, len(cut)) == (True, 20)
    assert cut == [0, *full[-19:]]
    ends = encoder.encode([("p", "x" * 50 + "one end"), ("q", "x" * 50 + "one end"), ("p", "x" * 50 + "two end")])
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)
    assert np.abs(ends[0] - ends[2]).max() > 1e-3


def test_bfloat16_fits_into_float16_without_loss(folder: Path) -> None:
    vectors = tiny(folder, dtype="bfloat16").encode(TEXTS)
    normal = vectors[np.abs(vectors) > 6.2e-5]
    np.testing.assert_array_equal(normal.astype(np.float16).astype(np.float32), normal)
    np.testing.assert_allclose(vectors, tiny(folder).encode(TEXTS), atol=0.1)


def test_fingerprints_tell_vectors_apart(folder: Path, tmp_path: Path) -> None:
    same = [tiny(folder).fingerprint, tiny(folder, batch_size=2).fingerprint]
    other = [
        tiny(write_tiny_llama(tmp_path / "seed", seed=1)).fingerprint,
        tiny(write_tiny_llama(tmp_path / "template", template=TEMPLATE + " ")).fingerprint,
        tiny(folder, max_tokens=20).fingerprint,
        tiny(folder, dtype="bfloat16").fingerprint,
    ]
    assert len(set(same)) == 1
    assert len(set(same + other)) == 5


def test_prompts_become_messages_again() -> None:
    def told(prompt: str | None) -> list[tuple[str, str]]:
        return [(m["role"], m["content"]) for m in messages_of(prompt)]

    assert told(None) == [("user", "")]
    assert told("What?\nuser: x") == [("user", "What?\nuser: x")]
    assert told("system: s\nuser: two\nlines\nassistant: a\nuser: ") == [
        ("system", "s"), ("user", "two\nlines"), ("assistant", "a"), ("user", ""),
    ]  # fmt: skip


def test_what_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be loaded on cpu"):
        tiny(tmp_path / "nothing")
    for wrong in ({"dtype": "int8"}, {"max_tokens": 1}, {"batch_size": 0}):
        with pytest.raises(ConfigurationError, match="dtype must be one of"):
            tiny(folder, **wrong)
    with pytest.raises(ConfigurationError, match="has no chat template"):
        tiny(write_tiny_llama(tmp_path / "plain", template=None))
    refusing = write_tiny_llama(tmp_path / "refusing", template="{{ raise_exception('no system') }}")
    with pytest.raises(EncoderError, match="refuses a conversation: no system"):
        tiny(refusing).encode([("p", "r")])
