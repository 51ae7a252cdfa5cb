#!/usr/bin/env python3
"""Measures a detector from data to int8: mAP and its drop in both formats, bytes, speed, and the bound's own time.

``detection.py [--quick] [--data PATH] [--folds K] [--epochs N] [--json FILE]``: without ``--data`` the recipe
``models/scenes``, with it ``models/cells`` on the BCCD data set: its own lists, and with ``--folds`` a cross-validation
over all pictures. Each fold trains on the others; the pictures of all folds are judged together, so that the bound of
the drop has as many pictures as the data set. Each row: what, ours, reference, ratio, target, met (null: no target).
"""

# ruff: noqa: E402 - the path is set before the imports that need it
from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from compressor.data._table import Table
from compressor.gates.metrics import DETECTION
from compressor.measurement.predictions import Compared
from compressor.progress import Silent
from compressor.recipe.model import Recipe, TargetRecipe
from compressor.recipe.read import read_recipe
from compressor.run.comparison import Comparison
from compressor.run.pipeline import Run, _models, material_of, opened
from compressor.statistics import detections
from compressor.statistics.bounds import MetricEvidence
from compressor.tasks.detection import evidence
from scripts.bench.rows import Row, told

FOLDS, FOLD_EPOCHS, QUICK_EPOCHS = 5, 40, 8
CALIBRATION_RATIO = 0.2
FLOAT_MAP, INT8_BYTES, FASTER, DROP = 0.80, 330_000, 3.0, 0.02
PICTURES, RESAMPLES_S = 300, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One target of a trained recipe: its gate set, its size, and how much faster than the float file of its format."""

    gate_set: Compared
    size_bytes: int
    faster: float

    @property
    def values(self) -> tuple[float, float]:
        """The mAP at an overlap of .5 of float and int8 file."""
        found = evidence.figures(self.gate_set)
        return found["float_map"], found["map"]

    @property
    def drops(self) -> dict[str, MetricEvidence]:
        """The drops of mAP and F1 with their bounds."""
        return evidence.metrics(self.gate_set, (), ())


def judged(
    recipe: Recipe, out: Path, root: Path, table: Table | None = None, *, timed: bool = True
) -> dict[str, Judged]:
    """Return every target of ``recipe`` after training and quantization; ``table`` instead of the recipe's data."""
    run = opened(recipe, out, Silent())
    run = replace(run, material=material_of(run, root, None))
    if table is not None:
        run = replace(run, material=_material(run, table))
    run = replace(run, models=_models(run, None))
    found: dict[str, Judged] = {}
    before: Comparison | None = None
    for target in recipe.targets:
        before = Comparison.of(run, target.name, before)
        faster = _faster(run, target.name, target.runtime) if timed else float("nan")
        found[target.name] = Judged(before.gate_set, len(before.form.data), faster)
    return found


def _faster(run: Run, target: str, runtime: str) -> float:
    """Return the latency of the float file of the same runtime over that of the target's, taken by turns."""
    rows = run.rows("gate").take(np.arange(min(64, len(run.rows("gate")))))
    pair = {"float": run.models.floats[runtime].candidate, "candidate": run.models.compressed[target].candidate}
    return run.timings(pair, rows)["speed_up_ratio"]


def _material(run: Run, table: Table):  # noqa: ANN202 - the type of ``run.material``
    from compressor.data._split import split  # noqa: PLC0415 - for folds alone

    return replace(run.material, table=table, splits=split(table, run.recipe.train.seed))


def folded(table: Table, fold: int, folds: int) -> Table:
    """Return ``table`` with the pictures of ``fold`` as gate rows, and a fifth of the others for calibration."""
    place = np.random.default_rng(0).permutation(len(table)) % folds
    others = np.flatnonzero(place != fold)
    told_as = np.full(len(table), "gate", dtype="<U11")
    told_as[others] = "train"
    told_as[others[: int(CALIBRATION_RATIO * len(others))]] = "calibration"
    told_as[others[-16:]] = "reference"  # nothing is monitored here; the split must not be empty
    return replace(table, told=told_as)


def together(folds: list[Judged]) -> Judged:
    """Return all folds as one gate set, each picture answered by the model that did not see it."""
    sets = [one.gate_set for one in folds]
    said = {}
    for name in ("baseline", "float_model", "candidate"):
        each = [getattr(one, name) for one in sets]
        said[name] = replace(each[0], logits=np.concatenate([one.logits for one in each]),
                             embedding=np.concatenate([one.embedding for one in each]))  # fmt: skip
    labels = [one.labels for one in sets]
    most = max(one.shape[1] for one in labels)
    padded = [np.pad(one, ((0, 0), (0, most - one.shape[1]), (0, 0)), constant_values=-1) for one in labels]
    slices = np.concatenate([one.slices for one in sets])
    return Judged(Compared(labels=np.concatenate(padded), slices=slices, **said), 0, float("nan"))


