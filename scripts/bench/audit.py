#!/usr/bin/env python3
"""What a few labels a day show of a model that goes wrong silently, and what confidences show without labels.

``audit.py [--quick] [--years N] [--bundle METER_DIGITS.tfb --data FOLDER] [--json FILE]``. The server's own bound on
simulated labels, looked at weekly for a year: how often a model that is as wrong as allowed is called harmful, and how
many days after a concept drift from 95 to 85 % accuracy (inputs as ever) a harmful one is, beside the least possible
delay: ln of the allowed run length over the information of a day's labels; and the same of one device, in labels.
With ``--bundle``: the average calibrated confidence of each development site of the meter digits (the table of the
bundle's reference), against the truth. Each row: what, ours, reference, ratio, target, met (null: no target).
"""

# ruff: noqa: E402 - the path is set before the imports that need it
from __future__ import annotations

import argparse
import csv
import io
import math
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from PIL import Image

from compressor.data._table import Table
from edge_agent.inference.served_model import load_model
from scripts.bench.real_bundles import counted
from scripts.bench.rows import Row, told
from server.retraining.harm import LabelledScene, log_evidence
from wire.reference import Reference

_DAY_MS = 86_400_000
_LEVEL = 0.025  # that of all devices: half of 5 %
_SOURCE, _MARGIN, _DRIFTED = 0.05, 0.02, 0.15
_DRIFT_DAY = 180
_SITE_ROWS = 300
_PRIOR = 4.0


def labels(days: int, per_day: float, drift_day: int, before: float, seed: int) -> list[LabelledScene]:
    """Return labels of ``days`` at ``before``, from ``drift_day`` on at the drifted error rate."""
    chance = np.random.default_rng(seed)
    return [
        LabelledScene(day * _DAY_MS + number, float(chance.random() < (_DRIFTED if day >= drift_day else before)))
        for day in range(days) for number in range(chance.poisson(per_day))
    ]  # fmt: skip


def first_harm(scenes: list[LabelledScene], days: range) -> float:
    """Return the first of ``days`` on which the error rate is shown to be above what is allowed; infinity for none."""
    for day in days:
        seen = [scene for scene in scenes if scene.at_ms < day * _DAY_MS]
        if seen and log_evidence(seen, 0, _SOURCE + _MARGIN) >= -math.log(_LEVEL):
            return day
    return math.inf


