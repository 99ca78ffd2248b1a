"""A comparison of methods as text and as one self-contained page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle

from mrm_sdk.evaluation.bootstrap import Interval
from mrm_sdk.evaluation.comparison import REFERENCE, MethodResult, Standings
from mrm_sdk.evaluation.reports.colours import BLUE, PALETTE
from mrm_sdk.evaluation.reports.figures import MARKERS, Line, shots_curve
from mrm_sdk.evaluation.reports.page import html_page, html_table, inline, paragraph, percent, points, signed

_FOOTER = """<footer>Accuracy is the share of query comparisons ranked as the user did, averaged per user, then over
users; figures are means over seeds, and ± is their standard deviation. All methods see the same splits and embeddings;
a method chooses its settings on the users it learns from. Differences are in percentage points, with paired 95&nbsp;%
bootstrap intervals over users, each user's accuracy being averaged over seeds first; bars in the figure are those of
what a method gains by adapting. Seconds are of one fit. {about}</footer>"""


def comparison_summary(standings: Standings) -> str:
    """Users, folds and seeds in one sentence."""
    seeds = f"seed{'s' if len(standings.seeds) > 1 else ''} {', '.join(map(str, standings.seeds))}"
    if standings.folds is None:
        return f"{standings.users} unseen users, judged by fits to {standings.data['users']} others ({seeds})."
    return f"{standings.users} users, each judged by fits that never saw them ({standings.folds} folds, {seeds})."


def comparison_table(standings: Standings) -> str:
    """The result as a table of plain text: a column per method, accuracies and differences in percent."""
    methods = standings.methods
    shots = [point.shots for point in methods[0].points]
    most = shots[-1]
    at_most: list[tuple[str, Callable[[MethodResult], str]]] = [
        (f"± over seeds, {most}", lambda m: _share(m.spread[-1])),
        (f"worst tenth at {most}", lambda m: _share(m.points[-1].worst_tenth)),
        ("worst fifth", lambda m: _share(m.points[-1].worst_fifth)),
        ("worst half", lambda m: _share(m.points[-1].worst_half)),
        ("another user's weights", lambda m: _share(m.points[-1].control)),
        ("reversed choices", lambda m: _share(m.points[-1].flipped)),
        ("calibration error", lambda m: _share(m.points[-1].ece)),
        ("Brier score", lambda m: f"{m.points[-1].brier:.4f}"),
        *_interval("over not adapting", lambda m: m.points[-1].gain),
        *_interval(f"over {standings.reference}", lambda m: m.against),
        ("seconds per fit", lambda m: f"{m.seconds:.1f}"),
    ]
    lines = [("", [method.name for method in methods])]
    lines += [(f"accuracy at {n} shots", [_share(m.points[i].accuracy) for m in methods]) for i, n in enumerate(shots)]
    lines += [(label, [cell(method) for method in methods]) for label, cell in at_most]
    left = max(len(label) for label, _ in lines)
    widths = [max(map(len, column)) for column in zip(*(cells for _, cells in lines), strict=True)]
    text = (
        label.ljust(left) + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for label, cells in lines
    )
    return "\n".join([comparison_summary(standings), "Accuracies and differences in percent.", "", *text])


def comparison_figure(standings: Standings, title: str) -> str:
    """A shots curve with a line per method, as SVG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    shots = [point.shots for point in standings.methods[0].points]
    colours = cycle(PALETTE)
    lines = [
        Line(
            m.name,
            BLUE if m.name == REFERENCE else next(colours),
            MARKERS[number % len(MARKERS)],
            [p.accuracy for p in m.points],
            [(p.accuracy - p.gain.difference + p.gain.low, p.accuracy - p.gain.difference + p.gain.high)
             for p in m.points],
            strong=m.name == REFERENCE,
        )
        for number, m in enumerate(standings.methods)
    ]  # fmt: skip
    return shots_curve(shots, lines, title)


def comparison_page(standings: Standings, title: str) -> str:
    """One HTML page that needs no other file.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    methods, last = standings.methods, standings.methods[0].points[-1]
    accuracies = html_table(
        ("method", *(f"{point.shots} shots" for point in methods[0].points), "± at most"),
        ([m.name, *(percent(p.accuracy) for p in m.points), percent(m.spread[-1])] for m in methods),
        strong=REFERENCE,
    )
    most = html_table(
        ("method", "worst tenth", "worst fifth", "worst half", "another user's weights", "reversed choices",
         "calibration error", "Brier score", "seconds"),
        ([m.name, *map(percent, (p.worst_tenth, p.worst_fifth, p.worst_half, p.control, p.flipped, p.ece)),
          f"{p.brier:.4f}", f"{m.seconds:.1f}"] for m in methods for p in m.points[-1:]),
        strong=REFERENCE,
    )  # fmt: skip
    chance = html_table(
        ("method", f"over {standings.reference}", "over not adapting", "over another user's weights"),
        ([m.name, points(m.against), points(p.gain), points(p.over_control)] for m in methods for p in m.points[-1:]),
        strong=REFERENCE,
    )
    return html_page(
        title,
        paragraph(comparison_summary(standings)),
        inline(
            comparison_figure(standings, "Mean accuracy per user"),
            "Accuracy of each method; the figures are in the table",
        ),
        accuracies,
        f"<h2>With {last.shots} comparisons</h2>",
        most,
        f"<h2>Differences in accuracy with {last.shots} comparisons</h2>",
        chance,
        _FOOTER.format(about=_about(standings)),
    )


def _about(standings: Standings) -> str:
    data = [("Data", standings.data), ("Judged", standings.unseen)]
    return " ".join(
        f"{name}: {part['users']:,} users, {part['comparisons']:,} comparisons, SHA-256 <code>{part['sha256']}</code>."
        for name, part in data
        if part is not None
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _interval(
    label: str, of: Callable[[MethodResult], Interval | None]
) -> list[tuple[str, Callable[[MethodResult], str]]]:
    """Three rows of a table: a difference, and where its interval begins and ends."""

    def cell(method: MethodResult, bound: str) -> str:
        interval = of(method)
        return "–" if interval is None else signed(getattr(interval, bound))

    rows = {label: "difference", "  95 % interval from": "low", "  to": "high"}
    return [(name, partial(cell, bound=bound)) for name, bound in rows.items()]
