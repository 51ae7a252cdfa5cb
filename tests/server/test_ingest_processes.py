"""Several processes on one PostgreSQL and one real broker: killed at any time, they lose nothing and count it once."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from scripts.bench.postgres import clear
from server.app.processes.decider import Decider, elect, when_elected
from server.app.processes.ingest_process import IngestProcess
from server.app.server import ServerApp
from server.app.state_directory import StateDirectory, init_state, open_state
from server.broker.mqtt import BrokerTransport
from server.cli import main
from server.clock import system_now_ms
from server.errors import AlreadyRunningError, ConfigError, DatabaseRefusedError
from server.fleet.enrolment import EnrolledIdentity, Enrolment
from server.ingest.windows import Windows
from server.store.database import connect, open_database
from server.trust.online_keys import init_online_keys
from tests.server.conftest import EPOCH_MS, make_report
from wire.codec import decode
from wire.drift_report import encode_report
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Ack, Stream
from wire.transport import Incoming, Link, LinkChange, Notice

_PATIENCE_S = 60.0


@pytest.fixture
def shared(state: StateDirectory, postgres: str) -> StateDirectory:
    """A state directory whose database is an empty PostgreSQL."""
    clear(postgres)
    state.config.write_text(f'[store]\nurl = "{postgres}"\n', encoding="utf-8")
    return state


@dataclass(slots=True)
class Sender:
    """A device that sends its reports again until they are acknowledged, as an agent does."""

    identity: EnrolledIdentity
    port: int
    begin_ms: int
    acknowledged: set[int] = field(default_factory=set)
    _heard: queue.Queue[Notice] = field(default_factory=queue.Queue)
    _transport: BrokerTransport | None = None

    def connect(self) -> None:
        """Connect, and return when that is done."""
        who = self.identity
        self._transport = BrokerTransport(
            host="127.0.0.1", port=self.port, client_id=who.device, user=who.device, password=who.password
        )
        base = f"tf/1/{who.site}/{who.device}"
        self._transport.start(self._heard.put, subscriptions=(f"{base}/cmd/#",))
        self._hear(lambda notice: isinstance(notice, LinkChange) and notice.link is Link.UP)

    def send(self, seqs: range, wanted: int) -> None:
        """Send the reports ``seqs``, again every two seconds, until ``wanted`` of them are acknowledged."""
        topic = f"tf/1/{self.identity.site}/{self.identity.device}/tele/drift"
        while len(self.acknowledged & set(seqs)) < wanted:
            for seq in sorted(set(seqs) - self.acknowledged):
                report = make_report(seq, start_ms=self.begin_ms - EPOCH_MS + 1000 * seq)
                if self._transport is not None:
                    self._transport.publish(topic, encode_report(report))
            self._hear(lambda _: len(self.acknowledged & set(seqs)) >= wanted, 2.0)

    def _hear(self, is_it: Callable[[Notice], bool], wait_s: float = _PATIENCE_S) -> None:
        """Take notices until ``is_it`` of one, or until none came for ``wait_s``."""
        while True:
            try:
                notice = self._heard.get(timeout=wait_s)
            except queue.Empty:
                return
            if isinstance(notice, Incoming):
                for mark in decode(Ack, notice.payload).watermarks:
                    if mark.stream is Stream.DRIFT:
                        self.acknowledged |= {*range(mark.through_seq + 1), *mark.ahead}
            if is_it(notice):
                return

    def stop(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.stop()


@contextmanager
def command(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``fleet-server`` in a process of its own; it is killed at the end."""
    line = [sys.executable, "-m", "server.cli", *words]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def line_of(process: subprocess.Popen[str], beginning: str) -> str:
    """Return the next line that begins so."""
    for line in process.stdout or ():
        if line.startswith(beginning):
            return line.strip()
    pytest.fail(f"Expected {beginning!r} from {process.args}, got its end: {process.wait()}")


def counted(url: str) -> list[tuple[str, int, int]]:
    """Return device, inferences and reports of every window, by device."""
    database = open_database(url)
    try:
        return sorted((one.device, one.n, one.reports) for one in Windows(database).since(0, 10_000))
    finally:
        database.close()


