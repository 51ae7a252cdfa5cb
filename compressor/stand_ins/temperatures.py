"""Temperatures with a daily cycle in the format of ``windows`` for series: CSV files and ``combined_windows.json``."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from compressor.cache import write_atomically
from compressor.recipe.model import DataRecipe

STEPS = 12_000
_DAY_STEPS = 288
_START = datetime(2020, 1, 1)  # noqa: DTZ001 - as in the original series: local time, without a zone
_ANOMALY = (6_000, 6_050)


def write(folder: Path, data: DataRecipe) -> Path:
    """Write a series for each of ``data.train_slices``; return the folder, which holds nothing else."""
    own = folder / "temperatures"
    rng = np.random.default_rng(0)
    spans = {}
    for level, name in enumerate(data.train_slices or ("temperature",)):
        step = np.arange(STEPS)
        values = 70 + 5 * level + 6 * np.sin(2 * np.pi * step / _DAY_STEPS) + rng.normal(0, 0.3, STEPS)
        values[slice(*_ANOMALY)] += 15
        times = [_START + timedelta(minutes=5 * int(place)) for place in step]
        lines = ["timestamp,value", *(f"{time},{value:.3f}" for time, value in zip(times, values, strict=True))]
        write_atomically(own / f"{name}.csv", "\n".join(lines).encode())
        spans[f"generated/{name}.csv"] = [[str(times[place]) for place in _ANOMALY]]
    write_atomically(own / "combined_windows.json", json.dumps(spans).encode())
    return own
