"""Images of a table that stay on disk: a sequence that reads an image each time it is asked for one.

Decides when images leave memory (``HELD_BYTES``) and how they are read again. The pixels of all images stand one after
the other in one file, decoded: a run walks its images dozens of times, and a file that changes while it runs can't
change a result. Nothing is cached here: the operating system keeps the pages of the file as long as memory is free.
The file is not mapped, because mapped pages count as memory of the process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from compressor.errors import DataError, StorageError
from wire import durable

Image: TypeAlias = "npt.NDArray[np.uint8]"
Rows: TypeAlias = "slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_] | Sequence[int]"
HELD_BYTES = 64 * 1024 * 1024
"""Limit for the pixels of a table in memory; more are kept in a file."""
_RANK = 3
PLANES = {8: 3, 16: 2}
"""Bytes of a pixel, by the bits of a level: red, green and blue, or a grey level's low and high byte."""
_FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)


class _Source(Protocol):
    """Where images are."""

    def read(self, start: int, shape: tuple[int, ...]) -> Image:
        """Return the image of ``shape`` at ``start``, in an array of its own."""


class _Held:
    """Images in memory; ``start`` is a row."""

    def __init__(self, images: npt.NDArray[np.object_]) -> None:
        self._images = images

    def read(self, start: int, shape: tuple[int, ...]) -> Image:
        del shape
        image: Image = self._images[start]
        return image


class PixelFile:
    """An open file of pixels, closed when nothing refers to it; ``start`` is a place in bytes."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor, self._name = descriptor, name
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def nameless(cls, folder: Path) -> PixelFile:
        """Return a new file without a name in ``folder``: nothing of it is left, however the run ends.

        Raises:
            OSError: If there can't be one.
        """
        with tempfile.TemporaryFile(dir=folder) as file:
            return cls(os.dup(file.fileno()), f"a temporary file of {folder}")

    def read(self, start: int, shape: tuple[int, ...]) -> Image:
        """Return the image at ``start``.

        Raises:
            StorageError: If it can't be read, or the file is shorter than when it was written.
        """
        image = np.empty(shape, np.uint8)
        room, done = image.reshape(-1).data, 0
        try:
            while done < len(room) and (got := os.preadv(self._descriptor, [room[done:]], start + done)):
                done += got
        except OSError as error:
            message = f"Expected {len(room)} bytes at {start} of the pixels in {self._name}, got: {error.strerror}"
            raise StorageError(f"{message}: check the disk, then run again") from error
        if done < len(room):
            message = f"Expected {len(room)} bytes at {start} of the pixels in {self._name}, got {done}"
            raise StorageError(f"{message}: the file was cut while it was used; run again, it is made anew")
        return image

    def append(self, image: Image, end: int) -> None:
        """Write the pixels of ``image``, in an array of any shape, at the ``end`` of the file.

        Raises:
            StorageError: If it can't be written.
        """
        left = np.ascontiguousarray(image).reshape(-1).data
        try:
            while left:
                done = os.pwrite(self._descriptor, left, end)
                left, end = left[done:], end + done
        except OSError as error:
            raise _unwritten(self._name, error) from error


class StoredImages(Sequence[Image]):
    """N images, each uint8 (H, W, 3) or (H, W, 2), read when they are indexed; to choose rows of them reads none.

    ``shapes``: int64 (N, 3). Each read gives a new array.
    """

    __slots__ = ("_places", "_sources", "shapes")

    def __init__(
        self, sources: Sequence[_Source], places: npt.NDArray[np.int64], shapes: npt.NDArray[np.int64]
    ) -> None:
        """Store where each image is; ``places``: int64 (N, 2), the index in ``sources`` and the place there."""
        self._sources, self._places, self.shapes = tuple(sources), places, shapes

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._places)

    @property
    def shape(self) -> tuple[int]:
        """The shape of an array of as many objects, (N,)."""
        return (len(self),)

    @overload
    def __getitem__(self, rows: int) -> Image: ...
    @overload
    def __getitem__(self, rows: Rows) -> StoredImages: ...
    def __getitem__(self, rows: int | Rows) -> Image | StoredImages:
        """Return the image of a row, or the images of several rows (a slice, int indices or a bool mask), unread.

        Raises:
            StorageError: If the file can't be read.
        """
        if isinstance(rows, int | np.integer):
            source, start = self._places[rows].tolist()
            image: Image = self._sources[source].read(start, tuple(self.shapes[rows].tolist()))
            return image
        return StoredImages(self._sources, self._places[rows], self.shapes[rows])

    def __iter__(self) -> Iterator[Image]:
        """Yield the images one by one."""
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: object = None, copy: object = None) -> npt.NDArray[np.object_]:
        """Refuse to become an array: it would hold all images."""
        message = f"Expected {len(self)} stored images to be read one by one, got a request for all of them"
        raise TypeError(message)


Images: TypeAlias = "npt.NDArray[np.object_] | StoredImages"


@dataclass(frozen=True, slots=True, eq=False)
class HashedImages:
    """Images as a table keeps them, and the hash of each."""

    images: Images
    hashes: list[str]


def object_array(images: Sequence[Image]) -> npt.NDArray[np.object_]:
    """Return ``images`` as an object array, whatever their sizes (equal ones included)."""
    array = np.empty(len(images), dtype=object)
    for i, image in enumerate(images):
        array[i] = image
    return array


def image_hash(image: Image) -> str:
    """Return the SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


