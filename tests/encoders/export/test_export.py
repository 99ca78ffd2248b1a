"""Exported encoders against sentence-transformers and transformers: tiny models of each class, and the real MiniLM."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT, TOKENIZER
from mrm_sdk.cli.main import main
from mrm_sdk.encoders.export import pipeline as exporting
from mrm_sdk.encoders.export.pipeline import export_encoder
from mrm_sdk.encoders.folder import EncoderFolder
from mrm_sdk.encoders.hidden_state import HiddenStateEncoder
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.errors import (
    BundleDamagedError,
    BundleMismatchError,
    ConfigurationError,
    EncoderError,
    OutputError,
)
from mrm_sdk.settings import Settings
from tests.conftest import mrm
from tests.encoders.export.tiny_models import LENGTH, write, write_model, write_transformer
from tests.encoders.tiny_llama import write_tiny_llama

pytestmark = pytest.mark.slow

TEXTS = [
    "Short.",
    "the longer answer, in two parts; " * 5,
    "Réponse — 日本語 🙂 עברית",
    "",
    "nul\0l",
    "x" * 300,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t",
]
PAIRS = [
    ("What is it?", "A test."),
    ("", "A test."),
    ("What is it?", " "),
    ("p " * 100, "the end"),
    ("why", "because " * 40),
    ("p " * 100, "because " * 40),
]
CLASSES: dict[str, dict[str, Any]] = {
    "bert": {"pooling": "mean", "older": True, "max_seq_length": 32},
    "roberta": {"pooling": "cls", "normalize": False},
    "distilbert": {"pooling": "mean", "do_lower_case": True},
    "qwen3": {"pooling": "lasttoken"},
}


def opened(folder: Path, **settings: Any) -> OnnxEncoder:
    encoder = EncoderFolder(folder)
    chosen = Settings(providers="cpu", **settings)
    return OnnxEncoder(encoder.read, encoder.manifest.encoder, settings=chosen, folder=folder)


@pytest.fixture(scope="module", params=list(CLASSES))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Class, the model's folder and the encoder's."""
    home = tmp_path_factory.mktemp(request.param)
    model = write_model(home / "model", request.param, **CLASSES[request.param])
    export_encoder(str(model), home / "encoder")
    return request.param, model, home / "encoder"


def test_vectors_are_those_of_sentence_transformers(exported: tuple[str, Path, Path]) -> None:
    library = pytest.importorskip("sentence_transformers")
    _, model, folder = exported
    expected = library.SentenceTransformer(str(model), device="cpu").encode(TEXTS, show_progress_bar=False)
    encoder = opened(folder, encode_tokens=10_000)
    together = encoder.encode([(None, text) for text in TEXTS])
    np.testing.assert_allclose(together, expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.encode([(None, text)]) for text in TEXTS]), expected, atol=1e-5)


def test_pairs_are_those_of_transformers(exported: tuple[str, Path, Path]) -> None:
    kind, model, folder = exported
    tokenizer, transformer = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    # Of pairs that do not fit, ours keep other tokens: tests/encoders/test_tokenization.py.
    most = cut(folder)["max_length"]
    pairs = [pair for pair in PAIRS if len(tokenizer(*pair)["input_ids"]) <= most]
    assert 0 < len(pairs) < len(PAIRS)
    expected = [pooled(kind, transformer, tokenizer(*pair, **cut(folder))) for pair in pairs]
    np.testing.assert_allclose(opened(folder, encode_tokens=10_000).encode(pairs), expected, atol=1e-5)


def cut(folder: Path) -> dict[str, Any]:
    most = EncoderFolder(folder).manifest.encoder.max_tokens
    return {"truncation": "longest_first", "max_length": most, "return_tensors": "pt"}


@torch.no_grad()
def pooled(kind: str, transformer: Any, inputs: Any) -> NDArray[np.float32]:
    hidden = transformer(**inputs).last_hidden_state[0]
    vector = {"roberta": hidden[0], "qwen3": hidden[-1]}.get(kind, hidden.mean(0))
    return (vector if kind == "roberta" else vector / vector.norm()).numpy()


