"""Tags as targets: a label names them, joined by ``+``."""

from dataclasses import replace

import numpy as np

from compressor.errors import DataError


def read(table, data):  # noqa: ANN001, ANN201 - as a person writes it
    """Return ``table`` with a column of 0 and 1 for each tag."""
    sets = [set(name.split("+")) - {"none"} for name in table.class_names]
    names = tuple(sorted(set().union(*sets)))
    if not names:
        message = f"Expected tags from {data.dataset!r}, got none: label rows 'a+b'"
        raise DataError(message)
    columns = np.array([[name in own for name in names] for own in sets], np.float32)
    return replace(table, labels=columns[table.labels], class_names=names)


def fitted(recipe, table, train):  # noqa: ANN001, ANN201 - as above
    """Return ``table``: tags have no unit."""
    del recipe, train
    return table


def classes(labels):  # noqa: ANN001, ANN201 - as above
    """Return None: a row may have several tags."""
    del labels


def grouped(table):  # noqa: ANN001, ANN201 - as above
    """Return the sets of tags as classes."""
    sets, labels = np.unique(table.labels, axis=0, return_inverse=True)
    names = tuple("+".join(n for n, on in zip(table.class_names, row, strict=True) if on) or "none" for row in sets)
    labels = labels.reshape(-1).astype(np.int64)
    return replace(table, labels=labels, class_names=names, task=""), "sets of tags are shown as classes"


def calibration(rows, train):  # noqa: ANN001, ANN201 - as above
    """Return the calibration split alone."""
    del train
    return [rows]


def check_calibration(tables) -> None:  # noqa: ANN001 - as above
    """Check that the rows have different tags."""
    if len(np.unique(np.concatenate([table.labels for table in tables]), axis=0)) == 1:
        raise DataError("Expected calibration rows of different tags, got one set of them")
