"""A bundle's encoder as a client gets it: in one graph with base rewards, on a server, with features beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrm_sdk import Client, Comparison, Response
from mrm_sdk.bundle import Bundle
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.encoders import OnnxEncoder, RemoteEncoder, base_rewards, close, embed, open_encoder
from mrm_sdk.encoders.handcrafted import NAMES
from mrm_sdk.encoders.with_handcrafted import WithHandcrafted
from mrm_sdk.errors import BundleMismatchError, ConfigurationError
from mrm_sdk.schemas.items import Item
from mrm_sdk.settings import Settings
from mrm_sdk.training.config import EmpiricalBayesConfig, TrainingConfig
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import write_text_dataset
from tests.encoders.remote.servers import EmbeddingServer

QUICK = TrainingConfig(outer=EmpiricalBayesConfig(iterations=2), base_functions=3)
WORDS = ["sure", "maybe", "never", "always", "please", "because", "however", "quickly", "slowly", "simply"]
ITEMS = [Item("What?", "A short one.", None), Item(None, "- a list\n- of two things, which is longer", None)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten users who disagree about texts of other lengths."""
    return read_dataset(write_text_dataset(tmp_path_factory.mktemp("texts") / "data"))


def test_one_graph_gives_what_two_give(text_bundle: Bundle) -> None:
    encoder = open_encoder(None, text_bundle)
    assert isinstance(encoder, OnnxEncoder | WithHandcrafted)
    assert encoder.features_hash == text_bundle.features_hash
    split = text_bundle.base_rewards(embed(encoder, ITEMS))
    np.testing.assert_allclose(base_rewards(encoder, text_bundle, ITEMS), split, atol=1e-5)
    own = Item(None, None, np.ones(encoder.dimension, np.float32))
    mixed = base_rewards(encoder, text_bundle, [*ITEMS, own])
    np.testing.assert_allclose(mixed[:2], split, atol=1e-5)


def test_another_bundles_graph_is_not_asked_for_base_rewards(
    text_bundle: Bundle, texts: Dataset, tmp_path: Path
) -> None:
    """The same encoder, joined to other base rewards: only its embeddings are used."""
    train_bundle(texts, tmp_path / "b", config=QUICK)
    other = Bundle(tmp_path / "b")
    foreign = OnnxEncoder.of(text_bundle)
    assert foreign.fingerprint == other.manifest.encoder.model_fingerprint
    expected = base_rewards(open_encoder(None, other), other, ITEMS)
    np.testing.assert_allclose(base_rewards(open_encoder(foreign, other), other, ITEMS), expected, atol=1e-5)


@pytest.mark.slow
def test_features_stand_beside_the_embedding(texts: Dataset, tmp_path: Path) -> None:
    manifest = train_bundle(texts, tmp_path / "b", config=QUICK, handcrafted=True)
    assert manifest.dimension == 384 + len(NAMES)
    bundle = Bundle(tmp_path / "b")
    encoder = open_encoder(None, bundle)
    assert (encoder.dimension, encoder.fingerprint) == (manifest.dimension, manifest.encoder.fingerprint)
    vectors = encoder.encode([("Say!", "sure"), ("Say!", "sure " * 30)])
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :384], axis=1), 1, atol=1e-5)
    assert np.abs(vectors[0, 384:] - vectors[1, 384:]).max() > 0.01
    joined = base_rewards(encoder, bundle, ITEMS)
    np.testing.assert_allclose(joined, bundle.base_rewards(embed(encoder, ITEMS)), atol=1e-5)
    with Client("sqlite://", bundle=bundle) as client:
        client.record(Comparison(user_id="ada", prompt="Say!", chosen="sure", rejected="sure " * 30))
        better, worse = client.score("ada", ["sure", "sure " * 30], prompt="Say!")
        plain = client.score("bob", ["sure", "sure " * 30], prompt="Say!")
    assert better - worse > plain[0] - plain[1]


