"""The client of the REST interface, against a real server over HTTP and TLS."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import hashlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.alerts import api as alerts
from server.api import devices, events, evidence, health, releases, retraining, rollouts
from server.app.server import ServerApp
from server.app.state_directory import RunAddress
from server.cli import main
from server.client import (
    AlertActInfo,
    AlertDeliveryInfo,
    AlertInfo,
    AlertRouteInfo,
    AuditInfo,
    ClaimChangeInfo,
    CommandInfo,
    CommissionInfo,
    Concern,
    DeviceInfo,
    EventInfo,
    FleetClient,
    FleetStatus,
    GroupRiskInfo,
    LabelChangeInfo,
    PatchInfo,
    PlaceInfo,
    ReleaseInfo,
    RiskInfo,
    RolloutDevice,
    RolloutGroup,
    RolloutInfo,
    SampleInfo,
    VerdictInfo,
)
from server.drift.ledger import Finding
from server.drift.places import NewPlace
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.errors import AnsweredError, AnswerInvalidError, ClientFileError, NotRunningError
from server.retraining.config import AuditConfig
from tests.server.alerts.conftest import CAUSE
from tests.server.conftest import publish_bytes
from wire.canonical import sha256_hex
from wire.codec import Json, decode
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Command, DeviceState, Response, Sample, Severity, State
from wire.transport import Incoming
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from server.app.state_directory import StateDirectory
    from tests.server.conftest import FakeClock, MemoryFleet


@pytest.fixture
def client(fleet: MemoryFleet) -> Iterator[FleetClient]:
    """A client of a fleet with one device and one release, served over HTTP."""
    fleet.enrol().say("state", State(state=DeviceState.READY), retain=True)
    data, versions = b"bundle", fleet.app.parts.versions
    versions.blobs.put(sha256_hex(data), [data])
    custom = TargetCustom(model="m", version=1, target="g", hardware=("x86_64",))
    versions.register(target_path("m", 1, "g"), custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=5)
    fleet.turn()
    fleet.app.web.start()
    with FleetClient(fleet.app.http_url, fleet.state.path / "operator.token") as found:
        yield found


def upload(fleet: MemoryFleet, count: int) -> None:
    """Store samples of different images."""
    for number in range(count):
        data = b"\x89PNG image %d" % number
        digest, text = hashlib.sha256(data).hexdigest(), base64.b64encode(data).decode()
        fleet.app.parts.retraining.samples.accept(
            "cam-1", Sample(boot="b", seq=number, at_ms=40 + number, sha256=digest, data=text), 50
        )


def answer_commands(fleet: MemoryFleet, data: dict[str, Json]) -> None:
    """Let a device cam-2 answer ``logs``, and refuse everything else."""
    device = fleet.enrol("cam-2")

    def hear(notice: object) -> None:
        if isinstance(notice, Incoming) and "/cmd/" in notice.topic and not notice.topic.endswith("/ack"):
            command = decode(Command, notice.payload)
            fits = command.verb == "logs"
            device.say("res", Response(id=command.id, ok=fits, code="" if fits else "busy", data=data if fits else {}))

    device.transport.start(hear, subscriptions=("tf/1/berlin/cam-2/cmd/#",))


@contextlib.contextmanager
def turning(fleet: MemoryFleet) -> Iterator[None]:
    """Let the server turn while the test waits for it."""
    done = threading.Event()

    def turn() -> None:
        while not done.wait(0.02):
            fleet.turn()

    thread = threading.Thread(target=turn)
    thread.start()
    yield
    done.set()
    thread.join()


def test_a_command_is_returned_with_the_device_s_answer(client: FleetClient, fleet: MemoryFleet) -> None:
    """An answer, a refusal, and none in time."""
    answer_commands(fleet, {"lines": ["a", "b"], "left_out": 3})
    with turning(fleet):
        logs, refused = client.command("cam-2", "logs", {"lines": 2}), client.command("cam-2", "benchmark")
        silent = client.command("cam-1", "selftest", wait_s=0.5)
    assert (logs.ok, logs.data, logs.verb) == (True, {"lines": ["a", "b"], "left_out": 3}, "logs")
    assert (refused.ok, refused.code, silent.answered_ms) == (False, "busy", 0)


def test_commands_of_the_server_print_what_a_device_answers(client: FleetClient, fleet: MemoryFleet) -> None:
    """Lines as they are; a refusal and a device that is silent have a code and exit code 1."""
    answer_commands(fleet, {"lines": ["time=1 a", "time=2 b"], "left_out": 3})
    fleet.state.write_address(RunAddress(http_url=client.url, mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    folder = str(fleet.state.path)
    with turning(fleet):
        logs = CliRunner().invoke(main, ["devices", "logs", folder, "cam-2"])
        refused = CliRunner().invoke(main, ["devices", "benchmark", folder, "cam-2"])
        silent = CliRunner().invoke(main, ["devices", "logs", folder, "cam-1", "--wait", "1"])
    assert (logs.exit_code, logs.stdout, "3 older lines" in logs.stderr) == (0, "time=1 a\ntime=2 b\n", True)
    assert (refused.exit_code, "error [busy]: cam-2" in refused.stderr) == (1, True)
    assert (silent.exit_code, "error [no_answer]" in silent.stderr) == (1, True)


BODIES = {
    CommandInfo: devices.CommandBody,
    PatchInfo: releases.PatchBody, DeviceInfo: devices.DeviceBody, ReleaseInfo: releases.ReleaseBody,
    RolloutInfo: rollouts.RolloutBody,
    RolloutGroup: rollouts.GroupBody, RolloutDevice: rollouts.MemberBody, SampleInfo: retraining.SampleBody,
    LabelChangeInfo: retraining.LabelChangeBody, ClaimChangeInfo: retraining.ClaimChangeBody,
    AuditInfo: retraining.AuditBody, GroupRiskInfo: retraining.GroupRiskBody, RiskInfo: retraining.RiskBody,
    VerdictInfo: evidence.VerdictBody, PlaceInfo: evidence.PlaceBody, CommissionInfo: evidence.CommissionBody,
    AlertInfo: alerts.WholeAlertBody, AlertActInfo: alerts.ActBody, AlertDeliveryInfo: alerts.DeliveryBody,
    AlertRouteInfo: alerts.WaitingBody, EventInfo: events.EventBody, FleetStatus: health.OverallBody,
    Concern: health.ConcernBody,
}  # fmt: skip


@pytest.mark.parametrize("cls", BODIES)
def test_every_field_of_an_answer_has_a_place_and_a_default(cls: type) -> None:
    """Fields of today's server are typed; an older server may omit any of them."""
    assert sorted(field.name for field in dataclasses.fields(cls)) == sorted(BODIES[cls].model_fields)
    cls()


