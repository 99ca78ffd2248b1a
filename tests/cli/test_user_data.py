"""``mrm users``, ``summary``, ``export``, ``forget`` and ``prune``: what they print, delete, and refuse."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mrm_sdk.bundle import Bundle
from mrm_sdk.cli.output import require_file
from mrm_sdk.client import Client
from mrm_sdk.schemas.feedback import Comparison, Thumb
from mrm_sdk.schemas.items import Response
from mrm_sdk.user_data import UserData
from tests.cli.conftest import Command
from tests.cli.test_commands import assert_error
from tests.conftest import ROOT, mrm

A, B = Response(text="s3cret", embedding=[1, 2, 3, 4, 5, 6]), Response(embedding=[6, 5, 4, 3, 2, 1])
OLD = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALL = (("users",), ("summary", "ada"), ("export", "ada"), ("forget", "ada", "--yes"))
PRUNE = ("prune", "--older-than", "1d")


@pytest.fixture
def url(sqlite_url: str, embedded_bundle: Bundle) -> str:
    """A database in which ada has said three things, one of them long ago, and bob one; eve is another tenant's."""
    with Client(sqlite_url, bundle=embedded_bundle) as client:
        client.record(Comparison(user_id="ada", chosen=A, rejected=B, created_at=OLD))
        client.personalize("ada")
        client.record_many(
            [
                Comparison(user_id="ada", chosen=A, rejected=B, tie=True),
                Thumb(user_id="ada", response=A, up=True),
                Comparison(user_id="bob", chosen=A, rejected=B),
            ]
        )
    with Client(sqlite_url, bundle=embedded_bundle, tenant="globex") as client:
        client.record(Comparison(user_id="eve", chosen=A, rejected=B))
    return sqlite_url


@pytest.fixture
def data(url: str) -> Iterator[UserData]:
    with UserData(url) as data:
        yield data


