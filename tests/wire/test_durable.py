"""Files are complete, with concurrent writers and with disk errors."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wire.durable import write_atomically


def test_writers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Every write succeeds, and the file is one of theirs, complete."""
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


@pytest.mark.parametrize(("wanted", "mode"), [({}, 0o600), ({"mode": 0o644}, 0o644)])
def test_a_new_file_is_its_owner_s_alone_unless_said_otherwise(
    tmp_path: Path, wanted: dict[str, int], mode: int
) -> None:
    """Keys and passwords are written this way; also where an open file was there before."""
    (tmp_path / "root.key").write_bytes(b"old")
    before = os.umask(0o022)
    write_atomically(tmp_path / "root.key", b"new", **wanted)
    os.umask(before)
    assert stat.S_IMODE((tmp_path / "root.key").stat().st_mode) == mode


@pytest.mark.parametrize(("alone", "left"), [(True, 0), (False, 1)])
def test_what_a_power_cut_left_is_written_over_by_who_writes_alone(tmp_path: Path, *, alone: bool, left: int) -> None:
    """A small disk would fill with a part of each cut; where others may write, it may be theirs."""
    (tmp_path / ".floor.json.new").write_bytes(b"half" * 100)
    write_atomically(tmp_path / "floor.json", b"{}", alone=alone)
    assert (tmp_path / "floor.json").read_bytes() == b"{}"
    assert len(list(tmp_path.glob(".*.new"))) == left
