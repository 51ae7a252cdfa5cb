"""Routes about labels: what to look at again, marks, and labels that are taken back."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from server.app.server import ServerApp
from server.app.state_directory import init_state
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Sample


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    """A server with three samples, and the operator's token."""
    state = init_state(tmp_path / "state")
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"))
    for number in range(3):
        data = b"picture %d" % number
        text, digest = base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest()
        message = Sample(boot="b", seq=number, at_ms=1, sha256=digest, data=text, artifact_sha256="aa" * 32)
        app.parts.retraining.samples.accept("cam-1", message, 1)
    yield TestClient(app.web.api, headers={"Authorization": f"Bearer {state.token('operator')}"})
    app.stop()


def test_an_image_is_marked_and_listed_and_unmarked(api: TestClient) -> None:
    """A label takes the mark off, and is taken back by who gave it."""
    model = "aa" * 32
    assert api.put("/api/samples/1/mark", json={"mark": "broken", "by": "Ada"}).status_code == 200
    (marked,) = api.get("/api/labels/review", params={"model": model}).json()["marked"]
    assert (marked["sample"], marked["mark"], marked["person"]) == (1, "broken", "Ada")
    assert api.put("/api/samples/1/label", json={"label": "x", "by": "Ben"}).json()["label"] == "x"
    assert api.get("/api/labels/review", params={"model": model}).json()["marked"] == []
    assert api.put("/api/samples/1/mark", json={"mark": "broken", "by": "Ada"}).json()["code"] == "label_refused"
    assert api.post("/api/samples/1/take-back", json={"by": "Ada"}).json()["code"] == "label_refused"
    assert api.post("/api/samples/1/take-back", json={"by": "Ben"}).json()["label"] == ""
    (change,) = api.get("/api/samples/1/changes").json()["changes"]
    assert (change["label"], change["new_label"], change["changed_by"]) == ("x", "", "Ben")


def test_what_is_asked_wrongly_is_refused(api: TestClient) -> None:
    """A mark that is none, a sample that is not there, and no model."""
    assert api.put("/api/samples/1/mark", json={"mark": "ugly", "by": "Ada"}).json()["code"] == "label_refused"
    assert api.put("/api/samples/99/mark", json={"mark": "broken", "by": "Ada"}).status_code == 404
    assert api.get("/api/labels/review").status_code == 422
