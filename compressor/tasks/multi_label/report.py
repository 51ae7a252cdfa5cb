"""The report of a multi-label recipe: F1 with bounds, and a table of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from compressor.measurement.predictions import Compared, Predictions
from compressor.measurement.saliency import Flip
from compressor.report import phrases
from compressor.report.contents import ErrorBar, Picture
from compressor.report.pictures import plain
from compressor.tasks.multi_label.evidence import counts_of, label_precisions, sets_of
from edge_agent.tasks.multi_label import HALF
from wire.manifest import Manifest

_REPLICATES = 400
_ROW_PX, _MARGIN_PX = 30, 110
_HEADS = ("label", "rows with it", "average precision", "float", "threshold", "recall", "float", "precision", "float")


def bar(name: str, said: Predictions, labels: NDArray[np.bool_]) -> ErrorBar:
    """Return the F1 of one model over all labels, with bounds by a bootstrap over rows."""
    counts, rows = counts_of(said, labels), len(labels)
    drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=_REPLICATES).astype(float)
    low, high = np.quantile(counts.f1(drawn), [0.025, 0.975]).tolist()
    return ErrorBar(name=name, value=float(counts.f1()[0]), bounds=(low, high), n=rows)


def answers(gate_set: Compared, names: tuple[str, ...]) -> Picture:
    """Return a table with a line for each label: its average precision, threshold, recall and precision."""
    labels, models = gate_set.labels, (gate_set.candidate, gate_set.float_model)
    areas = [label_precisions(said, labels) for said in models]
    rows = [
        (
            name, str(int(labels[:, at].sum())), _share(areas[0][at]), _share(areas[1][at]),
            f"{(gate_set.candidate.thresholds or (HALF,) * len(names))[at]:.3f}",
            *(_ratio(sets_of(said)[:, at], labels[:, at], of_said=of_said)
              for of_said in (False, True) for said in models),
        )
        for at, name in enumerate(names)
    ]  # fmt: skip
    figure = go.Figure(
        go.Table(
            header={"values": list(_HEADS)}, cells={"values": [list(column) for column in zip(*rows, strict=True)]}
        )
    )
    height = _MARGIN_PX + _ROW_PX * len(names)
    return Picture("Labels (compressed beside float, gate split)", plain(figure, height_px=height), wide=True)


def _share(value: float) -> str:
    return phrases.percent(value if np.isfinite(value) else None)


def _ratio(said: NDArray[np.bool_], there: NDArray[np.bool_], *, of_said: bool) -> str:
    """Return the share of right ones of the answers (precision), or of the rows with the label (recall), as text."""
    total = int((said if of_said else there).sum())
    return phrases.percent(int((said & there).sum()) / total if total else None)


def flips(gate_set: Compared) -> tuple[Flip, ...] | None:
    """Return None: a row with several labels has no class that could flip."""
    del gate_set
    return None


def tiles(figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
    """Return F1, the upper bound of its drop, and the mean average precision."""
    return [
        ("F1, compressed", phrases.percent(figures.get("f1")), f"float {phrases.percent(figures.get('float_f1'))}"),
        ("F1 drop at most", phrases.percent(figures.get("label_f1_drop_upper")),
         f"measured {phrases.percent(figures.get('label_f1_drop'))}"),
        ("mean average precision", phrases.percent(figures.get("map")),
         f"float {phrases.percent(figures.get('float_map'))}"),
    ]  # fmt: skip


def goodness(value: float) -> str:
    """Return a mean F1, as text."""
    return phrases.percent(value)


def purpose(manifest: Manifest, sense: str) -> str:
    """Return the labels that a model looks for, as text."""
    return f"says which of {', '.join(manifest.labels)} are in inputs ({sense}), several or none"
