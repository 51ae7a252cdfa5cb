"""The pictures of a report, as plotly figures with a transparent background; the page's style sets the colours."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from compressor.report.contents import Bar, Bars, ErrorBar
from compressor.report.phrases import short

COLOURS = {"float": "#8c959f", "compressed": "#2f81f7"}
BASE = "#d29922"
CLEAR = "rgba(0,0,0,0)"
_ROW_PX, _FRAME_PX = 34, 96
_SPREAD = 0.24  # of a row, between two models


def accuracy(bars: Bars) -> go.Figure:
    """Return one line per model: the accuracy (for a regression the error) and its 95 % bounds."""
    return _intervals({bar.name: [bar] for bar in bars}, named=False)


def slices(rows: Mapping[str, Bars]) -> go.Figure:
    """Return one line per slice and model, the models side by side."""
    labelled = {f"{short(name)}  <i>n={bars[0].n}</i>": bars for name, bars in rows.items() if bars}
    return _intervals(labelled, named=True)


def _intervals(rows: Mapping[str, Bars], *, named: bool) -> go.Figure:
    """Return thick lines from lower to upper bound with a dot at the estimate; ``rows`` from top to bottom."""
    figure, seen = go.Figure(), set()
    for place, bars in enumerate(rows.values()):
        for i, bar in enumerate(bars):
            y = -place - _SPREAD * (i - (len(bars) - 1) / 2)
            _interval(figure, bar, y, legend=named and bar.name not in seen)
            seen.add(bar.name)
    every = [bar for bars in rows.values() for bar in bars]
    low, high = min(bar.bounds[0] for bar in every), max(bar.bounds[1] for bar in every)
    first = every[0]
    errors, what = (True, first.what) if isinstance(first, ErrorBar) else (False, "accuracy in %")
    room = max(high - low, 1e-9 if errors else 1.0)
    figure.update_xaxes(range=[low - 0.08 * room, high + 0.22 * room], title=f"{what}, with 95 % bounds")
    figure.update_yaxes(
        tickvals=[-place for place in range(len(rows))], ticktext=list(rows), showgrid=False, zeroline=False,
        range=[-len(rows) + 0.4, 0.6],
    )  # fmt: skip
    lines = len(rows) if not named else sum(map(len, rows.values())) * 0.8
    return plain(figure, height_px=int(_FRAME_PX + 20 + _ROW_PX * max(lines, 3)), left_px=20)


def _interval(figure: go.Figure, bar: Bar | ErrorBar, y: float, *, legend: bool) -> None:
    (low, high), colour = bar.bounds, COLOURS.get(bar.name, BASE)
    said = f"{bar.name}: {bar.told}<extra></extra>"
    figure.add_scatter(
        x=[low, high], y=[y, y], mode="lines", line={"color": colour, "width": 9}, opacity=0.35, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=[bar.value], y=[y], mode="markers", marker={"size": 12, "color": colour}, name=bar.name,
        hovertemplate=said, showlegend=legend,
    )  # fmt: skip
    figure.add_scatter(
        x=[high], y=[y], mode="text", text=[f"  {bar.said}"], textposition="middle right", hoverinfo="skip",
        showlegend=False, cliponaxis=False,
    )  # fmt: skip


def size_latency(figures: Mapping[str, float]) -> go.Figure:
    """Return size and latency of float and compressed model, each picture with its own axis from zero."""
    figure = go.Figure()
    pictures = (
        ("size_bytes", 1e-3, "size<br>in kB", "{:.1f}"),
        ("latency_p50_ms", 1.0, "latency p50<br>in ms", "{:.3f}"),  # two lines: three such titles fit side by side
        ("latency_p95_ms", 1.0, "latency p95<br>in ms", "{:.3f}"),
    )
    for i, (name, factor, title, form) in enumerate(pictures, start=1):
        values = [figures.get(f"float_{name}"), figures.get(name)]
        known = [None if value is None else value * factor for value in values]
        figure.add_bar(
            x=["float", "compressed"], y=known, xaxis=f"x{i}", yaxis=f"y{i}", marker_color=list(COLOURS.values()),
            text=["not measured" if value is None else form.format(value) for value in known],
            textposition="outside", cliponaxis=False,
        )  # fmt: skip
        top = max((value for value in known if value is not None), default=1.0)
        axis = str(i) if i > 1 else ""
        figure.update_layout(
            {
                f"xaxis{axis}": {"title": title},
                f"yaxis{axis}": {"range": [0, 1.15 * top], "showticklabels": False},
            }
        )
    figure.update_layout(grid={"rows": 1, "columns": 3, "pattern": "independent"}, showlegend=False)
    return plain(figure, height_px=300)


def plain(figure: go.Figure, *, height_px: int, left_px: int = 48) -> go.Figure:
    """Return ``figure`` in the page's style, changed in place."""
    figure.update_layout(
        height=height_px, margin={"l": left_px, "r": 60, "t": 28, "b": 48}, template="plotly_white",
        paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, bargap=0.35,
    )  # fmt: skip
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure
