"""One self-contained HTML page: text, tables and pictures; no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rtseg.visualize.drawing import Pixels
from rtseg.visualize.files import png_data_uri

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows of a table; numbers stand at the right, None is written "n/a"."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headers):
                raise ValueError(f"row {list(row)} has not the {len(self.headers)} headers' length")


@dataclass(frozen=True)
class Picture:
    """An RGB picture (H, W, 3) uint8 with a caption."""

    pixels: Pixels
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order: text, tables, pictures.

    Pictures that follow each other stand side by side if they fit.
    """

    heading: str
    blocks: Sequence[str | Table | Picture]


_STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #1f2937; --muted: #6b7280;
  --line: #e5e7eb; --accent: #2563eb; --stripe: #f9fafb; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f141b; --card: #171e28; --ink: #e5e7eb;
  --muted: #9ca3af; --line: #2b3543; --accent: #60a5fa; --stripe: #1b2330; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 1.2rem; margin: 0 0 14px; }
p { margin: 0 0 14px; max-width: 75ch; white-space: pre-line; }
.lead { color: var(--muted); margin-bottom: 28px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 22px 24px 10px; margin: 0 0 20px; box-shadow: 0 1px 3px rgb(0 0 0 / 5%); }
.scroll { overflow-x: auto; margin: 0 0 16px; }
table { border-collapse: collapse; min-width: 50%; font-size: 0.94rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding: 0 0 8px; }
th, td { padding: 7px 14px; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--muted); font-weight: 600; border-bottom-width: 2px; }
tbody tr:nth-child(even) { background: var(--stripe); }
.number { text-align: right; }
.row { display: flex; flex-wrap: wrap; gap: 16px; margin: 0 0 16px; }
figure { flex: 0 1 auto; min-width: 0; max-width: 100%; margin: 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 8px;
  border: 1px solid var(--line); }
figcaption { color: var(--muted); font-size: 0.9rem; margin-top: 6px; }
footer { color: var(--muted); font-size: 0.9rem; margin-top: 28px; white-space: pre-line; }
@media print { body { background: #fff; } section { break-inside: avoid; box-shadow: none; } }
"""


def html_page(
    title: str, sections: Sequence[Section], *, subtitle: str = "", footer: str = ""
) -> str:
    """Build a page that a browser shows without any other file.

    All text is escaped, so names and paths from users are safe. It follows the light or dark
    preference of the browser.

    Args:
        title: Heading of the page.
        sections: What stands on it, from top to bottom.
        subtitle: One line under the heading.
        footer: Last lines, such as versions, device and protocol.

    Returns:
        The whole HTML document.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    if subtitle:
        body.append(f'<p class="lead">{escape(subtitle)}</p>')
    body += [_section(section) for section in sections]
    if footer:
        body.append(f"<footer>{escape(footer)}</footer>")
    content = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{content}\n</main>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    figures: list[str] = []
    for block in section.blocks:
        if isinstance(block, Picture):
            figures.append(_figure(block))
            continue
        parts += _row(figures)
        figures = []
        parts.append(_table(block) if isinstance(block, Table) else f"<p>{escape(block)}</p>")
    parts += _row(figures)
    return "<section>\n{}\n</section>".format("\n".join(parts))


def _row(figures: Sequence[str]) -> list[str]:
    return ['<div class="row">{}</div>'.format("".join(figures))] if figures else []


def _figure(picture: Picture) -> str:
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    height, width = picture.pixels.shape[:2]
    address = png_data_uri(picture.pixels)
    text = escape(picture.caption)
    image = f'<img src="{address}" width="{width}" height="{height}" alt="{text}">'
    return f"<figure>{image}{caption}</figure>"


def _table(table: Table) -> str:
    columns = range(len(table.headers))
    numeric = [
        any(isinstance(row[column], int | float) for row in table.rows) for column in columns
    ]
    kinds = [' class="number"' if flag else "" for flag in numeric]
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    head = "".join(
        f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, table.headers, strict=True)
    )
    rows = "\n".join(
        "<tr>{}</tr>".format(
            "".join(
                f"<td{kind}>{_cell(value)}</td>" for kind, value in zip(kinds, row, strict=True)
            )
        )
        for row in table.rows
    )
    return (
        f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cell(value: Cell) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value and abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
