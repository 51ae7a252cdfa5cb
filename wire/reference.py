"""The reference profile: the distribution of every stream without drift.

Computed by running the exported, quantized artifact itself with the device's preprocessing, and bound to that
artifact's digest: a reference from the float model would show drift where there is none.

Layout of ``reference.bin``: magic ``TFR1``, LEB128 length of the header, the header as canonical
JSON, then little-endian float32: all edges (streams x 15), projection mean (D), projection matrix
(8 x D) and projection scale (8). ``ref_id`` is the SHA-256 of all these bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from wire import leb128
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import OMIT_DEFAULT, Json, from_document, parse_json, to_document
from wire.errors import MessageError, ReferenceProfileError
from wire.histogram import BINS, Shape

MAGIC = b"TFR1"
EDGES = BINS - 1
MAX_REFERENCE_BYTES = 4 * 1024 * 1024
MAX_STREAMS = 256
MAX_CONTEXTS = 8
MAX_EMBEDDING = 4096
PROJECTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """One stream: its name, and ``kind``: ``input``, ``embedding`` or ``output``.

    ``categorical``: its value is a class index, not a number.
    """

    name: str = ""
    kind: str = "input"
    categorical: bool = field(default=False, metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The counts of one context (day, night, a site): streams x 16, row by row.

    ``n`` is the number of samples, ``n_effective`` the number of independent ones (views of one
    source image are not).
    """

    name: str = "default"
    n: int = 0
    n_effective: int = 0
    counts: tuple[int, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The whole profile.

    ``edges``: per stream 15 ascending values; bin i holds x with edges[i-1] <= x < edges[i]. ``table_right`` /
    ``table_seen``: classes x confidence bins, how many predictions were right and how many were made, on the labelled
    reference split; all 0 if it had no labels. ``projection``: 8 rows of D. A stream's value is
    ``(embedding - mean) @ row / scale``; without an embedding D = 0. ``risk``: error rate on that split.
    ``support_limit``: the distance beyond which an input is outside of the training data (0: not known);
    ``support_rate``: the share of inputs like that data beyond it.
    """

    artifact_sha256: str = ""
    streams: tuple[StreamSpec, ...] = ()
    contexts: tuple[Context, ...] = ()
    classes: int = 0
    confidence_bins: int = 10
    table_right: tuple[int, ...] = ()
    table_seen: tuple[int, ...] = ()
    temperature: float = 1.0
    residual_scale: float = 1.0
    risk: float = 0.0
    support_limit: float = field(default=0.0, metadata=OMIT_DEFAULT)
    support_rate: float = field(default=0.0, metadata=OMIT_DEFAULT)
    edges: tuple[tuple[float, ...], ...] = ()
    projection_mean: tuple[float, ...] = ()
    projection: tuple[tuple[float, ...], ...] = ()
    projection_scale: tuple[float, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """The shape of a window's counters for this reference."""
        return Shape(len(self.streams), self.classes, self.confidence_bins)

    @property
    def error_rate(self) -> float | None:
        """The error rate on the labelled reference split; None if that split had no labels."""
        return self.risk if self.risk or any(self.table_seen) else None

    @property
    def ref_id(self) -> str:
        """The reference's id, 64 hex digits."""
        return sha256_hex(write_reference(self))

    def check_artifact(self, artifact_sha256: str) -> None:
        """Check that the reference was made by this artifact, not by another (such as the float model).

        Raises:
            ReferenceProfileError: If the digests differ.
        """
        if self.artifact_sha256 != artifact_sha256:
            message = (
                f"Expected a reference made by artifact {artifact_sha256[:12]}…, got one made by "
                f"{self.artifact_sha256[:12]}…: make it by running the exported artifact itself"
            )
            raise ReferenceProfileError(message)


_FLOAT_FIELDS = ("edges", "projection_mean", "projection", "projection_scale")


def write_reference(reference: Reference) -> bytes:
    """Return the canonical bytes of ``reference``.

    Raises:
        ReferenceProfileError: If a number is not finite in float32.
    """
    header = {key: value for key, value in to_document(reference).items() if key not in _FLOAT_FIELDS}
    header["embedding"] = len(reference.projection_mean)
    text = canonical_bytes(header)
    floats = [value for row in reference.edges for value in row]
    floats += reference.projection_mean
    floats += [value for row in reference.projection for value in row]
    floats += reference.projection_scale
    try:
        packed = struct.pack(f"<{len(floats)}f", *floats)
    except OverflowError as error:
        message = f"Expected edges and projections that float32 can hold, got up to {max(map(abs, floats))}"
        raise ReferenceProfileError(message) from error
    return MAGIC + leb128.encode([len(text)]) + text + packed


def read_reference(data: bytes) -> Reference:
    """Return the reference in ``data``.

    Raises:
        ReferenceProfileError: If it is too large, can't be decoded, or its parts are inconsistent.
    """
    if len(data) > MAX_REFERENCE_BYTES or data[:4] != MAGIC:
        message = f"Expected a reference of at most {MAX_REFERENCE_BYTES} bytes, got {len(data)} of {data[:4]!r}"
        raise ReferenceProfileError(message)
    try:
        (length,), used = leb128.decode(data[4:], 1)
        header = parse_json(data[4 + used : 4 + used + length], limit_bytes=MAX_REFERENCE_BYTES)
        embedding = header.pop("embedding", 0)
        reference = from_document(Reference, header)
    except MessageError as error:
        message = f"Expected a reference header, got: {error}"
        raise ReferenceProfileError(message) from error
    if not isinstance(embedding, int) or isinstance(embedding, bool) or not 0 <= embedding <= MAX_EMBEDDING:
        message = f"Expected an embedding of 0 to {MAX_EMBEDDING}, got {embedding!r}"
        raise ReferenceProfileError(message)
    _check(reference)
    return _with_floats(reference, data[4 + used + length :], embedding)


def _check(reference: Reference) -> None:
    streams, table = len(reference.streams), reference.classes * reference.confidence_bins
    if not 1 <= streams <= MAX_STREAMS or not 1 <= len(reference.contexts) <= MAX_CONTEXTS:
        message = f"Expected 1 to {MAX_STREAMS} streams and 1 to {MAX_CONTEXTS} contexts, got {streams}"
        raise ReferenceProfileError(message)
    if reference.classes < 0 or reference.confidence_bins < 1:
        message = f"Expected classes and confidence bins, got {reference.classes} and {reference.confidence_bins}"
        raise ReferenceProfileError(message)
    if any(len(context.counts) != streams * BINS or min(context.counts) < 0 for context in reference.contexts):
        message = f"Expected {streams} x {BINS} counts of at least 0 in every context, got others"
        raise ReferenceProfileError(message)
    if len(reference.table_seen) != table or len(reference.table_right) != table:
        message = f"Expected a table of {table} cells, got {len(reference.table_seen)}"
        raise ReferenceProfileError(message)


def _with_floats(reference: Reference, data: bytes, embedding: int) -> Reference:
    streams, rows = len(reference.streams), PROJECTIONS if embedding else 0
    total = streams * EDGES + embedding + rows * embedding + rows
    if len(data) != 4 * total:
        message = f"Expected {4 * total} bytes of edges and projections, got {len(data)}"
        raise ReferenceProfileError(message)
    floats = struct.unpack(f"<{total}f", data)
    if not all(map(math.isfinite, floats[streams * EDGES :])):
        raise ReferenceProfileError("Expected finite projections, got NaN or infinity: make the reference again")
    edges, rest = floats[: streams * EDGES], floats[streams * EDGES :]
    matrix = rest[embedding : embedding + rows * embedding]
    rows_of_edges = tuple(edges[i * EDGES : (i + 1) * EDGES] for i in range(streams))
    for spec, row in zip(reference.streams, rows_of_edges, strict=True):
        if any(not low <= high for low, high in pairwise(row)):  # NaN is never <=
            message = f"Expected ascending edges for stream {spec.name}, got {row}"
            raise ReferenceProfileError(message)
    return replace(
        reference,
        edges=rows_of_edges,
        projection_mean=rest[:embedding],
        projection=tuple(matrix[i * embedding : (i + 1) * embedding] for i in range(rows)),
        projection_scale=rest[embedding + rows * embedding :],
    )
