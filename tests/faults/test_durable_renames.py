"""A power cut after a rename: the file is flushed before it, the folder after it, in all packages.

No machine is switched off here: the calls that reach the kernel are recorded in their order, and each file that was
renamed into its place must have been flushed, as it was then, before; its folder after.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

from compressor import cache
from compressor.release import keys
from compressor.train import checkpoint, supervised
from edge_agent.device.disk import RealDisk
from edge_agent.device.record_file import write_record
from edge_agent.sources._bad_inputs import Skipped
from server.app.state_backup import back_up_state
from server.app.state_directory import init_state
from server.registry.blobs import Blobs
from server.store.database import connect, open_database
from server.trust.online_keys import init_online_keys
from wire.canonical import sha256_hex
from wire.durable import write_atomically

PACKAGES = ("wire", "edge_agent", "server", "compressor")
ROOT = Path(__file__).parents[2]
NOT_DURABLE = {
    "compressor/train/processes/torchrun.py": "how processes of a run ended, for the process that waits for them",
    "compressor/worker/client.py": "a download: its digest is checked before it is used",
    "edge_agent/inference/kept_inputs.py": "inputs for one replay: their digests tell what a power cut left torn",
    "edge_agent/sources/_bad_inputs.py": "moves what was written by others, without a change, on one file system",
    "edge_agent/device/record_file.py": "moves a folder out of the way of a file, which is then written durably",
    "edge_agent/telemetry/spool.py": "sets a damaged spool aside; a power cut in between is continued",
    "edge_agent/control/requests.py": "an answer to the person who waits for it; after a power cut nobody does",
    "edge_agent/logs.py": "rotates the log; a power cut may lose the last lines",
    "edge_agent/control/status_file.py": "said again each second: a flush each time would wear the flash",
    "edge_agent/sinks/jsonl.py": "rotates answers; unless `sync` is set a power cut may lose the last seconds of them",
    "edge_agent/updater/ports.py": "an in-memory seam for tests",
    "edge_agent/updater/verification.py": "moves a file out of the way of a folder",
}
DURABLE = {
    "wire/durable.py", "edge_agent/device/disk.py", "server/registry/blobs.py",
    "server/store/backup.py",
}  # fmt: skip


class Recorder:
    """Records what was flushed and renamed; the calls themselves are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Record from now on."""
        self.flushed: dict[tuple[int, int], tuple[int, int]] = {}  # (device, inode): (size, time of the last change)
        self.renamed: list[tuple[Path, bool, tuple[int, int]]] = []  # whether it was flushed as it was; its folder
        self.folders: dict[tuple[int, int], int] = {}  # how many renames a flush of the folder came after
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._renaming(getattr(os, name)))
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda descriptor: self._flush(fsync, descriptor))

    def _renaming(self, real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: os.PathLike[str], target: os.PathLike[str], **folders: int) -> None:
            found = Path(source).stat()
            flushed = self.flushed.get((found.st_dev, found.st_ino)) == (found.st_size, found.st_mtime_ns)
            real(source, target, **folders)
            folder = Path(target).parent.stat()
            self.renamed.append((Path(target), flushed, (folder.st_dev, folder.st_ino)))

        return rename

    def _flush(self, real: Callable[[int], None], descriptor: int) -> None:
        real(descriptor)
        found = os.fstat(descriptor)
        self.flushed[found.st_dev, found.st_ino] = (found.st_size, found.st_mtime_ns)
        self.folders[found.st_dev, found.st_ino] = len(self.renamed)

    def faults(self) -> Iterator[str]:
        """Yield the changes that a power cut could lose."""
        for place, (target, flushed, folder) in enumerate(self.renamed, start=1):
            if not flushed:
                yield f"{target.name} was renamed before it was flushed"
            if self.folders.get(folder, 0) < place:
                yield f"the folder of {target.name} was not flushed after the rename"


def _back_up(folder: Path) -> None:
    state = init_state(folder / "state")
    open_database(state.database_url).close()
    (state.blobs / ("ab" * 32)).write_bytes(b"bundle")
    engine = connect(state.database_url)
    back_up_state(state, engine, folder / "copy", 1)
    engine.dispose()


WRITERS: dict[str, Callable[[Path], object]] = {
    "edge_agent record": lambda folder: write_record(RealDisk(), folder / "floor.json", {"floor": 3}),
    "edge_agent skipped": lambda folder: Skipped(folder).add("a.jpg"),
    "server state": lambda folder: init_state(folder / "state"),
    "server keys": init_online_keys,
    "any file": lambda folder: write_atomically(folder / "ports.json", b"{}"),
    "server blob": lambda folder: Blobs(folder).put(sha256_hex(b"x"), [b"x"]),
    "server backup": _back_up,
    "compressor keys": lambda folder: keys.init_keys(folder / "offline", init_online_keys(folder)),
    "compressor output": lambda folder: cache.write_atomically(folder / "out" / "gate.json", b"{}"),
    "compressor weights": lambda folder: checkpoint.save(nn.Linear(2, 2), folder / "weights.pt"),
    "compressor training": lambda folder: supervised._save(folder / "state.pt", {"epoch": 3}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_renamed_is_flushed_before_and_its_folder_after(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every kind of file that must outlive a power cut."""
    recorder = Recorder(monkeypatch)
    WRITERS[writer](tmp_path)
    assert recorder.renamed
    assert list(recorder.faults()) == []


@pytest.mark.parametrize("fault", ["file", "folder", "both"])
def test_a_writer_that_forgets_a_flush_is_found(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder itself: each half of the rule alone."""
    recorder, part = Recorder(monkeypatch), tmp_path / "part"
    with part.open("wb") as file:
        file.write(b"x")
        file.flush()
        if fault == "folder":
            os.fsync(file.fileno())
    part.replace(tmp_path / "whole")
    if fault == "file":
        RealDisk().remove(tmp_path / "other")
    assert len(list(recorder.faults())) == (2 if fault == "both" else 1)


def test_every_file_of_a_backup_is_flushed_before_the_settings_that_make_it_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy with ``server.toml`` counts as a backup; all other files must be on the disk by then."""
    recorder = Recorder(monkeypatch)
    _back_up(tmp_path)
    for path in (path for path in (tmp_path / "copy").rglob("*") if path.is_file()):
        found = path.stat()
        assert recorder.flushed.get((found.st_dev, found.st_ino)) == (found.st_size, found.st_mtime_ns), path
    assert recorder.renamed[-1][0] == tmp_path / "copy" / "server.toml"


def test_no_other_code_renames_a_file() -> None:
    """A new writer uses the durable functions, or gives the reason why not."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if any(_renames(node) for node in ast.walk(ast.parse(path.read_bytes())))
    }
    assert found == DURABLE | NOT_DURABLE.keys()


def _renames(node: ast.AST) -> bool:
    """Return whether ``node`` calls ``Path.rename`` or ``Path.replace``; that of a text takes two arguments."""
    named = (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("rename", "replace")
    )
    return named and len(node.args) == 1 and not node.keywords  # type: ignore[attr-defined]
