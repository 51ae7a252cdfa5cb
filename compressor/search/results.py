"""The files with the result of a search: ``search.json``, ``search.html``, ``chosen.toml``.

``search.html`` is one self-contained page: the choice as text, the Pareto front, every trial.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from compressor.cache import write_atomically
from compressor.recipe.model import Recipe
from compressor.recipe.read import check_recipe
from compressor.report.page import card, figure_div
from compressor.search.pareto import SearchResult, Tried, chosen, feasible, front
from compressor.search.recipe_text import absolute, recipe_text
from compressor.search.study import allowed_drop, steps_for
from compressor.search.trial import Ground, only

SEARCH_JSON, SEARCH_HTML, CHOSEN = "search.json", "search.html", "chosen.toml"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:"
_FIT = "addEventListener('load',()=>dispatchEvent(new Event('resize')))"
_CLEAR = "rgba(0,0,0,0)"
_KINDS = {
    "loses too much": ("#cf222e", "x", 8),
    "dominated": ("#8c959f", "circle", 8),
    "Pareto front": ("#2f81f7", "circle", 11),
    "chosen": ("#d29922", "star", 18),
}
_COLUMNS = ("trial", "steps", "latency", "p50 ms", "bytes", "points lost", "at most, 95 %", "")


def found_of(ground: Ground, recipe: Recipe, tried: tuple[Tried, ...], data_root: Path | None = None) -> SearchResult:
    """Return the result: front, choice and the recipe of the choice, with ``recipe``'s own folder and gates.

    Raises:
        MeasureError: If nothing feasible was measured.
        RecipeError: If the chosen steps don't fit the recipe's tables.
    """
    allowed = allowed_drop(ground)
    choice = chosen(tried, allowed)
    picked = absolute(only(recipe, ground.target, steps_for(choice.tried, ground)), data_root)
    check_recipe(picked)
    release = f"{recipe.model.name}-{recipe.model.version}"
    return SearchResult(
        release=release,
        target=ground.target.name,
        allowed_drop=allowed,
        tried=tried,
        front=front(tried, allowed),
        choice=choice,
        recipe=picked,
    )


def write(found: SearchResult, out: Path) -> tuple[Path, ...]:
    """Write the three files to ``out``; return their paths.

    Raises:
        PackageError: If one can't be written.
    """
    text = recipe_text(replace(found.recipe, folder=Path()), ("Chosen by `compressor search`.", *found.choice.reason))
    files = {
        SEARCH_JSON: json.dumps(found.document(), sort_keys=True, indent=1),
        SEARCH_HTML: render(found),
        CHOSEN: text,
    }
    for name, content in files.items():
        write_atomically(out / name, content.encode())
    return tuple(out / name for name in files)


def render(found: SearchResult) -> str:
    """Return the search as one HTML document."""
    style = (resources.files("compressor.report") / "page.css").read_text()
    pictures = (
        ("Latency against accuracy, with 95 % bounds", _accuracy(found)),
        ("Latency against size", _size(found)),
    )
    cards = "".join(card(title, figure_div(figure, i)) for i, (title, figure) in enumerate(pictures))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Search: {escape(found.release)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{style}</style><script>{get_plotlyjs()}</script></head>"
        f'<body><main class="v-pass">{_head(found)}{_tiles(found)}<div class="grid">{cards}</div>'
        f"{card('Trials', _table(found))}</main><script>{_FIT}</script></body></html>"
    )


def kind_of(item: Tried, found: SearchResult) -> str:
    """Return the category of ``item`` in pictures: ``chosen``, ``Pareto front``, ``dominated``, ``loses too much``."""
    if item.number == found.choice.tried.number:
        return "chosen"
    if item in found.front:
        return "Pareto front"
    return "dominated" if feasible(item, found.allowed_drop) else "loses too much"


def _head(found: SearchResult) -> str:
    title = f"{found.release} on {found.target}: {found.choice.tried.name}"
    basis = (
        "Measured on search rows that no weight was learnt from; training steps choose their best epoch by them, "
        "and so did this choice: figures lean to the good side. The gate split is untouched and has the last word."
    )
    lines = "".join(f"<p>{escape(text)}</p>" for text in (*found.choice.reason, basis))
    return f"<header><h1>{escape(title)}</h1>{lines}</header>"


def _tiles(found: SearchResult) -> str:
    figures = found.choice.tried.measured
    shown = [("forms tried", str(len(found.tried))), ("on the front", str(len(found.front)))]
    shown += [("failed", str(sum(item.measured is None for item in found.tried)))]
    if figures is not None:
        shown += [
            ("latency of the choice", f"{figures.latency_ratio:.2f} ×"),  # noqa: RUF001 - the sign for times
            ("size of the choice", f"{figures.size_bytes / 1000:.1f} kB"),
            ("points lost", f"{100 * figures.drop:z.2f}"),
        ]
    cells = (f"<div><span>{escape(name)}</span><b>{escape(value)}</b></div>" for name, value in shown)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _accuracy(found: SearchResult) -> go.Figure:
    figure = go.Figure()
    for kind, items in _by_kind(found):
        figures = [item.measured for item in items if item.measured is not None]
        drops = [100 * each.drop for each in figures]
        up = [100 * (each.drop_upper - each.drop) for each in figures]
        down = [100 * (each.drop - each.drop_lower) for each in figures]
        bars = {"type": "data", "array": up, "arrayminus": down, "thickness": 1.2, "width": 3}
        _points(figure, kind, items, drops, bars)
    limit = 100 * found.allowed_drop
    figure.add_hline(y=limit, line={"dash": "dot", "color": "#cf222e"}, annotation_text=f"allowed {limit:.2f}")
    return _plain(figure, "points of accuracy lost")


def _size(found: SearchResult) -> go.Figure:
    figure = go.Figure()
    for kind, items in _by_kind(found):
        sizes = [item.measured.size_bytes / 1000 for item in items if item.measured is not None]
        _points(figure, kind, items, sizes, {})
    figure.update_yaxes(rangemode="tozero")
    return _plain(figure, "size in kB")


def _by_kind(found: SearchResult) -> Iterable[tuple[str, list[Tried]]]:
    measured = [item for item in found.tried if item.measured is not None]
    for kind in _KINDS:
        yield kind, [item for item in measured if kind_of(item, found) == kind]


def _points(
    figure: go.Figure, kind: str, items: Sequence[Tried], y: Sequence[float], bars: dict[str, object]
) -> None:  # fmt: skip
    if not items:
        return
    colour, symbol, size = _KINDS[kind]
    ratios, texts = [], []
    for item in items:
        lines = [f"<b>trial {item.number}: {escape(item.name)}</b>"]
        lines += [f"{escape(name)}: {escape(str(value))}" for name, value in item.settings]
        if (measured := item.measured) is not None:
            ratios.append(measured.latency_ratio)
            low, high = 100 * measured.drop_lower, 100 * measured.drop_upper
            lines += [
                f"latency {measured.latency_ratio:.3f} × ({measured.latency_p50_ms:.3f} ms)",  # noqa: RUF001
                f"{measured.size_bytes} bytes",
                f"points lost {100 * measured.drop:z.2f} ({low:z.2f} to {high:z.2f}, n={measured.n})",
            ]
        texts.append("<br>".join(lines))
    figure.add_scatter(
        x=ratios, y=list(y), mode="markers", name=kind, error_y=bars or None, hoverinfo="text",
        hovertext=texts, marker={"color": colour, "symbol": symbol, "size": size},
    )  # fmt: skip


def _table(found: SearchResult) -> str:
    head = "".join(f'<th class="{"n" if i > 1 else ""}">{name}</th>' for i, name in enumerate(_COLUMNS))
    rows = "".join(_row(item, found) for item in found.tried)
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _row(item: Tried, found: SearchResult) -> str:
    first = f"<td>{item.number}</td><td>{escape(item.name)}</td>"
    figures = item.measured
    if figures is None:
        return f'<tr>{first}<td colspan="6" class="muted">failed: {escape(item.error)}</td></tr>'
    cells = (
        f"{figures.latency_ratio:.3f}", f"{figures.latency_p50_ms:.3f}", f"{figures.size_bytes}",
        f"{100 * figures.drop:z.2f}", f"{100 * figures.drop_upper:z.2f}", kind_of(item, found),
    )  # fmt: skip
    return f"<tr>{first}{''.join(f'<td class=n>{escape(cell)}</td>' for cell in cells)}</tr>"


def _plain(figure: go.Figure, title: str) -> go.Figure:
    figure.update_layout(
        height=420, margin={"l": 48, "r": 24, "t": 28, "b": 48}, template="plotly_white", paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR, font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )  # fmt: skip
    figure.update_xaxes(title="latency p50 as a share of the float baseline's", automargin=True, rangemode="tozero")
    figure.update_yaxes(title=title, automargin=True)
    return figure
