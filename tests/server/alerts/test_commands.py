"""``fleet-server alerts`` against a running server over HTTP, and ``test`` against a real receiver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from server.alerts.config import AlertRoute
from server.app.state_directory import RunAddress
from server.cli import main
from tests.server.conftest import MemoryFleet

from .conftest import CAUSE, HttpSink


@pytest.fixture
def running(fleet: MemoryFleet) -> Iterator[MemoryFleet]:
    """A server that answers over HTTP and has one alert."""
    fleet.app.web.start()
    fleet.state.write_address(RunAddress(http_url=fleet.app.http_url, mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    fleet.app.parts.alerts.settle([CAUSE], fleet.clock())
    yield fleet
    fleet.app.web.stop()


def run(fleet: MemoryFleet, *words: str) -> Result:
    """Run a command; the state directory comes after its name."""
    return CliRunner().invoke(main, ["alerts", words[0], str(fleet.state.path), *words[1:]])


def test_alerts_are_printed_and_dealt_with(running: MemoryFleet) -> None:
    """The table, each act with the name, the history, and what is refused."""
    table = run(running, "list").stdout.splitlines()
    assert table[0].startswith("id\tseverity\tstate\tkind\ttitle")
    assert table[1].startswith("1\talarm\topen\taway\tDevice cam-1 is lost\t1\tnorth\t")
    assert "state        acknowledged" in run(running, "ack", "1", "--by", "ada").stdout
    assert json.loads(run(running, "take", "1", "--by", "bo", "--json").stdout)["owner"] == "bo"
    assert "state        snoozed" in run(running, "snooze", "1", "--for", "4h", "--by", "bo").stdout
    assert "bo: the fuse" in run(running, "resolve", "1", "--note", "the fuse", "--by", "bo").stdout
    shown = run(running, "show", "1").stdout
    assert [line.split()[2] for line in shown.splitlines() if line.startswith("act  ")] == [
        "opened", "acknowledged", "taken", "snoozed", "resolved",
    ]  # fmt: skip
    assert "at least once" in shown
    assert json.loads(run(running, "list", "--json").stdout) == []
    assert len(json.loads(run(running, "list", "--state", "all", "--json").stdout)) == 1
    refused = run(running, "ack", "1")
    assert (refused.exit_code, "error [alert_refused]" in refused.stderr) == (1, True)


@pytest.mark.parametrize("span", ["4", "0h", "h", "1w", "-1h", "1.5h"])
def test_a_time_that_is_none_is_refused(fleet: MemoryFleet, span: str) -> None:
    """Before the server is asked."""
    found = run(fleet, "snooze", "1", "--for", span)
    assert (found.exit_code, "such as 30m, 4h or 2d" in found.stderr) == (2, True)


def test_a_route_that_fails_is_named_beside_the_table(running: MemoryFleet) -> None:
    """On standard error, so that a script's table stays one."""
    alerts = running.app.parts.alerts
    alerts.config = replace(
        alerts.config, route=(AlertRoute(name="pager", url="http://127.0.0.1:1/", secret_file="x"),)
    )
    alerts.settle([CAUSE, replace(CAUSE, key="away:device:cam-2")], running.clock())
    assert run(running, "list").stderr == ""
    with running.app.parts.database.begin() as connection:
        connection.exec_driver_sql("UPDATE alert_outbox SET attempts = 3, error = 'got 500'")
    assert run(running, "list").stderr == "not delivered by pager: 1, tried 3 times: got 500\n"
    assert run(running, "routes").stdout.splitlines()[1].startswith("pager\t1\t")


def test_a_trial_prints_what_the_receiver_answered(fleet: MemoryFleet, sink: HttpSink, secret: Path) -> None:
    """Without a running server; an unknown route and a refusal have their codes."""
    fleet.state.config.write_text(
        f'[[alerts.route]]\nname = "pager"\nurl = "{sink.url}"\nsecret_file = "{secret}"\ntimeout_s = 5\n'
    )
    sink.behave = lambda _, count: 200 if count == 1 else 503
    found = run(fleet, "test", "pager")
    assert (found.exit_code, found.stdout) == (0, "accepted   200 noted\n")
    assert json.loads(sink.heard[0].body)["event"] == "test"
    refused, unknown = run(fleet, "test", "pager"), run(fleet, "test", "pgaer")
    assert (refused.exit_code, "error [delivery_failed]" in refused.stderr) == (1, True)
    assert "(pager), got 'pgaer'" in unknown.stderr
