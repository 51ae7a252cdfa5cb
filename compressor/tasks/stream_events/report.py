"""The report of events in streams: recall with bounds, and the course of a recording: truth, float and compressed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from compressor.data._event_windows import AT_S, RECORDING
from compressor.gates.stream_events import FALSE_ACCEPTS, RECALL, RECALL_DROP, rate
from compressor.measurement.predictions import Compared, Predictions
from compressor.measurement.saliency import Flip
from compressor.report import phrases
from compressor.report.contents import Bar, Picture
from compressor.report.pictures import plain
from compressor.tasks.stream_events.evidence import Heard, heard, truth
from wire.manifest import Manifest

_COLOURS = (
    "#2f81f7",
    "#e5534b",
    "#3fb950",
    "#d29922",
    "#a371f7",
    "#db61a2",
    "#768390",
    "#39c5cf",
    "#f0883e",
    "#6e40c9",
)
_FALSE = "#e5534b"
_DOTS = 4000  # of the curve, at most


def bar(name: str, said: Predictions, labels: NDArray[Any]) -> Bar:
    """Return the number of events that one model detects."""
    found = heard(said, labels).found
    return Bar(name, int(found.sum()), len(found))


def answers(gate_set: Compared, names: tuple[str, ...]) -> Picture:
    """Return the recording with the most that went wrong: its events, and what both models detected when."""
    labels, events = gate_set.labels, truth(gate_set.labels)
    models = {"float": heard(gate_set.float_model, labels), "compressed": heard(gate_set.candidate, labels)}
    recording = _worst(models.values(), events.recordings, labels)
    figure = go.Figure()
    rows = np.flatnonzero(labels[:, RECORDING] == recording)
    rows = rows[:: max(1, len(rows) // _DOTS)]
    chances = np.exp(gate_set.candidate.logits[rows, 1:].astype(np.float64)).max(axis=1)
    figure.add_scatter(
        x=labels[rows, AT_S].tolist(), y=(chances - 1.2).tolist(), mode="lines", name="probability (compressed)",
        line={"width": 1, "color": "#768390"}, hovertemplate="%{x:.1f} s<extra></extra>",
    )  # fmt: skip
    for number in np.flatnonzero(events.recordings == recording).tolist():
        kind = int(events.labels[number])
        figure.add_scatter(
            x=[events.starts_s[number], events.ends_s[number]], y=[2, 2], mode="lines+text", showlegend=False,
            text=[names[kind], ""], textposition="top right", line={"width": 9, "color": _colour(kind)},
            hovertemplate=f"{names[kind]}, %{{x:.2f}} s<extra></extra>",
        )  # fmt: skip
    for height, (name, one) in zip((1, 0.4), models.items(), strict=True):
        _add_detections(figure, one, recording, names, (height, name))
    figure.update_xaxes(title="seconds")
    figure.update_yaxes(
        tickvals=[2, 1, 0.4, -0.7], ticktext=["truth", *models, "probability"], range=[-1.4, 2.6], showgrid=False
    )
    source = "" if gate_set.sources is None else f" {gate_set.sources[rows[0]]}"
    title = f"Recording{source}: truth, and detections (a cross: false accept; gate split)"
    return Picture(title, plain(figure, height_px=340), wide=True)


def _add_detections(
    figure: go.Figure, one: Heard, recording: int, names: tuple[str, ...], row: tuple[float, str]
) -> None:
    here = one.points.recordings == recording
    for false, symbol in ((False, "circle"), (True, "x")):
        some = np.flatnonzero(here & ((one.meets < 0) == false))
        kinds = one.points.labels[some].tolist()
        figure.add_scatter(
            x=one.points.at_s[some].tolist(), y=[row[0]] * len(some), mode="markers", showlegend=False,
            marker={"symbol": symbol, "size": 11, "color": [_FALSE if false else _colour(kind) for kind in kinds]},
            text=[names[kind] for kind in kinds], hovertemplate=f"{row[1]}: %{{text}}, %{{x:.2f}} s<extra></extra>",
        )  # fmt: skip


def _worst(models: Iterable[Heard], of_events: NDArray[np.int64], labels: NDArray[Any]) -> int:
    """Return the recording with the most missed events and false accepts of both models; of equals, the most events."""
    faults: dict[int, float] = dict.fromkeys(np.unique(labels[:, RECORDING]).astype(int).tolist(), 0.0)
    for recording in of_events.tolist():
        faults[recording] += 1e-3
    for one in models:
        for recording in [*of_events[~one.found].tolist(), *one.false.recordings.tolist()]:
            faults[recording] += 1
    return max(faults, key=lambda recording: faults[recording])


def _colour(kind: int) -> str:
    return _COLOURS[(kind - 1) % len(_COLOURS)]


def flips(gate_set: Compared) -> tuple[Flip, ...] | None:
    """Return None: an event has no row that could flip."""
    del gate_set
    return None


def tiles(figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
    """Return recall, false accepts an hour and the upper bound of the drop of the recall."""
    low, high = figures.get(f"{RECALL}_low", 0.0), figures.get(f"{FALSE_ACCEPTS}_high")
    bound = phrases.NOT_MEASURED if high is None else f"at most {rate(high)}"
    own = figures.get(FALSE_ACCEPTS)
    return [
        ("events detected, compressed", phrases.percent(figures.get(RECALL)),
         f"at least {phrases.percent(low)}; float {phrases.percent(figures.get(f'float_{RECALL}'))}"),
        ("false accepts, compressed", phrases.NOT_MEASURED if own is None else rate(own),
         f"{bound} in {figures.get('hours', 0):.3g} hours; float {rate(figures.get(f'float_{FALSE_ACCEPTS}', 0))}"),
        ("drop of recall at most (95 %)", phrases.percent(figures.get(f"{RECALL_DROP}_upper")),
         f"measured {phrases.percent(figures.get(RECALL_DROP))}; threshold {figures.get('threshold', 0):.3g}"),
    ]  # fmt: skip


def goodness(value: float) -> str:
    """Return the share of right windows, as text."""
    return phrases.percent(value)


def purpose(manifest: Manifest, sense: str) -> str:
    """Return which events a model finds, as text."""
    return f"finds events ({', '.join(manifest.labels[1:])}) in a stream of inputs ({sense})"
