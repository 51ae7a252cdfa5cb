"""From a recipe to bundles: data, train, export, quantize, measure, gate, package.

Decides the order, what is compared, and what is written. A normal run compares the int8 artifact with the float model
it was made from. A retraining (``base`` and ``extra``) compares it with the previous release's artifact: not worse on
the gate split, slice by slice, and better on the held-out part of the drifted samples. Only what passed becomes a
bundle; if the gates fail, a bundle of this name from an earlier run is removed. ``quick_of`` reduces a recipe to data
and targets that are available here; it does not change the gates.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor import formats, report, stand_ins, tasks
from compressor.cache import Cache, Result, write_atomically
from compressor.closure import code_digests
from compressor.data import load_kept
from compressor.data._calibration import opened as opened_calibration
from compressor.data._split import WITHOUT_TRAIN, absences, part, part_watched, repeats, set_aside, split
from compressor.data._table import Table, align, concatenate
from compressor.data.unlabelled import without_labels
from compressor.devices.bench import DeviceBench
from compressor.errors import DataError, PackageError
from compressor.exploration.duplicates import with_near_sources
from compressor.gates import CONFIDENCE, LABEL_ORDER, AccuracyDrop, Evidence, Verdict, agreement, few
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate, WatchedSite
from compressor.gates.evidence import GateRecipe
from compressor.gates.kinds import KINDS, added_to, risks_of
from compressor.gates.kinds import measured as measured_by
from compressor.gates.looks import UNCOUNTED, Look
from compressor.progress import Progress, Silent
from compressor.recipe import preflight
from compressor.recipe.model import Recipe, TargetRecipe
from compressor.release.drift_reference import MIN_REFERENCE_ROWS
from compressor.run import imported_model, usual_preprocessing
from compressor.run.anomalies import distance
from compressor.run.bundles import Judged, make_bundles
from compressor.run.comparison import (
    DISAGREEMENTS,
    ITSELF,
    Comparison,
    as_tsv,
    check_comparable,
    check_compares,
    check_draw,
    disagreements,
    figures_of,
)
from compressor.run.compression import Lesson, Notes, exported, models_of, noise_remedy, rescued, shaped
from compressor.run.device_evidence import said_by_devices
from compressor.run.ledger import LooksAt, counted, gate_labels, own_turn, read_ledgers
from compressor.run.report_inputs import shown
from compressor.run.stages import Form, Material, Models, Run
from compressor.steps._selection import artifact_steps, becomes_network, has_choices, learns, plugins_of
from wire.bundle import read_bundle
from wire.canonical import sha256_hex
from wire.errors import WireError

ACCURACY_DROP = "accuracy_drop"
_QUICK_EPOCHS = 2
_NAMES_SHOWN = 5
_AS_TOLD = (
    "Pictures that look alike stay in different splits, as the data set tells its splits ([data] near_copies = "
    "'as_told'): figures may be better than on new pictures."
)

JUDGES = (__name__, "compressor.recipe.read")
"""Modules whose code judges a run, with all their imports: the reader determines what the gates of a recipe mean."""


@dataclass(frozen=True, slots=True)
class BasePoint:
    """Start of a retraining: the bundle of the previous release, and its float weights if this host has them.

    ``compared``: nothing starts from it; the candidate is only judged against it, as what devices run now.
    """

    bundle: Path
    checkpoint: Path | None = None
    compared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a run. ``certificate`` covers all targets; ``bundles`` is empty unless its verdict is ``pass``.

    ``ran`` and ``found`` name the steps that were computed and those from the cache; ``targets`` has one certificate
    each; ``recipe`` is the recipe that was run, with version and ``quick``; ``lineage``: digests of its inputs.
    """

    verdict: Verdict
    bundles: tuple[Path, ...]
    certificate: Certificate
    report: Path
    checkpoint: Path
    ran: tuple[str, ...]
    found: tuple[str, ...]
    recipe: Recipe
    targets: tuple[Certificate, ...] = ()
    lineage: Mapping[str, str] = field(default_factory=dict)


