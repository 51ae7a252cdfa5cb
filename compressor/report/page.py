"""The report page: verdict as text, pictures, tables. Includes plotly's code once; loads nothing from the network."""

from __future__ import annotations

from html import escape
from importlib import resources

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from compressor.report import drawings, flips, phrases, pictures, tables
from compressor.report.contents import Shown
from compressor.report.side_by_side import beside

# Pictures are drawn while the page is still loading; they adopt the width of their place when it is complete.
_FIT = "addEventListener('load',()=>dispatchEvent(new Event('resize')))"
_FORMS_IN_HALF = 4
"""With more forms than these, the parity table needs the page's full width."""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)


def render(shown: Shown) -> str:
    """Return the report as one HTML document."""
    certificate = shown.certificate
    title = escape(f"{certificate.model}-{certificate.version}: {certificate.verdict}")
    style = (resources.files("compressor.report") / "page.css").read_text()
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{style}</style><script>{get_plotlyjs()}</script></head>"
        f'<body><main class="v-{escape(certificate.verdict)}">{_head(shown)}{_tiles(shown)}{_cards(shown)}'
        f'<details class="card"><summary>All figures</summary>{tables.figures(certificate)}</details></main>'
        f"<script>{_FIT}</script></body></html>"
    )


def _tiles(shown: Shown) -> str:
    """Return the most important figures, for the target shown in the pictures."""
    where = f"Figures and pictures{_of(shown)}, the one that did worst" if _of(shown) else ""
    said = f'<p class="muted">{escape(where)}:</p>' if where else ""
    return said + tables.tiles(shown.tiles, (shown.pictured or shown.certificate).figures)


def _of(shown: Shown) -> str:
    """Return the target of figures and pictures as text, if there are several targets."""
    return f" of target {shown.pictured.target}" if shown.pictured is not None and len(shown.targets) > 1 else ""


def _cards(shown: Shown) -> str:
    """Return pictures, gates and tables; the lineage fills the gap after an odd number of pictures."""
    first, gates = _pictures(shown), card("Gates", tables.gates(shown.certificate))
    large = first.pop() if shown.answers.wide else ""
    if len(shown.targets) > 1:
        gates = card("Targets", tables.targets(shown.targets, shown.headline)) + gates
    made = card("How it was made", tables.pairs(shown.made))
    where = tables.layers(shown.layers) if shown.layers else ""
    parity = card("Parity of the forms", where + tables.parity(shown.parity))
    several = len({name for pair in shown.parity for name in (pair.first, pair.second)}) > _FORMS_IN_HALF
    second = [] if several else [parity]
    (first if len(first) % 2 else second).append(made)
    lineage = card("Lineage", tables.pairs(shown.lineage, digests=True))
    last = lineage if len(second) % 2 == 0 else ""
    if not last:
        second.append(lineage)
    found = beside(shown.certificate)
    gates += card("On devices", tables.devices(found)) if found else ""
    wide = large + gates + _changes(shown) + _steps(shown)
    wide += card("Noise at each output", tables.noise(shown.noise)) if shown.noise else ""
    wide += parity if several else ""
    return f'<div class="grid">{"".join(first)}</div>{wide}<div class="grid">{"".join(second)}</div>{last}'


def _changes(shown: Shown) -> str:
    """Return the inputs whose answer changed: flips of classes, and answers that have a place in the input."""
    said = "" if shown.changes is None else card("What changed", flips.section(shown.changes, shown.class_names))
    return said + (card(shown.drawings.title, drawings.section(shown.drawings)) if shown.drawings else "")


def _head(shown: Shown) -> str:
    certificate = shown.certificate
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in phrases.sentences(shown))
    badge = f'<span class="badge">{escape(certificate.verdict.upper())}</span>'
    return f"<header><h1>{escape(phrases.headline(certificate))} {badge}</h1>{said}</header>"


def _pictures(shown: Shown) -> list[str]:
    what, where = shown.measure.capitalize(), _of(shown)
    figures = [
        (f"{what} on the gate split{where}", pictures.accuracy(shown.accuracies)),
        (f"Size and latency{where} on this host", pictures.size_latency((shown.pictured or shown.certificate).figures)),
        (f"{what} per slice{where}", pictures.slices(shown.slices)),
        (shown.answers.title, shown.answers.figure),
    ]
    if shown.drifted:
        figures.insert(0, ("Before and after on the held-out drifted samples", pictures.accuracy(shown.drifted)))
    return [card(title, figure_div(figure, i)) for i, (title, figure) in enumerate(figures)]


def _steps(shown: Shown) -> str:
    if not shown.steps:
        return ""
    return card("What each step cost", tables.steps(shown.steps, shown.measure))


def card(title: str, content: str) -> str:
    """Return ``content``, HTML, as a section of a page with the heading ``title``."""
    return f'<section class="card"><h2>{escape(title)}</h2>{content}</section>'


def figure_div(figure: go.Figure, index: int) -> str:
    """Return ``figure`` as the element ``figure-<index>`` of a page with plotly's script."""
    text: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{index}",
        config={"displayModeBar": False, "responsive": True},
    )
    return text
