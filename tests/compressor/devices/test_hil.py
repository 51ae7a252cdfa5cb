"""Tests on devices as a user runs them: `scripts/hil/run`, inventory, bundle, a test file. A real child measures."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from compressor.devices.fitness import GRACE_S, drift_window
from scripts.packing import wheels
from wire.bundle import build_bundle, read_bundle

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
USERS_TEST = """
import pytest

@pytest.mark.on("hardware:here")
def test_answers_in_time(device, bundle):
    report = device.measure(bundle).report
    assert report.golden_flips == 0
    assert report.latency_p95_ms <= {limit_ms}

@pytest.mark.on("hardware:pi4")
def test_on_a_board_that_is_not_here(device):
    raise AssertionError
"""


def run(
    folder: Path, *arguments: str, keys: str = "", python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Run the script on one local device."""
    (folder / "lab.toml").write_text(
        f'[devices.bench]\nkind = "local"\nhardware = "here"\npython = "{python}"\n'
        f'folder = "{folder / "device"}"\n{keys}'
    )
    command = [str(ROOT / "scripts/hil/run"), str(folder / "lab.toml"), "--out", str(folder / "hil"), *arguments]
    environment = {**os.environ, "TINYFLEET_VENV": str(Path(sys.executable).parents[1])}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def report(folder: Path) -> dict:
    """Return hil.json."""
    return json.loads((folder / "hil" / "hil.json").read_bytes())


def users_test(folder: Path, limit_ms: float) -> str:
    """Write the test of a user; return its path."""
    (folder / "test_board.py").write_text(USERS_TEST.format(limit_ms=limit_ms))
    return str(folder / "test_board.py")


def test_a_users_test_of_ten_lines_runs_on_each_device_that_fits(tmp_path: Path, tiny_bundle: Path) -> None:
    """One test passes on the device here, one is skipped with its reason, and all three reports say so."""
    done = run(tmp_path, str(tiny_bundle), users_test(tmp_path, 1000))
    assert done.returncode == 0, done.stdout + done.stderr
    document = report(tmp_path)
    assert (document["verdict"], [row["outcome"] for row in document["tests"]]) == ("pass", ["passed", "skipped"])
    assert document["tests"][0]["figures"]["fact_machine"] == os.uname().machine
    assert document["tests"][1]["text"].endswith("no device hardware:pi4 in the inventory")
    names = {item.get("name") for item in ET.parse(tmp_path / "hil" / "junit.xml").iter("property")}  # noqa: S314 - ours
    assert {"device", "bundle", "measured_latency_p95_ms"} <= names
    assert "bench" in (tmp_path / "hil" / "hil.html").read_text()
    assert not (tmp_path / "device").exists()


def test_a_limit_that_is_exceeded_gates_the_release(tmp_path: Path, tiny_bundle: Path) -> None:
    """Exit code 1, and the report names the figure."""
    assert run(tmp_path, str(tiny_bundle), users_test(tmp_path, 0)).returncode == 1
    assert report(tmp_path)["verdict"] == "fail"
    assert "latency_p95_ms" in report(tmp_path)["tests"][0]["text"]


@pytest.mark.parametrize(("strict", "code"), [("-q", 5), ("--hil-strict", 1)])
def test_a_run_without_a_device_has_not_passed(tmp_path: Path, tiny_bundle: Path, strict: str, code: int) -> None:
    """Skipped everywhere: exit code 5; with --hil-strict it has failed."""
    test = f"{users_test(tmp_path, 0)}::test_on_a_board_that_is_not_here"
    done = run(tmp_path, str(tiny_bundle), test, strict)
    assert done.returncode == code, done.stdout


def test_the_standard_checks_pass_and_name_what_they_lack(tmp_path: Path, tiny_bundle: Path) -> None:
    """Golden vectors, latency and memory pass; without a probe, an agent and a meter that moves the rest is skipped."""
    (tmp_path / "meter").write_text("1000")
    done = run(tmp_path, str(tiny_bundle), keys=f'energy = "{tmp_path / "meter"}"\n')
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = {row["test"].rpartition("::")[2].partition("[")[0]: row for row in report(tmp_path)["tests"]}
    passed = {name for name, row in outcomes.items() if row["outcome"] == "passed"}
    assert passed >= {
        "test_golden_vectors_are_reproduced", "test_latency_is_within_its_limits", "test_memory_is_within_its_limit",
    }  # fmt: skip
    assert "--hil-probe" in outcomes["test_accuracy_on_the_probe"]["text"]
    assert "meter that moves" in outcomes["test_energy_is_within_its_limit"]["text"]


def test_two_bundles_of_one_name_have_a_row_each(tmp_path: Path, tiny_bundle: Path) -> None:
    """A build beside the one before: the page names their files, and the figures of neither hide the other's."""
    (tmp_path / "old").mkdir()
    other = tmp_path / "old" / tiny_bundle.name
    other.write_bytes(tiny_bundle.read_bytes())
    assert run(tmp_path, str(tiny_bundle), str(other), "-k", "golden").returncode == 0
    assert {row["bundle"] for row in report(tmp_path)["tests"]} == {str(tiny_bundle), str(other)}
    assert str(other) in (tmp_path / "hil" / "hil.html").read_text()