def run_recipe(  # noqa: PLR0913 - the seam that worker and command line share
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    out: Path,
    version: int | None = None,
    base: BasePoint | None = None,
    extra: Table | None = None,
    watched: Table | None = None,
    progress: Progress | None = None,
    quick: bool = False,
    devices: DeviceBench | None = None,
    looks: LooksAt | None = None,
) -> Outcome:
    """Run ``recipe`` to its verdict; write bundles, report, certificate and float weights to ``out``.

    ``data_root`` is the base of relative data paths (default: the recipe's folder). ``quick`` trains two epochs.
    ``extra`` are the drifted samples of a retraining, ``watched`` labelled samples of sites that did not drift.
    ``devices`` is the bench for devices that gates name; without it such gates fail as not measured. ``looks``: where
    the looks at the gate split are counted, and how many are planned; default: ``looks.json`` in ``out``, no plan.
    Waits while another run writes to ``out``.

    Raises:
        CompressorError: If the run fails; the subclass and its ``code`` give the reason.
    """
    if version is not None:
        recipe = replace(recipe, model=replace(recipe.model, version=version))
    if quick:
        recipe = shortened(recipe)
    preflight.check(recipe, out)
    before = None
    if base is not None:
        try:
            before = read_bundle(base.bundle)
        except (OSError, WireError) as error:
            message = f"Expected the bundle of the release before at {base.bundle}, got: {error}"
            raise PackageError(message) from error
    progress, at = progress or Silent(), looks or LooksAt(path=out / "looks.json")
    with own_turn(out, progress):
        run = replace(opened(recipe, out, progress), before=before, devices=devices)
        if risks_of(recipe.gates) or before is not None:
            read_ledgers(at.path)  # before the training: a broken one ends the run
        if before is not None:
            check_comparable(before, run)
            check_compares(recipe.gates, run)
        run = replace(run, material=material_of(run, data_root, extra, watched))
        run = imported_model.answered(run)
        if before is not None and extra is None:
            check_draw(run, before)  # before the training
        run = replace(run, models=_models(run, None if base is not None and base.compared else base))
        rules = {target.name: _rules(run, target) for target in recipe.targets}
        look = looked(run, at, [rule for own in rules.values() for rule in own])
        results: list[Judged] = []
        compared: Comparison | None = None
        for target in recipe.targets:
            compared = Comparison.of(run, target.name, compared)
            results.append(_judge(run, target, compared, (look, rules[target.name])))
        combined = certificates.combine([judged.certificate for judged in results])
        bundles = make_bundles(run, results) if combined.verdict == Verdict.PASS else {}
        _list_changes(run, out, results[0].compared, combined)
        return _write(run, out, combined, bundles, shown(combined, run, results))


def _list_changes(run: Run, out: Path, compared: Comparison, certificate: Certificate) -> None:
    """Write the gate rows with other answers to ``out``, or remove such a list where nobody would read it.

    It is for labels that would decide, and for people who look at what changed, where there are no labels.
    """
    listed, labelled = out / DISAGREEMENTS, run.recipe.data.labelled
    listed.unlink(missing_ok=True)
    rows = run.rows("gate")
    wanted = run.before is not None or certificate.verdict == Verdict.INCONCLUSIVE or not labelled
    if wanted and run.task.targets.classes(rows.labels) is not None:
        write_atomically(listed, as_tsv(disagreements(rows, compared.gate_set, run, labelled=labelled)))


def shortened(recipe: Recipe) -> Recipe:
    """Return ``recipe`` with the training of a quick run."""
    train = replace(recipe.train, epochs=_QUICK_EPOCHS, fine_tune_epochs=_QUICK_EPOCHS)
    return replace(recipe, train=train)


