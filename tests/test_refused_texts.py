"""A text that the encoder refuses costs its own events and comparisons, and nothing else; each is named and counted."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mrm_sdk.bundle import Bundle
from mrm_sdk.cli.commands import rebuild as rebuild_command
from mrm_sdk.cli.reading import say_refused
from mrm_sdk.client import Client
from mrm_sdk.data import read_dataset, vectors, write_embedded
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.vectors import embed_dataset
from mrm_sdk.engine.adaptation import Personalizer
from mrm_sdk.engine.recording import record_without_features, summarise
from mrm_sdk.errors import EncoderError, MrmError, OutputError, TextRefusedError
from mrm_sdk.progress import no_progress
from mrm_sdk.schemas.feedback import Comparison, Feedback, Ranking, Rating
from mrm_sdk.schemas.results import UserReward
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from tests.conftest import mrm
from tests.data.test_datasets import write_lines
from tests.encoders.remote.servers import EmbeddingServer, Reply
from tests.small_encoders import CountingEncoder

LONG = "x" * 1000


class Choosy(CountingEncoder):
    """Refuses long texts, until it is told not to."""

    limit = 999

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        reasons = {i: "longer than 999" for i, (_, text) in enumerate(texts) if len(text) > self.limit}
        if reasons:
            raise TextRefusedError.of(reasons)
        return super().encode(texts)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest) -> str:
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(name))


FINE: list[Feedback] = [
    Comparison(user_id="ada", chosen="a", rejected="b", event_id="1"),
    Rating(user_id="ada", response="c", value=5, event_id="2"),
    Comparison(user_id="bob", chosen="b", rejected="a", event_id="3"),
]
REFUSED: list[Feedback] = [
    Comparison(user_id="ada", chosen=LONG, rejected="b", event_id="4"),
    Rating(user_id="ada", response=LONG, value=1, event_id="5"),
    Ranking(user_id="bob", responses=["a", LONG, "c"], event_id="6"),
]


def test_recording_keeps_the_others(url: str, embedded_bundle: Bundle) -> None:
    with Client(url, bundle=embedded_bundle, encoder=Choosy()) as client:
        mixed = [event for pair in zip(FINE, REFUSED, strict=True) for event in pair]
        recorded = client.record_many(mixed)
        assert recorded.accepted == 3
        assert recorded.rejected == tuple((index, "longer than 999") for index in (1, 3, 5))
        with pytest.raises(TextRefusedError, match="longer than 999"):
            client.record(REFUSED[0])
        assert client.export_user("ada")["counts"]["mrm_comparisons"] == 1


def test_scoring_names_the_response(embedded_bundle: Bundle) -> None:
    with Client("sqlite://", bundle=embedded_bundle, encoder=Choosy()) as client:
        with pytest.raises(TextRefusedError, match=r"responses\[2\] cannot be scored: longer than 999"):
            client.score("ada", ["a", "b", LONG, LONG])
        assert client.score("ada", ["a", "b"]).shape == (2,)


def stored(url: str) -> None:
    """Feedback that was recorded without a bundle: nothing has been encoded yet."""
    database = Database(url, Settings())
    upgrade(database)
    assert summarise(record_without_features(Store(database, "default"), [*FINE, *REFUSED], 10)).accepted == 6
    database.close()


def test_adapting_leaves_out_only_its_events(
    url: str, embedded_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    stored(url)
    with (
        Client(url, bundle=embedded_bundle, encoder=Choosy()) as client,
        Client("sqlite://", bundle=embedded_bundle, encoder=Choosy()) as other,
        caplog.at_level(logging.WARNING, "mrm_sdk"),
    ):
        ada, bob = client.personalize("ada"), client.personalize("bob")
        assert (ada.comparisons, bob.comparisons) == (2, 2)  # of bob's ranking, the pair without the text
        other.record_many(FINE[:2])
        np.testing.assert_array_equal(ada.weights, other.personalize("ada").weights)
    for event in ("4", "5", "6", "6#2"):
        assert f"event {event} is left out: longer than 999" in caplog.text
    assert LONG not in caplog.text
    assert "ada" not in caplog.text


def test_a_rebuild_does_everybody_else_and_tries_again_later(url: str, embedded_bundle: Bundle) -> None:
    stored(url)
    encoder = Choosy()
    with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
        rebuilt = client.rebuild()
        assert (rebuilt.items, rebuilt.comparisons, rebuilt.users) == (3, 3, 2)
        named = sorted((event.user_id, event.event_id, event.reason) for event in rebuilt.refused)
        assert [row[:2] for row in named] == [("ada", "4"), ("ada", "5"), ("bob", "6"), ("bob", "6#2")]
        assert {row[2] for row in named} == {"longer than 999"}
        encoder.limit = 10_000  # the server was started again, with room for longer texts
        again = client.rebuild()
        assert (again.items, again.comparisons, again.refused) == (1, 3, ())


def test_a_rebuild_encodes_a_refused_text_once(url: str, embedded_bundle: Bundle) -> None:
    stored(url)
    sent: list[str] = []

    class Listening(Choosy):
        def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
            sent.extend(text for _, text in texts)
            return super().encode(texts)

    with Client(url, bundle=embedded_bundle, encoder=Listening()) as client:
        assert len(client.rebuild().refused) == 4
    assert sent.count(LONG) == 1  # two users have it, and neither has it encoded again


def test_a_rebuild_that_fails_tells_both(
    url: str, embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(url)
    adapt = Personalizer.personalize

    def fail(self: Personalizer, user_id: str, *refused: dict[bytes, str]) -> UserReward:
        if user_id == "ada":
            raise MrmError("no such luck")
        return adapt(self, user_id, *refused)

    monkeypatch.setattr(Personalizer, "personalize", fail)
    with Client(url, bundle=embedded_bundle, encoder=Choosy()) as client:
        with pytest.raises(MrmError, match="no such luck") as caught:
            client.rebuild()
        assert sorted(event for event, *_ in caught.value.refused) == ["4", "5", "6", "6#2"]
        assert "ada" not in str(caught.value)
        monkeypatch.setattr(rebuild_command, "_rebuild", lambda *_: client.rebuild())
        with pytest.raises(MrmError, match="no such luck"):
            rebuild_command.rebuild(url, embedded_bundle.path)
    told = capsys.readouterr()
    assert told.out == ""
    assert "refused   4\n" in told.err
    assert "  event 4 of user ada: longer than 999\n" in told.err


def people(tmp_path: Path) -> Dataset:
    rows = [
        {"user_id": f"u{i % 6}", "prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)
    ]
    rows[30]["chosen"] = LONG
    rows[42] = {**rows[42], "prompt": rows[30]["prompt"], "rejected": LONG}
    return read_dataset(write_lines(tmp_path / "rows.jsonl", rows))


def test_learning_leaves_out_its_comparisons(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = people(tmp_path)
    told: list[tuple[list[int], str]] = []
    kept, embeddings = embed_dataset(
        Choosy(), data, no_progress, lambda _, rows, reason: told.append((rows.tolist(), reason))
    )
    assert told == [([30, 42], "longer than 999")]
    assert (len(kept), len(kept.items)) == (58, len(embeddings))
    assert kept.event_ids == [event for row, event in enumerate(data.event_ids) if row not in (30, 42)]
    expected = CountingEncoder().encode([(item.prompt, item.text or "") for item in kept.items])
    np.testing.assert_array_equal(embeddings, expected)
    embed_dataset(Choosy(), data, no_progress)
    assert f"comparison 31 (event {data.event_ids[30]}) and 1 more left out: longer than 999" in caplog.text


def test_an_encoder_that_refuses_all_texts(tmp_path: Path) -> None:
    encoder = Choosy()
    encoder.limit = 0
    with pytest.raises(EncoderError, match="does not take the texts of this data set: longer than 999"):
        embed_dataset(encoder, people(tmp_path), no_progress)


def test_a_comparison_of_two_refused_texts_is_told_of_once(tmp_path: Path) -> None:
    rows = [{"user_id": "ada", "chosen": f"a {i}", "rejected": f"b {i}"} for i in range(4)]
    rows[1] = {"user_id": "ada", "chosen": LONG, "rejected": f"{LONG}y"}
    rows[2]["rejected"] = f"{LONG}y"
    told: list[list[int]] = []
    kept, _ = embed_dataset(
        Choosy(),
        read_dataset(write_lines(tmp_path / "rows.jsonl", rows)),
        no_progress,
        lambda _, left_out, __: told.append(left_out.tolist()),
    )
    assert (told, len(kept)) == ([[1], [2]], 2)


def test_an_empty_data_set_is_no_texts_fault(tmp_path: Path) -> None:
    data = people(tmp_path)
    nothing = data.subset(np.array([], np.int64))
    kept, embeddings = embed_dataset(Choosy(), replace(nothing, items=data.items), no_progress)
    assert (len(kept), embeddings.shape) == (0, (0, Choosy().dimension))


def test_a_written_data_set_lacks_them(tmp_path: Path) -> None:
    data = people(tmp_path)
    write_embedded(data, Choosy(), tmp_path / "d")
    written = read_dataset(tmp_path / "d")
    kept, embeddings = embed_dataset(Choosy(), data, no_progress)
    assert (written.event_ids, len(written.items)) == (kept.event_ids, len(kept.items))
    np.testing.assert_array_equal(written.vectors(slice(None)), embeddings.astype(np.float16).astype(np.float32))
    before = {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    encoder = Choosy()
    write_embedded(data, encoder, tmp_path / "d")
    assert not encoder.encoded
    assert {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()} == before


def test_writing_resumes_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, write = people(tmp_path), vectors.write_comparisons

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vectors, "write_comparisons", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_embedded(data, Choosy(), tmp_path / "d")
    monkeypatch.setattr(vectors, "write_comparisons", write)
    encoder = Choosy()
    write_embedded(data, encoder, tmp_path / "d")
    assert not encoder.encoded  # what was embedded before the disk was full is kept
    written = read_dataset(tmp_path / "d")
    kept, embeddings = embed_dataset(Choosy(), data, no_progress)
    assert (written.event_ids, len(written.items)) == (kept.event_ids, len(kept.items))
    np.testing.assert_array_equal(written.vectors(slice(None)), embeddings.astype(np.float16).astype(np.float32))
    assert {path.name for path in (tmp_path / "d").iterdir()} == {
        *("items.jsonl", "comparisons.csv", "embeddings.npy", "embeddings.json")
    }


def test_ids_that_would_move_a_terminals_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"user_id": "u\x1b[2J", "prompt": "p", "chosen": "good", "rejected": "bad", "event_id": "e\x1b[1A"}
    say_refused(read_dataset(write_lines(tmp_path / "rows.jsonl", [row])), np.array([0]), "too long")
    assert capsys.readouterr().err == "left out: comparison 1 (event e\\x1b[1A, user u\\x1b[2J): too long\n"


@pytest.mark.slow
def test_the_commands_go_on_and_name_it(tmp_path: Path) -> None:
    rows = [
        {"user_id": f"u{i % 6}", "prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(120)
    ]
    write_lines(tmp_path / "short.jsonl", rows)
    rows[60] |= {"chosen": LONG, "event_id": "the-long-one"}
    write_lines(tmp_path / "long.jsonl", rows)
    with EmbeddingServer() as server:
        too_long = Reply(400, b'{"error": {"code": "context_length_exceeded"}}')
        server.refuse = lambda text: too_long if LONG in text else None

        def run(*arguments: object) -> tuple[int, str, str]:
            made = mrm(*arguments, cwd=tmp_path, MRM_ENCODER_URL=server.url)
            return made.code, made.out, made.err

        assert run("train", "short.jsonl", "--out", "B", "--encoder", "remote:openai:m")[0] == 0
        name = "comparison 61 (event the-long-one, user u0)"

        code, out, _ = run("import", "long.jsonl", "--database", "sqlite:///a.db", "--bundle", "B")
        assert code == 1
        assert "accepted    119" in out
        assert "refused     1" in out
        assert f"{name}: 127.0.0.1" in out
        assert "does not take this text (400, context_length_exceeded)" in out

        code, out, err = run("train", "long.jsonl", "--out", "B2", "--encoder", "remote:openai:m")
        assert code == 0
        assert "left out     1 comparisons" in out
        assert f"left out: {name}: 127.0.0.1" in err
        kept = ["--encoder", "remote:openai:m", "--checkpoint", "kept"]
        for _ in range(2):
            assert run("train", "long.jsonl", "--out", "B3", *kept)[0] == 0
        server.refuse = lambda _: None
        code, _, err = run("train", "long.jsonl", "--out", "B3", *kept)
        assert (code, "for which the encoder refused other texts" in err) == (2, True)
        server.refuse = lambda text: too_long if LONG in text else None
        for command in (["evaluate", "B", "long.jsonl"], ["compare", "long.jsonl", "--methods", "population"]):
            code, _, err = run(*command, *(["--encoder", "remote:openai:m"] if command[0] == "compare" else []))
            assert code == 0
            assert f"left out: {name}: 127.0.0.1" in err

        assert run("import", "long.jsonl", "--database", "sqlite:///b.db")[0] == 0
        code, out, _ = run("rebuild", "--database", "sqlite:///b.db", "--bundle", "B")
        assert code == 1
        assert "compared  119" in out
        assert "adapted   6" in out
        assert "refused   1" in out
        assert "event the-long-one of user u0: 127.0.0.1" in out
