#!/usr/bin/env python3
"""Anomalies: one digit left out, against scikit-learn; and how often a threshold holds its false alarms a day.

``anomaly.py [--quick] [--data NAB] [--json FILE]``. Digits: AUC of the int8 ONNX file of ``models/odd_digit`` for each
digit that may be left out, by reconstruction and by distance in the embedding of a classifier of the other nine,
against an isolation forest and a principal component analysis (as many components as the code has numbers) on the same
rows. Thresholds: the share of calibrations after which the true rate of events is at most the stated one, on
independent, autoregressive and scene-wise scores, against the quantile of the scores with that rate.
``--data``: the folder of ``models/nab_alarm``; the AUC and false alarms a day of its two bundles, against those two and
the quantile. Each row: what, ours, reference, ratio, target, met (null: no target). ``--quick``: one digit, eight
epochs, a quarter of the calibrations; judges nothing.
"""

# ruff: noqa: E402 - the path is set before the imports that need it
from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

from compressor.cache import Cache
from compressor.data._table import Table
from compressor.progress import Silent
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import material_of, run_recipe
from compressor.run.stages import Run
from compressor.statistics import false_alarms
from compressor.statistics.false_alarms import DAY_S, ScoreSeries
from compressor.tasks.anomaly.evidence import area
from scripts.bench.rows import Row, told

Floats = NDArray[np.float64]
_TRUTH = 1_000_000
_BLOCK = 144
"""Rows of a source: several times as long as they depend on each other."""
_SCENE = 48
_HELD = 0.95
_BODY = {"filters": 8, "stem_stride": 2}
"""Of the network whose embedding's distance is measured beside the reconstruction."""


def independent(rng: np.random.Generator, rows: int) -> Floats:
    """Return rows that know nothing of each other."""
    return rng.standard_normal(rows)


def autoregressive(rng: np.random.Generator, rows: int) -> Floats:
    """Return rows of which each is .98 of the one before, and noise."""
    noise = rng.standard_normal(rows + 500) * (1 - 0.98**2) ** 0.5
    return np.asarray(lfilter([1], [1, -0.98], noise)[500:])


