"""The command line: exit codes, coded errors, nothing half-written."""

import http.server
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from edge_agent.cli import main
from edge_agent.device.identity import read_identity
from edge_agent.device.lock import AgentLock
from edge_agent.device.selftest import checks
from edge_agent.errors import IdentityError
from wire.codec import Json

ANSWER = {
    "site": "north", "device": "cam-1", "password": "very-secret", "mqtt_host": "127.0.0.1", "mqtt_port": 1,
    "root": '{"signed": {}}',
}  # fmt: skip


class Enroller(http.server.BaseHTTPRequestHandler):
    """Accepts the claim ``good``."""

    answer: dict[str, Json] = ANSWER
    health: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        """Answer with the next entry of ``health``; a server before certificates has no GET of ``/api/enrol``."""
        if self.path == "/api/enrol":
            self.send_error(405)
        elif self.health:
            self.send_response(self.health.pop(0))
            self.end_headers()
            self.wfile.write(b'{"ok": false, "code": "unwell", "text": "room on the disk: 0 MB free"}')

    def do_POST(self) -> None:
        """Answer."""
        claim = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["claim"]
        good = claim == "good"
        body = json.dumps(self.answer if good else {"code": "claim_refused", "text": "used"}).encode()
        self.send_response(200 if good else 403)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    """A server that enrols."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Enroller)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def call(*arguments: object) -> tuple[int, str]:
    """Run the command; return exit code and output. ``run`` becomes another process, so it gets one of its own."""
    if arguments[0] == "run":
        command = [sys.executable, "-c", "from edge_agent.cli import main; main()", *map(str, arguments)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_enrols_and_keeps_the_secret_to_itself(url: str, tmp_path: Path) -> None:
    """Identity and root are written, readable by the owner alone; the password is not printed."""
    code, output = call("enrol", "--server", url, "--claim", "good", "--state", tmp_path / "dev")
    assert (code, "very-secret" in output) == (0, False)
    identity = tmp_path / "dev" / "identity.json"
    assert identity.stat().st_mode & 0o777 == 0o600
    assert json.loads(identity.read_text())["http_url"] == url
    assert (tmp_path / "dev" / "root.json").read_text() == ANSWER["root"]


@pytest.mark.parametrize("knows", [True, False])
def test_a_server_with_an_authority_of_its_own_is_enrolled_at_with_ca(tmp_path: Path, *, knows: bool) -> None:
    """Without --ca the error names it, and the claim was not sent."""
    key, certificate = tmp_path / "key", tmp_path / "ca.pem"
    making = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -subj /CN=ca -days 9"
    subprocess.run([*making.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context, server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), http.server.HTTPServer(("127.0.0.1", 0), Enroller)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = ["--claim", "good", "--state", tmp_path / "dev", *(["--ca", certificate] if knows else [])]
    code, output = call("enrol", "--server", f"https://127.0.0.1:{server.server_address[1]}", *given)
    server.shutdown()
    server.server_close()
    assert (code == 0, "give its certificate by --ca FILE" in output) == (knows, not knows)


def test_the_claim_comes_from_a_file_or_standard_input(url: str, tmp_path: Path) -> None:
    """A command line can be read by every user of the machine."""
    (tmp_path / "claim").write_text("good\n")
    assert call("enrol", "--server", url, "--claim-file", tmp_path / "claim", "--state", tmp_path / "a")[0] == 0
    arguments = ["enrol", "--server", url, "--claim-file", "-", "--state", str(tmp_path / "b")]
    assert CliRunner().invoke(main, arguments, input="good\n").exit_code == 0
    assert (tmp_path / "b" / "identity.json").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "got 0"),
        (b"one two", "no white space in it, got 2 words"),
        (b"x" * 1025, "1024"),
        (b"\xff", "ascii"),
        (None, "No such"),
    ],
)
def test_a_claim_file_without_a_claim_is_refused(tmp_path: Path, text: bytes | None, says: str) -> None:
    """Before any request to the server; the contents of the file are not repeated."""
    if text is not None:
        (tmp_path / "claim").write_bytes(text)
    code, output = call("enrol", "--server", "http://x", "--claim-file", tmp_path / "claim", "--state", tmp_path / "a")
    assert (code, says in output, "fleet-server" in output or "Expected one claim" in output) == (5, True, True)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("server", ["http://[::1", "nonsense", "http://", "http://h:99999", "http://a b"])
def test_an_address_that_is_none_is_shown_as_it_was_typed(tmp_path: Path, server: str) -> None:
    """With an example, and without the path that the agent adds; nothing is made."""
    code, output = call("enrol", "--server", server, "--claim", "good", "--state", tmp_path / "dev")
    assert (code, f"got {server!r}" in output, "https://fleet.example" in output) == (5, True, True)
    assert not (tmp_path / "dev").exists()


def test_a_tilde_in_the_claim_file_is_the_home_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in --state and --ca."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "claim").write_text("good\n")
    assert call("enrol", "--server", url, "--claim-file=~/claim", "--state", tmp_path / "a")[0] == 0


@pytest.mark.parametrize("given", [[], ["--claim", "a", "--claim-file", "b"]])
def test_enrolling_takes_one_claim(tmp_path: Path, given: list[str]) -> None:
    """Neither none nor two: wrong usage."""
    code, output = call("enrol", "--server", "http://x", *given, "--state", tmp_path / "a")
    assert (code, "--claim-file FILE" in output) == (2, True)


def test_a_refused_claim_writes_nothing(url: str, tmp_path: Path) -> None:
    """The server's code and text are printed; there is no partial identity."""
    code, output = call("enrol", "--server", url, "--claim", "bad", "--state", tmp_path / "dev")
    assert code == 5
    assert "error [enrolment_failed]" in output
    assert "[claim_refused] used" in output
    assert not (tmp_path / "dev").exists()


