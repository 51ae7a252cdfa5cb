"""The data format of the build: images with label (a class, or numbers), slice, source and content hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.data._shares import DEFAULT_SHARES, Shares
from compressor.errors import DataError

Images = npt.NDArray[np.object_]
Integers = npt.NDArray[np.int64]
Labels = npt.NDArray[Any]
"""int64 (N,), indices of classes; or float32 (N, D), the numbers of a regression in their own unit."""
Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Unit:
    """Mean and standard deviation of each of D values: the network outputs ``(value - mean) / spread``."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def normal(self, values: Labels) -> npt.NDArray[np.float32]:
        """Return ``values``, (N, D) in their own unit, in standard deviations from the mean."""
        return np.asarray((values - np.array(self.mean)) / np.array(self.spread), dtype=np.float32)

    def real(self, values: Labels) -> npt.NDArray[np.float32]:
        """Return ``values``, (N, D) in standard deviations from the mean, in their own unit."""
        return np.asarray(values * np.array(self.spread) + np.array(self.mean), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """N labelled images.

    ``images``: object, (N,), each uint8 (H, W, 3). ``labels``: int64, (N,), indices into ``class_names``; or, for a
    regression, float32, (N, D), numbers named in ``class_names``.
    ``slices``: str, (N,), the group for per-slice gates (a site, a maker, a lens). ``sources``: str, (N,), equal for
    rows that show the same object. ``hashes``: str, (N,), SHA-256 of the content.
    ``corrupt``: the names of images that were left out. ``shares``: how the rows are split. ``unit``: for a regression,
    the normalisation of the network's values, once it is known. ``told``: str, (N,), the split that the data set gives
    for each row, empty if it leaves it open (None: it gives none). ``task``: the task whose targets the labels are, a
    name for ``tasks.named``; "": the task of such labels.
    """

    images: Images
    labels: Labels
    slices: Texts
    sources: Texts
    hashes: Texts
    class_names: tuple[str, ...]
    corrupt: tuple[str, ...] = ()
    shares: Shares = DEFAULT_SHARES
    unit: Unit | None = None
    told: Texts | None = None
    task: str = ""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    @property
    def lessons(self) -> Labels:
        """The network's targets: the classes, or the numbers in standard deviations, float32 (N, D)."""
        return self.labels if self.unit is None else self.unit.normal(self.labels)

    def take(self, rows: Integers | npt.NDArray[np.bool_]) -> Table:
        """Return the table of these rows (int64 indices or a bool mask)."""
        return Table(
            images=self.images[rows],
            labels=self.labels[rows],
            slices=self.slices[rows],
            sources=self.sources[rows],
            hashes=self.hashes[rows],
            class_names=self.class_names,
            corrupt=self.corrupt,
            shares=self.shares,
            unit=self.unit,
            told=None if self.told is None else self.told[rows],
            task=self.task,
        )


def image_hash(image: npt.NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def object_array(images: Sequence[npt.NDArray[np.uint8]]) -> Images:
    """Return ``images`` as an object array, whatever their sizes (equal ones included)."""
    array = np.empty(len(images), dtype=object)
    for i, image in enumerate(images):
        array[i] = image
    return array


def check_label(label: str, where: str) -> None:
    """Check that ``label`` has no surrounding blanks: they would create another class that looks the same.

    Raises:
        DataError: If it has; ``where`` (file, row, column) is named.
    """
    if label != label.strip():
        message = f"Expected a label without blanks around it in {where}, got {label[:100]!r}"
        raise DataError(f"{message}: write {label.strip()[:100]!r}, or the rows would be a class of their own")


def make_table(
    images: Sequence[npt.NDArray[np.uint8]],
    names: Sequence[str],
    *,
    slices: Sequence[str],
    sources: Sequence[str] = (),
    corrupt: tuple[str, ...] = (),
) -> Table:
    """Return a table; ``names`` are the class names row by row; without ``sources`` each content is its own.

    Raises:
        DataError: If there are no rows.
    """
    class_names = sort_classes(set(names))
    index = {name: i for i, name in enumerate(class_names)}
    labels = np.array([index[name] for name in names], dtype=np.int64)
    return _table(images, labels, class_names, slices=slices, sources=sources, corrupt=corrupt)


def make_value_table(
    images: Sequence[npt.NDArray[np.uint8]],
    values: Sequence[Sequence[float]],
    value_names: Sequence[str],
    *,
    slices: Sequence[str],
    sources: Sequence[str] = (),
    corrupt: tuple[str, ...] = (),
) -> Table:
    """Return the table of a regression; ``values`` are D numbers per row, in their unit, named ``value_names``.

    Raises:
        DataError: If there are no rows, or the number of values differs from that of names.
    """
    labels = np.array([tuple(row) for row in values], dtype=np.float32) if len(values) else np.zeros((0, 0), np.float32)
    if images and labels.shape != (len(images), len(value_names)):
        message = f"Expected {len(value_names)} numbers for each of {len(images)} rows, got shape {labels.shape}"
        raise DataError(message)
    return _table(images, labels, tuple(value_names), slices=slices, sources=sources, corrupt=corrupt)


def _table(
    images: Sequence[npt.NDArray[np.uint8]], labels: Labels, class_names: tuple[str, ...], *,
    slices: Sequence[str], sources: Sequence[str], corrupt: tuple[str, ...],
) -> Table:  # fmt: skip
    if not images:
        message = "Expected at least one usable image, got none"
        raise DataError(message)
    hashes = np.array([image_hash(image) for image in images])
    return Table(
        images=object_array(images),
        labels=labels,
        slices=np.array(slices, dtype=np.str_),
        sources=np.array(sources, dtype=np.str_) if len(sources) else hashes,
        hashes=hashes,
        class_names=class_names,
        corrupt=corrupt,
    )


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Return class names in order: by value if all are numbers, else by text; the same order on every run."""
    by_text = sorted(names)  # a set's own order changes between runs, and "1" and "01" have one value
    try:
        finite = all(math.isfinite(float(name)) for name in by_text)
    except ValueError:
        finite = False
    return tuple(sorted(by_text, key=float)) if finite else tuple(by_text)


def align(table: Table, class_names: tuple[str, ...]) -> Table:
    """Return ``table`` with labels as indices into ``class_names`` (of another table or a recipe).

    Raises:
        DataError: If a class of ``table`` is not among them.
    """
    if table.labels.ndim > 1:  # labels are numbers, one column per name: no indices
        if table.class_names != class_names:
            message = f"Expected the numbers {', '.join(class_names)}, got {', '.join(table.class_names)}"
            raise DataError(message)
        return table
    unknown = [name for name in table.class_names if name not in class_names]
    if unknown:
        message = f"Expected labels among {', '.join(class_names)}, got {', '.join(unknown[:10])}"
        raise DataError(message)
    lookup = np.array([class_names.index(name) for name in table.class_names], dtype=np.int64)
    return replace(table, labels=lookup[table.labels], class_names=class_names)


def concatenate(first: Table, second: Table) -> Table:
    """Return the rows of ``first``, then those of ``second`` with labels aligned to ``first``.

    Raises:
        DataError: If ``second`` has a class that ``first`` lacks.
    """
    second = align(second, first.class_names)
    return Table(
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels]),
        slices=np.concatenate([first.slices, second.slices]),
        sources=np.concatenate([first.sources, second.sources]),
        hashes=np.concatenate([first.hashes, second.hashes]),
        class_names=first.class_names,
        corrupt=first.corrupt + second.corrupt,
        shares=first.shares,
        unit=first.unit,
        task=first.task,
    )
