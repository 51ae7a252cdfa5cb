"""From a run to its record: names, contents, and the end of a run that can't be logged."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from compressor.cli import main
from compressor.errors import TrackingUnreachableError
from compressor.gates import Verdict
from compressor.gates.certificate import Certificate, Line
from compressor.progress import Silent
from compressor.recipe.read import parse_recipe
from compressor.run.pipeline import Outcome
from compressor.tracking.logbook import Logbook, Timed, logbook, parameters_of, record_of
from compressor.tracking.tracker import Record, Recorded

RECIPE = Path(__file__).parents[1] / "pipeline_recipe.toml"
CERTIFICATE = Certificate(
    verdict="fail",
    model="tiny",
    version=4,
    target="pi",
    figures={"accuracy": 0.5, "latency_p50_ms": math.nan},
    gates=(
        Line(name="size_bytes", verdict="fail", value=900.0, bound=None, limit=800.0, text="900 | 800", target="pi"),
    ),
)


class Away:
    """A tracker whose server never answers."""

    def check(self) -> None:
        """Fail like a server that is not reachable."""
        message = "Expected an answer, got none: start it"
        raise TrackingUnreachableError(message)

    def log(self, record: Record) -> str:
        """Fail like a server that is not reachable."""
        self.check()
        return record.name


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """A run that failed its gate: report and certificate are there, bundles are not."""
    for name in ("report.html", "gate.json"):
        (tmp_path / name).write_text(name)
    return Outcome(
        verdict=Verdict.FAIL,
        bundles=(),
        certificate=CERTIFICATE,
        report=tmp_path / "report.html",
        checkpoint=tmp_path / "float.pt",
        ran=("train", "predict", "predict"),
        found=("data",),
        recipe=parse_recipe(RECIPE.read_bytes()),
        targets=(CERTIFICATE,),
        lineage={"data": "ab" * 32},
    )


def test_every_value_of_a_recipe_has_a_dotted_name() -> None:
    """Steps are numbered, targets and gates are named; empty values are left out."""
    found = parameters_of(parse_recipe(RECIPE.read_bytes()))
    assert found["train.epochs"] == "1"
    assert found["compress.1.step"] == "quantize"
    assert found["targets.host.runtime"] == "onnx"
    assert found["gates.size_bytes.max"] == "1000000.0"
    assert found["model.network_options.filters"] == "4"
    assert {"folder", "model.checkpoint", "gates.size_bytes.min"} & found.keys() == set()


def test_figures_gates_seconds_and_lineage_are_kept(outcome: Outcome) -> None:
    """Missing measurements are left out; the gate's tag has its verdict."""
    record = record_of(outcome, {"train": 2.5, "parity a|b": 1.0})
    assert (record.experiment, record.name) == ("tiny", "tiny-4")
    assert record.metrics == {
        "pi/accuracy": 0.5, "pi/gate/size_bytes/value": 900.0, "pi/gate/size_bytes/limit": 800.0,
        "seconds/train": 2.5, "seconds/parity a_b": 1.0,
    }  # fmt: skip
    wanted = {"verdict": "fail", "verdict.pi": "fail", "gate.pi.size_bytes": "fail", "lineage.data": "ab" * 32}
    assert wanted.items() <= record.tags.items()
    assert record.tags["steps.made"] == "train, predict"
    assert record.artifacts == {"report.html": b"report.html", "gate.json": b"gate.json"}
    assert "| size_bytes | pi | fail | 900 / 800 |" in record.note


def test_seconds_of_a_stage_add_up() -> None:
    """Also those of a stage that failed."""
    ticks = iter([0.0, 2.0, 10.0, 13.0])
    timed = Timed(Silent(), lambda: next(ticks))
    with timed.stage("train", 1, "epoch") as stage:
        stage.advance()
    with pytest.raises(ZeroDivisionError), timed.stage("train", 1, "epoch"):
        raise ZeroDivisionError
    assert timed.seconds == {"train": 5.0}


def test_a_logged_run_carries_the_experiment_of_the_environment(outcome: Outcome) -> None:
    """MLflow's own variable names the group of runs."""
    tracker = Recorded()
    assert Logbook(tracker, Timed(Silent()), "mine").keep(outcome) is None
    assert tracker.records[0].experiment == "mine"


def test_a_server_that_is_away_stops_no_run_and_is_said_at_its_end(outcome: Outcome) -> None:
    """The check succeeds, the end returns the error; no file is touched."""
    book = Logbook(Away(), Timed(Silent()))
    book.check()
    assert isinstance(book.keep(outcome), TrackingUnreachableError)
    assert outcome.report.read_text() == "report.html"


def test_a_file_that_is_gone_is_an_error_of_logging(outcome: Outcome) -> None:
    """The verdict of the run is unchanged."""
    outcome.report.unlink()
    error = Logbook(Recorded(), Timed(Silent())).keep(outcome)
    assert error is not None
    assert error.code == "tracking_failed"


def test_nothing_is_logged_where_nobody_asks(outcome: Outcome) -> None:
    """An address in the environment alone sends nothing anywhere."""
    book = logbook(None, Silent(), {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert book.tracker is None
    assert book.keep(replace(outcome, report=Path("nowhere"))) is None


def test_a_missing_package_is_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No minute of training is spent on a run that could never be logged."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(RECIPE), "--out", str(tmp_path / "out"), "--mlflow", "http://127.0.0.1:9"])
    assert stop.value.code == 4
    assert "pip install 'mlflow-skinny>=3'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_passed_run_that_was_not_logged_is_complete_and_ends_with_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is there, the table is printed; exit code and one line report that logging failed."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit) as stop:
        main(["run", str(RECIPE), "--out", str(tmp_path), "--mlflow", "http://127.0.0.1:9"])
    said = capsys.readouterr()
    assert stop.value.code == 5
    assert "tiny-1: PASS" in said.out
    assert "error [tracking_unreachable]" in said.err
    assert (tmp_path / "tiny-1-host.tfb").exists()
