"""The report: one HTML file that opens without a network, pictures first.

Decides how results are shown; computes nothing that a gate uses. plotly's code is put into the page once.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from compressor.certificate import Certificate
from compressor.parity import Pair
from compressor.statistics import wilson

_COLOURS = {"pass": "#1a7f37", "fail": "#cf222e", "inconclusive": "#9a6700"}
_FLOAT, _INT8, _BASE = "#8c959f", "#0969da", "#bf8700"
_HEIGHT_PX = 330
_NAME_CHARACTERS = 18
_NONE = "not measured"
_STYLE = """
:root{color-scheme:light}body{font:15px/1.5 system-ui,sans-serif;margin:0;background:#f6f8fa;color:#1f2328}
main{max-width:1180px;margin:0 auto;padding:24px}h1{margin:0 0 4px;font-size:26px}h2{font-size:18px;margin:0 0 8px}
.badge{display:inline-block;color:#fff;border-radius:6px;padding:2px 12px;font-weight:600;letter-spacing:.03em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:18px 0}
.tile,.card{background:#fff;border:1px solid #d0d7de;border-radius:8px;padding:14px}
.tile b{display:block;font-size:22px}.tile span{color:#59636e;font-size:13px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:14px}.card{min-width:0;margin-bottom:14px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:6px 8px;border-bottom:1px solid #eaeef2}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.muted{color:#59636e}
"""
# A picture is drawn while the page is still being read; it takes its place's width once all places are there.
_FIT = "addEventListener('load',()=>dispatchEvent(new Event('resize')))"


@dataclass(frozen=True, slots=True)
class Bar:
    """One model's accuracy: right of n, with its colour."""

    name: str
    right: int
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a report shows of one run.

    ``accuracies`` in the order float, (release before,) int8; ``drifted`` the same on the drifted set;
    ``slices``: per slice the number right of n per model; ``confusion``: (classes, classes), rows are labels.
    """

    certificate: Certificate
    class_names: tuple[str, ...]
    accuracies: Sequence[Bar]
    slices: Mapping[str, Sequence[Bar]]
    confusion: NDArray[np.int64]
    parity: Sequence[Pair]
    drifted: Sequence[Bar] = field(default_factory=tuple)


def render(shown: Shown) -> str:
    """Return the report as one HTML document."""
    figures = [
        ("Accuracy on the gate split, with 95 % bounds", _accuracy(shown.accuracies)),
        ("Size and latency", _size_latency(shown.certificate.figures)),
        ("Accuracy per slice, with 95 % bounds (axis cut)", _slices(shown.slices)),
        ("What is taken for what (int8)", _confusion(shown.confusion, shown.class_names)),
    ]
    if shown.drifted:
        figures.insert(1, ("Accuracy on the held-out drifted samples, with 95 % bounds", _accuracy(shown.drifted)))
    pictures = "".join(
        f'<section class="card"><h2>{html.escape(title)}</h2>{_div(figure, i)}</section>'
        for i, (title, figure) in enumerate(figures)
    )
    title = html.escape(f"{shown.certificate.model}-{shown.certificate.version}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body><main>{_head(shown.certificate)}"
        f'<div class="grid">{pictures}</div>{_gate_table(shown.certificate)}{_parity_table(shown.parity)}'
        f"{_figure_table(shown.certificate)}</main><script>{_FIT}</script></body></html>"
    )


def _div(figure: go.Figure, index: int) -> str:
    text: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{index}",
        config={"displayModeBar": False, "responsive": True},
    )
    return text


def _plain(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        height=_HEIGHT_PX,
        margin={"l": 55, "r": 20, "t": 28, "b": 45},
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.12},
    )
    return figure


def _colour(name: str) -> str:
    return _FLOAT if name == "float" else _INT8 if name == "int8" else _BASE


def _error(bars: Sequence[Bar]) -> dict[str, object]:
    bounds = [wilson(bar.right, bar.n, 0.95) for bar in bars]
    shares = [bar.right / bar.n for bar in bars]
    return {
        "type": "data",
        "array": [100 * (high - share) for (_, high), share in zip(bounds, shares, strict=True)],
        "arrayminus": [100 * (share - low) for (low, _), share in zip(bounds, shares, strict=True)],
    }


def _lowest(bars: Sequence[Bar]) -> float:
    low = min((wilson(bar.right, bar.n, 0.95)[0] for bar in bars), default=0.0)
    return max(0.0, 100 * low - 3)


def _accuracy(bars: Sequence[Bar]) -> go.Figure:
    figure = go.Figure(
        go.Scatter(
            x=[f"{bar.name}<br>n={bar.n}" for bar in bars],
            y=[100 * bar.right / bar.n for bar in bars],
            error_y={**_error(bars), "thickness": 2, "width": 12},
            mode="markers+text",
            marker={"size": 16, "color": [_colour(bar.name) for bar in bars]},
            text=[f"  {100 * bar.right / bar.n:.2f} %" for bar in bars],
            textposition="middle right",
        )
    )
    figure.update_yaxes(title="accuracy in %", range=[_lowest(bars), 100.5])
    figure.update_xaxes(range=[-0.6, len(bars) - 0.2])
    return _plain(figure)


def _size_latency(figures: Mapping[str, float]) -> go.Figure:
    figure = go.Figure()
    pictures = [("size_bytes", 1e-3, "size in kB", "{:.1f}"), ("latency_p50_ms", 1.0, "latency p50 in ms", "{:.3f}"),
                ("latency_p95_ms", 1.0, "latency p95 in ms", "{:.3f}")]  # fmt: skip
    for i, (name, factor, title, form) in enumerate(pictures, start=1):
        values = [figures.get(f"float_{name}"), figures.get(name)]
        known = [None if value is None else value * factor for value in values]
        figure.add_bar(
            x=["float", "int8"], y=known, xaxis=f"x{i}", yaxis=f"y{i}", marker_color=[_FLOAT, _INT8],
            text=["not measured" if value is None else form.format(value) for value in known],
            textposition="auto", textangle=0, cliponaxis=False,
        )  # fmt: skip
        figure.update_layout({f"xaxis{i if i > 1 else ''}": {"title": title}})
    figure.update_layout(grid={"rows": 1, "columns": 3, "pattern": "independent"}, showlegend=False)
    return _plain(figure)


def _slices(slices: Mapping[str, Sequence[Bar]]) -> go.Figure:
    figure = go.Figure()
    names = [bar.name for bar in next(iter(slices.values()), ())]
    for i, name in enumerate(names):
        bars = [row[i] for row in slices.values()]
        figure.add_bar(
            x=[f"{_short(label)}<br>n={row[i].n}" for label, row in slices.items()],
            y=[100 * bar.right / bar.n for bar in bars],
            error_y=_error(bars),
            name=name,
            marker_color=_colour(name),
        )
    figure.update_yaxes(title="accuracy in %", range=[_lowest([bar for row in slices.values() for bar in row]), 100.5])
    figure.update_layout(barmode="group")
    return _plain(figure)


def _short(label: str) -> str:
    """Return a long name as its two ends, so that names that begin alike stay apart."""
    keep = _NAME_CHARACTERS // 2
    return label if len(label) <= _NAME_CHARACTERS else f"{label[:keep]}…{label[-keep:]}"


def _confusion(counts: NDArray[np.int64], names: tuple[str, ...]) -> go.Figure:
    rows = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = go.Figure(
        go.Heatmap(
            z=100 * counts / rows, x=list(names), y=list(names), colorscale="Blues", zmin=0, zmax=100,
            text=np.where(counts > 0, counts.astype(str), ""), texttemplate="%{text}", colorbar={"title": "% of row"},
        )
    )  # fmt: skip
    figure.update_xaxes(title="predicted", type="category")
    figure.update_yaxes(title="label", type="category", autorange="reversed")
    return _plain(figure)


def _head(certificate: Certificate) -> str:
    figures = certificate.figures
    tiles = [
        ("accuracy, int8", _percent(figures.get("accuracy")), f"float {_percent(figures.get('float_accuracy'))}"),
        ("drop, upper bound 95 %", _percent(figures.get("drop_upper")), f"measured {_percent(figures.get('drop'))}"),
        (
            "size",
            _times(figures.get("float_size_bytes"), figures.get("size_bytes"), ("smaller", "larger")),
            _kilobytes(figures),
        ),
        (
            "latency p50",
            _times(figures.get("float_latency_p50_ms"), figures.get("latency_p50_ms"), ("faster", "slower")),
            f"{figures.get('float_latency_p50_ms', 0):.3f} → {figures.get('latency_p50_ms', 0):.3f} ms, one image",
        ),
        ("in int8", _percent(figures.get("int8_macs_ratio")), "of multiplications, after the runtime's optimiser"),
    ]
    shown = "".join(
        f'<div class="tile"><span>{html.escape(name)}</span><b>{html.escape(value)}</b>'
        f"<span>{html.escape(note)}</span></div>"
        for name, value, note in tiles
    )
    colour, title = _COLOURS.get(certificate.verdict, "#59636e"), f"{certificate.model}-{certificate.version}"
    return (
        f'<h1>{html.escape(title)} <span class="badge" style="background:{colour}">'
        f'{html.escape(certificate.verdict.upper())}</span></h1><div class="muted">against '
        f'{html.escape(certificate.baseline)}</div><div class="tiles">{shown}</div>'
    )


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.2f} %"


def _times(before: float | None, after: float | None, words: tuple[str, str]) -> str:
    if not before or not after:
        return _NONE
    return f"{before / after:.2f} x {words[0]}" if after <= before else f"{after / before:.2f} x {words[1]}"


def _kilobytes(figures: Mapping[str, float]) -> str:
    return f"{figures.get('float_size_bytes', 0) / 1000:.1f} → {figures.get('size_bytes', 0) / 1000:.1f} kB"


def _gate_table(certificate: Certificate) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(line.name)}{html.escape(f' on {line.target}' if line.target else '')}</td>"
        f'<td><span class="badge" style="background:{_COLOURS.get(line.verdict, "#59636e")}">'
        f"{html.escape(line.verdict)}</span></td><td>{html.escape(line.text)}</td></tr>"
        for line in certificate.gates
    )
    head = "<tr><th>gate</th><th>verdict</th><th>why</th></tr>"
    return f'<section class="card"><h2>Gates</h2><table>{head}{rows}</table></section>'


def _parity_table(pairs: Sequence[Pair]) -> str:
    rows = "".join(
        f'<tr><td>{html.escape(pair.first)} ↔ {html.escape(pair.second)}</td><td class="n">{pair.max_abs:.3g}</td>'
        f'<td class="n">{pair.cosine:.6f}</td><td class="n">{_percent(pair.flip_ratio)}</td></tr>'
        for pair in pairs
    )
    columns = ("largest difference of logits", "lowest cosine", "flips")
    head = "<tr><th>pair</th>" + "".join(f'<th class="n">{column}</th>' for column in columns) + "</tr>"
    return f'<section class="card"><h2>Parity</h2><table>{head}{rows}</table></section>'


def _figure_table(certificate: Certificate) -> str:
    rows = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="n">{value:,.6g}</td></tr>'
        for name, value in sorted(certificate.figures.items())
    )
    return f'<section class="card"><h2>All figures</h2><table>{rows}</table></section>'
