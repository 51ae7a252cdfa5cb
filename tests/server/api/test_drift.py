"""Drift, retraining and telemetry over HTTP: shapes and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.retraining.policy import RetrainingPhase, Trigger
from server.store.monitoring.evidence import replace_slot
from wire.messages import Batch, Stream

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet


def _evidence(device: str, start_ms: int, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "device": device, "start_ms": start_ms, "ref_id": "ef" * 16, "n": 60, "phase": "judged", "log_value": 7.0,
        "training_log_value": 1.0, "log_threshold": 14.0, "flagged": False, "fault": "", "cause": "",
        "streams": [{"stream": "luma_mean", "shape": "down", "share_ratio": 1.0, "words": "darker"}],
        "summaries": {"luma_mean": {"psi": 0.2, "js": 0.1, "ks": 0.1}},
    }  # fmt: skip
    return row | changes


def _store(fleet: MemoryFleet, *rows: dict[str, object]) -> None:
    pool = {"start_ms": 5, "ref_id": "ef" * 16, "attribute": "site", "value": "berlin", "members": 2,
            "log_value": None, "log_threshold": 9.0, "alarm": False}  # fmt: skip
    with fleet.app.parts.database.begin() as connection:
        for row in rows:
            replace_slot(connection, int(str(row["start_ms"])), int(str(row["start_ms"])) + 1, [row], [pool])


def test_evidence_of_all_devices_comes_with_the_pools(fleet: MemoryFleet) -> None:
    """The newest first; one device alone has no pools."""
    _store(fleet, _evidence("cam-1", 5), _evidence("cam-2", 6, phase="commissioning", log_value=None))
    found = fleet.client().get("/api/evidence").json()
    assert [(row["device"], row["log_value"]) for row in found["evidence"]] == [("cam-2", None), ("cam-1", 7.0)]
    assert found["pools"][0] | {"members": 2} == found["pools"][0]
    only = fleet.client().get("/api/evidence", params={"device": "cam-1"}).json()
    assert ([row["start_ms"] for row in only["evidence"]], only["pools"]) == ([5], [])
    assert fleet.client().get("/api/evidence?limit=0").json()["code"] == "request_invalid"


def test_a_map_adds_up_a_window_by_cohort_and_stream(fleet: MemoryFleet) -> None:
    """By any attribute, within a cohort, and by time; what can't be asked for is refused."""
    fleet.enrol("cam-1")
    fleet.enrol("cam-2")
    _store(fleet, _evidence("cam-1", 5))
    client = fleet.client()
    (row,) = client.get("/api/drift/map").json()["rows"]
    assert (row["devices"], row["windows"], row["cells"][0]["evidence_ratio"]) == (2, 1, 0.5)
    found = client.get("/api/drift/map?by=device").json()
    assert [(one["cohort"], one["largest_ratio"]) for one in found["rows"]] == [("cam-1", 0.5), ("cam-2", None)]
    assert (found["at_ms"], found["streams"], found["cohorts"]) == (0, ["luma_mean"], 2)
    assert client.get("/api/drift/map?by=device&attribute=device&value=cam-2").json()["cohorts"] == 1
    assert client.get("/api/drift/map?limit=1&by=device").json()["cohorts"] == 2
    assert client.get("/api/drift/map?at_ms=99999999").json()["rows"][0]["windows"] == 0
    assert client.get("/api/drift/map?release=no-1").status_code == 404
    for wrong in ("by=", "limit=0", "at_ms=-1"):
        assert client.get(f"/api/drift/map?{wrong}").json()["code"] == "request_invalid"


def test_a_device_carries_a_summary_of_its_evidence(fleet: MemoryFleet) -> None:
    """A share of the threshold, flag and cause of its newest window; nothing before the first."""
    fleet.enrol("cam-1")
    fleet.enrol("cam-2")
    _store(fleet, _evidence("cam-1", 5), _evidence("cam-1", 6, log_value=21.0, flagged=True, cause="darker"))
    first, second = fleet.client().get("/api/devices").json()["devices"]
    assert first["evidence"] == fleet.client().get("/api/devices/cam-1").json()["evidence"]
    assert (first["evidence"]["threshold_ratio"], first["evidence"]["flagged"]) == (1.5, True)
    assert (first["evidence"]["phase"], first["evidence"]["cause"]) == ("judged", "darker")
    assert second["evidence"] == {}


