"""Checks that a table is consistent: columns of one length, uint8 pictures, valid labels, consistent hashes.

Decides what the table of every data set must satisfy, including a person's own loader: errors are reported here, with
the row, and not by later code. Does not judge whether data are good (``compressor data explore`` does).
"""

from __future__ import annotations

import numpy as np

from compressor.data._table import Table, image_hash
from compressor.errors import DataError

_COLUMNS = ("labels", "slices", "sources", "hashes")
_RANK, _CHANNELS = 3, 3


def check_sound(table: Table, name: str) -> None:
    """Check that ``table``, of the data set ``name``, is as described in ``Table``.

    Raises:
        DataError: If it is not; the column or the row is named.
    """
    for column in _COLUMNS:
        if len(getattr(table, column)) != len(table.images):
            got = f"{len(getattr(table, column))} in {column!r} for {len(table.images)} images"
            message = f"Expected columns of one length from {name!r}, got {got}: give each row all of them"
            raise DataError(message)
    _check_images(table, name)
    _check_labels(table, name)
    if ":" in name:
        _check_hashes(table, name)


def _check_images(table: Table, name: str) -> None:
    for row, image in enumerate(table.images):
        fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == _RANK
        if not fits or image.shape[2] != _CHANNELS or not image.size:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            message = f"Expected images of uint8 (H, W, 3), range 0 to 255, from {name!r}, got {got} in row {row}"
            raise DataError(f"{message}{_unfit(image)}")


def _unfit(image: object) -> str:
    """Return the advice for ``image``, as text."""
    if isinstance(image, np.ndarray) and image.dtype.kind == "f" and not np.isfinite(image).all():
        return " with NaN or infinity: leave the row out, or mend what made it"
    return ": scale it to 0..255, make it uint8 and repeat a grey channel three times"


def _check_labels(table: Table, name: str) -> None:
    labels = np.asarray(table.labels)
    if labels.ndim > 1:  # numbers to predict, not classes
        bad = np.flatnonzero(~np.isfinite(labels.astype(np.float64)).all(axis=1))
        wanted = "finite numbers"
    else:
        whole = labels.dtype.kind in "iu"
        bad = np.flatnonzero((labels < 0) | (labels >= len(table.class_names))) if whole else np.zeros(1, np.int64)
        wanted = f"whole numbers of 0 to {len(table.class_names) - 1}, the rows of class_names,"
    if len(bad):
        message = f"Expected labels from {name!r} to be {wanted} got {labels[bad[0]]} in row {bad[0]}"
        raise DataError(f"{message} ({labels.dtype}): mend the label or name its class")


def _check_hashes(table: Table, name: str) -> None:
    """Check that equal pictures have equal hashes: otherwise one could be in the train and the gate split."""
    told: dict[str, tuple[str, int]] = {}
    for row, (image, said) in enumerate(zip(table.images, table.hashes.tolist(), strict=True)):
        known, first = told.setdefault(image_hash(image), (said, row))
        if known != said:
            message = f"Expected one hash for equal images from {name!r}, got two for the rows {first} and {row}"
            raise DataError(f"{message}: they would fall into different splits; leave sources and hashes to make_table")
