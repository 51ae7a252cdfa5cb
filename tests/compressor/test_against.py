"""A candidate is judged against the release that devices run, at every site."""

from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compressor.cli import main
from compressor.data import digits, labelled_images
from compressor.data._split import split
from compressor.data._table import Table, concatenate
from compressor.errors import CompressorError, PackageError, SplitError, TrustError
from compressor.gates import Verdict
from compressor.gates.certificate import read_certificate, write_certificate
from compressor.gates.evidence import GateRecipe
from compressor.gates.looks import Look
from compressor.progress import Silent
from compressor.recipe.model import DataRecipe, Recipe
from compressor.recipe.read import read_recipe
from compressor.release.keys import init_keys
from compressor.release.publish import sign_bundles
from compressor.run.against import Against, gate_against
from compressor.run.comparison import check_compares
from compressor.run.ledger import LooksAt, counted
from compressor.run.pipeline import BasePoint, Outcome, opened, run_recipe
from server.trust.online_keys import init_online_keys
from wire.bundle import CERTIFICATE, MANIFEST, build_bundle, read_bundle
from wire.canonical import sha256_hex
from wire.manifest import Preprocessing

SITE = "b"


def sound(data: DataRecipe, root: Path | None = None) -> Table:
    """Return digits of two sites: three in four through the usual lens, the others through a dark one."""
    del data, root
    rows = range(1797)
    usual = digits.render([row for row in rows if row % 4], digits.LENS_A, "a")
    return concatenate(usual, digits.render([row for row in rows if not row % 4], digits.DRIFTED, SITE))


def mislabelled(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the same rows; where one site is trained on, its labels are shifted by one."""
    return shifted(sound(data, root), SITE)


def shifted(table: Table, site: str) -> Table:
    """Return ``table`` with the labels of the train rows of ``site`` shifted by one."""
    train = split(table, 0).train
    labels = table.labels.copy()
    wrong = train[table.slices[train] == site]
    labels[wrong] = (labels[wrong] + 1) % 10
    return replace(table, labels=np.asarray(labels))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A recipe of a tiny network whose only own gate is on size."""
    read = read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))
    return replace(read, gates=(GateRecipe(name="size_bytes", max=1e6),))


def on(recipe: Recipe, loader: str, epochs: int) -> Recipe:
    """Return ``recipe`` on the data of ``loader``."""
    data = replace(recipe.data, dataset=f"tests.compressor.test_against:{loader}")
    return replace(recipe, data=data, train=replace(recipe.train, epochs=epochs))


