"""Embeddings on disk: found again, shared between processes, and honest about a file that is damaged or full."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mrm_sdk.encoders.remote.cache import VectorCache
from mrm_sdk.encoders.text_key import text_key
from mrm_sdk.errors import ConfigurationError, EncoderError

ONE, TWO = np.arange(3, dtype=np.float32), np.arange(3, 6).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.db"


@pytest.fixture
def cache(path: Path) -> Iterator[VectorCache]:
    cache = VectorCache(path, "encoder")
    cache.store_probe(ONE)
    cache.confirm_probe(time.time())
    yield cache
    cache.close()


def test_keys_tell_everything_apart_that_encodes_differently() -> None:
    texts = [("a", "b"), (None, "ab"), ("", "ab"), ("ab", ""), ("a", "1:b"), ("a1", "b"), (None, "-2:ab")]
    keys = {text_key(namespace, *text) for namespace in ("one", "two") for text in texts}
    assert len(keys) == 2 * len(texts)
    assert text_key("one", "a", "b") == text_key("one", "a", "b")


def test_what_was_put_is_found_by_another_that_opens_the_file(path: Path, cache: VectorCache) -> None:
    cache.put({b"one": ONE, b"two": TWO})
    other = VectorCache(path, "encoder")
    cached = other.get([b"one", b"none", b"two"], 3)
    other.close()
    assert cached.keys() == {b"one", b"two"}
    np.testing.assert_array_equal(cached[b"one"], ONE)
    assert cached[b"one"].dtype == np.float32
    assert cache.get([], 3) == {}


def test_thousands_at_once(cache: VectorCache) -> None:
    vectors = {b"%d" % n: np.full(4, n, np.float32) for n in range(3000)}
    cache.put(vectors)
    cached = cache.get(vectors.keys(), 4)
    assert len(cached) == 3000
    assert cached[b"2999"][0] == 2999


def test_no_text_on_disk_and_only_the_owner_may_read_it(path: Path, cache: VectorCache) -> None:
    cache.put({text_key("encoder", "a secret question", "a secret answer"): ONE})
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert ONE.tobytes() in written
    assert b"secret" not in written
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


def test_the_first_probe_stays_and_is_one_encoders_own(path: Path) -> None:
    cache = VectorCache(path, "encoder")
    assert cache.known_probe() is None
    np.testing.assert_array_equal(cache.store_probe(ONE), ONE)
    np.testing.assert_array_equal(cache.store_probe(TWO), ONE)
    np.testing.assert_array_equal(cache.known_probe(), ONE)
    other = VectorCache(path, "another encoder")
    assert other.known_probe() is None
    other.close()
    cache.close()


def test_nothing_is_kept_that_no_probe_vouches_for(path: Path) -> None:
    cache = VectorCache(path, "encoder")
    cache.put({b"one": ONE})
    cache.store_probe(ONE)
    cache.put({b"two": ONE})
    assert cache.get([b"one", b"two"], 3) == {}
    cache.confirm_probe(time.time())
    cache.put({b"one": ONE})
    assert cache.get([b"one"], 3).keys() == {b"one"}
    cache.close()


def test_a_file_from_before_probes_had_a_time(path: Path, cache: VectorCache) -> None:
    cache.put({b"one": ONE})
    cache.close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE probes DROP COLUMN good")
    database.close()
    cache = VectorCache(path, "encoder")
    np.testing.assert_array_equal(cache.known_probe(), ONE)
    cache.drop_unconfirmed()
    cache.confirm_probe(time.time())
    cache.put({b"two": TWO})
    assert cache.get([b"one", b"two"], 3).keys() == {b"one", b"two"}
    cache.close()


def test_dropping_what_was_written_since_the_last_good_probe(path: Path, cache: VectorCache) -> None:
    other = VectorCache(path, "another encoder")
    other.store_probe(ONE)
    other.confirm_probe(0)
    other.put({b"other": ONE})
    cache.put({b"old": ONE})
    moment = time.time()
    while time.time() == moment:
        pass
    cache.confirm_probe(time.time())
    cache.put({b"new": TWO})
    cache.drop_unconfirmed()
    cache.drop_unconfirmed()  # by another process that is refused too
    assert cache.get([b"old", b"new"], 3).keys() == {b"old"}
    cache.confirm_probe(0)
    cache.drop_unconfirmed()
    assert cache.get([b"old", b"other"], 3).keys() == {b"other"}
    assert cache.known_probe() is not None
    other.close()


WRITER = """
import sys
import numpy as np
from mrm_sdk.encoders.remote.cache import VectorCache

