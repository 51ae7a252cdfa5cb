"""One network, pruned and trained on the int8 grid, as ORT format and as TFLite: gated, bundled, verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compressor.errors import RecipeError
from compressor.gates import Verdict
from compressor.measurement.predictions import Candidate, predict
from compressor.recipe.read import check_recipe, read_recipe
from compressor.release.regate import check_golden, gate_again
from compressor.release.verify import verify_bundle
from compressor.run.pipeline import Outcome, run_recipe
from compressor.steps.quantize import Settings
from edge_agent.inference.served_model import load_model
from wire.bundle import Bundle, read_bundle

pytest.importorskip("litert_torch", reason="the TFLite converter is not installed: ./scripts/setup tflite")
pytestmark = pytest.mark.slow
RECIPE = Path(__file__).with_name("both_formats_recipe.toml")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run, shared."""
    return run_recipe(read_recipe(RECIPE), out=tmp_path_factory.mktemp("both"))


@pytest.fixture(scope="module")
def bundles(outcome: Outcome) -> dict[str, Bundle]:
    """The bundles of the run by target."""
    return {bundle.manifest.target: bundle for bundle in map(read_bundle, outcome.bundles)}


def test_every_target_has_a_bundle_and_a_certificate_of_its_own(outcome: Outcome, bundles: dict[str, Bundle]) -> None:
    """Two formats from one network, each judged."""
    assert outcome.verdict is Verdict.PASS
    assert sorted(bundles) == ["gateway", "pi"]
    assert [item.target for item in outcome.targets] == ["gateway", "pi"]
    assert bundles["gateway"].artifact[4:8] == b"ORTM"
    assert bundles["pi"].artifact[4:8] == b"TFL3"


def test_the_manifest_states_the_integer_contract(bundles: dict[str, Bundle]) -> None:
    """A device knows scale and zero point before it opens the file."""
    spec = bundles["pi"].manifest.inputs[0]
    assert (spec.dtype, spec.layout, spec.shape[1:]) == ("int8", "NHWC", (32, 32, 3))
    assert spec.scale > 0
    assert bundles["pi"].manifest.preprocessing.layout == "NHWC"


def test_learnt_ranges_reach_both_formats(bundles: dict[str, Bundle]) -> None:
    """The same network on the same grid has nearly the same outputs in both runtimes."""
    inputs = check_golden(bundles["pi"]).inputs
    pi = predict(Candidate(bundles["pi"].manifest, bundles["pi"].artifact), inputs).logits
    gateway = bundles["gateway"]
    nchw = inputs.transpose(0, 3, 1, 2).copy()
    other = predict(Candidate(gateway.manifest, gateway.artifact), nchw).logits
    assert abs(pi - other).max() <= 0.1 * abs(other).max()


def test_bundles_verify_and_are_judged_again(outcome: Outcome) -> None:
    """Golden vectors, digests and verdicts are valid for LiteRT as for onnxruntime."""
    for path in outcome.bundles:
        assert verify_bundle(path).complete
        assert gate_again(path).verdict == "pass"


def test_the_agent_serves_both(outcome: Outcome) -> None:
    """Loading runs once through preprocessing, runtime and monitor."""
    for path in outcome.bundles:
        assert load_model(path).manifest.release == "both-1"


def test_a_second_run_finds_every_step(outcome: Outcome) -> None:
    """Pruning, QAT, exports and quantization are cached."""
    again = run_recipe(read_recipe(RECIPE), out=outcome.report.parent)
    assert again.ran == ()
    assert {"step-prune", "step-qat", "export", "quantize", "ort-format"} <= set(again.found)


def test_qat_and_quantize_on_different_grids_are_refused() -> None:
    """A network trained for per-channel weights is not quantized per tensor."""
    recipe = read_recipe(RECIPE)
    steps = tuple(replace(step, per_channel=False) if isinstance(step, Settings) else step for step in recipe.compress)
    with pytest.raises(RecipeError, match="same per_channel"):
        check_recipe(replace(recipe, compress=steps))
