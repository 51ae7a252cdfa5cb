"""Every answer: problems that programs can read, 304 for what the caller has, gzip, and no warnings by strangers."""

from __future__ import annotations

import logging

import pytest

from server.app.answers import dress
from tests.server.conftest import MemoryFleet, publish_bytes
from wire.canonical import sha256_hex


@pytest.mark.parametrize(
    ("role", "method", "path", "status", "code"),
    [
        (None, "GET", "/api/devices", 401, "unauthorized"),
        ("operator", "GET", "/api/devices/none", 404, "unknown_device"),
        ("operator", "GET", "/api/nothing", 404, "http_404"),
        ("operator", "PATCH", "/api/devices", 405, "http_405"),
        ("operator", "GET", "/api/events?limit=many", 422, "request_invalid"),
    ],
)
def test_every_refusal_is_a_problem(
    fleet: MemoryFleet, role: str | None, method: str, path: str, status: int, code: str
) -> None:
    """RFC 9457's members, and the two that agents in the field read."""
    answer = fleet.client(role).request(method, path)
    found = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (found["type"], found["status"], found["code"]) == (f"urn:tinyfleet:problem:{code}", status, code)
    assert found["detail"] == found["text"] != ""


def test_a_path_with_another_method_names_those_it_has(fleet: MemoryFleet) -> None:
    """405 with Allow, where it said that there is no such path."""
    answer = fleet.client().delete("/api/rollouts")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert "Expected GET or POST" in answer.json()["text"]


def test_what_the_caller_has_is_not_sent_again(fleet: MemoryFleet) -> None:
    """Until it changes; another caller's answer is another one."""
    client = fleet.client()
    fleet.enrol("cam-1")
    first = client.get("/api/devices")
    tag = first.headers["etag"]
    for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = client.get("/api/devices", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/api/devices", headers={"If-None-Match": '"other"'}).status_code == 200
    fleet.enrol("cam-2")
    changed = client.get("/api/devices", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)
    assert fleet.client(None).get("/api/devices", headers={"If-None-Match": tag}).status_code == 401


def test_an_answer_that_may_not_be_kept_has_no_tag(fleet: MemoryFleet) -> None:
    """The server's health is asked for to know it now."""
    answer = fleet.client().get("/api/health", headers={"If-None-Match": "*"})
    assert (answer.headers["cache-control"], "etag" in answer.headers) == ("no-store", False)
    assert answer.json()["signs"]


def test_long_lists_are_compressed_where_the_caller_takes_it(fleet: MemoryFleet) -> None:
    """And are the same list."""
    for number in range(30):
        fleet.enrol(f"cam-{number}")
    client = fleet.client()
    plain, packed = (client.get("/api/devices", headers={"Accept-Encoding": name}) for name in ("identity", "gzip"))
    assert ("content-encoding" in plain.headers, packed.headers["content-encoding"]) == (False, "gzip")
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 4
    assert plain.json() == packed.json()
    assert "Accept-Encoding" in packed.headers["vary"]


def test_a_bundle_is_sent_as_it_is(fleet: MemoryFleet) -> None:
    """Its bytes are compressed already, and a device compares their number."""
    publish_bytes(fleet.app.parts.versions, "m" * 5_000)
    answer = fleet.client().get(f"/blobs/{sha256_hex(b'm' * 5_000)}", headers={"Accept-Encoding": "gzip"})
    assert (answer.status_code, "content-encoding" in answer.headers) == (200, False)
    assert answer.content == b"m" * 5_000


@pytest.mark.parametrize("name", ["nicegui", "uvicorn.error"])
def test_what_a_stranger_can_cause_is_no_warning(
    fleet: MemoryFleet, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A log that anybody can fill hides what matters; a real warning stays one."""
    dress(fleet.app.web.api)  # a second server of this process adds no second filter
    log = logging.getLogger(name)
    with caplog.at_level(logging.INFO, logger=name):
        log.warning("http://10.0.0.1/wp-admin.php not found")
        log.warning("Invalid HTTP request received.")
        log.warning("The disk is full")
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING"]
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger=name):
        log.warning("http://10.0.0.1/wp-admin.php not found")
    assert caplog.records == []
