"""Figures as SVG text, for light and dark screens; matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mrm_sdk.errors import MissingDependencyError
from mrm_sdk.evaluation.reports.colours import BLUE, GRID, INK, MUTED, PAPER, Colour, dark_style

MARKERS = "osv^DPX*"
# Ends of an interval as accuracies.
Bounds = tuple[float, float]


class Line(NamedTuple):
    """One line of a shots curve.

    Args:
        label: in the legend.
        colour: of line and last value.
        marker: of matplotlib's.
        values: one per number of shots.
        intervals: around the values; none if empty.
        strong: drawn thicker, above all others.
    """

    label: str
    colour: Colour
    marker: str
    values: Sequence[float]
    intervals: Sequence[Bounds] = ()
    strong: bool = False


def require_matplotlib() -> None:
    """Checks that a figure can be drawn, before the work whose result it would show.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401  whether it can be imported is the question
    except ImportError:
        raise MissingDependencyError.of("matplotlib", "train", "Drawing the picture") from None


class Panel(NamedTuple):
    """One of the pictures that stand side by side.

    Args:
        title: above it.
        shots: numbers of comparisons, ascending.
        lines: to draw.
        base: accuracy of a dotted horizontal line.
    """

    title: str
    shots: Sequence[int]
    lines: Sequence[Line]
    base: float | None = None


def shots_curves(panels: Sequence[Panel]) -> str:
    """Accuracy against the number of comparisons, the last values written at the lines' ends.

    Args:
        panels: side by side, with one scale of accuracies and one legend.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    with _drawing(6.0 if len(panels) == 1 else 4.6 * len(panels), 4.2, [p.title for p in panels]) as (drawing, parts):
        for panel, axes in zip(panels, parts, strict=True):
            if panel.base is not None:
                axes.axhline(panel.base, color=MUTED.light, lw=1.2, ls=(0, (2, 3)), zorder=1)
            # The square root: the first comparisons change most, and would lie on top of each other.
            axes.set_xscale("function", functions=(lambda x: abs(x) ** 0.5, lambda x: x**2))
            apart = 0.012 * panel.shots[-1] ** 0.5 if len(panel.lines) > 3 else 0.0
            for number, line in enumerate(panel.lines):
                _plot(axes, panel.shots, line, (number - (len(panel.lines) - 1) / 2) * apart)
            axes.margins(x=0.06, y=0.1)
            axes.set_xticks(panel.shots, list(map(str, panel.shots)))
            axes.set_xlabel("comparisons given by the user")
            axes.grid(axis="y", color=GRID.light)
        for panel, axes in zip(panels, parts, strict=True):  # when the common scale is known
            _write_last_values(axes, panel)
        first = parts[0]
        first.set_ylabel("accuracy")
        _percent(first.yaxis)
        lines = panels[0].lines
        look = {"facecolor": PAPER.light, "edgecolor": "none", "framealpha": 0.85}
        if len(panels) == 1:
            legend = first.legend(loc="best", **look)
        else:
            legend = drawing.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=2, **look)
        for text, line in zip(legend.get_texts(), lines, strict=True):
            text.set_weight("bold" if line.strong else "normal")
        return _svg(drawing)


def _write_last_values(axes: Any, panel: Panel) -> None:
    bottom, top = axes.get_ylim()
    height = bottom - 1.0
    for line in sorted(panel.lines, key=lambda line: line.values[-1]):
        height = max(line.values[-1], height + 0.055 * (top - bottom))  # labels never overlap
        at = {"xytext": (10 + 2 * len(panel.lines), 0), "textcoords": "offset points", "va": "center"}
        weight = "bold" if line.strong else "normal"
        axes.annotate(f"{line.values[-1]:.1%}", (panel.shots[-1], height), color=line.colour.light, weight=weight, **at)


def _plot(axes: Any, shots: Sequence[int], line: Line, shift: float) -> None:
    """A line with its intervals, which are moved apart from those of other lines by ``shift`` in √comparisons."""
    width, order = (3, 4) if line.strong else (1.6, 3)
    style = {"color": line.colour.light, "zorder": order}
    axes.plot(shots, line.values, marker=line.marker, lw=width, ms=width + 3, label=line.label, **style)
    for n, (low, high) in zip(shots, line.intervals, strict=bool(line.intervals)):
        if high > low:
            at = max(0.0, n**0.5 + shift) ** 2
            axes.plot([at, at], [low, high], lw=0.6 * width, marker="_", ms=width + 3, **style)


def reliability_diagram(bins: Iterable[dict[str, float]], title: str) -> str:
    """How often the preferred response was right against how sure the model was; a dot's area is its share.

    Args:
        bins: ``confidence``, ``accuracy`` and ``share`` of each.
        title: above it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    with _drawing(5.0, 4.6, [title]) as (drawing, (axes,)):
        bins = list(bins)
        x, y = ([entry[name] for entry in bins] for name in ("confidence", "accuracy"))
        axes.plot([0.5, 1], [0.5, 1], color=MUTED.light, lw=1.2, ls=(0, (2, 3)), label="as sure as right")
        axes.plot(x, y, color=BLUE.light, lw=1, alpha=0.5)
        axes.scatter(x, y, [8 + 600 * entry["share"] for entry in bins], color=BLUE.light, alpha=0.8, lw=0)
        axes.set_xlim(0.49, 1.01)
        axes.set_ylim(min([0.49, *(value - 0.03 for value in y)]), 1.02)
        axes.set_xlabel("confidence in the response that scores higher")
        axes.set_ylabel("how often the user agrees")
        _percent(axes.xaxis)
        _percent(axes.yaxis)
        axes.grid(color=GRID.light)
        axes.legend(frameon=False, loc="upper left")
        return _svg(drawing)


@contextmanager
def _drawing(width: float, height: float, titles: Sequence[str]) -> Iterator[tuple[Any, Sequence[Any]]]:
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    paper = ("figure.facecolor", "axes.facecolor")
    colours = dict.fromkeys(ink, INK.light) | dict.fromkeys(paper, PAPER.light)
    with rc_context({**colours, "svg.hashsalt": "mrm-sdk"}):  # the same figures give the same file
        # A figure of its own, not pyplot's: no global state, no window system.
        drawing = Figure(figsize=(width, height), layout="constrained")
        parts = drawing.subplots(1, len(titles), sharey=True, squeeze=False)[0]
        for axes, title in zip(parts, titles, strict=True):
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(title, loc="left", fontsize=11, parse_math=False)
        yield drawing, parts


def _percent(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))  # none at 67.5 %, which would be written as 68 %
    axis.set_major_formatter(PercentFormatter(1, decimals=0 if high - low > 0.06 else 1))


def _svg(drawing: Any) -> str:
    out = io.StringIO()
    drawing.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    before, defs, after = out.getvalue().partition(" <defs>")
    return f"{before} {dark_style()}\n{defs}{after}"
