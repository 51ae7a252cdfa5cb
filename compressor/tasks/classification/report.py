"""The report of a classification: accuracies, the confusion matrix, flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from compressor.measurement import saliency
from compressor.measurement.predictions import Compared, Predictions
from compressor.measurement.saliency import Flip
from compressor.report import phrases
from compressor.report.contents import Bar, Picture
from compressor.report.pictures import CLEAR, plain
from compressor.tasks.classification.evidence import confusion
from wire.manifest import Manifest

WIDE_FROM = 25
"""With this many classes the matrix uses the page's full width, without numbers in the cells."""
_RIGHT = [[0, "rgba(47,129,247,0.06)"], [1, "rgba(47,129,247,0.9)"]]
_WRONG = [[0, CLEAR], [0.001, "rgba(229,83,75,0.35)"], [1, "rgba(229,83,75,1)"]]


def bar(name: str, said: Predictions, labels: NDArray[np.int64]) -> Bar:
    """Return the number of correct rows of one model."""
    return Bar(name, int((said.classes == labels).sum()), len(labels))


def answers(gate_set: Compared, names: tuple[str, ...]) -> Picture:
    """Return the confusion matrix as a picture."""
    counts = confusion(gate_set.candidate, gate_set.labels, len(names))
    title = "What is taken for what (compressed, gate split)"
    return Picture(title, confusion_picture(counts, names), wide=len(names) >= WIDE_FROM)


def flips(gate_set: Compared) -> tuple[Flip, ...] | None:
    """Return the rows whose class compression changed."""
    return saliency.flips(gate_set)


def tiles(figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
    """Return the accuracy, and the upper bound of its drop."""
    bounds = f"{100 * figures.get('accuracy_low', 0):.1f} to {100 * figures.get('accuracy_high', 1):.1f} %"
    return [
        ("accuracy, compressed", phrases.percent(figures.get("accuracy")),
         f"{bounds}; float {phrases.percent(figures.get('float_accuracy'))}"),
        ("drop at most (95 %)", phrases.percent(figures.get("drop_upper")),
         f"measured {phrases.percent(figures.get('drop'))}"),
    ]  # fmt: skip


def goodness(value: float) -> str:
    """Return an accuracy in per cent, as text."""
    return phrases.percent(value)


def purpose(manifest: Manifest, sense: str) -> str:
    """Return the classes of a model, as text."""
    return f"sorts inputs ({sense}) into {len(manifest.labels)} classes ({', '.join(manifest.labels)})"


def confusion_picture(counts: NDArray[np.int64], names: Sequence[str]) -> go.Figure:
    """Return the confusion matrix: right in blue, by share of the row; wrong in red, by share of the worst cell."""
    right, places = np.eye(len(counts), dtype=bool), list(range(len(names)))
    few = len(names) < WIDE_FROM
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = go.Figure()
    for scale, mask in ((_RIGHT, right), (_WRONG, ~right)):
        figure.add_heatmap(
            z=np.where(mask & (counts > 0), shares, np.nan), x=places, y=places, colorscale=scale, zmin=0,
            zmax=1 if mask is right else max(float(shares[~right].max(initial=0)), 1e-9), showscale=False, xgap=2,
            ygap=2, text=np.where(mask & (counts > 0), counts.astype(str), ""), texttemplate="%{text}" if few else "",
            customdata=[[[label, predicted] for predicted in names] for label in names],
            hovertemplate="label %{customdata[0]}, predicted %{customdata[1]}: %{text}<extra></extra>",
        )  # fmt: skip
    said = {
        "tickvals": places,
        "ticktext": [phrases.short(name) for name in names],
        "showgrid": False,
        "zeroline": False,
    }
    figure.update_xaxes(title="predicted", **said)
    figure.update_yaxes(title="label", autorange="reversed", **said)
    made = plain(figure, height_px=max(320, 80 + 30 * len(names)) if few else 120 + 18 * len(names))
    return made if few else made.update_layout(font={"size": 10})
