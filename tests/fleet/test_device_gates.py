"""A complete run whose gates are measured on a device too: real server, broker, agent; passes, fails, disagrees."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from compressor.cli import app
from compressor.gates.certificate import Certificate, Line, read_certificate
from compressor.gates.evidence import AGREEMENT, GateRecipe
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe
from compressor.release.regate import gate_again
from compressor.release.verify import verify_bundle
from compressor.run.pipeline import Outcome, run_recipe

if TYPE_CHECKING:
    from conftest import Fleet

pytestmark = [pytest.mark.broker, pytest.mark.slow]
RECIPE = Path(__file__).parents[1] / "compressor" / "pipeline_recipe.toml"
ON = "device:cam-1"
OTHER_RUNTIME = """\
import sys
if "edge_agent.measuring.child" in sys.orig_argv:
    from edge_agent import runtimes
    load = runtimes.load
    class Other:
        def __init__(self, inner): self.inner = inner
        def run(self, batch): return tuple(-output for output in self.inner.run(batch))
        def close(self): self.inner.close()
    runtimes.load = lambda *given, **named: Other(load(*given, **named))
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all runs of this file: the second run finds the network that the first has trained."""
    return tmp_path_factory.mktemp("run")


def gated(*gates: GateRecipe) -> Recipe:
    """Return the tiny recipe with these gates."""
    return replace(read_recipe(RECIPE), gates=gates)


def line(certificate: Certificate, name: str, on: str = "cam-1") -> Line:
    """Return one gate's line."""
    return next(item for item in certificate.gates if (item.name, item.on) == (name, on))


def test_a_run_passes_on_host_and_device(fleet: Fleet, out: Path) -> None:
    """Both results are in gate.json, report and bundle, and are judged again from each."""
    fleet.add("cam-1")
    gates = (
        GateRecipe(name="accuracy", min=0.2, on=ON), GateRecipe(name="latency_p95_ms", max=500.0, on=ON),
        GateRecipe(name="peak_memory_bytes", max=1e9, on=ON), GateRecipe(name="flip_ratio", max=0.2, on=ON),
    )  # fmt: skip
    outcome = run_recipe(gated(*gates), out=out, devices=fleet.bench(60.0))
    certificate = read_certificate((out / "gate.json").read_bytes())
    assert outcome.verdict == "pass"
    assert {(item.name, item.on) for item in certificate.gates} == {
        *((gate.name, on) for gate in gates for on in ("", "cam-1")), (AGREEMENT, "cam-1"),
        ("better_than_constant", ""), ("label_order", ""),
    }  # fmt: skip
    assert line(certificate, AGREEMENT).text.startswith("0 of 912 rows")
    assert "On devices" in outcome.report.read_text()
    assert gate_again(out).verdict == gate_again(outcome.bundles[0]).verdict == "pass"
    assert verify_bundle(outcome.bundles[0]).complete


def test_a_device_slower_than_the_limit_fails(fleet: Fleet, out: Path) -> None:
    """No bundle is made, and the line has its latency."""
    fleet.add("cam-1")
    outcome = run_recipe(gated(GateRecipe(name="latency_p95_ms", max=1e-6, on=ON)), out=out, devices=fleet.bench(60.0))
    assert (outcome.verdict, outcome.bundles) == ("fail", ())
    assert line(outcome.certificate, "latency_p95_ms").verdict == "fail"
    assert line(outcome.certificate, AGREEMENT).verdict == "pass"


def test_a_device_that_computes_something_else_is_refused(fleet: Fleet, out: Path) -> None:
    """Its runtime is altered: predictions and golden vectors differ, whatever its speed."""
    altered = fleet.root / "altered"
    altered.mkdir()
    (altered / "sitecustomize.py").write_text(OTHER_RUNTIME)
    device = fleet.enrol("cam-1", fleet.root / "cam-1")
    device.program.environment["PYTHONPATH"] = os.pathsep.join([str(altered), str(Path(__file__).parents[2])])
    device.program.start()
    outcome = run_recipe(gated(GateRecipe(name="latency_p95_ms", max=500.0, on=ON)), out=out, devices=fleet.bench(60.0))
    refused = line(outcome.certificate, AGREEMENT)
    assert (outcome.verdict, outcome.bundles, refused.verdict) == ("fail", (), "fail")
    assert refused.text.startswith("device and host disagree")
    assert "golden vectors differ" in refused.text
    assert line(outcome.certificate, "latency_p95_ms").verdict == "pass"


def test_a_run_without_an_answer_fails_closed(fleet: Fleet, out: Path) -> None:
    """An enrolled device that was never started: every gate on it fails, with the next step."""
    fleet.enrol("cam-1", fleet.root / "cam-1")
    outcome: Outcome = run_recipe(gated(GateRecipe(name="accuracy", min=0.2, on=ON)), out=out, devices=fleet.bench(1.0))
    assert (outcome.verdict, outcome.bundles) == ("fail", ())
    assert "start its agent (edge-agent run)" in line(outcome.certificate, "accuracy").text
    assert line(outcome.certificate, "accuracy", on="").verdict == "pass"
    assert "start its agent" in outcome.report.read_text()


def test_people_gate_a_bundle_on_a_device(fleet: Fleet, out: Path) -> None:
    """``compressor gate BUNDLE --on device:ID``: device and host side by side, the exit code of the verdict."""
    fleet.add("cam-1")
    bundle = run_recipe(gated(GateRecipe(name="latency_p95_ms", max=500.0)), out=out).bundles[0]
    reach = ["--server", str(fleet.client.base_url), "--token-file", str(fleet.state / "builder.token")]
    command = ["gate", str(bundle), "--on", ON, *reach, "--keys", str(fleet.keys)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "latency_p95_ms on cam-1" in shown.output
    assert "on this host" in shown.output
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert told["devices"][0]["figures"]["golden_flips"] == 0.0
