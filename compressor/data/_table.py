"""The data format of the build: images with label (a class, numbers, or boxes), slice, source and content hash."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.data._stored_images import PLANES, HashedImages, Images, image_hash, joined, kept
from compressor.errors import ColumnError, DataError

Integers = npt.NDArray[np.int64]
Labels = npt.NDArray[Any]
"""int64 (N,), indices of classes; float32 (N, D), the numbers of a regression in their own unit; bool (N, D), which of
D labels each row has; or boxes.

Boxes are float32 (N, M, 5): class index, x0, y0, x1, y1 as ratios of the image's width and height, in the order in
which they were read; after the last box of an image the class is -1 and the rest 0.
"""
Texts = npt.NDArray[np.str_]
_COLUMNS = ("labels", "slices", "sources", "hashes")
_RANK = 3
BOX = 5
"""Numbers of a box: its class and its edges."""
_OF_BOXES = 3
"""Axes of labels that are boxes."""


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of sources in each split; they sum to 1. A data set recommends its own; a recipe may override them.

    A 1-point margin at 95 % needs about 2,350 gate rows at 3.8 % discordance, a drift reference at least 2,000 rows;
    calibration needs a few hundred.
    """

    train: float = 0.435
    calibration: float = 0.02
    gate: float = 0.295
    reference: float = 0.25

    @property
    def without_train(self) -> Shares:
        """The shares with the others enlarged by that of train, in proportion."""
        rest = self.calibration + self.gate + self.reference
        return Shares(0.0, self.calibration / rest, self.gate / rest, self.reference / rest)


DEFAULT_SHARES = Shares()


@dataclass(frozen=True, slots=True)
class TargetUnit:
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

    ``images``: N arrays, each uint8 (H, W, 3), or of 16 bits (H, W, 2), as in ``sixteen_bits``: an object array (N,),
    or ``StoredImages`` on disk, which are read one by one. ``labels``: int64, (N,), indices into ``class_names``; for a
    regression, float32, (N, D), numbers named in ``class_names``; bool, (N, D), the labels of these names; or boxes,
    float32 (N, M, 5), of these classes.
    ``slices``: str, (N,), the group for per-slice gates (a site, a maker, a lens). ``sources``: str, (N,), equal for
    rows that show the same object. ``hashes``: str, (N,), SHA-256 of the content.
    ``corrupt``: the names of images that were left out. ``shares``: how the rows are split. ``unit``: for a regression,
    the normalisation of the network's values, once it is known. ``told``: str, (N,), the split that the data set gives
    for each row, empty if it leaves it open (None: it gives none). ``task``: the task whose targets the labels are, a
    name for ``tasks.named``; "": the task of such labels. ``names``: str, (N,), where a person finds each row, such as
    the path of its file (None: the data set has no such names). ``lanes``: str, (N,), how a sample from the fleet was
    drawn: ``audit``, uniformly, or because of its answer (None: not known, as of any other data). ``remarks``: a
    sentence on each kind of label that the data set mended or left out. ``columns``: the names of the numbers that a
    sensor's step has, in their order; empty: the data set has no such names, or not one for each. ``kinds``: str, (N,),
    the label that a row had before its task made another of it (None: it is the label).
    """

    images: Images
    labels: Labels
    slices: Texts
    sources: Texts
    hashes: Texts
    class_names: tuple[str, ...]
    corrupt: tuple[str, ...] = ()
    shares: Shares = DEFAULT_SHARES
    unit: TargetUnit | None = None
    told: Texts | None = None
    task: str = ""
    names: Texts | None = None
    lanes: Texts | None = None
    remarks: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    kinds: Texts | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether rows have labels: inputs without any have float32 (N, 0)."""
        return self.labels.shape[1:] != (0,)

    @property
    def lessons(self) -> Labels:
        """The network's targets: the classes, or the numbers in standard deviations, float32 (N, D)."""
        return self.labels if self.unit is None else self.unit.normal(self.labels)

    def label_texts(self) -> Iterator[str]:
        """Yield the label of each row: its class by name, or the bytes of its numbers in hexadecimal.

        Classes count by their names, so that another order of them gives the same texts; so do boxes and their order.
        """
        if self.labels.ndim == 1:  # numbers to predict are a column each
            return (self.class_names[label] for label in self.labels.tolist())
        if self.labels.ndim == _OF_BOXES:
            return (" ".join(sorted(self._box_texts(row))) for row in self.labels)
        if self.labels.dtype == np.bool_:
            names = np.array(self.class_names, dtype=np.str_)
            return ("\0".join(sorted(names[row].tolist())) for row in self.labels)
        return (one.tobytes().hex() for one in self.labels)

    def _box_texts(self, boxes: npt.NDArray[np.float32]) -> list[str]:
        there = boxes[boxes[:, 0] >= 0]
        return [f"{self.class_names[int(box[0])]}:{box[1:].tobytes().hex()}" for box in there]

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
            names=None if self.names is None else self.names[rows],
            lanes=None if self.lanes is None else self.lanes[rows],
            remarks=self.remarks,
            columns=self.columns,
            kinds=None if self.kinds is None else self.kinds[rows],
        )


