"""Boxes as targets: the labels of a data set unchanged, and the rows that calibration needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.data._front_end import preprocessing_of
from compressor.data._table import Labels, Table
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe, Recipe
from compressor.tasks._calibration_rows import filled
from edge_agent.pictures.resizing import framed
from wire.manifest import LETTERBOX, Preprocessing

_AXES = 3
CALIBRATION_ROWS = 64
"""Of a few pictures the ranges are too narrow: 4 cost 2.6 points of mAP in a trial, 16 half a point, 87 nothing."""


def read(table: Table, data: DataRecipe) -> Table:
    """Return ``table`` with its boxes as ratios of the input: they move where a border makes a picture fit.

    Raises:
        DataError: If its labels are no boxes, or there is none at all.
    """
    if table.labels.ndim != _AXES:
        message = f"Expected boxes from {data.dataset!r}, because task = 'detection', got one label for each picture"
        raise DataError(f"{message}: name a data set with boxes (boxes, scenes), or leave task out")
    if not (table.labels[..., 0] >= 0).any():
        raise DataError(f"Expected at least one box from {data.dataset!r}, got none in {len(table)} pictures")
    if data.resize == LETTERBOX:
        sizes = [image.shape[:2] for image in table.images]
        return replace(table, labels=_framed(table.labels, sizes, preprocessing_of(data)))
    return table


def _framed(labels: Labels, sizes: Sequence[tuple[int, ...]], pre: Preprocessing) -> Labels:
    """Return boxes (N, M, 5), ratios of pictures of ``sizes`` (rows, columns), as ratios of the input."""
    made = labels.copy()
    for row, (height, width) in enumerate(sizes):
        there = made[row, :, 0] >= 0
        made[row, there, 1:] = framed(made[row, there, 1:], width, height, pre)
    return made


def fitted(recipe: Recipe, table: Table, train: Table) -> Table:
    """Return ``table`` unchanged: boxes are ratios of their picture."""
    del recipe, train
    return table


def classes(labels: Labels) -> NDArray[np.int64] | None:
    """Return None: a picture has no single class."""
    del labels
    return None


def grouped(table: Table) -> tuple[Table, str]:
    """Return ``table`` with the class of the most boxes as the label of each picture, for exploration."""
    counts = [(table.labels[..., 0] == kind).sum(axis=1) for kind in range(len(table.class_names))]
    often = np.argmax(counts, axis=0)
    labels = np.where(np.sum(counts, axis=0) > 0, often, len(table.class_names)).astype(np.int64)
    names = (*table.class_names, "no boxes") if (labels == len(table.class_names)).any() else table.class_names
    note = f"{int(np.sum(counts))} boxes: each picture is shown under the class with most of its boxes"
    return replace(table, labels=labels, class_names=names, task=""), note


def calibration(rows: Table, train: Table) -> list[Table]:
    """Return the calibration split, and pictures of ``train`` where it has fewer than ``CALIBRATION_ROWS``."""
    return filled(rows, train, CALIBRATION_ROWS)


def few(rows: Sequence[Table]) -> str:
    """Return a remark if ranges come from fewer pictures than ``CALIBRATION_ROWS``; else ""."""
    if (count := sum(map(len, rows))) >= CALIBRATION_ROWS:
        return ""
    return f"The ranges of int8 come from {count} pictures of {CALIBRATION_ROWS} wanted: of few they are too narrow."


def check_calibration(tables: Sequence[Table]) -> None:
    """Check that there is a box in some picture: the ranges of empty ones don't cover others.

    Raises:
        DataError: If there is none.
    """
    if not any((table.labels[..., 0] >= 0).any() for table in tables):
        message = f"Expected calibration pictures with boxes, got none in {sum(map(len, tables))}"
        raise DataError(f"{message}: give calibration more of [data] shares")
