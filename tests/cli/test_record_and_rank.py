"""``mrm record`` and ``mrm rank``: one user's judgements go in, and an order of answers comes out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from mrm_sdk.bundle import Bundle
from mrm_sdk.cli.output import printable, shortened
from mrm_sdk.client import Client
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.user_data import UserData
from tests.cli.conftest import Command
from tests.cli.test_commands import assert_error
from tests.conftest import ROOT, mrm
from tests.small_encoders import CountingEncoder

PAIR = ("--chosen", "See RFC 1034.", "--rejected", "A phone book.")
RECORD = ("record", "ada", "--database")
KINDS = "Give --chosen and --rejected (and --tie, if both are as good), or --response and either --rating or --thumb"


def stored(url: str) -> dict[str, Any]:
    with UserData(url) as data:
        return data.export_user("ada")


class TestRecord:
    def test_a_comparison(self, command: Command, sqlite_url: str) -> None:
        run = command(*RECORD, sqlite_url, *PAIR, "--prompt", "What is DNS?", "--event-id", "click-17")
        assert (run.code, run.out, run.err) == (0, "recorded   click-17\n", "")
        again = command(*RECORD, sqlite_url, *PAIR, "--prompt", "What is DNS?", "--event-id", "click-17")
        assert (again.code, again.out) == (0, "duplicate  click-17: it was recorded before\n")
        (row,) = stored(sqlite_url)["comparisons"]
        assert (row["event_id"], row["prompt"], row["tie"]) == ("click-17", "What is DNS?", False)
        assert (row["chosen"]["text"], row["rejected"]["text"]) == ("See RFC 1034.", "A phone book.")
        conflict = command(*RECORD, sqlite_url, *PAIR, "--tie", "--event-id", "click-17")
        assert_error(conflict, 1, "'click-17' was recorded before with other content")

    def test_ratings_thumbs_and_ties(self, command: Command, sqlite_url: str) -> None:
        assert command(*RECORD, sqlite_url, *PAIR, "--tie").code == 0
        for judged in (("--rating", 4.5), ("--thumb", "up"), ("--thumb", "down"), ("--rating", -1)):
            told = json.loads(command(*RECORD, sqlite_url, "--response", "x", *judged, "--json", "-").out)
            assert (told["accepted"], told["duplicates"], told["rejected"]) == (1, 0, [])
        assert [row["tie"] for row in stored(sqlite_url)["comparisons"]] == [True]
        assert sorted(row["value"] for row in stored(sqlite_url)["ratings"]) == [-1, -1, 1, 4.5]
        assert told["event_id"] in {row["event_id"] for row in stored(sqlite_url)["ratings"]}

    def test_of_a_tenant(self, command: Command, sqlite_url: str) -> None:
        command(*RECORD, sqlite_url, *PAIR, "--tenant", "globex")
        with UserData(sqlite_url, tenant="globex") as data, UserData(sqlite_url) as other:
            assert (data.users(), other.users()) == (["ada"], [])

    def test_with_a_bundle_that_cannot_take_it(
        self, command: Command, sqlite_url: str, embedded_bundle: Bundle
    ) -> None:
        refused = command(*RECORD, sqlite_url, *PAIR, "--bundle", embedded_bundle.path)
        assert_error(refused, 1, "carries no encoder")
        assert_error(command(*RECORD, sqlite_url, *PAIR, "--bundle", "no/such"), 2, "no bundle at")

    def test_what_is_older_than_a_deletion_stays_out(self, command: Command, sqlite_url: str) -> None:
        command(*RECORD, sqlite_url, *PAIR)
        command("forget", "ada", "--yes", "--database", sqlite_url)
        assert command(*RECORD, sqlite_url, *PAIR).code == 0  # said after it

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ((), "none of them"),
            (("--tie",), "--tie"),
            (("--chosen", "x"), "--chosen"),
            (("--rejected", "x", "--tie"), "--rejected, --tie"),
            (("--response", "x"), "--response"),
            (("--rating", "4"), "--rating"),
            (("--response", "x", "--rating", "4", "--thumb", "up"), "--response, --rating, --thumb"),
            ((*PAIR, "--rating", "4"), "--chosen, --rejected, --rating"),
            ((*PAIR, "--response", "x", "--thumb", "up"), "--chosen, --rejected, --response, --thumb"),
            (("--response", "x", "--thumb", "up", "--tie"), "--tie, --response, --thumb"),
        ],
    )
    def test_kinds_that_do_not_go_together(
        self, command: Command, sqlite_url: str, tmp_path: Path, given: tuple[str, ...], told: str
    ) -> None:
        assert_error(command(*RECORD, sqlite_url, *given), 2, f"{KINDS}; you gave {told}.")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            (("--response", "x", "--thumb", "sideways"), "--thumb is 'up' or 'down', not 'sideways'"),
            (("--response", "x", "--rating", "nan"), "Invalid Rating: "),
            (("--response", "x\udc80", "--rating", "1"), "lone surrogate"),
            (("--chosen", "x", "--rejected", "x"), "chosen and rejected are the same"),
            ((*PAIR, "--event-id", ""), "event_id is blank"),
            ((*PAIR, "--event-id", " "), "event_id is blank"),
            ((*PAIR, "--event-id", "e" * 256), "event_id"),
            ((*PAIR, "--tenant", ""), "tenant must be a text"),
        ],
        ids=ascii,
    )
    def test_values_that_are_wrong(
        self, command: Command, sqlite_url: str, given: tuple[str, ...], reason: str
    ) -> None:
        assert_error(command(*RECORD, sqlite_url, *given), 2, reason)

    @pytest.mark.parametrize("user", ["", "  ", "u" * 256, "\udc80"], ids=ascii)
    def test_ids_that_name_no_one(self, command: Command, sqlite_url: str, user: str) -> None:
        assert_error(command("record", user, *PAIR, "--database", sqlite_url), 2, "user_id")

    def test_a_rating_that_is_no_number(self, command: Command, sqlite_url: str) -> None:
        assert command(*RECORD, sqlite_url, "--response", "x", "--rating", "good").code == 2

    def test_where_it_cannot_go(self, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert_error(command(*RECORD, "sqlite://", *PAIR), 2, "in memory is gone")
        assert_error(command(*RECORD, f"sqlite:///{tmp_path}/no/a.db", *PAIR), 1, "check that the folder exists")
        url = f"sqlite:///{tmp_path / 'a.db'}"
        monkeypatch.setenv("MRM_STORE_TEXT", "false")
        assert_error(command(*RECORD, url, *PAIR), 2, "--bundle")
        monkeypatch.setenv("MRM_AUTO_MIGRATE", "false")
        assert_error(command(*RECORD, f"sqlite:///{tmp_path / 'b.db'}", *PAIR), 1, "mrm db upgrade")

    @pytest.mark.slow
    def test_it_loads_no_torch(self, sqlite_url: str, tmp_path: Path) -> None:
        (tmp_path / "torch.py").write_text("raise AssertionError('torch is loaded')")
        run = mrm(*RECORD, sqlite_url, *PAIR, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
        assert (run.code, run.err) == (0, "")


ANSWERS = ("Plug it in.", "A " + "very " * 40 + "long answer.", "Two\nlines\x1b[31m", "漢字" * 40)


@pytest.fixture
def rank(
    command: Command, sqlite_url: str, embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Ranks with a bundle that encodes text; ada has said something, and bob has not."""
    monkeypatch.setattr("mrm_sdk.client.open_encoder", lambda _, __: CountingEncoder())
    with Client(sqlite_url, bundle=embedded_bundle) as client:
        client.record(Comparison(user_id="ada", chosen="x", rejected="y"))
    options = ("--database", sqlite_url, "--bundle", embedded_bundle.path)

    def run(*arguments: object, **values: Any) -> Any:
        return command("rank", *arguments, *options, **values)

    return run