def check_label(label: str, where: str) -> None:
    """Check that ``label`` has no surrounding blanks: they would create another class that looks the same.

    Raises:
        DataError: If it has; ``where`` (file, row, column) is named.
    """
    if label != label.strip():
        message = f"Expected a label without blanks around it in {where}, got {label[:100]!r}"
        raise DataError(f"{message}: write {label.strip()[:100]!r}, or the rows would be a class of their own")


def check_spelled(found: Sequence[str], optional: Sequence[str], where: str) -> None:
    """Check that no column of those ``found`` in the file ``where`` is an ``optional`` one in another spelling.

    It would be passed over, and frames of one scene would count as independent rows.

    Raises:
        ColumnError: If one is.
    """
    for column in found:
        exact = column.strip().casefold()
        if exact in optional and exact not in found:
            message = f"Expected the column {exact!r} in {where}, got {column!r}"
            raise ColumnError(f"{message}: write {exact!r}, or another name if it means something else")


def source_name(name: str) -> str:
    """Return ``name`` of a source without blanks around it, its accents in one form: else it would be two sources.

    Source: Unicode Standard Annex 15, normalization form C.
    """
    return unicodedata.normalize("NFC", name).strip()


def make_table(
    images: Iterable[npt.NDArray[np.uint8]] | HashedImages,
    names: Sequence[str],
    *,
    slices: Sequence[str],
    sources: Sequence[str] = (),
    corrupt: tuple[str, ...] = (),
) -> Table:
    """Return a table; ``names`` are the class names row by row; a row without one of ``sources`` is its content's own.

    ``images`` are taken one by one, and kept on disk if they are many: a generator of them never holds all. ``names``,
    ``slices`` and ``sources`` are read after the last image, so that the generator may fill them.

    Raises:
        DataError: If there are no rows.
        StorageError: If the images can't be written to the disk.
    """
    held = kept(images)
    class_names = sort_classes(set(names))
    index = {name: i for i, name in enumerate(class_names)}
    labels = np.array([index[name] for name in names], dtype=np.int64)
    return _table(held, labels, class_names, slices=slices, sources=sources, corrupt=corrupt)


def make_value_table(
    images: Iterable[npt.NDArray[np.uint8]] | HashedImages,
    values: Sequence[Sequence[float]],
    value_names: Sequence[str],
    *,
    slices: Sequence[str],
    sources: Sequence[str] = (),
    corrupt: tuple[str, ...] = (),
) -> Table:
    """Return the table of a regression; ``values`` are D numbers per row, in their unit, named ``value_names``.

    ``images`` as in ``make_table``.

    Raises:
        DataError: If there are no rows, or the number of values differs from that of names.
        StorageError: If the images can't be written to the disk.
    """
    held = kept(images)
    labels = np.array([tuple(row) for row in values], dtype=np.float32) if len(values) else np.zeros((0, 0), np.float32)
    if held.hashes and labels.shape != (len(held.hashes), len(value_names)):
        message = f"Expected {len(value_names)} numbers for each of {len(held.hashes)} rows, got shape {labels.shape}"
        raise DataError(message)
    return _table(held, labels, tuple(value_names), slices=slices, sources=sources, corrupt=corrupt)


