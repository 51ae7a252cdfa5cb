"""Delivery: at least once, in order, with growing waits; a dead receiver delays nobody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import sqlalchemy as sa

from server.alerts.config import AlertRoute, AlertsConfig
from server.alerts.delivery import FIRST_WAIT_MS, LONGEST_WAIT_MS, Courier, couriers, wait_ms
from server.alerts.ledger import Alerts
from server.alerts.picture import EvidencePicture
from server.app.state_directory import StateDirectory
from server.store.database import Database, open_database
from server.store.monitoring.alerts import NOTICES

from .conftest import CAUSE, HttpSink

NOW_MS = 1_800_000_000_000


@dataclass(slots=True)
class Post:
    """Alerts with one route, and the courier of it."""

    alerts: Alerts
    courier: Courier

    def drain(self, now_ms: int) -> int:
        """Deliver what is due; return how much was."""
        count = 0
        while self.courier.turn(now_ms):
            count += 1
        return count


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """An empty database."""
    return open_database(f"sqlite:///{tmp_path / 'fleet.db'}")


@pytest.fixture
def post(database: Database, sink: HttpSink, secret: Path) -> Post:
    """Alerts that go to ``sink``."""
    route = AlertRoute(name="pager", url=sink.url, secret_file=str(secret), timeout_s=0.3)
    config = AlertsConfig(route=(route,))
    alerts = Alerts(database=database, config=config, clock=lambda: NOW_MS)
    return Post(alerts, couriers(database, config, EvidencePicture(database))[0])


def events(sink: HttpSink) -> list[str]:
    """Return the event and title of each notice."""
    found = [json.loads(one.body) for one in sink.heard]
    return [f"{one['event']} {one['alert']['title']}" for one in found]


def test_what_is_stored_is_delivered_once(post: Post, sink: HttpSink) -> None:
    """And not again by later turns."""
    post.alerts.settle([CAUSE], NOW_MS)
    assert (post.drain(NOW_MS), post.drain(NOW_MS + 10**7)) == (1, 0)
    assert events(sink) == ["opened Device cam-1 is lost"]
    found = post.alerts.deliveries(1)[0]
    assert (found.delivered_ms, found.answer, found.attempts, found.key) == (NOW_MS, "204", 1, sink.keys()[0])


def test_the_alert_and_its_notice_are_written_together_or_not_at_all(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the notice takes the alert back, too; the next look makes both."""
    with monkeypatch.context() as patched:
        patched.setattr("server.alerts.ledger.store.insert_notices", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            post.alerts.settle([CAUSE], NOW_MS)
    assert post.alerts.list() == ()
    post.alerts.settle([CAUSE], NOW_MS)
    assert (len(post.alerts.list()), len(post.alerts.deliveries(1))) == (1, 1)


def test_a_failing_receiver_gets_it_again_with_the_same_key_and_growing_waits(post: Post, sink: HttpSink) -> None:
    """Not before its time, and however often it takes."""
    sink.behave = lambda _, count: 500 if count < 4 else 200
    post.alerts.settle([CAUSE], NOW_MS)
    now_ms = NOW_MS
    for attempt in range(1, 4):
        assert not post.courier.turn(now_ms)
        assert not post.courier.turn(now_ms + wait_ms(attempt) - 1)
        assert len(sink.heard) == attempt
        now_ms += wait_ms(attempt)
    assert post.courier.turn(now_ms)
    assert len(set(sink.keys())) == 1
    found = post.alerts.deliveries(1)[0]
    assert (found.attempts, found.failed_ms, found.error, found.answer) == (4, NOW_MS, "", "200 noted")


def test_the_waits_double_up_to_ten_minutes() -> None:
    """By value, and without an end."""
    assert [wait_ms(attempt) for attempt in (1, 2, 3, 7, 8, 9, 10_000)] == [
        5_000, 10_000, 20_000, 320_000, 600_000, 600_000, 600_000,
    ]  # fmt: skip


def test_of_one_alert_the_end_never_overtakes_the_beginning(post: Post, sink: HttpSink) -> None:
    """While the beginning is refused its end waits; another alert does not."""
    sink.behave = lambda _, count: 500 if count == 1 else 200
    other = replace(CAUSE, key="away:device:cam-2", title="Device cam-2 is lost")
    post.alerts.settle([CAUSE], NOW_MS)
    post.courier.turn(NOW_MS)
    post.alerts.settle([other], NOW_MS + 1)
    post.drain(NOW_MS + 1_000)
    assert events(sink)[1:] == ["opened Device cam-2 is lost"]
    post.drain(NOW_MS + FIRST_WAIT_MS)
    assert events(sink)[2:] == ["opened Device cam-1 is lost", "resolved Device cam-1 is lost"]


def test_a_dead_receiver_is_asked_seldom_however_much_waits(post: Post, sink: HttpSink) -> None:
    """A hundred alerts for a dead receiver are not a hundred requests each time."""
    sink.behave = lambda _, __: 503
    post.alerts.settle([replace(CAUSE, key=f"away:device:cam-{number}") for number in range(100)], NOW_MS)
    for second in range(600):
        post.drain(NOW_MS + 1000 * second)
    assert 10 <= len(sink.heard) <= 20


def test_a_clock_that_was_ahead_delays_a_notice_no_longer_than_the_longest_wait(
    post: Post, sink: HttpSink, database: Database
) -> None:
    """The clock is set back by a year: what was to wait for a year is due."""
    sink.behave = lambda _, count: 500 if count == 1 else 200
    post.alerts.settle([CAUSE], NOW_MS)
    year_ms = 365 * 86_400_000
    post.courier.turn(NOW_MS + year_ms)
    fresh = Courier(database=database, route="pager", receiver=post.courier.receiver, picture=post.courier.picture)
    assert fresh.turn(NOW_MS + LONGEST_WAIT_MS)


def test_a_route_that_fails_for_minutes_is_said_and_one_that_just_began_is_not(post: Post, sink: HttpSink) -> None:
    """Both sides of the bound; how many wait and why."""
    sink.behave = lambda _, __: 500
    post.alerts.settle([CAUSE], NOW_MS)
    post.courier.turn(NOW_MS)
    post.alerts.clock = lambda: NOW_MS + 300_000
    assert post.alerts.failing() == ()
    post.alerts.clock = lambda: NOW_MS + 300_001
    assert post.alerts.failing() == ("pager: 1 for 5 min: Expected a status of 200 to 299, got 500",)


def test_a_route_that_is_gone_from_the_settings_is_given_up_and_counted(post: Post, database: Database) -> None:
    """It would wait for ever."""
    post.alerts.settle([CAUSE], NOW_MS)
    bare = Alerts(database=database, clock=lambda: NOW_MS)
    assert bare.forsake() == {"pager": 1}
    assert (bare.waiting(), bare.forsake()) == ((), {})
    assert bare.deliveries(1)[0].answer == "given up: the route is not in server.toml"


def test_a_receiver_that_hangs_delays_no_other_route(database: Database, sink: HttpSink, secret: Path) -> None:
    """Each has a thread of its own: the second is done while the first still waits."""
    leave, second = threading.Event(), threading.Event()

    def behave(handler: BaseHTTPRequestHandler, _: int) -> int:
        if handler.path == "/hook-slow":
            leave.wait(30)
        else:
            second.set()
        return 200

    sink.behave = behave
    routes = tuple(
        AlertRoute(name=name, url=sink.url + path, secret_file=str(secret), timeout_s=30)
        for name, path in (("slow", "-slow"), ("fast", ""))
    )
    config = AlertsConfig(route=routes)
    Alerts(database=database, config=config).settle([CAUSE], NOW_MS)
    threads = [
        threading.Thread(target=one.turn, args=(NOW_MS,), daemon=True)
        for one in couriers(database, config, EvidencePicture(database))
    ]
    for thread in threads:
        thread.start()
    assert second.wait(20)
    threads[1].join(20)
    assert [thread.is_alive() for thread in threads] == [True, False]
    leave.set()
    threads[0].join(20)


_SERVER = """
import os, sys, threading
from server.app.server import ServerApp
from server.alerts.model import AlertCause, AlertKind, AlertSeverity
from wire.memory_broker import MemoryBroker, MemoryTransport
from pathlib import Path
app = ServerApp.open(Path(sys.argv[1]), transport=MemoryTransport(broker=MemoryBroker(), client_id="s"), pages=False)
if sys.argv[2] == "hold":
    object.__setattr__(app.parts, "couriers", ())
app.start()
if sys.argv[2] != "again":
    cause = AlertCause(key="server:disk", kind=AlertKind.SERVER, severity=AlertSeverity.ALARM, title="The disk is full",
                       cause="-", action="-", flickers=True)
    app.parts.alerts.settle([cause], app.clock())
print("stored", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def serve(state: StateDirectory, sink: HttpSink, secret: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Start a real server process with a route to ``sink``: it stores an alert, or finds it ``again``."""
    state.config.write_text(
        f'[[alerts.route]]\nname = "pager"\nurl = "{sink.url}"\nsecret_file = "{secret}"\ntimeout_s = 30\n'
    )

    def started(how: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", _SERVER, str(state.path), how]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == "stored\n"
        return process

    return started


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


@pytest.mark.slow
def test_kill_9_between_the_commit_and_the_delivery_loses_nothing(
    serve: Callable[[str], subprocess.Popen[str]], sink: HttpSink
) -> None:
    """The first process stores an alert and never gets to send it; the next one does."""
    _kill(serve("hold"))
    assert sink.heard == []
    process = serve("again")
    assert sink.arrived.acquire(timeout=30)
    _kill(process)
    assert events(sink) == ["opened The disk is full"]


@pytest.mark.slow
def test_kill_9_between_the_delivery_and_its_record_delivers_again_with_the_same_key(
    serve: Callable[[str], subprocess.Popen[str]], sink: HttpSink, state: StateDirectory
) -> None:
    """The receiver has it all, and the process dies before it hears so: twice, and the receiver can tell."""
    killed = threading.Event()
    sink.behave = lambda _, count: killed.wait(60) and None if count == 1 else 200
    process = serve("new")
    assert sink.arrived.acquire(timeout=30)
    _kill(process)
    killed.set()
    process = serve("again")
    assert sink.arrived.acquire(timeout=30)
    database = open_database(state.database_url)
    for _ in range(600):  # the record follows the answer
        with database.begin() as connection:
            if connection.execute(sa.select(NOTICES.c.delivered_ms)).scalar_one():
                break
        threading.Event().wait(0.05)
    _kill(process)
    database.close()
    assert events(sink) == ["opened The disk is full"] * 2
    assert len(set(sink.keys())) == 1