def opened(recipe: Recipe, out: Path, progress: Progress) -> Run:
    """Return a run into ``out`` that has no data yet; reports a cache of another version there."""
    cache = Cache(out / "cache")
    if aside := cache.left_aside():
        progress.say(aside)
    return Run(recipe=recipe, cache=cache, progress=progress)


def material_of(run: Run, data_root: Path | None, extra: Table | None, watched: Table | None = None) -> Material:
    """Return the data of ``run`` in its splits; the previous release sets the labels.

    ``extra`` and ``watched`` as in ``run_recipe``.

    Raises:
        DataError: If the data can't be used, or has other labels.
    """
    recipe, before = run.recipe, run.before
    with run.progress.stage("data", 1, "set") as stage:
        table = load_kept(run.cache, recipe.data, data_root or recipe.folder)
        stage.advance()
    if table.corrupt:
        run.progress.say(f"left out {len(table.corrupt)} corrupt images: {', '.join(table.corrupt[:_NAMES_SHOWN])}")
    for said in table.remarks:
        run.progress.say(said)
    path = recipe.data.calibration
    given = opened_calibration(recipe.folder / path, run.preprocessing) if path else None
    if given is not None:
        run.progress.say(given.said)
    if recipe.model.labels:
        table = align(table, recipe.model.labels)
    if before is not None and (before.manifest.values or before.manifest.labels) != table.class_names:
        message = f"Expected the labels of {before.manifest.release}, got {', '.join(table.class_names)}"
        raise DataError(message)
    unnamed = table.sources == table.hashes  # rows for which the data set names no source
    if unnamed.any():
        as_told = recipe.data.near_copies == "as_told"
        table = with_near_sources(table, run.progress, unnamed, run.cache, as_told=as_told)
    needed = learns(recipe, retrained=extra is not None)
    splits = split(table, recipe.train.seed, slices=recipe.data.train_slices, learns=needed)
    for said in absences(table, splits):
        run.progress.say(said)
    table = run.task.targets.fitted(recipe, table, table.take(splits.train))
    unlabelled = _unlabelled_of(run, table, data_root) if recipe.data.unlabelled else None
    unfit = run.task.unfit.get("retraining", "")
    if extra is not None and unfit:
        message = f"Expected a recipe of classes for a retraining from drifted samples, got one {run.task.recipes}"
        raise DataError(f"{message}: {unfit}")
    if extra is None:
        return Material(table=table, splits=splits, drifted=None, calibration=given, unlabelled=unlabelled)
    used = np.concatenate([splits.train, splits.calibration, splits.gate, splits.reference])
    known = table.take(used)
    drifted = part(with_near_sources(extra, run.progress, cache=run.cache), known)
    beside = (
        None
        if watched is None
        else part_watched(with_near_sources(watched, run.progress, cache=run.cache), known, drifted)
    )
    return Material(
        table=table, splits=splits, drifted=drifted, watched=beside, calibration=given, unlabelled=unlabelled
    )


def _unlabelled_of(run: Run, table: Table, data_root: Path | None) -> Table:
    """Return the inputs without labels beside ``table`` that show nothing that its rows show, also nearly so.

    A student that learns a teacher's answers to the inputs of a gate would be judged by what it was taught.

    Raises:
        DataError: If they can't be read, or none is left.
    """
    data = run.recipe.data
    with run.progress.stage("inputs without labels", 1, "set") as stage:
        found = load_kept(run.cache, without_labels(data), data_root or run.recipe.folder)
        stage.advance()
    labels = np.zeros((len(found), *table.labels.shape[1:]), table.labels.dtype)  # nobody reads them
    found = replace(found, labels=labels, class_names=table.class_names, task=table.task, unit=table.unit)
    both = concatenate(table, found)
    sources = with_near_sources(both, run.progress, np.arange(len(both)) >= len(table), run.cache).sources
    fresh = ~np.isin(sources[len(table) :], sources[: len(table)]) & ~np.isin(found.hashes, table.hashes)
    if not fresh.any():
        message = f"Expected inputs in {data.unlabelled} that labelled rows don't show, got {len(found)} that they do"
        raise DataError(f"{message}: leave [data] unlabelled out, or add others")
    if not fresh.all():
        run.progress.say(
            f"{int((~fresh).sum())} of {len(found)} inputs without labels are left out: rows show the same"
        )
    return found.take(fresh)