@pytest.fixture(scope="module")
def before(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The release that devices run."""
    return run_recipe(on(recipe, "sound", 8), out=tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def worse(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A release whose training had the labels of one site shifted; nothing was compared when it was made."""
    return run_recipe(on(recipe, "mislabelled", 16), out=tmp_path_factory.mktemp("worse"), version=2)


@pytest.mark.slow
def test_a_release_that_gains_on_the_average_and_falls_at_one_site_is_refused(
    recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path
) -> None:
    """The labels of one site are shifted in its training: the average rises, and the gate on sites names the one."""
    base = BasePoint(before.bundles[0], compared=True)
    shutil.copytree(worse.report.parent / "cache", tmp_path / "after" / "cache")  # trained once
    after = run_recipe(on(recipe, "mislabelled", 16), out=tmp_path / "after", version=2, base=base)
    lines = {line.name: line for line in after.certificate.gates}
    assert after.certificate.baseline == "tiny-1"
    assert (before.certificate.look, after.certificate.look) == (0, 1)  # only the gates of --against have a bound
    assert after.certificate.figures["accuracy"] > after.certificate.figures["baseline_accuracy"]
    assert (after.verdict, after.bundles, lines["worst_slice_drop"].verdict) == (Verdict.FAIL, (), "fail")
    assert f"slice '{SITE}'" in lines["worst_slice_drop"].text
    assert any("Against tiny-1" in remark for remark in after.certificate.remarks)
    listed = (tmp_path / "after" / "disagreements.tsv").read_text().splitlines()
    changed = after.certificate.figures["release_flip_ratio"] * after.certificate.figures["n_gate"]
    assert (listed[0], len(listed) - 1) == ("path\tlabel\tslice\tsource\told\tnew", round(changed))


@pytest.mark.slow
def test_the_gate_command_judges_a_finished_bundle_against_the_one_that_devices_run(
    recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path
) -> None:
    """Each passed its own gates; against each other the one site is named, and all rows that changed are listed."""
    assert (before.verdict, worse.verdict) == (Verdict.PASS, Verdict.PASS)
    listed = tmp_path / "rows.tsv"
    asked = Against(old=before.bundles[0], recipe=on(recipe, "mislabelled", 16), disagreements=listed)
    found = gate_against(worse.bundles[0], asked, Silent())
    lines = {line.name: line for line in found.gates}
    assert (found.verdict, found.baseline, lines["worst_slice_drop"].verdict) == ("fail", "tiny-1", "fail")
    assert f"slice '{SITE}': drop " in lines["worst_slice_drop"].text
    assert found.figures["drop"] < 0
    assert found.figures["float_accuracy"] == worse.certificate.figures["float_accuracy"]  # not that of the release
    rows = [line.split("\t") for line in listed.read_text().splitlines()[1:]]
    lost, won, *_ = found.counts["accuracy"]
    assert all(old != new for *_, old, new in rows)
    assert sum(old == label for _, label, *_, old, _ in rows) == lost
    assert sum(new == label for _, label, *_, new in rows) == won


@pytest.mark.slow
def test_a_look_of_the_gate_command_is_counted_once(recipe: Recipe, before: Outcome, worse: Outcome) -> None:
    """The same bundle on the same rows is one look, however often it is asked."""
    asked = Against(old=before.bundles[0], recipe=on(recipe, "mislabelled", 16))
    looks = [gate_against(worse.bundles[0], asked, Silent()).look for _ in range(2)]
    assert looks == [1, 1]
    (ledger,) = json.loads((worse.bundles[0].parent / "looks.json").read_text())["splits"]
    assert len(ledger["candidates"]) == 1


@pytest.mark.slow
def test_a_bundle_keeps_its_look_in_every_folder(recipe: Recipe, before: Outcome, tmp_path: Path) -> None:
    """The certificate knows it: a copy has no fresh ledger, and one of two targets is no other candidate."""
    bounded = replace(on(recipe, "sound", 8), gates=(GateRecipe(name="accuracy_drop", max=0.9),))
    ledger = LooksAt(path=tmp_path / "looks.json", planned=4, least=3)
    shutil.copytree(before.report.parent / "cache", tmp_path / "cache")  # trained once
    two = (*bounded.targets[:1], replace(bounded.targets[0], name="two", threads=2))
    trained = replace(bounded, train=replace(bounded.train, epochs=7), targets=two)
    bundle, _ = run_recipe(trained, out=tmp_path, looks=ledger).bundles
    (tmp_path / "elsewhere").mkdir()
    for place in (bundle, Path(shutil.copy(bundle, tmp_path / "elsewhere"))):
        found = gate_against(place, Against(old=before.bundles[0], recipe=trained), Silent())
        assert (found.look, found.planned_looks, found.risk_share) == (3, 4, 0.25)
        assert found.rules[0].confidence == pytest.approx(0.9875)


def certified(bundle: Path, folder: Path, **changed: Any) -> Path:  # noqa: ANN401 - fields of the certificate
    """Return the bundle with another certificate, in a folder of its own."""
    read = read_bundle(bundle)
    certificate = replace(read_certificate(read.files[CERTIFICATE]), **changed)
    entries = {name: data for name, data in read.files.items() if name != MANIFEST}
    folder.mkdir()
    (path := folder / bundle.name).write_bytes(
        build_bundle(read.manifest, entries | {CERTIFICATE: write_certificate(certificate)})
    )
    return path


@pytest.mark.slow
def test_the_recipes_own_limits_come_first(recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path) -> None:
    """Margin and confidence are the recipe's: with wide ones the release passes that the usual ones refuse."""
    names = ("accuracy_drop", "worst_slice_drop", "worst_class_drop")
    wide = tuple(GateRecipe(name=name, max=0.9, confidence=0.8) for name in names)
    asked = Against(old=before.bundles[0], recipe=replace(on(recipe, "mislabelled", 16), gates=wide))
    found = gate_against(certified(worse.bundles[0], tmp_path / "a"), asked, Silent())
    assert [(rule.name, rule.max) for rule in found.rules[:3]] == [(name, 0.9) for name in names]
    assert [rule.confidence for rule in found.rules[:3]] == pytest.approx([0.82] * 3)  # nine tenths of the risk
    assert {line.verdict for line in found.gates} == {"pass"}
    assert "size_bytes" in {line.name for line in found.gates}  # as without --against


@pytest.mark.slow
def test_a_bundle_brings_no_wider_limit(recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path) -> None:
    """Where the recipe names no gate on a drop, the usual limits hold; gates on flips keep what was recorded."""
    lax = (*worse.certificate.rules, GateRecipe(name="worst_slice_drop", max=0.9), GateRecipe(name="auc_drop", max=1))
    path = certified(worse.bundles[0], tmp_path / "a", rules=lax, risk_share=0.5)
    flips = GateRecipe(name="flip_ratio", max=0.9)
    asked = Against(old=before.bundles[0], recipe=replace(on(recipe, "mislabelled", 16), gates=(flips,)))
    found = gate_against(path, asked, Silent())
    rules = {rule.name: rule for rule in found.rules}
    assert (rules["worst_slice_drop"].max, "auc_drop" in rules, found.verdict) == (0.05, False, "fail")
    assert (rules["flip_ratio"].max, rules["flip_ratio"].confidence) == (0.9, 0.975)  # at the share of its own look


@pytest.mark.slow
@pytest.mark.parametrize(("labels", "number"), [("same", 3), ("", 3), ("0f" * 32, 4)])
def test_other_labels_of_its_rows_are_another_look(
    labels: str, number: int, recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path
) -> None:
    """A certificate knows its look by rows and labels; one of an older version, without labels, by its rows.

    Labels that it does not know are one look more than it has, although no ledger is beside it.
    """
    asked = Against(old=before.bundles[0], recipe=on(recipe, "mislabelled", 16))
    seen = gate_against(certified(worse.bundles[0], tmp_path / "a"), asked, Silent())
    own = seen.gate_labels if labels == "same" else labels
    path = certified(worse.bundles[0], tmp_path / "b", look=3, planned_looks=4, gate_split=seen.gate_split,
                     gate_labels=own)  # fmt: skip
    assert gate_against(path, asked, Silent()).look == number


@pytest.mark.slow
def test_rows_that_the_bundle_was_trained_on_do_not_judge_it(
    recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path
) -> None:
    """Another seed draws other gate rows of the same data: the bundle learnt from some; no look is counted."""
    path = certified(worse.bundles[0], tmp_path / "a", look=1, gate_split="0f" * 32)
    asked = Against(old=before.bundles[0], recipe=on(recipe, "mislabelled", 16))
    with pytest.raises(SplitError, match="other rows of the same data: it may have been trained on some of them"):
        gate_against(path, asked, Silent())
    assert not (tmp_path / "a" / "looks.json").exists()


@pytest.mark.slow
def test_a_release_that_learnt_from_the_gate_rows_judges_nothing(
    recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path
) -> None:
    """The release before, made with another seed from the same data, would be flattered: neither command takes it."""
    old = certified(worse.bundles[0], tmp_path / "a", look=1, gate_split="0f" * 32)
    asked = Against(old=old, recipe=on(recipe, "mislabelled", 16))
    with pytest.raises(SplitError, match="tiny-2 was judged on, got other rows of the same data"):
        gate_against(before.bundles[0], asked, Silent())
    with pytest.raises(SplitError, match="tiny-2 was judged on, got other rows of the same data"):
        run_recipe(asked.recipe, out=tmp_path / "out", version=3, base=BasePoint(old, compared=True))
    assert not (tmp_path / "out" / "looks.json").exists()
    assert [path.name for path in (tmp_path / "out").rglob("*.pt")] == []


@pytest.mark.slow
def test_one_look_is_spoken_of(recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path) -> None:
    """The remark on the look that the bundle was made with does not stand beside that of this one."""
    asked = Against(old=before.bundles[0], recipe=on(recipe, "mislabelled", 16))
    split = gate_against(certified(worse.bundles[0], tmp_path / "a"), asked, Silent()).gate_split
    said = Look(number=2).remark(0.05)
    path = certified(
        worse.bundles[0], tmp_path / "b", look=2, gate_split=split, gate_labels="0f" * 32, remarks=("Dark.", said)
    )
    remarks = gate_against(path, asked, Silent()).remarks
    assert [remark[:6] for remark in remarks if "at this gate split" in remark] == ["Look 3"]
    assert "Dark." in remarks


def test_looks_at_the_same_time_have_different_numbers(tmp_path: Path) -> None:
    """Those that read one ledger at once would all be the first look, with nine tenths of the risk each."""
    at = LooksAt(path=tmp_path / "looks.json")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: counted(at, sha256_hex(b"%d" % one), ["row"]), range(16)))
    assert sorted(look.number for look in found) == list(range(1, 17))


