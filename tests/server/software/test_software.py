"""What devices run: reported as a digest, asked for once, found by name; with devices that lie."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from server.app.state_directory import RunAddress
from server.cli import main
from server.software.asking import EVERY_MS
from server.store.software.components import ComponentFilter, runner_page
from server.store.software.runs import store_list
from wire.canonical import sha256_hex
from wire.codec import decode, to_document
from wire.messages import Command, DeviceState, Reported, Response, State
from wire.software import (
    ComponentKind,
    InstalledSoftware,
    SoftwareComponent,
    SoftwareList,
    pack_software,
    software_digest,
    software_of,
)

if TYPE_CHECKING:
    from tests.server.conftest import FakeDevice, MemoryFleet

HOSTILE = "<script>alert('x')</script>%_\u202e"
MODEL = SoftwareComponent(ComponentKind.MODEL, "digits", "3", sha256="ab" * 32)


def listed(*versions: str) -> SoftwareList:
    """Return a list with a runtime of ``versions``, a package and a model."""
    runtimes = [SoftwareComponent(ComponentKind.RUNTIME, "onnxruntime", version) for version in versions]
    return software_of([*runtimes, SoftwareComponent(ComponentKind.PACKAGE, "Ai_Edge.X", "1.0"), MODEL])


OLD, NEW = listed("1.2.0"), listed("1.20.1")


def report(device: FakeDevice, software: SoftwareList | str, since_ms: int) -> None:
    """Let ``device`` be ready and report a list, or a digest."""
    digest = software if isinstance(software, str) else software_digest(software)
    device.say("state", State(state=DeviceState.READY, at_ms=since_ms, boot="ab" * 8))
    installed = InstalledSoftware(sha256=digest, since_ms=since_ms)
    device.say("reported", Reported(at_ms=since_ms, boot="ab" * 8, software=installed))


def asked(device: FakeDevice) -> list[Command]:
    """Return the questions that ``device`` has got."""
    return [decode(Command, item.payload) for item in device.heard if item.topic.endswith("/cmd/software")]


def answer(device: FakeDevice, data: dict[str, object], *, ok: bool = True, code: str = "") -> None:
    """Answer the last question."""
    device.say("res", Response(id=asked(device)[-1].id, ok=ok, code=code, data=data))  # type: ignore[arg-type]  # JSON


def turn(fleet: MemoryFleet, ms: int = EVERY_MS) -> None:
    """Let time pass, and the server do all that is due, twice: what it gets and what follows."""
    fleet.clock.now_ms += ms
    fleet.turn()
    fleet.turn()


def known(fleet: MemoryFleet, *lists: SoftwareList) -> list[FakeDevice]:
    """Return a device for each list, all answered."""
    devices = [fleet.enrol(f"cam-{number}") for number in range(len(lists))]
    for device, software in zip(devices, lists, strict=True):
        report(device, software, fleet.clock())
    turn(fleet)
    for device in devices:
        for question in asked(device):
            software = next(one for one in lists if software_digest(one) == question.arguments["sha256"])
            answer(device, to_document(pack_software(software)))
    turn(fleet)
    return devices


def names(fleet: MemoryFleet, name: str, **wanted: str) -> list[str]:
    """Return the devices that run ``name``."""
    return [one.device for one in fleet.app.parts.software.runners(name, **wanted).rows]  # type: ignore[arg-type]


@pytest.mark.stores
def test_a_list_is_asked_for_once_and_found_on_every_device_that_reports_it(fleet: MemoryFleet) -> None:
    """Three devices, two lists, two questions; names in any spelling, versions whole or by their beginning."""
    devices = known(fleet, OLD, OLD, NEW)
    assert sum(len(asked(device)) for device in devices) == 2
    assert names(fleet, "onnxruntime") == ["cam-0", "cam-1", "cam-2"]
    assert names(fleet, "ai-edge_x") == ["cam-0", "cam-1", "cam-2"]
    assert names(fleet, "onnxruntime", version="1.2.0") == ["cam-0", "cam-1"]
    assert names(fleet, "onnxruntime", version="1.2.*") == ["cam-0", "cam-1"]
    assert names(fleet, "onnxruntime", version="1.20.*", kind="runtime") == ["cam-2"]
    assert names(fleet, "onnxruntime", kind="package") == names(fleet, "onnx") == names(fleet, "a\0b") == []
    found = {(one.name, one.version): one.devices for one in fleet.app.parts.software.components().rows}
    assert found[("onnxruntime", "1.2.0")] == 2
    assert found[("digits", "3")] == 3
    assert fleet.app.parts.software.unknown() == (0, 0)


def test_one_device_is_enough(fleet: MemoryFleet) -> None:
    """A fleet of one reports, is asked, and is found."""
    known(fleet, OLD)
    assert names(fleet, "digits", kind="model") == ["cam-0"]


@pytest.mark.stores
def test_what_ran_at_a_time_follows_the_devices_own_times(fleet: MemoryFleet) -> None:
    """A change that was reported days later holds from when it happened; before the first report nothing is known."""
    began_ms = fleet.clock()
    (device,) = known(fleet, OLD)
    changed_ms = fleet.clock() + 1_000
    fleet.clock.now_ms += 3 * 86_400_000
    report_late = InstalledSoftware(sha256=software_digest(NEW), since_ms=changed_ms)
    device.say("reported", Reported(at_ms=fleet.clock(), boot="ab" * 8, software=report_late))
    turn(fleet)
    answer(device, to_document(pack_software(NEW)))
    turn(fleet)
    ledger = fleet.app.parts.software
    assert ledger.of_device("cam-0", changed_ms - 1).software == OLD
    assert ledger.of_device("cam-0", changed_ms).software == NEW
    assert [one.from_ms for one in ledger.runs("cam-0").rows] == [changed_ms, began_ms]
    assert names(fleet, "onnxruntime", version="1.2.0") == []
    refused = fleet.client().get(f"/api/devices/cam-0/software?at={began_ms - 1}")
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_software")


def test_a_device_that_lies_about_its_digest_is_passed_over_for_another(fleet: MemoryFleet) -> None:
    """The list is refused with an event, nothing is stored, and the next one that runs it is asked."""
    devices = [fleet.enrol("cam-0"), fleet.enrol("cam-1")]
    for device in devices:
        report(device, OLD, fleet.clock())
    turn(fleet)
    (liar,) = [device for device in devices if asked(device)]
    (honest,) = [device for device in devices if device is not liar]
    answer(liar, {**to_document(pack_software(NEW)), "sha256": software_digest(OLD)})
    turn(fleet)
    assert "software_invalid" in fleet.codes()
    assert names(fleet, "onnxruntime") == []
    assert fleet.app.parts.software.unknown() == (0, 2)
    turn(fleet, 60_000)
    answer(honest, to_document(pack_software(OLD)))
    turn(fleet)
    assert names(fleet, "onnxruntime") == ["cam-0", "cam-1"]


BOMB = base64.b64encode(zlib.compress(b" " * 5_000_000)).decode()
BAD: dict[str, dict[str, object]] = {
    "nothing": {}, "bomb": {"sha256": "x", "packed": BOMB}, "no text": {"packed": 5}, "long": {"packed": "A" * 200_000},
    "no list": {"packed": base64.b64encode(zlib.compress(b"[]")).decode()},
}  # fmt: skip


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_malformed_answer_stores_nothing_and_the_server_goes_on(fleet: MemoryFleet, data: dict[str, object]) -> None:
    """An event names the device; the digest stays without a list."""
    device = fleet.enrol("cam-0")
    report(device, OLD, fleet.clock())
    turn(fleet)
    answer(device, data)
    turn(fleet)
    assert fleet.codes().count("software_invalid") == 1
    assert fleet.app.parts.software.unknown() == (0, 1)
    document = fleet.client().get("/api/devices/cam-0/software")
    assert (document.status_code, document.json()["code"]) == (404, "unknown_software")


def test_a_device_that_refuses_is_asked_again_ever_more_rarely(fleet: MemoryFleet) -> None:
    """At most a handful of questions in six hours."""
    device = fleet.enrol("cam-0")
    report(device, OLD, fleet.clock())
    for _ in range(6 * 6):
        turn(fleet, 600_000)
        if asked(device):
            answer(device, {}, ok=False, code="software_too_long")
    assert 4 <= len(asked(device)) <= 12


def test_older_agents_and_digests_that_are_none_are_counted_as_unreported(fleet: MemoryFleet) -> None:
    """They are never asked; a device that goes back to an older agent ends its run."""
    old, odd, back = fleet.enrol("cam-0"), fleet.enrol("cam-1"), fleet.enrol("cam-2")
    old.say("reported", Reported(at_ms=fleet.clock(), boot="ab" * 8))
    report(odd, "'; DROP TABLE software_runs; --", fleet.clock())
    report(back, OLD, fleet.clock())
    turn(fleet)
    back.say("reported", Reported(at_ms=fleet.clock(), boot="cd" * 8))
    turn(fleet)
    assert asked(old) == asked(odd) == []
    assert fleet.app.parts.software.unknown() == (3, 0)


@pytest.mark.stores
def test_two_that_store_a_list_at_once_store_it_once(fleet: MemoryFleet) -> None:
    """The second finds it stored, and adds no components."""
    known(fleet, OLD)
    digest, database = software_digest(OLD), fleet.app.parts.database
    with database.begin() as connection:
        row = {"kind": "package", "key": "evil", "name": "evil", "version": "", "sha256": ""}
        assert not store_list(connection, digest, {"packed": b"", "left_out": 0, "stored_ms": 5}, [row])
        assert runner_page(connection, ComponentFilter(key="evil"), limit=9, cursor=None).rows == ()


def test_a_revoked_device_runs_nothing_and_its_past_stays(fleet: MemoryFleet) -> None:
    """It is not counted any more; what it ran is still there to be asked."""
    known(fleet, OLD, OLD)
    fleet.app.parts.revocations.revoke("cam-0", why="stolen", by="eve")
    assert names(fleet, "onnxruntime") == ["cam-1"]
    assert fleet.app.parts.software.of_device("cam-0", fleet.clock()).software == OLD


def test_an_id_that_is_given_again_runs_nothing_of_the_device_before(fleet: MemoryFleet) -> None:
    """Its first report ends what the id ran, also if its agent is an older one that reports no software."""
    known(fleet, OLD)
    fleet.app.parts.revocations.revoke("cam-0", why="lost", by="eve")
    fleet.app.parts.revocations.remove("cam-0", by="eve")
    again = fleet.enrol("cam-0")
    again.say("reported", Reported(at_ms=fleet.clock(), boot="cd" * 8))
    turn(fleet)
    assert names(fleet, "onnxruntime") == []
    assert fleet.app.parts.software.unknown() == (1, 0)


def test_hostile_names_come_back_as_they_are(fleet: MemoryFleet) -> None:
    """Found by their exact name, as data; unprintable ones never get into a list."""
    name = HOSTILE.replace("\u202e", "")
    known(fleet, software_of([SoftwareComponent(ComponentKind.PACKAGE, name, "1' OR 1=1")]))
    (found,) = fleet.client().get("/api/software/devices", params={"name": name}).json()["runners"]
    assert (found["name"], found["version"]) == (name, "1' OR 1=1")
    assert fleet.client().get("/api/software", params={"search": "100%_"}).json()["components"] == []
    assert software_of([SoftwareComponent(ComponentKind.PACKAGE, HOSTILE)]).left_out == 1


def test_lists_are_paged_and_odd_questions_refused(fleet: MemoryFleet) -> None:
    """Each device once over the pages; what can't be asked is 422 or 404, with a code."""
    known(fleet, OLD, OLD, NEW)
    client, seen, cursor = fleet.client(), [], None
    while True:
        query = {"name": "onnxruntime", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/software/devices", params=query).json()
        seen += [one["device"] for one in page["runners"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ["cam-0", "cam-1", "cam-2"]
    for path, status, code in (
        ("/api/software?kind=virus", 422, "request_invalid"), ("/api/software?cursor=x", 422, "cursor_refused"),
        ("/api/software/devices", 422, "request_invalid"), ("/api/devices/no/software", 404, "unknown_device"),
        ("/api/devices/a%00b/software/runs", 404, "unknown_device"), ("/api/software?limit=0", 422, "request_invalid"),
        ("/api/devices/cam-0/software?at=-1", 422, "request_invalid"),
    ):  # fmt: skip
        answered = client.get(path)
        assert (answered.status_code, answered.json()["code"]) == (status, code), path


def test_commands_and_the_document(fleet: MemoryFleet) -> None:
    """A table and JSON for scripts; the document is valid CycloneDX and names the device."""
    known(fleet, OLD, NEW)
    fleet.app.web.start()
    address = RunAddress(http_url=fleet.app.http_url, mqtt_host="127.0.0.1", mqtt_port=9, pid=1)
    fleet.state.write_address(address)

    def run(*words: str) -> tuple[int, str, str]:
        found = CliRunner().invoke(main, ["software", words[0], str(fleet.state.path), *words[1:]])
        return found.exit_code, found.stdout, found.stderr

    fleet.enrol("cam-9")
    code, table, said = run("find", "onnxruntime", "--version", "1.20.*")
    assert (code, [line.split("\t")[0] for line in table.splitlines()]) == (0, ["device", "cam-1"])
    assert "1 devices report no software" in said
    assert [one["devices"] for one in json.loads(run("list", "--search", "digits", "--json")[1])] == [2]
    document = run("show", "cam-0")[1]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
    assert json.loads(document)["metadata"]["component"]["name"] == "cam-0"
    assert run("runs", "cam-0")[1].splitlines()[1].endswith(software_digest(OLD))
    assert "error [unknown_software]" in run("show", "cam-9")[2]
    assert "error [unknown_device]" in run("show", "nobody")[2]
    assert sha256_hex(document.encode()) == sha256_hex(run("show", "cam-0")[1].encode())
