"""Decodes many drift reports at once: ``wire.drift_report.decode_report``, in a few array operations.

Ingest spends most of its time on reports, and most of that on counts of a few bits each. Only packed bodies of
ordinary size are decoded here; all others go to the wire's own decoder, which alone decides what is refused.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.bitpack import bits_below_leading, split
from wire.drift_report import SealedReport, decode_report, open_report
from wire.errors import WireError
from wire.histogram import BINS, Shape

Ints = NDArray[np.int32]
_ORDINARY_BITS = bytes(range(28))  # sixteen such counts still fit in int32
_ORDINARY_N = 1 << 31
_WORD = "I"


@dataclass(frozen=True, slots=True)
class WindowReport:
    """A report in the form in which the server stores it: its head and its counters.

    ``words``: ``head.shape.total`` counts as native uint32, in the order of ``wire.histogram.Counters.values``;
    None when one of them is over 2^32 - 1.
    """

    head: SealedReport
    words: bytes | None


def decode_many(payloads: Sequence[bytes]) -> list[WindowReport | WireError]:
    """Return the report of each payload, or the error that decoding it raises."""
    found: list[WindowReport | WireError | None] = [None] * len(payloads)
    groups: dict[Shape, list[tuple[int, SealedReport, bytes, bytes]]] = {}
    for index, payload in enumerate(payloads):
        try:
            head = open_report(payload)
            parts = _parts(head)
            if parts is not None:
                groups.setdefault(head.shape, []).append((index, head, *parts))
        except WireError as error:
            found[index] = error
    for shape, group in groups.items():
        values = _counters(shape, [part[2:] for part in group], np.array([part[1].n for part in group], np.int32))
        fits = (values.min(axis=1, initial=0) >= 0).tolist()
        for (index, head, *_), row, fit in zip(group, values.view(np.uint32), fits, strict=True):
            found[index] = WindowReport(head, row.tobytes()) if fit else None
    return [decode_one(payloads[index]) if one is None else one for index, one in enumerate(found)]


def decode_one(payload: bytes) -> WindowReport | WireError:
    """Return the report in ``payload``, decoded by ``wire``, or the error that decoding it raises."""
    try:
        values = decode_report(payload).counters.values
        return WindowReport(open_report(payload), array(_WORD, values).tobytes())
    except OverflowError:
        return WindowReport(open_report(payload), None)
    except WireError as error:
        return error


def _parts(head: SealedReport) -> tuple[bytes, bytes] | None:
    """Return the two parts of an ordinary packed body, None for any other."""
    if not head.is_packed or head.n >= _ORDINARY_N:
        return None
    lengths, tail = split(head.body, head.shape.total - head.shape.streams)
    return None if lengths.translate(None, _ORDINARY_BITS) else (lengths, tail)


def _counters(shape: Shape, parts: Sequence[tuple[bytes, bytes]], n: Ints) -> Ints:
    """Return the counters (R, shape.total) of R packed bodies; a last bin below 0 means that the body is wrong."""
    count, streams, width = len(parts), shape.streams, BINS - 1
    kept = _unpacked(parts).reshape(count, shape.total - streams)
    rows, rest = kept[:, : streams * width].reshape(count, streams, width), kept[:, streams * width :]
    last = n[:, None] - rest[:, :streams] - rows.sum(axis=2, dtype=np.int32)
    bins = np.concatenate([rows, last[..., None]], axis=2).reshape(count, streams * BINS)
    return np.concatenate([bins, rest], axis=1)


def _unpacked(parts: Sequence[tuple[bytes, bytes]]) -> Ints:
    """Return the values of all ``parts``, concatenated; see ``wire.bitpack`` for the layout."""
    lengths = np.frombuffer(b"".join(part[0] for part in parts), np.uint8)
    bits = np.unpackbits(np.frombuffer(b"".join(part[1] for part in parts), np.uint8))
    zeros_before = np.array([8 * len(tail) - bits_below_leading(own) for own, tail in parts], np.int32)
    counts = np.array([len(own) for own, _ in parts], np.int32)
    below = np.maximum(lengths, 1).astype(np.int32) - 1
    starts = np.cumsum(below, dtype=np.int32) - below + np.repeat(np.cumsum(zeros_before, dtype=np.int32), counts)
    values = np.minimum(lengths, 1).astype(np.int32)
    longer, place = np.flatnonzero(below), 0
    while longer.size:
        values[longer] = 2 * values[longer] + bits[starts[longer] + place]
        place += 1
        longer = longer[below[longer] > place]
    return values