def test_one_device_is_asked_for_audit_samples(client: FleetClient, fleet: MemoryFleet) -> None:
    """Only where the server may ask devices for inputs, and with a count that makes sense."""
    ask = ["audit", "ask", str(fleet.state.path), "cam-1", "--count", "12"]
    with pytest.raises(AnsweredError, match="enabled = true"):
        client.request("POST", "/api/audit/cam-1")
    fleet.app.parts.audit.config = AuditConfig(enabled=True)
    with pytest.raises(AnsweredError):
        client.request("POST", "/api/audit/cam-1", {"count": 0})
    fleet.state.write_address(RunAddress(http_url=client.url, mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    done = CliRunner().invoke(main, ask)
    assert (done.exit_code, done.output.split()[0]) == (0, "cam-1"), done.output
    sent = fleet.app.parts.fleet.last_command("cam-1", "samples")
    assert sent is not None
    assert client.request("POST", "/api/audit/cam-1", {"count": 12})["device"] == "cam-1"


def test_settings_of_the_audit_without_effect_are_told_to_clients(client: FleetClient, fleet: MemoryFleet) -> None:
    """And by the command beside its table, on standard error, so that the table stays one."""
    publish_bytes(fleet.app.parts.versions, "gestures")
    fleet.app.parts.audit.config = AuditConfig(enabled=True, models={"gestrues": 3000})
    (text,) = client.idle_audit_settings()
    assert text.startswith("[audit] models names 'gestrues', which no release is of")
    fleet.state.write_address(RunAddress(http_url=client.url, mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    done = CliRunner().invoke(main, ["audit", "list", str(fleet.state.path)])
    assert (done.exit_code, done.stderr, "gestrues" in done.stdout) == (0, f"{text}\n", False)


def test_a_large_fleet_comes_in_pages(client: FleetClient, fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call returns them all; filters are the server's."""
    for index in range(2, 7):
        fleet.enrol(f"cam-{index}", site="south")
    monkeypatch.setattr("server.api.devices._SHOWN", 2)
    monkeypatch.setattr("server.client._PAGE", 2)
    assert [one.device for one in client.devices()] == [f"cam-{index}" for index in range(1, 7)]
    assert [one.device for one in client.devices(site="south", search="cam-4")] == ["cam-4"]
    assert client.devices(condition="lost") == ()
    with pytest.raises(AnsweredError, match="condition"):
        client.devices(condition="tired")


def test_devices_and_releases_are_typed(client: FleetClient) -> None:
    """The contents of the registry, as frozen values; devices that have left are listed separately."""
    (device,) = client.devices()
    assert (device.device, device.site, device.state, device.attributes) == ("cam-1", "berlin", "ready", {"lens": "a"})
    assert client.device("cam-1") == device
    assert client.devices(ended=True) == ()
    (release,) = client.releases()
    assert (release.name, release.hardware, release.registered_ms) == ("m-1", ("x86_64",), 5)
    assert client.running("m-1") == ()


def test_a_device_is_tagged_named_and_found(client: FleetClient) -> None:
    """Each call returns the device as it is then."""
    name = client.devices()[0].device
    assert client.tag_device(name, add=("night", "indoor")).tags == ("indoor", "night")
    assert client.tag_device(name, remove=("indoor",)).tags == ("night",)
    assert client.rename_device(name, "Gate").title == "Gate"
    assert [one.device for one in client.devices(tag="night")] == [name]
    assert client.devices(tag="day") == ()


def test_a_device_is_muted_and_unmuted(client: FleetClient) -> None:
    """Each call returns the device as it is then; a person's reason is kept."""
    name = client.devices()[0].device
    muted = client.mute_device(name, why="power works", by="ada")
    assert (muted.muted_ms > 0, muted.muted_until_ms, muted.muted_why) == (True, 0, "power works")
    assert [one.device for one in client.devices(condition="muted")] == [name]
    assert client.unmute_device(name).muted_ms == 0


def test_a_rollout_from_creation_to_its_end(client: FleetClient) -> None:
    """Made, approved, paused, resumed and aborted; groups and devices are typed too."""
    made = client.create_rollout("m-1", canary=["cam-1"])
    assert (made.release, made.groups[0].total, made.members[0].device) == ("m-1", 1, "cam-1")
    acts = [client.approve, client.pause, client.resume, partial(client.abort, by="ada", why="wrong labels")]
    phases = [made.phase, *(act(made.id).phase for act in acts)]
    assert phases == ["awaiting_approval", "running", "paused", "running", "aborting"]
    assert [one.id for one in client.rollouts()] == [made.id]
    found = client.rollout(made.id)
    assert (found.phase, found.text, found.replaced) == ("aborting", "Aborted by ada: wrong labels", 0)
    assert found.committed_ratio is None


def test_a_rollout_of_a_scope_by_client_and_by_command(client: FleetClient, fleet: MemoryFleet) -> None:
    """Both send the same request; a refusal names the reason, and a wrong option is said before anything is sent."""
    fleet.state.write_address(RunAddress(http_url=client.url, mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    create = ["rollouts", "create", str(fleet.state.path), "m-1"]
    refused = CliRunner().invoke(main, [*create, "--site", "oslo"])
    assert (refused.exit_code, "no device is in the scope (sites oslo)" in refused.stderr) == (1, True)
    assert CliRunner().invoke(main, [*create, "--canary", "1", "--first", "cam-1"]).exit_code == 2
    assert CliRunner().invoke(main, [*create, "--attribute", "lens"]).exit_code == 2
    options = ["--site", "berlin", "--attribute", "lens=a", "--newcomers", "--first", "cam-1"]
    made = CliRunner().invoke(main, [*create, *options])
    (found,) = client.rollouts()
    assert (made.exit_code, made.stdout) == (0, f"{found.id} awaiting_approval\n")
    assert (found.scope["sites"], found.scope["attributes"], found.newcomers) == (["berlin"], {"lens": "a"}, True)
    client.abort(found.id)
    fleet.turn()
    fleet.turn()
    again = client.create_rollout("m-1", canary=["cam-1"], scope={"sites": ["berlin"], "attributes": {"lens": "a"}})
    assert (again.scope, again.newcomers) == (found.scope, False)


def test_when_how_fast_and_what_is_compared_by_command(client: FleetClient, fleet: MemoryFleet) -> None:
    """Each option reaches the rollout; half a window or a limit of nothing is said before anything is sent."""
    fleet.state.write_address(RunAddress(http_url=client.url, mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    create = ["rollouts", "create", str(fleet.state.path), "m-1"]
    for wrong in (["--days", "mon"], ["--window", "22:00"], ["--shadow-limit", "0.1"], ["--shadow-required"],
                  ["--deadline", "0"], ["--errors", "nan"], ["--max-bytes-per-s", "-1"]):  # fmt: skip
        assert CliRunner().invoke(main, [*create, *wrong]).exit_code == 2, wrong
    refused = CliRunner().invoke(main, [*create, "--window", "22:00-06:00", "--time-zone", "Mars/Base"])
    assert (refused.exit_code, "Expected a time zone of the IANA database" in refused.stderr) == (1, True)
    options = ["--window", "22:00-06:00", "--days", "sat, sun", "--time-zone", "Europe/Berlin", "--deadline", "700000"]
    options += ["--probation", "60", "--success", "0.8", "--errors", "0.1", "--max-bytes-per-s", "20000"]
    options += ["--shadow", "3600", "--shadow-limit", "0.02", "--shadow-required"]
    assert CliRunner().invoke(main, [*create, *options]).exit_code == 0
    (found,) = client.rollouts()
    window = {"start": "22:00", "end": "06:00", "days": ["sat", "sun"], "time_zone": "Europe/Berlin"}
    assert (found.window, found.deadline_s, found.probation_s, found.max_bytes_per_s) == (window, 700_000, 60, 20_000)
    assert found.shadow == {"seconds": 3600, "max_ratio": 0.02, "required": True}
    assert (found.groups[0].success_ratio, found.groups[0].error_ratio) == (0.8, 0.1)


def test_a_plain_rollout_is_asked_for_as_older_servers_know_it(
    client: FleetClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They refuse keys that they don't know; ``scope`` and ``newcomers`` are sent where they say something."""
    asked: list[object] = []
    monkeypatch.setattr(FleetClient, "_post", lambda _self, made, _path, body: asked.append(body) or made())
    client.create_rollout("m-1", canary=1)
    client.create_rollout("m-1", scope={"sites": ["berlin"]}, newcomers=True)
    plain = {"release": "m-1", "canary": 1, "approved": False}
    assert asked == [plain, {**plain, "canary": None, "scope": {"sites": ["berlin"]}, "newcomers": True}]


@pytest.mark.parametrize("page", [1, 2, 3, 5, 6])
def test_samples_come_page_by_page_each_once(client: FleetClient, fleet: MemoryFleet, page: int) -> None:
    """Newest first, unlabelled ones oldest first, whatever the size of a page."""
    upload(fleet, 5)
    assert [one.id for one in client.samples(page=page)] == [5, 4, 3, 2, 1]
    fleet.app.parts.retraining.samples.label(3, "7", "ann", 60)
    assert [one.id for one in client.samples(unlabelled=True, page=page)] == [1, 2, 4, 5]


def test_a_sample_is_seen_and_labelled(client: FleetClient, fleet: MemoryFleet) -> None:
    """Its bytes as the device sent them; the label with the person."""
    upload(fleet, 1)
    (sample,) = client.samples()
    assert hashlib.sha256(client.image(sample.id)).hexdigest() == sample.sha256
    labelled = client.label(sample.id, "7", by="ann")
    assert (labelled.label, labelled.label_by) == ("7", "ann")
    with pytest.raises(AnsweredError, match="ann has labelled '7'") as caught:
        client.label(sample.id, "8", by="ben")
    assert caught.value.answered == "label_taken"
    assert client.label(sample.id, "8", by="ben", replaces="7").label_by == "ben"
    (change,) = client.label_changes(sample.id)
    assert (change.label, change.label_by, change.new_label, change.changed_by) == ("7", "ann", "8", "ben")
    assert change.labelled_ms == labelled.labelled_ms > 0
    with pytest.raises(AnsweredError, match="id of a sample"):
        client.label_changes(99)
    assert list(client.samples(unlabelled=True)) == []


def test_a_claim_that_its_user_changed_is_seen(client: FleetClient, fleet: MemoryFleet) -> None:
    """Beside the changes of the label, by sample; the sample names the model to which both belong."""
    for seq, claimed in ((1, "7"), (2, "none of these")):
        data = b"a picture"
        correction = Sample(
            boot="b" * 16, seq=seq, sha256=hashlib.sha256(data).hexdigest(), lane="correction", label=claimed,
            artifact_sha256="5" * 64, data=base64.b64encode(data).decode(),
        )  # fmt: skip
        fleet.app.parts.retraining.samples.accept("cam-1", correction, 50 + seq)
    assert {(one.claimed, one.model) for one in client.samples()} == {("none of these", "5" * 64)}
    (change,) = client.claim_changes(1)
    assert (change.device, change.claimed, change.new_claimed, change.changed_ms) == ("cam-1", "7", "none of these", 52)
    assert client.label_changes(1) == ()


@pytest.mark.parametrize("page", [1, 2, 200])
def test_events_are_followed_from_an_id(client: FleetClient, fleet: MemoryFleet, page: int) -> None:
    """All of them over any number of pages, then only new ones."""
    for number in range(5):
        fleet.app.parts.events.add(number, "server", f"code_{number}", Severity.INFO, "text")
    seen = list(client.events(page=page))
    assert [one.code for one in seen][-5:] == [f"code_{number}" for number in range(5)]
    last = max(one.id for one in seen)
    assert list(client.events(after=last, page=page)) == []
    assert {one.device for one in client.events(device="cam-1", page=page)} <= {"cam-1"}


def test_a_new_place_is_read_and_accepted(fleet: MemoryFleet, client: FleetClient) -> None:
    """With its bounds; a device that does not exist is refused in the server's words."""
    verdicts, places = fleet.app.parts.drift.verdicts, fleet.app.parts.drift.places
    finding = Finding(
        verdict=DriftVerdict(kind=VerdictKind.NEW_PLACE, devices=("cam-1",)), cause="darker", release="m-1", model="m"
    )
    verdicts.note([finding], 10, 20, quiet_ms=20, judged=True)
    places.add(NewPlace(verdict=verdicts.open()[0].id, device="cam-1", site="berlin", model="m", release="m-1"))
    assert [(one.device, one.state, one.upper_risk) for one in client.places()] == [("cam-1", "open", 1.0)]
    accepted = client.accept_place("cam-1", why="a new hall", by="Ada")
    assert (accepted.state, accepted.decided_by, accepted.why) == ("accepted", "Ada", "a new hall")
    with pytest.raises(AnsweredError, match="registered device"):
        client.accept_place("cam-2", by="Ada")


def test_an_acceptance_is_taken_back(fleet: MemoryFleet, client: FleetClient) -> None:
    """While its verdict is open the place waits for labels again; nothing accepted, nothing to take back."""
    verdicts, places = fleet.app.parts.drift.verdicts, fleet.app.parts.drift.places
    finding = Finding(verdict=DriftVerdict(kind=VerdictKind.NEW_PLACE, devices=("cam-1",)), cause="darker")
    verdicts.note([finding], 10, 20, quiet_ms=20, judged=True)
    places.add(NewPlace(verdict=verdicts.open()[0].id, device="cam-1", site="berlin", model="m", release="m-1"))
    client.accept_place("cam-1", by="Ada")
    taken = client.withdraw_place("cam-1", why="it was cam-2", by="Bob")
    assert (taken.state, taken.decided_ms, taken.decided_by) == ("open", 0, "")
    with pytest.raises(AnsweredError, match="a person accepted"):
        client.withdraw_place("cam-1", by="Bob")
    last = next(one for one in client.events(device="cam-1") if one.code == "place_withdrawn")
    assert last.text == "cam-1: the acceptance of its place was taken back by Bob: it was cam-2"


def test_devices_are_commissioned_again(fleet: MemoryFleet, client: FleetClient) -> None:
    """One, and all of a site; with a reason."""
    hour_ms = fleet.app.parts.drift.config.window_ms
    one = client.commission("cam-1", why="lens replaced", by="Ada")
    assert (one.device, one.decided_by, one.why, one.attribute) == ("cam-1", "Ada", "lens replaced", "")
    assert one.from_ms % hour_ms == 0
    assert 0 <= one.from_ms - one.decided_ms < hour_ms
    fleet.enrol("cam-2")
    both = client.commission_all("site", "berlin", why="new lamps", by="Ada")
    assert [(one.device, one.value) for one in both] == [("cam-1", "berlin"), ("cam-2", "berlin")]
    assert [one.why for one in client.commissions()] == ["new lamps", "new lamps", "lens replaced"]
    for refused in (
        lambda: client.commission("cam-1", why="", by="Ada"), lambda: client.commission("nobody", why="x", by="Ada"),
        lambda: client.commission_all("site", "rome", why="x", by="Ada"),
    ):  # fmt: skip
        with pytest.raises(AnsweredError):
            refused()


def test_verdicts_and_the_status_of_all(client: FleetClient) -> None:
    """No verdict yet; concerns are typed."""
    status = client.status()
    assert client.verdicts(limit=3) == ()
    assert (status.well, status.level) == (not status.concerns, status.level)
    assert {one.signal for one in status.concerns}


def test_all_names_of_a_concern_come_page_by_page(
    client: FleetClient, fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status has the first, with how many there are and where; each name comes once."""
    monkeypatch.setattr(health, "_SHOWN", 2)
    monkeypatch.setattr(health, "NAMED", 2)
    monkeypatch.setattr("server.client._PAGE", 2)
    names = sorted(device.device for device in fleet.app.parts.fleet.devices() if device.last_seen_ms <= 0)
    names += [fleet.enrol(f"new-{index}").identity.device for index in range(5)]
    (concern,) = [one for one in client.status().concerns if one.signal == "never_seen"]
    assert (concern.count, concern.names, concern.address) == (
        len(names), tuple(names[:2]), "/api/overall/never_seen",
    )  # fmt: skip
    assert list(client.concern_names("never_seen")) == names
    assert list(client.concern_names("lost")) == []
    with pytest.raises(AnsweredError, match="is one of"):
        list(client.concern_names("sadness"))


def test_a_call_without_a_method_of_its_own_is_a_request(client: FleetClient) -> None:
    """Its answer is the JSON object itself; a refusal is the same error as of any method."""
    made = client.request("POST", "/api/claims", {"site": "berlin", "device": "cam-9"})
    assert made["claim"]
    assert client.request("GET", "/api/events", query={"limit": "1"})["events"] is not None
    with pytest.raises(AnsweredError, match="no-such"):
        client.request("GET", "/api/rollouts/no-such")


def test_refusals_carry_the_servers_code_and_the_next_step(client: FleetClient, fleet: MemoryFleet) -> None:
    """An unknown device (whatever is in its name), a rollout of no release, the builder's token."""
    for name in ("cam-9", "../releases", "a/b?c", ""):
        with pytest.raises((AnsweredError, AnswerInvalidError)):
            client.device(name)
    with pytest.raises(AnsweredError) as caught:
        client.create_rollout("m-9")
    assert caught.value.answered == "unknown_release"
    with (
        FleetClient(fleet.app.http_url, fleet.state.path / "builder.token") as other,
        pytest.raises(AnsweredError, match="got a token of builder, whose role is builder: ask an admin") as caught,
    ):
        other.devices()
    assert caught.value.answered == "forbidden"


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", "tøken".encode(), b"x" * 5000])
def test_a_token_comes_from_a_file_and_is_never_shown(tmp_path: Path, content: bytes) -> None:
    """A file without a token is named; its content is in no message."""
    path = tmp_path / "operator.token"
    path.write_bytes(content)
    with pytest.raises(ClientFileError, match=r"operator\.token") as caught:
        FleetClient("http://127.0.0.1:1", path)
    assert "lines" not in str(caught.value)


def test_the_token_is_in_no_repr_and_no_log(client: FleetClient, fleet: MemoryFleet, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip  # noqa: E501
    """Neither the client nor the HTTP library at its most talkative shows it."""
    with caplog.at_level(logging.DEBUG):
        client.devices()
    token = fleet.state.token("operator")
    assert token not in repr(client) + str(vars(client)) + caplog.text


@pytest.mark.parametrize("url", ["", "fleet.example", "ftp://fleet.example", "http://"])
def test_an_address_that_is_none_is_named(tmp_path: Path, url: str) -> None:
    """Before any request."""
    (tmp_path / "token").write_text("x")
    with pytest.raises(ClientFileError, match="Expected an address"):
        FleetClient(url, tmp_path / "token")


def test_silence_and_strangers_are_told_apart(tmp_path: Path) -> None:
    """No process listens; a process listens and does not answer in time."""
    (tmp_path / "token").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(NotRunningError, match=r"see that the server runs \(fleet-server run\)"):
            FleetClient(f"http://127.0.0.1:{port}", tmp_path / "token", timeout_s=0.1).devices()
    with pytest.raises(NotRunningError, match="Connection refused"):
        FleetClient(f"http://127.0.0.1:{port}", tmp_path / "token").devices()


def test_an_answer_of_another_kind_is_refused(client: FleetClient) -> None:
    """The error for a field of the wrong type names the field."""
    with pytest.raises(AnswerInvalidError, match="check the address"):
        client._get(list, "/api/docs")


def _certificate(folder: Path) -> None:
    """Write a certificate for the loopback address, signed by its own key, and the key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(names, critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "server.pem").write_bytes(made.public_bytes(pem))
    (folder / "server.key").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))


def test_tls_is_believed_by_the_ca_file_alone(state: StateDirectory, clock: FakeClock) -> None:
    """With the authority it answers; without it, under another name or with another file it is refused."""
    _certificate(state.path)
    with state.config.open("a") as file:
        file.write('[tls]\ncertificate = "server.pem"\nkey = "server.key"\nca = "server.pem"\n')
    transport = MemoryTransport(broker=MemoryBroker(), client_id="server")
    app = ServerApp.open(state.path, transport=transport, clock=clock, pages=False)
    token, ca, url = state.path / "operator.token", state.path / "server.pem", app.http_url
    try:
        app.connect()
        app.web.start()
        with FleetClient(url, token, ca=ca) as client:
            assert client.devices() == ()
        for address, trusted in ((url, None), (url.replace("127.0.0.1", "localhost"), ca)):
            with FleetClient(address, token, ca=trusted) as client, pytest.raises(NotRunningError, match="give ca="):
                client.devices()
        for path in (token, state.path / "absent.pem"):
            with pytest.raises(ClientFileError, match="Expected PEM certificates"):
                FleetClient(url, token, ca=path)
    finally:
        app.stop()


def test_alerts_are_listed_over_pages_and_dealt_with(client: FleetClient, fleet: MemoryFleet) -> None:
    """Each act returns the alert with its history; a refusal has its code."""
    causes = [dataclasses.replace(CAUSE, key=f"away:device:cam-{number}") for number in range(7)]
    fleet.app.parts.alerts.settle(causes, fleet.clock())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("server.alerts.api._SHOWN", 3)
        patched.setattr("server.client._PAGE", 3)
        assert [one.id for one in client.alerts()] == [7, 6, 5, 4, 3, 2, 1]
        assert client.alerts(kind="server") == ()
    assert client.take_alert(2, by="ada").owner == "ada"
    assert client.acknowledge_alert(3, by="ada").state == "acknowledged"
    snoozed = client.snooze_alert(4, 60, note="later", by="ada")
    assert (snoozed.state, snoozed.snoozed_until_ms) == ("snoozed", fleet.clock() + 60_000)
    assert client.note_alert(5, note="the fuse", by="bo").history[-1].text == "the fuse"
    assert client.resolve_alert(6, note="done", by="bo").resolved_by == "bo"
    assert [one.id for one in client.alerts(state="resolved")] == [6]
    assert (client.alert_routes(), client.alert(1).deliveries) == ((), ())
    with pytest.raises(AnsweredError, match="got 99"):
        client.alert(99)
