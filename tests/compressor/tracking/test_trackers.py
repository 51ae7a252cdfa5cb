"""Every tracker stores its input; MLflow's is checked with a real store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import PluginError, TrackingError, TrackingUnreachableError
from compressor.tracking.mlflow_tracker import MlflowTracker, redacted, tracker_at
from compressor.tracking.tracker import Record, Recorded, Tracker

RECORD = Record(
    experiment="digits",
    name="digits-7",
    parameters={f"train.k{i}": str(i) for i in range(130)},
    metrics={"pi/accuracy": 0.5},
    tags={"verdict": "pass"},
    note="**PASS**",
    artifacts={"gate.json": b"{}", "cards/pi.md": b"# card"},
)
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens on a test machine


@pytest.fixture(params=["memory", "sqlite"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> Tracker:
    """Every implementation of the seam."""
    if request.param == "memory":
        return Recorded()
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    return MlflowTracker(f"sqlite:///{tmp_path / 'm.db'}")


def runs_of(tracker: MlflowTracker) -> list[Any]:
    """Return the runs in the store, by MLflow's own client."""
    from mlflow import MlflowClient  # noqa: PLC0415 - optional

    client = MlflowClient(tracking_uri=tracker.uri)
    return list(client.search_runs([item.experiment_id for item in client.search_experiments()]))


@pytest.mark.slow
def test_a_record_is_taken_and_its_place_named(tracker: Tracker) -> None:
    """Checking writes no run; each record gets a place of its own."""
    tracker.check()
    assert len({tracker.log(RECORD), tracker.log(RECORD)}) == 2


def test_memory_keeps_the_record_as_it_is() -> None:
    """The stored record equals the logged one."""
    tracker = Recorded()
    tracker.log(RECORD)
    assert tracker.records == [RECORD]


@pytest.mark.slow
def test_mlflow_holds_every_value_tag_and_file(tmp_path: Path) -> None:
    """More parameters than one call may carry; artifacts beside the database, not in the working folder."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'm.db'}")
    where = tracker.log(RECORD)
    run = runs_of(tracker)[0]
    assert where.endswith(run.info.run_id)
    assert (run.info.run_name, run.info.status) == ("digits-7", "FINISHED")
    assert run.data.params == RECORD.parameters
    assert run.data.metrics == RECORD.metrics
    assert run.data.tags["verdict"] == "pass"
    folder = tmp_path / "mlartifacts" / run.info.run_id / "artifacts"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == set(RECORD.artifacts)


@pytest.mark.slow
def test_a_run_that_did_not_arrive_whole_is_marked_failed(tmp_path: Path) -> None:
    """An incomplete run must not look finished in a comparison."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'm.db'}")
    (tmp_path / "mlartifacts").write_text("a file where artifacts should go")
    with pytest.raises(TrackingError, match="to take the run, got"):
        tracker.log(RECORD)
    assert [run.info.status for run in runs_of(tracker)] == ["FAILED"]


@pytest.mark.slow
def test_a_server_that_is_away_is_told_from_a_wrong_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may answer later, the second never will."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingUnreachableError, match="Connection refused: start it"):
        MlflowTracker(NOBODY).check()
    with pytest.raises(TrackingError, match="look at the address") as wrong:
        MlflowTracker(f"nothing://{tmp_path}").check()
    assert not isinstance(wrong.value, TrackingUnreachableError)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that installs it."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(PluginError, match=r"'mlflow'.*python -m pip install 'mlflow-skinny>=3'"):
        MlflowTracker("sqlite:///x.db").check()


def test_the_address_comes_from_the_command_line_then_the_environment() -> None:
    """An empty address means that of the environment; without any, the error names both."""
    environment = {"MLFLOW_TRACKING_URI": "http://b"}
    assert tracker_at("http://a", environment).uri == "http://a"
    assert tracker_at("", environment).uri == "http://b"
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI, got neither"):
        tracker_at("", {})


def test_a_password_on_the_command_line_is_refused_and_not_repeated() -> None:
    """Command lines are visible to all users of the machine; the error must not print it again."""
    with pytest.raises(TrackingError, match="others see command lines") as refused:
        tracker_at("https://me:hunter2@ml.example", {})
    assert "hunter2" not in str(refused.value)


def test_passwords_and_tokens_stand_in_no_message() -> None:
    """Neither those of addresses nor those of the environment."""
    environment = {
        "MLFLOW_TRACKING_TOKEN": "t0ken", "MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "w0rd",
    }  # fmt: skip
    text = "postgresql://me:hunter2@db/x refused Bearer t0ken, w0rd, Basic bWU6dzByZA=="
    assert redacted(text, environment) == "postgresql://me:***@db/x refused Bearer ***, ***, Basic ***"
    assert redacted("plain: nothing is set", {}) == "plain: nothing is set"
