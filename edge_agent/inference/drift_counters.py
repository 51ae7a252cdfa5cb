"""What is counted of every inference: stream values, and the counters of a window.

One code path for device and compressor: the drift reference is made by the code whose counts are
compared with it. Values are rounded to float32 before they meet the (float32) edges; a value equal
to an edge belongs to the upper bin. Deliberately decides nothing about drift and knows no clock.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import mul
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ReferenceStreamsError
from edge_agent.inference.image_features import HIGHEST, LOWEST, NAMES, image_features
from wire.histogram import BINS, Counters, Shape
from wire.reference import PROJECTIONS, Reference, StreamSpec

Floats: TypeAlias = "NDArray[np.float64]"

STREAMS_IMAGE = NAMES
STREAMS_EMBEDDING = (*(f"projection_{index}" for index in range(PROJECTIONS)), "residual")
STREAMS_OUTPUT = ("confidence", "entropy", "margin", "predicted")
MAX_VALUES = 4
"""Of a regression's values so many have a stream, ``value_0`` first; more would hide a change among many streams."""
_VALUE = "value_"
_FINITE = 1e30
_ROWS_AT_ONCE = 128  # their number fits into uint8, which adds four times faster than int64


def stream_specs(has_embedding: bool, values: int = 0) -> tuple[StreamSpec, ...]:  # noqa: FBT001 - agreed signature
    """Return the streams in the order of the values: 23, or 14 without an embedding.

    ``predicted`` is categorical: its value is the class index. ``values``: how many numbers a regression gives; each
    has a stream (up to ``MAX_VALUES``) in the place of the four of a classifier.
    """
    outputs = tuple(StreamSpec(f"{_VALUE}{index}", "output") for index in range(min(values, MAX_VALUES)))
    embedding = STREAMS_EMBEDDING if has_embedding else ()
    return (
        *(StreamSpec(name, "input") for name in STREAMS_IMAGE),
        *(StreamSpec(name, "embedding") for name in embedding),
        *(outputs or _CLASS_SPECS),
    )


_CLASS_SPECS = (
    *(StreamSpec(name, "output") for name in STREAMS_OUTPUT[:-1]),
    StreamSpec(STREAMS_OUTPUT[-1], "output", categorical=True),
)


def values_of(reference: Reference) -> int:
    """Return how many streams hold values of a regression; 0 for a classifier's reference."""
    return sum(spec.name.startswith(_VALUE) for spec in reference.streams) if not reference.classes else 0