def test_a_device_that_computes_something_else_fails(tmp_path: Path, tiny_bundle: Path) -> None:
    """Golden vectors of another model: the difference is in the report."""
    bundle = read_bundle(tiny_bundle)
    other = bundle.files["golden.npz"]
    arrays = dict(np.load(io.BytesIO(other)))
    buffer = io.BytesIO()
    np.savez(buffer, inputs=arrays["inputs"], logits=arrays["logits"] + 1)
    tiny_bundle.write_bytes(build_bundle(bundle.manifest, {**bundle.files, "golden.npz": buffer.getvalue()}))
    assert run(tmp_path, str(tiny_bundle), "-k", "golden").returncode == 1
    assert report(tmp_path)["tests"][0]["figures"]["golden_max_abs"] == pytest.approx(1)


def test_a_device_that_does_not_answer_fails_each_of_its_tests(tmp_path: Path, tiny_bundle: Path) -> None:
    """An interpreter without the agent: the next step is in the report, and the exit code is 1."""
    bare = str(Path(sys.base_prefix) / "bin" / "python3")
    done = run(tmp_path, str(tiny_bundle), "-k", "golden or memory", python=bare)
    assert done.returncode == 1
    rows = report(tmp_path)["tests"]
    assert [row["outcome"] for row in rows] == ["failed", "failed"]
    assert "bench: Expected the agent" in rows[0]["text"]


def test_a_limit_of_the_inventory_that_nothing_measures_fails(tmp_path: Path, tiny_bundle: Path) -> None:
    """Without a meter and a probe a check is left out, but not one that the inventory sets a limit for."""
    limits = "limits = {energy_mj = 5, accuracy = 0.9}\n"
    assert run(tmp_path, str(tiny_bundle), "-k", "energy or probe", keys=limits).returncode == 1
    rows = report(tmp_path)["tests"]
    assert [row["outcome"] for row in rows] == ["failed", "failed"]
    assert all("its limit in the inventory is not checked" in row["text"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "keys", "named"),
    [
        (["none.tfb"], "", "Expected a bundle at none.tfb"),
        (["--hil-rows", "0"], "", "Expected --hil-rows of at least 1, got 0"),
        ([], "pyhton = 3\n", "did you mean 'python'?"),
    ],
)
def test_a_wrong_call_leaves_no_verdict_of_an_earlier_run(
    tmp_path: Path, tiny_bundle: Path, arguments: list[str], keys: str, named: str
) -> None:
    """Exit code 4, and who reads hil.json or junit.xml finds no pass."""
    (tmp_path / "hil").mkdir()
    for name in ("hil.json", "hil.html", "junit.xml"):
        (tmp_path / "hil" / name).write_text('{"verdict": "pass"}')
    done = run(tmp_path, str(tiny_bundle), *arguments, keys=keys)
    assert (done.returncode, named in done.stdout + done.stderr) == (4, True), done.stdout + done.stderr
    assert not list((tmp_path / "hil").iterdir())


def test_a_report_that_can_not_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    """A file where the folder of the report would be."""
    (tmp_path / "hil").write_text("mine")
    done = run(tmp_path, str(tiny_bundle))
    assert (done.returncode, "Expected a folder for the report at" in done.stdout + done.stderr) == (4, True)
    assert (tmp_path / "hil").read_text() == "mine"


@pytest.mark.nightly
def test_the_agent_is_installed_from_its_wheel_where_it_is_missing(tmp_path: Path, tiny_bundle: Path) -> None:
    """A bare interpreter gets an environment with nothing but the device's packages; the next run finds it."""
    (tmp_path / "try").mkdir()
    wheel = wheels.build(ROOT, tmp_path / "try", tmp_path / "dist", tmp_path / "work")[-1]
    bare = Path(sys.base_prefix) / "bin" / "python3"
    keys = f'wheel = "{wheel}"\n'
    for _ in range(2):
        done = run(tmp_path, str(tiny_bundle), "-k", "golden", keys=keys, python=str(bare))
        assert done.returncode == 0, done.stdout + done.stderr
    environments = list((tmp_path / "device").glob("agent-*"))
    assert len(environments) == 1
    assert not list(environments[0].glob("lib/*/site-packages/compressor"))


@pytest.mark.parametrize(
    ("newest_s", "fault", "began_s", "ok"),
    [
        (None, "", 0.0, True), (None, "", 3 * 60 + GRACE_S - 1, True), (None, "", 3 * 60 + GRACE_S, False),
        (3 * 60 + GRACE_S - 1, "", 1e6, True), (3 * 60 + GRACE_S, "", 1e6, False), (10.0, "no_samples", 1e6, False),
    ],
)  # fmt: skip
def test_a_new_device_has_no_drift_window_and_none_is_due(
    newest_s: float | None, fault: str, began_s: float, *, ok: bool
) -> None:
    """Overdue after three windows, counted from the newest, or for a new device from its beginning."""
    now_s = 2e6
    newest = None
    if newest_s is not None:
        newest = {"start_ms": (now_s - newest_s) * 1000, "n": 1, "phase": "judged", "fault": fault}
    assert drift_window(newest, now_s, began_s=now_s - began_s, window_s=60.0).ok is ok