first = int(sys.argv[2])
cache = VectorCache(sys.argv[1], "encoder")
cache.store_probe(np.ones(4, np.float32))
cache.confirm_probe(first)
for n in range(first, first + 150):
    cache.put({b"%d" % n: np.full(4, n, np.float32)})
    assert cache.get([b"%d" % n], 4)
cache.close()
"""


@pytest.mark.slow
def test_processes_write_at_once(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER, path, str(150 * n)]) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    cache = VectorCache(path, "encoder")
    assert len(cache.get([b"%d" % n for n in range(450)], 4)) == 450
    cache.close()


def test_a_damaged_file_is_an_error_that_says_what_to_do(path: Path) -> None:
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(EncoderError, match=r"vectors\.db is damaged: delete it"):
        VectorCache(path, "encoder")


def test_damage_that_shows_later(path: Path, cache: VectorCache) -> None:
    cache.put({b"%d" % n: np.full(256, n, np.float32) for n in range(200)})
    cache.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    damaged = VectorCache(path, "encoder")
    with pytest.raises(EncoderError, match="damaged: delete it"):
        damaged.get([b"7"], 256)
    damaged.close()


@pytest.mark.parametrize(
    "value",
    [b"\1\2", b"", ONE.tobytes()[:4], np.zeros(4, np.float32).tobytes(), (ONE * np.nan).tobytes(), "text", 7],
)
def test_a_row_that_is_no_vector(path: Path, cache: VectorCache, value: object) -> None:
    cache.put({b"one": ONE})
    with sqlite3.connect(path) as database:
        database.execute("UPDATE vectors SET vector = ?", (value,))
    database.close()
    with pytest.raises(EncoderError, match="damaged"):
        cache.get([b"one"], 3)


@pytest.mark.parametrize("value", [b"", (ONE * np.nan).tobytes(), "text"])
def test_a_probe_that_is_no_vector(path: Path, cache: VectorCache, value: object) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE probes SET vector = ?", (value,))
    database.close()
    with pytest.raises(EncoderError, match="damaged"):
        cache.known_probe()


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (name TEXT)")
    database.close()
    with pytest.raises(ConfigurationError, match="another program's database"):
        VectorCache(path, "encoder")
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    database.close()


def test_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / "vectors.db"):
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            VectorCache(path, "encoder")


def test_a_full_disk_costs_a_warning_once(cache: VectorCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.put({b"one": ONE})
    # SQLite's own way to run out of space: the file may not grow by another page.
    (pages,) = cache._database.execute("PRAGMA page_count").fetchone()
    cache._database.execute(f"PRAGMA max_page_count={pages}")
    with caplog.at_level(logging.WARNING, "mrm_sdk"):
        for n in range(3):
            cache.put({b"%d" % n: np.zeros(100_000, np.float32)})
    assert [record.message for record in caplog.records] == [
        f"The cache {cache.path} is not used for now (database or disk is full); answers are complete."
    ]
    assert cache.get([b"one", b"0"], 3).keys() == {b"one"}
    cache._database.execute(f"PRAGMA max_page_count={pages + 1000}")
    cache.put({b"0": TWO})
    assert cache.get([b"0"], 3)


def test_after_closing_nothing_is_found_and_nothing_fails(cache: VectorCache) -> None:
    cache.put({b"one": ONE})
    cache.close()
    cache.put({b"two": TWO})
    assert cache.get([b"one"], 3) == {}
