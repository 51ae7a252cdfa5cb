"""What a network and the drift monitor get of a table's images, made from them each time it is asked for.

A float32 input takes four times the memory of its pixels, so inputs of many rows are never all there at once. Decides
nothing about the values: they are those of the device's preprocessing, equal to the last bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.data._stored_images import Image, Images, PixelFile, joined
from compressor.portions import Inputs, portions
from edge_agent.inference import preprocess
from wire.manifest import Preprocessing

HELD_INPUT_BYTES = 128 * 1024 * 1024
"""Limit for the inputs of one split in memory; more are made batch by batch, at 1 to 2 ms a picture of 224 x 224."""
Floats = npt.NDArray[np.float32]
Rows = slice | npt.NDArray[np.int64]


class LazyInputs:
    """N inputs, float32 (N, C, H, W) or NHWC, made from their images when they are indexed.

    ``shape`` and ``nbytes`` are those of an array of all of them.
    """

    __slots__ = ("_images", "_preprocessing", "nbytes", "shape")

    def __init__(self, parts: Sequence[Images], preprocessing: Preprocessing) -> None:
        """Store the images of all ``parts``, one after the other, at least one; none is read but the first."""
        self._images, self._preprocessing = reduce(joined, parts), preprocessing
        one = preprocess.to_batch([self._images[0]], preprocessing)
        self.shape: tuple[int, ...] = (len(self._images), *one.shape[1:])
        self.nbytes = len(self._images) * one.nbytes

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._images)

    def __getitem__(self, rows: Rows) -> Floats:
        """Return the inputs of these rows, float32 (n, C, H, W).

        Raises:
            StorageError: If an image can't be read.
        """
        return preprocess.to_batch(list(self._images[rows]), self._preprocessing)

    def __array__(self, dtype: object = None, copy: object = None) -> Floats:
        """Refuse to become an array: it would hold all inputs."""
        raise _refused(self.nbytes)


class FileInputs:
    """N inputs, float32 (N, C, H, W), in a file of their own, read when they are indexed; for other processes."""

    __slots__ = ("_file", "nbytes", "shape")

    def __init__(self, file: PixelFile, shape: tuple[int, ...]) -> None:
        """Store the open ``file`` of rows of float32."""
        self._file, self.shape, self.nbytes = file, shape, 4 * math.prod(shape)

    @classmethod
    def opened(cls, path: Path, shape: tuple[int, ...]) -> FileInputs:
        """Return the inputs that ``write`` wrote to ``path``.

        Raises:
            OSError: If it can't be opened.
        """
        return cls(PixelFile(os.open(path, os.O_RDONLY), str(path)), shape)

    @classmethod
    def received(cls, parts: Iterable[Floats], shape: tuple[int, ...], folder: Path) -> FileInputs:
        """Return the inputs in ``parts``, one after the other, kept in a file without a name in ``folder``.

        Raises:
            StorageError: If they can't be written.
            OSError: If there can't be a file.
        """
        file, end = PixelFile.nameless(folder), 0
        for part in parts:
            file.append(part.view(np.uint8), end)
            end += part.nbytes
        return cls(file, shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> Floats:
        """Return the inputs of these rows, float32 (n, C, H, W).

        Raises:
            StorageError: If the file can't be read.
        """
        chosen = np.arange(len(self))[rows]
        one = self.nbytes // max(1, len(self))
        if isinstance(rows, slice) and rows.step in {None, 1}:  # they are one piece of the file
            read = self._file.read(int(chosen[0]) * one if len(chosen) else 0, (len(chosen) * one,))
        else:
            read = np.empty(len(chosen) * one, np.uint8)
            for place, row in enumerate(chosen.tolist()):
                read[place * one : (place + 1) * one] = self._file.read(row * one, (one,))
        return read.view(np.float32).reshape(len(chosen), *self.shape[1:])

    def __array__(self, dtype: object = None, copy: object = None) -> Floats:
        """Refuse to become an array: it would hold all inputs."""
        raise _refused(self.nbytes)


def write(inputs: Inputs, path: Path) -> None:
    """Write ``inputs`` to ``path``, for ``FileInputs.opened``.

    Raises:
        OSError: If they can't be written.
    """
    with path.open("wb") as file:
        for part in portions(inputs, most=len(inputs)):
            file.write(np.ascontiguousarray(part).data)


def _refused(size_bytes: int) -> TypeError:
    return TypeError(f"Expected inputs of {size_bytes} bytes to be taken in parts, got a request for all of them")


class MonitoredPixels(Sequence[Image]):
    """N images as the drift monitor sees them, uint8 (H, W, 3) of the model's size, each made when it is taken."""

    def __init__(self, images: Images, preprocessing: Preprocessing) -> None:
        """Store the images; none is read."""
        self._images, self._preprocessing = images, preprocessing

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, row: int) -> Image:  # type: ignore[override]  # no slices: nobody takes any
        """Return the image of ``row``."""
        return preprocess.resize_pixels(self._images[row], self._preprocessing)

    def __iter__(self) -> Iterator[Image]:
        """Yield the images one by one."""
        return (preprocess.resize_pixels(image, self._preprocessing) for image in self._images)