def test_features_of_another_version(texts: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddingServer() as server:
        settings = Settings(encoder_url=server.url)
        train_bundle(
            texts, tmp_path / "b", encoder="remote:openai:m", handcrafted=True, config=QUICK, settings=settings
        )
        monkeypatch.setattr("mrm_sdk.encoders.with_handcrafted.VERSION", 2)
        with pytest.raises(BundleMismatchError, match="features are of version 1, this package measures version 2"):
            open_encoder(None, Bundle(tmp_path / "b", settings))


def test_embeddings_alone_have_no_features(embedded_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Handcrafted features need text"):
        train_bundle(embedded_dataset, tmp_path / "b", config=QUICK, handcrafted=True)


@pytest.mark.parametrize("handcrafted", [False, True])
def test_a_bundle_whose_encoder_is_a_server(texts: Dataset, tmp_path: Path, handcrafted: bool) -> None:
    with EmbeddingServer(key="s3cret") as server:
        url = server.url.replace("http://", "http://ada:hunter2@")
        assert "hunter2" not in repr(Settings(encoder_url=url))  # type: ignore[arg-type]
        settings = Settings(encoder_url=server.url, encoder_api_key="s3cret")  # type: ignore[arg-type]
        manifest = train_bundle(
            texts, tmp_path / "b", encoder="remote:openai:m", handcrafted=handcrafted, config=QUICK, settings=settings
        )
        assert manifest.encoder.kind == "remote"
        assert server.url not in manifest.model_dump_json()
        assert "s3cret" not in manifest.model_dump_json() + repr(settings)
        with pytest.raises(ConfigurationError, match="MRM_ENCODER_URL"):
            Client("sqlite://", bundle=tmp_path / "b")
        with Client("sqlite://", bundle=tmp_path / "b", settings=settings) as client:
            scores = client.score("ada", ["one", Response(text="two")], prompt="Say!")
        own = RemoteEncoder(server.url, protocol="openai", model="m", api_key="s3cret")
        with own, Client("sqlite://", bundle=tmp_path / "b", encoder=own) as client:
            np.testing.assert_allclose(client.score("ada", ["one", "two"], prompt="Say!"), scores, atol=1e-5)
        server.model = "another"
        hosts = RemoteEncoder(server.url, protocol="openai", model="m", api_key="s3cret")
        for encoder in (None, hosts):
            with Client("sqlite://", bundle=tmp_path / "b", settings=settings, encoder=encoder) as client:
                with pytest.raises(BundleMismatchError, match="model"):
                    client.record(Comparison(user_id="ada", prompt="Say!", chosen="one", rejected="two"))
                assert client.personalize("ada").comparisons == 0
        hosts.close()


def test_a_server_of_another_model_name_or_size(texts: Dataset, tmp_path: Path) -> None:
    with EmbeddingServer() as server:
        settings = Settings(encoder_url=server.url)
        train_bundle(texts, tmp_path / "b", encoder="remote:openai:m", config=QUICK, settings=settings)
        bundle = Bundle(tmp_path / "b", settings)
        other = RemoteEncoder(server.url, protocol="openai", model="n")
        with other, pytest.raises(BundleMismatchError, match="fingerprint differs"):
            open_encoder(other, bundle)
        server.dimension = 9
        opened = open_encoder(None, bundle)
        with pytest.raises(BundleMismatchError, match="no longer serves the m"):
            opened.encode([(None, "x")])
        close(opened)


def test_a_server_that_is_sent_chat_messages(texts: Dataset, tmp_path: Path) -> None:
    with EmbeddingServer() as server:
        settings = Settings(encoder_url=server.url, encoder_cache=tmp_path / "cache")  # type: ignore[arg-type]
        manifest = train_bundle(texts, tmp_path / "b", encoder="remote:vllm+chat:m", config=QUICK, settings=settings)
        assert (manifest.encoder.remote.protocol, manifest.encoder.remote.template) == ("vllm", None)  # type: ignore[union-attr]
        assert all("messages" in request.body for request in server.requests)
        asked = len(server.requests)
        with Client("sqlite://", bundle=tmp_path / "b", settings=settings) as client:
            item = texts.items[0]
            client.score("ada", [item.text or ""], prompt=item.prompt)
        assert len(server.requests) == asked  # all of it is in the cache


@pytest.mark.parametrize("name", ["remote:", "remote:openai", "remote:openai:", "remote:grpc:m"])
def test_names_of_remote_encoders(texts: Dataset, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="remote:PROTOCOL:MODEL"):
        train_bundle(texts, tmp_path / "b", encoder=name, config=QUICK)


def test_a_remote_encoder_needs_a_url(texts: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MRM_ENCODER_URL"):
        train_bundle(texts, tmp_path / "b", encoder="remote:openai:m", config=QUICK)


def test_a_probe_that_comes_out_otherwise_is_refused(text_bundle: Bundle) -> None:
    """As it would where a graph runs wrongly on some machine."""
    spec = text_bundle.manifest.encoder
    assert spec.probe is not None
    turned = spec.probe.of(spec.probe.numbers()[::-1])
    encoder = OnnxEncoder(text_bundle.read, spec.model_copy(update={"probe": turned}), settings=Settings())
    with pytest.raises(BundleMismatchError, match="another vector for the probe text"):
        encoder.encode([(None, "x")])
