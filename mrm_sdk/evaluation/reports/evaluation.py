"""An evaluation as text, as a figure and as one self-contained page."""

from __future__ import annotations

import html
from pathlib import Path
from textwrap import fill

from mrm_sdk.evaluation.protocol import Report
from mrm_sdk.evaluation.reports.colours import BLUE, GREY, RED
from mrm_sdk.evaluation.reports.figures import Line, reliability_diagram, shots_curve
from mrm_sdk.evaluation.reports.page import (
    html_page,
    html_table,
    inline,
    paragraph,
    percent,
    points,
    text_table,
    write_text,
)

_FOOTER = """<footer>Accuracy is the share of query comparisons ranked as the user did, averaged per user, then over
users; worst tenth, fifth and half are of the users with the lowest accuracy at that number of comparisons. Reversed
choices: the same comparisons, with the opposite choice in each, were adapted to. Differences are in percentage points,
with paired 95&nbsp;% bootstrap intervals over users; bars in the figure are these, of own weights over not adapting
(the dotted line) and of the control behind own weights. Brier score and calibration error are of the predicted
probability, in 15 bins of confidence. {about}</footer>"""


def evaluation_summary(report: Report) -> str:
    """The result in one sentence."""
    first, last = report.points[0], report.points[-1]
    text = f"{len(report.user_ids)} users: accuracy {first.accuracy:.1%} with {first.shots} comparisons"
    if last.shots > first.shots:
        text += f", {last.accuracy:.1%} with {last.shots}"
        text += "" if last.control is None else f" (and {last.control:.1%} with those of another user)"
    return text + "."


def evaluation_table(report: Report) -> str:
    """The result as two tables of plain text and doubts, in lines of at most 80 characters."""
    accuracies = text_table(
        ("shots", "accuracy", "worst tenth", "fifth", "half", "other's weights", "reversed"),
        ([str(p.shots), *map(_four, (p.accuracy, p.worst_tenth, p.worst_fifth, p.worst_half, p.control, p.flipped))]
         for p in report.points),
    )  # fmt: skip
    differences = text_table(
        ("shots", "over not adapting", "over other's weights", "loss", "Brier", "ECE"),
        ([str(p.shots), points(p.gain), points(p.over_control), _four(p.loss), _four(p.brier), _four(p.ece)]
         for p in report.points),
    )  # fmt: skip
    legend = "Differences in percentage points, with 95 % intervals over users."
    parts = [evaluation_summary(report), accuracies, legend, differences, *report.doubts()]
    return "\n\n".join(part if part in (accuracies, differences) else fill(part, 80) for part in parts)


def evaluation_figure(report: Report, title: str) -> str:
    """Accuracy against the number of comparisons as an SVG picture.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    judged = report.points
    before = [p.accuracy - p.gain.difference for p in judged]
    gains = [(start + p.gain.low, start + p.gain.high) for start, p in zip(before, judged, strict=True)]
    lines = [Line("own weights", BLUE, "o", [p.accuracy for p in judged], gains, strong=True)]
    behind = [(p.accuracy, p.control, p.over_control) for p in judged]
    others = [
        (control, (own - over.high, own - over.low)) for own, control, over in behind if control is not None and over
    ]
    if others:
        controls, intervals = zip(*others, strict=True)
        lines.append(Line("another user's weights (control)", GREY, "s", controls, intervals))
    lines.append(Line("own weights, worst tenth of users", RED, "v", [p.worst_tenth for p in judged]))
    return shots_curve([p.shots for p in judged], lines, title, base=before[0])


def evaluation_page(report: Report, title: str, svg: str) -> str:
    """One HTML page that needs no other file; ``svg`` is the :func:`evaluation_figure`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    most = report.points[-1].shots
    about = " ".join(f"{html.escape(k.capitalize())} <code>{html.escape(v)}</code>." for k, v in report.bundle.items())
    accuracies = html_table(
        ("comparisons", "accuracy", "worst tenth", "worst fifth", "worst half", "another user's weights",
         "reversed choices"),
        ([str(p.shots), *map(percent, (p.accuracy, p.worst_tenth, p.worst_fifth, p.worst_half, p.control, p.flipped))]
         for p in report.points),
    )  # fmt: skip
    differences = html_table(
        ("comparisons", "over not adapting", "over another user's weights", "not adapting over reversed choices"),
        ([str(p.shots), points(p.gain), points(p.over_control), points(p.flip_drop)] for p in report.points),
    )
    probabilities = html_table(
        ("comparisons", "loss (nats)", "Brier score", "calibration error (ECE)"),
        ([str(p.shots), f"{p.loss:.4f}", f"{p.brier:.4f}", percent(p.ece)] for p in report.points),
    )
    diagram = reliability_diagram(report.bins(), f"Reliability after {most} comparisons")
    return html_page(
        title,
        paragraph(evaluation_summary(report)),
        *(paragraph(doubt, "doubt") for doubt in report.doubts()),
        inline(svg, "Accuracy against the number of comparisons; the figures are in the table below"),
        accuracies,
        "<h2>Is it more than chance?</h2>",
        differences,
        "<h2>Can the probabilities be trusted?</h2>",
        inline(diagram, "How often the user agrees against the model's confidence", "small"),
        probabilities,
        _FOOTER.format(about=about),
    )


def save_evaluation(report: Report, folder: Path, title: str) -> tuple[Path, Path]:
    """Writes ``accuracy.svg`` and ``accuracy.html`` into a folder.

    Returns:
        The two paths.

    Raises:
        OutputError: the folder cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    svg = evaluation_figure(report, title)
    paths = folder / "accuracy.svg", folder / "accuracy.html"
    for path, text in zip(paths, (svg, evaluation_page(report, title, svg)), strict=True):
        write_text(path, text)
    return paths


def _four(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