def test_a_claim_is_not_spent_where_nothing_can_be_written(url: str, tmp_path: Path) -> None:
    """A claim is valid once: an unwritable state directory is reported before the server is asked."""
    (tmp_path / "file").write_bytes(b"")
    code, output = call("enrol", "--server", url, "--claim", "bad", "--state", tmp_path / "file" / "dev")
    assert (code, "got: Not a directory" in output, "the claim was not used" in output) == (5, True, True)


@pytest.mark.parametrize("server", ["http://127.0.0.1:9", "ftp://x", "nonsense"])
def test_an_unreachable_server_is_a_coded_error(tmp_path: Path, server: str) -> None:
    """No traceback, whatever the address."""
    code, output = call("enrol", "--server", server, "--claim", "good", "--state", tmp_path / "dev")
    assert (code, output.startswith("error [enrolment_failed]: Expected")) == (5, True)


def test_does_not_enrol_twice(url: str, tmp_path: Path) -> None:
    """An identity is never overwritten."""
    call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)
    assert call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)[0] == 5


@pytest.mark.parametrize("command", ["run", "status", "selftest"])
def test_a_device_without_identity_says_so(tmp_path: Path, command: str) -> None:
    """The message names the next step."""
    code, output = call(command, "--state", tmp_path)
    assert code == (1 if command == "selftest" else 3)
    assert "edge-agent" in output


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ([200], 0, "ok   server: {url} answers 200"),
        ([503, 503, 200], 0, "ok   server: {url} answers 200"),
        ([503] * 4, 10, "wait server: {url} answers 503: room on the disk: 0 MB free"),
        ([], 10, "wait server: Expected an answer from {url}"),
    ],
)
def test_the_server_s_state_is_told_apart_from_the_device_s(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[int], code: int, words: str
) -> None:
    """A server that starts, is full, or is not reachable is not a fault of the device."""
    call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)
    pauses: list[float] = []
    monkeypatch.setattr("edge_agent.device.selftest.checks", partial(checks, pause=pauses.append))
    monkeypatch.setattr(Enroller, "health", list(answers))
    found, output = call("selftest", "--state", tmp_path)
    assert (found, "FAIL" in output) == (code, False), output
    assert words.format(url=url) in output
    assert len(pauses) == (3 if code else len(answers) - 1)


