"""Files are whole, whoever writes at the same time and whatever the disk says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.store.files import write_atomically


def test_writers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Every write succeeds, and the file is one of theirs, whole."""
    texts = [bytes([65 + number]) * 5_000 for number in range(24)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda text: write_atomically(tmp_path / "passwords", text), texts))
    assert (tmp_path / "passwords").read_bytes() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["passwords"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """Also no temporary file, which would fill a disk that is full already."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
