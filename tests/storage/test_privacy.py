"""What is kept of a user, and that it is told in full: texts that never reach the disk, and the export."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.aclient import AsyncClient
from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import BundleMismatchError, ConfigurationError, ConflictError, InvalidInputError
from mrm_sdk.schemas.feedback import Comparison, Feedback, Ranking, Rating, Thumb
from mrm_sdk.schemas.items import Item, Response
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from mrm_sdk.storage.tables import Base, OutboxRow
from tests.conftest import mrm
from tests.small_encoders import CountingEncoder
from tests.storage.events import FEATURES, event

TEXTLESS = Settings(store_text=False)
# What is no user's: bundles, keys and the line of retention are the tenant's.
NOT_EXPORTED = {"mrm_bundles", "mrm_api_keys", "mrm_retention"}
VECTOR = [0.123456, -1.987654, 0.314159, 2.718281, -0.577215, 1.414213]


def everything(word: Callable[[str], str] = str) -> list[Feedback]:
    """Feedback of every kind; ``word`` makes each text."""
    own = Response(text=word("own"), embedding=VECTOR)
    messages = [{"role": word("role"), "content": word("content")}]
    return [
        Comparison(user_id="ada", event_id="c1", prompt=word("prompt"), chosen=word("a"), rejected=word("b")),
        Comparison(user_id="ada", event_id="c2", prompt=messages, chosen=own, rejected=word("c"), tie=True),
        Rating(user_id="ada", event_id="r1", prompt=word("rated"), response=word("d"), value=4.5),
        Rating(user_id="ada", event_id="r2", prompt=word("rated"), response=word("e"), value=1),
        Thumb(user_id="ada", event_id="t1", prompt=word("thumb"), response=word("f"), up=True),
        Ranking(user_id="ada", event_id="k1", prompt=word("k"), responses=[word(x) for x in ("g", "h", "i")]),
    ]


class Open:
    """Opens clients on one database, and closes them."""

    def __init__(self, url: str, bundle: Bundle) -> None:
        self.url, self.bundle, self.opened = url, bundle, list[Client]()

    def __call__(self, settings: Settings | None = None, bundle: Bundle | None = None) -> Client:
        client = Client(self.url, bundle=bundle or self.bundle, encoder=CountingEncoder(), settings=settings)
        self.opened.append(client)
        return client


@pytest.fixture
def connect(url: str, embedded_bundle: Bundle) -> Iterator[Open]:
    connect = Open(url, embedded_bundle)
    yield connect
    for client in connect.opened:
        client.close()


def on_disk(url: str) -> Iterator[bytes]:
    """The bytes of every file of a database, and of PostgreSQL's log of writes."""
    if url.startswith("sqlite"):
        files = list(Path(url.removeprefix("sqlite:///")).parent.glob("mrm.db*"))
        assert len(files) == 3  # the log and its index too, for the client is still open
    else:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("CHECKPOINT")
            folder = connection.exec_driver_sql("SHOW data_directory").scalar_one()
        engine.dispose()
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        assert any("pg_wal" in path.parts for path in files)
    for path in files:
        yield path.read_bytes()