def enrolled(enrolment: Enrolment, count: int, port: int) -> list[Sender]:
    """Return connected devices; the broker knows them by then."""
    begin_ms = system_now_ms() // 1000 * 1000 - 3_600_000
    names = [f"cam-{number}" for number in range(count)]
    return [Sender(enrolment.enrol(enrolment.claim("berlin", name, {})), port, begin_ms) for name in names]


@pytest.mark.broker
@pytest.mark.slow
def test_processes_that_ingest_are_killed_and_nothing_is_lost_or_counted_twice(shared: StateDirectory) -> None:
    """One with kill -9 in the midst of the messages, then the other; the server goes on alone."""
    app = ServerApp.open(shared.path, pages=False)
    app.start()
    with ExitStack() as ending:
        ending.callback(app.stop)
        devices = enrolled(app.parts.enrolment, 3, app.address.mqtt_port)
        app.admission.refresh()
        processes = [ending.enter_context(command("ingest", str(shared.path))) for _ in range(2)]
        names = {line_of(one, "ingest server.").split()[1] for one in processes}
        for device in devices:
            ending.callback(device.stop)
            device.connect()
            device.send(range(30), 10)
        processes[0].send_signal(signal.SIGKILL)
        for device in devices:
            device.send(range(45), 30)
        processes[1].send_signal(signal.SIGKILL)
        for device in devices:
            device.send(range(60), 60)
        accepted = app.parts.ingest.figures.accepted
    assert len(names) == 2
    assert counted(app.config.store.url) == [(f"cam-{number}", 5, 1) for number in range(3) for _ in range(60)]
    assert 0 < accepted < 180  # the others stored the rest


@pytest.mark.broker
@pytest.mark.nightly
def test_a_decider_that_is_killed_is_replaced_within_seconds(shared: StateDirectory, postgres: str) -> None:
    """Kill -9 of the server: its standby serves on the same ports; processes that ingest go on with the new broker."""
    with ExitStack() as ending:
        first = ending.enter_context(command("run", str(shared.path)))
        port = int(line_of(first, "mqtt ").rpartition(":")[2])
        second = ending.enter_context(command("run", str(shared.path), "--standby"))
        line_of(second, "standby: another server runs")
        ingest = ending.enter_context(command("ingest", str(shared.path)))
        line_of(ingest, "ingest server.1")
        devices = _enrolled_by_command(shared, 2)
        for device in devices:
            ending.callback(device.stop)
            device.connect()
            device.send(range(20), 20)
        begun_ms = system_now_ms()
        first.send_signal(signal.SIGKILL)
        assert line_of(second, "mqtt ").rpartition(":")[2] == str(port)
        took_ms = system_now_ms() - begun_ms
        for device in devices:
            device.send(range(60), 60)
        second.send_signal(signal.SIGTERM)
        second.wait(_PATIENCE_S)
    assert counted(postgres) == [(f"cam-{number}", 5, 1) for number in range(2) for _ in range(60)]
    assert took_ms < 30_000


def _enrolled_by_command(state: StateDirectory, count: int) -> list[Sender]:
    """Return devices that enrolled as theirs do: a claim by the command, the rest over HTTP."""
    address, begin_ms = open_state(state.path).read_address(), system_now_ms() // 1000 * 1000 - 3_600_000
    assert address is not None
    found = []
    for number in range(count):
        line = ["claim", str(state.path), "--site", "berlin", "--device", f"cam-{number}"]
        run = subprocess.run([sys.executable, "-m", "server.cli", *line], check=True, capture_output=True, text=True)
        answer = httpx.post(f"{address.http_url}/api/enrol", json={"claim": run.stdout.strip()}, timeout=30).json()
        who = EnrolledIdentity(**{one.name: answer[one.name] for one in fields(EnrolledIdentity) if one.name in answer})
        found.append(Sender(who, address.mqtt_port, begin_ms))
    return found


def test_sqlite_is_ingested_by_the_server_alone(state: StateDirectory) -> None:
    """The refusal names PostgreSQL and where to read on."""
    with pytest.raises(ConfigError, match=r"Expected a PostgreSQL database in store\.url .* got sqlite:.*own-server"):
        IngestProcess.open(state.path)