def test_a_device_s_own_fault_counts_before_the_server_s(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, and both lines are there."""
    call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)
    monkeypatch.setattr("edge_agent.device.selftest.checks", partial(checks, pause=lambda _: None))
    monkeypatch.setattr("edge_agent.device.hardware.runtimes", lambda: ())
    found, output = call("selftest", "--state", tmp_path)
    assert (found, "FAIL runtime" in output, "wait server" in output) == (1, True, True)


def test_a_tilde_behind_an_equals_sign_is_the_home_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell does not expand it there; no folder of that name is created."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert call("enrol", "--server", url, "--claim", "good", "--state=~/agent")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]
    assert call("status", "--state=~nobody-here/agent")[0] == 2


@pytest.mark.parametrize("command", [["enrol", "--server", "http://x", "--claim", "c"], ["run"], ["status"]])
def test_an_empty_state_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """A variable of the shell that is not set would otherwise mean the current folder."""
    monkeypatch.chdir(tmp_path)
    code, output = call(*command, "--state", "")
    assert (code, "Expected a path, got an empty one" in output) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_missing_settings_say_what_to_do(url: str, tmp_path: Path) -> None:
    """The agent runs without a file of settings, too."""
    call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)
    code, output = call("run", "--state", tmp_path, "--config", tmp_path / "agent.toml")
    assert (code, "write it, or leave --config out" in output) == (3, True)


def test_an_unknown_key_names_the_nearest(url: str, tmp_path: Path) -> None:
    """agent.toml is read strictly."""
    call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)
    (tmp_path / "agent.toml").write_text("[spool]\nlimit_byte = 5\n")
    code, output = call("run", "--state", tmp_path, "--config", tmp_path / "agent.toml")
    assert code == 3
    assert "did you mean 'limit_bytes'?" in output


def test_a_second_agent_on_the_state_is_refused(url: str, tmp_path: Path) -> None:
    """The lock is taken before anything else."""
    call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)
    lock = AgentLock(tmp_path)
    code, output = call("run", "--state", tmp_path)
    lock.release()
    assert (code, "error [identity_in_use]" in output) == (4, True)


def test_runs_without_a_broker_and_ends_on_sigterm(url: str, tmp_path: Path) -> None:
    """Offline is a state, not a fault; the status shows it; the shutdown is orderly."""
    call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "run", "--state", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not (tmp_path / "status.json").exists():
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert (process.returncode, b"very-secret" in log) == (0, False)
    status = json.loads(call("status", "--state", tmp_path, "--json")[1])
    assert (status["connected"], status["state"]) == (False, "init")


@pytest.mark.parametrize("names", [["measure/"], ["inbox/", "notes.txt"], [".bashrc"], ["a", "b", "c", "d"]])
def test_refuses_to_enrol_into_a_folder_of_other_things(names: list[str], url: str, tmp_path: Path) -> None:
    """The agent would empty ``measure``, consume ``inbox`` and change the mode: nothing is touched, no claim used."""
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("mine")
    mode = tmp_path.stat().st_mode
    code, output = call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)
    assert (code, "Expected a new or empty state directory" in output) == (5, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(name.rstrip("/") for name in names)
    assert tmp_path.stat().st_mode == mode


@pytest.mark.parametrize(
    "names",
    [[], ["agent.toml", "ca.pem", "inbox/"], ["enrol.room", ".enrol.room.new"], ["root.json", "spool.db", "measure/"]],
)
def test_enrols_into_a_folder_that_was_prepared_or_was_an_agents(names: list[str], url: str, tmp_path: Path) -> None:
    """A configuration beside its certificates; or an agent's folder whose identity was removed to enrol again."""
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("")
    assert call("enrol", "--server", url, "--claim", "good", "--state", tmp_path)[0] == 0


@pytest.mark.parametrize("path", [".", "/"])
def test_refuses_to_run_on_a_source_that_holds_its_own_state(path: str, url: str, tmp_path: Path) -> None:
    """``path = "."`` in the state directory once erased identity, keys and spool."""
    call("enrol", "--server", url, "--claim", "good", "--state", tmp_path / "state")
    config = tmp_path / "state" / "agent.toml"
    config.write_text(f'[source]\npath = "{path}"\n')
    code, output = call("run", "--state", tmp_path / "state", "--config", config)
    assert (code, "error [source_invalid]: Expected in [source] path a folder of its own" in output) == (3, True)
    assert (tmp_path / "state" / "identity.json").exists()


@pytest.mark.parametrize("name", ["identity.json", "identity.copy.json"])
@pytest.mark.parametrize("data", [b"", b'{"device":"cam-2","digest":"00","site":"north"}', None])
def test_one_damaged_copy_of_the_identity_is_mended(url: str, tmp_path: Path, name: str, data: bytes | None) -> None:
    """One flipped bit does not lose the identity; if both copies are damaged, the error names the next step."""
    assert call("enrol", "--server", url, "--claim", "good", "--state", tmp_path / "dev")[0] == 0
    path = tmp_path / "dev" / name
    whole = path.read_bytes()
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    assert read_identity(tmp_path / "dev").device == "cam-1"
    assert path.read_bytes() == whole
    for copy in (tmp_path / "dev").glob("identity*"):
        copy.write_bytes(b"\x00")
    with pytest.raises(IdentityError, match="edge-agent enrol"):
        read_identity(tmp_path / "dev")


def test_enrolling_anew_begins_trust_anew(url: str, tmp_path: Path) -> None:
    """The trust of an earlier server does not bind the next one."""
    assert call("enrol", "--server", url, "--claim", "good", "--state", tmp_path / "dev")[0] == 0
    (tmp_path / "dev" / "tuf").mkdir()
    (tmp_path / "dev" / "tuf" / "time_floor.json").write_bytes(b"\x00")
    (tmp_path / "dev" / "identity.json").unlink()
    assert call("enrol", "--server", url, "--claim", "good", "--state", tmp_path / "dev")[0] == 0
    assert not (tmp_path / "dev" / "tuf").exists()
