"""Fixtures for several packages: a disk that is small enough to fill, and ways to damage a file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# CI runs the same examples each time, however busy the host is; the nightly lane draws others.
settings.register_profile("seeded", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile("seeded")


@pytest.fixture(autouse=True)
def _stays_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that becomes another program must be tested in a process of its own: here it would end the worker."""

    def refuse(path: str, *_rest: object) -> None:
        pytest.fail(f"Expected this command to run in a process of its own, got os.exec of {path} in the tests' own")

    for name in ("execv", "execve"):  # the others of os.exec* call these two
        monkeypatch.setattr(os, name, refuse)


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of the test module's ``DISK_BYTES``; skips where we may not mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = f"size={request.module.DISK_BYTES}"
    command = ["mount", "-t", "tmpfs", "-o", size, "tinyfleet-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def flip(path: Path) -> None:
    """Turn one bit in the middle."""
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 4
        path.write_bytes(data)


def empty(path: Path) -> None:
    """Leave a file of no length, as a power cut does."""
    path.write_bytes(b"")


def lose(path: Path) -> None:
    """Remove it."""
    path.unlink()


def folder(path: Path) -> None:
    """Put a folder where the file was."""
    path.unlink()
    path.mkdir()


def unreadable(path: Path) -> None:
    """Make it unreadable, for root as well: a link to itself."""
    path.unlink()
    path.symlink_to(path.name)


Damage = Callable[[Path], None]
DAMAGES: dict[str, Damage] = {one.__name__: one for one in (flip, empty, lose, folder, unreadable)}


@pytest.fixture
def damages() -> dict[str, Damage]:
    """Every way in which a file is damaged, by name."""
    return DAMAGES


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Damage:
    """Each way in turn; fewer by indirect parameters."""
    return DAMAGES[request.param]
