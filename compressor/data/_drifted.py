"""Labelled samples from the fleet, split into a training part and a held-out part for a retraining. Pure.

A sample's part depends only on a hash of its source: it does not change when more samples arrive, so that no later
retraining trains on a held-out sample.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from compressor.data._table import Table, align
from compressor.errors import SplitError

TRAIN_SHARE = 0.7
_RANGE = 2**64


@dataclass(frozen=True, slots=True, eq=False)
class Drifted:
    """The drifted samples: ``train`` to learn from (about 70 %), ``held`` to judge."""

    train: Table
    held: Table


def part(extra: Table, used: Table) -> Drifted:
    """Return ``extra`` in two parts, labels aligned with ``used`` (the base's splits), without samples in ``used``.

    Raises:
        DataError: If ``extra`` has a class that ``used`` lacks.
        SplitError: If one part would be empty.
    """
    known = set(used.hashes.tolist())
    fresh = np.array([value not in known for value in extra.hashes.tolist()], dtype=bool)
    extra = align(extra.take(fresh), used.class_names)
    position = np.array([_position(source) for source in extra.sources.tolist()])
    learns = position < TRAIN_SHARE
    if not learns.any() or learns.all():
        message = f"Expected new labelled samples for training and for judging, got {len(extra)}: label more"
        raise SplitError(message)
    return Drifted(extra.take(learns), extra.take(~learns))


def repeats(train_rows: int, drifted_rows: int) -> int:
    """Return how often the drifted training samples are repeated, to make up about a third of an epoch."""
    return int(np.clip(round(train_rows / (2 * max(drifted_rows, 1))), 1, 16))


def _position(source: str) -> float:
    digest = hashlib.blake2b(source.encode(), digest_size=8, person=b"drifted").digest()
    return int.from_bytes(digest, "big") / _RANGE
