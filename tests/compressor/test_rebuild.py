"""The same inputs result in the same bytes, and a difference is explained by its lineage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compressor.cli.output import print_rebuilt
from compressor.errors import PackageError
from compressor.gates.certificate import STAND_IN, read_certificate, write_certificate
from compressor.gates.evidence import GateRecipe
from compressor.progress import Bars
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe
from compressor.release.rebuild import rebuild
from compressor.release.regate import open_bundle
from compressor.run.ledger import LooksAt
from compressor.run.pipeline import Outcome, run_recipe
from wire.bundle import CERTIFICATE, MANIFEST, build_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A recipe that trains one epoch and passes."""
    return read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))


@pytest.fixture(scope="module")
def outcome(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run, shared."""
    return run_recipe(recipe, out=tmp_path_factory.mktemp("first"))


def test_a_bundle_built_again_from_nothing_has_the_same_bytes(recipe: Recipe, outcome: Outcome) -> None:
    """Training, export, calibration, reference and certificate are all repeated."""
    assert rebuild(outcome.bundles[0], recipe).same


def test_a_bundle_of_a_later_look_is_rebuilt_as_that_look(recipe: Recipe, tmp_path: Path) -> None:
    """Its certificate names look, plan and ledger, of which a new folder knows nothing."""
    gates = (GateRecipe(name="accuracy_drop", max=0.3), GateRecipe(name="size_bytes", max=1e6))
    bounded, looks = replace(recipe, gates=gates), LooksAt(path=tmp_path / "looks.json", planned=3)
    run_recipe(replace(bounded, train=replace(bounded.train, batch=32)), out=tmp_path, looks=looks)
    second = run_recipe(bounded, out=tmp_path, looks=looks)
    assert (second.certificate.look, second.certificate.planned_looks) == (2, 3)
    assert rebuild(second.bundles[0], bounded).same


def test_a_bundle_of_a_quick_run_is_rebuilt_by_one(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle names its recipe by a digest, which is that of the shortened one; a sentence says so at the start."""
    longer = replace(recipe, train=replace(recipe.train, epochs=7))
    bundle = run_recipe(longer, out=tmp_path, quick=True).bundles[0]
    assert rebuild(bundle, longer, Bars()).same
    assert "rebuilding it with --quick too" in capsys.readouterr().err


def test_a_bundle_of_generated_data_is_not_rebuilt(recipe: Recipe, outcome: Outcome, tmp_path: Path) -> None:
    """Its data lies in another folder each time: the answer comes before anything is trained."""
    bundle = open_bundle(outcome.bundles[0])
    certificate = replace(read_certificate(bundle.files[CERTIFICATE]), remarks=(STAND_IN,))
    entries = {name: data for name, data in bundle.files.items() if name != MANIFEST}
    (path := tmp_path / "a.tfb").write_bytes(
        build_bundle(bundle.manifest, entries | {CERTIFICATE: write_certificate(certificate)})
    )
    with pytest.raises(PackageError, match=r"got .*a\.tfb from its stand-in \(--quick\): run the recipe with --data"):
        rebuild(path, recipe)


def test_a_bundle_without_a_certificate_is_not_rebuilt(recipe: Recipe, outcome: Outcome, tmp_path: Path) -> None:
    """It says which file is missing, before anything is trained."""
    bundle = open_bundle(outcome.bundles[0])
    entries = {name: data for name, data in bundle.files.items() if name not in {MANIFEST, CERTIFICATE}}
    (path := tmp_path / "a.tfb").write_bytes(build_bundle(bundle.manifest, entries))
    with pytest.raises(PackageError, match=r"Expected gate\.json in .*a\.tfb, got none: build the bundle again"):
        rebuild(path, recipe)


def test_another_seed_is_named_as_the_reason(recipe: Recipe, outcome: Outcome) -> None:
    """If the inputs differ, the result names the different ones."""
    other = replace(recipe, train=replace(recipe.train, seed=recipe.train.seed + 1))
    rebuilt = rebuild(outcome.bundles[0], other)
    assert not rebuilt.same
    assert "model.onnx" in rebuilt.different
    assert {"recipe", "float_weights"} <= set(rebuilt.lineage)


def test_other_code_is_named_as_the_reason(
    recipe: Recipe, outcome: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A certificate names the code that judged: of a bundle from before an update only that differs."""
    bundle = open_bundle(outcome.bundles[0])
    certificate = read_certificate(bundle.files[CERTIFICATE])
    older = replace(
        certificate, code_digests={**certificate.code_digests, "compressor.measurement.onnx_graph": "0" * 64}
    )
    entries = {name: data for name, data in bundle.files.items() if name != MANIFEST}
    path = tmp_path / outcome.bundles[0].name
    path.write_bytes(build_bundle(bundle.manifest, {**entries, CERTIFICATE: write_certificate(older)}))
    rebuilt = rebuild(path, recipe)
    print_rebuilt(rebuilt)
    assert (rebuilt.different, rebuilt.lineage, rebuilt.code) == (
        ("gate.json",),
        (),
        ("compressor.measurement.onnx_graph",),
    )
    assert "other code of ours: compressor.measurement.onnx_graph" in capsys.readouterr().out


def test_a_recipe_that_does_not_pass_any_more_is_an_error(recipe: Recipe, outcome: Outcome) -> None:
    """There is no bundle to compare with."""
    strict = replace(recipe, gates=(GateRecipe(name="size_bytes", max=10.0),))
    with pytest.raises(PackageError, match="is this the bundle's recipe"):
        rebuild(outcome.bundles[0], strict)
