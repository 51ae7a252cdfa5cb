"""The report of a detection: F1 with bounds, precision against recall by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from compressor.measurement.predictions import Compared, Predictions
from compressor.measurement.saliency import Flip
from compressor.report import phrases
from compressor.report.contents import Drawings, ErrorBar, Picture
from compressor.report.pictures import plain
from compressor.statistics import detections
from compressor.tasks.detection import drawing
from compressor.tasks.detection.evidence import matched, threshold_of
from wire.manifest import Manifest

_REPLICATES = 400
_HOVER = "recall %{x:.3f}, precision %{y:.3f}, score %{customdata:.2f}"
_DOTS = 400  # of a curve, at most


def bar(name: str, said: Predictions, labels: NDArray[Any]) -> ErrorBar:
    """Return the F1 of one model, with bounds by a bootstrap over pictures."""
    counts = detections.counts(matched(said, labels, (0.5,)), threshold_of(said), len(labels))
    rng, pictures = np.random.default_rng(0), len(labels)
    drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=_REPLICATES).astype(float)
    low, high = np.quantile(counts.f1(drawn), [0.025, 0.975]).tolist()
    return ErrorBar(
        name=name, value=float(counts.f1()[0]), bounds=(low, high), n=pictures, what="F1 at an overlap of 0.5"
    )


def answers(gate_set: Compared, names: tuple[str, ...]) -> Picture:
    """Return precision against recall of each class, at an overlap of .5."""
    figure = go.Figure()
    for kind, one in matched(gate_set.candidate, gate_set.labels, (0.5,)).items():
        total = int(one.positives.sum())
        if not total or not len(one.scores):
            continue
        right = np.cumsum(one.hits[0])
        some = np.unique(np.linspace(0, len(right) - 1, _DOTS).astype(int))
        precision = (right / np.arange(1, len(right) + 1))[some]
        area = float(detections.average_precision(one)[0])
        figure.add_scatter(
            x=(right / total)[some].tolist(), y=precision.tolist(), mode="lines", name=f"{names[kind]} ({area:.3f})",
            customdata=one.scores[some].tolist(), hovertemplate=_HOVER,
        )  # fmt: skip
    figure.update_xaxes(title="recall", range=[0, 1])
    figure.update_yaxes(title="precision", range=[0, 1.02])
    return Picture("Precision and recall (compressed, gate split; area in brackets)", plain(figure, height_px=380))


def flips(gate_set: Compared) -> tuple[Flip, ...] | None:
    """Return None: a picture with boxes has no class that could flip."""
    del gate_set
    return None


def drawings(gate_set: Compared, image_of: Callable[[int], NDArray[np.uint8]], names: tuple[str, ...]) -> Drawings:
    """Return the boxes lost and won on the first pictures, the worst first.

    ``image_of``: the picture of a row, uint8 (H, W, 3).
    """
    found = drawing.differences(gate_set)
    return Drawings(
        title="Boxes lost and won",
        text=drawing.summary(found, gate_set),
        legend={
            "lost": drawing.LOST, "won": drawing.WON, "false, of the compressed model alone": drawing.FALSE,
            "labelled": drawing.TRUTH,
        },
        pictures=[
            (drawing.drawn(image_of(one.row), one), drawing.caption(one, names)) for one in found[: drawing.SHOWN]
        ],
    )  # fmt: skip


def tiles(figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
    """Return mAP and F1, and the upper bounds of their drops."""
    return [
        ("mAP at 0.5, compressed", phrases.percent(figures.get("map")),
         f"float {phrases.percent(figures.get('float_map'))}"),
        ("mAP drop at most", phrases.percent(figures.get("detection_map_drop_upper")),
         f"measured {phrases.percent(figures.get('detection_map_drop'))}; {_resolution(figures)}"),
        ("F1, compressed", phrases.percent(figures.get("f1")),
         f"float {phrases.percent(figures.get('float_f1'))}; scores from {figures.get('threshold', 0):.2f} on"),
    ]  # fmt: skip


def _resolution(figures: Mapping[str, float]) -> str:
    """Return the least drop that this many pictures can tell from none."""
    upper, measured = (figures.get(f"detection_map_drop{end}") for end in ("_upper", ""))
    said = f"{figures.get('sources_gate', 0):,.0f} pictures"
    return (
        said if upper is None or measured is None else f"{said} tell drops from {phrases.percent(upper - measured)} on"
    )


def goodness(value: float) -> str:
    """Return a mean F1, as text."""
    return phrases.percent(value)


def purpose(manifest: Manifest, sense: str) -> str:
    """Return what a model finds, as text."""
    return f"finds {', '.join(manifest.labels)} in inputs ({sense}), each with a box"
