"""Derives the evidence of one device again, window by window, with the detectors' own code. Pure.

What it needs: the state from which the path starts, the baseline, the device's windows, and by what the windows of each
slot were judged beside that (``SharedMovement``: what the devices shared, streams in which nobody was judged, the cap).
The same code with the same inputs gives the same bits; other rows of the arrays do not matter to a device's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.drift.detection.baseline import Collected, Commissioning
from server.drift.detection.detector_bank import DETECTORS, DetectorBank, DetectorSettings, SharedMovement, arrays_of
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.reference import Ints, Singles

JUDGING = ("log_m", "class_m", "aged")
"""The detectors' state that decides: the rest words causes, and compares with training."""


@dataclass(frozen=True, slots=True)
class PathStart:
    """The beginning of a path: the columns, the device's baselines by context, and the state of its detectors.

    ``detectors``: of each name in ``JUDGING`` the device's row; empty for a baseline that was just estimated.
    """

    columns: ScoreColumns
    baselines: Mapping[int, Collected]
    detectors: Mapping[str, Singles]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathWindow:
    """One window of the device that was judged: ``counts`` (S, 16), and by what else."""

    start_ms: int
    context: int
    counts: Ints
    by: SharedMovement


_DEVICE = "device"


def retraced(
    start: PathStart, windows: Sequence[PathWindow], settings: DetectorSettings
) -> tuple[list[float], DetectorBank]:
    """Return the log value of the device after each of ``windows``, and the bank with its state after the last."""
    bank = DetectorBank(columns=start.columns, training=None)
    own = dict(start.baselines)
    commissioning = Commissioning(stages=(1,), seen=own, complete=frozenset(own), estimated=dict(own))
    bank.refill([_DEVICE], [commissioning], _detectors(start), settings)
    values = []
    for window in windows:
        bank.retrace(_DEVICE, window.counts, window.by)
        values.append(float(bank.log_values()[0]))
    return values, bank


def _detectors(start: PathStart) -> dict[str, Singles]:
    found: dict[str, Singles] = {}
    for name, (width, kind, value) in arrays_of(start.columns).items():
        if name in DETECTORS:
            found[name] = np.full((1, *width), value, kind)
            if name in start.detectors:
                found[name][0] = start.detectors[name]
    return found


def is_state_of(bank: DetectorBank, judged: DetectorBank, device: str) -> bool:
    """Return whether the one device of ``bank`` has the bits of ``device`` in the bank that judged it."""
    row = judged.rows[device]
    return all(getattr(bank, name)[0].tobytes() == getattr(judged, name)[row].tobytes() for name in JUDGING)


def digest(windows: Iterable[PathWindow]) -> str:
    """Return a SHA-256 of the inputs of a path: windows, and what the devices shared."""
    found = hashlib.sha256()
    for window in windows:
        found.update(f"{window.start_ms} {window.context} {window.by.log_cap!r}\n".encode())
        for array, kind in ((window.counts, "<i8"), (window.by.common, "<f8"), (window.by.held, "u1")):
            found.update(array.astype(kind).tobytes())
    return found.hexdigest()
