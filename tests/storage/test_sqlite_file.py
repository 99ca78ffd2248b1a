"""SQLite's file: without a write-ahead log, deleted or replaced while it is open, and named by a relative path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrm_sdk.errors import DatabaseError
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from mrm_sdk.storage.connect import _warn_of_rollback_journal
from tests.storage.events import accepted, event


@pytest.mark.parametrize("option", ["nolock=1", "vfs=unix-dotfile"])
def test_sqlite_that_declines_its_log_works_without(
    option: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _warn_of_rollback_journal.cache_clear()
    database = Database(
        f"sqlite:///file:{tmp_path / 'mrm.db'}?{option}&uri=true", Settings(busy_timeout=1, pool_size=0)
    )
    upgrade(database)
    assert accepted(Store(database, "t").add([event()])) == [True]
    with database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
        assert connection.exec_driver_sql("SELECT count(*) FROM mrm_comparisons").scalar() == 1
    database.close()
    assert [record.message for record in caplog.records if "no write-ahead log" in record.message] == caplog.messages
    assert len(caplog.messages) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
@pytest.mark.parametrize("pool_size", [0, 5])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_deleted_or_replaced(pool_size: int, replaced: bool, tmp_path: Path) -> None:
    path, aside = tmp_path / "mrm.db", tmp_path / "aside.db"
    database = Database(f"sqlite:///{path}", Settings(pool_size=pool_size))
    upgrade(database)
    store = Store(database, "t")
    assert accepted(store.add([event()])) == [True]
    path.rename(aside)
    if replaced:
        other = Database(f"sqlite:///{path}", Settings())
        upgrade(other)
        other.close()
    for _ in range(2):
        with pytest.raises(DatabaseError, match="was deleted or replaced while it was open"):
            store.add([event("bob")])
    assert path.exists() == replaced
    if not replaced:
        aside.replace(path)
        assert accepted(store.add([event("cy")])) == [True]
    database.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
def test_a_file_that_is_deleted_in_a_transaction(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'mrm.db'}", Settings())
    upgrade(database)
    with pytest.raises(DatabaseError, match="deleted or replaced"), database.transaction(write=True) as connection:
        (tmp_path / "mrm.db").unlink()
        connection.exec_driver_sql("SELECT 1")
    database.close()


def test_a_relative_path_means_the_folder_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    database = Database("sqlite:///mrm.db", Settings(pool_size=0))
    monkeypatch.chdir(tmp_path / "other")
    assert database.is_new == (not (tmp_path / "mrm.db").exists())
    upgrade(database)
    assert accepted(Store(database, "t").add([event()])) == [True]
    assert [path.name for path in tmp_path.glob("*.db")] == ["mrm.db"]
    assert not list((tmp_path / "other").iterdir())
    database.close()