def test_every_length_up_to_the_limit(exported: tuple[str, Path, Path]) -> None:
    _, _, folder = exported
    encoder, most = opened(folder, encode_tokens=10_000), EncoderFolder(folder).manifest.encoder.max_tokens
    assert most == (32 if exported[0] == "bert" else LENGTH)
    texts = [(None, "z " * length) for length in range(most + 3)]
    together = encoder.encode(texts)
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], row, atol=1e-5)


def test_what_the_folder_says(exported: tuple[str, Path, Path]) -> None:
    kind, model, folder = exported
    manifest = EncoderFolder(folder).manifest
    spec = manifest.encoder
    assert (spec.name, spec.dimension, spec.layout, spec.precision) == ("model", 16, "segments", "float32")
    assert spec.vocabulary == AutoModel.from_pretrained(model).get_input_embeddings().num_embeddings
    assert manifest.metrics["pooling"] == {"roberta": "cls", "qwen3": "last"}.get(kind, "mean")
    assert manifest.metrics["largest_difference"] < 1e-5
    assert manifest.metrics["orders_changed"] < 1e-3
    assert (manifest.metrics["graph_run"], manifest.metrics["longest"]) == (True, spec.max_tokens)
    np.testing.assert_allclose(spec.probe.numbers(), opened(folder).encode([PROBE_TEXT])[0], atol=1e-6)
    assert {path.name for path in folder.iterdir()} == {"encoder.json", "encoder.onnx", "tokenizer.json"}
    assert str(model).encode() not in (folder / "encoder.onnx").read_bytes()


