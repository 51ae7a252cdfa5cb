"""The report of anomalies: AUC with bounds, scores against the threshold, and the rows that are scored worst."""

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
from compressor.report.pictures import BASE, plain
from compressor.tasks.anomaly.evidence import alarms, area, scores_of
from compressor.tasks.anomaly.targets import ANOMALOUS, NORMAL
from wire.manifest import Manifest

_REPLICATES = 200
_BINS = 40
_SHOWN = 6  # of normal rows, and of anomalous ones
_SIDE = 96  # smaller pictures are magnified
_FRAME = 4
_WRONG, _RIGHT = (214, 69, 45), (58, 134, 96)


def bar(name: str, said: Predictions, labels: NDArray[Any]) -> ErrorBar:
    """Return the AUC of one model, with bounds by a bootstrap over rows; 0 without anomalous rows."""
    scores, rng = scores_of(said), np.random.default_rng(0)
    groups = [np.flatnonzero(labels == kind) for kind in (NORMAL, ANOMALOUS)]
    if not all(map(len, groups)):
        return ErrorBar(name=name, value=0.0, bounds=(0.0, 0.0), n=len(labels))
    drawn = []
    for _ in range(_REPLICATES):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        drawn.append(area(scores[rows], labels[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return ErrorBar(name=name, value=area(scores, labels), bounds=(low, high), n=len(labels))


def answers(gate_set: Compared, names: tuple[str, ...]) -> Picture:
    """Return the scores of normal and anomalous rows as histograms, with the threshold."""
    scores = scores_of(gate_set.candidate)
    low, high = min(0.0, float(scores.min())), max(0.0, float(scores.max()))
    edges = np.linspace(low, high + 1e-3 * (high - low) + 1e-9, _BINS + 1)
    figure = go.Figure()
    for kind, name in enumerate(names):
        rows = scores[gate_set.labels == kind]
        if not len(rows):
            continue
        shares = np.histogram(rows, edges)[0] / len(rows)
        figure.add_bar(
            x=((edges[:-1] + edges[1:]) / 2).tolist(), y=shares.tolist(), width=float(edges[1] - edges[0]), opacity=0.6,
            name=f"{name} ({len(rows)} rows)", hovertemplate="score %{x:.4g}: %{y:.1%}",
        )  # fmt: skip
    figure.add_vline(x=gate_set.candidate.fitted, line={"color": BASE, "dash": "dash"})
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title="score (the dashed line is the threshold)")
    figure.update_yaxes(title="share of rows", tickformat=".0%")
    return Picture("Scores (compressed, gate split)", plain(figure, height_px=380))


def drawings(gate_set: Compared, image_of: Callable[[int], NDArray[np.uint8]], names: tuple[str, ...]) -> Drawings:
    """Return the normal rows with the highest scores and the anomalous ones with the lowest, one of each source.

    ``image_of``: the picture of a row, uint8 (H, W, 3).
    """
    scores, said = scores_of(gate_set.candidate), alarms(gate_set.candidate)
    pictures = []
    for kind, sign in ((NORMAL, -1.0), (ANOMALOUS, 1.0)):
        for row in _worst(sign * scores, gate_set, kind):
            wrong = bool(said[row]) != bool(kind)
            told = {(NORMAL, True): ", a false alarm", (ANOMALOUS, True): ", missed"}.get((kind, wrong), "")
            caption = f"{names[kind]}, score {scores[row]:.4g}{told}"
            pictures.append((_framed(image_of(row), _WRONG if wrong else _RIGHT), caption))
    counts = [int((gate_set.labels == kind).sum()) for kind in (NORMAL, ANOMALOUS)]
    above = [int((said & (gate_set.labels == kind)).sum()) for kind in (NORMAL, ANOMALOUS)]
    text = (
        f"Of {counts[NORMAL]} normal rows {above[NORMAL]} are above the threshold, of {counts[ANOMALOUS]} anomalous "
        f"ones {above[ANOMALOUS]}. Normal rows with the highest scores, then anomalous rows with the lowest."
    )
    legend = {"wrong": f"rgb{_WRONG}", "right": f"rgb{_RIGHT}"}
    return Drawings(title="Worst rows", text=text, legend=legend, pictures=pictures)


def _worst(ranked: NDArray[np.float64], gate_set: Compared, kind: int) -> list[int]:
    """Return the rows of ``kind`` with the lowest values of ``ranked``, one of each source."""
    rows = np.flatnonzero(gate_set.labels == kind)
    rows = rows[np.argsort(ranked[rows], kind="stable")]
    owner = rows if gate_set.sources is None else gate_set.sources[rows]
    first = np.sort(np.unique(owner, return_index=True)[1])
    return [int(row) for row in rows[first][:_SHOWN]]


def _framed(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return ``image`` magnified to a visible size, in a frame."""
    times = max(1, -(-_SIDE // max(image.shape[:2])))
    larger = image.repeat(times, axis=0).repeat(times, axis=1)
    framed = np.empty((larger.shape[0] + 2 * _FRAME, larger.shape[1] + 2 * _FRAME, 3), np.uint8)
    framed[:] = colour
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = larger
    return framed


def flips(gate_set: Compared) -> tuple[Flip, ...] | None:
    """Return None: a score has no class."""
    del gate_set
    return None


def tiles(figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
    """Return AUC, detected anomalies and false alarms a day."""
    rate, stated = figures.get("false_alarms_per_day"), figures.get("stated_false_alarms_per_day", 0.0)
    return [
        ("AUC, compressed", phrases.percent(figures.get("auc")), f"float {phrases.percent(figures.get('float_auc'))}"),
        ("AUC drop at most", phrases.percent(figures.get("auc_drop_upper")),
         f"measured {phrases.percent(figures.get('auc_drop'))}"),
        ("false alarms a day", "none measured" if rate is None else f"{rate:.3g}",
         f"stated {stated:g}; threshold {figures.get('threshold', 0):.4g}"),
        ("anomalous rows detected", phrases.percent(figures.get("detected")),
         f"float {phrases.percent(figures.get('float_detected'))}"),
    ]  # fmt: skip


def goodness(value: float) -> str:
    """Return a mean score, as text."""
    return f"{abs(value):.4f}"


def purpose(manifest: Manifest, sense: str) -> str:
    """Return what a model does, as text."""
    del manifest
    return f"scores how unlike its normal inputs an input ({sense}) is, and says whether that is an anomaly"
