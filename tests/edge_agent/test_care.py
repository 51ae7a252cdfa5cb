"""The commands of a person on site, against a running agent and without one."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.cli import main
from edge_agent.control.requests import ANSWER, FILE, RequestFile, ask, put
from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import Identity
from edge_agent.device.lock import holder
from edge_agent.device.record_file import write_record
from edge_agent.errors import RequestRefusedError
from edge_agent.logs import FILE_BYTES, LINES_A_MINUTE, LogRing, masked, read_ring
from edge_agent.updater.states import UpdateRecord
from edge_agent.updater.storage.slots import Records, SlotRelease, Slots
from wire.canonical import sha256_hex
from wire.codec import to_document
from wire.messages import Command, Desired, Response, UpdatePhase

SECRET = "very-secret-password"
LIMIT_S = 30.0


def call(*arguments: object) -> tuple[int, str]:
    """Run a command; return its exit code and its output."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The state directory of an enrolled device, which has committed m-2 after m-1."""
    state, disk = tmp_path / "agent", RealDisk()
    state.mkdir(mode=0o700)
    identity = Identity(
        site="north", device="cam-1", password=SECRET, mqtt_host="127.0.0.1", mqtt_port=1, http_url="http://127.0.0.1:1"
    )
    write_record(disk, state / "identity.json", to_document(identity))
    slots = Slots(state, disk)
    (state / "blobs" / "sha256").mkdir(parents=True)
    for name, release in (("a", "m-1"), ("b", "m-2")):
        data = f"bundle of {release}".encode()
        slots.bundle(sha256_hex(data)).write_bytes(data)
        slots.fill(name, SlotRelease(release=release, sha256=sha256_hex(data), length_bytes=len(data)))
    slots.switch("b")
    slots.raise_floor(0)
    desired = Desired(gen=2, release="m-2", target="m-2/t.tfb", sha256=sha256_hex(b"bundle of m-2"), length_bytes=13)
    record = UpdateRecord(phase=UpdatePhase.COMMITTED, desired=desired, slot="b", length_bytes=13)
    Records(state, disk).write(record)
    return state


@pytest.fixture
def running(device: Path) -> Iterator[Path]:
    """The same device with an agent that runs; it has no network, and its releases are no models."""
    with (device.parent / "agent.log").open("wb") as log:
        command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "run", "--state", str(device)]
        agent = subprocess.Popen(command, stdout=log, stderr=log)
    until_s = time.monotonic() + LIMIT_S
    while not (device / "status.json").exists() and time.monotonic() < until_s and agent.poll() is None:
        time.sleep(0.05)
    yield device
    agent.terminate()
    agent.wait(LIMIT_S)


def test_rolls_back_where_no_agent_runs(device: Path) -> None:
    """A release that stops the machine as it starts must not be started for that; a second time there is nothing."""
    assert call("rollback", "--state", device) == (0, "rolled back from m-2 to m-1\n")
    record, _ = Records(device, RealDisk()).read()
    assert (record.phase, record.code) == (UpdatePhase.ROLLED_BACK, "rolled_back_on_site")
    code, output = call("rollback", "--state", device)
    assert (code, "error [no_previous]: Expected a committed release before m-1" in output) == (11, True)


def test_a_way_back_to_another_model_is_warned_of(device: Path) -> None:
    """The device was moved: the release before is one of the model that it had."""
    slots = Slots(device, RealDisk())
    held = slots.read("a")
    assert held is not None
    slots.fill("a", replace(held, release="tags-9"))
    code, output = call("rollback", "--state", device)
    assert code == 0
    assert "rolled back from m-2 to tags-9\n" in output
    assert "warning: tags-9 is a release of another model (tags, m-2 is one of m)" in output


def test_rolls_back_through_the_agent_that_runs(running: Path) -> None:
    """It acts within a second or two, and its status shows who did it."""
    assert holder(running)
    assert call("rollback", "--state", running) == (0, "rolled back from m-2 to m-1\n")
    assert Slots(running, RealDisk()).current().release == "m-1"  # type: ignore[union-attr]
    code, output = call("rollback", "--state", running)
    assert (code, "[no_previous]" in output) == (11, True)
    assert not (running / FILE).exists()
    assert not (running / ANSWER).exists()


def test_a_folder_without_an_agent_is_named(tmp_path: Path) -> None:
    """No files appear in it."""
    code, output = call("rollback", "--state", tmp_path)
    assert (code, "[no_release]" in output, list(tmp_path.iterdir())) == (11, True, [])
    code, output = call("rollback", "--state", tmp_path / "none")
    assert (code, "[no_state]" in output) == (11, True)