class TestUsers:
    def test_one_per_line(self, command: Command, url: str) -> None:
        run = command("users", "--database", url)
        assert (run.code, run.out, run.err) == (0, "ada\nbob\n", "")
        assert command("users", "--database", url, "--tenant", "globex").out == "eve\n"

    @pytest.mark.parametrize(
        ("options", "listed"),
        [(("--limit", 1), ["ada"]), (("--after", "ada"), ["bob"]), (("--limit", 3), ["ada", "bob"])],
    )
    def test_some_of_them(
        self, command: Command, url: str, options: tuple[object, ...], listed: list[str], tmp_path: Path
    ) -> None:
        assert json.loads(command("users", "--database", url, *options, "--json", "-").out) == {"users": listed}
        run = command("users", "--database", url, *options, "--json", tmp_path / "u.json")
        assert run.out.splitlines() == listed
        assert json.loads((tmp_path / "u.json").read_text()) == {"users": listed}

    @pytest.mark.parametrize("limit", [None, 1, 2, 3, 6, 7, 9])
    def test_page_by_page(
        self, command: Command, url: str, limit: int | None, embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Client(url, bundle=embedded_bundle, tenant="many") as client:
            client.record_many(Comparison(user_id=f"u{n}", chosen=A, rejected=B) for n in range(7))
        monkeypatch.setattr("mrm_sdk.cli.commands.user_data._PAGE", 3)
        run = command("users", "--database", url, "--tenant", "many", *(("--limit", limit) if limit else ()))
        assert run.out.split() == [f"u{n}" for n in range(7)][:limit]

    def test_none(self, command: Command, url: str) -> None:
        run = command("users", "--database", url, "--tenant", "new")
        assert (run.code, run.out, run.err) == (0, "", "no user of the tenant 'new' has given feedback\n")
        assert command("users", "--database", url, "--after", "z").err == "no user comes after 'z'\n"

    def test_an_id_cannot_write_to_the_terminal(self, command: Command, url: str, embedded_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle, tenant="odd") as client:
            client.record(Comparison(user_id="a\n\x1b[31mé", chosen=A, rejected=B))
        assert command("users", "--database", url, "--tenant", "odd").out == "a\\n\\x1b[31mé\n"
        told = json.loads(command("users", "--database", url, "--tenant", "odd", "--json", "-").out)
        assert told == {"users": ["a\n\x1b[31mé"]}


class TestSummary:
    def test_for_people_and_for_programs(self, command: Command, url: str, data: UserData) -> None:
        run = command("summary", "ada", "--database", url)
        known = data.summary("ada")
        ((fingerprint, _),) = known.weights.items()
        assert (run.code, run.err) == (0, "")
        assert run.out.splitlines() == [
            "user         ada",
            "comparisons  2, 1 of them ties",
            "ratings      1",
            "first        2026-01-02 03:04:05 UTC",
            f"newest       {known.newest_at:%Y-%m-%d %H:%M:%S} UTC",
            "forgotten    never",
            f"weights      {fingerprint[:12]}…  1 judgement, revision 1, outdated",
            "             moved by 1 comparison, 0 pairs of ratings, 0 single ratings",
        ]
        told = json.loads(command("summary", "ada", "--database", url, "--json", "-").out)
        assert told == known.model_dump(mode="json")
        assert "s3cret" not in json.dumps(told)

    def test_a_user_who_is_not_known_is_zeros(self, command: Command, url: str) -> None:
        run = command("summary", "eve", "--database", url)  # another tenant's
        assert (run.code, run.err) == (
            0,
            "Nothing is stored of this user in the tenant 'default'; check the id, and --tenant.\n",
        )
        assert run.out.splitlines()[1:3] == ["comparisons  0", "ratings      0"]
        assert "newest       –\nforgotten    never\n" in run.out


class TestExport:
    def test_json_on_stdout_or_in_a_file(self, command: Command, url: str, tmp_path: Path, data: UserData) -> None:
        run = command("export", "ada", "--database", url)
        told = json.loads(run.out)
        assert (run.code, run.err) == (0, "")
        assert {**data.export_user("ada"), "exported_at": told["exported_at"]} == told
        assert command("export", "ada", "--database", url, "--json", "-").out.startswith("{")
        run = command("export", "ada", "--database", url, "--json", tmp_path / "ada.json")
        assert (run.code, run.err) == (0, "")
        assert [line.split() for line in run.out.splitlines()] == [
            [table, str(count)] for table, count in told["counts"].items()
        ]
        written = json.loads((tmp_path / "ada.json").read_text(encoding="utf-8"))
        assert {**told, "exported_at": written["exported_at"]} == written

    def test_nothing_is_stored(self, command: Command, url: str) -> None:
        reason = "Nothing is stored of this user in the tenant 'default'; check the id, and --tenant."
        assert_error(command("export", "eve", "--database", url), 2, reason)

    def test_a_deletion_is_stored(self, command: Command, url: str) -> None:
        command("forget", "ada", "--yes", "--database", url)
        assert len(json.loads(command("export", "ada", "--database", url).out)["tombstones"]) == 1

    def test_a_file_that_cannot_be_written(self, command: Command, url: str, tmp_path: Path) -> None:
        assert_error(command("export", "ada", "--database", url, "--json", tmp_path), 2, "cannot become a file")

    def test_its_help_says_that_the_file_is_all(self, command: Command) -> None:
        told = " ".join(command("export", "--help").out.replace("│", " ").split())
        assert "Write it here, instead of to stdout" in told
        assert "Also" not in told


class TestForget:
    def test_it_deletes_and_counts(self, command: Command, url: str, data: UserData) -> None:
        counts = data.export_user("ada")["counts"]
        run = command("forget", "ada", "--yes", "--database", url)
        assert (run.code, run.err) == (0, "")
        deleted = {table: int(count) for table, count in (line.split() for line in run.out.splitlines())}
        assert deleted["mrm_comparisons"] == counts["mrm_comparisons"] == 2
        assert data.users() == ["bob"]
        told = json.loads(command("forget", "bob", "--yes", "--database", url, "--json", "-").out)
        assert (told["user_id"], told["rows"]["mrm_users"]) == ("bob", 1)

    @pytest.mark.parametrize("answer", ["y\n", "YES\n"])
    def test_it_asks_on_a_terminal(self, command: Command, url: str, data: UserData, answer: str) -> None:
        run = command("forget", "ada", "--database", url, typed=answer)
        assert run.code == 0
        assert run.err == "Delete 2 comparisons and 1 rating of 'ada' for good? [y/N] "
        assert data.users() == ["bob"]

    @pytest.mark.parametrize("answer", ["n\n", "\n", "yesterday\n", ""])
    def test_any_other_answer_deletes_nothing(self, command: Command, url: str, data: UserData, answer: str) -> None:
        run = command("forget", "ada", "--database", url, typed=answer)
        assert (run.code, run.out) == (1, "")
        assert run.err.endswith("nothing was deleted\n")
        assert data.summary("ada").comparisons == 2

    def test_ctrl_c_at_the_question(self, command: Command, url: str, data: UserData) -> None:
        run = command("forget", "ada", "--database", url, typed="^C")
        assert (run.code, run.out, run.err.splitlines()[1][:11]) == (130, "", "interrupted")
        assert data.summary("ada").comparisons == 2

    def test_without_a_terminal_it_says_what_to_do(self, command: Command, url: str, data: UserData) -> None:
        assert_error(command("forget", "ada", "--database", url, piped=b"y\n"), 2, "add --yes")
        assert data.summary("ada").comparisons == 2

    def test_an_id_that_is_not_known_leaves_no_trace(self, command: Command, url: str, data: UserData) -> None:
        assert_error(command("forget", "eve", "--yes", "--database", url), 2, "Nothing is stored of this user")
        assert data.summary("eve").forgotten_at is None

    def test_a_second_time_is_no_error(self, command: Command, url: str) -> None:
        command("forget", "ada", "--yes", "--database", url)
        run = command("forget", "ada", "--database", url, typed="")
        assert run.code == 0
        assert run.err.startswith("nothing is stored of 'ada' any more: forgotten at 20")
        assert {line.split()[1] for line in run.out.splitlines()} == {"0"}


class TestPrune:
    def test_it_deletes_what_is_older(self, command: Command, url: str, data: UserData) -> None:
        run = command(*PRUNE, "--yes", "--database", url)
        assert (run.code, run.err) == (0, "")
        lines = dict(line.split(maxsplit=1) for line in run.out.splitlines())
        assert (lines["mrm_comparisons"], lines["mrm_ratings"]) == ("1", "0")
        assert lines["before"].startswith(f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")
        assert data.summary("ada").comparisons == 1
        told = json.loads(command(*PRUNE, "--yes", "--database", url, "--json", "-").out)
        assert told["rows"]["mrm_comparisons"] == 0

    def test_it_asks(self, command: Command, url: str, data: UserData) -> None:
        run = command(*PRUNE, "--database", url, typed="n\n")
        assert (run.code, run.out) == (1, "")
        assert run.err.startswith("Delete what all users of the tenant 'default' said before 20")
        for piped in (b"y\n", None):
            assert_error(command(*PRUNE, "--database", url, piped=piped), 2, "add --yes")
        assert data.summary("ada").comparisons == 2
        assert command(*PRUNE, "--database", url, typed="y\n").code == 0
        assert data.summary("ada").comparisons == 1

    @pytest.mark.parametrize(
        ("age", "reason"),
        [
            ("soon", "--older-than: a time is written 90d"),
            ("-P1D", "lies in the future"),
            ("90", "needs a unit, as in 90d"),
            ("1.5", "as in 1.5d"),
            ("0d", "--older-than 0 would delete everything that any user has said. Give a greater age"),
            ("P0D", "--older-than 0 would delete everything"),
            ("999999d", "--older-than lies before the calendar's first year; give a later time"),
            ("99999999999d", "--older-than: the longest time is 999999999d; give a shorter one than '99999999999d'"),
            ("9" * 400 + "h", "--older-than: the longest time is"),
        ],
    )
    def test_ages_that_are_wrong(self, command: Command, url: str, data: UserData, age: str, reason: str) -> None:
        run = command("prune", f"--older-than={age}", "--yes", "--database", url)
        assert_error(run, 2, reason)
        assert "older_than" not in run.err
        assert data.summary("ada").comparisons == 2


@pytest.mark.parametrize("call", [*ALL, (*PRUNE, "--yes")], ids=lambda call: call[0])
class TestWrongCalls:
    def test_a_database_that_is_not_there(self, command: Command, tmp_path: Path, call: tuple[str, ...]) -> None:
        for database in (f"sqlite:///{tmp_path / 'none.db'}", "sqlite://"):
            assert_error(command(*call, "--database", database), 2, "There is no feedback in sqlite://")
        assert not list(tmp_path.iterdir())

    def test_a_file_of_another_program(self, command: Command, tmp_path: Path, call: tuple[str, ...]) -> None:
        with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
            connection.execute("CREATE TABLE letters (text TEXT)")
        before = (tmp_path / "other.db").read_bytes()
        assert_error(command(*call, "--database", f"sqlite:///{tmp_path / 'other.db'}"), 2, "There is no feedback in")
        assert (tmp_path / "other.db").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["other.db"]

    def test_what_is_no_database(self, command: Command, call: tuple[str, ...]) -> None:
        assert_error(command(*call, "--database", "mysql://h/d"), 2, "not supported")
        refused = command(*call, "--database", "postgresql://u:s3cret@127.0.0.1:1/x")
        assert_error(refused, 1, "unavailable")
        assert "s3cret" not in refused.err

    @pytest.mark.parametrize("tenant", ["", "t" * 256])
    def test_a_tenant_that_is_none(self, command: Command, url: str, call: tuple[str, ...], tenant: str) -> None:
        assert_error(command(*call, "--database", url, "--tenant", tenant), 2, "tenant must be a text of 1 to 255")

    def test_options_that_are_not_there(self, command: Command, url: str, call: tuple[str, ...]) -> None:
        assert command(*call, "--database", url, "--nonsense", "1").code == 2


@pytest.mark.parametrize("user", ["", "u" * 256, "\udc80"], ids=ascii)
@pytest.mark.parametrize("name", ["summary", "export", "forget"])
def test_ids_that_are_none(command: Command, url: str, name: str, user: str) -> None:
    yes = ("--yes",) if name == "forget" else ()
    assert_error(command(name, user, *yes, "--database", url), 2, "user_id")


@pytest.mark.parametrize("limit", [0, -1, "many"])
def test_limits_that_are_none(command: Command, url: str, limit: object) -> None:
    assert command("users", "--database", url, "--limit", limit).code == 2
    assert_error(command("users", "--database", url, "--after", "u" * 256), 2, "after must be a text")


@pytest.mark.parametrize("user", ["", " ", "\t\n"])
def test_a_blank_id_has_no_summary(command: Command, url: str, user: str) -> None:
    assert_error(command("summary", user, "--database", url), 2, "user_id is blank; give an id that names one")


@pytest.mark.parametrize("call", [("forget", "ada", "--yes"), (*PRUNE, "--yes")], ids=lambda call: call[0])
def test_nothing_is_deleted_where_the_result_cannot_be_written(
    command: Command, url: str, data: UserData, tmp_path: Path, call: tuple[str, ...]
) -> None:
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in ("a-file/told.json", f"new/{'n' * 300}", "loop", "/proc/told.json"):
        run = command(*call, "--database", url, "--json", tmp_path / place)
        assert_error(run, 2, "cannot become a file (")
    assert data.summary("ada").comparisons == 2
    assert {path.name for path in tmp_path.iterdir()} >= {"a-file", "loop"}
    assert not (tmp_path / "new").exists()


def test_a_place_is_tried_without_a_trace(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for place in (old, tmp_path / "new.json", tmp_path / "a" / "b" / "c.json", tmp_path / "link", tmp_path / "pipe"):
        require_file(place)
    assert old.read_text() == "{}"
    assert {path.name for path in tmp_path.iterdir()} == {"old.json", "link", "pipe"}


def test_a_blank_id_is_one_that_is_not_known(command: Command, url: str) -> None:
    assert_error(command("forget", " ", "--yes", "--database", url), 2, "Nothing is stored of this user")


@pytest.mark.slow
@pytest.mark.parametrize("call", [*ALL, (*PRUNE, "--yes")], ids=lambda call: call[0])
def test_none_of_them_loads_torch(url: str, tmp_path: Path, call: tuple[str, ...]) -> None:
    (tmp_path / "torch.py").write_text("raise AssertionError('torch is loaded')")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    run = mrm(*call, "--database", url, "--json", tmp_path / "told.json", PYTHONPATH=path)
    assert (run.code, run.err) == (0, ""), run.err
    assert json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
