"""``fleet-server migrate``: lists its steps, asks, makes a backup, and is offered at the start of a server."""

from __future__ import annotations

import os
import pty
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.app.state_directory import RunAddress, StateDirectory, lock_state
from server.broker.process import free_port
from server.cli import main
from server.store.backup import back_up_sqlite
from server.store.database import connect
from server.store.revisions import standing_of

from .conftest import load_dump, rows_of


def _run(*arguments: object, answer: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=answer)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def old_state(state: StateDirectory) -> StateDirectory:
    """A state directory with the database of 42f48ee, and the address of its last run."""
    load_dump(state.path / "fleet.db")
    http, broker = free_port("127.0.0.1"), free_port("127.0.0.1")
    state.write_address(RunAddress(http_url=f"http://127.0.0.1:{http}", mqtt_host="127.0.0.1", mqtt_port=broker, pid=1))
    return state


def _is_current(state: StateDirectory) -> bool:
    engine = connect(state.database_url)
    try:
        return standing_of(engine).is_current
    finally:
        engine.dispose()


def test_a_yes_migrates_and_leaves_a_private_copy_of_the_database(old_state: StateDirectory, tmp_path: Path) -> None:
    """The copy is the complete old database, in case the older version must be restored."""
    code, out, _ = _run("migrate", old_state.path, answer="y\n")
    assert (code, _is_current(old_state)) == (0, True)
    backup = next((old_state.path / "backups").iterdir())
    assert str(backup) in out
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert rows_of(connect(f"sqlite:///{backup}")) == rows_of(connect(f"sqlite:///{load_dump(tmp_path / 'o.db')}"))


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_without_a_yes_nothing_is_changed(old_state: StateDirectory, answer: str) -> None:
    """The answer no, and no terminal to ask on."""
    code, _, error = _run("migrate", old_state.path, answer=answer)
    assert (code, _is_current(old_state), (old_state.path / "backups").exists()) == (1, False, False)
    assert "error [database_outdated]: Expected yes, got no: nothing was changed; --yes skips the question" in error


def test_check_tells_a_script_whether_a_migration_is_due(old_state: StateDirectory) -> None:
    """It changes nothing; afterwards there is nothing to do."""
    assert (_run("migrate", old_state.path, "--check")[0], _is_current(old_state)) == (1, False)
    assert _run("migrate", old_state.path, "--yes")[0] == 0
    assert _run("migrate", old_state.path, "--check")[0] == 0
    assert "nothing to do" in _run("migrate", old_state.path)[1]


def test_a_running_server_is_not_migrated_under_its_feet(old_state: StateDirectory) -> None:
    """Its lock is the state directory's."""
    lock = lock_state(old_state)
    code, _, error = _run("migrate", old_state.path, "--yes")
    lock.release()
    assert (code, error.split(":")[0], _is_current(old_state)) == (1, "error [already_running]", False)


def test_a_second_migration_is_told_who_migrates_and_to_wait(old_state: StateDirectory) -> None:
    """It knows the process id of the other; that is not a running server."""
    lock = lock_state(old_state, "fleet-server migrate")
    code, _, error = _run("migrate", old_state.path, "--yes")
    lock.release()
    assert f"got fleet-server migrate, process {os.getpid()}: wait until it ends" in error
    assert (code, _run("migrate", old_state.path, "--yes")[0], _is_current(old_state)) == (1, 0, True)


def test_a_backup_that_can_not_be_made_stops_the_migration(old_state: StateDirectory) -> None:
    """No copy, no change."""
    (old_state.path / "backups").write_text("in the way")
    assert (_run("migrate", old_state.path, "--yes")[0], _is_current(old_state)) == (1, False)


