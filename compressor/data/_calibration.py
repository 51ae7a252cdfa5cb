"""Inputs to calibrate with that a person has in an array, instead of the calibration split: ``[data] calibration``.

Decides what the numbers of the array are: ``uint8`` are pictures, which go through the recipe's preprocessing; real
numbers are what the model itself gets, in the layout of a network in torch or of pictures. Reads the array in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.data._npy import check_header
from compressor.data.arrays import pictures
from compressor.errors import ArchiveError, DataError
from edge_agent.inference import preprocess
from wire.canonical import sha256_file
from wire.manifest import Preprocessing

FEW = 100
"""With fewer inputs the ranges depend on which they are."""
_EDGES = (0.01, 0.99)
_ALIKE = 2.0
"""So many times as wide may be the values of inputs that were preprocessed alike."""
_LOOKED_AT = 8
_PIECE = 32
_RANK = 4

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CalibrationInputs:
    """An array on disk, (N, …): its file with its SHA-256, and how a row of it becomes an input."""

    path: Path
    digest: str
    array: npt.NDArray[Any]
    preprocessing: Preprocessing
    channels_last: bool = False

    def __len__(self) -> int:
        return len(self.array)

    @property
    def said(self) -> str:
        """How many inputs set the ranges, and whether they are few."""
        few = f"; fewer than {FEW} are few" if len(self) < FEW else ""
        return f"The ranges of a quantization come from the {len(self)} inputs of {self.path.name}{few}"

    def unlike(self, own: Floats) -> str:
        """Return a remark if the values differ much from those of ``own``, inputs of the data set; "" if not."""
        low, high = np.quantile(np.concatenate([*islice(self.batches(), _LOOKED_AT)]), _EDGES).tolist()
        least, most = np.quantile(own, _EDGES).tolist()
        if (
            _ALIKE * (high - low) >= most - least
            and _ALIKE * (most - least) >= high - low
            and low < most > least < high
        ):
            return ""
        message = f"The inputs of {self.path.name} lie in {low:.3g} to {high:.3g}, those of the data in {least:.3g}"
        return (
            f"{message} to {most:.3g}: the model never gets such values if one of the two was preprocessed otherwise."
        )

    def batches(self, layout: str = "NCHW") -> Iterator[Floats]:
        """Yield the inputs in ``layout``, float32 (n, C, H, W) or (n, H, W, C).

        Raises:
            DataError: If a number is not finite.
        """
        for start in range(0, len(self), _PIECE):
            piece = np.asarray(self.array[start : start + _PIECE])
            if piece.dtype == np.uint8:
                yield preprocess.to_batch(
                    list(pictures(piece, str(self.path))), replace(self.preprocessing, layout=layout)
                )
                continue
            found = piece.astype(np.float32)
            if not np.isfinite(found).all():
                row = start + int(np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(axis=1))[0])
                message = f"Expected finite numbers in {self.path}, got others in row {row}"
                raise DataError(f"{message}: leave the row out; one infinite value is a range of its own")
            first = found.transpose(0, 3, 1, 2) if self.channels_last else found
            yield np.ascontiguousarray(first if layout == "NCHW" else first.transpose(0, 2, 3, 1))


def opened(path: Path, preprocessing: Preprocessing) -> CalibrationInputs:
    """Return the inputs in the ``.npy`` file at ``path``, all of whose numbers have been looked at.

    Raises:
        ArchiveError: If it is no such file, or damaged.
        DataError: If its type or shape are not those of pictures or inputs, or a number is not finite.
    """
    try:
        with path.open("rb") as file:
            header = check_header(file, path.stat().st_size, str(path))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        message = f"Expected an array (.npy) of inputs at {path} for [data] calibration, got: {error.strerror or error}"
        raise ArchiveError(f"{message}: a relative path begins at the recipe's folder") from error
    except (ValueError, EOFError) as error:
        message = f"Expected an array (.npy) of inputs at {path} for [data] calibration, got: {str(error)[:200]}"
        raise ArchiveError(f"{message}: write it with numpy.save") from error
    found = CalibrationInputs(path=path, digest=sha256_file(path), array=array, preprocessing=preprocessing)
    if header.dtype == np.uint8:
        if preprocessing.front_end or preprocessing.deep:
            what = f"front_end {preprocessing.front_end!r}" if preprocessing.front_end else "bits = 16"
            message = f"Expected the model's own inputs (float32) in {path} with {what}, got uint8"
            raise DataError(f"{message}: only pictures of 8 bits can be preprocessed here")
        if len(header.shape) != _RANK or header.shape[3] not in {1, 3} or not header.shape[0]:
            message = f"Expected pictures (N, height, width, 3) or (N, height, width, 1) in {path}, got {header.shape}"
            raise DataError(f"{message}: put the channels last, with one row a picture")
        return found
    sides = preprocessing.channels, preprocessing.height, preprocessing.width
    shape = header.shape[1:]
    if header.dtype.kind != "f" or len(header.shape) != _RANK or shape not in {sides, (*sides[1:], sides[0])}:
        wanted = " x ".join(map(str, sides))
        message = f"Expected inputs (N, {wanted}) of float32, or pictures of uint8 (N, height, width, 3), in {path}"
        one = ": one input is x[None]" if header.shape in {sides, (*sides[1:], sides[0])} else ""
        raise DataError(f"{message}, got {header.dtype} {header.shape}{one or ': save what the model itself gets'}")
    if not header.shape[0]:
        raise DataError(f"Expected at least one input in {path}, got none: [data] calibration sets all ranges")
    found = replace(found, channels_last=shape != sides)
    for _ in found.batches():
        pass
    return found