class TestTextNeverReachesTheDisk:
    @pytest.mark.parametrize("kept", [False, True])
    def test_no_file_holds_a_word(self, connect: Open, kept: bool) -> None:
        # All are of this very run: in PostgreSQL's folder those of other runs lie about.
        vector = np.random.default_rng().standard_normal(6).astype(np.float32)
        canaries = [vector.tobytes()]

        def word(_: str) -> str:
            canaries.append(uuid4().hex.encode())
            return canaries[-1].decode()

        feedback = everything(word)
        own = Response(text=word(""), embedding=vector)
        feedback.append(Comparison(user_id="ada", event_id="v1", chosen=own, rejected=word("")))
        client = connect(Settings(store_text=kept))
        client.record(feedback[0])
        assert client.record_many(feedback).accepted == len(feedback) - 1
        client.personalize("ada")
        client.score("ada", [word("scored")], prompt=word("asked"))
        asked = set(canaries[-2:])
        leaked = {canary for content in on_disk(connect.url) for canary in canaries if canary in content}
        # That all are found where texts are kept shows that this search sees what there is to see.
        assert leaked == (set(canaries) - asked if kept else set())

    @pytest.mark.parametrize("way", ["forget", "prune"])
    def test_what_was_deleted_is_in_no_file_of_sqlite(self, tmp_path: Path, embedded_bundle: Bundle, way: str) -> None:
        url, canaries = f"sqlite:///{tmp_path / 'mrm.db'}", list[bytes]()

        def word(_: str) -> str:
            canaries.append(uuid4().hex.encode())
            return canaries[-1].decode()

        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            client.record_many(everything(word))
            client.personalize("ada")
            assert any(canary in content for content in on_disk(url) for canary in canaries)
            if way == "forget":
                client.forget("ada")
            else:
                client.prune(older_than=timedelta(0))
            assert {canary for content in on_disk(url) for canary in canaries if canary in content} == set()

    def test_the_same_weights_and_scores(self, connect: Open, embedded_bundle: Bundle) -> None:
        textless = connect(TEXTLESS)
        textless.record_many(everything())
        with Client("sqlite://", bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            client.record_many(everything())
            np.testing.assert_array_equal(textless.personalize("ada").weights, client.personalize("ada").weights)
            np.testing.assert_array_equal(textless.score("ada", ["a", "b"]), client.score("ada", ["a", "b"]))

    def test_duplicates_and_conflicts_are_told_by_hash(self, connect: Open) -> None:
        client = connect(TEXTLESS)
        assert client.record_many(everything()).accepted == 6
        again = client.record_many(everything())
        assert (again.accepted, again.duplicates, again.rejected) == (0, 6, ())
        with pytest.raises(ConflictError):
            client.record(Comparison(user_id="ada", event_id="c1", prompt="prompt", chosen="a", rejected="other"))
        with pytest.raises(ConflictError):
            client.record(Rating(user_id="ada", event_id="r1", prompt="rated", response="other", value=4.5))

    @pytest.mark.parametrize("kind", [0, 2])
    def test_another_bundle_says_what_it_needs_and_gets_it(
        self, connect: Open, embedded_bundle: Bundle, other_bundle: Bundle, kind: int
    ) -> None:
        feedback = everything()[kind : kind + 2]
        connect(TEXTLESS).record_many(feedback)
        other = connect(TEXTLESS, other_bundle)
        for call in (lambda: other.personalize("ada"), lambda: other.score("ada", ["a"])):
            with pytest.raises(BundleMismatchError, match="Record the same feedback again"):
                call()
        assert other.personalize("bob").comparisons == 0  # no other user is concerned
        recorded = other.record_many(feedback)
        assert (recorded.accepted, recorded.duplicates) == (0, 2)
        with Client("sqlite://", bundle=other_bundle, encoder=CountingEncoder()) as client:
            client.record_many(feedback)
            np.testing.assert_array_equal(other.personalize("ada").weights, client.personalize("ada").weights)
        assert connect(TEXTLESS).personalize("ada").comparisons == 2  # the first bundle's are still there
        sides = [side for row in other.export_user("ada")["comparisons"] for side in (row["chosen"], row["rejected"])]
        assert {side["text"] for side in sides} <= {None}

    def test_keeping_texts_from_now_on(self, connect: Open, other_bundle: Bundle) -> None:
        first, second, *_ = everything()
        connect(TEXTLESS).record(first)
        connect().record(second)
        texts = [row["chosen"]["text"] for row in connect().export_user("ada")["comparisons"]]
        assert texts == [None, "own"]
        with pytest.raises(BundleMismatchError):
            connect(bundle=other_bundle).personalize("ada")

    def test_recording_without_a_bundle_is_refused(self, database: Database) -> None:
        store = Store(database, "acme", store_text=False)
        with pytest.raises(ConfigurationError, match="--bundle"):
            store.add([event()])
        assert store.add([]) == []

    @pytest.mark.slow
    def test_importing_without_a_bundle_is_refused(self, tmp_path: Path) -> None:
        row = {"user_id": "ada", "chosen": "yes", "rejected": "no"}
        (tmp_path / "comparisons.jsonl").write_text(json.dumps(row) + "\n")
        run = mrm("import", tmp_path, "--database", f"sqlite:///{tmp_path / 'mrm.db'}", MRM_STORE_TEXT="false")
        assert (run.code, run.out) == (2, "")
        assert "--bundle" in run.err


class TestExport:
    def test_everything_is_told(self, connect: Open, other_bundle: Bundle) -> None:
        client, other = connect(), connect(bundle=other_bundle)
        start = datetime.now(UTC)
        client.record_many([*everything(), Comparison(user_id="bob", chosen="secret", rejected="a")])
        users = [client.personalize("ada"), other.personalize("ada")]
        told = client.export_user("ada")
        assert json.loads(json.dumps(told)) == told
        assert "secret" not in json.dumps(told)
        assert (told["format"], told["tenant"], told["user_id"]) == (1, "default", "ada")
        assert start <= datetime.fromisoformat(told["exported_at"]) <= datetime.now(UTC)

        rows = told["comparisons"]
        assert [row["event_id"] for row in rows] == ["c1", "c2", "k1", "k1#1", "k1#2"]
        assert [(row["prompt"], row["chosen"]["text"], row["rejected"]["text"], row["tie"]) for row in rows[:3]] == [
            ("prompt", "a", "b", False),
            ("role: content", "own", "c", True),
            ("k", "g", "h", False),
        ]
        assert rows[2]["strength"] == pytest.approx(2 / 3)
        chosen = rows[1]["chosen"]
        np.testing.assert_array_equal(np.array(chosen["embedding"], np.float32), np.array(VECTOR, np.float32))
        assert chosen["item"] == Item.of("role: content", Response(text="own", embedding=VECTOR)).key.hex()
        assert rows[0]["chosen"]["embedding"] is None
        for row in rows:  # z of both bundles, and the base rewards that it is the difference of
            assert sorted(len(z) for z in row["z"].values()) == [3, 4]
            for features, z in row["z"].items():
                one, two = (np.array(row[s]["base_rewards"][features], np.float32) for s in ("chosen", "rejected"))
                np.testing.assert_array_equal(np.array(z, np.float32), one - two)
        assert start <= datetime.fromisoformat(rows[0]["created_at"]) + timedelta(seconds=1)

        ratings = [(row["event_id"], row["prompt"], row["response"]["text"], row["value"]) for row in told["ratings"]]
        assert ratings == [("r1", "rated", "d", 4.5), ("r2", "rated", "e", 1.0), ("t1", "thumb", "f", 1.0)]
        assert set(told["weights"]) == {user.fingerprint for user in users}
        for user in users:
            weights = told["weights"][user.fingerprint]
            assert weights["weights"] == user.weights.tolist()
            assert user.covariance is not None
            assert weights["covariance"] == user.covariance.tolist()
            assert (weights["comparisons"], weights["revision"]) == (user.comparisons, 1)
        assert told["tombstones"] == told["outbox"] == []

    def test_a_rebuilt_user_is_the_same(self, connect: Open, embedded_bundle: Bundle) -> None:
        # That the very events come back out of it shows that nothing of them is missing.
        client = connect()
        client.record_many(everything())
        told = client.export_user("ada")

        def side(given: dict[str, Any]) -> dict[str, Any]:
            return {name: given[name] for name in ("text", "embedding")}

        names, sides = (
            {"event_id", "created_at", "prompt", "tie", "strength", "value"},
            {"chosen", "rejected", "response"},
        )
        rebuilt: list[Feedback] = [
            kind(
                user_id="ada",
                **{name: row[name] for name in names & row.keys()},
                **{name: side(row[name]) for name in sides & row.keys()},
            )
            for kind, rows in ((Comparison, told["comparisons"]), (Rating, told["ratings"]))
            for row in rows
        ]
        assert client.record_many(rebuilt).duplicates == len(rebuilt) == 8

    def test_counts_are_those_that_forgetting_finds(self, connect: Open) -> None:
        client = connect()
        client.record_many(everything())
        client.personalize("ada")
        counts = client.export_user("ada")["counts"]
        assert set(counts) == set(Base.metadata.tables) - NOT_EXPORTED  # a new table must say whether it is a user's
        forgotten = client.forget("ada").rows
        assert {**forgotten, "mrm_tombstones": 0} == counts

    def test_what_remains_of_a_user_who_was_forgotten(self, connect: Open) -> None:
        client = connect()
        client.record_many(everything())
        before = datetime.now(UTC)
        client.forget("ada")
        told = client.export_user("ada")
        (stone,) = told["tombstones"]
        assert before <= datetime.fromisoformat(stone["forgotten_at"]) <= datetime.now(UTC)
        assert {table: n for table, n in told["counts"].items() if n} == {"mrm_tombstones": 1}
        assert not any(told[name] for name in ("comparisons", "ratings", "weights", "outbox"))

    def test_what_waits_to_be_sent(self, database: Database) -> None:
        store, now = Store(database, "acme"), datetime.now(UTC)
        with database.transaction(write=True) as connection:
            row = {"tenant": "acme", "event_id": "e1", "user_id": "ada", "kind": "comparison", "created_at": now}
            connection.execute(sa.insert(OutboxRow).values(**row))
        assert store.export("ada")["outbox"] == [
            {"event_id": "e1", "kind": "comparison", "created_at": now.isoformat()},
        ]

    def test_no_user_is_not_an_error(self, connect: Open) -> None:
        told = connect().export_user("unknown")
        assert set(told["counts"].values()) == {0}
        with pytest.raises(InvalidInputError):
            connect().export_user("")

    def test_of_one_moment(self, url: str) -> None:
        """A user who is forgotten while it runs is exported as before, not as half a user."""
        reading, writing = Database(url, Settings()), Database(url, Settings())
        upgrade(reading)
        store, forgotten = Store(reading, "acme"), list[dict[str, int]]()
        events = [event(event_id=f"e{n}", chosen=f"x{n}") for n in range(3)]
        store.add(
            events,
            features_hash=FEATURES,
            base_rewards={item.key: np.ones(3, np.float32) for e in events for item in e.items},
        )

        def interfere(_: Any, __: Any, statement: str, *rest: Any) -> None:
            if "FROM mrm_comparisons" in statement and not forgotten:
                forgotten.append(Store(writing, "acme").forget("ada"))

        sa.event.listen(reading.engine, "after_cursor_execute", interfere)
        counts = store.export("ada")["counts"]
        assert {**forgotten[0], "mrm_tombstones": 0} == counts
        assert counts["mrm_comparisons"] == 3
        assert store.export("ada")["counts"]["mrm_comparisons"] == 0
        for database in (reading, writing):
            database.close()

    def test_awaited(self, url: str, embedded_bundle: Bundle) -> None:
        async def use() -> dict[str, Any]:
            async with AsyncClient(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
                await client.record_many(everything())
                return await client.export_user("ada")

        told = asyncio.run(use())
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            assert {**client.export_user("ada"), "exported_at": told["exported_at"]} == told
