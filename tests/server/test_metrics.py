"""``/metrics``: true figures, labels that don't grow with the fleet, and files that Prometheus itself accepts."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from server.alerts.config import AlertRoute
from server.app.overall import Signals
from server.cli import main
from server.errors import ClientFileError
from server.prometheus import FILES, Scraped, write_files
from tests.edge_agent.sinks.receiver import until
from tests.server.alerts.conftest import CAUSE
from tests.server.conftest import MemoryFleet
from wire.messages import DeviceState, State

DASHBOARD = "grafana.json"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus); scripts/setup test installs it"
)


@pytest.fixture(autouse=True)
def _reads_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, what the server read is answered again for some seconds."""
    monkeypatch.setattr("server.app.metrics._FRESH_S", 0.0)


def figures(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def asked(fleet: MemoryFleet) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the figures that the server answers now."""
    answer = fleet.client().get("/metrics")
    assert answer.status_code == 200
    return figures(answer.text)


def of(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """Return one figure."""
    return found[name, frozenset(labels.items())]


def lose(fleet: MemoryFleet) -> None:
    """Let a device connect and break off."""
    device = fleet.enrol("cam-9")
    for state in (DeviceState.READY, DeviceState.LOST):
        device.say("state", State(state=state, boot="ab" * 8))
        fleet.turn()


@pytest.mark.stores
def test_the_size_of_the_database_is_there_whatever_it_is(fleet: MemoryFleet) -> None:
    """A file, or what PostgreSQL says of its own."""
    told = fleet.client().get("/metrics").text.splitlines()
    (line,) = [one for one in told if one.startswith("tinyfleet_database_bytes ")]
    assert float(line.split()[1]) > 100_000


def test_the_figures_are_those_of_the_overall_status(fleet: MemoryFleet) -> None:
    """A lost device counts as such; a signal without names is 0 and not missing."""
    for number in range(3):
        fleet.enrol(f"cam-{number}").say("state", State(state=DeviceState.READY, boot="ab" * 8))
    lose(fleet)
    found = asked(fleet)
    assert of(found, "tinyfleet_devices") == 4
    assert of(found, "tinyfleet_devices_by_state", state="ready") == 3
    concerns = {
        dict(labels)["signal"]: value for (name, labels), value in found.items() if name.endswith("concern_names")
    }
    assert set(concerns) == {field.name for field in fields(Signals)} - {"devices"}
    overall = fleet.client().get("/api/overall").json()
    named = {one["signal"]: one["count"] for one in overall["concerns"] if one["names"]}
    assert {name: value for name, value in concerns.items() if value} == named
    assert of(found, "tinyfleet_overall", level=overall["level"]) == 1
    assert of(found, "tinyfleet_concern_names", signal="lost", level="alarm") == 1


def test_no_label_names_a_device_a_site_or_an_unknown_path(fleet: MemoryFleet) -> None:
    """The number of series does not grow with the fleet, nor with what strangers ask for."""
    before = len(asked(fleet))
    for number in range(20):
        fleet.enrol(f"cam-{number}", f"site-{number}")
    client = fleet.client(None)
    for number in range(20):
        client.get(f"/api/nothing/{number}")
        client.request(f"ODD{number}", "/api/health")
        client.get(f"/api/devices/cam-{number}")
    found = asked(fleet)
    labels = {value for _, given in found for _, value in given}
    assert not any(value.startswith(("cam-", "site-", "ODD")) for value in labels)
    assert len(found) - before < 100
    assert "/api/devices/{device}" in labels


def test_without_a_token_nothing_is_told(fleet: MemoryFleet) -> None:
    """How many devices are lost is no business of strangers."""
    answer = fleet.client(None).get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_a_database_that_cannot_be_read_is_said_and_the_rest_answers(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alert on the server's own health needs those figures most when the database is gone."""

    def refuse() -> object:
        raise OSError

    monkeypatch.setattr(type(fleet.app.parts.situation), "read", lambda _self: refuse())
    found = asked(fleet)
    assert of(found, "tinyfleet_readable") == 0
    assert of(found, "tinyfleet_server_check_ok", check="database") == 1
    assert not any(name == "tinyfleet_devices" for name, _ in found)


def test_the_files_name_server_token_and_authority(tmp_path: Path) -> None:
    """A path with a quotation mark stays one string."""
    server = Scraped(url="https://fleet.example.org:8443", token_file='/etc/a "b"/token', ca="/etc/ca.pem")
    assert [path.name for path in write_files(tmp_path / "watch", server)] == list(FILES)
    text = (tmp_path / "watch" / "prometheus.yml").read_text()
    assert "@" not in text
    assert 'credentials_file: "/etc/a \\"b\\"/token"' in text
    assert 'ca_file: "/etc/ca.pem"' in text


def test_files_that_exist_are_kept(tmp_path: Path) -> None:
    """A person's own rules are never replaced, and nothing is half-written."""
    (tmp_path / "alerts.yml").write_text("mine")
    with pytest.raises(ClientFileError, match=r"without alerts\.yml"):
        write_files(tmp_path, Scraped(url="http://127.0.0.1:1", token_file="t"))
    assert [path.name for path in tmp_path.iterdir()] == ["alerts.yml"]
    assert (tmp_path / "alerts.yml").read_text() == "mine"


def test_the_command_needs_a_server_that_has_run(fleet: MemoryFleet, tmp_path: Path) -> None:
    """Otherwise there is no address to ask."""
    answer = CliRunner().invoke(main, ["prometheus", str(fleet.state.path), str(tmp_path / "watch")])
    assert (answer.exit_code, (tmp_path / "watch").exists()) == (1, False)
    assert "fleet-server run" in answer.stderr


def expressions() -> list[str]:
    """Return every expression of the dashboard, with the job's name for its variable."""
    document = json.loads((Path(__file__).parents[2] / "server/prometheus" / DASHBOARD).read_text())
    return [target["expr"].replace("$job", "tinyfleet") for panel in document["panels"] for target in panel["targets"]]


@needs_promtool
def test_promtool_accepts_settings_rules_figures_and_the_dashboards_expressions(
    fleet: MemoryFleet, tmp_path: Path
) -> None:
    """Prometheus' own judge of each file, and of the names of our figures."""
    token = tmp_path / "token"
    token.write_text("x")
    write_files(tmp_path / "watch", Scraped(url="http://127.0.0.1:1", token_file=str(token)))
    rules = [{"record": f"dashboard:expression_{number}", "expr": text} for number, text in enumerate(expressions())]
    (tmp_path / "dashboard.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for arguments in (
        ("check", "config", str(tmp_path / "watch/prometheus.yml")),
        ("check", "rules", str(tmp_path / "watch/alerts.yml"), str(tmp_path / "dashboard.yml")),
    ):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    text = fleet.client().get("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_promtool
@pytest.mark.parametrize(
    ("series", "value", "alert"),
    [
        ('up{job="tinyfleet"}', "0x20", "FleetServerDown"),
        ('tinyfleet_server_check_ok{check="disk"}', "0x20", "FleetServerUnwell"),
        ('tinyfleet_concern_names{signal="lost",level="alarm"}', "2x20", "FleetDevicesLost"),
        ('tinyfleet_verdicts_open{kind="site"}', "1x20", "FleetVerdictOpen"),
        ('tinyfleet_rollouts_open{phase="paused"}', "1x20", "FleetRolloutPaused"),
        ('tinyfleet_concern_names{signal="members_failed",level="attention"}', "1x20", "FleetUpdatesFail"),
    ],
)
def test_each_rule_fires_on_what_it_is_about_and_is_quiet_otherwise(
    tmp_path: Path, series: str, value: str, alert: str
) -> None:
    """Evaluated by promtool on a made series: with the fault the alert fires, with the opposite it does not."""
    well = "1x20" if value.startswith("0") else "0x20"
    rules = Path(__file__).parents[2] / "server/prometheus/alerts.yml"
    for values, count in ((value, 1), (well, 0)):
        query = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
        case = {
            "interval": "1m", "input_series": [{"series": series, "values": values}],
            "promql_expr_test": [
                {"expr": query, "eval_time": "15m", "exp_samples": [{"labels": "{}", "value": count}]}
            ],
        }  # fmt: skip
        file = tmp_path / f"{count}.yml"
        file.write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [case]}))
        done = subprocess.run(
            ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus")
def test_a_real_prometheus_scrapes_the_server_and_answers_what_the_dashboard_asks(
    fleet: MemoryFleet, tmp_path: Path
) -> None:
    """With the files as they are written, but each second: no panel is empty because of a wrong name."""
    lose(fleet)
    web = fleet.app.web
    web.start()
    url = f"http://127.0.0.1:{web.listener.getsockname()[1]}"
    (token := tmp_path / "token").write_text(fleet.state.token("operator"))
    write_files(tmp_path / "watch", Scraped(url=url, token_file=str(token)))
    settings = tmp_path / "watch/prometheus.yml"
    settings.write_text(settings.read_text().replace("interval: 30s", "interval: 1s"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["prometheus", f"--config.file={settings}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)

    def answers(expression: str) -> list[object]:
        try:
            found = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression}, trust_env=False)
        except httpx.TransportError:
            return []
        return list(found.json()["data"]["result"]) if found.status_code == 200 else []

    try:
        until(lambda: answers('ALERTS{alertname="FleetDevicesLost"}'), 60.0)
        until(lambda: answers("rate(process_cpu_seconds_total[5m])"), 60.0)
        until(lambda: answers("rate(tinyfleet_http_request_seconds_count[5m])"), 60.0)
        empty = {text for text in expressions() if not answers(text)}
    finally:
        process.terminate()
        process.wait(30)
        web.stop()
    assert not empty


def test_alerts_are_counted_by_severity_and_what_waits_to_be_delivered(fleet: MemoryFleet) -> None:
    """Each severity has a series, also without an alert; a notice that waits has its age."""
    found = asked(fleet)
    assert of(found, "tinyfleet_alerts_open", severity="alarm") == 0
    assert (of(found, "tinyfleet_alerts_undelivered"), of(found, "tinyfleet_alerts_undelivered_seconds")) == (0, 0)
    alerts = fleet.app.parts.alerts
    alerts.config = replace(alerts.config, route=(AlertRoute(name="a", url="http://127.0.0.1:1/", secret_file="x"),))
    alerts.settle([CAUSE], fleet.clock())
    fleet.clock.now_ms += 7_000
    found = asked(fleet)
    assert of(found, "tinyfleet_alerts_open", severity="alarm") == 1
    assert (of(found, "tinyfleet_alerts_undelivered"), of(found, "tinyfleet_alerts_undelivered_seconds")) == (1, 7)