@pytest.mark.parametrize("command", [["devices"], ["claim", "--site", "a", "--device", "b"], ["rollouts"], ["events"]])
def test_every_command_refuses_an_older_database_in_one_sentence(old_state: StateDirectory, command: list[str]) -> None:
    """With the command that helps, and its directory."""
    code, _, error = _run(command[0], old_state.path, *command[1:])
    assert (code, _is_current(old_state), error.count("\n")) == (1, False, 1)
    assert f"run fleet-server migrate {old_state.path}" in error


def _run_server(state: StateDirectory, *options: str, answer: bytes | None = None) -> tuple[str, str]:
    """Start a server, with a terminal if there is an answer, until it serves or ends; return both outputs.

    The release of the dump is left out: it has no signed metadata here, and no server starts that lost it.
    """
    with closing(sqlite3.connect(state.path / "fleet.db")) as database, database:
        database.execute("DELETE FROM releases")
    main_end, other_end = pty.openpty()
    stdin = subprocess.DEVNULL if answer is None else other_end
    command = [sys.executable, "-m", "server.cli", "run", str(state.path), *options]
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if answer is not None:
            os.write(main_end, answer)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("mqtt "):
                process.terminate()
        error = process.stderr.read() if process.stderr else ""
    os.close(main_end)
    os.close(other_end)
    return "".join(lines), error


@pytest.mark.broker
def test_run_offers_the_migration_on_a_terminal_and_does_it_silently_nowhere(old_state: StateDirectory) -> None:
    """A unit of systemd has no terminal: it is refused, and nothing is changed."""
    out, error = _run_server(old_state)
    assert (_is_current(old_state), out) == (False, "")
    assert f"run fleet-server migrate {old_state.path}" in error
    out, _ = _run_server(old_state, answer=b"y\n")
    assert (_is_current(old_state), "http " in out) == (True, True)


@pytest.mark.broker
def test_run_migrates_unasked_when_told_to(old_state: StateDirectory) -> None:
    """For operators who have decided already."""
    out, _ = _run_server(old_state, "--migrate")
    assert (_is_current(old_state), "http " in out) == (True, True)


def test_a_backup_has_what_lies_beside_the_database_too(tmp_path: Path) -> None:
    """Under WAL the last commits are in another file, and a writer may be there."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as writer:
        writer.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
        assert (tmp_path / "a.db-wal").stat().st_size > 0
        back_up_sqlite(tmp_path / "a.db", tmp_path / "new" / "b.db")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.db"]
    with closing(sqlite3.connect(tmp_path / "new" / "b.db")) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(1,)]
    with pytest.raises(FileExistsError):
        back_up_sqlite(tmp_path / "a.db", tmp_path / "new" / "b.db")


def test_a_damaged_database_leaves_no_half_backup(tmp_path: Path) -> None:
    """A file that looks like a backup is one."""
    (tmp_path / "a.db").write_bytes(b"not a database" * 400)
    with pytest.raises(sqlite3.DatabaseError):
        back_up_sqlite(tmp_path / "a.db", tmp_path / "b.db")
    assert not (tmp_path / "b.db").exists()


def test_a_backup_that_is_killed_leaves_nothing_that_looks_like_one(tmp_path: Path) -> None:
    """The copy gets its name when it is complete; the next one deletes the rest of a killed one."""
    source, target = tmp_path / "a.db", tmp_path / "new" / "b.db"
    with closing(sqlite3.connect(source, isolation_level=None)) as writer:
        writer.execute("CREATE TABLE t (x)")
        writer.execute("BEGIN EXCLUSIVE")
        code = (
            "import pathlib, sys; from server.store.backup import *; back_up_sqlite(*map(pathlib.Path, sys.argv[1:]))"
        )
        copying = subprocess.Popen([sys.executable, "-c", code, str(source), str(target)])
        deadline_s = time.monotonic() + 30
        while not list(tmp_path.glob("new/*")) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        copying.kill()
        copying.wait()
    assert list(tmp_path.glob("new/*.db")) == []
    back_up_sqlite(source, target)
    assert list(tmp_path.glob("new/*")) == [target]