def class_edges(classes: int) -> tuple[float, ...]:
    """Return the 15 edges of the stream ``predicted``: one bin a class, or runs of classes beyond 16."""
    step = max(1, -(-classes // BINS))
    return tuple(step * (index + 1) - 0.5 for index in range(BINS - 1))


@dataclass(frozen=True, slots=True)
class Projection:
    """How an embedding becomes streams, and the temperature of the confidence.

    ``mean``: float64 (D,); ``rows``: float64 (8, D), orthonormal (or zero where D < 8); ``scale``:
    float64 (8,). D = 0: no embedding. ``values``: so many streams of a regression; 0: a classifier.
    """

    mean: Floats
    rows: Floats
    scale: Floats
    residual_scale: float = 1.0
    temperature: float = 1.0
    values: int = 0


def no_projection(temperature: float = 1.0, values: int = 0) -> Projection:
    """Return the parameters for a model without an embedding."""
    rows = np.empty((PROJECTIONS, 0))
    return Projection(np.empty(0), rows, np.ones(PROJECTIONS), temperature=temperature, values=values)


def projection_of(reference: Reference) -> Projection:
    """Return the parameters that ``reference`` carries."""
    dimensions = len(reference.projection_mean)
    if not dimensions:
        return no_projection(reference.temperature, values_of(reference))
    return Projection(
        np.array(reference.projection_mean),
        np.array(reference.projection).reshape(PROJECTIONS, dimensions),
        np.array(reference.projection_scale),
        reference.residual_scale,
        reference.temperature,
        values_of(reference),
    )


def values(
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    logits: NDArray[np.floating],
    embedding: NDArray[np.floating] | None,
    projection: Projection,
) -> Floats:
    """Return all stream values, float64 (N, S), each representable in float32.

    Args:
        images: N images of one size, uint8 (H, W, 3), from ``preprocess.resize_pixels``.
        logits: (N, classes), before softmax; of a regression its values, (N, D).
        embedding: (N, D), or None when the model gives none.
        projection: from ``projection_of(reference)``, or as the compressor fitted it.

    Raises:
        ReferenceStreamsError: If the embedding's width is not the projection's.
    """
    row_embeddings: Iterable[NDArray[np.floating] | None] = repeat(None) if embedding is None else embedding
    flat = array("f")  # rounds to float32; what lies beyond becomes infinite, which counts as invalid
    for image, row_logits, row_embedding in zip(images, logits, row_embeddings, strict=False):
        flat.extend(_row(image, row_logits, row_embedding, projection))
    return np.frombuffer(flat, np.float32).astype(np.float64).reshape(len(images), -1)


def _row(
    image: NDArray[np.uint8],
    logits: NDArray[np.floating],
    embedding: NDArray[np.floating] | None,
    projection: Projection,
) -> list[float]:
    """Return the values of one inference: plain floats, because on one image numpy's calls are what costs."""
    row = image_features(image)
    if embedding is not None:
        row += _embedding_values(embedding, projection)
    if projection.values:
        row += logits[: projection.values].tolist()
        return row
    row += _output_values(logits.tolist(), projection.temperature)
    return row


def _embedding_values(embedding: NDArray[np.floating], projection: Projection) -> list[float]:
    if embedding.shape != projection.mean.shape:
        message = f"Expected an embedding of {projection.mean.size} values, got {embedding.shape}: rebuild the bundle"
        raise ReferenceStreamsError(message)
    centred = embedding - projection.mean
    along = projection.rows.dot(centred)
    # Rows are orthonormal, so Pythagoras gives the length of what they leave out.
    rest = float(centred.dot(centred)) - float(along.dot(along))
    residual = math.sqrt(max(rest, 0.0)) if rest == rest else math.nan  # noqa: PLR0124 - NaN is what it asks
    return [*(along / projection.scale).tolist(), residual / projection.residual_scale]


def _output_values(logits: list[float], temperature: float) -> list[float]:
    top = max(logits)
    scaled = [(value - top) / temperature for value in logits]
    weights = [math.exp(value) if value <= 0 else math.nan for value in scaled]
    total = sum(weights)
    if not math.isfinite(total):
        return [math.nan] * len(STREAMS_OUTPUT)
    entropy = math.log(total) - sum(map(mul, weights, scaled)) / total
    predicted = logits.index(top)
    weights[predicted] = 0.0
    return [1 / total, entropy, (1 - max(weights)) / total, float(predicted)]


def confidence_bins(confidence: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the bin (0 to ``count`` - 1) of each confidence in 0..1; 1.0 belongs to the last one."""
    return np.minimum((confidence * count).astype(np.int64), count - 1)


def value_ranges(specs: Sequence[StreamSpec], classes: int) -> tuple[Floats, Floats]:
    """Return the lowest and highest physically possible value of each stream, each float64 (S,)."""
    limits = dict(zip(NAMES, zip(LOWEST, HIGHEST, strict=True), strict=True))
    limits |= {"residual": (0.0, _FINITE), "confidence": (0.0, 1.0), "margin": (0.0, 1.0)}
    limits |= {"entropy": (-1e-6, np.log(max(classes, 2)) + 1e-3), "predicted": (0.0, float(classes - 1))}
    rows = np.array([limits.get(spec.name, (-_FINITE, _FINITE)) for spec in specs])
    return rows[:, 0], rows[:, 1]


class Counter:
    """The open window's counters under one reference. For one thread.

    Counts, per stream, how many values were at or above each of 17 thresholds: the lowest possible
    value, the 15 edges, and the first value above the highest possible. Bins are their differences;
    one comparison and one addition serve all streams of an inference.
    """

    def __init__(self, reference: Reference) -> None:
        """Start empty.

        Raises:
            ReferenceStreamsError: If the reference's streams aren't those of this agent, or edges don't ascend.
        """
        specs = stream_specs(bool(reference.projection_mean), values_of(reference))
        _check_streams(specs, reference)
        self._shape: Shape = reference.shape
        lowest, highest = value_ranges(specs, reference.classes)
        above = np.nextafter(highest, np.inf)[:, None]
        edges = np.array(reference.edges)
        self._thresholds = np.hstack([lowest[:, None], np.clip(edges, lowest[:, None], above), above])
        self._confidence, self._predicted = len(specs) - len(STREAMS_OUTPUT), len(specs) - 1
        self._clear()

    def _clear(self) -> None:
        self.n = 0
        self._reached = np.zeros(self._thresholds.shape, np.int64)
        self._table = [0] * (self._shape.classes * self._shape.confidence_bins)

    def count(self, rows: Floats) -> None:
        """Add inferences: ``rows`` is what ``values`` returned, float64 (N, S)."""
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            reached = self._thresholds <= part[:, :, None]  # NaN reaches none
            self._reached += np.add.reduce(reached, axis=0, dtype=np.uint8)
            if not self._shape.classes:
                continue
            # one slice holds both columns: the first and the last of the outputs
            for confidence, predicted in part[:, self._confidence :: self._predicted - self._confidence].tolist():
                self._count_cell(confidence, predicted)
        self.n += len(rows)

    def _count_cell(self, confidence: float, predicted: float) -> None:
        bins = self._shape.confidence_bins
        if 0 <= confidence <= 1 and 0 <= predicted < self._shape.classes:
            self._table[int(predicted) * bins + min(int(confidence * bins), bins - 1)] += 1

    def take(self) -> Counters:
        """Return the counters so far and start again from zero."""
        bins = self._reached[:, :-1] - self._reached[:, 1:]
        invalid = self.n - self._reached[:, 0] + self._reached[:, -1]
        counters = Counters(self._shape, self.n, (*bins.ravel().tolist(), *invalid.tolist(), *self._table))
        self._clear()
        return counters


def _check_streams(specs: Sequence[StreamSpec], reference: Reference) -> None:
    expected, got = [spec.name for spec in specs], [spec.name for spec in reference.streams]
    if expected != got:
        message = f"Expected a reference of the streams {expected}, got {got}: rebuild the bundle with this version"
        raise ReferenceStreamsError(message)
    if not all(row == tuple(sorted(row)) for row in reference.edges):
        message = "Expected ascending edges in every stream, got others: rebuild the bundle"
        raise ReferenceStreamsError(message)
