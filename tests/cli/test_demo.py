"""The demo shows what the project is for; its claims are checked against what it printed and made."""

from __future__ import annotations

import re

from mrm_sdk import Client
from mrm_sdk.bundle import Bundle
from tests.conftest import Finished

MADE = ("accuracy.svg", "accuracy.html", "bundle", "demo.db", "users", "new-users")


def test_it_shows_personalization(demo: Finished) -> None:
    rows = re.findall(r"^ +(\d+) +([\d.]+)% +([\d.]+)% +([\d.]+)%$", demo.run.out, re.MULTILINE)
    shots = {int(shots): [float(value) for value in values] for shots, *values in rows}
    assert set(shots) == {0, 2, 5, 10}
    own = [shots[n][0] for n in (0, 2, 5, 10)]
    assert own == sorted(own)
    assert own[-1] > own[0] + 4
    assert shots[10][2] < own[0] - 4  # the control
    assert shots[10][1] > shots[0][1] + 15  # the worst tenth


def test_the_ranking_of_the_same_answers_changes(demo: Finished) -> None:
    rows = re.findall(r"^ +[a-z, ]+ +(\d)\. +(\d)\. +(\d)\. +(\d)\. +(\d)\.$", demo.run.out, re.MULTILINE)
    assert len(rows) == 4
    for column in range(5):
        assert sorted(row[column] for row in rows) == list("1234")
    columns = list(zip(*rows, strict=True))
    assert columns[1] != columns[4]


def test_its_lines_fit_a_terminal(demo: Finished) -> None:
    assert max(map(len, demo.run.out.splitlines())) <= 80
    (before, after) = re.findall(r"^   Best (?:at first|after 10): (.+) …$", demo.run.out, re.MULTILINE)
    assert before != after


def test_no_bars_when_piped_and_the_time_is_told(demo: Finished) -> None:
    assert demo.run.err == ""
    assert "\x1b" not in demo.run.out
    assert re.search(r"The whole demo took \d+ s\.\n$", demo.run.out)


def test_what_it_made_is_there(demo: Finished) -> None:
    folder = demo.folder / "mrm-demo"
    assert {path.name for path in folder.iterdir()} >= {*MADE}
    for name in MADE:
        assert str(folder.relative_to(demo.folder) / name) in demo.run.out
    bundle = Bundle(folder / "bundle")
    user = re.search(r"A new user, (\S+),", demo.run.out)
    assert user is not None
    with Client(f"sqlite:///{folder / 'demo.db'}", bundle=bundle) as client:
        assert client.personalize(user[1]).comparisons == 10