@pytest.mark.slow
def test_pictures_without_labels_are_listed_where_the_models_disagree(
    recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path
) -> None:
    """Pictures of the site whose labels were shifted: the list has their paths, and no labels."""
    folder = tmp_path / "new" / "site"
    folder.mkdir(parents=True)
    for i, image in enumerate(sound(recipe.data).images[-40:]):
        Image.fromarray(image).save(folder / f"{i}.png")
    listed = tmp_path / "rows.tsv"
    asked = Against(old=before.bundles[0], recipe=on(recipe, "mislabelled", 16), disagreements=listed,
                    unlabelled=tmp_path / "new")  # fmt: skip
    gate_against(worse.bundles[0], asked, Silent())
    rows = [line.split("\t") for line in listed.read_text().splitlines()[1:]]
    fresh = [row for row in rows if row[2] == "unlabelled"]
    assert len(fresh) > 20
    assert {row[1] for row in fresh} == {""}
    assert all((tmp_path / "new" / row[0]).is_file() for row in fresh)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "other"}, "Expected a release of tiny, got other-1: give the bundle of this model"),
        ({"values": ("x",), "labels": ()}, "got tiny-1, a model of regression: what one answers"),
        (
            {"preprocessing": Preprocessing(width=99, height=16, colour="grey", front_end="log_mel")},
            "got colour 'grey'",
        ),
        ({"labels": ("a", "b")}, "Expected the labels of tiny-1, got 0, 1"),
    ],
)
def test_a_release_that_answers_another_question_is_refused(
    changed: dict[str, Any], said: str, recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path
) -> None:
    """Another model, task, input or other classes: the message names the difference and the next step."""
    bundle = read_bundle(before.bundles[0])
    manifest = replace(bundle.manifest, artifact_sha256=sha256_hex(b"other"), files={}, **changed)
    manifest = replace(manifest, schema=manifest.needed_schema)
    artifact = {manifest.artifact: b"other"}
    (tmp_path / "old.tfb").write_bytes(build_bundle(manifest, artifact))
    asked = Against(old=tmp_path / "old.tfb", recipe=on(recipe, "mislabelled", 16))
    with pytest.raises(CompressorError, match=re.escape(said)):
        gate_against(worse.bundles[0], asked, Silent())