def _models(run: Run, base: BasePoint | None) -> Models:
    if run.recipe.model.imported and not becomes_network(run.recipe):
        return imported_model.models_of(run, calibration_of(run, run.rows("train")))
    lesson = lesson_of(run)
    own: Form | None = None
    read: Notes = ()
    if run.recipe.model.imported:
        run, own = imported_model.opened(run, lesson.calibration)
    if distance.is_learned(run):
        run = distance.learned(run, lesson)
        trained, read = imported_model.weights_of(run)
    elif run.models.source is None or (base is not None and base.checkpoint is not None):
        trained, own = trained_of(run, lesson, base), None  # the release before, not the file, is what it starts from
    else:
        trained, read = imported_model.weights_of(run)
    if run.recipe.model.teacher:
        run = imported_model.with_teacher(run, lesson.calibration)
    weights, notes = shaped(run, trained, lesson)
    notes = read + notes
    if any(getattr(step, "rescue", 0) for step in run.recipe.compress):
        form = exported(run, weights, formats.BASELINE)
        recipe, said = rescued(run, form, lesson.calibration, lesson.search)
        run, notes = replace(run, recipe=recipe), notes + said
    return models_of(run, trained, weights, lesson.calibration, notes, own)


def calibration_of(run: Run, train: Table) -> list[Table]:
    """Return the tables for calibration: the calibration split, and what the task needs of ``train`` in addition.

    Without train rows the reference rows take their place.
    """
    rows = run.rows("calibration")
    return tasks.of_rows(rows).targets.calibration(rows, train if len(train) else run.rows("reference"))


def lesson_of(run: Run, *, searched: bool = False) -> Lesson:
    """Return the tables for training and steps; some of the training sources judge the steps' own choices.

    ``searched``: set them aside for any steps, so that all trials of a search learn from the same rows.

    Raises:
        SplitError: If there are too few sources to set some aside.
    """
    train, recipe = run.rows("train"), run.recipe
    search = train
    if searched or has_choices(recipe):
        train, search = set_aside(train, recipe.train.seed)
    learnt, calibrated = [train], calibration_of(run, train)
    if run.drifted is not None:
        times = repeats(len(train), len(run.drifted.train))
        learnt += [run.drifted.train] * times
        if run.material.watched is not None and len(run.material.watched.train):  # what it must not forget
            learnt += [run.material.watched.train] * times
        if not recipe.train.keeps_body:  # else the scales of the body stay those of the release before
            calibrated.append(run.drifted.train)
    return Lesson(learnt, calibrated, search, unlabelled=run.material.unlabelled)


def trained_of(run: Run, lesson: Lesson, base: BasePoint | None) -> Result:
    """Return the float weights before any step: imported, or trained from scratch or from ``base``.

    Raises:
        CheckpointError: If weights don't fit the network.
        DataError: If the weights of ``base`` can't be read.
        TrainError: If training failed.
    """
    model = run.recipe.model
    if base is None and model.checkpoint:
        return imported_model.checkpoint_of(run, len(lesson.search.class_names))
    if base is None or base.checkpoint is None:
        whole = replace(run.recipe.train, fine_tune_layers="all")
        return run.train(lesson.train, whole, None, lesson.search)
    try:
        start = base.checkpoint.read_bytes()
    except OSError as error:
        message = f"Expected the weights of the release before at {base.checkpoint}, got: {error.strerror}"
        raise DataError(message) from error
    return run.train(lesson.train, run.recipe.train.for_fine_tuning(), start, lesson.search)