def make_box_table(
    images: Iterable[npt.NDArray[np.uint8]] | HashedImages,
    boxes: Sequence[npt.NDArray[np.float32]],
    class_names: tuple[str, ...],
    *,
    slices: Sequence[str],
    sources: Sequence[str] = (),
    corrupt: tuple[str, ...] = (),
) -> Table:
    """Return a table of boxes; ``boxes``: of each image, float32 (n, 5), as in ``Labels``; n may be 0.

    ``images`` as in ``make_table``.

    Raises:
        DataError: If there are no rows, or as many lists of boxes as images are missing.
        StorageError: If the images can't be written to the disk.
    """
    held = kept(images)
    if len(boxes) != len(held.hashes):
        raise DataError(f"Expected a list of boxes for each of {len(held.hashes)} images, got {len(boxes)}")
    return _table(held, padded(boxes), class_names, slices=slices, sources=sources, corrupt=corrupt)


def padded(boxes: Sequence[npt.NDArray[np.float32]], least: int = 1) -> npt.NDArray[np.float32]:
    """Return ``boxes``, float32 (n, 5) for each of N images, as float32 (N, M, 5); M is at least ``least``."""
    most = max([least, *map(len, boxes)])
    joined = np.zeros((len(boxes), most, BOX), np.float32)
    joined[..., 0] = -1
    for row, own in zip(joined, boxes, strict=True):
        row[: len(own)] = np.reshape(own, (-1, BOX))
    return joined


