#!/usr/bin/env python3
"""How many of the faults planted into real data ``compressor data explore`` finds, and how many false alarms it has.

``explore.py [--quick] [--data DIR] [--json FILE]``: scikit-learn's 1,797 digits, one frame each; with ``--data`` (the
folder of ``meter-digits/``) also every third meter digit, which has wrong labels and repeated frames of its own: there
precision is a lower bound. Planted are flipped labels (2, 5, 10 %), copies (saved again, other brightness, noise, other
size, shifted), outliers, exact duplicates with another label, and rows of a slice that is not trained on. Labels are
compared with confident learning (Northcutt, Jiang and Chuang, JAIR 2021, equation 2) and its ranking by
self-confidence, on a logistic regression with the same gradients and folds. Each row: what, ours, reference, ratio,
target, met.
"""

# ruff: noqa: E402 - threads are set before the imports that read them
from __future__ import annotations

import argparse
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compressor.data import load
from compressor.data._stored_images import object_array
from compressor.data._table import Table, make_table
from compressor.exploration import duplicates, label_noise, outliers
from compressor.exploration.explore import explore
from compressor.exploration.simple_model import gradients, out_of_sample
from compressor.exploration.thumbnails import Thumbs, thumbnails
from compressor.progress import Silent
from compressor.recipe.model import DataRecipe
from scripts.bench.rows import Row, told

Image8 = NDArray[np.uint8]
Flags = NDArray[np.bool_]
RATES, QUICK_RATES = (0.02, 0.05, 0.1), (0.05,)
COPIES, ODD = 400, 15
ZIP = Path("meter-digits") / "meter-digits-dev.zip"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Data without planted faults, with its targets; ``clean``: the labels are right and no picture repeats."""

    name: str
    table: Table
    thumbs: Thumbs
    hashes: NDArray[np.uint64]
    clean: bool


def cases(data: Path | None) -> Iterator[Case]:
    """Yield the data sets."""
    digits = load(DataRecipe(dataset="digits"), ROOT)
    first = np.flatnonzero(np.r_[True, digits.sources[1:] != digits.sources[:-1]])
    yield _case("digits", digits.take(first), clean=True)
    if data is not None:
        asked = DataRecipe(dataset="labelled_images", path=str((data / ZIP).resolve()), slices="domain", label="floor",
                           allow_corrupt=100)  # fmt: skip
        meter = load(asked, ROOT)
        yield _case("meter digits", meter.take(np.arange(0, len(meter), 3)), clean=False)


def _case(name: str, table: Table, *, clean: bool) -> Case:
    return Case(name, table, *_seen(list(table.images)), clean)


def _seen(images: list[Image8]) -> tuple[Thumbs, NDArray[np.uint64]]:
    with Silent().stage("thumbnails", len(images), "image") as stage:
        return thumbnails(images, len(images), stage)


def flipped(table: Table, rate: float) -> tuple[NDArray[np.int64], Flags]:
    """Return labels of which the share ``rate`` was flipped to another class, and a mask of those."""
    rng, classes = np.random.default_rng(int(1000 * rate)), len(table.class_names)
    rows = rng.choice(len(table), round(rate * len(table)), replace=False)
    labels, bad = table.labels.copy(), np.zeros(len(table), bool)
    labels[rows] = (labels[rows] + rng.integers(1, classes, len(rows))) % classes
    bad[rows] = True
    return labels, bad


@dataclass(frozen=True, slots=True)
class Hits:
    """How many rows were named, how many of them correctly, and how many were planted."""

    named: int
    right: int
    planted: int

    @classmethod
    def of(cls, rows: NDArray[np.int64], bad: Flags) -> Hits:
        """Count ``rows`` against the planted ones."""
        return cls(len(rows), int(bad[rows].sum()), int(bad.sum()))

    @property
    def precision(self) -> float:
        """The share of named rows that were planted."""
        return self.right / max(self.named, 1)

    @property
    def recall(self) -> float:
        """The share of planted rows that were named."""
        return self.right / max(self.planted, 1)


def regression(thumbs: Thumbs, labels: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return out-of-sample probabilities, float64 (N, classes), of a logistic regression on the gradients."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - only the reference needs it

    flat, result = gradients(thumbs), np.zeros((len(labels), int(labels.max()) + 1))
    flat = (flat - flat.mean(axis=0)) / (flat.std(axis=0) + 0.05)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # convergence in the last digits does not matter here
            model = LogisticRegression(C=0.02, max_iter=60).fit(flat[~held], labels[~held])
        result[np.ix_(held, model.classes_)] = model.predict_proba(flat[held])
    return result


def confident(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the off-diagonal rows of the confident joint. Source: Northcutt et al. 2021, equation 2."""
    thresholds = np.array([probabilities[labels == i, i].mean() for i in range(probabilities.shape[1])])
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.flatnonzero((reached.max(axis=1) > 0) & (reached.argmax(axis=1) != labels))