def test_a_file_that_is_no_bundle_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """Text, and a folder: one line each, before any data are read."""
    (tmp_path / "x.tfb").write_text("hello")
    asked = Against(old=tmp_path / "x.tfb", recipe=recipe)
    with pytest.raises(PackageError, match=r"Expected a valid bundle at .*x\.tfb"):
        gate_against(tmp_path / "x.tfb", asked, Silent())
    with pytest.raises(PackageError, match=r"got the folder .*: give its \.tfb file"):
        gate_against(tmp_path, asked, Silent())


@pytest.mark.slow
def test_with_keys_the_release_before_must_be_signed(
    recipe: Recipe, before: Outcome, worse: Outcome, tmp_path: Path
) -> None:
    """Signed by these keys it is judged; keys that never signed it are a trust error that names the way out."""
    keys = tmp_path / "keys"
    init_keys(keys, init_online_keys(tmp_path / "server"))
    asked = Against(old=before.bundles[0], recipe=on(recipe, "mislabelled", 16), keys=keys)
    with pytest.raises(TrustError, match=r"Expected tiny-1 among the releases .* leave --keys out"):
        gate_against(worse.bundles[0], asked, Silent())
    sign_bundles(list(before.bundles), keys)
    assert gate_against(worse.bundles[0], asked, Silent()).verdict == "fail"


def test_a_regression_needs_a_gate_on_its_error(tmp_path: Path) -> None:
    """No margin in its unit applies by default: without one nothing would be compared, and the release would pass."""
    read = read_recipe(Path(__file__).with_name("regression_recipe.toml"))
    run = opened(read, tmp_path, Silent())
    check_compares([GateRecipe(name="error_increase", max=1.0)], run)
    with pytest.raises(PackageError, match=r"write error_increase = \{max = …\} into \[gates\]"):
        check_compares([GateRecipe(name="mae", max=1.0)], run)


METERS = Path(os.environ.get("TINYFLEET_DATA", "data")) / "meter-digits" / "meter-digits-dev.zip"
FALLEN = "jomjol_update_20220608"