def test_a_device_that_commissions_is_summed_up_against_training(fleet: MemoryFleet) -> None:
    """While its own baseline is collected, only the distance from training is known."""
    fleet.enrol("cam-1")
    _store(fleet, _evidence("cam-1", 5, phase="commissioning", log_value=None, training_log_value=3.5))
    assert fleet.client().get("/api/devices/cam-1").json()["evidence"]["threshold_ratio"] == 0.25


def test_verdicts_say_whom_why_and_what_to_do(fleet: MemoryFleet) -> None:
    """The newest first, open and closed."""
    verdict = DriftVerdict(kind=VerdictKind.SITE, devices=("cam-1", "cam-2"), attributes=(("site", "south"),))
    drift = fleet.app.parts.drift.verdicts
    drift.note([Finding(verdict=verdict, cause="darker", release="m-1", model="m")], 0, 10, quiet_ms=20, judged=True)
    drift.note([], 100, 110, quiet_ms=20, judged=True)
    (found,) = fleet.client().get("/api/verdicts").json()["verdicts"]
    assert (found["kind"], found["devices"], found["closed_ms"]) == ("site", ["cam-1", "cam-2"], 110)
    assert (found["attributes"], found["cause"], found["action"]) == (
        {"site": "south"}, "darker", "collect samples at the site",
    )  # fmt: skip
    texts = [event.text for event in fleet.app.parts.events.after(0)]
    assert texts == [
        "site south: cam-1, cam-2: darker; collect samples at the site",
        "Over after 1 window: site south: cam-1, cam-2: darker",
    ]


def test_retrainings_are_listed_and_approved_once_they_ask(fleet: MemoryFleet) -> None:
    """An unknown one, and one that does not wait for approval, are errors with a code."""
    trigger = Trigger(
        id=0, model="m", cause="site:south", words="darker", verdict=1, devices=("cam-1",), since_ms=1, release="m-1",
        phase=RetrainingPhase.COLLECTING,
    )  # fmt: skip
    fleet.app.parts.retraining.triggers.add(trigger)
    client = fleet.client()
    (found,) = client.get("/api/retraining").json()["retraining"]
    assert (found["model"], found["phase"], found["devices"]) == ("m", "collecting", ["cam-1"])
    assert found["approvable"]
    assert client.post(f"/api/retraining/{found['id']}/approve").status_code == 200
    assert client.post("/api/retraining/99/approve").json()["code"] == "unknown_retraining"
    assert client.post(f"/api/retraining/{found['id']}/withdraw").json()["phase"] == "withdrawn"
    assert client.post(f"/api/retraining/{found['id']}/withdraw").status_code == 409


def test_the_newest_telemetry_of_a_device(fleet: MemoryFleet) -> None:
    """By stream, newest first; an unknown device or stream is an error."""
    device = fleet.enrol()
    for seq, memory in enumerate((10, 20)):
        t0_ms = fleet.clock() - 2 + seq
        batch = Batch(stream=Stream.HW, boot="ab" * 8, seq=seq, t0_ms=t0_ms, n=1, rows=({"rss_bytes": memory},))
        device.say("tele/hw", batch)
    fleet.turn()
    client = fleet.client()
    found = client.get("/api/devices/cam-1/telemetry?stream=hw").json()
    assert [(batch["t0_ms"], batch["rows"]) for batch in found["batches"]] == [
        (fleet.clock() - 1, [{"rss_bytes": 20}]), (fleet.clock() - 2, [{"rss_bytes": 10}]),
    ]  # fmt: skip
    assert client.get("/api/devices/cam-1/telemetry").json()["batches"] == []
    assert client.get("/api/devices/cam-1/telemetry?stream=drift").json()["code"] == "request_invalid"
    assert client.get("/api/devices/nobody/telemetry").json()["code"] == "unknown_device"


def test_a_build_host_without_work_hears_so(fleet: MemoryFleet) -> None:
    """204 if there is no job; an unknown one is an error with a code."""
    client = fleet.client("builder")
    assert client.post("/api/jobs/lease", json={"worker": "w"}).status_code == 204
    assert client.post("/api/jobs/x/heartbeat", json={"worker": "w"}).json()["code"] == "unknown_job"
    assert client.get("/api/jobs/x/samples.zip").json()["code"] == "unknown_job"
    assert client.post("/api/jobs/lease", json={}).json()["code"] == "request_invalid"