@pytest.mark.parametrize("hurt", ["writable", "link", "folder", "long", "nonsense"])
def test_a_request_that_another_user_can_have_made_is_ignored(tmp_path: Path, hurt: str) -> None:
    """The owner of the state directory alone can ask."""
    path = tmp_path / FILE
    put(tmp_path, Command(id="1", verb="rollback"))
    if hurt == "writable":
        path.chmod(0o620)
    elif hurt == "link":
        path.rename(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    elif hurt == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(b" " * 20_000 + b"{}" if hurt == "long" else b"{")
    assert RequestFile(tmp_path).take() is None


def test_a_request_is_taken_once(tmp_path: Path) -> None:
    """A second one waits until the first is taken."""
    put(tmp_path, Command(id="1", verb="rollback"))
    with pytest.raises(RequestRefusedError, match="that waits"):
        put(tmp_path, Command(id="2", verb="rollback"))
    assert RequestFile(tmp_path).take() == Command(id="1", verb="rollback")
    assert (RequestFile(tmp_path).take(), list(tmp_path.iterdir())) == (None, [])


def test_a_request_that_nobody_takes_is_withdrawn(tmp_path: Path) -> None:
    """Otherwise the next start of the agent would act on it."""
    with pytest.raises(RequestRefusedError, match="none taken"):
        ask(tmp_path, "rollback", {}, wait_s=0.2)
    assert list(tmp_path.iterdir()) == []


def test_the_answer_to_another_request_is_not_taken_for_its_own(tmp_path: Path) -> None:
    """The answer of a command that was interrupted stays behind."""
    RequestFile(tmp_path).answer(Response(id="old", ok=True))
    with pytest.raises(RequestRefusedError):
        ask(tmp_path, "rollback", {}, wait_s=0.2)
    assert json.loads((tmp_path / ANSWER).read_bytes())["id"] == "old"


def test_the_log_is_a_ring_without_secrets(tmp_path: Path) -> None:
    """Two files of a bounded size; the password of the device and those in addresses are masked."""
    ring = LogRing(tmp_path, [SECRET])
    for number in range(3 * FILE_BYTES // 3_900):
        ring._lines = 0  # a new minute each
        text = f"{number} {SECRET} rtsp://user:hunter2@camera/1 " + "x" * 3_800
        ring.handle(logging.LogRecord("test", logging.INFO, "", 0, "%s", (text,), None))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert (files, all(path.stat().st_size <= FILE_BYTES for path in tmp_path.iterdir())) == (
        ["agent.log", "agent.log.1"],
        True,
    )
    both = "".join(path.read_text() for path in tmp_path.iterdir())
    assert (SECRET in both, "hunter2" in both, "rtsp://***@camera/1" in both) == (False, False, True)
    assert (tmp_path / "agent.log").stat().st_mode & 0o777 == 0o600


def test_a_fault_that_repeats_does_not_wear_out_the_flash(tmp_path: Path) -> None:
    """So many lines a minute, and then how many were left out."""
    ring = LogRing(tmp_path)
    for number in range(LINES_A_MINUTE + 30):
        ring.handle(logging.LogRecord("test", logging.INFO, "", 0, f"line {number}", None, None))
    assert len(read_ring(tmp_path, 1_000)) == LINES_A_MINUTE
    ring._minute_s -= 61
    ring.handle(logging.LogRecord("test", logging.INFO, "", 0, "later", None, None))
    assert read_ring(tmp_path, 1)[0].endswith("later left_out_before=30")


def test_logs_shows_the_newest_lines_since_a_time_of_a_level(tmp_path: Path) -> None:
    """A traceback belongs to its line."""
    ring = LogRing(tmp_path)
    for level, text, at_s in ((20, "old", 1e9), (20, "new", 2e9), (40, "bad\nTraceback", 2e9), (30, "warned", 2.1e9)):
        record = logging.LogRecord("test", level, "", 0, text, None, None)
        record.created, record.msecs = at_s, 0.0
        ring.handle(record)
    assert call("logs", "--state", tmp_path, "--level", "ERROR")[1].splitlines()[1:] == ["  Traceback"]
    assert "old" not in call("logs", "--state", tmp_path, "--since", "2002-01-01")[1]
    assert call("logs", "--state", tmp_path, "-n", 1)[1].strip().endswith("warned")
    assert "Expected 30s, 10m" in call("logs", "--state", tmp_path, "--since", "yesterday")[1]
    code, text = call("logs", "--state", tmp_path / "sate")
    assert (code, "got none at" in text) == (3, True)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:p@ss@camera/1", "rtsp://***@camera/1"),
        ("rtsp://admin:pa/ss@camera/1", "rtsp://***@camera/1"),
        ("http://camera:80/snap@2x.jpg", "http://camera:80/snap@2x.jpg"),
        ("rtsp://a:b@c/1,rtsp://d:e@f/2", "rtsp://***@c/1,rtsp://***@f/2"),
        ("http://camera/flv?user=a&Password=hunter2&x=1", "http://camera/flv?user=a&Password=***&x=1"),
        ("http://camera/v?loginuse=a&loginpas=888888 gone", "http://camera/v?loginuse=a&loginpas=*** gone"),
    ],
)
def test_a_password_of_a_camera_is_masked_whatever_is_in_it(address: str, shown: str) -> None:
    """An ``@`` or a slash in it, or a query that has it; the address stays recognizable."""
    assert masked(address, ()) == shown


def test_the_running_agent_keeps_a_log_without_its_password(running: Path) -> None:
    """Its start and the child that crashes are in it."""
    until_s = time.monotonic() + LIMIT_S
    while time.monotonic() < until_s and "child_crashed" not in call("logs", "--state", running)[1]:
        time.sleep(0.1)
    lines = call("logs", "--state", running)[1]
    assert ("child_crashed" in lines, "started version=" in lines, SECRET in lines) == (True, True, False)


def test_a_benchmark_names_what_it_needs(device: Path) -> None:
    """A bundle that can't be opened, a device without a release, and neither."""
    code, output = call("benchmark", "--state", device)
    assert (code, "[bundle_invalid]" in output) == (11, True)
    code, output = call("benchmark", "--state", device.parent)
    assert (code, "[no_release]" in output) == (11, True)
    assert call("benchmark")[0] == 2


@pytest.mark.parametrize("words", [("benchmark", "any.tfb", "--seconds"), ("import", "stick", "--probation")])
def test_a_time_that_is_no_number_is_a_usage_error(words: tuple[str, ...], device: Path) -> None:
    """``nan`` is inside of every range for click: a measurement or a probation of it would have no end."""
    code, output = call(*words, "nan", "--state", device)
    assert (code, "Expected a number of seconds, got 'nan'" in output) == (2, True), output
