"""Parts of an HTML page that needs no other file: no script, no link, pictures inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from mrm_sdk.errors import OutputError
from mrm_sdk.evaluation.bootstrap import Interval

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #22262c; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
figure {{ margin: 1rem 0; max-width: 46rem; }} figure.small {{ max-width: 28rem; }}
svg {{ width: 100%; height: auto; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }}
th, td {{ padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e3e6ea; white-space: nowrap; }}
th {{ font-weight: 600; vertical-align: bottom; white-space: normal; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
.doubt {{ border-left: 4px solid #c8553d; padding-left: .8rem; }}
code {{ overflow-wrap: anywhere; }} footer {{ color: #5c636d; font-size: .85rem; margin-top: 2rem; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def html_page(title: str, *parts: str) -> str:
    """Puts parts, which are HTML, under a title, which is plain text."""
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph."""
    return f'<p class="{kind}">{html.escape(text)}</p>'


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells of plain text as a table that scrolls if the window is narrow."""
    head = "".join(f"<th>{html.escape(cell)}" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


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
    return f"{100 * interval.difference:+.1f} ({100 * interval.low:+.1f} … {100 * interval.high:+.1f})"


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
