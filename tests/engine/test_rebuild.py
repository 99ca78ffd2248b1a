"""From one bundle to the next: old weights serve until the new one's features are there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import BundleMismatchError, EncoderError, NotFoundError
from mrm_sdk.schemas.feedback import Comparison, Feedback, Ranking, Rating
from mrm_sdk.schemas.items import Response
from mrm_sdk.schemas.results import Rebuilt
from mrm_sdk.settings import Settings
from tests.conftest import mrm
from tests.small_encoders import CountingEncoder, Other

A, B, C = (Response(embedding=np.random.default_rng(9).standard_normal((3, 6))[n]) for n in range(3))
TEXTLESS = Settings(store_text=False)


class FailingEncoder(CountingEncoder):
    """Fails at the third call."""

    calls = 0

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> Any:
        self.calls += 1
        if self.calls == 3:
            raise EncoderError("the server is gone")
        return super().encode(texts)


class Wide(CountingEncoder):
    """Gives vectors that fit no bundle here."""

    dimension = 7


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mrm.db'}"


def said(user: str = "ada", prefix: str = "") -> list[Feedback]:
    return [
        Comparison(user_id=user, chosen=f"{prefix}x", rejected=f"{prefix}y"),
        Comparison(user_id=user, chosen=f"{prefix}y", rejected=A, tie=True),
        Rating(user_id=user, response=f"{prefix}x", value=1),
        Rating(user_id=user, response=f"{prefix}z", value=5),
        Ranking(user_id=user, responses=[f"{prefix}w", B, "v"]),
    ]


def weights(bundle: Bundle, feedback: list[Feedback], encoder: CountingEncoder | None = None) -> np.ndarray:
    """Weights of the one user of this feedback, under a bundle that never knew another."""
    with Client("sqlite://", bundle=bundle, encoder=encoder or CountingEncoder()) as client:
        client.record_many(feedback)
        return client.personalize(feedback[0].user_id).weights


@pytest.fixture
def client(url: str, embedded_bundle: Bundle) -> Iterator[Client]:
    with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
        yield client


class TestUse:
    def test_old_weights_serve_until_the_rebuild(
        self, client: Client, embedded_bundle: Bundle, other_bundle: Bundle
    ) -> None:
        feedback = said()
        client.record_many(feedback)
        before, scores = client.personalize("ada"), client.score("ada", ["x", "z"])
        encoder = CountingEncoder()
        client.use(other_bundle, encoder=encoder)
        assert client.bundle is other_bundle
        assert client.personalize("ada") == before
        np.testing.assert_array_equal(client.score("ada", ["x", "z"]), scores)
        assert encoder.encoded == []  # no call waits for that

        assert client.rebuild() == Rebuilt(items=7, comparisons=5, users=1)
        assert len(encoder.encoded) == 5
        after = client.personalize("ada")
        assert after.fingerprint != before.fingerprint
        assert len(after.weights) == other_bundle.manifest.base_functions != len(before.weights)
        np.testing.assert_allclose(after.weights, weights(other_bundle, feedback), rtol=0, atol=1e-12)
        assert len(encoder.encoded) == 5
        # And back: what the former bundle had is all there.
        client.use(embedded_bundle, encoder=CountingEncoder())
        assert client.personalize("ada") == before

    def test_feedback_that_comes_meanwhile(self, client: Client, embedded_bundle: Bundle, other_bundle: Bundle) -> None:
        old, new = said(), said(prefix="new ")
        client.record_many(old)
        client.use(other_bundle, encoder=CountingEncoder())
        client.record_many(new)
        user = client.personalize("ada")
        assert user.comparisons == 14
        np.testing.assert_allclose(user.weights, weights(embedded_bundle, old + new), rtol=0, atol=1e-12)
        client.record_many(said("bob"))  # of whom nothing is older than the new bundle
        np.testing.assert_allclose(
            client.personalize("bob").weights, weights(other_bundle, said("bob")), rtol=0, atol=1e-12
        )
        client.rebuild()
        np.testing.assert_allclose(
            client.personalize("ada").weights, weights(other_bundle, old + new), rtol=0, atol=1e-12
        )

    def test_what_another_process_still_records_under_the_old_one(
        self, url: str, client: Client, embedded_bundle: Bundle, other_bundle: Bundle
    ) -> None:
        client.record_many(said())
        client.use(other_bundle, encoder=CountingEncoder())
        client.rebuild()
        late = Comparison(user_id="ada", chosen="late", rejected="later")
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as old:
            old.record(late)
        user = client.personalize("ada")
        assert len(user.weights) == other_bundle.manifest.base_functions
        assert user.comparisons == 8

    def test_an_unknown_user_gets_the_new_prior(self, client: Client, other_bundle: Bundle) -> None:
        client.record_many(said())
        client.use(other_bundle, encoder=CountingEncoder())
        np.testing.assert_array_equal(client.personalize("unknown").weights, other_bundle.prior.w0.numpy())

    def test_the_same_features_need_no_rebuild(self, url: str, embedded_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle) as client:
            client.record(Comparison(user_id="ada", chosen=A, rejected=B))
            before = client.personalize("ada")
            client.use(embedded_bundle.path)
            assert client.personalize("ada") == before
            client.use(embedded_bundle, encoder=Other())  # another encoder is another matter
            assert client.personalize("ada") == before
            client.rebuild()
            assert client.personalize("ada").fingerprint != before.fingerprint

    def test_one_that_does_not_open_changes_nothing(self, client: Client, embedded_bundle: Bundle) -> None:
        client.record_many(said())
        before = client.personalize("ada")
        with pytest.raises(NotFoundError):
            client.use("no/such/folder")
        with pytest.raises(BundleMismatchError):
            client.use(embedded_bundle, encoder=Wide())
        assert client.personalize("ada") == before

    def test_twice_before_the_rebuild(self, client: Client, embedded_bundle: Bundle, other_bundle: Bundle) -> None:
        client.record_many(said())
        before = client.personalize("ada")
        encoders = [CountingEncoder(), Other()]
        client.use(other_bundle, encoder=encoders[0])
        client.use(other_bundle, encoder=CountingEncoder())  # the same again: nothing changes
        assert client.personalize("ada") == before
        client.use(other_bundle, encoder=encoders[1])
        assert client.personalize("ada") == before  # by the last bundle that has seen everything
        assert [encoder.encoded for encoder in encoders] == [[], []]
        client.rebuild()
        assert client.personalize("ada").fingerprint != before.fingerprint

    def test_nothing_is_asked_any_more_after_the_rebuild(self, client: Client, other_bundle: Bundle) -> None:
        client.record_many(said())
        client.use(other_bundle, encoder=CountingEncoder())
        client.rebuild()
        client.score("ada", ["x"])
        statements: list[str] = []
        sa.event.listen(
            client._database.engine, "before_cursor_execute", lambda _, __, sql, *rest: statements.append(sql)
        )
        client.score("ada", ["x"])
        assert len(statements) == 1


class TestWithoutText:
    def test_the_error_says_what_is_needed(self, url: str, embedded_bundle: Bundle, other_bundle: Bundle) -> None:
        feedback = said()
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder(), settings=TEXTLESS) as client:
            client.record_many(feedback)
            before = client.personalize("ada")
            with pytest.raises(BundleMismatchError, match=r"store_text=False.*Record the same feedback again"):
                client.use(other_bundle, encoder=CountingEncoder())
            assert client.bundle is embedded_bundle
            assert client.personalize("ada") == before
            with Client(url, bundle=other_bundle, encoder=CountingEncoder(), settings=TEXTLESS) as other:
                with pytest.raises(BundleMismatchError, match="Record the same feedback again"):
                    other.rebuild()
                assert other.record_many(feedback).duplicates == len(feedback)
            client.use(other_bundle, encoder=CountingEncoder())
            after = client.personalize("ada")
        np.testing.assert_allclose(after.weights, weights(other_bundle, feedback), rtol=0, atol=1e-12)

    def test_base_rewards_that_are_there_are_enough(
        self, url: str, embedded_bundle: Bundle, other_bundle: Bundle
    ) -> None:
        mine, other = (Comparison(user_id=user, chosen="x", rejected="y") for user in ("ada", "bob"))
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder(), settings=TEXTLESS) as client:
            client.record_many([mine, other])
            with Client(url, bundle=other_bundle, encoder=CountingEncoder(), settings=TEXTLESS) as new:
                assert new.record(other).duplicates == 1  # ada's are the same answers
                np.testing.assert_allclose(
                    new.personalize("ada").weights, weights(other_bundle, [mine]), rtol=0, atol=1e-12
                )
            client.use(other_bundle, encoder=CountingEncoder())
            assert len(client.personalize("ada").weights) == other_bundle.manifest.base_functions

    def test_everything_else_is_rebuilt(self, url: str, embedded_bundle: Bundle, other_bundle: Bundle) -> None:
        mute = Comparison(user_id="bob", chosen="bob's x", rejected="bob's y")
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder(), settings=TEXTLESS) as client:
            client.record(mute)
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            client.record_many(said())
            client.use(other_bundle, encoder=CountingEncoder())
            with pytest.raises(BundleMismatchError, match="this tenant's"):
                client.rebuild()
            np.testing.assert_allclose(
                client.personalize("ada").weights, weights(other_bundle, said()), rtol=0, atol=1e-12
            )
            # Nothing can be made of bob's under the new bundle: the former one still serves him.
            assert len(client.personalize("bob").weights) == embedded_bundle.manifest.base_functions


class TestRebuild:
    def test_a_second_one_finds_nothing_to_do(self, client: Client, other_bundle: Bundle) -> None:
        client.record_many([*said(), *said("bob", "bob's ")])
        encoder = CountingEncoder()
        client.use(other_bundle, encoder=encoder)
        reports: list[tuple[str, int, int]] = []
        first = client.rebuild(progress=lambda *values: reports.append(values))
        assert (first.comparisons, first.users) == (10, 2)
        assert reports == [("encoding", 11, 11), ("comparing", 10, 10), ("adapting", 2, 2)]
        count = len(encoder.encoded)
        assert client.rebuild() == Rebuilt(items=0, comparisons=0, users=2)
        assert len(encoder.encoded) == count

    def test_one_that_fails_goes_on_where_it_was(self, url: str, embedded_bundle: Bundle, other_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            client.record_many([f for n in range(4) for f in said(f"u{n}", f"u{n}'s ")])
        small = Settings(chunk_size=4)
        broken = FailingEncoder()
        with (
            Client(url, bundle=other_bundle, encoder=broken, settings=small) as client,
            pytest.raises(EncoderError, match="the server is gone"),
        ):
            client.rebuild()
        assert broken.encoded
        encoder = CountingEncoder()
        with Client(url, bundle=other_bundle, encoder=encoder, settings=small) as client:
            assert client.rebuild().users == 4
            assert not set(encoder.encoded) & set(broken.encoded)

    def test_tenants_stay_apart(self, url: str, client: Client, embedded_bundle: Bundle, other_bundle: Bundle) -> None:
        client.record_many(said())
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder(), tenant="globex") as globex:
            globex.record_many(said("bob", "secret "))
        encoder = CountingEncoder()
        client.use(other_bundle, encoder=encoder)
        assert client.rebuild().users == 1
        assert not [text for _, text in encoder.encoded if "secret" in text]


KILLED = """
import os, signal, sys
from mrm_sdk import Client, Settings
settings = Settings(chunk_size=5)
with Client(sys.argv[1], bundle=sys.argv[2], settings=settings) as client:
    parts = []
    def progress(stage, done, total):
        parts.append(stage)
        if len(parts) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    client.rebuild(progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", [1, 3, 8])
def test_a_killed_process_goes_on_from_the_command_line(
    url: str, embedded_bundle: Bundle, other_bundle: Bundle, part: int
) -> None:
    rng = np.random.default_rng(0)
    responses = [Response(embedding=rng.standard_normal(6)) for _ in range(12)]
    sides = rng.permuted(np.tile(np.arange(12), (40, 1)), axis=1)[:, :2]
    feedback = [
        Comparison(user_id=f"u{n % 3}", chosen=responses[a], rejected=responses[b]) for n, (a, b) in enumerate(sides)
    ]
    with Client(url, bundle=embedded_bundle) as client:
        client.record_many(feedback)
    command = [sys.executable, "-c", KILLED, url, str(other_bundle.path), str(part)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = mrm("rebuild", "--database", url, "--bundle", other_bundle.path, "--json", "-")
    assert run.code == 0, run.err
    rebuilt = json.loads(run.out)
    assert rebuilt["users"] == 3
    assert (rebuilt["items"], rebuilt["comparisons"]) != (len({*map(int, sides.flat)}), len(feedback))
    assert mrm("rebuild", "--database", url, "--bundle", other_bundle.path).out.split() == [
        "encoded", "0", "compared", "0", "adapted", "3",
    ]  # fmt: skip
    with Client(url, bundle=other_bundle) as client, Client("sqlite://", bundle=other_bundle) as fresh:
        fresh.record_many(feedback)
        for user in ("u0", "u1", "u2"):
            np.testing.assert_array_equal(client.personalize(user).weights, fresh.personalize(user).weights)


@pytest.mark.slow
def test_the_command_names_what_is_wrong(tmp_path: Path, embedded_bundle: Bundle) -> None:
    missing = mrm("rebuild", "--database", f"sqlite:///{tmp_path / 'none.db'}", "--bundle", embedded_bundle.path)
    assert missing.code == 2
    assert "There is no feedback in" in missing.err
    assert not os.listdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with Client(url, bundle=embedded_bundle) as client:
        sides = Response(embedding=np.ones(6)), Response(embedding=np.zeros(6))
        client.record(Comparison(user_id="ada", chosen=sides[0], rejected=sides[1]))
    unknown = mrm("rebuild", "--database", url, "--bundle", embedded_bundle.path, "--tenant", "acme")
    assert (unknown.code, unknown.out) == (2, "")
    assert "There is no feedback of the tenant 'acme' in sqlite:///" in unknown.err
    memory = mrm("rebuild", "--database", "sqlite://", "--bundle", embedded_bundle.path)
    assert memory.code == 2
