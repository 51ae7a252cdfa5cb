"""The drift reference: the distribution of every stream without drift, computed by the exported artifact itself.

Decides edges (equal mass on the training split), projections and counts (on the reference split). Runs no model:
predictions come from ``measurement``, stream values and counters from the same code that the device runs
(``edge_agent.inference.drift_counters``), so that an artifact never drifts from its own reference. All numbers are
rounded to float32 before use, because the device reads them as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.measurement.predictions import Predictions
from edge_agent.inference import drift_counters
from edge_agent.inference.support import Support, limit_of
from edge_agent.tasks import DeviceTask
from wire.histogram import BINS
from wire.reference import EDGES, PROJECTIONS, Context, Reference

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

MIN_REFERENCE_ROWS = 2000
_MIN_SPREAD = 1e-6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DeviceSamples:
    """N samples as the device sees them.

    ``pixels``: uint8 (N, H, W, 3) from ``preprocess.resize_pixels``; ``labels``: int64 (N,), or float32 (N, D) of a
    regression; ``predictions`` of the exported artifact; ``n_effective``: how many samples are independent; ``name``:
    of the context.
    """

    pixels: Pixels
    labels: NDArray[Any]
    predictions: Predictions
    n_effective: int
    name: str = "default"


def make_reference(
    artifact_sha256: str,
    task: DeviceTask,
    train: DeviceSamples,
    contexts: Sequence[DeviceSamples],
    temperature: float = 1.0,
) -> Reference:
    """Return the reference profile of an artifact that answers ``task``.

    ``train`` determines edges and projections; each of ``contexts`` its own counts; the first one, held out and
    labelled, the calibration table and the risk, if the task has classes. The limit of support comes from all contexts:
    an input like those of any is inside what the model was trained on.
    """
    temperature = float(np.float32(temperature))
    has_embedding = train.predictions.embedding.shape[1] > 0
    projection = _projection(task, train.predictions.embedding, temperature) if has_embedding else None
    specs = drift_counters.stream_specs(task, has_embedding=has_embedding)
    rows = _values(train, projection or drift_counters.no_projection(task, temperature))
    fixed = {stream.name: stream.edges for stream in task.streams if stream.edges}
    bare = Reference(
        artifact_sha256=artifact_sha256,
        streams=specs,
        classes=task.classes,
        temperature=temperature,
        residual_scale=projection.residual_scale if projection else 1.0,
        edges=tuple(fixed.get(one.name) or equal_mass_edges(column) for one, column in zip(specs, rows.T, strict=True)),
        projection_mean=_tuple(projection.mean) if projection else (),
        projection=tuple(_tuple(row) for row in projection.rows) if projection else (),
        projection_scale=_tuple(projection.scale) if projection else (),
    )
    return _counted(bare, task, contexts)


def _counted(bare: Reference, task: DeviceTask, contexts: Sequence[DeviceSamples]) -> Reference:
    projection = drift_counters.projection_of(bare, task)
    counted: list[Context] = []
    all_rows: list[Floats] = []
    for seen in contexts:
        rows = _values(seen, projection)
        all_rows.append(rows)
        counter = drift_counters.Counter(bare, task)
        counter.count(rows)
        taken = counter.take()
        counts = taken.values[: len(bare.streams) * BINS]
        counted.append(Context(name=seen.name, n=taken.n, n_effective=seen.n_effective, counts=counts))
    support = Support.of(bare)
    distances = [support.distance(row) for rows in all_rows for row in rows.tolist()]
    limit, rate = limit_of(distances, sum(context.n_effective for context in counted))
    whole = replace(bare, contexts=tuple(counted), support_limit=limit, support_rate=rate)
    if not bare.classes:
        return whole
    right, seen_cells, risk = _table(bare, all_rows[0], contexts[0].labels)
    return replace(whole, table_right=right, table_seen=seen_cells, risk=risk)


def _values(seen: DeviceSamples, projection: drift_counters.Projection) -> Floats:
    embedding = seen.predictions.embedding if seen.predictions.embedding.shape[1] else None
    return drift_counters.values(seen.pixels, seen.predictions.logits, embedding, projection)


def _projection(task: DeviceTask, embedding: NDArray[np.float32], temperature: float) -> drift_counters.Projection:
    """Return the first 8 principal directions of (N, D), each scaled to unit variance, and the residual's scale.

    Source: principal component analysis by singular values; the largest component fixes the sign, so that equal inputs
    give equal bytes.
    """
    mean = _float32(embedding.mean(axis=0, dtype=np.float64))
    centred = embedding - mean
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    kept = min(PROJECTIONS, len(singular))
    rows = np.zeros((PROJECTIONS, embedding.shape[1]))
    rows[:kept] = directions[:kept]
    largest = np.abs(rows).argmax(axis=1)
    rows = _float32(rows * np.where(rows[np.arange(PROJECTIONS), largest] < 0, -1.0, 1.0)[:, None])
    scale = np.ones(PROJECTIONS)
    scale[:kept] = np.maximum(singular[:kept] / np.sqrt(len(embedding)), _MIN_SPREAD)
    along = centred @ rows.T
    rest = np.sqrt(np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0))
    residual = float(np.float32(max(float(np.sqrt((rest**2).mean())), _MIN_SPREAD)))
    return drift_counters.Projection(
        task=task, mean=mean, rows=rows, scale=_float32(scale), residual_scale=residual, temperature=temperature
    )


def equal_mass_edges(values: Floats) -> tuple[float, ...]:
    """Return 15 strictly ascending float32 edges that divide the finite ``values`` into 16 bins of about equal mass.

    If values repeat (a grey image has no colour difference), fewer edges suffice; the others are above the largest
    value, so that a value never seen before falls into a bin of its own.
    """
    finite = values[np.isfinite(values)].astype(np.float32)
    if not len(finite):
        finite = np.zeros(1, np.float32)
    wanted = np.quantile(finite, np.arange(1, BINS) / BINS, method="higher").astype(np.float32)
    edges = sorted({float(edge) for edge in wanted})
    if len(edges) < EDGES:
        top = np.nextafter(finite.max(), np.float32(np.inf))
        edges = sorted({*edges, float(top)})
        step = max(float(finite.max() - finite.min()), abs(float(top)) * 0.05, 1e-3)
        while len(edges) < EDGES:
            edges.append(float(np.float32(edges[-1] + step)))
            step *= 2
    return tuple(edges[:EDGES])


def _table(bare: Reference, rows: Floats, labels: NDArray[np.int64]) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    names = [spec.name for spec in bare.streams]
    predicted = rows[:, names.index("predicted")].astype(np.int64)
    column = drift_counters.confidence_bins(rows[:, names.index("confidence")], bare.confidence_bins)
    cells, right = predicted * bare.confidence_bins + column, predicted == labels
    total = bare.classes * bare.confidence_bins
    seen_cells = np.bincount(cells, minlength=total)
    right_cells = np.bincount(cells[right], minlength=total)
    return tuple(right_cells.tolist()), tuple(seen_cells.tolist()), float(np.float32(1 - right.mean()))


def _float32(values: Floats) -> Floats:
    return values.astype(np.float32).astype(np.float64)


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