def of_lists(name: str, found: Mapping[str, Judged], *, asked: bool) -> Iterator[Row]:
    """Yield the rows of one training; ``asked``: the targets of the blood cells apply."""
    first = next(iter(found.values()))
    pictures, value = len(first.gate_set.labels), first.values[0]
    target = f">= {FLOAT_MAP:g}" if asked else ""
    yield Row(
        f"{name}: mAP at .5, float, {pictures} pictures", value, None, target, value >= FLOAT_MAP if asked else None
    )
    for target_name, one in found.items():
        yield from _of_target(f"{name}, {target_name}", one)
        size, faster = one.size_bytes, one.faster
        smaller = size <= INT8_BYTES if asked else None
        yield Row(f"{name}, {target_name}: bytes of the int8 file", size, None, f"<= {INT8_BYTES}" * asked, smaller)
        quick = target_name == "pi" and asked
        text = f"{name}, {target_name}: times faster than the float file of its format"
        yield Row(text, faster, 1.0, f">= {FASTER:g}" * quick, faster >= FASTER if quick else None)


def _of_target(name: str, one: Judged) -> Iterator[Row]:
    float_map, int8_map = one.values
    yield Row(f"{name}: mAP at .5, int8, against float", int8_map, float_map)
    for metric, drop in one.drops.items():
        judged_here = metric == DETECTION[0]
        text = f"{name}: {metric} at most, {drop.n} pictures (measured {drop.drop:+.4f})"
        yield Row(text, drop.upper, None, f"<= {DROP:g}" * judged_here, drop.upper <= DROP if judged_here else None)


def cross_validated(recipe: Recipe, out: Path, root: Path, folds: int) -> Iterator[Row]:
    """Yield the rows of all folds together, and the spread of the folds' mAP."""
    run = opened(recipe, out, Silent())
    table = material_of(run, root, None).table
    each = []
    for fold in range(folds):
        each.append(judged(recipe, out, root, folded(table, fold, folds), timed=False))
        print(f"fold {fold + 1} of {folds}: { ({name: one.values for name, one in each[-1].items()}) }", flush=True)
    name = f"{folds} folds, {recipe.train.epochs} epochs"
    floats = [next(iter(one.values())).values[0] for one in each]
    yield Row(f"{name}: mean of the folds' mAP at .5, float", float(np.mean(floats)), None, "")
    yield Row(f"{name}: standard deviation of a fold's mAP", float(np.std(floats, ddof=1)))
    for target in each[0]:
        yield from _of_target(f"{name}, {target}", together([one[target] for one in each]))


def bound_time(found: Judged) -> Row:
    """Return the seconds of a bound on 300 pictures by 1,000 resamples: the gate set's, repeated."""
    rows = np.arange(PICTURES) % len(found.gate_set.labels)
    labels = found.gate_set.labels[rows]
    pair = [
        evidence.matched(replace(said, logits=said.logits[rows]), labels, (0.5,))
        for said in (found.gate_set.baseline, found.gate_set.candidate)
    ]
    start = time.process_time()
    detections.map_drop(pair[0], pair[1], np.arange(PICTURES))
    taken = time.process_time() - start
    what = f"bound of a drop of mAP, {PICTURES} pictures, 1,000 resamples: seconds"
    return Row(what, taken, None, f"<= {RESAMPLES_S:g}", taken <= RESAMPLES_S)


def measured(options: argparse.Namespace, out: Path) -> Iterator[Row]:
    """Yield all rows."""
    if options.data is None:
        epochs = options.epochs or (QUICK_EPOCHS if options.quick else 0)
        changes = [f"train.epochs={epochs}"] * bool(epochs)
        recipe = read_recipe(ROOT / "models" / "scenes", changes)
        both = (*recipe.targets, TargetRecipe(name="pi", runtime="litert"))
        recipe = replace(recipe, targets=both)
        found = judged(recipe, out / "scenes", recipe.folder)
        yield from of_lists(f"scenes, {recipe.train.epochs} epochs", found, asked=False)
    else:
        recipe = _cells(options, QUICK_EPOCHS if options.quick else 0)
        found = judged(recipe, out / "lists", recipe.folder)
        yield from of_lists(f"cells, {recipe.train.epochs} epochs", found, asked=not options.quick)
        if options.folds:
            recipe = _cells(options, options.epochs or FOLD_EPOCHS)
            yield from cross_validated(recipe, out / "folds", recipe.folder, options.folds)
    yield bound_time(next(iter(found.values())))


def _cells(options: argparse.Namespace, epochs: int) -> Recipe:
    """Return ``models/cells`` on the given data, with its own number of epochs for 0."""
    recipe = read_recipe(ROOT / "models" / "cells", [f"train.epochs={epochs}"] * bool(epochs))
    return replace(recipe, data=replace(recipe.data, path=str(options.data.resolve()), stand_in=""))


def main() -> int:
    """Print the rows; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, help="zip or folder of BCCD")
    parser.add_argument("--folds", type=int, default=0, help=f"cross-validation; {FOLDS} are usual")
    parser.add_argument("--epochs", type=int, default=0, help=f"of the scenes, or of a fold (default: {FOLD_EPOCHS})")
    parser.add_argument("--out", type=Path, help="where trainings are kept, so that a second run resumes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        return told(list(measured(options, options.out or Path(folder))), options.json)


if __name__ == "__main__":
    sys.exit(main())