def label_rows(case: Case, *, rates: tuple[float, ...]) -> Iterator[Row]:
    """Yield precision and recall of label suspects compared with confident learning, and the estimated noise."""
    folds = label_noise.folds_of(case.table.sources)
    for rate in (0.0, *rates):
        labels, bad = flipped(case.table, rate)
        start = time.process_time()
        found = label_noise.doubted(out_of_sample(case.thumbs, labels, folds, lambda: None), labels)
        middle = time.process_time()
        chances = regression(case.thumbs, labels, folds)
        theirs = confident(chances, labels)
        name = f"{case.name}, {rate:.0%} of labels flipped"
        if not rate:
            alarms, limit = len(found.rows), 0.005 * len(labels)
            yield Row(f"{case.name}: label suspects with nothing planted, vs confident learning", alarms, len(theirs),
                      f"<= {limit:.0f}", alarms <= limit)  # fmt: skip
            continue
        ours, hits = Hits.of(found.rows, bad), Hits.of(theirs, bad)
        low, high = (0.9, 0.85) if case.clean else (0.5, 0.45)
        yield Row(f"{name}: suspects' precision vs confident learning", ours.precision, hits.precision, f">= {low}",
                  ours.precision >= low)  # fmt: skip
        yield Row(f"{name}: suspects' recall vs confident learning", ours.recall, hits.recall, f">= {high}",
                  ours.recall >= high)  # fmt: skip
        plain = np.argsort(chances[np.arange(len(labels)), labels], kind="stable")[: len(found.rows)]
        ranked = Hits.of(plain, bad).recall
        yield Row(
            f"{name}: recall vs as many by self-confidence", ours.recall, ranked, "ratio >= 1", ours.recall >= ranked
        )
        yield Row(f"{name}: estimated share of wrong labels vs planted", found.wrong_ratio, rate)
        yield Row(f"{name}: seconds vs logistic regression", middle - start, time.process_time() - middle)