def _rules(run: Run, target: TargetRecipe) -> tuple[GateRecipe, ...]:
    """Return the rules that ``target`` is judged by, at the confidence of a single look."""
    recipe = run.recipe
    timed = target.cpu == platform.machine()
    if not timed:  # a misspelt processor looks the same, and no device would take the release
        run.progress.say(
            f"{target.name}: latency is not measured here: cpu = {target.cpu!r}, not {platform.machine()!r}"
        )
    return certificates.rules_for(
        recipe.gates,
        target.name,
        retrained=run.drifted is not None,
        timed=timed,
        alone=() if recipe.model.allow_constant else added_to(*run.task.gates),  # the recipe gives a reason against
        against=run.task.gates if run.before is not None and run.drifted is None else (),
    )


def looked(run: Run, at: LooksAt, rules: Sequence[GateRecipe]) -> Look:
    """Return this look at the gate split; the ledger is written before anything is judged.

    It is no look if none of ``rules`` has a bound.

    Raises:
        LedgerError: If the ledger can't be read or written.
        SplitError: If the split is used up.
    """
    risks = risks_of(rules)
    if not risks:
        return UNCOUNTED
    gate_rows = run.rows("gate")
    rows, labels = gate_rows.hashes.tolist(), gate_labels(gate_rows)
    if at.again.number:
        look = replace(at.again, rows=len(rows), labels=labels if at.again.labels else "")
    else:
        forms = sorted(form.digest for form in run.models.compressed.values())
        missing = not at.path.exists()
        look = counted(at, sha256_hex("".join(forms).encode()), rows, labels)
        if missing and look.number > at.least:
            run.progress.say(f"{at.path} is missing: counted on from the certificates of these rows beside it")
        if at.planned not in {0, look.planned}:
            run.progress.say(f"--looks {at.planned} comes too late: a plan is made before the first look at the rows")
    if remark := look.remark(*risks):
        run.progress.say(remark)
    return look


def _judge(
    run: Run, target: TargetRecipe, compared: Comparison, judged_by: tuple[Look, tuple[GateRecipe, ...]]
) -> Judged:
    recipe, names, judging = run.recipe, run.table.class_names, run.task.judging
    look, plain = judged_by
    measured = figures_of(run, target, compared)
    figures = measured.known
    rules = look.rules(plain)
    here = [rule for rule in rules if not rule.on]
    for rule in recipe.gates if compared.drifted is None else ():
        if rule.name in KINDS and KINDS[rule.name].retrained:
            run.progress.say(f"{target.name}: {rule.name} is not judged: only a retraining has drifted samples")
    evidence = judging.evidence(compared.gate_set, names, figures, compared.drifted, here)
    evidence = evidence.beside(measured_by(here, compared.gate_set, look.share))
    fitted = (compared.calibration, run.rows("calibration").labels)
    order = judging.order(fitted, (compared.gate_set.candidate, compared.gate_set.labels), names)
    figures |= {**evidence.figures, **order.figures}
    unknown = {**measured.unknown, **evidence.unknown}
    devices_said = said_by_devices(run, compared, rules)
    evidence = replace(evidence, devices=devices_said, figures=figures, unknown=unknown, label_order=order.named)
    judgement = certificates.judge(rules, evidence, look)
    order_said = [result for result in judgement.results if result.name == LABEL_ORDER and not result.on]
    figures |= judging.compared_figures(evidence)
    watched = watched_sites(run, compared, rules)
    remarks = [] if recipe.data.labelled else [agreement.remark(evidence)]
    remarks += _remarks(run, target, compared, look.remark(*risks_of(plain)))
    if run.before is not None:
        figures["release_flip_ratio"] = float(_changed(run, compared).mean())
    lacking = {result.name for result in judgement.results if result.verdict is not Verdict.PASS}
    if any(KINDS[name].bounded for name in lacking & set(KINDS)):  # gates on answers: no scheme mends size or speed
        calibration = calibration_of(run, run.rows("train"))
        remarks += filter(None, [noise_remedy(run, target, calibration, lambda: _network_of(run))])
    remarks += [site.remark for site in watched if site.verdict != Verdict.PASS]
    remarks += [order.remark] if order.remark else []
    if few(figures):
        remarks += [f"Labels: {result.text}." for result in order_said if result.verdict is Verdict.PASS]
    certificate = Certificate(
        verdict=judgement.verdict.value,
        model=recipe.model.name,
        version=recipe.model.version,
        target=target.name,
        baseline=compared.baseline,
        gates=certificates.lines(judgement),
        figures=figures,
        rules=rules,
        counts=certificates.counts_of(evidence),
        metrics=evidence.metrics,
        devices=certificates.records_of(evidence),
        unknown=unknown,
        label_order=order.named if any(result.verdict is Verdict.FAIL for result in order_said) else "",
        remarks=tuple(remarks),
        watched=watched,
        code_digests=code_digests((*JUDGES, run.task.code("evidence"), *plugins_of(recipe))),
    )
    return Judged(target, compared, certificate.at(look))


