"""The report of a regression: errors with bounds, predicted against true values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from numpy.typing import NDArray

from compressor.measurement.predictions import Compared, Predictions
from compressor.measurement.saliency import Flip
from compressor.report import phrases
from compressor.report.contents import ErrorBar, Picture
from compressor.report.pictures import BASE, plain
from compressor.tasks.regression.evidence import error_of
from wire.manifest import Manifest

_DOTS = 2000  # maximum number drawn of each value
_ERRORS = ("mae", "mae_low", "mae_high", "float_mae")
_INCREASE = ("error_increase", "error_increase_upper")


def bar(name: str, said: Predictions, labels: NDArray[Any]) -> ErrorBar:
    """Return the mean absolute error of one model."""
    found = error_of(said.logits, labels)
    return ErrorBar(name=name, value=found.mean, bounds=(found.low, found.high), n=found.n)


def answers(gate_set: Compared, names: tuple[str, ...]) -> Picture:
    """Return predictions against true values: one dot per sample, on the diagonal if it is exact."""
    wanted, said = gate_set.labels, gate_set.candidate.logits
    figure = go.Figure()
    for i, name in enumerate(names):
        figure.add_scatter(
            x=wanted[:_DOTS, i].astype(float).tolist(), y=said[:_DOTS, i].astype(float).tolist(), name=name,
            mode="markers", marker={"size": 5, "opacity": 0.6}, hovertemplate="true %{x:.5g}, said %{y:.5g}",
        )  # fmt: skip
    ends = [float(min(wanted.min(), said.min())), float(max(wanted.max(), said.max()))]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": BASE, "width": 1}, hoverinfo="skip", name="right")
    figure.update_xaxes(title="true value")
    figure.update_yaxes(title="predicted")
    return Picture("Predicted against true (compressed, gate split)", plain(figure, height_px=380))


def flips(gate_set: Compared) -> tuple[Flip, ...] | None:
    """Return None: numbers don't flip."""
    del gate_set
    return None


def tiles(figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
    """Return the error, and the upper bound of its increase."""
    said = {name: phrases.figure(name, figures.get(name)) for name in (*_ERRORS, *_INCREASE)}
    mean, low, high, float_error = (said[name] for name in _ERRORS)
    grown, most = (said[name] for name in _INCREASE)
    return [
        ("mean absolute error, compressed", mean, f"{low} to {high}; float {float_error}"),
        ("increase at most", most, f"measured {grown}"),
    ]


def goodness(value: float) -> str:
    """Return an error in standard deviations of the values, as text."""
    return f"{value:.4f} sd"


def purpose(manifest: Manifest, sense: str) -> str:
    """Return the values that a model predicts, as text."""
    return f"predicts {', '.join(manifest.values)} from inputs ({sense})"
