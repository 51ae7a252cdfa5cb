"""The pages on an application, without a browser."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.trust.online_keys import init_online_keys
from wire.memory_broker import MemoryBroker, MemoryTransport


@pytest.fixture(params=["first", "second"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerApp]:
    """Return a running server; the second of one process must do as well as the first."""
    del request
    state = init_state(tmp_path / "state")
    init_online_keys(state.path)
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"))
    app.start()
    yield app
    app.stop()


def test_a_server_shows_its_pages_to_who_logged_in(app: ServerApp) -> None:
    """The page of an empty fleet names the next step."""
    with httpx.Client(base_url=app.http_url) as client:
        assert client.get("/").headers["location"] == "/login"
        client.post("/login", data={"token": app.state.token("operator")})
        for path in ("/", "/rollouts", "/events", "/samples", "/retraining", "/account"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "tinyfleet" in answer.text
        answer = client.get("/device/nobody")
        assert (answer.status_code, "No such device" in answer.text) == (404, True)


def test_the_api_stays_an_api(app: ServerApp) -> None:
    """The pages get all other paths, but an unknown path below /api is not a page."""
    assert httpx.get(f"{app.http_url}/api/health").json()["ok"] is True
    answer = httpx.get(f"{app.http_url}/api/nothing")
    assert answer.status_code == 404
    assert answer.json()["code"] == "http_404"


def test_there_is_no_request_for_an_icon_that_fails(app: ServerApp) -> None:
    """Browsers ask for it unasked."""
    assert httpx.get(f"{app.http_url}/favicon.ico").status_code == 200
