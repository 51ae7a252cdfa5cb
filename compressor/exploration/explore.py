"""Explores a table: balance, sizes, values, duplicates, leaks, outliers, label suspects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor import tasks
from compressor.data._shades import is_deep, levels_of, shaded
from compressor.data._split import split
from compressor.data._stored_images import shapes_of
from compressor.data._table import Table
from compressor.errors import SplitError
from compressor.exploration import duplicates, label_noise, outliers
from compressor.exploration.thumbnails import thumbnails
from compressor.progress import Progress
from compressor.run.stages import table_digest
from edge_agent.pictures.sixteen_bits import MOST

SHOWN = 60
PARTS = ("train", "calibration", "gate", "reference", "other")
UNUSED = "unused"
_BALANCE_WARNING = 5.0
_MAX_LEVEL = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploredRow:
    """One row of the table, with what a person needs to find it."""

    row: int
    source: str
    slice: str
    label: str
    split: str


@dataclass(frozen=True, slots=True)
class RowPair:
    """Two rows that are identical or nearly so."""

    first: ExploredRow
    second: ExploredRow


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row to look at: its score (z-score, or doubt of the label, 0..1), and the class that it resembles, if any."""

    row: ExploredRow
    score: float
    looks_like: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """The results. Counts are of all rows, lists hold the first ``SHOWN``.

    ``classes`` and ``slices``: rows per split. ``sizes``: ``"HxW"`` to rows. ``values``: min, max, mean, std in levels
    of 0..255 (with 16 bits 0..65535), and the shares at either end. ``levels``: 16 bins of pixel values. ``counts``: of
    duplicates, conflicts (equal content, different label), leaks, near duplicates across splits, outliers, label
    suspects. ``findings``: what to look at, as text; empty if nothing was found.
    """

    digest: str
    rows: int
    sources: int
    corrupt: tuple[str, ...]
    classes: Mapping[str, Mapping[str, int]]
    slices: Mapping[str, Mapping[str, int]]
    sizes: Mapping[str, int]
    values: Mapping[str, float]
    levels: tuple[int, ...]
    counts: Mapping[str, int]
    conflicts: tuple[RowPair, ...]
    leaks: tuple[RowPair, ...]
    near: tuple[RowPair, ...]
    outliers: tuple[Suspect, ...]
    label_suspects: tuple[Suspect, ...]
    notes: tuple[str, ...]
    findings: tuple[str, ...]


def parts_of(table: Table, seed: int, slices: Sequence[str] = ()) -> npt.NDArray[np.str_]:
    """Return the split of each row, str (N,): of ``PARTS``, or ``unused`` (a gate source contributes only one row).

    Raises:
        SplitError: If a slice does not exist or a split is empty.
    """
    splits = split(table, seed, slices=slices, learns=table.told is None)
    parts = np.full(len(table), UNUSED, dtype="<U11")
    for name in PARTS:
        parts[getattr(splits, name)] = name
    return parts


