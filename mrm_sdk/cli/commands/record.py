"""``mrm record``: one user's judgement becomes an event in a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrm_sdk.cli.options import DatabaseOption, JsonOption, TenantOption, UserArgument, called_right, require_id
from mrm_sdk.cli.output import printable, require_file, show
from mrm_sdk.cli.stored import recorder
from mrm_sdk.errors import ConfigurationError, MrmError

if TYPE_CHECKING:
    from mrm_sdk.schemas.feedback import Feedback


def record(
    user: UserArgument,
    database: DatabaseOption,
    prompt: Annotated[str | None, typer.Option(help="What was answered.", show_default=False)] = None,
    chosen: Annotated[str | None, typer.Option(help="The better answer.", show_default=False)] = None,
    rejected: Annotated[str | None, typer.Option(help="The other one.", show_default=False)] = None,
    tie: Annotated[bool, typer.Option("--tie", help="Both are as good.")] = False,
    response: Annotated[str | None, typer.Option(help="An answer by itself.", show_default=False)] = None,
    rating: Annotated[
        float | None, typer.Option(help="Its rating; the higher, the better.", show_default=False)
    ] = None,
    thumb: Annotated[str | None, typer.Option(metavar="up|down", help="Or a thumb.", show_default=False)] = None,
    event_id: Annotated[
        str | None, typer.Option(help="Recorded again, it counts once; a new one by default.", show_default=False)
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Compute features now, under this bundle, instead of on first use.")
    ] = None,
    tenant: TenantOption = "default",
    json_file: JsonOption = None,
) -> None:
    """Records what a user judged: --chosen over --rejected, or --response with --rating or --thumb."""
    require_file(json_file)
    judged: dict[str, Any] = {"chosen": chosen, "rejected": rejected, "tie": tie or None}
    judged |= {"response": response, "rating": rating, "thumb": thumb}
    given = {name: value for name, value in judged.items() if value is not None}
    common = {"user_id": user, "prompt": prompt, **({} if event_id is None else {"event_id": event_id})}
    with called_right():
        feedback = _feedback(given, common)
    with called_right(), recorder(database, tenant, bundle) as store:
        recorded = store([feedback])
    for _, reason in recorded.rejected:
        raise MrmError(reason)
    name = printable(feedback.event_id)
    text = f"recorded   {name}" if recorded.accepted else f"duplicate  {name}: it was recorded before"
    show(text, {"event_id": feedback.event_id, **recorded.model_dump(mode="json")}, json_file)


def _feedback(given: dict[str, Any], common: dict[str, Any]) -> Feedback:
    from mrm_sdk.schemas.feedback import Comparison, Rating, Thumb

    for name in ("user_id", "event_id"):
        if name in common:
            require_id(name, common[name])
    if given.get("thumb", "up") not in ("up", "down"):
        raise ConfigurationError(f"--thumb is 'up' or 'down', not {given['thumb']!r}.")
    if given.keys() - {"tie"} == {"chosen", "rejected"}:
        return Comparison(**given, **common)
    if given.keys() == {"response", "rating"}:
        return Rating(**given, **common)
    if given.keys() == {"response", "thumb"}:
        return Thumb(**given, **common)
    told = ", ".join(f"--{name}" for name in given) or "none of them"
    raise ConfigurationError(
        "Give --chosen and --rejected (and --tie, if both are as good), or --response and either --rating or --thumb; "
        f"you gave {told}."
    )
