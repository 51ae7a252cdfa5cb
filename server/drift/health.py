"""Deterministic checks of a window before any statistics: a broken sensor is not drift.

Decides what counts as a device fault: a frozen image, impossible values, a covered or blinded lens, an empty window, a
clock far off, silence. Consequences: ``docs/explanation/drift.md``, "Verdicts".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.reference import Floats, Ints
from server.wording import duration
from wire.histogram import BINS
from wire.reference import Reference

SILENT = "silent"
"""The code of the fault of a device that sends nothing."""
_INVALID_RATIO = 0.01
_BLIND_RATIO = 0.5
_USUAL_RATIO = 0.1
_CONSTANT_RATIO = 0.9
_ENOUGH = 20  # samples in one bin by chance: 16^-19 for an equal-mass stream
_MIN_STREAMS = 2
_USUAL_SHARE = 0.2  # of a bin; one with more has a value of its own, such as 0, that many different inputs have
_OF_INPUTS = frozenset({"input", "embedding"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed check: a stable ``code``, a text for people, and the kind of stream that showed it."""

    code: str
    text: str
    kind: str = "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The part of a reference that the checks use: names, kinds, usual proportions (S, 16), and edges (S, 15)."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    proportions: Floats
    edges: Floats


def usual(reference: Reference) -> Usual:
    """Return the part of ``reference`` that the checks use, over all contexts."""
    streams = len(reference.streams)
    counts = np.array([context.counts for context in reference.contexts], np.float64).sum(axis=0).reshape(streams, -1)
    return Usual(
        names=tuple(stream.name for stream in reference.streams),
        kinds=tuple(stream.kind for stream in reference.streams),
        proportions=counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        edges=np.array(reference.edges, np.float64),
    )


def suspects(counts: Ints, invalid: Ints, n: Ints, normal: Usual) -> NDArray[np.bool_]:
    """Return which of D windows may fail a check of ``faults``, (D,), and no other does; ``faults`` says which check.

    ``counts`` (D, S, 16), ``invalid`` (D, S), ``n`` (D,): of one reference.
    """
    found = (n == 0) | (invalid.max(axis=1) / np.maximum(n, 1) > _INVALID_RATIO)
    varying = _varying(normal)
    if len(varying) >= _MIN_STREAMS:
        largest, total = counts[:, varying].max(axis=2), counts[:, varying].sum(axis=2)
        found |= ((largest == total) & (total >= _ENOUGH)).all(axis=1)
    for stream, name in enumerate(normal.names):
        high = _blinding(name, stream, normal)
        if high is not None:
            seen, total = counts[:, stream, high].sum(axis=1), counts[:, stream].sum(axis=1)
            found |= seen / np.maximum(total, 1) > _BLIND_RATIO
    return np.asarray(found)


def faults(counts: Ints, invalid: Ints, n: int, normal: Usual | None) -> tuple[Fault, ...]:
    """Return the failed checks of one window: ``counts`` (S, 16), ``invalid`` (S,), ``n`` inferences."""
    if n == 0:
        return (Fault("no_samples", "no inference in the whole window"),)
    found = [_invalid(invalid, n, normal), _stuck(counts, normal)]
    if normal is not None:
        found += [_blind(name, counts[i], i, normal) for i, name in enumerate(normal.names)]
    return tuple(fault for fault in found if fault is not None)


def _invalid(invalid: Ints, n: int, normal: Usual | None) -> Fault | None:
    worst = int(invalid.argmax())
    ratio = int(invalid[worst]) / n
    if ratio <= _INVALID_RATIO:
        return None
    name, kind = (normal.names[worst], normal.kinds[worst]) if normal else (f"stream {worst}", "input")
    return Fault("invalid_values", f"{ratio:.0%} of {name} are NaN, infinite or impossible", kind)


def _stuck(counts: Ints, normal: Usual | None) -> Fault | None:
    """Return a fault if nothing that usually varies with the input does: the same input again and again.

    Different inputs that are all far from training share a bin too: the end bins, which have no limit, and those of
    values that many inputs have. So some streams must stand still in a bin that is narrow. An embedding tells apart
    what the other streams can't.
    """
    if normal is None:
        return None
    varying = _varying(normal)
    still = [i for i in varying if counts[i].max() == counts[i].sum() >= _ENOUGH]
    if len(varying) < _MIN_STREAMS or still != varying:
        return None
    bins = {i: int(counts[i].argmax()) for i in still}
    narrow = [0 < at < BINS - 1 and normal.proportions[i, at] <= _USUAL_SHARE for i, at in bins.items()]
    if sum(narrow) < _MIN_STREAMS:
        return None
    return Fault("stuck", f"all {len(varying)} streams of the input stand still: it repeats itself, as if frozen")


def _varying(normal: Usual) -> list[int]:
    return [
        i for i, kind in enumerate(normal.kinds)
        if kind in _OF_INPUTS and normal.proportions[i].max() < _CONSTANT_RATIO
    ]  # fmt: skip


def _blind(name: str, counts: Ints, stream: int, normal: Usual) -> Fault | None:
    high = _blinding(name, stream, normal)
    if high is None:
        return None
    seen, total = int(counts[high].sum()), int(counts.sum())
    if not total or seen / total <= _BLIND_RATIO:
        return None
    text = f"{seen / total:.0%} of the images are more than half {'dark' if 'dark' in name else 'clipped'}"
    return Fault("dark_or_clipped", text)


def _blinding(name: str, stream: int, normal: Usual) -> NDArray[np.bool_] | None:
    """Return the bins (16,) of an image without content; None if the stream can't show that, or it is usual."""
    if "dark" not in name and "clip" not in name:
        return None
    high = np.concatenate([[False], normal.edges[stream] >= _BLIND_RATIO])
    return None if normal.proportions[stream][high].sum() > _USUAL_RATIO else high


def clock_fault(start_ms: int, len_ms: int, received_ms: int, horizon_ms: int) -> Fault | None:
    """Return a fault when a window ends in the server's future, or began longer than ``horizon_ms`` ago."""
    ahead_ms = start_ms - received_ms
    if ahead_ms > len_ms:
        return Fault("clock_skew", f"the device's clock is {ahead_ms / 1000:.0f} s ahead")
    if received_ms - start_ms > horizon_ms:
        return Fault("clock_skew", f"a window from {-ahead_ms / 86_400_000:.0f} days ago: the device's clock is behind")
    return None


def silence(device_windows_missed: int, missed_ms: int, *, limit_windows: int, limit_ms: int) -> Fault | None:
    """Return a fault when a device sent nothing for ``limit_windows`` windows and ``limit_ms``."""
    if device_windows_missed < limit_windows or missed_ms < limit_ms:
        return None
    return Fault(SILENT, f"no window for {duration(missed_ms)}", "device")


def worst(found: Sequence[Fault]) -> Fault | None:
    """Return the first fault: the checks are ordered so that an earlier one is more likely to explain later ones."""
    return found[0] if found else None