def _second(shared: StateDirectory, folder: Path) -> StateDirectory:
    other = init_state(folder / "other")
    init_online_keys(other.path)
    other.config.write_text(shared.config.read_text(encoding="utf-8"), encoding="utf-8")
    return other


def test_a_second_server_on_a_database_is_refused_until_the_first_ends(shared: StateDirectory, tmp_path: Path) -> None:
    """Also from another directory, which the lock of a directory does not see; waiting for it takes over."""
    other, said = _second(shared, tmp_path), list[str]()

    def opened(state: StateDirectory) -> ServerApp:
        transport = MemoryTransport(broker=MemoryBroker(), client_id="server")
        return ServerApp.open(state.path, transport=transport, pages=False)

    first = opened(shared)
    with pytest.raises(AlreadyRunningError, match="Expected no other server on this database"):
        opened(other)

    def wait(_seconds: float) -> bool:
        if len(said) == 1 and not first._stopping.is_set():
            first.stop()
        return False

    second = when_elected(lambda: opened(other), wait, said.append)
    assert second is not None
    second.stop()
    assert said == ["another server runs: takes over when that ends"]


def test_a_database_is_not_migrated_while_a_server_of_another_directory_runs_on_it(
    shared: StateDirectory, postgres: str, tmp_path: Path
) -> None:
    """The lock of the directory does not see that one."""
    other, running = _second(shared, tmp_path), elect(shared, postgres)
    result = CliRunner().invoke(main, ["migrate", str(other.path), "--yes"])
    running.release()
    assert result.exit_code == 1
    assert result.stderr.startswith("error [already_running]: Expected no other server on this database")


def test_a_transaction_of_a_process_that_was_stopped_ends(postgres: str) -> None:
    """It would hold its devices, and others would wait for it; a URL may have its own options."""
    for url, limit in ((postgres, "1min"), (f"{postgres}&options=-c%20lock_timeout%3D5s", "0")):
        engine = connect(url)
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar()
        engine.dispose()
        assert found == limit


@pytest.fixture
def decider(shared: StateDirectory, postgres: str) -> Iterator[Decider]:
    """The right to decide, and a session with PostgreSQL that a test may end."""
    found = elect(shared, postgres)
    yield found
    found.release()


def _end_sessions(url: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
    engine.dispose()


def test_a_server_decides_on_after_its_database_was_away(decider: Decider, postgres: str) -> None:
    """Its session ended, and nobody took over."""
    _end_sessions(postgres)
    decider.turn()
    assert not decider.deposed.is_set()
    assert decider.session is not None
    assert decider.session.is_held()


def test_a_server_that_was_replaced_while_its_database_was_away_ends(
    decider: Decider, shared: StateDirectory, postgres: str, tmp_path: Path
) -> None:
    """Two never decide for long: the first looks every second."""
    _end_sessions(postgres)
    other = elect(_second(shared, tmp_path), postgres)
    decider.turn()
    other.release()
    assert decider.deposed.is_set()


def test_nobody_takes_over_while_the_database_is_away(decider: Decider) -> None:
    """The session can't be opened again: this process waits."""
    assert decider.session is not None
    decider.session.release()
    decider.session.engine = connect("postgresql://nobody@/none?host=/nowhere")
    with pytest.raises(DatabaseRefusedError, match="Expected a database that answers"):
        decider.turn()
    assert not decider.deposed.is_set()


def test_each_process_that_ingests_has_a_name_of_its_own(shared: StateDirectory, postgres: str) -> None:
    """The broker has one client for each user; a name is free again when its process ends."""
    open_database(postgres).close()
    found = [IngestProcess.open(shared.path, broker=("127.0.0.1", 1)) for _ in range(3)]
    assert [one.name for one in found] == ["server.1", "server.2", "server.3"]
    found[1].close()
    again = IngestProcess.open(shared.path, broker=("127.0.0.1", 1))
    assert again.name == "server.2"
    for one in (found[0], found[2], again):
        one.close()
