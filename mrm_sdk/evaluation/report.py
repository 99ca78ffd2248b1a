"""An evaluation as a picture and as one self-contained page; imports the protocol, and matplotlib for the picture."""

from __future__ import annotations

import html
import io
from pathlib import Path

from mrm_sdk.errors import MissingDependencyError, OutputError
from mrm_sdk.evaluation.protocol import Report

_OWN, _WORST, _CONTROL, _BEFORE = "#1f5fa8", "#c8553d", "#8a8f98", "#b9bec7"

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #22262c; }}
h1 {{ font-size: 1.4rem; }} svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #e3e6ea; }}
code {{ overflow-wrap: anywhere; }} footer {{ color: #5c636d; font-size: .85rem; margin-top: 1.5rem; }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
{svg}
<table><thead><tr><th>comparisons<th>accuracy<th>worst tenth of users<th>another user's weights</tr></thead>
<tbody>{rows}</tbody></table>
<footer>Accuracy is the share of query comparisons ranked as the user did, averaged per user, then over users.
Bundle <code>{fingerprint}</code></footer>
</html>
"""


def summary(report: Report) -> str:
    """The result in one sentence."""
    first, last = report.points[0], report.points[-1]
    text = f"{len(report.user_ids)} users: accuracy {first.accuracy:.1%} with {first.shots} comparisons"
    if last.shots > first.shots:
        text += f", {last.accuracy:.1%} with {last.shots}"
        text += "" if last.control is None else f" (and {last.control:.1%} with those of another user)"
    return text + "."


def table(report: Report) -> str:
    """The result as a table of plain text."""
    lines = [summary(report), "", f"{'shots':>5}  {'accuracy':>8}  {'worst tenth':>11}  {'control':>7}  {'loss':>6}"]
    for p in report.points:
        control = "–" if p.control is None else f"{p.control:.4f}"
        lines.append(f"{p.shots:>5}  {p.accuracy:>8.4f}  {p.worst_tenth:>11.4f}  {control:>7}  {p.loss:>6.4f}")
    return "\n".join(lines)


def figure(report: Report, title: str) -> str:
    """Accuracy against the number of comparisons as an SVG picture.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError:
        raise MissingDependencyError.of("matplotlib", "train", "Drawing the picture") from None
    # A figure of its own, not pyplot's: no global state, no window system.
    drawing = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = drawing.subplots()
    shots = [point.shots for point in report.points]
    axes.axhline(report.points[0].accuracy, color=_BEFORE, lw=1.2, ls=(0, (2, 3)), zorder=1)
    lines = [("own weights", _OWN, "o", [p.accuracy for p in report.points])]
    controls = [p.control for p in report.points if p.control is not None]
    if controls:
        lines.append(("another user's weights (control)", _CONTROL, "s", controls))
    lines.append(("own weights, worst tenth of users", _WORST, "v", [p.worst_tenth for p in report.points]))
    for label, colour, marker, values in lines:
        axes.plot(shots, values, color=colour, marker=marker, lw=2, ms=5, label=label)
    axes.margins(x=0.08, y=0.12)
    bottom, top = axes.get_ylim()
    height = bottom - 1.0
    for _, colour, _, values in sorted(lines, key=lambda line: line[3][-1]):
        height = max(values[-1], height + 0.045 * (top - bottom))  # labels never overlap
        axes.annotate(
            f"{values[-1]:.1%}",
            (shots[-1], height),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
        )
    axes.set_xticks(shots)
    axes.set_xlabel("comparisons given by the user")
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eceef1")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="best")
    out = io.StringIO()
    with rc_context({"svg.hashsalt": "mrm-sdk"}):  # the same figures give the same file
        drawing.savefig(out, format="svg", metadata={"Date": None, "Creator": "mrm-sdk"})
    return out.getvalue()


def page(report: Report, title: str, svg: str) -> str:
    """One HTML page that needs no other file."""
    rows = "".join(
        f"<tr><td>{p.shots}<td>{p.accuracy:.1%}<td>{p.worst_tenth:.1%}"
        f"<td>{'–' if p.control is None else f'{p.control:.1%}'}</tr>"
        for p in report.points
    )
    return _PAGE.format(
        title=html.escape(title),
        summary=html.escape(summary(report)),
        svg=svg[svg.index("<svg") :],
        rows=rows,
        fingerprint=html.escape(report.bundle["fingerprint"]),
    )


def save(report: Report, folder: Path, title: str) -> tuple[Path, Path]:
    """Writes ``accuracy.svg`` and ``accuracy.html`` into a folder.

    Returns:
        The two paths.

    Raises:
        OutputError: the folder cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    svg = figure(report, title)
    paths = folder / "accuracy.svg", folder / "accuracy.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, (svg, page(report, title, svg)), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}. Choose another place.") from None
    return paths
