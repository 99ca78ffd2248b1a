"""Whatever is done in whatever order, the store holds what a model in plain Python says, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mrm_sdk import (
    Client,
    ClientClosedError,
    ConflictError,
    EventExpiredError,
    Recorded,
    Settings,
    UserForgottenError,
)
from mrm_sdk.bundle import Bundle
from mrm_sdk.storage import Database, upgrade
from tests.storage.host_strategies import (
    BAD,
    BATCHES,
    DRAFTS,
    EMBEDDINGS,
    HOUR,
    KINDS,
    LOOKS,
    NOW,
    NUMBERS,
    PICKS,
    PROMPTS,
    RESPONSES,
    TENANTS,
    TICK,
    USERS,
    WHERE,
    Draft,
    Place,
    handed_in,
    of_another_kind,
    shortened,
    three_bundles,
    turned,
)
from tests.storage.model import Judge, Kept, Said, Tenant

REFUSALS = {ConflictError: "conflict", UserForgottenError: "forgotten", EventExpiredError: "expired"}
WORDS = {"conflict": "other content", "forgotten": "forgotten", "expired": "was pruned"}
# Few of everything is kept in memory or written at once, so that all have to be read again and in parts.
SETTINGS = Settings(chunk_size=3, cache_items=2)


class Machine(RuleBasedStateMachine):
    """Does what hosts do, in any order, and compares all that comes back with the model."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        place.empty()
        self.place, self.seen = place, place.seen
        self.tenants = {name: Tenant(name) for name in TENANTS}
        self.clients: dict[tuple[str, int], Client] = {}
        self.said: list[Said] = []
        # What happened to a user since a deletion: bundles that were used, and prunings.
        self.paths: dict[tuple[str, str], list[str]] = {}

    def teardown(self) -> None:
        for client in self.clients.values():
            client.close()

    def client(self, where: tuple[str, int]) -> tuple[Client, Tenant, Judge]:
        """A client of a tenant with one of the bundles, opened when first wanted."""
        name, number = where
        if where not in self.clients:
            bundle = self.place.bundles[number]
            self.clients[where] = Client(self.place.target, bundle=bundle, tenant=name, settings=SETTINGS)
        tenant, judge = self.tenants[name], self.place.judges[number]
        tenant.bundles.add(judge.fingerprint)
        return self.clients[where], tenant, judge

    def new(self, tenant: Tenant, draft: Draft) -> Said:
        sides = tuple(draft.sides[: KINDS[draft.kind]])
        value = draft.value if draft.kind == "rating" else (-1) ** draft.value
        at = datetime.now(UTC) if draft.age is None else NOW - draft.age * HOUR
        if draft.age not in (24, 720):  # those may be refused
            at = max(at, tenant.line or at, tenant.stones.get(draft.user, at - TICK) + TICK)
        tie = draft.tie and draft.kind == "comparison"
        name = f"e{len(self.said)}"
        said = Said(draft.kind, name, draft.user, draft.prompt, sides, tie, draft.strength, float(value), at)
        self.said.append(said)
        return said

    def someone(self, tenant: Tenant, pick: int) -> str:
        """Mostly a user with feedback, seldom any other."""
        known = sorted({row.user for row in tenant.events.values()})
        several = known if known and pick % 8 else [*USERS, "unknown"]
        return several[pick // 8 % len(several)]

    def record_one(self, where: tuple[str, int], said: Said) -> None:
        client, tenant, judge = self.client(where)
        try:
            recorded = client.record(handed_in(said))
        except tuple(REFUSALS) as error:
            fate = REFUSALS[type(error)]
        else:
            fate = "accepted" if recorded == Recorded(accepted=1, duplicates=0) else "duplicate"
            assert fate == "accepted" or recorded == Recorded(accepted=0, duplicates=1)
        assert fate in tenant.fates(said)
        self.take(tenant, said, fate, judge)

    def take(self, tenant: Tenant, said: Said, fate: str, judge: Judge) -> None:
        tenant.take(said, fate, judge.features)
        self.seen[fate] += 1
        path = self.paths.get((tenant.name, said.user))
        if fate == "accepted" and path is not None:
            path.append(judge.fingerprint)

    def look(self, name: str, users: Iterable[str], number: int | None) -> None:
        """Has users adapted with one of the bundles, where one is to look."""
        if number is None:
            return
        client, tenant, judge = self.client((name, number))
        for user in users:
            reward, kept = client.personalize(user), tenant.personalize(user, judge)
            assert (reward.user_id, reward.fingerprint) == (user, judge.fingerprint)
            assert (reward.comparisons, reward.revision) == (kept.comparisons, kept.revision)
            assert reward.counted.model_dump() == kept.counted
            close(reward.weights, kept.weights)
            close(reward.covariance, kept.covariance)
            self.adapted(tenant, user, kept, judge)

    @initialize(drafts=st.lists(DRAFTS, min_size=3, max_size=12))
    def begin(self, drafts: list[Draft]) -> None:
        for number, name in enumerate(TENANTS):
            self.record_many((name, number), [("new", draft) for draft in drafts], number)

    @rule(where=WHERE, draft=DRAFTS, then=LOOKS)
    def record(self, where: tuple[str, int], draft: Draft, then: int | None) -> None:
        self.record_one(where, self.new(self.tenants[where[0]], draft))
        self.look(where[0], [draft.user], then)

    @rule(
        where=WHERE,
        pick=PICKS,
        change=st.sampled_from([None, None, turned, of_another_kind, shortened]),
        when=st.integers(0, 6),
        then=LOOKS,
    )
    def record_again(
        self, where: tuple[str, int], pick: int, change: Callable[[Said], Said] | None, when: int, then: int | None
    ) -> None:
        """What was said before, to whichever tenant: as it was, or another way, or at another time."""
        if not self.said:
            return
        said = self.said[pick % len(self.said)]
        tenant = self.tenants[where[0]]
        moments = {"then": said.at, "now": datetime.now(UTC)}
        if said.user in tenant.stones:
            stone = tenant.stones[said.user]
            moments |= {"as deleted": stone, "just after the deletion": stone + TICK}
        if tenant.line is not None:
            moments |= {"on the line": tenant.line, "just before the line": tenant.line - TICK}
        name = list(moments)[when % len(moments)]
        self.seen[f"again {name}"] += 1
        said = said._replace(at=moments[name])
        self.record_one(where, change(said) if change else said)
        self.look(where[0], [said.user], then)

    @rule(where=WHERE, pick=PICKS, draft=DRAFTS, part=st.sampled_from(["", "", "#1", "#2", "#3"]))
    def record_under_a_taken_id(self, where: tuple[str, int], pick: int, draft: Draft, part: str) -> None:
        tenant = self.tenants[where[0]]
        if tenant.events:
            taken = sorted(tenant.events)[pick % len(tenant.events)].split("#")[0]
            self.record_one(where, self.new(tenant, draft)._replace(event_id=taken + part))

    @rule(where=WHERE, batch=BATCHES, then=LOOKS)
    def record_many(self, where: tuple[str, int], batch: list[tuple[str, Any]], then: int | None) -> None:
        """Good and bad ones together: the bad ones are told by their place, and cost the others nothing."""
        client, tenant, judge = self.client(where)
        fates: list[set[str]] = []
        feedback: list[Any] = []
        reasons: list[list[str]] = []
        for what, value in batch:
            if what == "bad":
                invalid, word = BAD[value]
                feedback.append(invalid)
                fates.append({"bad"})
                reasons.append([word])
                continue
            if what == "again" and not self.said:
                continue
            said = self.new(tenant, value) if what == "new" else self.said[value % len(self.said)]
            fates.append(tenant.fates(said))
            feedback.append(handed_in(said))
            reasons.append([WORDS[fate] for fate in fates[-1] if fate in WORDS])
            self.take(tenant, said, min(fates[-1]), judge)
        recorded = client.record_many(iter(feedback))
        assert recorded.accepted == fates.count({"accepted"})
        assert recorded.duplicates == fates.count({"duplicate"})
        assert [index for index, _ in recorded.rejected] == [n for n, words in enumerate(reasons) if words]
        for index, reason in recorded.rejected:
            assert any(word in reason for word in reasons[index]), (reason, reasons[index])
        self.seen["a batch in part"] += bool(recorded.accepted and recorded.rejected)
        self.look(where[0], USERS, then)

    @rule(where=WHERE, pick=PICKS)
    def personalize(self, where: tuple[str, int], pick: int) -> None:
        self.look(where[0], [self.someone(self.tenants[where[0]], pick)], where[1])

    def adapted(self, tenant: Tenant, user: str, kept: Kept, judge: Judge) -> None:
        self.seen["the prior" if not kept.revision else "adapted again" if kept.revision > 1 else "adapted"] += 1
        path = self.paths.get((tenant.name, user))
        if path and "pruned" in path and judge.fingerprint not in path and kept.comparisons:
            self.seen["forgotten, recorded, pruned, other bundle"] += 1
            path.append(judge.fingerprint)

    @rule(where=WHERE, prompt=st.sampled_from(PROMPTS), pick=PICKS)
    def score_and_rank(self, where: tuple[str, int], prompt: str | None, pick: int) -> None:
        client, tenant, judge = self.client(where)
        user = self.someone(tenant, pick)
        kept = tenant.personalize(user, judge)
        numbers = np.random.default_rng(pick).permutation(len(RESPONSES))[: 1 + pick % len(RESPONSES)]
        expected = judge.rewards[numbers] @ kept.weights
        responses = [RESPONSES[number] for number in numbers]
        close(client.score(user, responses, prompt=prompt), expected)
        ranked = client.rank(user, responses, prompt=prompt)
        assert sorted(answer.index for answer in ranked) == list(range(len(numbers)))
        assert all(answer.response is responses[answer.index] for answer in ranked)
        close([answer.score for answer in ranked], np.sort(expected)[::-1])
        close([expected[answer.index] for answer in ranked], np.sort(expected)[::-1])
        self.adapted(tenant, user, kept, judge)

    @rule(where=WHERE, pick=PICKS, back=st.lists(DRAFTS, max_size=3), then=LOOKS)
    def forget(self, where: tuple[str, int], pick: int, back: list[Draft], then: int | None) -> None:
        """Deletes a user, who may come back at once."""
        client, tenant, _ = self.client(where)
        user = self.someone(tenant, pick)
        latest = [row.at for row in tenant.events.values() if row.user == user]
        latest += [tenant.stones[user]] if user in tenant.stones else []
        before = datetime.now(UTC)
        forgotten = client.forget(user)
        after = datetime.now(UTC)
        (stone,) = client.export_user(user)["tombstones"]
        moment = datetime.fromisoformat(stone["forgotten_at"])
        assert max([before, *latest]) <= moment <= max([after, *latest])
        assert dict(forgotten.rows) == tenant.forget(user, moment)
        self.seen["forgotten, who was known" if forgotten.rows["mrm_users"] else "forgotten, who was unknown"] += 1
        if forgotten.rows["mrm_users"]:
            self.paths[tenant.name, user] = []
        for draft in back:
            self.record_one(where, self.new(tenant, draft._replace(user=user)))
        self.look(where[0], USERS, then)

    @rule(where=WHERE, how=st.sampled_from(["event", "event", "age", "moment"]), pick=PICKS, then=LOOKS)
    def prune(self, where: tuple[str, int], how: str, pick: int, then: int | None) -> None:
        client, tenant, _ = self.client(where)
        before = datetime.now(UTC)
        age = (720, 240, 24, 1)[pick % 4] * HOUR
        moment = NOW - age
        back = {user for (name, user), path in self.paths.items() if path and name == tenant.name}
        rows = [row for row in tenant.events.values() if row.at < before and (pick % 3 == 0 or row.user in back)]
        ats = sorted(row.at for row in rows)
        if ats and how == "event":  # of which it may be the last to stay, or to go
            moment = ats[pick // 2 % len(ats)] + pick % 2 * TICK
        pruned = client.prune(older_than=age if how == "age" else moment)
        earliest, latest = (before - age, datetime.now(UTC) - age) if how == "age" else (moment, moment)
        floor = tenant.line or earliest
        assert max(earliest, floor) <= pruned.before <= max(latest, floor)
        users = {row.user for row in tenant.events.values()}
        old = {row.user for row in tenant.events.values() if row.at < pruned.before}
        assert dict(pruned.rows) == tenant.prune(pruned.before)
        left = {row.user for row in tenant.events.values()}
        self.seen["pruned in part"] += len(old & left)
        self.seen["pruned away"] += len(users - left)
        self.seen["pruned nothing"] += not old
        for user in old:
            path = self.paths.get((tenant.name, user))
            if path:
                path.append("pruned")
        self.look(where[0], USERS, then)

    @rule(where=WHERE)
    def reopen(self, where: tuple[str, int]) -> None:
        client = self.clients.pop(where, None)
        if client is not None:
            client.close()
            with pytest.raises(ClientClosedError):
                client.personalize("ada")
            self.seen["reopened"] += 1

    @rule(where=WHERE, pick=PICKS)
    def export(self, where: tuple[str, int], pick: int) -> None:
        client, tenant, _ = self.client(where)
        user = self.someone(tenant, pick)
        told = client.export_user(user)
        assert abs(datetime.fromisoformat(told.pop("exported_at")) - datetime.now(UTC)) < HOUR
        for stone in told["tombstones"]:
            assert stone.pop("event_id")
        for rating in told["ratings"]:
            rating["response"] = numbered(rating["response"])
        for comparison in told["comparisons"]:
            comparison |= {name: numbered(comparison[name]) for name in ("chosen", "rejected")}
            if comparison["tie"]:
                comparison["z"] = {features: np.abs(z) for features, z in comparison["z"].items()}
        same(told, tenant.export(user, self.place.judges))
        self.seen["exported"] += bool(told["counts"]["mrm_users"])

    @invariant()
    def rows(self) -> None:
        expected = {(table, name): n for name in TENANTS for table, n in self.tenants[name].all_counts().items() if n}
        assert self.place.rows() == expected


def numbered(side: dict[str, Any]) -> dict[str, Any]:
    """A side as the model tells it: with its response's number in place of its content."""
    number = NUMBERS[side["item"]]
    assert side["text"] == RESPONSES[number].text
    assert side["embedding"] == EMBEDDINGS[number].tolist()
    return {"item": number, "base_rewards": side["base_rewards"]}


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def same(found: Any, expected: Any, where: str = "export") -> None:
    """Compares what was told, number by number, and says where they differ."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            same(found[key], expected[key], f"{where}, {key}")
    elif isinstance(expected, np.ndarray):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=where)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for n, (one, other) in enumerate(zip(found, expected, strict=True)):
            same(one, other, f"{where}, {n}")
    else:
        assert found == expected, where


@pytest.fixture(scope="module")
def bundles(embedded_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return three_bundles(embedded_bundle, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(params=["memory", "file", "postgres"])
def place(request: pytest.FixtureRequest, bundles: list[Bundle], tmp_path: Path) -> Iterator[Place]:
    url = f"sqlite:///{tmp_path / 'mrm.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    if request.param == "memory":
        # An engine of the host's, for several clients share it.
        engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = sa.create_engine(url)
    database = Database(engine if request.param == "memory" else url, Settings())
    upgrade(database)
    database.close()
    yield Place(engine if request.param == "memory" else url, engine, bundles)
    engine.dispose()


WANTED = (
    *("accepted", "duplicate", "conflict", "forgotten", "expired", "a batch in part", "exported", "reopened"),
    *("adapted", "adapted again", "the prior", "pruned in part", "pruned away", "pruned nothing"),
    *("again as deleted", "again just after the deletion", "again on the line", "again just before the line"),
    *("forgotten, who was known", "forgotten, who was unknown", "forgotten, recorded, pruned, other bundle"),
)
EXAMPLES = {"memory": 24, "file": 12, "postgres": 8}


@pytest.mark.slow
def test_the_store_is_what_the_model_is(place: Place, request: pytest.FixtureRequest) -> None:
    once = settings(
        max_examples=EXAMPLES[request.node.callspec.params["place"]],
        stateful_step_count=100,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(lambda: Machine(place), settings=once)
    # A machine that never gets anywhere would find nothing wrong.
    assert {what: place.seen[what] for what in WANTED if not place.seen[what]} == {}
