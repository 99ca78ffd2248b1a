"""An evaluation as text, as a figure and as one self-contained page."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

from mrm_sdk.evaluation.protocol import Report
from mrm_sdk.evaluation.reports.colours import BLUE, GREY, PALETTE, RED
from mrm_sdk.evaluation.reports.figures import Line, Panel, reliability_diagram, shots_curves
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
from mrm_sdk.evaluation.texts import Corner

_FOOTER = """<footer>Accuracy is the share of query comparisons ranked as the user did, averaged per user, then over
users; worst tenth, fifth and half are of the users with the lowest accuracy at that number of comparisons, and part of
that is bad luck: on other questions the worst tenth would score what is beside it. One reward for all is a
Bradley–Terry model, linear in the embedding, with the penalty that suits this kind of texts best. Another user's
weights are of one who judged the same texts. Reversed choices: the same comparisons, with the opposite choice in each,
were adapted to. Differences are in percentage points, with paired 95&nbsp;% bootstrap intervals over users; bars in the
figure are these, of own weights over not adapting (the dotted line) and of the control behind own weights. Loss, Brier
score and calibration error are of the predicted probability, which is the more cautious the less a user has said; ECE
in 15 bins of confidence. {about}</footer>"""


_CORNERS: dict[Corner | None, str] = {
    None: "All texts",
    "known": "Texts that the fit has seen",
    "new": "New texts",
}


def evaluation_summary(report: Report) -> str:
    """The result in a sentence, and one for each kind of texts."""
    first, last = report.points[0], report.points[-1]
    text = f"{len(report.user_ids)} users: accuracy {first.accuracy:.1%} with {first.shots} comparisons"
    if last.shots > first.shots:
        text += f", {last.accuracy:.1%} with {last.shots}"
        text += "" if last.control is None else f" (and {last.control:.1%} with those of another user)"
    if report.population is not None:
        text += f"; one reward for all: {report.population.accuracy:.1%}"
    return text + "."


def evaluation_table(report: Report) -> str:
    """The result as two tables of plain text and doubts, in lines of at most 80 characters, for each kind of texts."""
    if not report.corners:
        return "\n\n".join(_text_parts(report))
    return "\n\n".join(
        part for each in report.corners.values() for part in (f"{_CORNERS[each.texts]}.", *_text_parts(each))
    )


def _text_parts(report: Report) -> Iterator[str]:
    yield fill(evaluation_summary(report), 80)
    yield text_table(
        ("shots", "accuracy", "worst tenth", "fifth", "half", "other's weights", "reversed"),
        ([str(p.shots), *map(_four, (p.accuracy, p.worst_tenth, p.worst_fifth, p.worst_half, p.control, p.flipped))]
         for p in report.points),
    )  # fmt: skip
    last = report.points[-1]
    yield fill(
        f"On other questions the worst tenth would score about {last.worst_tenth_again:.1%}: the rest is bad luck. "
        "Differences in percentage points, with 95 % intervals over users.",
        80,
    )
    yield text_table(
        ("shots", "over not adapting", "over other's weights", "loss", "Brier", "ECE"),
        ([str(p.shots), points(p.gain), points(p.over_control), _four(p.loss), _four(p.brier), _four(p.ece)]
         for p in report.points),
    )  # fmt: skip
    if report.population is not None:
        yield text_table(
            ("shots", "over one reward for all", "its loss"),
            ([str(p.shots), points(p.over_population), _four(report.population.loss)] for p in report.points),
        )
    yield from (fill(doubt, 80) for doubt in report.doubts())


def evaluation_figure(report: Report, title: str) -> str:
    """Accuracy against the number of comparisons as an SVG picture; each kind of texts has a panel of its own.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    if not report.corners:
        return shots_curves([_panel(report, title)])
    return shots_curves([_panel(each, _CORNERS[each.texts]) for each in report.corners.values()])


def _panel(report: Report, title: str) -> Panel:
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
    if report.population is not None:
        lines.append(Line("one reward for all", PALETTE[1], "^", [report.population.accuracy] * len(judged)))
    lines.append(Line("own weights, worst tenth of users", RED, "v", [p.worst_tenth for p in judged]))
    return Panel(title, [p.shots for p in judged], lines, before[0])


def evaluation_page(report: Report, title: str, svg: str) -> str:
    """One HTML page that needs no other file; ``svg`` is the :func:`evaluation_figure`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    about = " ".join(f"{html.escape(k.capitalize())} <code>{html.escape(v)}</code>." for k, v in report.bundle.items())
    picture = inline(svg, "Accuracy against the number of comparisons; the figures are in the tables below")
    if not report.corners:
        summary, *tables = _html_parts(report)
        return html_page(title, summary, picture, *tables, _FOOTER.format(about=about))
    parts = [
        part for each in report.corners.values() for part in (f"<h2>{_CORNERS[each.texts]}</h2>", *_html_parts(each))
    ]
    return html_page(title, picture, *parts, _FOOTER.format(about=about))


def _html_parts(report: Report) -> Iterator[str]:
    most = report.points[-1].shots
    yield "".join([paragraph(evaluation_summary(report)), *(paragraph(doubt, "doubt") for doubt in report.doubts())])
    yield html_table(
        ("comparisons", "accuracy", "worst tenth", "worst tenth, other questions", "worst fifth", "worst half",
         "another user's weights", "reversed choices"),
        ([str(p.shots), *map(percent, (p.accuracy, p.worst_tenth, p.worst_tenth_again, p.worst_fifth, p.worst_half,
                                       p.control, p.flipped))]
         for p in report.points),
    )  # fmt: skip
    yield "<h3>Is it more than chance?</h3>"
    yield html_table(
        ("comparisons", "over not adapting", "over one reward for all", "over another user's weights",
         "not adapting over reversed choices"),
        ([str(p.shots), points(p.gain), points(p.over_population), points(p.over_control), points(p.flip_drop)]
         for p in report.points),
    )  # fmt: skip
    yield "<h3>Can the probabilities be trusted?</h3>"
    yield inline(
        reliability_diagram(report.bins(), f"Reliability after {most} comparisons"),
        "How often the user agrees against the model's confidence",
        "small",
    )
    shared = [] if report.population is None else [["one reward for all", f"{report.population.loss:.4f}", "–", "–"]]
    yield html_table(
        ("comparisons", "loss (nats)", "Brier score", "calibration error (ECE)"),
        [*([str(p.shots), f"{p.loss:.4f}", f"{p.brier:.4f}", percent(p.ece)] for p in report.points), *shared],
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
