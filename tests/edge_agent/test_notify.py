"""What systemd is told, over a real datagram socket."""

import math
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import Identity
from edge_agent.device.notify import READY_S, Notifier, ServiceHealth, from_environment
from edge_agent.device.record_file import write_record
from wire.codec import to_document

Read = Callable[[], list[str]]


def seen(*, status: str = "init", serving: bool = False, idle_s: float = math.inf) -> ServiceHealth:
    """Return a condition with a keep-alive of 30 s."""
    return ServiceHealth(status=status, serving=serving, idle_s=idle_s, keepalive_s=30.0)


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Read]]:
    """The address of a bound socket, and a function that returns the lines that arrived."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@tinyfleet-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address.replace("@", "\0"))
        bound.setblocking(False)

        def read() -> list[str]:
            lines: list[str] = []
            while True:
                try:
                    lines += bound.recv(4096).decode().split("\n")
                except BlockingIOError:
                    return lines

        yield address, read


def test_an_agent_without_a_network_is_ready_after_a_while(systemd: tuple[str, Read]) -> None:
    """Neither connected nor serving: a restart would not help."""
    address, read = systemd
    notifier = Notifier(address=address)
    for now_s in (100.0, 100.0 + READY_S - 0.01):
        notifier.turn(seen(), now_s)
    assert read() == ["STATUS=init"]
    notifier.turn(seen(), 100.0 + READY_S)
    notifier.turn(seen(), 200.0)
    assert read() == ["READY=1"]


@pytest.mark.parametrize("condition", [seen(idle_s=0.0), seen(serving=True)])
def test_a_connected_or_serving_agent_is_ready_at_once(systemd: tuple[str, Read], condition: ServiceHealth) -> None:
    """Each of the two is enough, and READY is sent once."""
    address, read = systemd
    notifier = Notifier(address=address)
    notifier.turn(condition, 5.0)
    notifier.turn(condition, 6.0)
    assert read() == ["READY=1", "STATUS=init"]


def test_the_watchdog_is_fed_three_times_a_limit(systemd: tuple[str, Read]) -> None:
    """Each third of the limit, not before."""
    address, read = systemd
    notifier = Notifier(address=address, limit_s=60.0)
    for now_s in (0.0, 19.9, 20.0, 39.9, 40.0):
        notifier.turn(seen(serving=True), now_s)
    assert read().count("WATCHDOG=1") == 3


@pytest.mark.parametrize(("idle_s", "fed"), [(120.0, 1), (120.1, 0), (math.inf, 1)])
def test_a_connection_that_can_not_be_up_starves_the_watchdog(
    systemd: tuple[str, Read], idle_s: float, fed: int
) -> None:
    """Four keep-alives of silence on a link that counts as up; a device without a network is not restarted."""
    address, read = systemd
    Notifier(address=address, limit_s=60.0).turn(seen(idle_s=idle_s), 0.0)
    assert read().count("WATCHDOG=1") == fed


def test_the_status_is_one_line_and_sent_when_it_changes(systemd: tuple[str, Read]) -> None:
    """A line break in it would be another message to systemd."""
    address, read = systemd
    notifier = Notifier(address=address)
    for status in ("ready", "ready", "a\nSTOPPING=1" + "x" * 300):
        notifier.turn(seen(status=status), 0.0)
    assert read() == ["STATUS=ready", ("STATUS=a STOPPING=1" + "x" * 300)[:207]]
    notifier.stopping()
    assert read() == ["STOPPING=1", "STATUS=stopping"]


def test_without_systemd_nothing_happens() -> None:
    """No address: each call returns."""
    notifier = Notifier()
    notifier.turn(seen(serving=True), 0.0)
    notifier.stopping()


def test_what_could_not_be_sent_is_sent_later(tmp_path: Path) -> None:
    """The socket is away while systemd is re-executed: nothing is raised, and nothing is lost."""
    notifier = Notifier(address=str(tmp_path / "notify"))
    notifier.turn(seen(serving=True), 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(5)
        notifier.turn(seen(serving=True), 1.0)
        assert bound.recv(4096) == b"READY=1\nSTATUS=init"


@pytest.mark.parametrize(
    ("values", "address", "limit_s"),
    [
        (("/run/notify", "60000000", ""), "/run/notify", 60.0),
        (("@notify", "1500000", "7"), "@notify", 1.5),
        (("@notify", "1500000", "8"), "@notify", 0.0),
        (("vsock:2:1234", "x", ""), "", 0.0),
        (("", "", ""), "", 0.0),
    ],
)
def test_the_environment_is_read_and_not_left_to_children(
    values: tuple[str, ...], address: str, limit_s: float
) -> None:
    """A watchdog of another process is not ours; children can't speak for the agent."""
    environment = dict(zip(("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"), values, strict=True), HOME="/")
    notifier = from_environment(environment, pid=7)
    assert (notifier.address, notifier.limit_s, environment) == (address, limit_s, {"HOME": "/"})


def test_a_real_agent_tells_systemd_when_it_starts_and_ends(tmp_path: Path) -> None:
    """The program reads systemd's variables; without a network its loop keeps the watchdog fed."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    identity = Identity(site="s", device="d", mqtt_host="127.0.0.1", mqtt_port=9, http_url="http://127.0.0.1:9")
    write_record(RealDisk(), state / "identity.json", to_document(identity))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
        start = "import edge_agent.cli; edge_agent.cli.main()"
        process = subprocess.Popen([sys.executable, "-c", start, "run", "--state", str(state)], env=environment)
        first = systemd.recv(4096)
        process.terminate()
        last = systemd.recv(4096)
    assert (process.wait(30), first) == (0, b"STATUS=init (no_release), not connected\nWATCHDOG=1")
    assert last == b"STOPPING=1\nSTATUS=stopping"
