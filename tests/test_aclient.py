"""The awaited client is the same client."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mrm_sdk.aclient import AsyncClient
from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import ClientClosedError, ConflictError, InvalidInputError, NotFoundError
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.schemas.items import Response

A, B = Response(embedding=[1, 2, 3, 4, 5, 6]), Response(embedding=[6, 5, 4, 3, 2, 1])
METHODS = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mrm.db'}"


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_same_names() -> None:
    assert public(AsyncClient) == public(Client)
    assert {"record", "record_many", "personalize", "score", "rank", "forget", "close"} <= set(METHODS)


@pytest.mark.parametrize("name", ["__init__", *METHODS])
def test_the_same_signatures(name: str) -> None:
    assert inspect.signature(getattr(AsyncClient, name)) == inspect.signature(getattr(Client, name))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_awaited(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(AsyncClient, name))


def test_the_same_results(url: str, embedded_bundle: Bundle) -> None:
    first, *others = [Comparison(user_id="ada", chosen=A, rejected=B) for _ in range(3)]

    async def use() -> list[object]:
        async with AsyncClient(url, bundle=embedded_bundle) as client:
            assert client.bundle is embedded_bundle
            recorded = [await client.record(first), await client.record_many([first, *others])]
            user = await client.personalize("ada")
            ranked = await client.rank("ada", [B, A])
            return [recorded, user, await client.score("ada", [A, B]), ranked, await client.forget("ada")]

    recorded, user, scores, ranked, forgotten = asyncio.run(use())
    with Client("sqlite://", bundle=embedded_bundle) as client:
        assert recorded == [client.record(first), client.record_many([first, *others])]
        expected = client.personalize("ada")
        assert user.model_dump() == expected.model_dump()  # type: ignore[attr-defined]
        np.testing.assert_array_equal(scores, client.score("ada", [A, B]))
        assert ranked == client.rank("ada", [B, A])
        assert forgotten == client.forget("ada")


def test_the_same_errors(url: str, embedded_bundle: Bundle) -> None:
    async def use() -> None:
        client = AsyncClient(url, bundle=embedded_bundle)
        async with client:
            await client.record(Comparison(user_id="ada", chosen=A, rejected=B, event_id="e1"))
            with pytest.raises(ConflictError):
                await client.record(Comparison(user_id="ada", chosen=B, rejected=A, event_id="e1"))
            with pytest.raises(InvalidInputError):
                await client.score("", [A])
        with pytest.raises(ClientClosedError):
            await client.personalize("ada")

    asyncio.run(use())


def test_many_at_once(url: str, embedded_bundle: Bundle) -> None:
    async def use() -> int:
        async with AsyncClient(url, bundle=embedded_bundle) as client:
            records = (client.record(Comparison(user_id="ada", chosen=A, rejected=B)) for _ in range(40))
            scores = (client.score("ada", [A, B]) for _ in range(40))
            await asyncio.gather(*records, *scores)
            return (await client.personalize("ada")).comparisons

    assert asyncio.run(use()) == 40


def test_the_event_loop_runs_on_meanwhile(url: str, embedded_bundle: Bundle) -> None:
    # The comparisons end only once the loop has run on: a call that blocked it would never return.
    go_on = threading.Event()

    def comparisons() -> Iterator[Comparison]:
        yield Comparison(user_id="ada", chosen=A, rejected=B)
        assert go_on.wait(30)

    async def use() -> int:
        async with AsyncClient(url, bundle=embedded_bundle) as client:
            task = asyncio.create_task(client.record_many(comparisons()))
            await asyncio.sleep(0)  # the task begins
            go_on.set()
            return (await task).accepted

    assert asyncio.run(use()) == 1


@pytest.mark.slow
def test_the_event_loop_does_not_stand_still_while_users_are_adapted(
    url: str, embedded_bundle: Bundle, record_property: Callable[[str, object], None]
) -> None:
    sides = np.random.default_rng(0).standard_normal((60, 2, 6))
    users = [f"u{n}" for n in range(150)]

    async def use() -> tuple[float, float]:
        async with AsyncClient(url, bundle=embedded_bundle) as client:
            await client.record_many(
                Comparison(user_id=user, chosen=Response(embedding=a), rejected=Response(embedding=b))
                for user in users
                for a, b in sides
            )
            ticks = [time.perf_counter()]
            done = asyncio.Event()

            async def tick() -> None:
                while not done.is_set():
                    await asyncio.sleep(0.001)
                    ticks.append(time.perf_counter())

            ticking = asyncio.create_task(tick())
            for user in users:
                assert (await client.personalize(user)).revision == 1
            done.set()
            await ticking
            return float(max(np.diff(ticks))), ticks[-1] - ticks[0]

    stall, whole = asyncio.run(use())
    record_property("longest stall of the event loop, ms", round(1e3 * stall, 1))
    record_property("adapting took, ms", round(1e3 * whole, 1))
    # A loop that waited for the adapting would stand still for the whole of each call: this is far from any of both.
    assert stall < whole / 4


def test_repr(url: str, embedded_bundle: Bundle) -> None:
    assert repr(AsyncClient(url, bundle=embedded_bundle)).startswith("AsyncClient(")


def test_creating_one_reads_nothing(url: str, tmp_path: Path) -> None:
    async def use() -> None:
        client = AsyncClient(url, bundle=tmp_path / "nowhere")
        with pytest.raises(NotFoundError, match="no bundle"):
            await client.score("ada", [A])
        with pytest.raises(NotFoundError, match="no bundle"):
            async with AsyncClient(url, bundle=tmp_path / "nowhere"):
                pass
        await client.close()
        with pytest.raises(ClientClosedError):
            await client.score("ada", [A])

    asyncio.run(use())


def test_calls_at_once_share_one_client(embedded_bundle: Bundle) -> None:
    async def use() -> int:
        client = AsyncClient("sqlite://", bundle=embedded_bundle.path)
        events = [Comparison(user_id="ada", chosen=A, rejected=B) for _ in range(8)]
        await asyncio.gather(*(client.record(event) for event in events))
        user = await client.personalize("ada")
        await client.close()
        return user.comparisons

    assert asyncio.run(use()) == 8