def _network_of(run: Run) -> tuple[Run, Result]:
    """Return ``run`` with the network of its files, without a word, and its weights."""
    if run.models.weights is not None:
        return run, run.models.weights
    quiet = replace(run, progress=Silent())
    found, _ = imported_model.opened(quiet, calibration_of(run, run.rows("train")))
    return found, imported_model.weights_of(found)[0]


def _remarks(run: Run, target: TargetRecipe, compared: Comparison, said: str) -> list[str]:
    """Return what to read before the figures; ``said``: the remark on this look at the gate split."""
    recipe = run.recipe
    remarks = [certificates.STAND_IN] if recipe.data.generated else []
    remarks += [_AS_TOLD] * (recipe.data.near_copies == "as_told")
    mends = run.models.baseline.mends if recipe.model.imported else ()
    remarks += [f"The file was mended before anything else: {'; '.join(mends)}."] * bool(mends)
    if recipe.model.imported:  # from the cache: it was said when the file was opened
        baseline = run.models.baseline.candidate
        remarks += filter(None, [usual_preprocessing.remark(run, baseline, run.rows("calibration"))])
    if (beside := run.material.unlabelled) is not None:
        remarks.append(f"Step distill learnt from {len(beside)} inputs without labels too, by the teacher's answers.")
    if any(artifact_steps(recipe, one.name) for one in recipe.targets) and not artifact_steps(recipe, target.name):
        remarks.append(
            f"No [[compress]] step quantize is for {target.name}, so that its file stays float: write one with "
            f'on = "{target.name}", and scheme = "none" if that is meant.'
        )
    remarks += run.models.compressed[target.name].remarks
    remarks += [said] * bool(said)
    if (rows := len(run.material.splits.reference)) < MIN_REFERENCE_ROWS:
        remarks.append(f"The drift reference has {rows} rows of {MIN_REFERENCE_ROWS} wanted: drift is heard later.")
    few = getattr(run.task.targets, "few", None)  # of a task that needs many rows for ranges
    own_ranges = run.material.calibration is not None
    remarks += filter(
        None, [few(calibration_of(run, run.rows("train"))) if few and recipe.compress and not own_ranges else ""]
    )
    if not len(run.material.splits.train):
        remarks.append(f"There were {WITHOUT_TRAIN}.")
    if compared.baseline == ITSELF:
        remarks.append(
            "It was compared with itself: nothing was compressed, so that gates of drops and flips say nothing."
        )
    if run.before is not None:
        told = _changed(run, compared)
        remarks.append(
            f"Against {compared.baseline}, which devices run: other answers on {int(told.sum())} of {len(told)} rows."
        )
    if recipe.smoothing.kind and not run.task.smoother:
        sources = run.rows("gate").sources
        followers = len(sources) - len(np.unique(sources))
        remarks.append(
            f"Answers are smoothed: {followers} of {len(sources)} gate rows follow another of their source. "
            + (
                "The bounds take rows for independent, and are too narrow for answers of one source."
                if followers
                else "So the gates judged single inputs: no figure says what smoothing gains."
            )
        )
    if recipe.model.allow_constant:
        remarks.append(f"It need not be better than one answer to everything: {recipe.model.allow_constant}.")
    return remarks


