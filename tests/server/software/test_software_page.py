"""The pages of software: nothing reported, hostile names, ten thousand devices, and the document of one device."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.dashboard.pages.software import component_rows, runner_rows, unknown_text
from server.store.fleet import DEVICES
from server.store.software.runs import SOFTWARE_RUNS, begin_run, store_list
from server.trust.online_keys import init_online_keys
from tests.server.store.test_other_lists import row
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.software import ComponentKind, SoftwareComponent, pack_software, software_digest, software_of

HOSTILE = "<img src=x onerror=alert(1)>{{7*7}}"
LIST = software_of(
    [
        SoftwareComponent(ComponentKind.RUNTIME, "onnxruntime", "1.22.1"),
        SoftwareComponent(ComponentKind.PACKAGE, HOSTILE, "1&2 3"),
    ]
)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ServerApp]:
    """A running server without devices."""
    state = init_state(tmp_path / "state")
    init_online_keys(state.path)
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"))
    app.start()
    yield app
    app.stop()


def reports(app: ServerApp, device: str, *, arrived: bool = True) -> None:
    """Let ``device`` have reported ``LIST``; ``arrived``: it has sent it, too."""
    app.parts.enrolment.enrol(app.parts.enrolment.claim("north", device, {}))
    with app.parts.database.begin() as connection:
        begin_run(connection, device, software_digest(LIST), 5, 6)
        if arrived:
            arrive(connection)


def arrive(connection: sa.Connection) -> None:
    """Let ``LIST`` be here."""
    packed = base64.b64decode(pack_software(LIST).packed)
    rows = [
        {"kind": one.kind.value, "key": one.key, "name": one.name, "version": one.version, "sha256": one.sha256}
        for one in LIST.components
    ]
    assert store_list(connection, software_digest(LIST), {"packed": packed, "left_out": 0, "stored_ms": 7}, rows)


def test_components_lead_to_their_devices_and_unknown_ones_are_counted(app: ServerApp) -> None:
    """A name is text wherever it stands; a device that reported nothing is said, not left out unseen."""
    with closing(httpx.Client(base_url=app.http_url)) as client:
        assert client.get("/device/cam-1/software.cdx.json").status_code == 303
        client.post("/login", data={"token": app.state.token("operator")})
        reports(app, "cam-1")
        app.parts.enrolment.enrol(app.parts.enrolment.claim("north", "cam-2", {}))
        (found,) = [one for one in component_rows(app.parts, ()).rows if one.name == HOSTILE]
        for path in ("/software?search=x", found.devices.href):
            text = client.get(path).text
            assert ("onerror" in text, "<img src=x" in text, "1 device without a report" in text) == (
                True, False, True,
            )  # fmt: skip
        assert [
            one.device for one in runner_rows(app.parts, (("name", "onnxruntime"), ("version", "1.22.*"))).rows
        ] == ["cam-1"]
        assert runner_rows(app.parts, ()).rows == ()
        assert "Expected kind to be one of" in client.get("/software?kind=none").text


def test_a_device_s_page_leads_to_its_document(app: ServerApp) -> None:
    """Of a list that has not arrived only the digest is known, and the page says so."""
    with closing(httpx.Client(base_url=app.http_url)) as client:
        client.post("/login", data={"token": app.state.token("operator")})
        assert "A device reports what it runs once it is connected" in client.get("/software").text
        reports(app, "cam-1", arrived=False)
        assert "Only the digest" in client.get("/device/cam-1").text
        missing = client.get("/device/cam-1/software.cdx.json")
        assert (missing.status_code, "digest only" in missing.text) == (404, True)
        with app.parts.database.begin() as connection:
            arrive(connection)
        assert "onnxruntime 1.22.1" in client.get("/device/cam-1").text
        document = client.get("/device/cam-1/software.cdx.json")
        assert {one["name"] for one in document.json()["components"]} >= {"onnxruntime", HOSTILE}
        assert client.get("/device/none/software.cdx.json").status_code == 404


def test_a_page_of_devices_does_not_grow_with_the_fleet(app: ServerApp) -> None:
    """A hundred at a time."""
    reports(app, "cam-1")
    names = [f"d{number:05}" for number in range(3_000)]
    with app.parts.database.begin() as connection:
        connection.execute(
            DEVICES.insert(), [row(DEVICES, 0, device=name, site="s", ended="", state="ready") for name in names]
        )
        runs = [row(SOFTWARE_RUNS, index + 2, device=name, list=software_digest(LIST), until_ms=0)
                for index, name in enumerate(names)]  # fmt: skip
        connection.execute(SOFTWARE_RUNS.insert(), runs)
    found = runner_rows(app.parts, (("name", "onnxruntime"),))
    assert (len(found.rows), found.total) == (100, 3_001)
    assert {one.devices.text for one in component_rows(app.parts, ()).rows} == {"3,001"}


def test_words_of_what_is_unknown() -> None:
    """Nothing where all is known."""
    assert unknown_text(0, 0) == ""
    assert "1 device without a report" in unknown_text(1, 0)
    assert "and about 2 devices whose list is not here yet" in unknown_text(1, 2)
