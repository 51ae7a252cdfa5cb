"""The file of the looks at gate splits, and whose turn it is in a folder of results.

Decides what counts as such a file: one that this version would write, byte for byte the same content. Anything else is
an error and never a fresh ledger, because a fresh one would give back risk that is spent. Where the file is missing,
the certificates beside it still say how far the looks at their rows had come. Two processes that judge at
the same time take turns: both would read the same ledger, and have the same number. So do whole runs into one folder,
which would mix their files. The locks are the kernel's: they end with their process, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from compressor.data._table import Table
from compressor.errors import LedgerError, PackageError, SplitError
from compressor.gates.certificate import read_certificate
from compressor.gates.looks import UNCOUNTED, Ledgers, Look, labels_of, split_of, unsound, used_up
from compressor.progress import Progress
from compressor.release.regate import certificate_in, open_bundle
from wire import durable
from wire.canonical import canonical_bytes
from wire.codec import from_document, parse_json, to_document
from wire.errors import MessageError, WireError

MAX_LEDGER_BYTES = 16 * 1024 * 1024
"""The ledger has 19 bytes for each gate row that was looked at: this is enough for 880,000."""
_LOCK, _RUN_LOCK = ".looks.lock", "cache/.run.lock"
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})
_LOST = (
    "restore the file from a copy; without it nobody knows how often the split was used, and a fresh one would give "
    "back risk that is spent. If there is no copy, move it away and judge on gate rows that nobody has looked at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LooksAt:
    """The file of the ledgers of looks at gate splits, and how many are ``planned`` (0: no plan).

    ``again``: to judge as at this look once more, and leave the file alone; number 0: this is a look. ``least``: the
    number that this look has at least: a server counts the looks of all workers.
    """

    path: Path
    planned: int = 0
    again: Look = UNCOUNTED
    least: int = 1


def gate_labels(rows: Table) -> str:
    """Return the digest of the labels of ``rows``: another label of any of them gives another one."""
    return labels_of(rows.hashes.tolist(), rows.label_texts())


def counted(at: LooksAt, candidate: str, rows: Sequence[str], labels: str = "") -> Look:
    """Return the look of ``candidate`` at the ``rows``, by their hashes, and write it into the ledger.

    ``labels``: the digest of the rows' labels; "": not known.

    Raises:
        LedgerError: If the ledger can't be read or written; it is then unchanged.
        SplitError: If the split is used up.
    """
    try:
        at.path.parent.mkdir(parents=True, exist_ok=True)
        with (at.path.parent / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            before = read_ledgers(at.path)
            found = UNCOUNTED if before.splits else furthest(at.path.parent, split_of(rows))
            planned, least = found.planned if found.number else at.planned, max(at.least, found.number + 1)
            after, look = before.after(candidate, rows, planned, least=least, labels=labels)
            if reason := used_up(look):
                raise SplitError(reason)
            if after != before:
                _write(at.path, after)
    except OSError as error:
        message = f"Expected to count a look in {at.path}, got: {error.strerror or error}"
        raise LedgerError(
            f"{message}: free space or make the folder writable; nothing was judged or counted"
        ) from error
    return look


def furthest(folder: Path, split: str) -> Look:
    """Return the last look at the rows of ``split`` that a certificate or a bundle in ``folder`` has.

    Number 0 if there is none. It is asked where the file of the looks is missing: a fresh one beside certificates of
    its rows would give back risk that is spent. What can't be read is no certificate.
    """
    looks = [UNCOUNTED]
    for path in (folder / "gate.json", *sorted(folder.glob("*.tfb"))):
        with suppress(OSError, PackageError, WireError):
            bundle = path.suffix == ".tfb"
            read = certificate_in(open_bundle(path), path) if bundle else read_certificate(path.read_bytes())
            looks.append(read.seen)
    return max((look for look in looks if look.split == split), key=lambda look: look.number, default=UNCOUNTED)


def read_ledgers(path: Path) -> Ledgers:
    """Return the ledgers in the file ``path``; none if there is no file.

    Raises:
        LedgerError: If it can't be read, or is not what ``counted`` writes: cut off, foreign, too large, or no file.
    """
    try:
        if not os.path.lexists(path):
            return Ledgers()
        found = path.stat()  # of a link to nothing this is an error: it is not a missing file
        if not stat.S_ISREG(found.st_mode):
            raise _unreadable(path, "something that is not a file")
        if found.st_size > MAX_LEDGER_BYTES:
            raise _unreadable(path, f"{found.st_size} bytes, more than {MAX_LEDGER_BYTES}")
        with path.open("rb") as file:
            data = file.read(MAX_LEDGER_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not data:
        raise _unreadable(path, "an empty file")
    try:
        document = parse_json(data, limit_bytes=MAX_LEDGER_BYTES)
        ledgers = from_document(Ledgers, document)
    except MessageError as error:
        raise _unreadable(path, str(error)) from error
    if to_document(ledgers) != document:  # keys that are missing, or of another version, would be lost
        message = "a document with other keys: if a newer version wrote it, update the compressor, else it is foreign"
        raise _unreadable(path, message)
    if reason := unsound(ledgers):
        raise _unreadable(path, reason)
    return ledgers


def _unreadable(path: Path, got: str) -> LedgerError:
    return LedgerError(f"Expected the looks at gate splits in {path}, got {got}: {_LOST}")


def _write(path: Path, ledgers: Ledgers) -> None:
    data = canonical_bytes(to_document(ledgers))
    if len(data) > MAX_LEDGER_BYTES:  # it could never be read again
        message = f"Expected a ledger of at most {MAX_LEDGER_BYTES} bytes in {path}, got {len(data)}"
        raise LedgerError(f"{message}: judge on fewer gate rows ([data] shares), or in a folder for other data")
    durable.write_atomically(path, data, mode=0o644, alone=True)  # under the lock: a power cut leaves one part at most


@contextmanager
def own_turn(out: Path, progress: Progress) -> Iterator[None]:
    """Hold the folder ``out`` for a run; wait while another one holds it, which ``progress`` then says.

    Raises:
        PackageError: If the folder can't be written.
    """
    path = out / _RUN_LOCK
    lock = _held(path, out, progress)
    try:
        yield
    finally:
        with suppress(OSError):  # a folder that can't be written any more keeps an empty file
            path.unlink()  # before it is free: who waits for this file sees that it is gone, and takes a new one
        lock.close()


def _held(path: Path, out: Path, progress: Progress) -> BinaryIO:
    """Return the open file ``path`` with its lock held; it is the one that stands there, and no removed one."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("ab")
        except OSError as error:
            message = f"Expected to write to {out}, got: {error.strerror}: free space or choose another --out"
            raise PackageError(message) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"another run writes to {out}: waiting until it has ended (Ctrl-C stops, nothing is lost)")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            progress.say(f"the file system of {out} has no locks: start no other run into it before this one has ended")
            return lock
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()
