"""Colours of figures and pages, each for a light and for a dark background."""

from __future__ import annotations

from typing import NamedTuple


class Colour(NamedTuple):
    """One colour; text in it has a contrast of 4.5 or more to :data:`PAPER` in both schemes, :data:`GRID` has not."""

    light: str
    dark: str


PAPER, INK = Colour("#ffffff", "#15181d"), Colour("#22262c", "#e4e7eb")
MUTED, GRID = Colour("#5c636d", "#a4abb5"), Colour("#e1e4e8", "#343a42")
BLUE, RED, GREY = Colour("#0b5cad", "#79b8ff"), Colour("#b5452c", "#f4937c"), Colour("#666c75", "#9aa2ad")
# Told apart by colour-blind readers too (after M. Okabe, K. Ito, "Color Universal Design", 2008), and by marker.
PALETTE = (
    Colour("#a84900", "#ffa657"),
    Colour("#00704f", "#4fd1a5"),
    Colour("#9c3f78", "#f19bc9"),
    Colour("#7a5c00", "#d9b64a"),
    Colour("#0f6f86", "#63cbe3"),
    GREY,
)


def dark_style() -> str:
    """CSS that repaints an SVG picture on a dark screen; programs that ignore it show the light picture."""
    colours = dict.fromkeys((PAPER, INK, MUTED, GRID, BLUE, RED, *PALETTE))
    rules = "".join(
        f'[style*="{kind}: {colour.light}"]{{{kind}:{colour.dark}!important}}'
        for colour in colours
        for kind in ("fill", "stroke")
    )
    return f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
