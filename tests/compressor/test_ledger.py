"""The file of the looks: nothing that is wrong with it is a fresh ledger, and processes take turns."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from compressor.child import environment
from compressor.cli import main
from compressor.data._table import make_table
from compressor.errors import LedgerError, PackageError
from compressor.gates.certificate import Certificate, write_certificate
from compressor.progress import Silent
from compressor.run import ledger
from compressor.run.ledger import LooksAt, counted, gate_labels, own_turn, read_ledgers
from wire.bundle import CERTIFICATE, build_bundle
from wire.canonical import sha256_hex
from wire.manifest import Manifest, Preprocessing, TensorSpec

DISK_BYTES = 1_000_000
GOOD = {"splits": [{"candidates": ["ab cd 2 ef"], "planned": 0, "seen": ["00", "01"]}]}
COUNT = """
import sys
from pathlib import Path
from compressor.run.ledger import LooksAt, counted
from wire.canonical import sha256_hex
print("ready", flush=True)
sys.stdin.readline()
print(*(counted(LooksAt(path=Path(sys.argv[1])), sha256_hex(one.encode()), ["row"]).number for one in sys.argv[2:]))
"""
HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "ab")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def certified_bundle(path: Path, certificate: bytes) -> None:
    """Write a bundle with this certificate."""
    manifest = Manifest(
        model="mine", version=2, target="host", preprocessing=Preprocessing(width=8, height=8),
        inputs=(TensorSpec(name="input", shape=(-1, 1, 8, 8)),),
        outputs=(TensorSpec(name="logits", shape=(-1, 2)),),
    )  # fmt: skip
    path.write_bytes(build_bundle(manifest, {"model.onnx": b"model", CERTIFICATE: certificate}))


def candidate(name: str) -> str:
    """Return the digest of a candidate."""
    return sha256_hex(name.encode())


def split(**changed: object) -> bytes:
    """Return a ledger file whose only split has other values."""
    return json.dumps({"splits": [GOOD["splits"][0] | changed]}).encode()


WRONG: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "cut off": (json.dumps(GOOD).encode()[:-9], "Expected UTF-8 JSON"),
    "binary": (b"\x93NUMPY\x00", "Expected UTF-8 JSON"),
    "a list": (b"[]", "Expected a JSON object, got list"),
    "foreign": (b"{}", "a document with other keys"),
    "of a certificate": (b'{"schema": 1, "verdict": "pass"}', "a document with other keys"),
    "of a newer version": (json.dumps(GOOD | {"schema": 2}).encode(), "update the compressor"),
    "of another type": (b'{"splits": 3}', "Expected Ledgers.splits as list"),
    "without its rows": (split(seen=[]), "at 0 rows"),
    "without its looks": (split(candidates=[]), "with 0 at 2 rows"),
    "with a plan below 0": (split(planned=-1), "planned for -1 looks"),
    "with a look of nothing": (split(candidates=["ab"]), "a look at 'ab'"),
    "with rows in disorder": (split(seen=["01", "00"]), "not in order"),
    "with a row in two splits": (json.dumps({"splits": GOOD["splits"] * 2}).encode(), "in two splits"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_no_ledger_is_an_error_and_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    """A fresh ledger would give back risk that is spent; the message says what is wrong and what to do."""
    data, said = WRONG[kind]
    (path := tmp_path / "looks.json").write_bytes(data)
    with pytest.raises(LedgerError, match="restore the file from a copy") as wrong:
        counted(LooksAt(path=path), candidate("a"), ["row"])
    assert (said in str(wrong.value), wrong.value.code, path.read_bytes()) == (True, "looks_invalid", data)


def sparse(path: Path) -> None:
    """Make a file that is one byte too large, and has no content on the disk."""
    path.touch()
    os.truncate(path, ledger.MAX_LEDGER_BYTES + 1)


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "something that is not a file"),
    "pipe": (os.mkfifo, "something that is not a file"),
    "too large": (sparse, f"{ledger.MAX_LEDGER_BYTES + 1} bytes, more than {ledger.MAX_LEDGER_BYTES}"),
    "link to nothing": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_what_can_not_be_read_is_an_error(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is opened that could block, or is larger than a ledger."""
    make, said = PLACES[kind]
    make(path := tmp_path / "looks.json")
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(LedgerError, match=said):
        read_ledgers(path)


