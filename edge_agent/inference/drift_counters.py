"""The drift statistics of every inference: image features, stream values, and the counters of a window.

One code path for device and compressor: the same code computes the drift reference and the counts compared with it.
Values are rounded to float32 before they are compared with the (float32) edges; a value equal to an edge belongs to the
upper bin. Deliberately decides nothing about drift and uses no clock.

The ten image features are computed one image at a time, on flat arrays, with few numpy calls: for a small image the
calls dominate the cost, not the pixels. Luma is stored as integers in float32 (weights in 1/256), so that differences
are exact and the same on every processor.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ReferenceStreamsError
from edge_agent.tasks import DeviceTask
from edge_agent.tasks._base import UNBOUNDED
from wire.histogram import Counters, Shape
from wire.reference import PROJECTIONS, Reference, StreamSpec

NAMES = (
    "luma_mean", "luma_sd", "dark_ratio", "clipped_ratio", "laplacian_log", "noise",
    "red_green", "blue_yellow", "gradient_x", "gradient_y",
)  # fmt: skip
LOWEST = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0)
HIGHEST = (1.0, 0.5001, 1.0, 1.0, 20.0, 10.0, 1.0, 1.0, 1.0, 1.0)

# Source: ITU-R BT.601, luma of RGB, rounded to 1/256.
_WEIGHTS = np.array([77, 150, 29], np.float32)
_FULL = 255.0 * 256.0
_DARK = np.float32(0.1 * _FULL)  # below a tenth: too dark
_CLIPPED = np.float32(0.98 * _FULL)  # above 249 of 255: the sensor is saturated
_NOISE_FACTOR = math.sqrt(math.pi / 2) / 6
_MIN_SIDE = 3
_EXACT_PIXELS = 2**24 // 255  # their sum is an integer that float32 represents exactly


def image_features(image: NDArray[np.uint8]) -> list[float]:
    """Return the features of ``image``, uint8 (H, W, 3), in the order of ``NAMES``.

    Luma, gradients and noise are in units of full scale (1.0). An image with fewer than 3 pixels per side, such as a
    row of features, counts as one whose lines are repeated. Without a pixel all are NaN, which counts as invalid.
    """
    height, width, _ = image.shape
    if not height * width:
        return [math.nan] * len(NAMES)
    for axis, side in enumerate((height, width)):
        image = np.repeat(image, _MIN_SIDE, axis=axis) if side < _MIN_SIDE else image
    height, width, _ = image.shape
    floats = image.astype(np.float32)
    luma = floats.reshape(-1, 3).dot(_WEIGHTS)
    # the means of red, green and blue, 0..1; sums stay below 2^24, so grey images differ by exactly 0
    if height * width <= _EXACT_PIXELS:
        totals = _ones(height * width).dot(floats.reshape(-1, 3))
    else:
        columns = _ones(height).dot(floats.reshape(height, width * 3))
        totals = np.add.reduce(columns.reshape(width, 3), axis=0, dtype=np.float64)
    red, green, blue = (total / (255.0 * height * width) for total in totals.tolist())
    mean = (77 * red + 150 * green + 29 * blue) / 256
    pixels = height * width
    centred = luma - np.float32(mean * _FULL)
    return [
        mean,
        math.sqrt(float(centred.dot(centred)) / pixels) / _FULL,
        np.count_nonzero(luma < _DARK) / pixels,
        np.count_nonzero(luma > _CLIPPED) / pixels,
        *_structure(luma, height, width, red - green, blue - (red + green) / 2),
    ]


@lru_cache(maxsize=8)
def _ones(length: int) -> NDArray[np.float32]:
    return np.ones(length, np.float32)


def _structure(
    luma: NDArray[np.float32], height: int, width: int, red_green: float, blue_yellow: float
) -> tuple[float, float, float, float, float, float]:
    """Return the features based on differences between neighbours (and the colours, in the order of ``NAMES``).

    Differences are computed over flattened rows; those across a row's end are set to 0.
    """
    last = width - 1
    across = luma[1:] - luma[:-1]
    across[last::width] = 0
    down = luma[width:] - luma[:-width]
    bend_x = across[1:] - across[:-1]  # at [i]: around pixel i + 1
    bend_x[last::width] = 0
    bend_x[last - 1 :: width] = 0
    laplacian = down[width:] - down[:-width]
    laplacian[1:-1] += bend_x[width : -width or None]
    laplacian[::width] = 0
    laplacian[last::width] = 0
    slope = bend_x[width:] - bend_x[:-width]
    twist = slope[width:] - slope[:-width]
    np.abs(twist, out=twist)
    inner = (height - 2) * (width - 2)
    return (
        math.log1p(float(laplacian.dot(laplacian)) / (256.0**2 * inner)),  # grey levels of 1/255, squared
        # Source: Immerkaer, Fast noise variance estimation, CVIU 64(2), 1996, equation 5.
        float(twist.dot(_ones(twist.size))) * _NOISE_FACTOR / (inner * _FULL),
        red_green,
        blue_yellow,
        float(across.dot(across)) / (height * last * _FULL**2),
        float(down.dot(down)) / ((height - 1) * width * _FULL**2),
    )


Floats: TypeAlias = "NDArray[np.float64]"

STREAMS_IMAGE = NAMES
STREAMS_EMBEDDING = (*(f"projection_{index}" for index in range(PROJECTIONS)), "residual")
_ROWS_AT_ONCE = 128  # fits into uint8, which adds four times faster than int64
_OF_EMBEDDING = tuple(StreamSpec(name=name, kind="embedding") for name in STREAMS_EMBEDDING)


def stream_specs(task: DeviceTask, *, has_embedding: bool) -> tuple[StreamSpec, ...]:
    """Return the streams in the order of the values: for a classifier 23, or 14 without an embedding."""
    embedding = _OF_EMBEDDING if has_embedding else ()
    return (
        *(StreamSpec(name=name, kind="input") for name in STREAMS_IMAGE),
        *embedding,
        *(one.spec for one in task.streams),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Converts an embedding and the outputs to streams; includes the temperature of the confidence.

    ``mean``: float64 (D,); ``rows``: float64 (8, D), orthonormal (or zero if D < 8); ``scale``: float64 (8,). D = 0: no
    embedding.
    """

    task: DeviceTask
    mean: Floats
    rows: Floats
    scale: Floats
    residual_scale: float = 1.0
    temperature: float = 1.0


