"""Hardware readings of the agent's processes."""

import os
from pathlib import Path

from edge_agent.device.hardware import Hardware


def said(proc: Path, pid: int, written_bytes: int) -> None:
    """Set the number of bytes that the process has written."""
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "io").write_text(f"rchar: 1\nwrite_bytes: {written_bytes}\ncancelled_write_bytes: 5\n")


def test_counts_what_agent_and_child_wrote_since_the_last_row(tmp_path: Path) -> None:
    """Each byte once: also where a child has ended and its figure moves to the agent's only after a while."""
    hardware, me = Hardware(state=tmp_path, proc=tmp_path), os.getpid()
    found = []
    for mine, child in [(100, 10), (150, 30), (150, None), (185, None), (190, 7)]:
        said(tmp_path, me, mine)
        if child is not None:
            said(tmp_path, 9, child)
        row = hardware.read(now_ms=1, child_pid=9 if child is not None else 0, spool_bytes=0)
        found.append(row["written_bytes"])
    assert found == [110, 70, 0, 5, 12]


def test_counts_real_bytes_to_the_disk(tmp_path: Path) -> None:
    """A megabyte that this process writes and flushes is in the next row."""
    hardware = Hardware(state=tmp_path)
    hardware.read(now_ms=1, child_pid=0, spool_bytes=0)
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    written = hardware.read(now_ms=2, child_pid=0, spool_bytes=0)["written_bytes"]
    assert written == 0 or written >= 1 << 20  # 0: a file system that counts nothing, such as tmpfs
