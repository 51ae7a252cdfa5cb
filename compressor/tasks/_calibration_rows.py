"""Rows that calibrate, where a task needs many of them."""

from __future__ import annotations

import numpy as np

from compressor.data._table import Table


def filled(rows: Table, train: Table, least: int) -> list[Table]:
    """Return the calibration split ``rows``, and rows of ``train`` where it has fewer than ``least``."""
    lacking = least - len(rows)
    return [rows] if lacking <= 0 else [rows, train.take(np.arange(min(len(train), lacking)))]
