"""The drift reference: the distribution of every stream without drift, computed by the exported artifact itself.

Decides edges (equal mass on the training split), projections, counts (on the reference split), and which slices of the
data are a context of their own. Runs no model:
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
from wire.reference import EDGES, MAX_CONTEXTS, PROJECTIONS, Context, Reference

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]

MIN_REFERENCE_ROWS = 2000
MIN_CONTEXT_SOURCES = 30
"""A context of fewer independent samples has a sampling error of .7 standard deviations and more: it hides others."""
_MIN_SPREAD = 1e-6
_HELD = 64  # contexts at a time while slices are joined
_MAX_NAME = 120
_PRIOR = 0.5  # of a bin


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DeviceSamples:
    """N samples as the device sees them.

    ``pixels``: N of uint8 (H, W, 3) from ``preprocess.resize_pixels``, in an array or taken one by one; ``labels``:
    int64 (N,), or float32 (N, D) of a regression, None: not known; ``predictions`` of the exported artifact;
    ``sources``: str (N,), equal for samples that are not independent; ``contexts``: str (N,), the context of each
    sample: its slice, or one name for all.
    """

    pixels: Pixels
    labels: NDArray[Any] | None
    predictions: Predictions
    sources: NDArray[np.str_]
    contexts: NDArray[np.str_]


def make_reference(
    artifact_sha256: str,
    task: DeviceTask,
    train: DeviceSamples,
    parts: Sequence[DeviceSamples],
    temperature: float = 1.0,
) -> Reference:
    """Return the reference profile of an artifact that answers ``task``.

    ``train`` determines edges and projections; ``parts`` the counts of each of their contexts, at most 8 (more are
    joined); the first one, held out and labelled, the calibration table and the risk, if the task has classes. The
    limit of support comes from all parts: an input like those of any is inside what the model was trained on.
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
    return _counted(bare, task, parts)


def _counted(bare: Reference, task: DeviceTask, parts: Sequence[DeviceSamples]) -> Reference:
    projection = drift_counters.projection_of(bare, task)
    all_rows = [_values(seen, projection) for seen in parts]
    counted: list[Context] = []
    for seen, rows in zip(parts, all_rows, strict=True):
        of_part: list[Context] = []
        for name in np.unique(seen.contexts).tolist():
            here = seen.contexts == name
            counter = drift_counters.Counter(bare, task)
            counter.count(rows[here])
            taken = counter.take()
            counts = taken.values[: len(bare.streams) * BINS]
            effective = len(np.unique(seen.sources[here]))
            of_part.append(Context(name=name, n=taken.n, n_effective=effective, counts=counts))
        counted += joined_contexts(of_part, least_sources=MIN_CONTEXT_SOURCES)
    counted = joined_contexts(counted)
    support = Support.of(bare)
    distances = [support.distance(row) for rows in all_rows for row in rows.tolist()]
    limit, rate = limit_of(distances, sum(context.n_effective for context in counted))
    whole = replace(bare, contexts=tuple(counted), support_limit=limit, support_rate=rate)
    if not bare.classes:
        return whole
    if parts[0].labels is None:  # it is not known how often an answer is right
        nothing = (0,) * (bare.classes * bare.confidence_bins)
        return replace(whole, table_right=nothing, table_seen=nothing)
    right, seen_cells, risk = _table(bare, all_rows[0], parts[0].labels)
    return replace(whole, table_right=right, table_seen=seen_cells, risk=risk)


def joined_contexts(contexts: Sequence[Context], *, least_sources: int = 0) -> list[Context]:
    """Return at most 8 contexts: those of one name as one, and the most alike joined, with all their counts.

    Those of fewer than ``least_sources`` independent samples are joined to the one that is most like them, too. Alike
    are two whose joining loses least, by Ward's criterion on the square roots of the bins' shares, so that small ones,
    whose shares are uncertain, are joined first.
    Source: J. Ward, Journal of the American Statistical Association 58 (1963) 236-244; the Hellinger distance.
    """
    found: dict[str, Context] = {}
    for one in contexts:
        found[one.name] = _together(found[one.name], one) if one.name in found else one
    held: list[Context] = []
    for one in found.values():
        held.append(one)
        while len(held) > _HELD:
            held = _closest_joined(held, range(len(held)))
    while len(held) > 1:
        small = [place for place, one in enumerate(held) if one.n_effective < least_sources]
        if len(held) <= MAX_CONTEXTS and not small:
            break
        held = _closest_joined(held, range(len(held)) if len(held) > MAX_CONTEXTS else small)
    return held


def _closest_joined(contexts: list[Context], some: Sequence[int]) -> list[Context]:
    """Return ``contexts`` with one of ``some`` joined to the other that is most like it."""
    counts = np.array([one.counts for one in contexts], np.float64).reshape(len(contexts), -1, BINS) + _PRIOR
    roots = np.sqrt(counts / counts.sum(axis=-1, keepdims=True)).reshape(len(contexts), -1)
    n = np.array([max(one.n_effective, 1) for one in contexts])
    apart = ((roots[:, None] - roots[None]) ** 2).sum(axis=-1) * (n[:, None] * n[None] / (n[:, None] + n[None]))
    np.fill_diagonal(apart, np.inf)
    row, second = divmod(int(apart[list(some)].argmin()), len(contexts))
    first, second = sorted((some[row], second))
    both = _together(contexts[first], contexts[second])
    return [*contexts[:first], both, *(one for place, one in enumerate(contexts) if place > first and place != second)]


def _together(one: Context, other: Context) -> Context:
    name = one.name if one.name == other.name else f"{one.name}, {other.name}"
    return Context(
        name=name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…",
        n=one.n + other.n,
        n_effective=one.n_effective + other.n_effective,
        counts=tuple(a + b for a, b in zip(one.counts, other.counts, strict=True)),
    )


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
