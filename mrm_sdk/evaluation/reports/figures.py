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


def shots_curve(shots: Sequence[int], lines: Sequence[Line], title: str, *, base: float | None = None) -> str:
    """Accuracy against the number of comparisons, the last values written at the lines' ends.

    Args:
        shots: ascending.
        lines: to draw.
        title: above it.
        base: accuracy of a dotted horizontal line.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    with _drawing(6.0, 4.2, title) as (drawing, axes):
        if base is not None:
            axes.axhline(base, color=MUTED.light, lw=1.2, ls=(0, (2, 3)), zorder=1)
        # The square root: the first comparisons change most, and would lie on top of each other.
        axes.set_xscale("function", functions=(lambda x: abs(x) ** 0.5, lambda x: x**2))
        apart = 0.012 * shots[-1] ** 0.5 if len(lines) > 3 else 0.0
        for number, line in enumerate(lines):
            _plot(axes, shots, line, (number - (len(lines) - 1) / 2) * apart)
        axes.margins(x=0.06, y=0.1)
        bottom, top = axes.get_ylim()
        height = bottom - 1.0
        for line in sorted(lines, key=lambda line: line.values[-1]):
            height = max(line.values[-1], height + 0.055 * (top - bottom))  # labels never overlap
            at = {"xytext": (10 + 2 * len(lines), 0), "textcoords": "offset points", "va": "center"}
            weight = "bold" if line.strong else "normal"
            axes.annotate(f"{line.values[-1]:.1%}", (shots[-1], height), color=line.colour.light, weight=weight, **at)
        axes.set_xticks(shots, list(map(str, shots)))
        axes.set_xlabel("comparisons given by the user")
        axes.set_ylabel("accuracy")
        _percent(axes.yaxis)
        axes.grid(axis="y", color=GRID.light)
        legend = axes.legend(facecolor=PAPER.light, edgecolor="none", framealpha=0.85, loc="best")
        for text, line in zip(legend.get_texts(), lines, strict=True):
            text.set_weight("bold" if line.strong else "normal")
        return _svg(drawing)


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
    with _drawing(5.0, 4.6, title) as (drawing, axes):
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
def _drawing(width: float, height: float, title: str) -> Iterator[tuple[Any, Any]]:
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    paper = ("figure.facecolor", "axes.facecolor")
    colours = dict.fromkeys(ink, INK.light) | dict.fromkeys(paper, PAPER.light)
    with rc_context({**colours, "svg.hashsalt": "mrm-sdk"}):  # the same figures give the same file
        # A figure of its own, not pyplot's: no global state, no window system.
        drawing = Figure(figsize=(width, height), layout="constrained")
        axes = drawing.subplots()
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, loc="left", fontsize=11, parse_math=False)
        yield drawing, axes


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