def no_projection(task: DeviceTask, temperature: float = 1.0) -> Projection:
    """Return the parameters for a model without an embedding."""
    return Projection(
        task=task,
        mean=np.empty(0),
        rows=np.empty((PROJECTIONS, 0)),
        scale=np.ones(PROJECTIONS),
        temperature=temperature,
    )


def projection_of(reference: Reference, task: DeviceTask) -> Projection:
    """Return the parameters in ``reference``."""
    dimensions = len(reference.projection_mean)
    if not dimensions:
        return no_projection(task, reference.temperature)
    return Projection(
        task=task,
        mean=np.array(reference.projection_mean),
        rows=np.array(reference.projection).reshape(PROJECTIONS, dimensions),
        scale=np.array(reference.projection_scale),
        residual_scale=reference.residual_scale,
        temperature=reference.temperature,
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
        logits: The model's outputs, (N, D): logits before softmax, or values.
        embedding: (N, D), or None if the model has none.
        projection: From ``projection_of(reference)``, or fitted by the compressor.

    Raises:
        ReferenceStreamsError: If the embedding's width differs from the projection's.
    """
    row_embeddings: Iterable[NDArray[np.floating] | None] = repeat(None) if embedding is None else embedding
    flat = array("f")  # rounds to float32; overflow becomes infinite, which counts as invalid
    for image, row_logits, row_embedding in zip(images, logits, row_embeddings, strict=False):
        flat.extend(_row(image_features(image), row_logits, row_embedding, projection))
    return np.frombuffer(flat, np.float32).astype(np.float64).reshape(len(images), -1)


def row_of(
    features: list[float],
    logits: NDArray[np.floating],
    embedding: NDArray[np.floating] | None,
    projection: Projection,
) -> list[float]:
    """Return the stream values of one inference, as ``values`` does; ``features``: of its image.

    Raises:
        ReferenceStreamsError: If the embedding's width differs from the projection's.
    """
    return array("f", _row(features, logits, embedding, projection)).tolist()


def _row(
    features: list[float],
    logits: NDArray[np.floating],
    embedding: NDArray[np.floating] | None,
    projection: Projection,
) -> list[float]:
    # plain floats: for one image numpy's call overhead dominates
    between = [] if embedding is None else embedding_values(embedding, projection)
    return features + between + projection.task.values(logits, projection.temperature)


def embedding_values(embedding: NDArray[np.floating], projection: Projection) -> list[float]:
    """Return the values of the embedding's streams; ``embedding``: (D,).

    Raises:
        ReferenceStreamsError: If its width differs from the projection's.
    """
    if embedding.shape != projection.mean.shape:
        message = f"Expected an embedding of {projection.mean.size} values, got {embedding.shape}: rebuild the bundle"
        raise ReferenceStreamsError(message)
    centred = embedding - projection.mean
    along = projection.rows.dot(centred)
    # Rows are orthonormal, so Pythagoras gives the length of the residual.
    rest = float(centred.dot(centred)) - float(along.dot(along))
    residual = math.sqrt(max(rest, 0.0)) if rest == rest else math.nan  # noqa: PLR0124 - tests for NaN
    return [*(along / projection.scale).tolist(), residual / projection.residual_scale]


def confidence_bins(confidence: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the bin (0 to ``count`` - 1) of each confidence in 0..1; 1.0 belongs to the last one."""
    return np.minimum((confidence * count).astype(np.int64), count - 1)


def value_ranges(specs: Sequence[StreamSpec], task: DeviceTask) -> tuple[Floats, Floats]:
    """Return the lowest and highest physically possible value of each stream, each float64 (S,)."""
    limits = dict(zip(NAMES, zip(LOWEST, HIGHEST, strict=True), strict=True)) | {"residual": (0.0, UNBOUNDED)}
    limits |= {stream.name: stream.limits for stream in task.streams}
    rows = np.array([limits.get(spec.name, (-UNBOUNDED, UNBOUNDED)) for spec in specs])
    return rows[:, 0], rows[:, 1]


class Counter:
    """The open window's counters for one reference. Not thread-safe. ``first_output``: place of the outputs' streams.

    Counts, per stream, how many values reached each of 17 thresholds: the lowest possible value, the 15 edges, and the
    first value above the highest possible. Bins are their differences; one comparison and one addition serve all
    streams of an inference.
    """

    def __init__(self, reference: Reference, task: DeviceTask) -> None:
        """Start empty; ``task``: the task of the outputs.

        Raises:
            ReferenceStreamsError: If the reference's streams differ from this agent's, or edges are not ascending.
        """
        specs = stream_specs(task, has_embedding=bool(reference.projection_mean))
        expected, got = [spec.name for spec in specs], [spec.name for spec in reference.streams]
        if expected != got:
            message = f"Expected a reference of the streams {expected}, got {got}: rebuild the bundle with this version"
            raise ReferenceStreamsError(message)
        if not all(row == tuple(sorted(row)) for row in reference.edges):
            raise ReferenceStreamsError("Expected ascending edges in every stream, got others: rebuild the bundle")
        self._shape: Shape = reference.shape
        lowest, highest = value_ranges(specs, task)
        above = np.nextafter(highest, np.inf)[:, None]
        edges = np.array(reference.edges)
        self._thresholds = np.hstack([lowest[:, None], np.clip(edges, lowest[:, None], above), above])
        self.first_output, self._predicted = len(specs) - len(task.streams), len(specs) - 1
        self._clear()

    def _clear(self) -> None:
        self.n = 0
        self._reached = np.zeros(self._thresholds.shape, np.int64)
        self._table = [0] * (self._shape.classes * self._shape.confidence_bins)

    def count(self, rows: Floats) -> None:
        """Add inferences: ``rows`` are from ``values``, float64 (N, S)."""
        bins = self._shape.confidence_bins
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            reached = self._thresholds <= part[:, :, None]  # NaN reaches none
            self._reached += np.add.reduce(reached, axis=0, dtype=np.uint8)
            if not self._shape.classes:
                continue
            # one slice holds both columns: the first and the last of the outputs
            for confidence, predicted in part[:, self.first_output :: self._predicted - self.first_output].tolist():
                if 0 <= confidence <= 1 and 0 <= predicted < self._shape.classes:
                    self._table[int(predicted) * bins + min(int(confidence * bins), bins - 1)] += 1
        self.n += len(rows)

    def take(self) -> Counters:
        """Return the counters so far and restart from zero."""
        bins = self._reached[:, :-1] - self._reached[:, 1:]
        invalid = self.n - self._reached[:, 0] + self._reached[:, -1]
        counters = Counters(self._shape, self.n, (*bins.ravel().tolist(), *invalid.tolist(), *self._table))
        self._clear()
        return counters
