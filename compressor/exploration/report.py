"""The exploration as one self-contained HTML file: findings as text, pictures, suspects to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

import plotly.graph_objects as go
from PIL import Image
from plotly.offline import get_plotlyjs

from compressor.data._shades import face
from compressor.data._table import Table
from compressor.exploration.explore import Exploration, ExploredRow, RowPair, Suspect
from compressor.report.page import card, figure_div

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:"
_FIT = "addEventListener('load',()=>dispatchEvent(new Event('resize')))"
_STYLE = (
    ".faces{display:flex;flex-wrap:wrap;gap:12px}.faces figure{margin:0;max-width:190px}"
    ".faces img{height:72px;min-width:24px;image-rendering:pixelated;border:1px solid var(--line);margin-right:4px}"
    ".faces figcaption{font-size:12px;color:var(--soft);overflow-wrap:anywhere}"
)
_COLOURS = {
    "train": "#2f81f7", "calibration": "#8250df", "gate": "#1a7f37", "reference": "#d29922", "other": "#8c959f",
    "unused": "#d0d7de", "all": "#2f81f7",
}  # fmt: skip
_MAX_SHOWN_SIDE = 256
_CLEAR = "rgba(0,0,0,0)"


def render(name: str, found: Exploration, table: Table) -> str:
    """Return the report on ``table`` as one HTML document; ``name`` is what was explored."""
    style = (resources.files("compressor.report") / "page.css").read_text() + _STYLE
    verdict = "inconclusive" if found.findings else "pass"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data: {escape(name)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{style}</style><script>{get_plotlyjs()}</script></head>"
        f'<body><main class="v-{verdict}">{_head(name, found)}{_tiles(found)}<div class="grid">{_pictures(found)}</div>'
        f"{_suspects(found, table)}{_sizes(found)}</main><script>{_FIT}</script></body></html>"
    )


def _head(name: str, found: Exploration) -> str:
    said = [*found.findings, *found.notes, f"content digest {found.digest}"]
    first = f"{len(found.findings)} things to look at" if found.findings else "nothing found to look at"
    lines = "".join(f"<p>{escape(text)}</p>" for text in said)
    return f"<header><h1>{escape(name)}: {first}</h1>{lines}</header>"


def _tiles(found: Exploration) -> str:
    shown = [("rows", found.rows), ("sources", found.sources), ("classes", len(found.classes))]
    shown += [(name.replace("_", " "), count) for name, count in found.counts.items()]
    cells = (f"<div><span>{escape(name)}</span><b>{count}</b></div>" for name, count in shown)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _pictures(found: Exploration) -> str:
    levels, count = go.Figure(), len(found.levels)
    levels.add_bar(
        x=[f"{16 * i}-{16 * i + 15}" for i in range(count)], y=list(found.levels), marker_color=_COLOURS["all"]
    )
    figures = [
        ("Rows per class and split", _stacked(found.classes)),
        ("Rows per slice and split", _stacked(found.slices)),
        ("Values of all pixels", _plain(levels)),
    ]
    return "".join(card(title, figure_div(figure, i)) for i, (title, figure) in enumerate(figures))


def _stacked(counts: Mapping[str, Mapping[str, int]]) -> go.Figure:
    figure = go.Figure()
    names = list(counts)
    for part in next(iter(counts.values()), {}):
        figure.add_bar(x=names, y=[counts[name][part] for name in names], name=part, marker_color=_COLOURS[part])
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    return _plain(figure)


def _plain(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        height=300, margin={"l": 48, "r": 20, "t": 28, "b": 48}, template="plotly_white", paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR, font={"family": "system-ui, sans-serif", "size": 13}, bargap=0.2,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )  # fmt: skip
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def _suspects(found: Exploration, table: Table) -> str:
    cards = [
        ("Labels that look wrong (label, looks like, doubt)", _faces(table, found.label_suspects)),
        ("Near duplicates in different splits", _twins(table, found.near)),
        ("Equal content, different labels", _twins(table, found.conflicts)),
        ("Equal content or source in two parts", _twins(table, found.leaks)),
        ("Far from all others (robust z-score)", _faces(table, found.outliers)),
    ]
    return "".join(card(title, content) for title, content in cards if content)


def _faces(table: Table, suspects: Iterable[Suspect]) -> str:
    return _row(
        _face([_image(table, item.row)], f"{_said(item.row)}{_like(item)}, {item.score:.3g}") for item in suspects
    )


def _like(item: Suspect) -> str:
    return f", looks like {item.looks_like}" if item.looks_like else ""


def _twins(table: Table, pairs: Iterable[RowPair]) -> str:
    return _row(
        _face([_image(table, pair.first), _image(table, pair.second)], f"{_said(pair.first)} / {_said(pair.second)}")
        for pair in pairs
    )


def _row(faces: Iterable[str]) -> str:
    joined = "".join(faces)
    return f'<div class="faces">{joined}</div>' if joined else ""


def _face(images: Sequence[str], text: str) -> str:
    shown = "".join(f'<img alt="" src="{image}">' for image in images)
    return f"<figure>{shown}<figcaption>{escape(text)}</figcaption></figure>"


def _said(row: ExploredRow) -> str:
    return f"row {row.row} ({row.source[:24]}, {row.slice}, {row.split}) label {row.label}"


def _image(table: Table, row: ExploredRow) -> str:
    picture = Image.fromarray(face(table.images[row.row]))
    picture.thumbnail((_MAX_SHOWN_SIDE, _MAX_SHOWN_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


_SIZES_SHOWN = 20


def _sizes(found: Exploration) -> str:
    sizes = [(f"{size} pixels", str(count)) for size, count in found.sizes.items()]
    if len(sizes) > _SIZES_SHOWN:
        sizes = [*sizes[:_SIZES_SHOWN], ("sizes beyond these", str(len(sizes) - _SIZES_SHOWN))]
    rows = [*sizes,
            *((name.replace("_", " "), f"{value:.4g}") for name, value in found.values.items())]  # fmt: skip
    lines = "".join(f"<tr><td>{escape(name)}</td><td class=n>{escape(value)}</td></tr>" for name, value in rows)
    return card("Sizes and values", f'<div class="scroll"><table>{lines}</table></div>')
