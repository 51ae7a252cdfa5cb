"""``fleet-server users``, ``tokens`` and the log of acts, on a state directory without a server."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from server.app.state_directory import StateDirectory, init_state
from server.cli import main
from server.store.database import open_database

PASSWORD = "a long enough password"


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """A state directory whose passwords are cheap."""
    made = init_state(tmp_path / "state")
    cheap = "[access]\npassword_memory_kib = 64\npassword_passes = 1\n"
    made.config.write_text(made.config.read_text(encoding="utf-8") + cheap, encoding="utf-8")
    open_database(made.database_url).close()
    return made


def call(*words: str, given: str = "") -> Result:
    """Run a command with ``given`` on standard input."""
    return CliRunner().invoke(main, [str(word) for word in words], input=given)


def test_users_from_nothing(state: StateDirectory) -> None:
    """Added by a password on standard input, listed, changed, disabled, enabled."""
    where = str(state.path)
    assert call("users", "add", where, "ada", "--role", "admin", given=f"{PASSWORD}\n").output == "ada admin\n"
    assert call("user", "role", where, "ada", "--role", "viewer").output == "ada viewer\n"
    assert call("users", "password", where, "ada", given="another long password\n").exit_code == 0
    assert call("users", "disable", where, "ada").output == "ada disabled\n"
    (row,) = json.loads(call("users", where, "--json").output)
    assert (row["name"], row["role"], row["disabled_ms"] > 0) == ("ada", "viewer", True)
    assert call("users", "enable", where, "ada").exit_code == 0
    assert call("users", "list", where).output.splitlines()[0].split("\t")[:2] == ["name", "role"]


@pytest.mark.parametrize(("words", "given", "said"), [
    (("add", "ada", "--role", "admin"), "", "Expected a password in the first line of standard input, got none"),
    (("add", "ada", "--role", "admin"), "short\n", "error [password_refused]: Expected a password of 12"),
    (("add", "operator", "--role", "admin"), f"{PASSWORD}\n", "error [user_refused]: Expected a name"),
    (("disable", "nobody"), "", "error [unknown_user]: Expected the name of a user, got 'nobody'"),
    (("password", "nobody"), f"{PASSWORD}\n", "error [unknown_user]"),
])  # fmt: skip
def test_a_user_that_can_not_be_is_refused(
    state: StateDirectory, words: tuple[str, ...], given: str, said: str
) -> None:
    """With the code, and without a record."""
    done = call("users", words[0], str(state.path), *words[1:], given=given)
    assert (done.exit_code, said in done.output) == (1, True)
    assert call("audit", "head", str(state.path)).output == "0:\n"


def test_a_password_is_no_argument(state: StateDirectory) -> None:
    """Other users of the machine see arguments."""
    assert call("users", "add", str(state.path), "ada", PASSWORD, "--role", "admin").exit_code == 2


def test_a_token_is_printed_once_alone_on_standard_output(state: StateDirectory) -> None:
    """Its id, which revokes it, stands on standard error."""
    where = str(state.path)
    done = call("tokens", "issue", where, "grafana", "--role", "viewer", "--read-only", "--days", "1")
    secret, identity = done.stdout.strip(), done.stderr.split()[1]
    (row,) = json.loads(call("tokens", where, "--json").output)
    assert (row["id"], row["read_only"], row["kind"]) == (identity, True, "service")
    assert secret not in call("tokens", where).output
    assert call("tokens", "revoke", where, identity).output == f"{identity} grafana revoked\n"
    assert "error [unknown_token]" in call("tokens", "revoke", where, "abc").output


def test_the_log_of_acts_is_verified_and_exported(state: StateDirectory) -> None:
    """Whole, then with a record that was changed behind the server's back."""
    where = str(state.path)
    call("claim", where, "--site", "north", "--device", "cam-1")
    call("users", "add", where, "ada", "--role", "admin", "--by", "bob", given=f"{PASSWORD}\n")
    anchor = call("audit", "head", where).output.strip()
    done = call("audit", "verify", where, "--anchor", anchor)
    assert (done.exit_code, done.output) == (0, f"2 records, none was changed\nhead {anchor}\n")
    lines = [json.loads(line) for line in call("audit", "export", where).output.splitlines()]
    assert [(one["act"], one["kind"], one["said"]) for one in lines] == [
        ("device.claim", "command", ""), ("user.add", "command", "bob")
    ]  # fmt: skip
    with closing(sqlite3.connect(state.path / "fleet.db")) as connection:
        connection.execute("UPDATE audit_log SET subject = 'cam-2' WHERE seq = 1")
        connection.commit()
    done = call("audit", "verify", where)
    assert done.exit_code == 1
    assert "error [audit_log_broken]" in done.output
    assert "breaks at record 1: its content was changed" in done.output


def test_an_anchor_whose_file_is_gone_does_not_pass(state: StateDirectory) -> None:
    """``--anchor "$(cat FILE)"`` gives an empty one: in cron that must not look like a check."""
    done = CliRunner().invoke(main, ["audit", "verify", str(state.path), "--anchor", ""])
    assert (done.exit_code, "error [anchor_invalid]" in done.stderr) == (1, True)
