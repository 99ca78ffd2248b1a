"""The encoder contract: the project's own encoders keep it, and each of its tests fails on an encoder that does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrm_sdk import BundleMismatchError, RemoteEncoder, Settings
from mrm_sdk.bundle import Bundle
from mrm_sdk.bundle.encoder_spec import PROBE_TEXT, Handcrafted, Probe
from mrm_sdk.encoders import Encoder, open_encoder
from mrm_sdk.encoders.export.pipeline import export_encoder
from mrm_sdk.encoders.folder import EncoderFolder
from mrm_sdk.encoders.handcrafted import VERSION, Statistics, count_features
from mrm_sdk.encoders.hidden_state import HiddenStateEncoder
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.encoders.probe import ProbedEncoder
from mrm_sdk.encoders.with_handcrafted import WithHandcrafted
from mrm_sdk.testing import EncoderContract
from tests.encoders.remote.servers import EmbeddingServer
from tests.encoders.tiny_llama import write_tiny_llama
from tests.small_encoders import CountingEncoder


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def chat_encoder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> EncoderFolder:
    folder = tmp_path_factory.mktemp("chat") / "encoder"
    export_encoder(str(tiny_llama), folder, max_tokens=512)
    return EncoderFolder(folder)


class TestSmallEncoder(EncoderContract):
    tolerance = 1e-9

    def make_encoder(self) -> Encoder:
        return CountingEncoder()


class TestBundledMiniLM(EncoderContract):
    tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def _open(self, text_bundle: Bundle) -> None:
        self.bundle = text_bundle

    def make_encoder(self) -> Encoder:
        return open_encoder(None, self.bundle)


class TestRemoteEncoder(EncoderContract):
    @pytest.fixture(autouse=True)
    def _serve(self) -> Iterator[None]:
        self.encoders: list[RemoteEncoder] = []
        with EmbeddingServer() as self.server:
            yield
            for encoder in self.encoders:
                encoder.close()

    def make_encoder(self) -> Encoder:
        self.encoders.append(RemoteEncoder(self.server.url, protocol="openai", model="tiny"))
        return self.encoders[-1]


class TestHiddenState(EncoderContract):
    tolerance = 1e-4

    @pytest.fixture(autouse=True)
    def _load(self, tiny_llama: Path) -> None:
        self.model = str(tiny_llama)

    def make_encoder(self) -> Encoder:
        return HiddenStateEncoder(self.model, device="cpu", dtype="float32", max_tokens=512)


class TestWithHandcrafted(EncoderContract):
    tolerance = 1e-6

    def make_encoder(self) -> Encoder:
        statistics = Statistics.of(count_features(self.texts), CountingEncoder().encode(self.texts))
        return WithHandcrafted(CountingEncoder(), Handcrafted(version=VERSION, **statistics._asdict()))


class TestProbedEncoder(EncoderContract):
    tolerance = 1e-9

    def make_encoder(self) -> Encoder:
        (vector,) = CountingEncoder().encode([PROBE_TEXT])
        return ProbedEncoder(CountingEncoder(), Probe.of(vector))


@pytest.mark.slow
class TestChatLayout(EncoderContract):
    """A reward model that was exported with its chat template."""

    tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def _open(self, chat_encoder: EncoderFolder) -> None:
        self.folder = chat_encoder
        assert chat_encoder.manifest.encoder.layout == "chat"

    def make_encoder(self) -> Encoder:
        return OnnxEncoder(self.folder.read, self.folder.manifest.encoder, settings=Settings(providers="cpu"))


class _Faulty(CountingEncoder):
    """Right, but for one fault."""

    numbers = count(1)  # the first must differ too

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        if fault == "fingerprint":
            self.fingerprint = f"made {next(self.numbers)}"
        if fault == "dimension":
            self.dimension = 5

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        vectors = super().encode(texts)
        match self.fault:
            case "type":
                return vectors.astype(np.float64)  # type: ignore[return-value]
            case "random":
                return vectors + np.float32(next(self.numbers))
            case "neighbours":
                return vectors + vectors.mean(0)
            case "one vector":
                return np.ones_like(vectors)
            case "empty":
                vectors[[not response for _, response in texts]] = np.nan
        return vectors


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("fingerprint", "test_the_fingerprint_promises_the_vectors"),
        ("dimension", "test_shape_and_values"),
        ("type", "test_shape_and_values"),
        ("random", "test_determinism"),
        ("random", "test_threads"),
        ("random", "test_the_fingerprint_promises_the_vectors"),
        ("neighbours", "test_batch_independence"),
        ("one vector", "test_texts_are_told_apart"),
        ("empty", "test_unusual_texts"),
    ],
)
def test_a_faulty_encoder_fails(fault: str, test: str) -> None:
    class Contract(EncoderContract):
        def make_encoder(self) -> Encoder:
            return _Faulty(fault)

    with pytest.raises(AssertionError):
        getattr(Contract(), test)()


def test_another_model_fails_the_probe() -> None:
    class Contract(EncoderContract):
        made: list[Any] = []  # noqa: RUF012

        def make_encoder(self) -> Encoder:
            self.made.append(CountingEncoder() if not self.made else _Faulty("random"))
            return self.made[-1]

    with pytest.raises(BundleMismatchError, match="another vector for the probe text"):
        Contract().test_the_probe()


def test_the_contract_alone_says_what_to_override() -> None:
    with pytest.raises(NotImplementedError, match="make_encoder"):
        EncoderContract().test_determinism()
