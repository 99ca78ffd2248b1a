"""What a database must hold, in plain dicts and sets: the store's model in tests.

Nothing here comes from the library: rules and arithmetic are written a second time, from its documentation. Responses
are numbers; what they stand for, and what base rewards they have, only their user knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

# A response to a prompt; better and worse one, strength, and whether it is a tie.
Judged: TypeAlias = tuple[str | None, int]
Pair: TypeAlias = tuple[Judged, Judged, float, bool]
THRESHOLD: Final[Judged] = (None, -1)


class Said(NamedTuple):
    """Feedback of any kind: a comparison has two sides, a rating or thumb one, a ranking several, best first."""

    kind: str
    event_id: str
    user: str
    prompt: str | None
    sides: tuple[int, ...]
    tie: bool
    strength: float
    value: float
    at: datetime

    def rows(self) -> dict[str, Row]:
        """What is stored of it, by event id."""
        if self.kind != "ranking":
            value = self.value if self.kind in ("rating", "thumb") else None
            return {self.event_id: Row(self.user, self.prompt, self.sides, self.tie, self.strength, value, self.at)}
        strength = self.strength * 2 / len(self.sides)
        return {
            self.event_id + (f"#{n}" if n else ""): Row(self.user, self.prompt, pair, False, strength, None, self.at)
            for n, pair in enumerate(combinations(self.sides, 2))
        }

    def names(self) -> set[str]:
        """The event ids that it takes: a ranking and the next one, which a longer ranking would take."""
        rows = self.rows()
        return {*rows, f"{self.event_id}#{len(rows)}"} if self.kind == "ranking" else {*rows}


class Row(NamedTuple):
    """A stored comparison (two sides), or a stored rating (one side and a value)."""

    user: str
    prompt: str | None
    sides: tuple[int, ...]
    tie: bool
    strength: float
    value: float | None
    at: datetime

    @property
    def content(self) -> tuple[Any, ...]:
        """What was judged: not when, and of a tie not in which order."""
        return self._replace(sides=tuple(sorted(self.sides)) if self.tie else self.sides, at=datetime.min)

    @property
    def items(self) -> set[tuple[str | None, int]]:
        """A response is another item under another prompt."""
        return {(self.prompt, side) for side in self.sides}


class Judge(NamedTuple):
    """A bundle: its two hashes, φ of each response [n, K], and its prior."""

    features: str
    fingerprint: str
    rewards: NDArray[np.float32]
    w0: NDArray[np.float64]
    precision: NDArray[np.float64]
    rho: float


class Kept(NamedTuple):
    """Weights as they were stored, and whether they have seen all feedback that there is now."""

    weights: NDArray[np.float64]
    covariance: NDArray[np.float64]
    comparisons: int
    counted: dict[str, int]
    revision: int
    current: bool = True


@dataclass
class Tenant:
    """All that is stored of one tenant. Items and users are those of the events, so they are kept nowhere else."""

    name: str
    events: dict[str, Row] = field(default_factory=dict)
    differences: set[tuple[str, str]] = field(default_factory=set)  # event id, features
    encoded: set[tuple[tuple[str | None, int], str]] = field(default_factory=set)  # item, features
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)  # user, fingerprint
    stones: dict[str, datetime] = field(default_factory=dict)
    line: datetime | None = None
    bundles: set[str] = field(default_factory=set)

    def fates(self, said: Said) -> set[str]:
        """What may become of feedback; where two reasons speak against it, either may be told."""
        rows = said.rows()
        stored = {name: self.events[name].content for name in said.names() if name in self.events}
        if stored:
            return {"duplicate" if stored == {name: row.content for name, row in rows.items()} else "conflict"}
        refused = {"expired"} if self.line is not None and said.at < self.line else set()
        if said.user in self.stones and said.at <= self.stones[said.user]:
            refused.add("forgotten")
        return refused or {"accepted"}

    def take(self, said: Said, fate: str, features: str) -> None:
        """Stores what was accepted; a duplicate is given the features that it lacks."""
        if fate not in ("accepted", "duplicate"):
            return
        if fate == "accepted":
            self.events |= said.rows()
            for key, kept in self.kept.items():
                if key[0] == said.user:
                    self.kept[key] = kept._replace(current=False)
        self._encode(said.rows(), features)

    def personalize(self, user: str, judge: Judge) -> Kept:
        """Weights of a user, adapted and stored where feedback is newer than those that are kept."""
        mine = {name: row for name, row in self.events.items() if row.user == user}
        weights, covariance, counted = adapt(mine, judge)
        count = sum(row.value is None for row in mine.values()) + len(newest_ratings(mine))
        if not mine:
            return Kept(weights, covariance, 0, counted, 0)
        kept = self.kept.get((user, judge.fingerprint))
        if kept is None or not kept.current:
            kept = Kept(weights, covariance, count, counted, 1 if kept is None else kept.revision + 1)
            self.kept[user, judge.fingerprint] = kept
            self._encode(mine, judge.features)
        return kept

    def forget(self, user: str, moment: datetime) -> dict[str, int]:
        """Deletes a user, whose stone says ``moment``; returns how many rows went."""
        self.stones[user] = moment
        return self._delete({name for name, row in self.events.items() if row.user == user}, {user})

    def prune(self, moment: datetime) -> dict[str, int]:
        """Deletes what is older, which moves the line; returns how many rows went."""
        self.line = moment
        old = {name for name, row in self.events.items() if row.at < moment}
        return self._delete(old, {self.events[name].user for name in old})

    def counts(self, user: str | None = None) -> dict[str, int]:
        """Rows by table, of all users or of what concerns one: these are the tables that belong to users."""
        mine = {name: row for name, row in self.events.items() if user in (None, row.user)}
        items = {item for row in mine.values() for item in row.items}
        rated = sum(row.value is not None for row in mine.values())
        return {
            "mrm_users": len({row.user for row in mine.values()}),
            "mrm_items": len(items),
            "mrm_item_features": sum(item in items for item, _ in self.encoded),
            "mrm_comparisons": len(mine) - rated,
            "mrm_comparison_features": sum(name in mine for name, _ in self.differences),
            "mrm_ratings": rated,
            "mrm_user_weights": sum(user in (None, name) for name, _ in self.kept),
            "mrm_outbox": 0,
        }

    def all_counts(self) -> dict[str, int]:
        """Rows by table, those of the tenant's own with them."""
        own = {"mrm_bundles": len(self.bundles), "mrm_retention": int(self.line is not None)}
        return self.counts() | own | {"mrm_tombstones": len(self.stones)}

    def export(self, user: str, judges: Iterable[Judge]) -> dict[str, Any]:
        """What is told of a user; an item is its response's number, and a tie's differences have no sign."""
        mine = {name: self.events[name] for name in sorted(self.events) if self.events[name].user == user}
        phi = {judge.features: judge.rewards for judge in judges}

        def side(row: Row, number: int) -> dict[str, Any]:
            known = [features for features in phi if ((row.prompt, number), features) in self.encoded]
            return {"item": number, "base_rewards": {features: phi[features][number] for features in known}}

        def difference(row: Row, rewards: NDArray[np.float32]) -> NDArray[np.float32]:
            z: NDArray[np.float32] = rewards[row.sides[0]] - rewards[row.sides[1]]
            return np.abs(z) if row.tie else z

        told: dict[str, Any] = {"format": 1, "tenant": self.name, "user_id": user, "outbox": []}
        for table, wanted in (("comparisons", 2), ("ratings", 1)):
            told[table] = rows = []
            for name, row in mine.items():
                if len(row.sides) != wanted:
                    continue
                common = {"event_id": name, "created_at": row.at.isoformat(), "prompt": row.prompt}
                sides = [side(row, number) for number in row.sides]
                if wanted == 1:
                    rows.append(common | {"response": sides[0], "value": row.value, "strength": row.strength})
                    continue
                z = {f: difference(row, phi[f]) for f in phi if (name, f) in self.differences}
                judged = {"chosen": sides[0], "rejected": sides[1], "tie": row.tie, "strength": row.strength}
                rows.append(common | judged | {"z": z})
        told["weights"] = {
            fingerprint: {name: value for name, value in kept._asdict().items() if name != "current"}
            for (name, fingerprint), kept in self.kept.items()
            if name == user
        }
        stones = [self.stones[user].isoformat()] if user in self.stones else []
        told["tombstones"] = [{"forgotten_at": moment} for moment in stones]
        told["counts"] = self.counts(user) | {"mrm_tombstones": len(stones)}
        return told

    def _encode(self, rows: dict[str, Row], features: str) -> None:
        self.differences |= {(name, features) for name, row in rows.items() if row.value is None}
        self.encoded |= {(item, features) for row in rows.values() for item in row.items}

    def _delete(self, names: set[str], users: set[str]) -> dict[str, int]:
        """Events, what was made of them, the weights of users who had seen them, and items that no event refers to."""
        before = self.counts()
        self.events = {name: row for name, row in self.events.items() if name not in names}
        self.differences = {(name, features) for name, features in self.differences if name not in names}
        judged = {item for row in self.events.values() for item in row.items}
        self.encoded = {(item, features) for item, features in self.encoded if item in judged}
        self.kept = {key: kept for key, kept in self.kept.items() if key[0] not in users}
        after = self.counts()
        return {table: before[table] - after[table] for table in before}