def meters(data: DataRecipe, root: Path | None = None) -> Table:
    """Return two training sites of the development meter data; of the smaller every third row."""
    del data, root
    read = read_recipe(Path("models/meter_digits")).with_data(METERS)
    table = labelled_images.load(read.data)
    few = (table.slices == FALLEN) & (np.arange(len(table)) % 3 == 0)
    return table.take(few | (table.slices == read.data.train_slices[0]))


def shifted_meters(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the same rows; the training labels of one site are shifted by one, as by a mistake in its export."""
    return shifted(meters(data, root), FALLEN)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.skipif(not METERS.is_file(), reason="the development meter data are not here: set TINYFLEET_DATA")
def test_on_meters_the_site_whose_labels_were_shifted_is_named_with_its_figures(tmp_path: Path) -> None:
    """More epochs raise the average; the site that fell is refused by name, on real pictures."""
    read = replace(read_recipe(Path("models/meter_digits")), gates=(GateRecipe(name="size_bytes", max=1e6),))
    read = replace(read, data=replace(read.data, train_slices=(), needs="", stand_in="", slices="", label="exact"))
    first = run_recipe(on(read, "meters", 3), out=tmp_path / "before")
    base = BasePoint(first.bundles[0], compared=True)
    after = run_recipe(on(read, "shifted_meters", 12), out=tmp_path / "after", version=2, base=base)
    lines = {line.name: line for line in after.certificate.gates}
    assert after.certificate.figures["accuracy"] > after.certificate.figures["baseline_accuracy"]
    assert (after.verdict, after.bundles) == (Verdict.FAIL, ())
    assert lines["worst_slice_drop"].text.startswith(f"slice '{FALLEN}': drop ")
    print("\n".join(f"{line.name} {line.verdict}: {line.text}" for line in after.certificate.gates))  # noqa: T201


@pytest.mark.slow
def test_looks_are_counted_in_the_folder_and_the_planned_number_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    """Each has its part of the risk; the same candidate is no look; one more than planned is refused."""
    bounded = replace(on(recipe, "sound", 1), gates=(GateRecipe(name="accuracy_drop", max=0.2),))
    made = [
        run_recipe(replace(bounded, train=replace(bounded.train, seed=0, batch=batch)), out=tmp_path, looks=plan)
        for batch in (64, 64, 32)
        for plan in [LooksAt(path=tmp_path / "looks.json", planned=2)]
    ]
    assert [one.certificate.look for one in made] == [1, 1, 2]
    assert {one.certificate.rules[0].confidence for one in made} == {0.975}
    assert {(one.certificate.last_look, one.certificate.risk_share) for one in made} == {(2, 0.5)}
    assert made[0].certificate.ledger == made[1].certificate.ledger != made[2].certificate.ledger
    with pytest.raises(SplitError, match="at most 2 looks at this gate split"):
        run_recipe(replace(bounded, train=replace(bounded.train, batch=16)), out=tmp_path)


@pytest.mark.slow
def test_a_target_without_gates_beside_one_whose_gate_has_a_bound_fails(recipe: Recipe, tmp_path: Path) -> None:
    """There is nothing to judge it by; the look is that of the other target, and no remark speaks of its risk."""
    two = (*recipe.targets, replace(recipe.targets[0], name="two"))
    gates = (GateRecipe(name="accuracy_drop", max=0.9, on="host"),)
    at = LooksAt(path=tmp_path / "looks.json", planned=2)
    made = run_recipe(replace(on(recipe, "sound", 1), gates=gates, targets=two), out=tmp_path, looks=at)
    assert [any("Look 1 of 2" in remark for remark in one.remarks) for one in made.targets] == [True, False]
    assert (made.targets[1].gates, made.targets[1].verdict, made.bundles) == ((), "fail", ())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Expected --recipe RECIPE with --against, got none"),
        (["--on", "device:cam-1"], "Expected no --on with --against, got device:cam-1"),
        (["--unlabelled", "."], "Expected --disagreements FILE with --unlabelled, got none"),
    ],
)
def test_what_is_missing_beside_against_is_named(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One thing at a time, and what it is for."""
    (bundle := tmp_path / "old.tfb").write_bytes(b"")
    recipe = str(Path(__file__).with_name("pipeline_recipe.toml"))
    beside = ["--recipe", recipe] if options else []
    with pytest.raises(SystemExit) as stop:
        main(["gate", str(bundle), "--against", str(bundle), *beside, *options])
    assert (stop.value.code, said in capsys.readouterr().err) == (4, True)
