"""The durable disk operations of an update, behind a protocol so that tests can crash after each; and disk faults.

Decides when a disk counts as full, and what a person should do if it can't be written.
Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014, section 4.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from wire.durable import sync_folder, write_atomically

DISK_FULL, DISK_READ_ONLY, DISK_FAILED = "disk_full", "disk_read_only", "disk_failed"
FULL_BYTES = 64 * 1024
"""A disk with less free space counts as full: the spool's next write, its log and ``status.json`` need this much."""
ROOM_BYTES = 1024 * 1024
"""The space to free on a full disk: a first start, and the migration of an older spool, need less."""
_MB = 1_000_000
_CODES: Mapping[int, str] = {errno.ENOSPC: DISK_FULL, errno.EDQUOT: DISK_FULL, errno.EROFS: DISK_READ_ONLY}
_NO_ANSWER = frozenset({errno.EISDIR, errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL, errno.EMFILE, errno.ENFILE})


class Disk(Protocol):
    """Durable operations; each is atomic."""

    def write(self, path: Path, data: bytes) -> None:
        """Replace the file at ``path`` by ``data``, atomically and durably."""

    def move(self, source: Path, target: Path) -> None:
        """Flush ``source`` and rename it to ``target``, durably; same folder or file system."""

    def remove(self, path: Path) -> None:
        """Remove ``path`` if it exists, durably."""

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes can still be written below ``folder``."""


class RealDisk:
    """The machine's file system."""

    def write(self, path: Path, data: bytes) -> None:
        """Replace the file at ``path`` by ``data``, atomically and durably.

        Raises:
            OSError: If it fails; the old file is unchanged then.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, data, alone=True)

    def move(self, source: Path, target: Path) -> None:
        """Flush ``source`` and rename it to ``target``, durably.

        Raises:
            OSError: If it can't.
        """
        with source.open("rb") as file:
            os.fsync(file.fileno())
        source.replace(target)
        sync_folder(target.parent)

    def remove(self, path: Path) -> None:
        """Remove ``path`` if it exists, durably.

        Raises:
            OSError: If it can't.
        """
        path.unlink(missing_ok=True)
        if path.parent.exists():
            sync_folder(path.parent)

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes can still be written below ``folder``.

        Raises:
            OSError: If that can't be determined.
        """
        return free_bytes(folder)


def free_bytes(folder: Path) -> int:
    """Return how many bytes this process can still write below ``folder``.

    Raises:
        OSError: If that can't be determined.
    """
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def write_error(folder: Path) -> OSError | None:
    """Return the error of a write to ``folder``, None if it succeeds or the file system knows no nameless files.

    A file without a name is made, so nothing remains. It still costs writes to the disk: call it after one failed.
    """
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return None if error.errno in _NO_ANSWER else error
    return None


def trouble(folder: Path, error: OSError | None = None) -> str:
    """Return why ``folder`` can't be written: ``DISK_FULL``, ``DISK_READ_ONLY``, or "" if it can be or is unknown.

    ``error``: of a write there. Without one the kernel's figures decide; since Linux 6.15 they don't show that ext4 has
    found a fault and refuses all writes. Source: Linux, fs/ext4/ext4.h, EXT4_FLAGS_EMERGENCY_RO.
    """
    code = _CODES.get(error.errno or 0, "") if error is not None else ""
    if code:
        return code
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    if found.f_flag & os.ST_RDONLY:
        return DISK_READ_ONLY
    root = os.geteuid() == 0  # root may use the reserved blocks
    free, files = (found.f_bfree, found.f_ffree) if root else (found.f_bavail, found.f_favail)
    full = found.f_blocks and free * found.f_frsize < FULL_BYTES
    return DISK_FULL if full or (found.f_files and not files) else ""


def disk_code(error: OSError) -> str:
    """Return the code of a refusal because of ``error``: the disk is full, or it fails."""
    return "no_space" if _CODES.get(error.errno or 0) == DISK_FULL else "disk_failed"


def place_advice(error: OSError) -> str:
    """Return what a person must do so that a path of ``agent.toml`` can be made or read, which failed by ``error``."""
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return (
            "a relative path begins at the folder of agent.toml, and the agent's systemd unit may write its state "
            "directory alone: name a path below that, or an absolute one and allow it with ReadWritePaths "
            "(systemctl edit tinyfleet-agent)"
        )
    return "correct path, or the permissions of its folder"


def advice(folder: Path, error: OSError | None = None) -> str:
    """Return what a person must do so that ``folder`` can be written; by ``error``, or by checking the disk."""
    code = trouble(folder, error)
    if code == DISK_FULL:
        free = free_bytes(folder) if folder.exists() else 0
        text = f"the disk of {folder} is full ({free / _MB:.2f} MB free): free {ROOM_BYTES / _MB:.0f} MB there"
        return f"{text} (or files, or a quota)"
    if code == DISK_READ_ONLY:
        text = f"the file system of {folder} is read-only: mount it for writing (mount -o remount,rw)"
        return f"{text}; if nobody mounted it so, the kernel found a fault (dmesg): check the disk"
    if error is not None and error.errno in {errno.EACCES, errno.EPERM}:
        return f"give the files in {folder} to the user that runs this (uid {os.geteuid()})"
    if error is not None and error.errno == errno.EIO:
        return "the disk fails (dmesg): replace it; what is on it may still be copied"
    return "free the disk or set their rights"