def newest_ratings(rows: dict[str, Row]) -> list[Row]:
    """Of ratings of the same item only the latest, by time, then by event id."""
    newest: dict[Any, tuple[datetime, str]] = {}
    for name, row in rows.items():
        if row.value is not None:
            item = (row.prompt, row.sides)
            newest[item] = max(newest.get(item, (row.at, name)), (row.at, name))
    return [rows[name] for _, name in newest.values()]


def adapt(rows: dict[str, Row], judge: Judge) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, int]]:
    """Weights [K], their covariance, and what moved them, from nothing but feedback: damped Newton to the end."""
    phi = judge.rewards.astype(np.float64)
    compared: list[Pair] = [
        ((row.prompt, row.sides[0]), (row.prompt, row.sides[1]), row.strength, row.tie)
        for row in rows.values()
        if row.value is None
    ]
    ratings = newest_ratings(rows)
    rated, alone = _rated_pairs(ratings), _rated_alone(ratings)
    counted = {"comparisons": len(compared), "rating_pairs": len(rated), "ratings_alone": len(alone)}
    pairs = compared + rated + alone

    def features(item: Judged) -> list[float]:
        return [*np.zeros(phi.shape[1]), 1] if item == THRESHOLD else [*phi[item[1]], 0]

    z = np.array([np.subtract(features(better), features(worse)) for better, worse, *_ in pairs])
    z = z.reshape(-1, phi.shape[1] + 1)
    # The last weight is the threshold, N(0, 1).
    w0, precision = np.append(judge.w0, 0), judge.rho * np.eye(z.shape[1])
    precision[:-1, :-1] = judge.precision
    strength = np.array([pair[2] * _share(pair, pairs) for pair in pairs], np.float64)
    tie = np.array([pair[3] for pair in pairs], np.float64)

    def loss(w: NDArray[np.float64]) -> float:
        margin, offset = z @ w, w - w0
        data = strength @ (np.logaddexp(0, -margin) + tie * margin / 2)
        return float(judge.rho * data + offset @ precision @ offset / 2)

    def derivatives(w: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lost = 1 / (1 + np.exp(z @ w))
        gradient = judge.rho * (strength * (tie / 2 - lost)) @ z + precision @ (w - w0)
        return gradient, judge.rho * (z.T * (strength * lost * (1 - lost))) @ z + precision

    w = w0.copy()
    for _ in range(100):
        gradient, hessian = derivatives(w)
        step = np.linalg.solve(hessian, gradient)
        while loss(w - step) > loss(w) + 1e-12 and np.abs(step).max() > 1e-12:
            step /= 2
        w = w - step
        if np.abs(step).max() < 1e-11:
            break
    return w[:-1], np.linalg.inv(derivatives(w)[1])[:-1, :-1], counted


def _share(pair: Pair, pairs: Sequence[Pair]) -> float:
    """What counts of a pair among n items, all connected by pairs: (n − 1) mean strengths, each 1 at least, at most."""
    connected = set(pair[:2])
    while more := {item for other in pairs if connected & set(other[:2]) for item in other[:2]} - connected:
        connected |= more
    totals: dict[frozenset[Judged], float] = {}
    for one, other, strength, _ in pairs:
        if one in connected:
            totals[frozenset((one, other))] = totals.get(frozenset((one, other)), 0) + strength
    most = (len(connected) - 1) * sum(max(total, 1) for total in totals.values()) / len(totals)
    return min(1.0, most / sum(totals.values()))


def _rated_pairs(ratings: Sequence[Row]) -> list[Pair]:
    """Ratings of a prompt, two at a time: 2/n, the root of how far apart they are, and the mean of their strengths."""
    deviation = np.std([row.value for row in ratings]) if ratings else 0.0
    pairs: list[Pair] = []
    for one in ratings:
        size = sum(row.prompt == one.prompt for row in ratings)
        for other in ratings:
            if one.prompt == other.prompt and one.value > other.value:
                weight = 2 / size * ((one.value - other.value) / deviation) ** 0.5
                weight *= (one.strength * other.strength) ** 0.5
                sides = (one.prompt, one.sides[0]), (other.prompt, other.sides[0])
                pairs.append((*sides, float(weight), False))
    return pairs


def _rated_alone(ratings: Sequence[Row]) -> list[Pair]:
    """Ratings above or below the user's threshold, one at a time: thumbs by sign, others by the mean."""
    values = [row.value for row in ratings]
    is_thumbs = set(values) <= {-1, 0, 1} and (0 not in values or -1 in values)
    alone: list[Pair] = []
    for row in ratings:
        away = row.value if is_thumbs else (row.value - np.mean(values)) / (np.std(values) or 1)
        size = sum(row.prompt == other.prompt for other in ratings)
        if abs(away) > 1e-9:
            item, weight = (row.prompt, row.sides[0]), float(abs(away) ** 0.5 * row.strength / size)
            alone.append((item, THRESHOLD, weight, False) if away > 0 else (THRESHOLD, item, weight, False))
    return alone