def scenes(rng: np.random.Generator, rows: int) -> Floats:
    """Return rows of scenes, of which three make a source, each with an offset of its own."""
    offset = np.repeat(rng.standard_normal(-(-rows // _SCENE)), _SCENE)[:rows]
    return np.asarray((offset + rng.standard_normal(rows)) / 2**0.5)


_DRAWN: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "independent": independent, "autoregressive": autoregressive, "scenes": scenes,
}  # fmt: skip


def held(name: str, repetitions: int, per_day: float, interval_s: float, rows: int) -> Row:
    """Return the share of calibrations whose threshold holds the rate, or says that it can't, and the quantile's."""
    drawn, sources = _DRAWN[name], np.arange(_TRUTH) // _BLOCK
    truth = ScoreSeries.of(drawn(np.random.default_rng(99_999), _TRUTH), sources, interval_s, 0.0)
    most = per_day * _TRUTH * interval_s / DAY_S
    kept, plain, few = 0, 0, 0
    for seed in range(repetitions):
        scores = drawn(np.random.default_rng(seed), rows)
        found = false_alarms.threshold(
            ScoreSeries.of(scores, sources[:rows], interval_s, 0.0), per_day, interval_s, 0.95
        )
        kept += not found.holds or truth.events(found.level).sum() <= most
        few += not found.holds
        plain += truth.events(float(np.quantile(scores, 1 - per_day * interval_s / DAY_S))).sum() <= most
    days = rows * interval_s / DAY_S
    said = f"{name}, {per_day:g} a day from {days:g} days: thresholds that hold ({few} of {repetitions} too few rows)"
    share = kept / repetitions
    return Row(said, share, plain / repetitions, f">= {_HELD}", share >= _HELD)


def references(run: Run, components: int) -> dict[str, tuple[float, float, float]]:
    """Return of scikit-learn's detectors the AUC on the rows that ours is judged by, what they detect, and falsely so.

    Their thresholds follow from the calibration rows as ours do.
    """

    def flat(table: Table) -> Floats:
        return run.inputs(table).reshape(len(table), -1).astype(np.float64)

    train, gate, calibration = (run.rows(name) for name in ("train", "gate", "calibration"))
    owner = np.unique(gate.sources, return_inverse=True)[1]
    first = np.sort(np.unique(2 * owner + gate.labels, return_index=True)[1])
    known, asked, quiet = flat(train), flat(gate), flat(calibration)
    pca = PCA(components, random_state=0).fit(known)
    forest = IsolationForest(random_state=0).fit(known)

    def apart(values: Floats) -> Floats:
        return np.asarray(((values - pca.inverse_transform(pca.transform(values))) ** 2).mean(axis=1))

    found = {}
    alarm = run.recipe.alarm
    for name, score in ((f"PCA of {components}", apart), ("isolation forest", lambda x: -forest.score_samples(x))):
        scores = np.asarray(score(asked))
        series = ScoreSeries.of(np.asarray(score(quiet)), calibration.sources, alarm.interval_s, alarm.gap_s)
        level = false_alarms.threshold(series, alarm.false_alarms_per_day, alarm.interval_s, alarm.confidence).level
        normal = gate.labels == 0
        judged = ScoreSeries.of(scores[normal], gate.sources[normal], alarm.interval_s, alarm.gap_s)
        rate = judged.events(level).sum() / (normal.sum() * alarm.interval_s / DAY_S)
        found[name] = area(scores[first], gate.labels[first]), float((scores[~normal] > level).mean()), float(rate)
    return found


def compared(recipe: Recipe, out: Path, what: str, components: int) -> Iterator[Row]:
    """Yield the AUC of each target of ``recipe``, beside the references on the same rows."""
    outcome = run_recipe(recipe, out=out)
    run = Run(recipe=recipe, cache=Cache(out / "cache"), progress=Silent())
    run = replace(run, material=material_of(run, None, None))
    others = references(run, components)
    for certificate in outcome.targets:
        figures = certificate.figures
        for name, (value, share, others_rate) in others.items():
            own, detected = figures["auc"], figures["detected"]
            yield Row(f"{what} ({certificate.target}): AUC, against {name}", own, value, ">= reference", own >= value)
            yield Row(f"{what} ({certificate.target}): anomalous rows detected, against {name}", detected, share)
            false = figures["false_alarms_per_day"]
            yield Row(f"{what} ({certificate.target}): false alarms a day, against {name}", false, others_rate)
        yield Row(f"{what} ({certificate.target}): AUC, against float", figures["auc"], figures["float_auc"])
        stated, rate = figures["stated_false_alarms_per_day"], figures["false_alarms_per_day"]
        yield Row(
            f"{what} ({certificate.target}): false alarms a day, stated", rate, stated, "<= stated", rate <= stated
        )


def digits(numbers: range, out: Path, epochs: int) -> Iterator[Row]:
    """Yield the rows of each digit left out, by reconstruction and by distance; ``epochs``: 0 for the recipe's."""
    recipe = read_recipe(ROOT / "models" / "odd_digit")
    recipe = replace(recipe, gates=(), targets=recipe.targets[:1])
    if epochs:
        recipe = replace(recipe, train=replace(recipe.train, epochs=epochs))
    for number in numbers:
        normal = tuple(str(other) for other in range(10) if other != number)
        own = replace(recipe, data=replace(recipe.data, normal=normal))
        components = int(recipe.model.network_options["code"])
        yield from compared(own, out / str(number), f"{number} left out", components)
        far = replace(own, model=replace(own.model, network="resnet8", network_options=_BODY))
        yield from compared(far, out / f"{number}-far", f"{number} left out, distance", components)


def measured(options: argparse.Namespace, out: Path) -> Iterator[Row]:
    """Yield all rows."""
    for name in _DRAWN:
        yield held(name, 50 if options.quick else 200, 1.0, 300.0, 2880)
        yield held(name, 50 if options.quick else 200, 5.0, 60.0, 7200)
    yield from digits(range(1 if options.quick else 10), out, 8 if options.quick else 0)
    if options.data is not None:
        recipe = read_recipe(ROOT / "models" / "nab_alarm").with_data(options.data)
        yield from compared(replace(recipe, gates=()), out / "nab", "NAB, machine", 8)


def main() -> int:
    """Print the rows; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one digit, few epochs and calibrations; judges nothing")
    parser.add_argument("--data", type=Path, help="folder with NAB's machine_temperature_system_failure.csv and labels")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        rows = list(measured(options, Path(folder)))
    return told([row.unjudged() for row in rows] if options.quick else rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