@contextmanager
def stored_in(folder: Path) -> Iterator[None]:
    """Store images in nameless files in ``folder``, not that of temporary files, while the context is open."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def kept(images: Iterable[Image] | HashedImages) -> HashedImages:
    """Return ``images`` with the hash of each; those of more than ``HELD_BYTES`` are in a file that has no name.

    ``images`` are taken one by one, so that an iterator need not hold them all; images already kept stay as they are.

    Raises:
        DataError: If an image to be stored is not uint8 (H, W, 3).
        StorageError: If they can't be written.
    """
    if isinstance(images, HashedImages):
        return images
    held: list[Image] = []
    hashes: list[str] = []
    left = iter(images)
    held_bytes = 0
    for image in left:
        held.append(image)
        hashes.append(image_hash(image))
        held_bytes += image.nbytes
        if held_bytes > HELD_BYTES:
            break
    else:
        return HashedImages(object_array(held), hashes)
    folder = _FOLDER.get() or Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pixels = PixelFile.nameless(folder)
    except OSError as error:
        raise _unwritten(f"a temporary file of {folder}", error) from error
    return HashedImages(_written(pixels, held, left, hashes), hashes)


def _unwritten(where: str, error: OSError) -> StorageError:
    message = f"Expected to write the pixels of the data to {where}, got: {error.strerror}"
    return StorageError(f"{message}: free space, or choose another --out (without one, TMPDIR)")


def _written(pixels: PixelFile, held: list[Image], left: Iterator[Image], hashes: list[str]) -> StoredImages:
    """Write ``held``, which is emptied, and then ``left``, whose hashes are added to ``hashes``."""
    starts: list[int] = []
    shapes: list[tuple[int, ...]] = []
    end = 0

    def add(image: Image) -> None:
        nonlocal end
        if image.dtype != np.uint8 or image.ndim != _RANK or image.shape[2] not in PLANES.values() or not image.size:
            got = f"{image.dtype} {image.shape} in row {len(starts)}"
            message = f"Expected images of uint8 (H, W, 3), range 0 to 255, got {got}"
            raise DataError(f"{message}: scale it to 0..255, make it uint8 and repeat a grey channel three times")
        pixels.append(image, end)
        starts.append(end)
        shapes.append(image.shape)
        end += image.nbytes

    for image in held:
        add(image)
    held.clear()
    for image in left:
        add(image)
        hashes.append(image_hash(image))
    return _in_one([pixels], starts, np.array(shapes, np.int64))


def _in_one(
    sources: Sequence[_Source], starts: Sequence[int] | npt.NDArray[np.int64], shapes: npt.NDArray[np.int64]
) -> StoredImages:
    places = np.zeros((len(starts), 2), np.int64)
    places[:, 1] = starts
    return StoredImages(sources, places, shapes)


def joined(first: Images, second: Images) -> Images:
    """Return the images of ``first``, then those of ``second``; nothing is read."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second])
    one, other = _as_stored(first), _as_stored(second)
    moved = other._places + np.array([len(one._sources), 0])  # noqa: SLF001 - of the same class
    return StoredImages(
        [*one._sources, *other._sources],  # noqa: SLF001 - as above
        np.concatenate([one._places, moved]),  # noqa: SLF001 - as above
        np.concatenate([one.shapes, other.shapes]),
    )


def _as_stored(images: Images) -> StoredImages:
    if isinstance(images, StoredImages):
        return images
    return _in_one([_Held(images)], range(len(images)), shapes_of(images))


def shapes_of(images: Images) -> npt.NDArray[np.int64]:
    """Return the shape of each image, int64 (N, 3)."""
    if isinstance(images, StoredImages):
        return images.shapes
    return np.array([image.shape for image in images], np.int64).reshape(-1, _RANK)


def write(images: Images, path: Path) -> str:
    """Write the pixels of ``images`` to ``path``, whole or not at all; return their SHA-256.

    Raises:
        StorageError: If they can't be written or read.
    """
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable.replacing(path, mode=0o644) as file:
            for image in images:
                pixels = np.ascontiguousarray(image).data
                digest.update(pixels)
                file.write(pixels)
    except OSError as error:
        raise _unwritten(str(path), error) from error
    return digest.hexdigest()


def read(path: Path, shapes: npt.NDArray[np.int64], digest: str) -> StoredImages:
    """Return the images of ``shapes`` that ``write`` wrote to ``path``, with the ``digest`` that it returned.

    Raises:
        StorageError: If they are not there, or damaged.
    """
    try:
        file = PixelFile(os.open(path, os.O_RDONLY), str(path))
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        message = f"Expected the pixels of the data in {path}, got: {error.strerror}"
        raise StorageError(f"{message}: run again, they are made anew") from error
    if found != digest:
        message = f"Expected the pixels of the data in {path}, got others"
        raise StorageError(f"{message}: delete the file and run again, it is made anew")
    ends = np.cumsum(shapes.prod(axis=1))
    return _in_one([file], ends - shapes.prod(axis=1), shapes)
