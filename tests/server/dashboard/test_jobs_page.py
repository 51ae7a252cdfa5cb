"""Jobs on pages: how each stands, what to do, what it belongs to; hostile reasons, an empty server, many jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.dashboard.pages.jobs import job_rows, job_status, next_step
from server.retraining.jobs import JobOrder, TrainingJob
from server.store.retraining import JOBS
from server.trust.online_keys import init_online_keys
from tests.server.store.test_other_lists import row
from wire.memory_broker import MemoryBroker, MemoryTransport

NOW_MS = 10_000_000
HOSTILE = "<img src=x onerror=alert(1)>{{7*7}}"


def job(**changes: object) -> TrainingJob:
    """Return a job with some values."""
    values = row(JOBS, 0, **{"id": "j", "model": "digits", "certificate": {}, "created_ms": NOW_MS, **changes})
    return TrainingJob(**values)


@pytest.mark.parametrize(("changes", "status", "step"), [
    ({"state": "queued"}, "waiting", ""),
    ({"state": "queued", "created_ms": NOW_MS - 600_001}, "waiting", "run compressor worker on a build host"),
    ({"state": "leased", "worker": "gpu", "lease_until_ms": NOW_MS + 1}, "running", ""),
    ({"state": "leased", "worker": "gpu", "lease_until_ms": NOW_MS}, "its worker is silent", "runs on gpu"),
    ({"state": "done", "release": "digits-2"}, "done", ""),
    ({"state": "failed", "code": "gate_fail"}, "failed", "label more samples"),
    ({"state": "failed", "code": "abandoned"}, "failed", "memory or disk"),
    ({"state": "failed", "code": "no_data", "worker": "gpu"}, "failed", "the worker's on gpu"),
    ({"state": "failed", "code": "withdrawn"}, "withdrawn", ""),
    ({"state": "of tomorrow"}, "of tomorrow", ""),
])  # fmt: skip
def test_each_job_says_how_it_stands_and_what_to_do(changes: dict[str, object], status: str, step: str) -> None:
    """Nothing where nothing helps; a state that a newer server wrote is shown as it is."""
    known = job(**changes)
    assert job_status(known, NOW_MS).text == status
    found = next_step(known, NOW_MS)
    assert (step in found, bool(found)) == (True, bool(step))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ServerApp]:
    """A running server without any job."""
    state = init_state(tmp_path / "state")
    init_online_keys(state.path)
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"))
    app.start()
    yield app
    app.stop()


def test_pages_of_no_jobs_one_job_and_many(app: ServerApp) -> None:
    """An empty list names the next step, a reason is text, a list does not grow with what there is."""
    with closing(httpx.Client(base_url=app.http_url)) as client:
        client.post("/login", data={"token": app.state.token("operator")})
        empty = client.get("/jobs").text
        assert "compressor worker on a build host takes it" in empty
        assert "No measurement" in empty
        jobs = app.parts.retraining.jobs
        order = JobOrder(retraining=7, model="m", base_release="m-1", base_sha256="0" * 64, cause=HOSTILE, labelled=3)
        made = jobs.create(order, b"zip", app.clock()).id
        jobs.lease("w", app.clock())
        jobs.failed(made, "w", "odd_code", HOSTILE, app.clock())
        for path in (f"/jobs/{made}", "/jobs?state=failed", "/jobs?state=failed&model=m"):
            answer = client.get(path)
            assert (answer.status_code, "odd code" in answer.text, "<img src=x" in answer.text) == (200, True, False)
        assert "Withdraw" not in client.get(f"/jobs/{made}").text
        assert [client.get(path).status_code for path in ("/jobs/none", "/jobs/%3Cx%3E")] == [404, 404]
        with app.parts.database.begin() as connection:
            rows = [row(JOBS, 0, id=f"x{index}", certificate={}, state="queued") for index in range(10_000)]
            connection.execute(JOBS.insert(), rows)
        assert 20_000 < len(client.get("/jobs?state=queued").content) < 300_000
        page = job_rows(app.parts, ())
        assert (len(page.rows), page.total) == (50, 10_001)
