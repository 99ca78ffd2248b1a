"""``record_many`` streams: what it takes of memory does not grow with what it is handed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mrm_sdk import Bundle, Client, Comparison, Rating, Response, Settings
from tests.conftest import ROOT

FEW, MORE = 5_000, 20_000
TEXT = 4_000  # characters of each event
# A chunk of 2,000 events, the cached base rewards of 1,000 items and SQLite's own pages, as often as an allocator may
# keep a part of them; the events of MORE would take more than five times as much.
MOST_MB, ALL_MB = 15, MORE * TEXT / 1e6

STREAM = """
import resource, sys
import numpy as np
from mrm_sdk import Client, Comparison, Response, Settings

url, bundle, text, *counts = sys.argv[1:]
vectors = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)

def events(start, number):
    for n in range(start, start + number):
        chosen = Response(text=f"{n} ".ljust(int(text), "."), embedding=vectors[n % 64])
        yield Comparison(user_id=f"u{n % 100}", chosen=chosen, rejected=Response(embedding=vectors[(n + 1) % 64]))

with Client(url, bundle=bundle, settings=Settings(cache_items=1_000)) as client:
    start = 0
    for number in map(int, counts):
        done = client.record_many(events(start, number))
        start += number
        print(done.accepted, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak of memory is counted in another way")
def test_memory_does_not_grow_with_the_number_of_events(url: str, embedded_bundle: Bundle) -> None:
    # In a process of its own, whose peak nothing else has raised before; the second stream may raise it no more.
    done = subprocess.run(
        [sys.executable, "-c", STREAM, url, str(embedded_bundle.path), *map(str, (TEXT, FEW, MORE))],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (few, before), (more, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, more) == (FEW, MORE)
    grown = (after - before) / 1e6
    print(f"{before / 1e6:.0f} MB, then {grown:.1f} MB more")
    assert grown < MOST_MB < ALL_MB / 5


def comparison(number: int) -> Comparison:
    sides = [Response(embedding=[number, side, 0, 0, 0, 0]) for side in range(2)]
    return Comparison(user_id="ada", chosen=sides[0], rejected=sides[1], event_id=f"e{number}")


@pytest.mark.parametrize("size", [1, 4])
def test_each_chunk_is_durable_before_the_next_one_is_asked_for(url: str, embedded_bundle: Bundle, size: int) -> None:
    seen = []
    with (
        Client(url, bundle=embedded_bundle, settings=Settings(chunk_size=size)) as client,
        Client(url, bundle=embedded_bundle) as onlooker,
    ):

        def endless() -> Iterator[Comparison]:
            number = 0
            while True:
                seen.append(onlooker.export_user("ada")["counts"]["mrm_comparisons"])
                if number == 3 * size:
                    raise KeyError("the host's own source broke")
                yield comparison(number)
                number += 1

        with pytest.raises(KeyError, match="the host's own"):
            client.record_many(endless())
        assert seen == [n // size * size for n in range(3 * size + 1)]
        assert client.personalize("ada").comparisons == 3 * size


def test_refusals_are_named_by_place_and_reason(url: str, embedded_bundle: Bundle) -> None:
    """Also where they fall into different chunks, and none keeps the others out."""
    now = datetime.now(UTC)
    old = {"created_at": now - timedelta(days=1)}
    with Client(url, bundle=embedded_bundle, settings=Settings(chunk_size=3)) as client:
        client.record(comparison(0))
        client.record(comparison(1).model_copy(update={"user_id": "bob"}))
        client.forget("bob")
        client.prune(older_than=now - timedelta(days=100))
        wide, huge = Response(embedding=[1.0] * 7), Response(embedding=[3e38] * 6)
        fine = Response(embedding=[1.0] * 6)
        given: list[object] = [
            comparison(2),
            "not feedback",
            comparison(3).model_copy(update={"chosen": wide}),
            comparison(0).model_copy(update={"strength": 2.0}),
            comparison(0),
            comparison(4).model_copy(update={"user_id": "bob", **old}),
            comparison(5),
            comparison(6).model_copy(update={"created_at": now - timedelta(days=200)}),
            comparison(7).model_copy(update={"chosen": huge}),
            Rating(user_id="ada", response=Response(text="no vector"), value=1),
            comparison(8),
            comparison(8).model_copy(update={"rejected": fine}),
        ]
        done = client.record_many(each for each in given)  # type: ignore[misc]
        assert (done.accepted, done.duplicates) == (3, 1)
        reasons = {
            1: "not str",
            2: "6",
            3: "'e0' was recorded before with other content",
            5: "was forgotten",
            7: "was pruned",
            8: "too large",
            9: "embedding",
            11: "'e8' was recorded before with other content",
        }
        assert [refusal.index for refusal in done.rejected] == list(reasons)
        for refusal in done.rejected:
            assert reasons[refusal.index] in refusal.reason
        assert [e["event_id"] for e in client.export_user("ada")["comparisons"]] == ["e0", "e2", "e5", "e8"]
        assert client.personalize("bob").comparisons == 0