def _changed(run: Run, compared: Comparison) -> NDArray[np.bool_]:
    """Return which gate rows the candidate answers differently from its baseline, bool (N,)."""
    return run.task.judging.differs(compared.gate_set.candidate, compared.gate_set.baseline, 0.0)


def watched_sites(run: Run, compared: Comparison, rules: Sequence[GateRecipe]) -> tuple[WatchedSite, ...]:
    """Return what the rows of sites that were not trained on show of each: harmless, worse, or neither.

    The margin is that of ``accuracy_drop``. A site decides about the rollout there, not about the release.
    """
    if compared.watched is None:
        return ()
    rule = next((one for one in rules if one.name == ACCURACY_DROP and not one.on and one.max is not None), None)
    limit = KINDS[ACCURACY_DROP].against if rule is None else rule.max
    confidence = CONFIDENCE if rule is None else rule.confidence
    counts = run.task.judging.evidence(compared.watched, run.table.class_names, {}, None, ()).slices
    return tuple(
        WatchedSite.of(name, AccuracyDrop(limit or 0.0, confidence).judge(Evidence(accuracy=own)))
        for name, own in sorted(counts.items())
        if own.n
    )


def _write(run: Run, out: Path, certificate: Certificate, bundles: Mapping[str, bytes], told: report.Shown) -> Outcome:
    """Remove what did not pass first, and write bundles last: a full disk leaves no release without its report."""
    model = run.recipe.model
    paths = [out / f"{model.name}-{model.version}-{target.name}.tfb" for target in run.recipe.targets]
    with run.progress.stage("write", len(bundles) + 3, "file") as stage:
        for path in paths:
            if path.name not in bundles:
                path.unlink(missing_ok=True)
        if run.models.trained is not None:
            write_atomically(out / "float.pt", run.models.trained.data)
        write_atomically(out / "report.html", report.render(told).encode())
        write_atomically(out / "gate.json", certificates.write_certificate(certificate))
        stage.advance(3)
        written = tuple(path for path in paths if path.name in bundles)
        for path in written:
            write_atomically(path, bundles[path.name])
            stage.advance()
    cache = run.cache
    return Outcome(
        verdict=Verdict(certificate.verdict),
        bundles=written,
        certificate=certificate,
        report=out / "report.html",
        checkpoint=out / "float.pt",
        ran=tuple(cache.ran),
        found=tuple(cache.found),
        recipe=run.recipe,
        targets=tuple(told.targets),
        lineage=dict(told.lineage),
    )


def quick_of(recipe: Recipe, out: Path, progress: Progress) -> Recipe:
    """Return ``recipe`` with its stand-in, written to ``out``, if it has no data; reported to ``progress``.

    A target whose packages are missing is left out, unless none would remain.

    Raises:
        PluginError: If the recipe's stand-in is unknown.
        PackageError: If the stand-in can't be written.
    """
    able = tuple(target for target in recipe.targets if not preflight.missing(target))
    for target in recipe.targets if able else ():
        if target not in able:
            progress.say(f"left out [targets.{target.name}]: {', '.join(preflight.missing(target))} not installed")
    recipe = stand_ins.stood_in(replace(recipe, targets=able or recipe.targets), out)
    if recipe.data.generated:
        said = "STAND-IN: it runs on generated data, not on what the recipe is for"
        progress.say(f"{said}. The recipe needs {recipe.data.needs}")
    return recipe