def test_a_run_says_so_before_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with a code, exit code 4; no step has run."""
    recipe = Path(__file__).with_name("pipeline_recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(recipe.replace("[gates]", "[gates]\naccuracy_drop = {max = 0.9}"))
    (tmp_path / "looks.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tmp_path / "recipe.toml"), "--out", str(tmp_path)])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 4
    assert line.startswith(
        f"error [looks_invalid]: Expected the looks at gate splits in {tmp_path / 'looks.json'}, got"
    )
    assert not (tmp_path / "cache" / "v2").exists()


def test_a_ledger_of_many_rows_can_be_read_again(tmp_path: Path) -> None:
    """One of 20,000 rows has 380,000 bytes; what would be too large to read is not written."""
    at, rows = LooksAt(path=tmp_path / "looks.json"), [candidate(str(row)) for row in range(20_000)]
    assert [counted(at, candidate(name), rows).number for name in ("a", "b", "a")] == [1, 2, 1]
    assert at.path.stat().st_size > 256 * 1024


def test_a_ledger_that_could_not_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before stays, and the message says how to go on."""
    at = LooksAt(path=tmp_path / "looks.json")
    counted(at, candidate("a"), ["row"])
    before = at.path.read_bytes()
    monkeypatch.setattr(ledger, "MAX_LEDGER_BYTES", len(before) + 20)
    with pytest.raises(LedgerError, match="judge on fewer gate rows"):
        counted(at, candidate("b"), ["row", "another"])
    assert at.path.read_bytes() == before


def parts(folder: Path) -> list[str]:
    """Return the files in ``folder`` that are neither the ledger nor its lock."""
    return [path.name for path in folder.iterdir() if path.name not in {"looks.json", ".looks.lock", "filler"}]


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_loses_no_look(small_disk: Path) -> None:
    """The ledger is the one before, nothing is half-written, and with room the look is counted."""
    at, rows = LooksAt(path=small_disk / "looks.json"), [candidate(str(row)) for row in range(4000)]
    counted(at, candidate("a"), rows)
    before = at.path.read_bytes()
    fill(small_disk / "filler")
    with pytest.raises(LedgerError, match="No space left on device: free space"):
        counted(at, candidate("b"), rows)
    assert (at.path.read_bytes(), parts(small_disk)) == (before, [])
    (small_disk / "filler").unlink()
    assert counted(at, candidate("b"), rows).number == 2