class TestRank:
    def test_a_table_that_fits_a_terminal(
        self, rank: Callable[..., Any], sqlite_url: str, embedded_bundle: Bundle
    ) -> None:
        run = rank("ada", *ANSWERS, "--prompt", "My PC is dead?")
        assert (run.code, run.err) == (0, "")
        header, *lines = run.out.splitlines()
        assert header.split() == ["rank", "score", "text"]
        with Client(sqlite_url, bundle=embedded_bundle) as client:
            expected = client.rank("ada", ANSWERS, prompt="My PC is dead?")
        assert [line.split()[:2] for line in lines] == [
            [str(place), f"{one.score:.4f}"] for place, one in enumerate(expected, 1)
        ]
        for line, one in zip(lines, expected, strict=True):
            text = line[16:]
            assert header.index("text") == 16
            assert cell_len(line) <= 80
            assert one.response.startswith(text.removesuffix("…")) or text == "Two lines\\x1b[31m"
        assert max(map(cell_len, lines)) >= 79  # cut no shorter than it has to be
        told = json.loads(rank("ada", *ANSWERS, "--prompt", "My PC is dead?", "--json", "-").out)
        assert [(one["index"], one["response"]) for one in told["ranked"]] == [
            (one.index, one.response) for one in expected
        ]
        assert (told["user_id"], told["comparisons"]) == ("ada", 1)

    def test_texts_from_stdin(self, rank: Callable[..., Any]) -> None:
        piped = "\ufeffone\r\n\ntwo with é\n  \nthree".encode()
        told = json.loads(rank("ada", "-", "--json", "-", piped=piped).out)
        assert sorted(one["response"] for one in told["ranked"]) == ["one", "three", "two with é"]
        told = json.loads(rank("ada", "zero", "-", "--json", "-", piped=piped).out)
        assert {one["index"]: one["response"] for one in told["ranked"]}[0] == "zero"

    def test_a_user_who_is_not_known(self, rank: Callable[..., Any]) -> None:
        run = rank("bob", "x", "y")
        assert (run.code, run.err) == (0, "'bob' has given no feedback: this is the average user's order\n")

    @pytest.mark.parametrize(
        ("call", "piped", "reason"),
        [
            (("ada", "-"), b"", "There is nothing to rank"),
            (("ada", "-"), b"\n \n", "There is nothing to rank"),
            (("ada", "-"), None, "There is nothing to rank"),
            (("ada", "-"), b"\xff\xfe", "no text in UTF-8"),
            (("ada", "-"), b"a\0b", "NUL"),
            (("", "x"), b"", "user_id is blank"),
            ((" ", "x"), b"", "user_id is blank; give an id that names one"),
            (("u" * 256, "x"), b"", "user_id"),
            (("ada", "\udc80"), b"", "lone surrogate"),
            (("ada", "x", "--prompt", "\udc80"), b"", "lone surrogate"),
            (("ada", "x", "--tenant", ""), b"", "tenant must be a text"),
        ],
        ids=ascii,
    )
    def test_wrong_calls(
        self, rank: Callable[..., Any], call: tuple[str, ...], piped: bytes | None, reason: str
    ) -> None:
        assert_error(rank(*call, piped=piped), 2, reason)

    def test_no_answers_no_bundle_no_database(
        self, command: Command, sqlite_url: str, tmp_path: Path, embedded_bundle: Bundle
    ) -> None:
        bundle = ("--bundle", embedded_bundle.path)
        assert command("rank", "ada", "--database", sqlite_url, *bundle).code == 2
        assert command("rank", "ada", "x", "--database", sqlite_url).code == 2
        assert_error(command("rank", "ada", "x", "--database", sqlite_url, *bundle), 2, "There is no feedback in")
        assert not list(tmp_path.iterdir())
        command(*RECORD, sqlite_url, *PAIR)
        missing = command("rank", "ada", "x", "--database", sqlite_url, "--bundle", tmp_path / "none")
        assert_error(missing, 2, "no bundle at")
        assert_error(command("rank", "ada", "x", "--database", sqlite_url, *bundle), 1, "encoder")


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("short", 5, "short"),
        ("longer", 5, "long…"),
        ("two  \n words", 20, "two words"),
        ("two words", 5, "two…"),
        ("漢字漢字", 8, "漢字漢字"),
        ("漢字漢字", 7, "漢字漢…"),
        ("漢字漢字", 6, "漢字…"),
        ("a\x1b[2Jb\u202e", 20, "a\\x1b[2Jb\\u202e"),
        ("x" * 10_000, 4, "xxx…"),
        ("", 4, ""),
    ],
)
def test_a_text_is_shortened_to_columns(text: str, width: int, shown: str) -> None:
    assert shortened(text, width) == shown
    assert cell_len(shortened(text, width)) <= width


def test_printable() -> None:
    assert printable("a'\"\\é漢 \t\r\x00\udc80") == "a'\"\\é漢 \\t\\r\\x00\\udc80"
