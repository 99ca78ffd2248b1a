"""What a tenant's users are asked about without a bundle: the part of a client that stands alone, and its summary."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.engine.recording import record_without_features
from mrm_sdk.errors import ClientClosedError, ConfigurationError, InvalidInputError, SchemaOutdatedError
from mrm_sdk.schemas.feedback import Comparison, Ranking, Rating, Thumb
from mrm_sdk.schemas.items import Response
from mrm_sdk.schemas.results import Counted, UserSummary, WeightsSummary
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from mrm_sdk.user_data import UserData
from tests.conftest import ROOT
from tests.small_encoders import CountingEncoder

A, B, C = (Response(embedding=np.eye(6)[n] * (n + 1)) for n in range(3))
NOW = datetime.now(UTC)
DAYS = [NOW - timedelta(days=days) for days in range(9)]
NOTHING = {"comparisons": 0, "ties": 0, "ratings": 0, "first_at": None, "newest_at": None}


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def client(url: str, embedded_bundle: Bundle) -> Iterator[Client]:
    with Client(url, bundle=embedded_bundle) as client:
        yield client


def summary(user_id: str = "ada", **values: Any) -> UserSummary:
    return UserSummary(**{"user_id": user_id, **NOTHING, "forgotten_at": None, "weights": {}, **values})


class TestSummary:
    def test_of_a_user_who_is_not_known(self, client: Client) -> None:
        assert client.summary("unknown") == summary("unknown")
        with pytest.raises(InvalidInputError):
            client.summary("")

    def test_counts_and_times(self, client: Client) -> None:
        client.record(Rating(user_id="ada", response=A, value=3, created_at=DAYS[3]))
        assert client.summary("ada") == summary(ratings=1, first_at=DAYS[3], newest_at=DAYS[3])
        client.record_many(
            [
                Comparison(user_id="ada", chosen=A, rejected=B, created_at=DAYS[2]),
                Comparison(user_id="ada", chosen=A, rejected=C, tie=True, created_at=DAYS[5]),
                Ranking(user_id="ada", responses=[A, B, C], created_at=DAYS[4]),
                Rating(user_id="ada", response=A, value=4, created_at=DAYS[1]),  # of the same response again
                Thumb(user_id="ada", response=B, up=True, created_at=DAYS[6]),
                Comparison(user_id="bob", chosen=A, rejected=B, created_at=DAYS[8]),
            ]
        )
        told = client.summary("ada")
        assert told == summary(comparisons=5, ties=1, ratings=3, first_at=DAYS[6], newest_at=DAYS[1])
        assert told.first_at is not None
        assert told.first_at.utcoffset() == timedelta(0)
        assert client.summary("bob") == summary("bob", comparisons=1, first_at=DAYS[8], newest_at=DAYS[8])

    def test_how_far_the_weights_have_come(self, client: Client, url: str, other_bundle: Bundle) -> None:
        client.record_many(
            [Comparison(user_id="ada", chosen=A, rejected=B), Rating(user_id="ada", response=C, value=1)]
        )
        assert dict(client.summary("ada").weights) == {}
        assert client.summary("ada").comparisons == 1  # asking has adapted nothing
        with Client(url, bundle=other_bundle) as other:
            first, second = client.personalize("ada"), other.personalize("ada")
            counted = Counted(comparisons=1, rating_pairs=0, ratings_alone=1)  # a 1 alone is a thumb
            current = WeightsSummary(judgements=2, counted=counted, revision=1, current=True)
            assert dict(client.summary("ada").weights) == {first.fingerprint: current, second.fingerprint: current}
            client.record(Comparison(user_id="ada", chosen=A, rejected=B))
            client.personalize("ada")
            assert dict(other.summary("ada").weights) == {
                first.fingerprint: WeightsSummary(
                    judgements=3,
                    counted=Counted(comparisons=2, rating_pairs=0, ratings_alone=1),
                    revision=2,
                    current=True,
                ),
                second.fingerprint: current.model_copy(update={"current": False}),
            }

    def test_after_forgetting(self, client: Client) -> None:
        client.record(Comparison(user_id="ada", chosen=A, rejected=B))
        client.personalize("ada")
        client.forget("ada")
        once = client.summary("ada")
        assert once.forgotten_at is not None
        assert NOW <= once.forgotten_at <= datetime.now(UTC)
        assert once == summary(forgotten_at=once.forgotten_at)
        client.record(Comparison(user_id="ada", chosen=A, rejected=B))
        again = client.summary("ada")
        assert (again.comparisons, again.forgotten_at) == (1, once.forgotten_at)

    def test_of_one_tenant(self, client: Client, url: str, embedded_bundle: Bundle) -> None:
        client.record(Comparison(user_id="ada", chosen=A, rejected=B, created_at=DAYS[1]))
        client.record(Comparison(user_id="eve", chosen=A, rejected=B))
        client.forget("eve")
        with Client(url, bundle=embedded_bundle, tenant="globex") as other:
            assert [other.summary(user) for user in ("ada", "eve")] == [summary("ada"), summary("eve")]
            other.record(Rating(user_id="ada", response=A, value=3, created_at=DAYS[2]))
            other.personalize("ada")
        assert client.summary("ada") == summary(comparisons=1, first_at=DAYS[1], newest_at=DAYS[1])

    def test_is_one_statement_however_much_there_is(self, client: Client) -> None:
        client.summary("ada")
        statements: list[str] = []
        sa.event.listen(client._database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
        for feedback in ([], [Comparison(user_id="ada", chosen=A, rejected=B) for _ in range(20)]):
            client.record_many(feedback)
            statements.clear()
            client.summary("ada")
            assert len(statements) == 1


class TestAlone:
    def test_the_same_as_a_clients(self, url: str, embedded_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle) as client, UserData(url) as data, UserData(url, tenant="b") as other:
            client.record_many(Comparison(user_id=user, chosen=A, rejected=B) for user in ("ada", "bob", "eve"))
            client.personalize("ada")
            assert data.users(limit=2) == client.users(limit=2) == ["ada", "bob"]
            assert data.summary("ada") == client.summary("ada")
            told = data.export_user("ada")
            assert told == {**client.export_user("ada"), "exported_at": told["exported_at"]}
            assert other.users() == []
            assert sum(other.forget("ada").rows.values()) == 0
            assert data.forget("ada").rows["mrm_comparisons"] == 1
            assert data.prune(older_than=timedelta(0)).rows["mrm_comparisons"] == 2
            assert client.users() == []

    def test_it_brings_the_tables_up_to_date_or_says_how(self, url: str) -> None:
        with UserData(url, settings=Settings(auto_migrate=False)) as data, pytest.raises(SchemaOutdatedError):
            data.users()
        with UserData(url) as data:
            assert data.users() == []
        with UserData(url, settings=Settings(auto_migrate=False)) as data:
            assert data.users() == []

    def test_a_closed_one(self) -> None:
        data = UserData("sqlite://")
        data.close()
        data.close()
        for call in (data.users, lambda: data.summary("ada"), lambda: data.forget("ada")):
            with pytest.raises(ClientClosedError):
                call()

    def test_wrong_arguments_and_no_password_in_the_repr(self) -> None:
        with pytest.raises(ConfigurationError, match="must be a Settings"):
            UserData("sqlite://", settings={})  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="tenant"):
            UserData("sqlite://", tenant="")
        assert "s3cret" not in repr(UserData("postgresql+psycopg://u:s3cret@host/db"))

    @pytest.mark.slow
    def test_no_torch_is_loaded(self, tmp_path: Any) -> None:
        database = Database(f"sqlite:///{tmp_path / 'mrm.db'}", Settings())
        upgrade(database)
        feedback = [Comparison(user_id="ada", chosen="x", rejected="y")]
        list(record_without_features(Store(database, "default"), feedback, 1))
        database.close()
        code = """
import sys
from datetime import timedelta
from mrm_sdk.user_data import UserData
with UserData(sys.argv[1]) as data:
    print(data.users(), data.summary("ada").comparisons, data.export_user("ada")["counts"]["mrm_comparisons"])
    data.forget("ada")
    data.prune(older_than=timedelta(days=1))
print(sorted({"torch", "onnxruntime", "mrm_sdk.bundle", "mrm_sdk.encoders"} & set(sys.modules)))
"""
        command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'mrm.db'}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60, check=False)
        assert (done.stdout, done.stderr) == ("['ada'] 1 1\n[]\n", "")


def test_an_encoder_of_the_hosts_is_not_asked_for_a_summary(embedded_bundle: Bundle) -> None:
    encoder = CountingEncoder()
    with Client("sqlite://", bundle=embedded_bundle, encoder=encoder) as client:
        client.record(Comparison(user_id="ada", chosen="x", rejected="y"))
        encoder.encoded.clear()
        assert client.summary("ada").comparisons == 1
        assert encoder.encoded == []
