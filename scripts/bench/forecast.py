#!/usr/bin/env python3
"""How well the forecasts of ``models/nab`` separate anomalies, and how they compare with the simplest forecasts.

``forecast.py RUN --data FOLDER [--json FILE]``: RUN is the output of ``compressor run models/nab --out RUN``. Errors
are on the gate split (by the recipe's own seed), compared with the last value (persistence) and a ridge regression on
the same 8-bit inputs. The area under the ROC curve uses the error of a bundle as the score of a window, and the mean
over a source (48 steps) as the score of a source: windows of sources that were not trained on against windows that
touch a labelled anomaly. Each row: what, ours, reference, ratio, target, met (null: no target).
"""

# ruff: noqa: E402 - the path is set before the imports that need it
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from compressor.cache import Cache
from compressor.data._table import Table
from compressor.measurement.predictions import Candidate, predict
from compressor.progress import Silent
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import material_of
from compressor.run.stages import Run
from scripts.bench.rows import Row, told
from wire.bundle import read_bundle

Floats = NDArray[np.float64]
_RIDGE = 1.0
_ANOMALY = " anomaly"


def auc(normal: Floats, anomalous: Floats) -> float:
    """Return the share of pairs in which the anomalous score is larger, counting a tie as half."""
    return float(stats.mannwhitneyu(anomalous, normal).statistic / (len(normal) * len(anomalous)))


def errors_of(recipe: Recipe, bundle: Path, table: Table) -> Floats:
    """Return the mean absolute error of the bundle on each row, (N,)."""
    read = read_bundle(bundle)
    run = Run(recipe=recipe, cache=Cache(bundle.parent / "cache"), progress=Silent())
    inputs = run.inputs(table, read.manifest.preprocessing.layout)
    said = predict(Candidate(read.manifest, read.artifact), inputs).logits
    return np.abs(said.astype(np.float64) - table.labels).mean(axis=1)


def last_values(table: Table, recipe: Recipe) -> Floats:
    """Return the inputs that the network gets, in the series' unit, (N, steps)."""
    low, high = (float(recipe.data.options[name]) for name in ("low_0", "high_0"))
    return np.stack([image[:, 0, 0] for image in table.images]).astype(np.float64) / 255 * (high - low) + low


def simple(run: Run) -> Iterator[tuple[str, float]]:
    """Yield the mean absolute error of the last value and of a ridge regression, on the gate split."""
    train, gate = run.rows("train"), run.rows("gate")
    before, after = last_values(train, run.recipe), last_values(gate, run.recipe)
    yield "the last value", float(np.abs(after[:, -1:] - gate.labels).mean())
    given, asked = (np.c_[values, np.ones(len(values))] for values in (before, after))
    weights = np.linalg.solve(given.T @ given + _RIDGE * np.eye(given.shape[1]), given.T @ train.labels)
    yield "ridge regression", float(np.abs(asked @ weights - gate.labels).mean())


def unseen(run: Run) -> Table:
    """Return the windows of the gate's sources, and all that touch an anomaly: none of them was trained on."""
    table = run.table
    anomalous = np.char.endswith(table.slices, _ANOMALY)
    return table.take(np.isin(table.sources, run.rows("gate").sources) | anomalous)


def told_apart(recipe: Recipe, bundle: Path, table: Table) -> Iterator[tuple[str, float]]:
    """Yield the area under the ROC curve of each series, per window and per source."""
    errors, series = errors_of(recipe, bundle, table), np.char.replace(table.slices, _ANOMALY, "")
    anomalous = np.char.endswith(table.slices, _ANOMALY)

    def by_source(rows: NDArray[np.bool_]) -> Floats:
        return np.array([errors[rows & (table.sources == name)].mean() for name in np.unique(table.sources[rows])])

    for name in np.unique(series).tolist():
        own = series == name
        yield f"{name}, a window", auc(errors[own & ~anomalous], errors[own & anomalous])
        means = [by_source(own & part) for part in (~anomalous, anomalous)]
        yield f"{name}, a source ({len(means[0])} and {len(means[1])})", auc(*means)


def measured(run: Path, data: Path) -> Iterator[Row]:
    """Yield all rows of the run at ``run``."""
    recipe = read_recipe(ROOT / "models" / "nab").with_data(data)
    began = Run(recipe=recipe, cache=Cache(run / "cache"), progress=Silent())
    began = replace(began, material=material_of(began, None, None))
    gate, references = began.rows("gate"), dict(simple(began))
    for bundle in sorted(run.glob("*.tfb")):
        ours = float(errors_of(recipe, bundle, gate).mean())
        for name, value in references.items():
            yield Row(f"{bundle.stem}: mean error of {len(gate)} windows, against {name}", ours, value)
        for name, value in told_apart(recipe, bundle, unseen(began)):
            yield Row(f"{bundle.stem}: AUC of the error, {name}", value, 0.5)


def main() -> int:
    """Print the rows; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with the two series and combined_windows.json")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    return told(list(measured(options.run, options.data)), options.json)


if __name__ == "__main__":
    sys.exit(main())
