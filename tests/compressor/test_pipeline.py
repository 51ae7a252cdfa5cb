"""A whole run on the embedded data with a tiny network: resumes, repeats, fails closed, retrains."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from compressor.data import digits
from compressor.data.digits import DRIFTED
from compressor.errors import PackageError, TrustError
from compressor.gates import Verdict
from compressor.gates.certificate import read_certificate
from compressor.gates.evidence import GateRecipe
from compressor.recipe.model import AcceptanceRecipe, Recipe
from compressor.recipe.read import read_recipe
from compressor.release.keys import init_keys
from compressor.release.regate import gate_again
from compressor.release.signing import read_signable, sign_bundles
from compressor.release.verify import verify_bundle
from compressor.run.pipeline import BasePoint, Outcome, run_recipe
from server.trust.online_keys import init_online_keys
from wire.bundle import read_bundle
from wire.reference import read_reference


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A recipe that trains one epoch and passes."""
    return read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))


@pytest.fixture(scope="module")
def outcome(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run, shared."""
    return run_recipe(recipe, out=tmp_path_factory.mktemp("run"))


pytestmark = pytest.mark.slow


def test_a_run_leaves_bundle_report_certificate_and_weights(outcome: Outcome) -> None:
    """Everything that the next person needs is there."""
    folder = outcome.report.parent
    assert outcome.verdict is Verdict.PASS
    assert {path.name for path in folder.iterdir()} == {
        "cache", "float.pt", "gate.json", "report.html", "tiny-1-host.tfb",
    }  # fmt: skip
    assert read_certificate((folder / "gate.json").read_bytes()).verdict == "pass"


def test_the_security_floor_of_the_recipe_travels_in_the_manifest(recipe: Recipe, outcome: Outcome) -> None:
    """The value that the device compares, and that the signed target has, is the recipe's."""
    floor = recipe.model.security_floor
    assert floor == 3
    assert read_bundle(outcome.bundles[0]).manifest.security_floor == floor
    assert read_signable(outcome.bundles[0]).custom.security_floor == floor


def test_the_acceptance_of_the_recipe_travels_as_budgets(recipe: Recipe, outcome: Outcome, tmp_path: Path) -> None:
    """Half as strict on golden vectors, six times the least latency: and it is another recipe, by its digest."""
    shutil.copytree(outcome.report.parent, tmp_path / "run")
    other = replace(recipe, acceptance=AcceptanceRecipe(golden_tolerance=0.1, min_latency_budget_ms=300.0))
    made = run_recipe(other, out=tmp_path / "run")
    before, after = (read_bundle(one.bundles[0]).manifest for one in (outcome, made))
    assert after.budgets.golden_max_abs == pytest.approx(2 * before.budgets.golden_max_abs)
    assert (before.budgets.latency_p95_ms, after.budgets.latency_p95_ms) == (50.0, 300.0)
    assert before.lineage["recipe"] != after.lineage["recipe"]


def test_the_reference_is_made_by_the_artifact_itself(outcome: Outcome) -> None:
    """Its digest is the artifact's and it has at least 2,000 samples."""
    bundle = read_bundle(outcome.bundles[0])
    reference = read_reference(bundle.files["reference.bin"])
    assert reference.artifact_sha256 == bundle.manifest.artifact_sha256
    assert reference.contexts[0].n >= 2000
    assert reference.contexts[0].n_effective < reference.contexts[0].n


def test_a_second_run_makes_nothing_and_gives_the_same_bytes(recipe: Recipe, outcome: Outcome) -> None:
    """All steps are found, the bundle does not change."""
    before = outcome.bundles[0].read_bytes()
    again = run_recipe(recipe, out=outcome.report.parent)
    assert again.ran == ()
    assert again.bundles[0].read_bytes() == before


def test_another_folder_gives_the_same_bytes(recipe: Recipe, outcome: Outcome, tmp_path: Path) -> None:
    """No clock, path or measurement of this host is in a bundle."""
    elsewhere = run_recipe(recipe, out=tmp_path)
    assert elsewhere.bundles[0].read_bytes() == outcome.bundles[0].read_bytes()


def test_a_changed_gate_trains_nothing_and_takes_the_bundle_away(
    recipe: Recipe, outcome: Outcome, tmp_path: Path
) -> None:
    """Failing closed: the bundle of an earlier pass is deleted."""
    folder = shutil.copytree(outcome.report.parent, tmp_path / "copy")
    failed = run_recipe(replace(recipe, gates=(GateRecipe(name="size_bytes", max=10),)), out=folder)
    assert (failed.verdict, failed.bundles, failed.ran) == (Verdict.FAIL, (), ())
    assert not (folder / "tiny-1-host.tfb").exists()


def test_a_bundle_verifies_and_is_judged_again_here(outcome: Outcome) -> None:
    """Digests, golden vectors and gates agree on this machine."""
    assert verify_bundle(outcome.bundles[0]).complete
    assert gate_again(outcome.bundles[0]).verdict == "pass"
    assert gate_again(outcome.report.parent).verdict == "pass"


def test_a_signature_is_verified_and_its_absence_said(outcome: Outcome, tmp_path: Path) -> None:
    """With the folder of keys, an unsigned bundle is incomplete, a signed one names its list, another's is refused."""
    (tmp_path / "server" / "keys").mkdir(parents=True)
    init_online_keys(tmp_path / "server")
    keys = tmp_path / "keys"
    init_keys(keys, tmp_path / "server" / "online.pub.json")
    bundle = outcome.bundles[0]
    assert verify_bundle(bundle, keys).missing == ("signature: tiny-1/host.tfb",)
    sign_bundles([bundle], keys)
    signature = verify_bundle(bundle, keys).signature
    assert signature is not None
    assert signature.path == "tiny-1/host.tfb"
    (keys / "metadata" / "targets.json").write_bytes(b"{}")
    with pytest.raises(TrustError):
        verify_bundle(bundle, keys)


def test_a_changed_byte_is_found(outcome: Outcome, tmp_path: Path) -> None:
    """One flipped bit in the artifact is a digest error."""
    data = bytearray(outcome.bundles[0].read_bytes())
    data[len(data) // 2] ^= 1
    broken = tmp_path / "broken.tfb"
    broken.write_bytes(data)
    with pytest.raises(PackageError):
        verify_bundle(broken)


def test_a_retraining_is_compared_with_the_release_before(recipe: Recipe, outcome: Outcome, tmp_path: Path) -> None:
    """The baseline is the old artifact, superiority is judged on the held-out drifted part, a context is added."""
    extra = digits.render(range(0, 400, 2), DRIFTED, "dusk")
    base = BasePoint(outcome.bundles[0], outcome.checkpoint)
    retrained = run_recipe(recipe, out=tmp_path, version=2, base=base, extra=extra)
    assert retrained.certificate.baseline == "tiny-1"
    assert "superiority" in {line.name for line in retrained.certificate.gates}
    assert retrained.certificate.counts["drifted"][2] < 100
