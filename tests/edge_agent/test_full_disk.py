"""Commands on a disk that can't be written: the cause, the next step, and nothing half-written."""

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.cli import main
from edge_agent.control.status_file import StatusFile, read_status
from edge_agent.device.disk import DISK_FULL, DISK_READ_ONLY, FULL_BYTES, RealDisk, advice, trouble, write_error
from edge_agent.device.identity import Identity
from edge_agent.device.lock import AgentLock
from edge_agent.device.record_file import write_record
from edge_agent.telemetry.spool import VERSION, Spool
from wire.codec import to_document

DISK_BYTES = 2_000_000
OLD_SPOOL = """
CREATE TABLE rows (
  id INTEGER PRIMARY KEY AUTOINCREMENT, priority INTEGER NOT NULL, stream TEXT NOT NULL, boot TEXT NOT NULL,
  seq INTEGER NOT NULL, merge_key TEXT NOT NULL, handed INTEGER NOT NULL DEFAULT 0, payload BLOB NOT NULL
);
INSERT INTO rows VALUES (1, 0, 'event', 'aa', 4, '', 0, x'00');
"""


def fill(folder: Path, *, leave_bytes: int = 0) -> Path:
    """Write until so much is free; return the file."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    os.truncate(filler, filler.stat().st_size - leave_bytes)
    return filler


@pytest.fixture
def enrolled(small_disk: Path) -> Path:
    """The state directory of an enrolled device, never started, on a small disk."""
    state = small_disk / "agent"
    state.mkdir(mode=0o700)
    identity = Identity(
        site="site", device="dev", password="secret", mqtt_host="127.0.0.1", mqtt_port=9, http_url="http://127.0.0.1:9"
    )
    write_record(RealDisk(), state / "identity.json", to_document(identity))
    return state


def run(state: Path) -> tuple[int, str]:
    """Return exit code and output of a start that fails; in a process of its own, which becomes the control process."""
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "run", "--state", str(state)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize("spool", ["", OLD_SPOOL])
def test_a_start_on_a_full_disk_says_how_much_to_free_and_leaves_what_was(enrolled: Path, spool: str) -> None:
    """A first start, and one that converts an older spool: one sentence, exit code 6, and all files as before."""
    if spool:
        with contextlib.closing(sqlite3.connect(enrolled / "spool.db")) as database:
            database.executescript(spool)
    filler = fill(enrolled.parent)
    code, words = run(enrolled)
    assert (code, words.count("\n")) == (6, 1), words
    assert f"the disk of {enrolled} is full (0.00 MB free): free 1 MB there" in words
    filler.unlink()
    made = Spool(path=enrolled / "spool.db", limit_bytes=1_000_000)
    assert made._database.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert (made.count(), made.taken_aside()) == (1 if spool else 0, [])
    made.close()


def test_a_start_on_a_read_only_file_system_says_how_to_write_it(enrolled: Path) -> None:
    """No word of a full disk."""
    subprocess.run(["mount", "-o", "remount,ro", str(enrolled.parent)], check=True)
    code, words = run(enrolled)
    subprocess.run(["mount", "-o", "remount,rw", str(enrolled.parent)], check=True)
    assert (code, words.count("\n"), "full" in words) == (6, 1, False), words
    assert f"the file system of {enrolled} is read-only: mount it for writing" in words


def test_the_status_on_a_full_disk_is_degraded(enrolled: Path) -> None:
    """Also if the agent has no room to write its status: the command checks the disk."""
    lock = AgentLock(enrolled)
    StatusFile(enrolled).write({"current": {}, "serving": True, "state": "ready"}, {}, 0.0)
    filler = fill(enrolled.parent)
    full = CliRunner().invoke(main, ["status", "--state", str(enrolled)])
    filler.unlink()
    well = CliRunner().invoke(main, ["status", "--state", str(enrolled)])
    lock.release()
    assert (full.exit_code, well.exit_code) == (8, 0)
    assert "reason       disk_full" in full.output


@pytest.mark.parametrize(("age_s", "health", "reason"), [(80, "serving", ""), (100, "degraded", "disk_read_only")])
def test_a_late_status_on_a_read_only_file_system_is_degraded(
    enrolled: Path, age_s: int, health: str, reason: str
) -> None:
    """A running agent would have written it; before that the read-only mount may be the reader's own."""
    AgentLock(enrolled).release()
    StatusFile(enrolled).write({"current": {}, "serving": True, "state": "ready", "reason": ""}, {}, 0.0)
    document = json.loads((enrolled / "status.json").read_bytes())
    document["written_monotonic_s"] -= age_s
    (enrolled / "status.json").write_text(json.dumps(document))
    lock = os.open(enrolled / "agent.lock", os.O_RDONLY)  # one that is open for writing keeps a mount from that
    fcntl.flock(lock, fcntl.LOCK_EX)
    subprocess.run(["mount", "-o", "remount,ro", str(enrolled.parent)], check=True)
    status = read_status(enrolled)
    subprocess.run(["mount", "-o", "remount,rw", str(enrolled.parent)], check=True)
    os.close(lock)
    assert (status.health, status.document["reason"]) == (health, reason)


def test_a_write_shows_what_the_figures_may_not(small_disk: Path) -> None:
    """Nothing remains of it; a folder that is missing has no error."""
    writable, before = write_error(small_disk), list(small_disk.iterdir())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    error = write_error(small_disk)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert (writable, error.errno, before, write_error(small_disk / "none")) == (None, errno.EROFS, [], None)
    assert (trouble(small_disk), trouble(small_disk, error)) == ("", DISK_READ_ONLY)


def test_enrolling_on_a_read_only_file_system_spends_no_claim(small_disk: Path) -> None:
    """Before the server is asked, and with the right next step."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    arguments = ["enrol", "--server", "http://127.0.0.1:9", "--claim", "x", "--state", str(small_disk / "agent")]
    result = CliRunner().invoke(main, arguments)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert result.exit_code == 5
    assert f"the file system of {small_disk} is read-only" in result.output
    assert "the claim was not used" in result.output


@pytest.mark.parametrize(("leave_bytes", "code"), [(FULL_BYTES - 4096, DISK_FULL), (FULL_BYTES + 4096, "")])
def test_a_disk_with_less_than_a_write_is_full(small_disk: Path, leave_bytes: int, code: str) -> None:
    """Both sides of the bound."""
    fill(small_disk, leave_bytes=leave_bytes)
    assert trouble(small_disk) == code


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "is full"),
        (errno.EROFS, "is read-only"),
        (errno.EACCES, "to the user that runs this"),
        (errno.EIO, "the disk fails"),
        (errno.EINVAL, "free the disk or set their rights"),
    ],
)
def test_each_error_has_its_own_next_step(tmp_path: Path, number: int, words: str) -> None:
    """The kernel's error decides."""
    assert words in advice(tmp_path, OSError(number, "x"))


def test_a_folder_that_is_missing_is_in_no_trouble(tmp_path: Path) -> None:
    """Its state is unknown."""
    assert (trouble(tmp_path / "none"), DISK_READ_ONLY) == ("", "disk_read_only")
