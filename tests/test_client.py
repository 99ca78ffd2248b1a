"""What a host application does, and what it is told when it does it wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import (
    BundleMismatchError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    DatabaseUnavailableError,
    EmbeddingError,
    EncoderError,
    InvalidInputError,
    MrmError,
    NotFoundError,
    UserForgottenError,
)
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.schemas.items import Message, Response
from mrm_sdk.settings import Settings
from tests.small_encoders import CountingEncoder

A, B, C = (Response(embedding=np.eye(6)[n] * (n + 1)) for n in range(3))
LONG_AGO = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mrm.db'}"


@pytest.fixture
def client(url: str, embedded_bundle: Bundle) -> Iterator[Client]:
    with Client(url, bundle=embedded_bundle) as client:
        yield client


def prefer(chosen: Any = A, rejected: Any = B, user: str = "ada", **values: Any) -> Comparison:
    return Comparison(user_id=user, chosen=chosen, rejected=rejected, **values)


class TestRecord:
    def test_durable_and_seen_by_others(self, url: str, client: Client, embedded_bundle: Bundle) -> None:
        recorded = client.record(prefer())
        assert (recorded.accepted, recorded.duplicates, recorded.rejected) == (1, 0, ())
        with Client(url, bundle=embedded_bundle) as other:
            assert other.personalize("ada").comparisons == 1
            other.record(prefer())
        # Nothing but the file is needed: a process that starts later sees it, too.
        assert client.personalize("ada").comparisons == 2

    @pytest.mark.slow
    def test_a_process_that_is_killed_keeps_what_was_acknowledged(self, url: str, embedded_bundle: Bundle) -> None:
        script = (
            "import os, sys; from mrm_sdk import Client, Comparison, Response\n"
            "client = Client(sys.argv[1], bundle=sys.argv[2])\n"
            "side = [Response(embedding=[n, 1, 0, 0, 0, 0]) for n in range(2)]\n"
            "client.record(Comparison(user_id='ada', chosen=side[0], rejected=side[1]))\n"
            "os.kill(os.getpid(), 9)"
        )
        command = [sys.executable, "-c", script, url, str(embedded_bundle.path)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
        assert (done.returncode, done.stderr) == (-9, "")
        with Client(url, bundle=embedded_bundle) as client:
            assert client.personalize("ada").comparisons == 1

    def test_duplicate_and_conflict(self, client: Client) -> None:
        client.record(prefer(event_id="e1"))
        again = client.record(prefer(event_id="e1"))
        assert (again.accepted, again.duplicates) == (0, 1)
        with pytest.raises(ConflictError, match=r"e1.*new event_id"):
            client.record(prefer(B, A, event_id="e1"))
        assert client.personalize("ada").comparisons == 1

    def test_older_than_the_deletion(self, client: Client) -> None:
        client.forget("ada")
        with pytest.raises(UserForgottenError, match="later created_at"):
            client.record(prefer(created_at=LONG_AGO))
        assert client.record(prefer()).accepted == 1

    def test_wrong_size(self, client: Client) -> None:
        with pytest.raises(EmbeddingError, match=r"5 numbers.*6"):
            client.record(prefer(Response(embedding=np.ones(5)), B))
        assert client.personalize("ada").comparisons == 0

    @pytest.mark.parametrize("zone", [12, -12])
    def test_times_at_the_ends_of_the_calendar(self, client: Client, zone: int) -> None:
        # In UTC they lie outside of what a datetime can say: stored or refused, but not a third party's error.
        when = (datetime.min if zone > 0 else datetime.max).replace(tzinfo=timezone(timedelta(hours=zone)))
        try:
            client.record(prefer(created_at=when))
        except MrmError:
            assert client.personalize("ada").comparisons == 0
        else:
            assert client.personalize("ada").comparisons == 1


class TestRecordMany:
    @pytest.mark.parametrize("chunk_size", [1, 2, 3, 1000])
    def test_says_which_ones_and_why(self, url: str, embedded_bundle: Bundle, chunk_size: int) -> None:
        def several() -> Iterator[Any]:
            yield prefer(event_id="e0")
            yield prefer(Response(embedding=np.ones(5)), B)
            yield {"user_id": "ada", "chosen": "x", "rejected": "y"}
            yield prefer(event_id="e0", tie=True)
            yield prefer(event_id="e0")
            yield prefer(user="gone", created_at=LONG_AGO)
            yield prefer(B, Response(embedding=np.ones(7)))
            yield prefer(user="gone")
            yield prefer(event_id="e9")

        with Client(url, bundle=embedded_bundle, settings=Settings(chunk_size=chunk_size)) as client:
            client.forget("gone")
            recorded = client.record_many(several())
            assert (recorded.accepted, recorded.duplicates) == (3, 1)
            reasons = dict(recorded.rejected)
            assert list(reasons) == [1, 2, 3, 5, 6]
            words = ["5 numbers", "not dict", "other content", "was forgotten", "7 numbers"]
            assert [word in reason for word, reason in zip(words, reasons.values(), strict=True)] == [True] * 5
            assert client.personalize("ada").comparisons == 2

    def test_none(self, client: Client) -> None:
        recorded = client.record_many(iter(()))
        assert (recorded.accepted, recorded.duplicates, recorded.rejected) == (0, 0, ())

    def test_a_failure_keeps_whole_chunks_and_calling_again_is_safe(self, url: str, embedded_bundle: Bundle) -> None:
        good = [prefer(event_id=f"e{n}") for n in range(5)]
        bad = prefer("text", "that fails", event_id="bad")
        with Client(url, bundle=embedded_bundle, encoder=Failing(), settings=Settings(chunk_size=2)) as client:
            with pytest.raises(EncoderError, match="failed with TimeoutError"):
                client.record_many([*good[:3], bad, *good[3:]])
            assert client.personalize("ada").comparisons == 2
            recorded = client.record_many(good)
            assert (recorded.accepted, recorded.duplicates) == (3, 2)

    def test_text_without_an_encoder_is_refused_alone(self, url: str, embedded_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle) as client:
            recorded = client.record_many([prefer(), prefer("text", "alone"), prefer()])
        assert recorded.accepted == 2
        ((index, reason),) = recorded.rejected
        assert (index, "carries no encoder" in reason) == (1, True)

    def test_no_more_than_a_chunk_is_drawn_ahead(self, url: str, embedded_bundle: Bundle) -> None:
        # Bounded memory: what was drawn before the last chunk is in the database already.
        settings = Settings(chunk_size=4)
        with (
            Client(url, bundle=embedded_bundle) as watcher,
            Client(url, bundle=embedded_bundle, settings=settings) as client,
        ):

            def watched() -> Iterator[Comparison]:
                for drawn in range(12):
                    assert watcher.personalize("ada").comparisons == drawn // 4 * 4
                    yield prefer()

            assert client.record_many(watched()).accepted == 12


class Failing:
    """An encoder whose server is not there."""

    dimension, fingerprint = 6, "failing"

    def encode(self, texts: object) -> np.ndarray:
        raise TimeoutError


class TestRank:
    def test_best_first(self, client: Client) -> None:
        client.record_many([prefer(B, A), prefer(B, C), prefer(A, C)])
        responses = [A, B, C]
        scores = client.score("ada", responses)
        ranked = client.rank("ada", responses)
        assert [r.index for r in ranked] == np.argsort(-scores).tolist()
        assert [r.response for r in ranked] == [responses[r.index] for r in ranked]
        assert [r.score for r in ranked] == [float(scores[r.index]) for r in ranked]
        assert client.rank("ada", []) == []

    def test_equal_scores_keep_their_order(self, client: Client) -> None:
        assert [r.index for r in client.rank("ada", [B, A, A, B, A])] in ([1, 2, 4, 0, 3], [0, 3, 1, 2, 4])


class TestOpening:
    def test_nothing_is_opened_before_the_first_call(self, url: str, tmp_path: Path, embedded_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle):
            assert list(tmp_path.iterdir()) == []

    def test_a_closed_client(self, url: str, embedded_bundle: Bundle) -> None:
        client = Client(url, bundle=embedded_bundle)
        client.record(prefer())
        client.close()
        client.close()
        calls: list[Callable[[], object]] = [
            lambda: client.record(prefer()),
            lambda: client.record_many([]),
            lambda: client.personalize("ada"),
            lambda: client.score("ada", [A]),
            lambda: client.rank("ada", [A]),
            lambda: client.forget("ada"),
            lambda: client.export_user("ada"),
            lambda: client.prune(older_than=timedelta(days=1)),
        ]
        for call in calls:
            with pytest.raises(ClientClosedError):
                call()

    def test_the_hosts_engine(self, url: str, embedded_bundle: Bundle) -> None:
        engine = sa.create_engine(url)
        with Client(engine, bundle=embedded_bundle) as client:
            client.record(prefer())
            client.personalize("ada")
            client.forget("ada")
        with engine.connect() as connection:  # still the host's to use
            assert connection.exec_driver_sql("SELECT count(*) FROM mrm_user_weights").scalar() == 0
        engine.dispose()

    def test_a_bundle_by_its_path(self, url: str, embedded_bundle: Bundle) -> None:
        for path in (embedded_bundle.path, str(embedded_bundle.path)):
            with Client(url, bundle=path) as client:
                assert client.bundle.fingerprint == embedded_bundle.fingerprint

    def test_tenants_are_apart(self, url: str, embedded_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle) as one, Client(url, bundle=embedded_bundle, tenant="x") as other:
            one.record(prefer(event_id="e1"))
            assert other.personalize("ada").comparisons == 0
            assert other.record(prefer(B, A, event_id="e1")).accepted == 1
            other.forget("ada")
            assert one.personalize("ada").comparisons == 1

    def test_a_database_that_comes_back(self, tmp_path: Path, embedded_bundle: Bundle) -> None:
        with Client(f"sqlite:///{tmp_path / 'later' / 'mrm.db'}", bundle=embedded_bundle) as client:
            with pytest.raises(DatabaseUnavailableError):
                client.record(prefer())
            (tmp_path / "later").mkdir()
            assert client.record(prefer()).accepted == 1

    def test_repr_shows_no_password(self, embedded_bundle: Bundle) -> None:
        with Client("postgresql+psycopg://u:s3cret@host/db", bundle=embedded_bundle) as client:
            assert "s3cret" not in repr(client)


class WrongEncoder:
    dimension, fingerprint = 7, "wrong"

    def __repr__(self) -> str:  # names a test, alike in every process
        return "WrongEncoder()"

    def encode(self, texts: Any) -> Any:
        return np.ones((len(texts), 7), np.float32)


def test_text_needs_an_encoder(client: Client) -> None:
    for call in (lambda: client.record(prefer("x", "y")), lambda: client.score("ada", ["x"])):
        with pytest.raises(EncoderError, match=r"Response\(embedding"):
            call()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"remote": "https://example.org"}, ConfigurationError),
        ({"encoder": WrongEncoder()}, BundleMismatchError),
        ({"bundle": "no/such/folder"}, NotFoundError),
        ({"tenant": ""}, InvalidInputError),
        ({"tenant": "t" * 256}, InvalidInputError),
        ({"tenant": "\0"}, InvalidInputError),
        ({"tenant": "\ud800"}, InvalidInputError),
        ({"tenant": None}, InvalidInputError),
        ({"database": "oracle://host"}, ConfigurationError),
        ({"database": Path("mrm.db")}, ConfigurationError),
        ({"bundle": None}, MrmError),
    ],
    ids=repr,
)
def test_arguments_that_are_wrong(embedded_bundle: Bundle, values: dict[str, Any], kind: type[MrmError]) -> None:
    with pytest.raises(kind):
        Client(**{"database": "sqlite://", "bundle": embedded_bundle, **values})


BAD_IDS = ["", "u" * 256, "\0", "\ud800", None, 7, b"ada"]
BAD_CALLS: dict[str, Callable[[Client], object]] = {
    "record None": lambda client: client.record(None),  # type: ignore[arg-type]
    "record dict": lambda client: client.record({"user_id": "ada"}),  # type: ignore[arg-type]
    "record_many None": lambda client: client.record_many(None),  # type: ignore[arg-type]
    "score str": lambda client: client.score("ada", "text"),
    "score Response": lambda client: client.score("ada", A),  # type: ignore[arg-type]
    "score None": lambda client: client.score("ada", None),  # type: ignore[arg-type]
    "score numbers": lambda client: client.score("ada", [1.0]),  # type: ignore[list-item]
    "score lone surrogate": lambda client: client.score("ada", ["\ud800"]),
    "score wrong size": lambda client: client.score("ada", [Response(embedding=[1.0])]),
    "score bad prompt": lambda client: client.score("ada", [A], prompt=7),  # type: ignore[arg-type]
    "score overflow": lambda client: client.score("ada", [Response(embedding=[3e38, -3e38] * 3)]),
    "rank None": lambda client: client.rank("ada", None),  # type: ignore[arg-type]
    "rank bad prompt": lambda client: client.rank("ada", [A], prompt=[{"role": "user"}]),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_an_error_of_this_package(client: Client, call: Callable[[Client], object]) -> None:
    with pytest.raises(InvalidInputError):
        call(client)


@pytest.mark.parametrize("user_id", BAD_IDS, ids=ascii)
@pytest.mark.parametrize("method", ["personalize", "forget", "score", "rank"])
def test_ids_that_are_none(client: Client, method: str, user_id: Any) -> None:
    arguments = [[A]] if method in ("score", "rank") else []
    with pytest.raises(InvalidInputError):
        getattr(client, method)(user_id, *arguments)


def test_what_is_handed_out_cannot_be_changed(client: Client) -> None:
    client.record(prefer())
    for user in (client.personalize("ada"), client.personalize("unknown")):
        for array in (user.weights, user.covariance):
            assert array is not None
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
        with pytest.raises(Exception, match="frozen"):
            user.weights = np.zeros(3)  # type: ignore[misc]
    # Scores are the caller's own: changing them changes nothing here.
    scores = client.score("ada", [A, B])
    before = scores.copy()
    scores[:] = 0
    np.testing.assert_array_equal(client.score("ada", [A, B]), before)


class TestMessages:
    """Chat messages in place of texts."""

    CHAT: ClassVar = [{"role": "user", "content": [{"type": "text", "text": "Should I?"}]}]
    ANSWERS: ClassVar = [[{"role": "assistant", "content": text}] for text in ("Yes.", "It may depend.", "No.")]

    def test_they_are_scored_and_recorded_as_what_they_say(self, url: str, embedded_bundle: Bundle) -> None:
        texts = [answer[0]["content"] for answer in self.ANSWERS]
        encoder = CountingEncoder()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            said = client.score("ada", texts, prompt="user: Should I?")
            np.testing.assert_array_equal(client.score("ada", self.ANSWERS, prompt=self.CHAT), said)
            assert len(encoder.encoded) == 3
            compared = {"prompt": self.CHAT, "chosen": self.ANSWERS[0], "rejected": self.ANSWERS[1][0]}
            client.record(Comparison(user_id="ada", **compared))
            assert client.export_user("ada")["comparisons"][0]["chosen"]["text"] == "Yes."

    def test_a_ranking_gives_back_what_it_was_given(self, url: str, embedded_bundle: Bundle) -> None:
        own = [Response(text="Yes."), Response(text="No.")]
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            for given in (["Yes.", "No."], own, self.ANSWERS, [Message(role="assistant", content="Yes.")]):
                ranked = client.rank("ada", given, prompt=self.CHAT)
                assert all(one.response is given[one.index] for one in ranked)
                assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)

    def test_what_is_not_understood(self, client: Client) -> None:
        for answer in (7, self.ANSWERS[0] * 2, {"role": "assistant"}):
            with pytest.raises(InvalidInputError, match="Invalid response: "):
                client.score("ada", [answer])  # type: ignore[list-item]
        with pytest.raises(InvalidInputError, match="Invalid prompt: message 0: "):
            client.rank("ada", [A], prompt=[{"role": "user"}])


def test_warm_up_loads_the_encoder_and_stores_nothing(embedded_bundle: Bundle, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    with Client(f"sqlite:///{tmp_path / 'mrm.db'}", bundle=embedded_bundle, encoder=encoder) as client:
        client.warm_up()
        assert len(encoder.encoded) == 1
        assert (tmp_path / "mrm.db").is_file()
        assert client.export_user("ada")["counts"]["mrm_users"] == 0
    with Client("sqlite://", bundle=embedded_bundle) as client:
        client.warm_up()  # embeddings are the host's: there is no encoder to load


def test_users_come_by_pages_and_by_tenant(embedded_bundle: Bundle, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mrm.db'}"
    one, other = Response(embedding=[1, 0, 0, 0, 0, 0]), Response(embedding=[0, 1, 0, 0, 0, 0])
    with Client(url, bundle=embedded_bundle) as client, Client(url, bundle=embedded_bundle, tenant="b") as neighbour:
        assert client.users() == []
        client.record_many(Comparison(user_id=f"u{n}", chosen=one, rejected=other) for n in range(5))
        neighbour.record(Comparison(user_id="theirs", chosen=one, rejected=other))
        assert client.users(limit=3) == ["u0", "u1", "u2"]
        assert client.users(after="u2", limit=3) == ["u3", "u4"]
        assert neighbour.users() == ["theirs"]
        client.forget("u3")
        assert client.users() == ["u0", "u1", "u2", "u4"]
        for wrong in ({"limit": 0}, {"limit": True}, {"after": 3}):
            with pytest.raises(InvalidInputError):
                client.users(**wrong)  # type: ignore[arg-type]
