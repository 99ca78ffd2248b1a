"""What hosts have: feedback of every kind, as drawn and as handed in, bundles and a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
import torch
from hypothesis import strategies as st

from mrm_sdk import Comparison, Ranking, Rating, Response, Thumb
from mrm_sdk.bundle import Bundle
from mrm_sdk.bundle.writing import write_bundle
from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.schemas.feedback import Feedback
from mrm_sdk.schemas.items import Item
from mrm_sdk.storage.tables import Base
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.onnx_export import export_base_rewards
from tests.storage.model import Judge, Said

NOW, HOUR, TICK = datetime.now(UTC), timedelta(hours=1), timedelta(microseconds=1)
TENANTS, USERS, PROMPTS = ("acme", "rival"), ("ada", "bob", "eve"), (None, "why?")
# Two have the same embedding, and two the same text: neither makes them the same response.
EMBEDDINGS = np.random.default_rng(3).standard_normal((5, 6)).astype(np.float32)
EMBEDDINGS[4] = EMBEDDINGS[3]
RESPONSES = [
    Response(text=text, embedding=row) for text, row in zip([None, "x", "x", "y", None], EMBEDDINGS, strict=True)
]
NUMBERS = {Item.of(prompt, one).key.hex(): n for prompt in PROMPTS for n, one in enumerate(RESPONSES)}
# What a client cannot take, and words of the reason.
BAD: list[tuple[Any, str]] = [
    ({"user_id": "ada"}, "not dict"),
    (Comparison(user_id="ada", chosen=RESPONSES[0], rejected=Response(embedding=np.ones(7))), "7 numbers"),
    (Thumb(user_id="bob", response="text", up=True), "no encoder"),
    (Ranking(user_id="eve", responses=[*RESPONSES[:2], Response(embedding=[3e38, -3e38] * 3)]), "too large"),
]


class Draft(NamedTuple):
    """Feedback before it has an id, and a moment: so many hours ago, or ``None`` for now."""

    kind: str
    user: str
    prompt: str | None
    sides: Sequence[int]
    tie: bool
    strength: float
    value: int
    age: int | None


KINDS = {"comparison": 2, "rating": 1, "thumb": 1, "ranking": 4}
AGES = (None, None, None, -20, 1, 24, 240, 720)
DRAFTS = st.builds(
    Draft,
    st.sampled_from(["comparison", "comparison", "rating", "rating", "thumb", "ranking"]),
    st.sampled_from(USERS),
    st.sampled_from(PROMPTS),
    st.permutations(range(len(RESPONSES))),
    st.sampled_from([False, False, True]),
    st.sampled_from([1.0, 0.5, 3.0]),
    st.integers(1, 5),
    st.sampled_from(AGES),
)
# A client of a tenant with one of three bundles; another bundle to look with afterwards; one of several, by number.
WHERE = st.tuples(st.sampled_from([*TENANTS, TENANTS[0]]), st.integers(0, 2))
LOOKS = st.sampled_from([None, None, 0, 1, 2])
PICKS = st.integers(0, 99)
BATCHES = st.lists(
    st.one_of(
        st.tuples(st.just("new"), DRAFTS),
        st.tuples(st.just("again"), PICKS),
        st.tuples(st.just("bad"), st.integers(0, len(BAD) - 1)),
    ),
    min_size=2,
    max_size=7,
)


def handed_in(said: Said) -> Feedback:
    """The same as a host says it."""
    common: dict[str, Any] = {"user_id": said.user, "prompt": said.prompt, "strength": said.strength}
    common |= {"event_id": said.event_id, "created_at": said.at}
    sides = [RESPONSES[side] for side in said.sides]
    if said.kind == "comparison":
        return Comparison(chosen=sides[0], rejected=sides[1], tie=said.tie, **common)
    if said.kind == "ranking":
        return Ranking(responses=sides, **common)
    if said.kind == "thumb":
        return Thumb(response=sides[0], up=said.value > 0, **common)
    return Rating(response=sides[0], value=said.value, **common)


def turned(said: Said) -> Said:
    """The other way round: of a tie, the same; of all else that has two sides, another judgement."""
    return said._replace(sides=said.sides[::-1], value=-said.value)


def of_another_kind(said: Said) -> Said:
    """What another kind of feedback says most alike under the same id, sometimes just the same."""
    if said.kind == "ranking":
        return said._replace(kind="comparison", sides=said.sides[:2], strength=said.strength * 2 / len(said.sides))
    if said.kind == "comparison":
        return said._replace(kind="ranking", tie=False)
    if said.kind == "rating":
        return said._replace(kind="thumb", value=1.0 if said.value > 0 else -1.0)
    return said._replace(kind="rating")


def shortened(said: Said) -> Said:
    """Of a ranking a shorter one, whose first comparison is the same; other feedback as it is."""
    if said.kind != "ranking":
        return said
    return said._replace(sides=said.sides[:2], strength=said.strength * 2 / len(said.sides))


@dataclass
class Place:
    """A database with our tables, bundles to use on it, and how often what was seen there."""

    target: str | sa.Engine
    engine: sa.Engine
    bundles: list[Bundle]
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.judges = [judge_of(bundle) for bundle in self.bundles]
        counts = " UNION ALL ".join(
            f"SELECT '{name}', tenant, count(*) FROM {name} GROUP BY tenant" for name in Base.metadata.tables
        )
        self._counts = sa.text(counts)

    def empty(self) -> None:
        """Starts from nothing, since no example may depend on the one before."""
        with self.engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(sa.delete(table))

    def rows(self) -> dict[tuple[str, str], int]:
        """Rows by table and tenant, where there are any."""
        with self.engine.connect() as connection:
            return {(table, tenant): count for table, tenant, count in connection.execute(self._counts)}


def judge_of(bundle: Bundle) -> Judge:
    prior = bundle.prior
    rewards = bundle.base_rewards(EMBEDDINGS)
    return Judge(
        bundle.features_hash, bundle.fingerprint, rewards, prior.w0.numpy(), prior.precision.numpy(), float(prior.rho)
    )


def three_bundles(first: Bundle, folder: Path) -> list[Bundle]:
    """A bundle, one with its φ and another prior, and one with another φ of the same size and its prior."""
    manifest, prior = first.manifest, first.prior
    generator = torch.Generator().manual_seed(1)
    phi = BaseRewards(torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator))
    own = first.read("base_rewards.onnx")
    moved = Prior(prior.w0 + 0.5, 2 * prior.precision, prior.rho * 0.7)
    for name, graph, start in (("prior", own, moved), ("phi", export_base_rewards(phi), prior)):
        write_bundle(
            folder / name,
            name=name,
            sdk_version=manifest.sdk_version,
            licence=manifest.licence,
            encoder=manifest.encoder,
            adaptation=manifest.adaptation,
            files={"base_rewards.onnx": graph},
            prior=start,
            training={},
            metrics={},
        )
    bundles = [first, Bundle(folder / "prior"), Bundle(folder / "phi")]
    assert [len({bundle.features_hash for bundle in bundles}), len({bundle.fingerprint for bundle in bundles})] == [
        2,
        3,
    ]
    return bundles
