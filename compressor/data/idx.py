"""The idx files of MNIST and similar data sets, plain or gzip.

Source: Y. LeCun, The MNIST database, "the idx file format": two zero bytes, type (8 is uint8), number
of dimensions, each dimension as big-endian uint32, then the data.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.data._table import Table, make_table
from compressor.errors import ArchiveError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"path", "orientation", "decode"})
MAX_IDX_BYTES = 1 << 30
_UINT8 = 8
_IMAGE_AXES, _LABEL_AXES = 3, 1


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the images in the folder ``data.path``; slices are ``train`` and ``t10k`` by file name.

    Raises:
        ArchiveError: If there are no idx files in the folder.
        DataError: If a file is not an idx file, or images and labels differ in number.
    """
    folder = (root or Path()) / data.path
    stacks: list[npt.NDArray[np.uint8]] = []
    read: list[str] = []
    names: list[str] = []
    slices: list[str] = []
    for part in ("train", "t10k"):
        pixels, labels = _find(folder, part, "images-idx3"), _find(folder, part, "labels-idx1")
        if pixels is None or labels is None:
            continue
        stack, classes = read_idx(pixels, _IMAGE_AXES), read_idx(labels, _LABEL_AXES)
        if len(stack) != len(classes):
            message = f"Expected as many labels as images in {folder} {part}, got {len(classes)} and {len(stack)}"
            raise DataError(message)
        read.append(part)
        stacks.append(stack)
        names += [str(label) for label in classes]
        slices += [part] * len(classes)
    if not names:
        got = f"files of no images for {', '.join(read)}" if read else "not both"
        message = f"Expected train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz] in {folder}, got {got}"
        raise ArchiveError(message)
    images = (np.repeat(image[:, :, None], 3, axis=2) for stack in stacks for image in stack)
    return make_table(images, names, slices=slices)


def read_idx(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """Return the uint8 array, of ``axes`` axes, in the idx file at ``path``.

    Raises:
        DataError: If it is not an idx file of bytes, or is too large, truncated or damaged.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        message = f"Expected a readable idx file at {path}, got: {error}"
        raise DataError(message) from error
    head = 4 + 4 * axes
    if len(data) < head or len(data) > MAX_IDX_BYTES or tuple(data[:4]) != (0, 0, _UINT8, axes):
        message = (
            f"Expected an idx file of bytes with {axes} axes at {path}, got {data[:4].hex()!r} of {len(data)} bytes"
        )
        raise DataError(message)
    shape = struct.unpack(f">{axes}I", data[4:head])
    if math.prod(shape) != len(data) - head:
        message = f"Expected {math.prod(shape)} bytes of data in {path}, got {len(data) - head}"
        raise DataError(message)
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape)


def _find(folder: Path, part: str, kind: str) -> Path | None:
    candidates = (folder / f"{part}-{kind}-ubyte{ending}" for ending in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)