def harm_rows(years: int) -> list[Row]:
    """Return false harm in a year of weekly looks, and the days until harm is shown, with the least possible delay."""
    rows, noise = [], 2 * math.sqrt(0.05 * 0.95 / years)
    for name, rate in (("as wrong as allowed, 7 %", _SOURCE + _MARGIN), ("as at its gates, 5 %", _SOURCE)):
        worlds = [labels(365, 5, 365, rate, seed) for seed in range(years)]
        share = float(np.mean([math.isfinite(first_harm(one, range(7, 366, 7))) for one in worlds]))
        target = f"<= {0.05 + noise:.3f}"
        rows.append(Row(f"false harm in a year of weekly looks, {name}", share, 0.05, target, share <= 0.05 + noise))
    allowed, drifted = _SOURCE + _MARGIN, _DRIFTED
    nats = drifted * math.log(drifted / allowed) + (1 - drifted) * math.log((1 - drifted) / (1 - allowed))
    for begins, days in ((0, 2), (_DRIFT_DAY, 2 * 365)):
        for per_day in (5, 10, 25):
            last = begins + 180
            worlds = [labels(last, per_day, begins, _SOURCE, 10_000 + seed) for seed in range(max(years // 5, 20))]
            found = [first_harm(one, range(begins + 1, last + 1, 2)) - begins for one in worlds]
            least = math.log(days / _LEVEL) / (per_day * nats)
            text = f"days until harm, accuracy .95 to .85 on day {begins}, {per_day} a day"
            rows.append(Row(f"{text}: median", float(np.median(found)), least))
            rows.append(Row(f"{text}: 90 %", float(np.quantile(found, 0.9, method="higher")), least))
    return rows


def labels_until_harm(rate: float, among: int, most: int, seed: int) -> float:
    """Return after how many labels of one device, of ``among`` devices and cohorts, harm is shown; infinity: never."""
    chance, scenes = np.random.default_rng(seed), list[LabelledScene]()
    for number in range(most):
        scenes.append(LabelledScene(number * 2 * _DAY_MS, float(chance.random() < rate)))
        if log_evidence(scenes, 0, _SOURCE + _MARGIN) >= math.log(among / _LEVEL):
            return number + 1
    return math.inf


def device_rows(years: int) -> list[Row]:
    """Return false harm of any of ten devices in a year, looked at after each label, and how many labels harm takes."""
    among, allowed, noise = 11, _SOURCE + _MARGIN, 2 * math.sqrt(_LEVEL * (1 - _LEVEL) / years)
    false = [
        any(math.isfinite(labels_until_harm(allowed, among, 180, 100 * year + one)) for one in range(10))
        for year in range(years)
    ]  # fmt: skip
    share, limit = float(np.mean(false)), _LEVEL + noise
    name = "false harm of any of 10 devices, as wrong as allowed, a label each 2 days"
    rows = [Row(name, share, _LEVEL, f"<= {limit:.3f}", share <= limit)]
    for devices in (10, 100, 1_000):
        for rate in (1.0, 0.5, 0.3):
            nats = rate * math.log(rate / allowed) + (
                (1 - rate) * math.log((1 - rate) / (1 - allowed)) if rate < 1 else 0
            )
            found = [labels_until_harm(rate, devices + 1, 500, seed) for seed in range(max(years // 5, 20))]
            name = f"labels until one of {devices} devices is shown, {rate:.0%} wrong: median"
            rows.append(Row(name, float(np.median(found)), math.log((devices + 1) / _LEVEL) / nats))
    return rows


def average_confidence(reference: Reference, table: np.ndarray) -> float:
    """Return the accuracy that the confidences in ``table`` (classes x bins counts) suggest without labels.

    Each cell counts with the share that was right on the reference split, shrunk to that of its confidence bin.
    """
    width, classes = reference.confidence_bins, reference.classes
    seen = np.array(reference.table_seen, float).reshape(classes, width)
    right = np.array(reference.table_right, float).reshape(classes, width)
    of_bin = (right.sum(axis=0) + 0.5) / (seen.sum(axis=0) + 1)
    share = (right + _PRIOR * of_bin) / (seen + _PRIOR)
    return float((table.reshape(classes, width) * share).sum() / table.sum())


def site_rows(bundle: Path, data: Path) -> list[Row]:
    """Return the accuracy without labels of each site, with the truth as the reference."""
    model, rows, chance = load_model(bundle, threads=1), [], np.random.default_rng(0)
    size = model.reference.classes * model.reference.confidence_bins
    with zipfile.ZipFile(data / "meter-digits" / "meter-digits-dev.zip") as files:
        lines = list(csv.DictReader(io.StringIO(files.read("labels.csv").decode())))
        for site in sorted({line["domain"] for line in lines}):
            own = [line for line in lines if line["domain"] == site]
            own = [own[i] for i in chance.permutation(len(own))[:_SITE_ROWS]]
            images = np.empty(len(own), object)
            for number, line in enumerate(own):
                images[number] = np.asarray(Image.open(io.BytesIO(files.read(line["path"]))).convert("RGB"))
            names = np.array([line["path"] for line in own])
            items = counted(model, Table(
                images=images, labels=np.array([int(float(line["label"])) for line in own]), sources=names,
                slices=np.array([site] * len(own)), hashes=names, class_names=model.manifest.labels,
            ))  # fmt: skip
            estimate = average_confidence(model.reference, items.counters[:, -size:].sum(axis=0))
            rows.append(Row(f"accuracy without labels, {site}, n {len(own)}", estimate, float(items.right.mean())))
    errors = [row.ours - (row.reference or 0.0) for row in rows]
    rows.append(Row("  the largest overestimate", max(errors)))
    rows.append(Row("  the mean absolute error over sites", float(np.mean(np.abs(errors)))))
    return rows


def main() -> int:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 simulated years instead of 200")
    parser.add_argument("--years", type=int)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    years = given.years or (40 if given.quick else 200)
    rows = [*harm_rows(years), *device_rows(years)]
    if given.bundle is not None and given.data is not None and (given.data / "meter-digits").is_dir():
        rows += site_rows(given.bundle, given.data)
    else:
        print("skipped: accuracy without labels (needs --bundle and the meter digits below --data)")
    return told(rows, given.json)


if __name__ == "__main__":
    sys.exit(main())
