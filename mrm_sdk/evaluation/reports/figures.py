"""Figures as SVG text; matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mrm_sdk.errors import MissingDependencyError

BLUE, RED, GREY, PALE = "#1f5fa8", "#c8553d", "#8a8f98", "#b9bec7"
# Told apart by colour-blind readers too (M. Okabe, K. Ito, "Color Universal Design", 2008), and by marker.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#000000", "#8a8f98")
MARKERS = "osv^DPX*"


class Line(NamedTuple):
    """One line of a shots curve.

    Args:
        label: in the legend.
        colour: of line and last value.
        marker: of matplotlib's.
        values: one per number of shots.
    """

    label: str
    colour: str
    marker: str
    values: Sequence[float]


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
    drawing, axes = _axes(7.2, 4.2, title)
    if base is not None:
        axes.axhline(base, color=PALE, lw=1.2, ls=(0, (2, 3)), zorder=1)
    for label, colour, marker, values in lines:
        axes.plot(shots, values, color=colour, marker=marker, lw=2, ms=5, label=label)
    axes.margins(x=0.08, y=0.12)
    bottom, top = axes.get_ylim()
    height = bottom - 1.0
    for _, colour, _, values in sorted(lines, key=lambda line: line.values[-1]):
        height = max(values[-1], height + 0.045 * (top - bottom))  # labels never overlap
        at = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{values[-1]:.1%}", (shots[-1], height), color=colour, fontsize=9, **at)
    axes.set_xticks(shots)
    axes.set_xlabel("comparisons given by the user")
    axes.set_ylabel("accuracy")
    _percent(axes.yaxis)
    axes.grid(axis="y", color="#eceef1")
    axes.legend(frameon=False, fontsize=9, loc="best")
    return _svg(drawing)


def reliability_diagram(bins: Iterable[dict[str, float]], title: str) -> str:
    """How often the preferred response was right against how sure the model was; a dot's area is its share.

    Args:
        bins: ``confidence``, ``accuracy`` and ``share`` of each.
        title: above it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    drawing, axes = _axes(4.6, 4.4, title)
    bins = list(bins)
    x, y = ([entry[name] for entry in bins] for name in ("confidence", "accuracy"))
    axes.plot([0.5, 1], [0.5, 1], color=PALE, lw=1.2, ls=(0, (2, 3)), label="as sure as right")
    axes.plot(x, y, color=BLUE, lw=1, alpha=0.5)
    axes.scatter(x, y, [8 + 600 * entry["share"] for entry in bins], color=BLUE, alpha=0.8, lw=0)
    axes.set_xlim(0.49, 1.01)
    axes.set_ylim(min([0.49, *(value - 0.03 for value in y)]), 1.02)
    axes.set_xlabel("confidence in the response that scores higher")
    axes.set_ylabel("how often the user agrees")
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    axes.grid(color="#eceef1")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return _svg(drawing)


def _axes(width: float, height: float, title: str) -> tuple[Any, Any]:
    require_matplotlib()
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: no global state, no window system.
    drawing = Figure(figsize=(width, height), layout="constrained")
    axes = drawing.subplots()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    return drawing, axes


def _percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    low, high = axis.get_view_interval()
    axis.set_major_formatter(PercentFormatter(1, decimals=0 if high - low > 0.06 else 1))


def _svg(drawing: Any) -> str:
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": "mrm-sdk"}):  # the same figures give the same file
        drawing.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return out.getvalue()
