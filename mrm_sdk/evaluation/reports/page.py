"""Tables as text, and parts of an HTML page that needs no other file: no script, no link, pictures inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from mrm_sdk.errors import OutputError
from mrm_sdk.evaluation.bootstrap import Interval
from mrm_sdk.evaluation.reports.colours import BLUE, GRID, INK, MUTED, PAPER, RED

_COLOURS = {"paper": PAPER, "ink": INK, "muted": MUTED, "line": GRID, "doubt": RED, "strong": BLUE}
_STYLE = """
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
body {{ color: var(--ink); background: var(--paper); }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
figure {{ margin: 1rem 0; max-width: 42rem; }} figure.small {{ max-width: 30rem; }}
svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }}
th, td {{ padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ font-weight: 600; vertical-align: bottom; white-space: normal; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
.strong td {{ font-weight: 700; }} .strong td:first-child {{ color: var(--strong); }}
.doubt {{ border-left: 4px solid var(--doubt); padding-left: .8rem; }}
code {{ overflow-wrap: anywhere; }} footer {{ color: var(--muted); font-size: .85rem; margin-top: 2rem; }}
@media (max-width: 52rem) {{
thead {{ display: none; }} table, tbody, tr, td {{ display: block; }}
tr {{ border-bottom: 1px solid var(--line); padding: .4rem 0; }}
td {{ display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; }}
td::before {{ content: attr(data-label); color: var(--muted); font-weight: 400; white-space: normal; }}
td::before {{ text-align: left; }}
td:first-child {{ font-weight: 700; }}
}}
"""


def _colours(scheme: int) -> str:
    return "".join(f"--{name}: {colour[scheme]}; " for name, colour in _COLOURS.items())


_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{title}}</title>
<style>
:root {{{{ {_colours(0)}}}}}
@media (prefers-color-scheme: dark) {{{{ :root {{{{ {_colours(1)}}}}} }}}}{_STYLE}</style>
<h1>{{title}}</h1>
{{body}}
</html>
"""


def html_page(title: str, *parts: str) -> str:
    """Puts parts, which are HTML, under a title, which is plain text."""
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph."""
    return f'<p class="{kind}">{html.escape(text)}</p>'


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, strong: str | None = None) -> str:
    """Cells of plain text as a table; in a narrow window each row is a list.

    Args:
        header: of the columns.
        rows: cells.
        strong: the first cell of the row that stands out.
    """
    labels = [html.escape(cell, quote=True) for cell in header]
    head = "".join(f"<th>{label}" for label in labels)
    body = "\n".join(
        f"<tr{' class=strong' if row[0] == strong else ''}>"
        + "".join(f'<td data-label="{label}">{html.escape(cell)}</td>' for label, cell in zip(labels, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells as plain text in columns that are flush right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def inline(svg: str, text: str, kind: str = "") -> str:
    """An SVG file as part of a page; ``text`` describes it to screen readers."""
    label = html.escape(text, quote=True)
    return f'<figure class="{kind}" role="img" aria-label="{label}">{svg[svg.index("<svg") :]}</figure>'


def percent(value: float | None) -> str:
    """A share for a table; ``–`` for ``None``."""
    return "–" if value is None else f"{value:.1%}"


def points(interval: Interval | None) -> str:
    """A difference of accuracies in percentage points with its interval; ``–`` for ``None``."""
    if interval is None:
        return "–"
    return f"{signed(interval.difference)} ({signed(interval.low)} … {signed(interval.high)})"


def signed(difference: float) -> str:
    """A difference of accuracies in percentage points; never a negative zero."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def write_text(path: Path, text: str) -> None:
    """Writes a text file, and creates its folder if needed.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}. Choose another place.") from None