@pytest.mark.parametrize("ended", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_a_write_that_ends_in_the_middle_loses_no_look(
    ended: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C or a broken disk before the file is flushed."""
    at = LooksAt(path=tmp_path / "looks.json")
    counted(at, candidate("a"), ["row"])
    before = at.path.read_bytes()

    def flush(_descriptor: int) -> None:
        raise ended

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flush)
        with pytest.raises((KeyboardInterrupt, LedgerError)):
            counted(at, candidate("b"), ["row"])
    assert (at.path.read_bytes(), parts(tmp_path)) == (before, [])
    assert counted(at, candidate("b"), ["row"]).number == 2


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process of Python that runs ``code``, and wait until it says that it is there."""
    pipe, command = subprocess.PIPE, [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline() in {"held\n", "ready\n"}
    return process


def released(process: subprocess.Popen[str]) -> None:
    """Let the process begin to count."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def waits(process: subprocess.Popen[str]) -> bool:
    """Return whether the process waits for a lock, as soon as it does or has ended."""
    while process.poll() is None:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        if any(line[1] == "->" and str(process.pid) in line for line in locks):
            return True
    return False


def test_processes_that_judge_at_the_same_time_have_different_looks(tmp_path: Path) -> None:
    """Two with ten candidates each, which begin together: every number from 1 to 20 once."""
    names = [[f"{side}{number}" for number in range(10)] for side in "ab"]
    both = [started(COUNT, str(tmp_path / "looks.json"), *some) for some in names]
    for process in both:
        released(process)
    said = [process.communicate()[0].split() for process in both]
    assert sorted(int(number) for some in said for number in some) == list(range(1, 21))


def test_a_process_that_is_killed_frees_the_ledger(tmp_path: Path) -> None:
    """Another one waits while it is held, and has its look afterwards."""
    holder = started(HOLD, str(tmp_path / ".looks.lock"))
    waiting = started(COUNT, str(tmp_path / "looks.json"), "a")
    released(waiting)
    assert waits(waiting)
    assert not (tmp_path / "looks.json").exists()
    holder.kill()
    assert waiting.communicate()[0] == "1\n"
    holder.communicate()


class Heard(Silent):
    """Keeps what is said, and ends the process that holds the folder."""

    def __init__(self, holder: subprocess.Popen[str]) -> None:
        """Remember the process."""
        self.said: list[str] = []
        self._holder = holder

    def say(self, text: str) -> None:
        """Kill the holder: from now on nobody waits."""
        self.said.append(text)
        self._holder.kill()


def test_runs_into_one_folder_take_turns(tmp_path: Path) -> None:
    """A second run says that it waits; it goes on when the first one is gone, by kill -9 too."""
    (lock := tmp_path / "cache" / ".run.lock").parent.mkdir()
    holder = started(HOLD, str(lock))
    heard = Heard(holder)
    with own_turn(tmp_path, heard), lock.open("ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert heard.said == [
        f"another run writes to {tmp_path}: waiting until it has ended (Ctrl-C stops, nothing is lost)"
    ]
    holder.communicate()
    with own_turn(tmp_path, Silent()):  # and it is free after it
        pass


def test_who_waited_for_a_run_that_ended_holds_the_file_that_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run removes its file at the end: the lock of a removed file holds nobody off. Nothing is left in the folder."""
    path, real, calls = tmp_path / "cache" / ".run.lock", fcntl.flock, []

    def lock(file: IO[bytes], how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            path.unlink()  # by the run that had it
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    with own_turn(tmp_path, Silent()):
        with path.open("ab") as other, pytest.raises(BlockingIOError):
            real(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert len(calls) == 2
    assert not list(path.parent.iterdir())


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on; the ledger does not, because two looks would have one number."""

    def lock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    heard = Heard(holder := started(HOLD, str(tmp_path / "other")))
    monkeypatch.setattr(fcntl, "flock", lock)
    with own_turn(tmp_path, heard):
        assert "has no locks: start no other run" in heard.said[0]
    with pytest.raises(LedgerError, match="No locks available"):
        counted(LooksAt(path=tmp_path / "looks.json"), candidate("a"), ["row"])
    holder.communicate()


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "out").write_text("")

    @contextmanager
    def turn():  # noqa: ANN202 - a context of the test
        with own_turn(tmp_path / "out", Silent()):
            yield

    with pytest.raises(PackageError, match="choose another --out"), turn():
        pass


def test_labels_are_part_of_a_look(tmp_path: Path) -> None:
    """The same bytes on the same rows with another label are another look; with the classes in another order, none."""
    generator = np.random.default_rng(3)
    images = list(generator.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))
    table = make_table(images, ["cat", "dog", "cat", "dog"], slices=["s"] * 4)
    other = make_table(images, ["cat", "dog", "cat", "cat"], slices=["s"] * 4)
    named = replace(table, class_names=table.class_names[::-1], labels=1 - table.labels)
    turned = table.take(np.array([3, 1, 0, 2]))
    at, rows = LooksAt(path=tmp_path / "looks.json"), table.hashes.tolist()
    looks = [counted(at, candidate("a"), rows, gate_labels(one)) for one in (table, other, named, turned, table)]
    assert [look.number for look in looks] == [1, 2, 1, 1, 1]
    assert [look.labels for look in looks[:2]] == [gate_labels(table), gate_labels(other)]
    assert len({look.split for look in looks}) == 1


def test_labels_of_a_regression_are_part_of_a_look() -> None:
    """A value that differs in its last bit is another one."""
    table = make_table([np.full((8, 8, 3), level, np.uint8) for level in (1, 99)], ["a", "b"], slices=["s"] * 2)
    values = np.array([[1.0], [2.0]], np.float32)
    ours, other = (replace(table, labels=one) for one in (values, np.nextafter(values, np.float32(9))))
    assert gate_labels(ours) != gate_labels(other)


def test_a_look_of_an_older_version_takes_the_labels_of_its_repetition(tmp_path: Path) -> None:
    """It is no look more; from then on other labels are one."""
    at = LooksAt(path=tmp_path / "looks.json")
    counted(at, candidate("a"), ["row"])
    assert json.loads(at.path.read_text())["splits"][0]["candidates"][0].count(" ") == 2
    assert [counted(at, candidate("a"), ["row"], labels).number for labels in ("aa", "bb", "aa")] == [1, 2, 1]


@pytest.mark.parametrize("kept", ["gate.json", "mine-2-host.tfb"])
def test_a_ledger_that_is_gone_gives_no_risk_back(kept: str, tmp_path: Path) -> None:
    """Certificates and bundles beside it say how far the looks at their rows had come, and what was planned."""
    rows = ["one", "two"]
    look = counted(LooksAt(path=tmp_path / "looks.json", planned=4, least=2), candidate("a"), rows)
    (tmp_path / "looks.json").unlink()
    certificate = write_certificate(Certificate(model="mine").at(look))
    write = certified_bundle if kept.endswith(".tfb") else Path.write_bytes
    write(tmp_path / kept, certificate)
    again = counted(LooksAt(path=tmp_path / "looks.json"), candidate("b"), rows)
    assert (look.number, again.number, again.planned) == (2, 3, 4)
    assert counted(LooksAt(path=tmp_path / "looks.json"), candidate("c"), rows).number == 4
    (tmp_path / "looks.json").unlink()
    assert counted(LooksAt(path=tmp_path / "looks.json"), candidate("a"), ["other"]).number == 1


def test_what_is_no_certificate_beside_a_ledger_that_is_gone_says_nothing(tmp_path: Path) -> None:
    """A damaged file does not end a run that never needed it."""
    (tmp_path / "gate.json").write_bytes(b"{")
    (tmp_path / "mine.tfb").write_bytes(b"PK")
    assert counted(LooksAt(path=tmp_path / "looks.json", planned=3), candidate("a"), ["row"]).planned == 3