def explore(table: Table, progress: Progress, *, seed: int = 0, slices: Sequence[str] = ()) -> Exploration:
    """Return the results for ``table`` as split with ``seed``; ``slices`` are those trained on (empty: all).

    Data too small to be split is explored as one part. Numbers to predict are explored in groups of equal size, without
    a search for wrong labels. The notes say so.
    """
    notes, digest, labelled = [], table_digest(table), table
    table, note = tasks.of_rows(table).targets.grouped(table)
    notes += [note] if note else []
    try:
        parts = parts_of(table, seed, slices)
    except SplitError as error:
        parts = np.full(len(table), "all", dtype="<U11")
        notes.append(f"not split, so nothing is compared across splits: {error}")
    with progress.stage("thumbnails", len(table), "image") as stage:
        thumbs, hashes = thumbnails(shaded(table.images), len(table), stage)
    conflicts, leaks = _equal(table, parts)
    codes = np.array([PARTS.index(part) if part in PARTS else -1 for part in parts.tolist()])
    with progress.stage("duplicates", duplicates.BANDS, "band") as stage:
        near = duplicates.near_pairs(thumbs, hashes, codes, stage)
    moved = duplicates.moved_pairs(table.images, codes, progress)
    known = set(map(tuple, np.sort(near, axis=1).tolist()))
    near = np.concatenate([near, [pair for pair in moved.tolist() if tuple(pair) not in known] or near[:0]])
    scores = outliers.outlier_scores(thumbs)
    far = np.argsort(-scores, kind="stable")[: int((scores >= outliers.MIN_SCORE).sum())]
    with progress.stage("labels", label_noise.FOLDS, "fold") as stage:
        noise = label_noise.suspects(labelled, thumbs, stage)
    notes.append(
        noise.skipped
        or f"labels judged by a simple model that is right on {noise.accuracy:.1%} of other rows; "
        f"it takes about {noise.wrong_ratio:.1%} of the labels to be wrong"
    )
    row = _Rows(table, parts)
    repeated = sum(len(group) - 1 for group in duplicates.equal_groups(table.hashes))
    counts = {
        "exact_duplicates": repeated, "label_conflicts": len(conflicts), "leaks": len(leaks),
        "near_duplicates_across_splits": len(near), "outliers": len(far), "label_suspects": len(noise.rows),
    }  # fmt: skip
    values, levels = _values(table)
    classes = _counted(np.array(table.class_names)[table.labels], parts, table.class_names)
    return Exploration(
        digest=digest, rows=len(table), sources=len(np.unique(table.sources)), corrupt=table.corrupt,
        classes=classes, slices=_counted(table.slices, parts, np.unique(table.slices).tolist()),
        sizes=dict(Counter(f"{high}x{wide}" for high, wide, _ in shapes_of(table.images).tolist()).most_common()),
        values=values, levels=levels, counts=counts,
        conflicts=row.pairs(conflicts), leaks=row.pairs(leaks), near=row.pairs(near.tolist()),
        outliers=tuple(Suspect(row.at(i), float(scores[i])) for i in far[:SHOWN].tolist()),
        label_suspects=row.suspects(noise),
        notes=tuple(notes), findings=_findings(counts, classes, values, table),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Converts row numbers to ``ExploredRow``."""

    table: Table
    parts: npt.NDArray[np.str_]

    def at(self, row: int) -> ExploredRow:
        table = self.table
        label = table.class_names[int(table.labels[row])]
        return ExploredRow(
            row=row,
            source=str(table.sources[row]),
            slice=str(table.slices[row]),
            label=label,
            split=str(self.parts[row]),
        )

    def suspects(self, noise: label_noise.Noise) -> tuple[Suspect, ...]:
        found = zip(noise.rows[:SHOWN].tolist(), noise.doubts.tolist(), noise.looks_like.tolist(), strict=False)
        return tuple(Suspect(self.at(row), doubt, self.table.class_names[like]) for row, doubt, like in found)

    def pairs(self, pairs: Sequence[Sequence[int]]) -> tuple[RowPair, ...]:
        return tuple(RowPair(self.at(first), self.at(second)) for first, second in pairs[:SHOWN])


def _equal(table: Table, parts: npt.NDArray[np.str_]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return pairs of equal content with different labels, and pairs of equal content or source in two splits."""
    conflicts, leaks = [], set()
    for column, keys in (("content", table.hashes), ("source", table.sources)):
        for group in duplicates.equal_groups(keys):
            first = int(group[0])
            if column == "content":
                conflicts += [(first, row) for row in group[table.labels[group] != table.labels[first]].tolist()]
            used = group[parts[group] != UNUSED]
            leaks |= {(int(used[0]), row) for row in used[parts[used] != parts[used[:1]]].tolist()}
    return conflicts, sorted(leaks)


def _counted(
    keys: npt.NDArray[np.str_], parts: npt.NDArray[np.str_], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    found = Counter(zip(keys.tolist(), parts.tolist(), strict=True))
    used = [part for part in (*PARTS, UNUSED, "all") if part in set(parts.tolist())]
    return {name: {part: found[name, part] for part in used} for name in names}


def _values(table: Table) -> tuple[dict[str, float], tuple[int, ...]]:
    """Return range and moments of all pixels, and their histogram in 16 bins."""
    deep = len(table) > 0 and is_deep(table.images[0])
    counts = np.zeros((MOST if deep else _MAX_LEVEL) + 1, np.int64)
    constant = 0
    for image in table.images:
        own = np.bincount(levels_of(image).ravel(), minlength=len(counts))
        constant += int(np.count_nonzero(own) == 1)
        counts += own
    total, levels = max(int(counts.sum()), 1), np.arange(len(counts))
    used, mean = np.flatnonzero(counts), float(counts @ levels) / total
    values = {
        "min": float(used[0]), "max": float(used[-1]), "mean": mean,
        "std": float(np.sqrt(counts @ (levels - mean) ** 2 / total)),
        "share_at_0": float(counts[0] / total), "share_at_255": float(counts[-1] / total),
        "constant_images": float(constant),
    }  # fmt: skip
    return values, tuple(counts.reshape(16, -1).sum(axis=1).tolist())


_SAID = {
    "label_conflicts": "{} pairs of equal content have different labels: one of the labels is wrong",
    "leaks": "{} pairs of one content or source lie in two parts: figures on the second part flatter the model",
    "near_duplicates_across_splits": "{} near duplicates lie in different splits: give views of one thing one source",
    "outliers": "{} rows lie far from all others: broken, of another kind, or rare",
    "label_suspects": "{} labels look wrong to a model trained on other rows: look at the first ones",
    "exact_duplicates": "{} rows repeat the content of another row (they share a split)",
}


def _findings(
    counts: Mapping[str, int], classes: Mapping[str, Mapping[str, int]], values: Mapping[str, float], table: Table
) -> tuple[str, ...]:
    said = [text.format(counts[name]) for name, text in _SAID.items() if counts[name]]
    sizes = {name: sum(parts.values()) for name, parts in classes.items()}
    small, large = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
    if sizes[large] > _BALANCE_WARNING * max(sizes[small], 1):
        said.append(f"class {large} has {sizes[large]} rows, class {small} {sizes[small]}: weight or add data")
    if values["constant_images"]:
        said.append(f"{values['constant_images']:.0f} images have one value only: a dead sensor or a wrong range")
    if table.corrupt:
        said.append(f"{len(table.corrupt)} files could not be read and were left out")
    return tuple(said)
