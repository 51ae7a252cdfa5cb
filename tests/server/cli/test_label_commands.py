"""Labels out to a file and in from it by commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from server.app.state_directory import RunAddress
from server.cli import main
from tests.server.retraining.conftest import sample

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet


@pytest.fixture
def served(fleet: MemoryFleet) -> str:
    """A served fleet with three samples of a model that no release is of: any label fits."""
    for number in range(3):
        message = sample(number)
        fleet.app.parts.retraining.samples.accept("cam-1", message, 50)
    fleet.app.web.start()
    fleet.state.write_address(RunAddress(http_url=fleet.app.http_url, mqtt_host="127.0.0.1", mqtt_port=1, pid=1))
    return str(fleet.state.path)


def call(*words: object, given: str = "") -> Result:
    """Run a command with ``given`` on standard input."""
    return CliRunner().invoke(main, [str(word) for word in words], input=given)


def test_labels_go_out_and_come_in(fleet: MemoryFleet, served: str, tmp_path: Path) -> None:
    """A plan first; a wrong row is named, and nothing is imported."""
    samples = fleet.app.parts.retraining.samples
    model, file = samples.sample(1).model, tmp_path / "labels.csv"
    assert call("samples", "export", served, model, file).exit_code == 0
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) == 4
    file.write_text(text.replace("audit,,,0", "audit,cat,,0"), encoding="utf-8")
    planned = call("labels", "import", served, file, "--dry-run")
    assert planned.output.splitlines()[1].split("\t") == ["3", "3", "0", "0", "0", "0"]
    assert [one.label for one in samples.latest()] == ["", "", ""]
    refused = call("labels", "import", served, file, given="n\n")
    assert (refused.exit_code, "not_agreed" in refused.output) == (1, True)
    done = call("labels", "import", served, file, "--by", "ada", "--yes")
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "imported")
    assert {(one.label, one.label_by) for one in samples.latest()} == {("cat", "ada")}
    wrong = call("labels", "import", served, "-", "--yes", given="sample,label\n1,cat\n99,cat\n")
    assert (wrong.exit_code, "row 3: Expected a sample of this server" in wrong.output) == (1, True)


def test_tasks_for_label_studio_have_a_configuration(fleet: MemoryFleet, served: str, tmp_path: Path) -> None:
    """By the name of the file."""
    model = fleet.app.parts.retraining.samples.sample(1).model
    done = call("samples", "export", served, model, tmp_path / "tasks.json", "--config", tmp_path / "view.xml")
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))) == 3
    assert (tmp_path / "view.xml").read_text(encoding="utf-8").startswith("<View>")
    again = call("samples", "export", served, model, tmp_path / "tasks.json")
    assert (again.exit_code, "which exists" in again.output) == (2, True)