def test_the_real_minilm(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from mrm_sdk.encoders.export.minilm import minilm_folder

    manifest = export_encoder("minilm", tmp_path / "encoder", licence="MIT")
    assert (manifest.encoder.dimension, manifest.encoder.max_tokens, manifest.licence) == (384, 256, "MIT")
    texts = [*TEXTS, "word " * 400]
    expected = library.SentenceTransformer(str(minilm_folder()), device="cpu").encode(texts, show_progress_bar=False)
    vectors = opened(tmp_path / "encoder").encode([(None, text) for text in texts])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A reward model's folder and the encoder's."""
    home = tmp_path_factory.mktemp("reward")
    model = write_tiny_llama(home / "model")
    export_encoder(str(model), home / "encoder", max_tokens=100)
    return model, home / "encoder"


def test_a_reward_model(reward: tuple[Path, Path]) -> None:
    model, folder = reward
    texts = [*((None, text) for text in TEXTS), *PAIRS, ("system: s\nuser: Hi\nassistant: Yes?\nuser: And?", "Well.")]
    vectors = opened(folder).encode(texts)
    in_torch = HiddenStateEncoder(str(model), device="cpu", dtype="float32", max_tokens=100)
    np.testing.assert_allclose(vectors, in_torch.encode(texts), atol=1e-5)
    whole = AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        rewards = [whole(torch.tensor([in_torch.tokens(*text)])).logits.item() for text in texts]
        np.testing.assert_allclose(whole.score(torch.from_numpy(vectors))[:, 0], rewards, atol=1e-5)
    spec = EncoderFolder(folder).manifest.encoder
    assert (spec.layout, spec.max_tokens, spec.probe is None) == ("chat", 100, False)
    assert (folder / "chat_template.json").is_file()


def test_weights_beside_the_graph(reward: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inline = reward
    monkeypatch.setattr(exporting, "INLINE_BYTES", 1000)
    folder = tmp_path / "encoder"
    files = export_encoder(str(model), folder, max_tokens=100).files
    assert "encoder.onnx.data" in files
    assert (folder / "encoder.onnx").stat().st_size < (inline / "encoder.onnx").stat().st_size
    np.testing.assert_allclose(opened(folder).encode(PAIRS), opened(inline).encode(PAIRS), atol=1e-6)
    assert not list(tmp_path.glob(".mrm-*"))
    data = folder / "encoder.onnx.data"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    with pytest.raises(BundleDamagedError, match=r"encoder\.onnx\.data is not the file that was shipped"):
        EncoderFolder(folder)
    with pytest.raises(ConfigurationError, match="too large for int8"):
        export_encoder(str(model), folder, precision="int8")


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_smaller_numbers(reward: tuple[Path, Path], tmp_path: Path, precision: Any) -> None:
    model, folder = reward
    manifest = export_encoder(str(model), tmp_path / "encoder", max_tokens=100, precision=precision)
    exact, vectors = opened(folder).encode(PAIRS), opened(tmp_path / "encoder").encode(PAIRS)
    assert vectors.dtype == np.float32
    difference = np.abs(vectors - exact).max()
    assert 0 < difference < 0.3
    assert 0 < manifest.metrics["largest_difference"] < 0.3
    assert 0.98 < manifest.metrics["least_cosine"] <= 1
    assert manifest.encoder.precision == precision
    assert manifest.encoder.model_fingerprint != EncoderFolder(folder).manifest.encoder.model_fingerprint


def test_bfloat16_says_that_it_needs_a_gpu(reward: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = export_encoder(str(reward[0]), tmp_path / "encoder", max_tokens=100, precision="bfloat16")
    assert 0 < manifest.metrics["largest_difference"] < 0.3
    assert manifest.metrics["graph_run"] is False
    with pytest.raises(BundleMismatchError, match="bfloat16"):
        opened(tmp_path / "encoder").encode(PAIRS)


@pytest.mark.parametrize(("precision", "least"), [("float16", 0.999), ("bfloat16", 0.999), ("int8", 0.95)])
def test_rounding_that_leaves_nothing_of_use(
    reward: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, least: float
) -> None:
    """Stands for a model whose weights lose too much: those that are measured second come out moved."""
    if precision == "bfloat16":
        monkeypatch.setattr(exporting, "_convert_parameters", lambda module, dtype: spoil(module))
    else:
        exact = exporting.to_onnx
        monkeypatch.setattr(exporting, "to_onnx", lambda module, *args, **more: exact(spoil(module), *args, **more))
    with pytest.raises(EncoderError, match=rf"in {precision} has a cosine of -?0\.\d+ .*where {least} is the least"):
        export_encoder(str(reward[0]), tmp_path / "encoder", max_tokens=100, precision=precision)
    assert not (tmp_path / "encoder").exists()


@torch.no_grad()
def spoil(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter))
    return module


class Forgetful(torch.nn.Module):
    """A graph that is wrong behind its 400th token only, as one is that was exported without its sliding window."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.module(input_ids, attention_mask * (torch.arange(attention_mask.shape[1]) < 400))


def test_a_graph_that_is_wrong_for_long_texts(
    reward: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = exporting.to_onnx
    monkeypatch.setattr(exporting, "to_onnx", lambda module, *args, **more: exact(Forgetful(module), *args, **more))
    texts = [("Short?", "Yes.")]
    export_encoder(str(reward[0]), tmp_path / "encoder", max_tokens=400, texts=texts)
    with pytest.raises(EncoderError, match="differs from the model by"):
        export_encoder(str(reward[0]), tmp_path / "encoder", texts=texts)


def test_how_long_the_long_text_is(reward: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "SAMPLE", [(None, "ten words and so on, until it is enough.")])
    monkeypatch.setattr(exporting, "_LONG_TOKENS", 200)
    for most, low, high in ((90, 90, 90), (512, 200, 280)):
        manifest = export_encoder(str(reward[0]), tmp_path / "encoder", max_tokens=most, texts=[])
        assert low <= manifest.metrics["longest"] <= high


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a transformer whose files name no pooling, and the encoder's."""
    home = tmp_path_factory.mktemp("plain")
    model = write_transformer(home / "model", "bert")
    export_encoder(str(model), home / "encoder")
    return model, home / "encoder"


def test_a_plain_transformer(plain: tuple[Path, Path], tmp_path: Path) -> None:
    model, guessed = plain
    assert "the mean was taken" in EncoderFolder(guessed).manifest.metrics["note"]
    told = export_encoder(str(model), tmp_path / "told", pooling="cls", normalize=True, max_tokens=20)
    assert "note" not in told.metrics
    assert told.encoder.max_tokens == 20
    vectors = opened(tmp_path / "told").encode(PAIRS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_an_older_export_is_replaced_only_when_the_new_one_is_complete(
    plain: tuple[Path, Path], tmp_path: Path
) -> None:
    model, folder = plain[0], Path(shutil.copytree(plain[1], tmp_path / "encoder"))
    first = EncoderFolder(folder).manifest

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_encoder(str(model), folder, pooling="cls", progress=interrupt)
    assert EncoderFolder(folder).manifest == first
    second = export_encoder(str(model), folder, pooling="cls")
    assert EncoderFolder(folder).manifest == second != first
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    with pytest.raises(OutputError, match=r"holds no encoder\.json"):
        export_encoder("no such model, which is never looked for", tmp_path / "taken")


def test_another_models_tokenizer(plain: tuple[Path, Path], tmp_path: Path) -> None:
    model, encoder = Path(shutil.copytree(plain[0], tmp_path / "model")), EncoderFolder(plain[1])
    bigger = json.loads(encoder.read(TOKENIZER))
    bigger["model"]["vocab"]["beyond"] = encoder.manifest.encoder.vocabulary
    with pytest.raises(BundleMismatchError, match="tokens beyond the"):
        OnnxEncoder(
            lambda name: json.dumps(bigger).encode() if name == TOKENIZER else encoder.read(name),
            encoder.manifest.encoder,
            settings=Settings(providers="cpu"),
        )
    write(model / "tokenizer.json", bigger)
    with pytest.raises(BundleMismatchError, match="tokens beyond the"):
        export_encoder(str(model), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_damaged_weights(tmp_path: Path) -> None:
    model = write_transformer(tmp_path / "model", "bert")
    loaded = AutoModel.from_pretrained(model)
    with torch.no_grad():
        loaded.encoder.layer[0].output.dense.bias.fill_(1e6)
    loaded.save_pretrained(model)
    with pytest.raises(EncoderError, match="overflows in float16; export it as bfloat16"):
        export_encoder(str(model), tmp_path / "encoder", precision="float16")
    with torch.no_grad():
        loaded.encoder.layer[0].output.dense.bias.fill_(torch.nan)
    loaded.save_pretrained(model)
    with pytest.raises(EncoderError, match="weights are damaged"):
        export_encoder(str(model), tmp_path / "encoder")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model", "bert")
    (model / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: other\n", encoding="utf-8")
    done = mrm("encoder", "export", "model", "--out", "encoder", "--no-normalize", "--json", "-", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["licence"] == "apache-2.0"
    assert EncoderFolder(tmp_path / "encoder").manifest.metrics["normalised"] is False
    monkeypatch.chdir(tmp_path)
    for name, option, value, said in [
        ("model", "--precision", "int4", "one of float32, float16, bfloat16, int8"),
        ("", "--max-tokens", "2", "no folder ''"),
        ("x" * 300, "--max-tokens", "2", "There is no folder x"),
        ("model", "--max-tokens", "2", "takes 4 to 48 tokens, not 2"),
    ]:
        monkeypatch.setattr(sys, "argv", ["mrm", "encoder", "export", name, "--out", "other", option, value])
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capsys.readouterr()
        assert (exit_.value.code, printed.out) == (2, "")
        assert said in printed.err


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/file")

    monkeypatch.setattr(exporting, "to_onnx", full)
    with pytest.raises(OutputError, match=r"^/elsewhere/file cannot be read or written: No space left on device"):
        export_encoder(str(write_transformer(tmp_path / "model", "bert")), tmp_path / "encoder")


def test_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mrm_sdk.cli.commands.encoder import export

    model, out = write_transformer(tmp_path / "model", "bert"), tmp_path / "encoder"
    export(
        str(model),
        out,
        max_tokens=None,
        precision="float32",
        pooling=None,
        normalize=None,
        licence=None,
        json_file=None,
    )
    printed = capsys.readouterr().out
    assert EncoderFolder(out).manifest.encoder.model_fingerprint in printed
    assert f"vectors      16 numbers, mean pooling, of at most {LENGTH} tokens" in printed
    assert "the model's files name no pooling: the mean was taken" in printed


def test_the_hub_out_of_reach(tmp_path: Path) -> None:
    """No process listens at the address."""
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache"), "PATH": os.environ["PATH"]}
    done = mrm("encoder", "export", "owner/name", "--out", "encoder", cwd=tmp_path, **hub)
    assert done.code == 2
    assert "hub did not give a model of that name" in done.err
