"""What is counted of every inference: stream values, and the counters of a window.

One code path for device and compressor: the drift reference is made by the code whose counts are
compared with it. Values are rounded to float32 before they meet the (float32) edges; a value equal
to an edge belongs to the upper bin. Deliberately decides nothing about drift and knows no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ReferenceStreamsError
from edge_agent.image_features import HIGHEST, LOWEST, NAMES, image_features
from wire.histogram import BINS, Counters, Shape
from wire.reference import PROJECTIONS, Reference, StreamSpec

Floats: TypeAlias = "NDArray[np.float64]"

STREAMS_IMAGE = NAMES
STREAMS_EMBEDDING = (*(f"projection_{index}" for index in range(PROJECTIONS)), "residual")
STREAMS_OUTPUT = ("confidence", "entropy", "margin", "predicted")
_FINITE = 1e30
_CHUNK_ROWS = 4096


def stream_specs(has_embedding: bool) -> tuple[StreamSpec, ...]:  # noqa: FBT001 - the seam's agreed signature
    """Return the streams in the order of the values: 23, or 14 without an embedding.

    ``predicted`` is categorical: its value is the class index (``extra`` says so).
    """
    embedding = STREAMS_EMBEDDING if has_embedding else ()
    return (
        *(StreamSpec(name, "input") for name in STREAMS_IMAGE),
        *(StreamSpec(name, "embedding") for name in embedding),
        *(StreamSpec(name, "output") for name in STREAMS_OUTPUT[:-1]),
        StreamSpec(STREAMS_OUTPUT[-1], "output", {"categorical": True}),
    )


def class_edges(classes: int) -> tuple[float, ...]:
    """Return the 15 edges of the stream ``predicted``: one bin a class, or runs of classes beyond 16."""
    step = max(1, -(-classes // BINS))
    return tuple(step * (index + 1) - 0.5 for index in range(BINS - 1))


@dataclass(frozen=True, slots=True)
class Projection:
    """How an embedding becomes streams, and the temperature of the confidence.

    ``mean``: float64 (D,); ``rows``: float64 (8, D), orthonormal (or zero where D < 8); ``scale``:
    float64 (8,). D = 0: no embedding.
    """

    mean: Floats
    rows: Floats
    scale: Floats
    residual_scale: float = 1.0
    temperature: float = 1.0


def no_projection(temperature: float = 1.0) -> Projection:
    """Return the parameters for a model without an embedding."""
    return Projection(np.empty(0), np.empty((PROJECTIONS, 0)), np.ones(PROJECTIONS), temperature=temperature)


def projection_of(reference: Reference) -> Projection:
    """Return the parameters that ``reference`` carries."""
    dimensions = len(reference.projection_mean)
    if not dimensions:
        return no_projection(reference.temperature)
    return Projection(
        np.array(reference.projection_mean),
        np.array(reference.projection).reshape(PROJECTIONS, dimensions),
        np.array(reference.projection_scale),
        reference.residual_scale,
        reference.temperature,
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
        logits: (N, classes), before softmax.
        embedding: (N, D), or None when the model gives none.
        projection: from ``projection_of(reference)``, or as the compressor fitted it.

    Raises:
        ReferenceStreamsError: If the embedding's width is not the projection's.
    """
    stacked = images if isinstance(images, np.ndarray) else np.stack(images) if len(images) > 1 else images[0][None]
    parts = [image_features(stacked)]
    if embedding is not None:
        parts.append(_embedding_values(embedding, projection))
    parts.append(_output_values(logits, projection.temperature))
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which counts as invalid
        return np.concatenate(parts, axis=1).astype(np.float32).astype(np.float64)