def _table(
    held: HashedImages, labels: Labels, class_names: tuple[str, ...], *,
    slices: Sequence[str], sources: Sequence[str], corrupt: tuple[str, ...],
) -> Table:  # fmt: skip
    if not held.hashes:
        message = "Expected at least one usable image, got none"
        raise DataError(message)
    hashes = np.array(held.hashes)
    named = np.array(sources if len(sources) else [""] * len(hashes), dtype=np.str_)
    return Table(
        images=held.images,
        labels=labels,
        slices=np.array(slices, dtype=np.str_),
        sources=np.where(named == "", hashes, named),
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
    if not table.labelled:
        return replace(table, class_names=class_names)
    if 1 < table.labels.ndim < _OF_BOXES:  # labels are numbers, one column per name: no indices
        if table.labels.dtype == np.bool_ and set(table.class_names) <= set(class_names):
            columns = np.zeros((len(table), len(class_names)), dtype=bool)
            columns[:, [class_names.index(name) for name in table.class_names]] = table.labels
            return replace(table, labels=columns, class_names=class_names)
        if table.class_names != class_names:
            message = f"Expected the numbers {', '.join(class_names)}, got {', '.join(table.class_names)}"
            raise DataError(message)
        return table
    unknown = [name for name in table.class_names if name not in class_names]
    if unknown:
        message = f"Expected labels among {', '.join(class_names)}, got {', '.join(unknown[:10])}"
        raise DataError(message)
    lookup = np.array([class_names.index(name) for name in table.class_names], dtype=np.int64)
    if table.labels.ndim == _OF_BOXES:
        labels, kinds = table.labels.copy(), table.labels[..., 0].astype(np.int64)
        labels[..., 0] = np.where(kinds < 0, -1, lookup[kinds])
        return replace(table, labels=labels, class_names=class_names)
    return replace(table, labels=lookup[table.labels], class_names=class_names)


def concatenate(first: Table, second: Table) -> Table:
    """Return the rows of ``first``, then those of ``second`` with labels aligned to ``first``.

    Raises:
        DataError: If ``second`` has a class that ``first`` lacks.
    """
    second = align(second, first.class_names)
    labels = [first.labels, second.labels]
    if first.labels.ndim == second.labels.ndim == _OF_BOXES:  # as many boxes as the fullest image has
        labels = [padded([*one], max(one.shape[1] for one in labels)) for one in labels]
    return Table(
        images=joined(first.images, second.images),
        labels=np.concatenate(labels),
        slices=np.concatenate([first.slices, second.slices]),
        sources=np.concatenate([first.sources, second.sources]),
        hashes=np.concatenate([first.hashes, second.hashes]),
        class_names=first.class_names,
        corrupt=first.corrupt + second.corrupt,
        shares=first.shares,
        unit=first.unit,
        task=first.task,
        remarks=first.remarks,
        columns=first.columns,
    )


def check_sound(table: Table, name: str, *, bits: int = 8) -> None:
    """Check that ``table``, of the data set ``name``, is as described in ``Table``; ``bits``: of its images.

    This holds for the table of every data set, including a person's own loader: errors are reported here, with the row,
    and not by later code. Whether data are good is not checked (``compressor data explore`` does).

    Raises:
        DataError: If it is not; the column or the row is named.
    """
    for column in _COLUMNS:
        if len(getattr(table, column)) != len(table.images):
            got = f"{len(getattr(table, column))} in {column!r} for {len(table.images)} images"
            message = f"Expected columns of one length from {name!r}, got {got}: give each row all of them"
            raise DataError(message)

    _check_images(table, name, bits)

    labels = np.asarray(table.labels)
    if labels.ndim == _OF_BOXES:
        _check_boxes(labels, table.class_names, name)
        bad, wanted = np.zeros(0, np.int64), ""
    elif labels.ndim > 1:  # numbers to predict, not classes
        bad = np.flatnonzero(~np.isfinite(labels.astype(np.float64)).all(axis=1))
        wanted = "finite numbers"
    else:
        whole = labels.dtype.kind in "iu"
        bad = np.flatnonzero((labels < 0) | (labels >= len(table.class_names))) if whole else np.zeros(1, np.int64)
        wanted = f"whole numbers of 0 to {len(table.class_names) - 1}, the rows of class_names,"
    if len(bad):
        message = f"Expected labels from {name!r} to be {wanted} got {labels[bad[0]]} in row {bad[0]}"
        raise DataError(f"{message} ({labels.dtype}): mend the label or name its class")

    if ":" not in name:
        return
    known: dict[str, tuple[str, int]] = {}  # equal pictures of two hashes could be in the train and the gate split
    for row, (image, said) in enumerate(zip(table.images, table.hashes.tolist(), strict=True)):
        first, at = known.setdefault(image_hash(image), (said, row))
        if first != said:
            message = f"Expected one hash for equal images from {name!r}, got two for the rows {at} and {row}"
            raise DataError(f"{message}: they would fall into different splits; leave sources and hashes to make_table")


def _check_boxes(labels: Labels, class_names: tuple[str, ...], name: str) -> None:
    """Check that ``labels`` are boxes inside their images, with a class, and only empty places after the last.

    Raises:
        DataError: If they are not; the row is named.
    """
    if labels.dtype != np.float32 or labels.shape[2] != BOX:
        message = f"Expected boxes from {name!r} as float32 (N, M, {BOX}), got {labels.dtype} {labels.shape}"
        raise DataError(f"{message}: give class, x0, y0, x1 and y1, as make_box_table does")
    kinds, edges, there = labels[..., 0], labels[..., 1:], labels[..., 0] >= 0
    known = (kinds == np.floor(kinds)) & (kinds < len(class_names)) & (there | (kinds == -1))
    inside = np.isfinite(edges).all(axis=2) & (edges >= 0).all(axis=2) & (edges <= 1).all(axis=2)
    sized = (edges[..., 2] > edges[..., 0]) & (edges[..., 3] > edges[..., 1])
    gap = np.zeros_like(there)
    gap[:, 1:] = there[:, 1:] & ~there[:, :-1]
    bad = np.argwhere(~known | gap | (there & ~(inside & sized)))
    if len(bad):
        row, place = bad[0].tolist()
        wanted = f"a class of 0 to {len(class_names) - 1} and 0 <= x0 < x1 <= 1, 0 <= y0 < y1 <= 1, the empty ones last"
        message = f"Expected boxes from {name!r} with {wanted}, got {labels[row, place].tolist()} in row {row}"
        raise DataError(f"{message}: mend the box or leave it out")


def _check_images(table: Table, name: str, bits: int) -> None:
    planes, deep = PLANES.get(bits, 0), bits != min(PLANES)
    for row, image in enumerate(table.images):
        fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == _RANK
        if not fits or image.shape[2] != planes or not image.size:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            if deep:
                message = (
                    f"Expected images of {bits} bits as uint8 (H, W, {planes}) from {name!r}, got {got} in row {row}"
                )
                raise DataError(f"{message}: make them with edge_agent.pictures.sixteen_bits.to_bytes")
            message = f"Expected images of uint8 (H, W, 3), range 0 to 255, from {name!r}, got {got} in row {row}"
            if isinstance(image, np.ndarray) and image.dtype.kind == "f" and not np.isfinite(image).all():
                raise DataError(f"{message} with NaN or infinity: leave the row out, or mend what made it")
            raise DataError(f"{message}: scale it to 0..255, make it uint8 and repeat a grey channel three times")
