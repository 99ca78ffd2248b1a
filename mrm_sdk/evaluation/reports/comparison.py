"""A comparison of methods as text and as one self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

from mrm_sdk.evaluation.bootstrap import Interval
from mrm_sdk.evaluation.comparison import REFERENCE, MethodResult, Standings
from mrm_sdk.evaluation.reports.colours import BLUE, PALETTE
from mrm_sdk.evaluation.reports.figures import MARKERS, Line, Panel, shots_curves
from mrm_sdk.evaluation.reports.page import html_page, html_table, inline, paragraph, percent, points, signed
from mrm_sdk.evaluation.texts import Corner

_FOOTER = """<footer>Accuracy is the share of query comparisons ranked as the user did, averaged per user, then over
users; figures are means over seeds, and ± is their standard deviation. All methods see the same splits and embeddings;
a method chooses its settings on the users it learns from. Differences are in percentage points, with paired 95&nbsp;%
bootstrap intervals over users, each user's accuracy being averaged over seeds first; bars in the figure are those of
what a method gains by adapting. Seconds are of one fit. {about}</footer>"""


TITLES: dict[Corner, str] = {"known": "Texts that the fits have seen", "new": "New texts"}


def comparison_summary(standings: Standings) -> str:
    """Users, folds and seeds in one sentence."""
    seeds = f"seed{'s' if len(standings.seeds) > 1 else ''} {', '.join(map(str, standings.seeds))}"
    if standings.folds is None:
        return f"{standings.users} unseen users, judged by fits to {standings.data['users']} others ({seeds})."
    return f"{standings.users} users, each judged by fits that never saw them ({standings.folds} folds, {seeds})."


def comparison_table(standings: Standings) -> str:
    """The result as tables of plain text, one per kind of texts: a column per method, all but losses in percent."""
    return "\n\n".join(map(_table, _each(standings)))


def _each(standings: Standings) -> list[Standings]:
    return [standings] if standings.new_texts is None else [standings, standings.new_texts]


def _table(standings: Standings) -> str:
    methods = standings.methods
    shots = [point.shots for point in methods[0].points]
    most = shots[-1]
    shared = any(method.points[-1].over_population for method in methods)
    at_most: list[tuple[str, Callable[[MethodResult], str]]] = [
        (f"± over seeds, {most}", lambda m: _share(m.spread[-1])),
        (f"worst tenth at {most}", lambda m: _share(m.points[-1].worst_tenth)),
        ("  on other questions", lambda m: _share(m.points[-1].worst_tenth_again)),
        ("worst fifth", lambda m: _share(m.points[-1].worst_fifth)),
        ("worst half", lambda m: _share(m.points[-1].worst_half)),
        ("another user's weights", lambda m: _share(m.points[-1].control)),
        ("reversed choices", lambda m: _share(m.points[-1].flipped)),
        ("calibration error", lambda m: _share(m.points[-1].ece)),
        ("Brier score", lambda m: f"{m.points[-1].brier:.4f}"),
        ("loss (nats) at first", lambda m: f"{m.points[0].loss:.4f}"),
        (f"loss at {most}", lambda m: f"{m.points[-1].loss:.4f}"),
        *_interval("over not adapting", lambda m: m.points[-1].gain),
        *(_interval("over population", lambda m: m.points[-1].over_population) if shared else []),
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
    legend = "Accuracies and differences in percent."
    return "\n".join([f"{TITLES[standings.texts]}.", comparison_summary(standings), legend, "", *text])


def comparison_figure(standings: Standings) -> str:
    """A shots curve with a line per method, as SVG; each kind of texts has a panel of its own.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    return shots_curves([_panel(each) for each in _each(standings)])


def _panel(standings: Standings) -> Panel:
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
    return Panel(TITLES[standings.texts], shots, lines)


def comparison_page(standings: Standings, title: str) -> str:
    """One HTML page that needs no other file.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    parts = [part for each in _each(standings) for part in (f"<h2>{TITLES[each.texts]}</h2>", *_html_parts(each))]
    picture = inline(comparison_figure(standings), "Accuracy of each method; the figures are in the tables")
    return html_page(title, picture, *parts, _FOOTER.format(about=_about(standings)))


def _html_parts(standings: Standings) -> Iterator[str]:
    methods, last = standings.methods, standings.methods[0].points[-1]
    yield paragraph(comparison_summary(standings))
    yield html_table(
        ("method", *(f"{point.shots} shots" for point in methods[0].points), "± at most"),
        ([m.name, *(percent(p.accuracy) for p in m.points), percent(m.spread[-1])] for m in methods),
        strong=REFERENCE,
    )
    yield f"<h3>With {last.shots} comparisons</h3>"
    yield html_table(
        ("method", "worst tenth", "worst tenth, other questions", "worst fifth", "worst half",
         "another user's weights", "reversed choices", "calibration error", "Brier score", "loss (nats)", "seconds"),
        ([m.name, *map(percent, (p.worst_tenth, p.worst_tenth_again, p.worst_fifth, p.worst_half, p.control,
                                 p.flipped, p.ece)),
          f"{p.brier:.4f}", f"{p.loss:.4f}", f"{m.seconds:.1f}"] for m in methods for p in m.points[-1:]),
        strong=REFERENCE,
    )  # fmt: skip
    yield f"<h3>Differences in accuracy with {last.shots} comparisons</h3>"
    yield html_table(
        ("method", f"over {standings.reference}", "over not adapting", "over one reward for all",
         "over another user's weights"),
        ([m.name, points(m.against), points(p.gain), points(p.over_population), points(p.over_control)]
         for m in methods for p in m.points[-1:]),
        strong=REFERENCE,
    )  # fmt: skip


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