def _embedding_values(embedding: NDArray[np.floating], projection: Projection) -> Floats:
    if embedding.shape[1:] != projection.mean.shape:
        message = (
            f"Expected an embedding of {projection.mean.size} values, got {embedding.shape[1:]}: rebuild the bundle"
        )
        raise ReferenceStreamsError(message)
    centred = embedding - projection.mean
    along = centred @ projection.rows.T
    # Rows are orthonormal, so Pythagoras gives the length of what they leave out.
    rest = np.sqrt(np.maximum(np.vecdot(centred, centred) - np.vecdot(along, along), 0.0))
    return np.concatenate([along / projection.scale, rest[:, None] / projection.residual_scale], axis=1)


def _output_values(logits: NDArray[np.floating], temperature: float) -> Floats:
    scaled = logits / np.float64(temperature)
    out = np.empty((len(scaled), len(STREAMS_OUTPUT)))
    with np.errstate(invalid="ignore"):  # NaN and infinity go through and are counted as invalid
        scaled -= np.maximum.reduce(scaled, axis=1, keepdims=True)
        weights = np.exp(scaled)
        total = np.add.reduce(weights, axis=1)
        confidence = 1.0 / total
        out[:, 0] = confidence
        out[:, 1] = np.log(total) - np.vecdot(weights, scaled) * confidence
        out[:, 2] = _margin(weights, confidence)
    out[:, 3] = np.where(np.isnan(confidence), np.nan, scaled.argmax(axis=1))
    return out


def _margin(weights: Floats, confidence: Floats) -> Floats:
    if weights.shape[1] == 1:
        return confidence
    ordered = np.sort(weights, axis=1)
    return (ordered[:, -1] - ordered[:, -2]) * confidence


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
    """The open window's counters under one reference. For one thread."""

    def __init__(self, reference: Reference) -> None:
        """Start empty.

        Raises:
            ReferenceStreamsError: If the reference's streams aren't those of this agent.
        """
        specs = stream_specs(has_embedding=bool(reference.projection_mean))
        if [spec.name for spec in specs] != [spec.name for spec in reference.streams]:
            message = f"Expected a reference of the streams {[spec.name for spec in specs][:4]}…, got "
            message += f"{[spec.name for spec in reference.streams][:4]}…: rebuild the bundle with this version"
            raise ReferenceStreamsError(message)
        self._shape: Shape = reference.shape
        self._edges = np.array(reference.edges, np.float32)
        self._lowest, self._highest = value_ranges(specs, reference.classes)
        self._first_bin = np.arange(len(specs)) * BINS
        self._invalid = len(specs) * BINS + np.arange(len(specs))
        self._confidence, self._predicted = len(specs) - len(STREAMS_OUTPUT), len(specs) - 1
        self._clear()

    def _clear(self) -> None:
        self.n = 0
        self._counts = np.zeros(self._shape.total, np.int64)

    def count(self, rows: Floats) -> None:
        """Add inferences: ``rows`` is what ``values`` returned, float64 (N, S)."""
        for start in range(0, len(rows), _CHUNK_ROWS):
            self._count(rows[start : start + _CHUNK_ROWS])

    def _count(self, rows: Floats) -> None:
        valid = (rows >= self._lowest) & (rows <= self._highest)  # NaN is neither
        bins = np.add.reduce(self._edges <= rows.astype(np.float32)[:, :, None], axis=2)
        slots = np.where(valid, self._first_bin + bins, self._invalid)
        cells = self._cells(rows, valid)
        self._counts += np.bincount(slots.ravel(), minlength=self._shape.total)
        self._counts += np.bincount(cells, minlength=self._shape.total)
        self.n += len(rows)

    def _cells(self, rows: Floats, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
        usable = rows[valid[:, self._confidence] & valid[:, self._predicted]]
        columns = confidence_bins(usable[:, self._confidence], self._shape.confidence_bins)
        table = self._shape.streams * (BINS + 1)
        return table + usable[:, self._predicted].astype(np.int64) * self._shape.confidence_bins + columns

    def take(self) -> Counters:
        """Return the counters so far and start again from zero."""
        taken = Counters(self._shape, self.n, tuple(self._counts.tolist()))
        self._clear()
        return taken
