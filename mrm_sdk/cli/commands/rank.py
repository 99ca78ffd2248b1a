"""``mrm rank``: answers in the order in which one user would like them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from mrm_sdk.cli.options import DatabaseOption, JsonOption, TenantOption, UserArgument, called_right, require_id
from mrm_sdk.cli.output import require_file, say, shortened, show
from mrm_sdk.cli.stored import require_tables
from mrm_sdk.errors import ConfigurationError

_WIDTH = 80


def rank(
    user: UserArgument,
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT", help="The answers; -: one per line of stdin.", show_default=False)
    ],
    database: DatabaseOption,
    bundle: Annotated[Path, typer.Option(help="The bundle that scores them.", show_default=False)],
    prompt: Annotated[str | None, typer.Option(help="What they answer.", show_default=False)] = None,
    tenant: TenantOption = "default",
    json_file: JsonOption = None,
) -> None:
    """Sorts answers for a user, best first; only differences of scores mean anything."""
    require_file(json_file)
    require_id("user_id", user)
    require_tables(database)
    from mrm_sdk.client import Client
    from mrm_sdk.schemas.requests import ScoreRequest

    answers = list(_read(texts))
    if not answers:
        raise ConfigurationError("There is nothing to rank: stdin held no text.")
    with called_right():
        ScoreRequest(user_id=user, responses=answers, prompt=prompt)
        client = Client(database, bundle=bundle, tenant=tenant)
    with client:
        reward = client.personalize(user)
        ranked = client.rank(user, answers, prompt=prompt)
    if not reward.comparisons:
        say(f"{user!r} has given no feedback: this is the average user's order")
    lines = ["rank     score  text"]
    for place, one in enumerate(ranked, 1):
        start = f"{place:4}  {one.score:8.4f}  "
        lines.append(start + shortened(one.response, _WIDTH - len(start)))
    value = {
        "user_id": user,
        "comparisons": reward.comparisons,
        "counted": reward.counted.model_dump(),
        "fingerprint": reward.fingerprint,
        "ranked": [one.model_dump(mode="json") for one in ranked],
    }
    show("\n".join(lines), value, json_file)


def _read(texts: Iterable[str]) -> Iterator[str]:
    """The texts, and in the place of ``-`` the lines of stdin that are not blank."""
    for text in texts:
        if text != "-":
            yield text
            continue
        try:
            piped = sys.stdin.buffer.read() if sys.stdin else b""  # none where the shell closed it: <&-
            lines = piped.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError:
            raise ConfigurationError("stdin is no text in UTF-8; convert it first.") from None
        yield from (line for line in lines if line.strip())
