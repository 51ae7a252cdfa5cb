"""The idx files of MNIST and its kin."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from compressor import data
from compressor.data.idx import read_idx
from compressor.errors import ArchiveError, DataError
from compressor.recipe.model import DataRecipe


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def _write(folder: Path, part: str, images: int, labels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (images, 5, 4))
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(pixels)))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(_idx(np.arange(labels) % 3))


def test_reads_plain_and_gzip_files(tmp_path: Path) -> None:
    """Images become (H, W, 3), labels classes, the two files slices."""
    _write(tmp_path, "train", 6, 6)
    _write(tmp_path, "t10k", 3, 3)
    table = data.load(DataRecipe(dataset="idx", path="."), tmp_path)
    assert table.images[0].shape == (5, 4, 3)
    assert table.slices.tolist() == ["train"] * 6 + ["t10k"] * 3
    assert table.class_names == ("0", "1", "2")


def test_refuses_labels_that_do_not_match(tmp_path: Path) -> None:
    """Five labels for six images are refused."""
    _write(tmp_path, "train", 6, 5)
    with pytest.raises(DataError, match="got 5 and 6"):
        data.load(DataRecipe(dataset="idx", path=str(tmp_path)))


def test_refuses_a_folder_without_idx_files(tmp_path: Path) -> None:
    """The error names the files that were looked for."""
    with pytest.raises(ArchiveError, match="train-images-idx3"):
        data.load(DataRecipe(dataset="idx", path=str(tmp_path)))


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08\x03", b"\0\0\x0d\x01\0\0\0\x01\0", struct.pack(">BBBBI", 0, 0, 8, 1, 2**31) + b"\0" * 9]
)
def test_refuses_what_is_no_idx_file(tmp_path: Path, content: bytes) -> None:
    """Empty, cut short, of another type, or with a false size: refused before an array is made."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError):
        read_idx(tmp_path / "x", 1)


def test_refuses_a_damaged_gzip(tmp_path: Path) -> None:
    """A gzip that breaks off is a data error."""
    (tmp_path / "x.gz").write_bytes(gzip.compress(_idx(np.arange(200)))[:30])
    with pytest.raises(DataError, match="readable"):
        read_idx(tmp_path / "x.gz", 1)
