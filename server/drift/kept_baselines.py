"""Completed baselines in the store: read when their bank is opened, written when they are complete.

A baseline is kept for good. A device that returns after longer than the horizon is compared with its old baseline;
only a new release (another reference or artifact) makes a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa

from server.drift.detection.baseline import Collected, Kept
from server.drift.detection.slot_update import BankKey
from server.store.database import Database
from server.store.monitoring import baselines as store
from wire.histogram import BINS

_SCORES = 3
_COUNT, _SCORE = np.dtype("<i8"), np.dtype("<f8")
_KeptOfBank = dict[str, dict[int, Kept]]


@dataclass(slots=True)
class KeptBaselines:
    """The kept baselines of open banks; only the drift service's thread may use it."""

    database: Database
    window_ms: int
    banks: dict[BankKey, _KeptOfBank] = field(default_factory=dict)

    def open(self, key: BankKey, streams: int) -> None:
        """Read the baselines of the bank ``key``, once; those that do not fit ``streams`` are left out."""
        if key in self.banks:
            return
        bank: _KeptOfBank = {}
        with self.database.begin() as connection:
            for row in store.baselines_of(connection, *key):
                if len(row["counts"]) == streams * BINS * _COUNT.itemsize:
                    kept = Kept(row["completed_ms"] // self.window_ms, _collected(row, streams))
                    bank.setdefault(row["device"], {})[row["context"]] = kept
        self.banks[key] = bank

    def add(self, completed: Mapping[BankKey, Mapping[tuple[str, int], Kept]]) -> None:
        """Store newly completed baselines; stored ones are never replaced."""
        fresh = [
            (key, device, context, kept)
            for key, found in completed.items()
            for (device, context), kept in found.items()
            if context not in self.banks[key].get(device, {})
        ]
        if not fresh:
            return
        with self.database.begin() as connection:
            store.add_baselines(connection, [self._row(*one) for one in fresh])
        for key, device, context, kept in fresh:
            self.banks[key].setdefault(device, {})[context] = kept

    def _row(self, key: BankKey, device: str, context: int, kept: Kept) -> dict[str, object]:
        return {
            "ref_id": key[0], "artifact": key[1], "device": device, "context": context,
            "completed_ms": kept.slot * self.window_ms, "windows": kept.collected.windows,
            "counts": kept.collected.counts.astype(_COUNT).tobytes(),
            "squares": kept.collected.squares.astype(_SCORE).tobytes(),
        }  # fmt: skip


def _collected(row: sa.RowMapping, streams: int) -> Collected:
    counts = np.frombuffer(row["counts"], _COUNT).astype(np.int64).reshape(streams, BINS)
    squares = np.frombuffer(row["squares"], _SCORE).astype(np.float64).reshape(streams, _SCORES)
    return Collected(row["windows"], counts, squares)
