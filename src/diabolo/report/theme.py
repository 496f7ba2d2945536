"""Colours and HTML pieces that all sections share. Nothing here draws or measures.

Colours are named, not fixed: the page maps each name to one value for light and one for dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from diabolo.report.compare import format_value

# stand-ins that matplotlib writes and `themed` turns into the page's variables
STAND_INS: dict[str, str] = {
    "#010201": "var(--ink)",
    "#010202": "var(--muted)",
    "#010203": "var(--line)",
    "#010204": "var(--card)",
    **{f"#0102{16 + i:02x}": f"var(--c{i})" for i in range(10)},
}
INK, MUTED, LINE, CARD = list(STAND_INS)[:4]
SERIES = list(STAND_INS)[4:]

POSITIVE = (38, 104, 160)  # blue: above
NEGATIVE = (190, 78, 28)  # rust: below


def themed(svg: str) -> str:
    """Replace the stand-ins in ``svg`` by the page's colour variables."""
    for stand_in, variable in STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    return svg


def number(value: Any, style: str = "number") -> str:
    """Return a number as text, escaped."""
    return escape(format_value(value, style))


def percent(share: float) -> str:
    """Return a share, 0 to 1, as a percentage."""
    return f"{100 * share:.3g} %"


def section(anchor: str, title: str, body: str, lead: str = "") -> str:
    """Return one section; nothing where the body is empty. ``title`` and ``lead`` are plain text."""
    if not body:
        return ""
    intro = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    name = escape(anchor.rsplit("--", 1)[-1])
    opening = f'<section id="{escape(anchor)}" data-section="{name}">'
    return f"{opening}<h3>{escape(title)}</h3>{intro}{body}</section>"


def figure(body: str, caption: str = "", kind: str = "") -> str:
    """Return a figure with a caption (plain text)."""
    told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{escape(kind)}">{body}{told}</figure>'


def cards(values: Sequence[tuple[str, str, str]]) -> str:
    """Return a row of headline numbers: (label, value, remark), all plain text."""
    inside = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd><small>{escape(remark)}</small></div>"
        for label, value, remark in values
    )
    return f'<dl class="cards">{inside}</dl>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    marked: Mapping[tuple[int, int], str] | None = None,
    kind: str = "",
) -> str:
    """Return a table of plain texts; ``marked`` gives (row, column) a CSS class."""
    marks = marked or {}
    lines = ["<tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr>"]
    for i, row in enumerate(rows):
        cells = []
        for j, cell in enumerate(row):
            look = f' class="{marks[i, j]}"' if (i, j) in marks else ""
            tag, scope = ("th", ' scope="row"') if j == 0 else ("td", "")
            cells.append(f"<{tag}{scope}{look}>{escape(cell)}</{tag}>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return (
        f'<div class="scroll"><table class="{escape(kind)}"><thead>{lines[0]}</thead>'
        f"<tbody>{''.join(lines[1:])}</tbody></table></div>"
    )


def heat_table(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """Return a table whose cells are coloured by sign and size of ``values`` (rows x columns)."""
    largest = max((abs(v) for row in values for v in row), default=0.0) or 1.0
    head = "<tr><th></th>" + "".join(f"<th scope='col'>{escape(c)}</th>" for c in columns) + "</tr>"
    lines = []
    for name, row in zip(rows, values, strict=True):
        cells = ""
        for value in row:
            red, green, blue = POSITIVE if value >= 0 else NEGATIVE
            depth = 0.75 * abs(value) / largest  # the number on it stays legible
            look = f"background:rgba({red},{green},{blue},{depth:.2f})"
            cells += f'<td style="{look}">{value:z.2f}</td>'
        lines.append(f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>")
    inside = f"<thead>{head}</thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table class="heat">{inside}</table></div>'


def details(summary: str, body: str) -> str:
    """Return a part that opens on a click; ``summary`` is plain text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