def _saved(image: Image8, quality: int) -> Image8:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _resized(image: Image8, factor: float) -> Image8:
    size = (max(2, round(image.shape[1] * factor)), max(2, round(image.shape[0] * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _lit(image: Image8, gain: float, offset: float = 0.0) -> Image8:
    return np.clip(image * gain + offset, 0, 255).astype(np.uint8)


def _noisy(image: Image8, levels: float) -> Image8:
    return np.clip(image + np.random.default_rng(0).normal(0, levels, image.shape), 0, 255).astype(np.uint8)


def _moved(image: Image8, pixels: int) -> Image8:
    moved: Image8 = np.pad(image, ((0, 0), (pixels, 0), (0, 0)), mode="edge")[:, : image.shape[1]]
    return moved


COPIED: Mapping[str, tuple[Callable[[Image8], Image8], float | None]] = {
    "saved as JPEG 90": (lambda image: _saved(image, 90), 0.98),
    "saved as JPEG 50": (lambda image: _saved(image, 50), 0.8),
    "10 % brighter": (lambda image: _lit(image, 1.1), 0.95),
    "25 % darker": (lambda image: _lit(image, 0.75), 0.95),
    "20 levels brighter": (lambda image: _lit(image, 1.0, 20.0), 0.95),
    "noise of 8 levels": (lambda image: _noisy(image, 8.0), 0.8),
    "half as large again": (lambda image: _resized(image, 1.5), None),
    "moved by 1 pixel": (lambda image: _moved(image, 1), 0.95),
    "moved by 2 pixels": (lambda image: _moved(image, 2), None),
}  # fmt: skip
"""Copies, and the smallest share that must be found; None: beyond the reach of thumbnails, printed without a target."""


def copy_rows(case: Case) -> Iterator[Row]:
    """Yield the share of copies found as near duplicates, and the pairs found without planted copies."""
    count = len(case.table)
    pairs = _pairs(case.thumbs, case.hashes, np.arange(count) % 2)
    same = float((case.table.labels[pairs[:, 0]] == case.table.labels[pairs[:, 1]]).mean()) if len(pairs) else 1.0
    yield Row(f"{case.name}: near duplicates across two halves with nothing planted, of {count} rows", len(pairs), None,
              "0" if case.clean else "", len(pairs) == 0 if case.clean else None)  # fmt: skip
    yield Row(f"{case.name}: share of those pairs with one label (a tenth by chance)", same)
    some, named, right = np.arange(0, count, max(count // COPIES, 1)), 0, 0
    for way, (change, least) in COPIED.items():
        thumbs, hashes = _seen([change(case.table.images[row]) for row in some])
        parts = np.repeat([0, 1], len(some))
        pairs = _pairs(np.concatenate([case.thumbs[some], thumbs]), np.concatenate([case.hashes[some], hashes]), parts)
        if way.startswith("moved"):
            images = [*(case.table.images[row] for row in some), *(change(case.table.images[row]) for row in some)]
            pairs = duplicates.moved_pairs(object_array(images), parts, Silent())
        own = pairs[:, 0] + len(some) == pairs[:, 1]
        found = int(own.sum()) / len(some)
        yield Row(f"{case.name}: copies {way}, share found", found, None, f">= {least}" if least else "",
                  found >= least if least else None)  # fmt: skip
        named, right = named + len(pairs), right + int(own.sum())
    if case.clean:
        yield Row(f"{case.name}: copies, share of all pairs named that are one", right / named, None, ">= 0.99",
                  right >= 0.99 * named)  # fmt: skip


def _pairs(thumbs: Thumbs, hashes: NDArray[np.uint64], parts: NDArray[np.int64]) -> NDArray[np.int64]:
    with Silent().stage("duplicates", duplicates.BANDS, "band") as stage:
        return duplicates.near_pairs(thumbs, hashes, parts, stage)


def odd_ones(case: Case, other: list[Image8]) -> dict[str, tuple[list[Image8], float | None]]:
    """Return outliers of each kind, and the smallest share that must be found (on the clean set)."""
    images, rng = [case.table.images[row] for row in range(0, 10 * ODD, 10)], np.random.default_rng(1)
    stripes = [np.repeat(np.indices(image.shape[:2])[0][..., None] // 2 % 2, 3, axis=2) for image in images]
    return {
        "black": ([np.zeros_like(image) for image in images], 1.0),
        "white": ([np.full_like(image, 255) for image in images], 1.0),
        "at 15 % of the light": ([_lit(image, 0.15) for image in images], 1.0),
        "noise": ([rng.integers(0, 256, image.shape).astype(np.uint8) for image in images], 1.0),
        "stripes": ([(lines * 255).astype(np.uint8) for lines in stripes], 1.0),
        "inverted": ([255 - image for image in images], 1.0),
        "of another data set" if not case.clean else "turned by a quarter": (other, None),
        "upside down": ([np.ascontiguousarray(image[::-1]) for image in images], None),
    }  # fmt: skip


def outlier_rows(case: Case, other: list[Image8]) -> Iterator[Row]:
    """Yield the share of planted outliers found, and the rows flagged without planted outliers."""
    alarms = int((outliers.outlier_scores(case.thumbs) >= outliers.MIN_SCORE).sum())
    yield Row(f"{case.name}: outliers with nothing planted, % of rows", 100 * alarms / len(case.table), None, "<= 0.5",
              alarms <= 0.005 * len(case.table))  # fmt: skip
    for kind, (images, least) in odd_ones(case, other).items():
        scores = outliers.outlier_scores(np.concatenate([case.thumbs, _seen(images)[0]]))
        found = float((scores[-len(images) :] >= outliers.MIN_SCORE).mean())
        asked = least if case.clean else None
        yield Row(f"{case.name}: outliers, {kind}, share found", found, None, f">= {asked:g}" if asked else "",
                  found >= asked if asked else None)  # fmt: skip


def exact_rows(case: Case) -> Iterator[Row]:
    """Yield the whole exploration's counts of 20 exact duplicates, 10 of them with another label, and of leaks."""
    table, classes = case.table, case.table.class_names
    images, names = list(table.images), [classes[label] for label in table.labels.tolist()]
    before = explore(table, Silent())
    extra = [classes[(table.labels[row] + row % 2) % len(classes)] for row in range(20)]
    slices = ["home"] * len(table) + ["away"] * 20
    made = make_table([*images, *images[:20]], [*names, *extra], slices=slices)
    after = explore(replace(made, shares=table.shares), Silent(), slices=["home"])
    for what, wanted in (("exact_duplicates", 20), ("label_conflicts", 10), ("leaks", 20)):
        found = after.counts[what] - (before.counts[what] if what != "leaks" else 0)
        yield Row(f"{case.name}: {what.replace('_', ' ')} found vs planted", found, wanted, "the same", found == wanted)


def main() -> int:
    """Print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="digits only, 5 %% of the labels")
    parser.add_argument("--data", type=Path, help="folder with meter-digits/meter-digits-dev.zip")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    other = list(load(DataRecipe(dataset="digits"), ROOT).images[:ODD])
    for case in cases(None if options.quick else options.data):
        rows += label_rows(case, rates=QUICK_RATES if options.quick else RATES)
        rows += copy_rows(case)
        rows += outlier_rows(
            case, [_lit(np.rot90(image, axes=(0, 1)), 1.0) for image in other] if case.clean else other
        )
        rows += exact_rows(case) if case.clean else ()
    return told(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
