"""The one shape of data in the build: images with label, slice, source and content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from compressor.data.shares import DEFAULT_SHARES, Shares
from compressor.errors import DataError

Images = npt.NDArray[np.object_]
Integers = npt.NDArray[np.int64]
Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """N labelled images.

    ``images``: object, (N,), each uint8 (H, W, 3). ``labels``: int64, (N,), indices into ``class_names``.
    ``slices``: str, (N,), the group of per-slice gates (a site, a maker, a lens). ``sources``: str, (N,),
    equal for rows that are views of one thing. ``hashes``: str, (N,), SHA-256 of the content.
    ``corrupt``: the names of images that were left out. ``shares``: how the rows are split.
    """

    images: Images
    labels: Integers
    slices: Texts
    sources: Texts
    hashes: Texts
    class_names: tuple[str, ...]
    corrupt: tuple[str, ...] = ()
    shares: Shares = DEFAULT_SHARES

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

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


def make_table(
    images: Sequence[npt.NDArray[np.uint8]],
    names: Sequence[str],
    *,
    slices: Sequence[str],
    sources: Sequence[str] = (),
    corrupt: tuple[str, ...] = (),
) -> Table:
    """Return a table; ``names`` are the class names row by row, no ``sources`` means each content is its own.

    Raises:
        DataError: If there are no rows.
    """
    if not images:
        message = "Expected at least one usable image, got none"
        raise DataError(message)
    class_names = sort_classes(set(names))
    index = {name: i for i, name in enumerate(class_names)}
    hashes = np.array([image_hash(image) for image in images])
    return Table(
        images=object_array(images),
        labels=np.array([index[name] for name in names], dtype=np.int64),
        slices=np.array(slices, dtype=np.str_),
        sources=np.array(sources, dtype=np.str_) if len(sources) else hashes,
        hashes=hashes,
        class_names=class_names,
        corrupt=corrupt,
    )


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Return class names in order: by value where all are numbers, else by text."""
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def align(table: Table, class_names: tuple[str, ...]) -> Table:
    """Return ``table`` with labels as indices into ``class_names`` (another table's, a recipe's).

    Raises:
        DataError: If a class of ``table`` is not among them.
    """
    unknown = [name for name in table.class_names if name not in class_names]
    if unknown:
        message = f"Expected labels among {', '.join(class_names)}, got {', '.join(unknown[:10])}"
        raise DataError(message)
    lookup = np.array([class_names.index(name) for name in table.class_names], dtype=np.int64)
    return replace(table, labels=lookup[table.labels], class_names=class_names)


def concatenate(first: Table, second: Table) -> Table:
    """Return the rows of ``first``, then those of ``second`` with labels aligned to ``first``.

    Raises:
        DataError: If ``second`` has a class that ``first`` has not.
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
    )
