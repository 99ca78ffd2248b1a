"""Figures and pages are readable on light and on dark screens, wide and narrow, and show intervals."""

from __future__ import annotations

import re

import pytest

from mrm_sdk.evaluation.bootstrap import Interval
from mrm_sdk.evaluation.reports import colours
from mrm_sdk.evaluation.reports.colours import BLUE, GREY, PAPER, RED, Colour, dark_style
from mrm_sdk.evaluation.reports.figures import Line, Panel, reliability_diagram, shots_curves
from mrm_sdk.evaluation.reports.page import html_page, html_table, points, text_table

ALL = {name: value for name, value in vars(colours).items() if isinstance(value, Colour)}
SHOTS = (0, 2, 10)
OWN = Line("newton", BLUE, "o", [0.6, 0.65, 0.7], [(0.6, 0.6), (0.62, 0.68), (0.66, 0.74)], strong=True)
OTHER = Line("other", GREY, "s", [0.6, 0.58, 0.55])


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"PAPER", "GRID"}))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_in_every_colour_can_be_read(name: str, scheme: str) -> None:
    assert contrast(getattr(ALL[name], scheme), getattr(PAPER, scheme)) >= 4.5
    assert contrast(colours.GRID.light, PAPER.light) > 1.2 < contrast(colours.GRID.dark, PAPER.dark)


def test_palette() -> None:
    for colour in colours.PALETTE:
        assert contrast(colour.light, PAPER.light) >= 4.5
        assert contrast(colour.dark, PAPER.dark) >= 4.5
    assert len({*colours.PALETTE, BLUE}) == len(colours.PALETTE) + 1


@pytest.mark.slow
def test_every_colour_of_a_figure_has_a_dark_one() -> None:
    bins = [{"confidence": 0.6, "accuracy": 0.7, "share": 0.4}, {"confidence": 0.9, "accuracy": 0.8, "share": 0.6}]
    for svg in (shots_curves([Panel("t", SHOTS, [OWN, OTHER], 0.6)]), reliability_diagram(bins, "t")):
        assert svg.count(dark_style()) == 1
        drawn = re.findall(r"style=\"[^\"]*?(#[0-9a-f]{6})", svg)
        assert set(drawn) <= set(re.findall(r": (#[0-9a-f]{6})\"\]", dark_style()))
        # What has no colour of its own is black: nothing but masks may be.
        assert "#000000" not in svg
        assert PAPER.light in drawn


@pytest.mark.slow
def test_intervals_are_drawn_and_the_strong_line_stands_out() -> None:
    with_bars, without = (
        shots_curves([Panel("t", SHOTS, [line, OTHER])]) for line in (OWN, OWN._replace(intervals=()))
    )
    bars = [svg.count(f"stroke: {BLUE.light}; stroke-width: 1.8") for svg in (with_bars, without)]
    assert bars == [2, 0]  # the first has no width
    assert without.count("stroke-width: 3;") == 2  # the line, and its sign in the legend
    assert 'stroke-width: 1.6; stroke-linecap: square"' not in without.split(BLUE.light)[0]


def test_a_table_names_each_cell_for_narrow_windows() -> None:
    table = html_table(("method", "a & b"), [("newton", "1"), ("other", "<2>")], strong="newton")
    assert '<tr class=strong><td data-label="method">newton</td><td data-label="a &amp; b">1</td></tr>' in table
    assert '<tr><td data-label="method">other</td><td data-label="a &amp; b">&lt;2&gt;</td></tr>' in table
    page = html_page("t", table)
    assert "@media (prefers-color-scheme: dark) { :root { --paper: " + PAPER.dark in page
    assert "@media (max-width: 52rem)" in page
    assert "{{" not in page
    assert f"--doubt: {RED.light}" in page


def test_differences_have_a_sign_and_no_negative_zero() -> None:
    assert points(Interval(0.0123, -0.0004, 0.02)) == "+1.2 (+0.0 … +2.0)"
    assert points(Interval(-0.05, -0.06, 0.0)) == "-5.0 (-6.0 … +0.0)"
    assert points(None) == "–"


def test_columns_of_text_are_flush_right() -> None:
    assert text_table(("n", "share"), [("10", "0.5"), ("2", "–")]) == " n  share\n10    0.5\n 2      –"
