"""One trial: makes one form of the model and measures it on the search rows, against the float baseline.

Decides what is measured and on which rows: never on the gate split. Does not decide which form is tried next, nor which
is chosen. All trials learn from the same rows and share one baseline; what several have in common is made once, because
results are cached by content. Steps that train choose their best epoch on the search rows, and the search chooses a
form on them: figures are therefore optimistic, which is why the gate has rows of its own.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor import formats, tasks
from compressor.cache import Cache, Result
from compressor.closure import code_digests, package
from compressor.errors import ConversionError, MeasureError, PluginError, QuantizeError, RecipeError
from compressor.gates.evidence import device_for
from compressor.progress import Progress
from compressor.recipe.model import Recipe, TargetRecipe
from compressor.run import imported_model
from compressor.run.compression import Lesson, compress, exported, shaped
from compressor.run.pipeline import lesson_of, material_of, trained_of
from compressor.run.stages import Form, Models, Run
from compressor.search.pareto import TrialFigures
from compressor.search.space import NO_PRUNING, NONE, Point, Space, own_steps, steps_of
from compressor.statistics.paired import drop_lower, drop_upper, paired
from compressor.steps._selection import becomes_network, plugins_of
from compressor.steps._settings import Settings
from compressor.steps.quantize import Settings as QuantizeRecipe
from wire.canonical import canonical_bytes, sha256_hex
from wire.settings import nearest

CONFIDENCE = 0.95
_TIMED_ROWS = 64
_TRIED = (*package("compressor.steps"), *package("compressor.quantize"))  # a trial may use any of them


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ground:
    """What all trials share. ``own``: the recipe's steps; ``trained``: None for a file that is no network."""

    run: Run
    target: TargetRecipe
    own: tuple[Settings, ...]
    lesson: Lesson
    trained: Result | None
    baseline: Form
    baseline_right: NDArray[np.bool_]

    @property
    def recipe(self) -> Recipe:
        """The recipe, reduced to the target."""
        return self.run.recipe


def target_of(recipe: Recipe, name: str) -> TargetRecipe:
    """Return the target ``name``, or the only one if it is empty; this host must be able to time it.

    Raises:
        RecipeError: If the target is unknown or ambiguous, there is nothing to search in a TFLite file, or the recipe
            predicts numbers.
        MeasureError: If the target has another processor, whose latency can't be measured here.
    """
    names = [target.name for target in recipe.targets]
    if name not in names and (name or len(names) > 1):
        message = f"Expected --target as one of {', '.join(names)}, got {name or 'none'!r}: name one"
        raise RecipeError(message + nearest(name, names))
    task = tasks.of(recipe.data)
    if unfit := task.unfit.get("search", ""):
        raise RecipeError(f"Expected a recipe of classes to search, got one {task.recipes}: {unfit}")
    given = formats.imported(recipe.model)
    if given is not None and given.finished:
        message = f"Expected a network, checkpoint or ONNX file to search, got [model] {given.model_key}"
        raise RecipeError(f"{message}: it is as it is")
    found = recipe.targets[names.index(name) if name else 0]
    if found.cpu != platform.machine():
        message = f"Expected target {found.name!r} on this host's processor {platform.machine()!r}, got {found.cpu!r}"
        raise MeasureError(f"{message}: latency is measured, so search on such a machine or name another --target")
    return found


def only(recipe: Recipe, target: TargetRecipe, steps: Sequence[Settings]) -> Recipe:
    """Return ``recipe`` with ``steps``, reduced to ``target``: other targets and their gates are left out. Pure."""
    gates = tuple(gate for gate in recipe.gates if gate.on in {"", target.name} or device_for(gate.on, target.name))
    return replace(recipe, targets=(target,), gates=gates, compress=tuple(steps))


def prepared(
    recipe: Recipe, target: TargetRecipe, cache: Cache, progress: Progress, data_root: Path | None = None
) -> Ground:
    """Return what trials start from: data, search rows, weights, the float baseline and its predictions.

    Raises:
        CompressorError: If the data can't be used, training fails or the baseline can't be measured.
    """
    run = Run(recipe=only(recipe, target, ()), cache=cache, progress=progress)
    run = replace(run, material=material_of(run, data_root, None))
    lesson = lesson_of(run, searched=True)
    if recipe.model.imported:
        needed = only(recipe, target, own_steps(recipe, target) or (QuantizeRecipe(),))  # mended as for these steps
        opened, baseline = imported_model.opened(replace(run, recipe=needed), lesson.calibration)
        trained, run = _network_of(opened), replace(opened, recipe=run.recipe)
    else:
        trained = trained_of(run, lesson, None)
        baseline = exported(run, trained, formats.BASELINE)
    right = run.predict("float", baseline.candidate, lesson.search).classes == lesson.search.labels
    return Ground(
        run=run,
        target=target,
        own=own_steps(recipe, target),
        lesson=lesson,
        trained=trained,
        baseline=baseline,
        baseline_right=right,
    )


def _network_of(run: Run) -> Result | None:
    """Return the weights of the network in the imported file, None if only its artifact steps can be searched.

    Raises:
        ConversionError: If it can't become a network, and the target or the recipe's own steps need one.
    """
    try:
        return imported_model.weights_of(run)[0]
    except ConversionError as error:
        if becomes_network(run.recipe):
            raise
        run.progress.say(f"no step before the export is tried: {error}")
        return None


def workable(ground: Ground, space: Space) -> Space:
    """Return ``space`` without what can't be made: steps of a file that is no network, and schemes that are rejected.

    A scheme is rejected if it rejects the float model: no trial prunes or trains for it.

    Raises:
        CompressorError: If the float model itself can't be made.
    """
    if ground.trained is None:
        space = replace(space, macs_ratios=(NO_PRUNING,), network=False)
    recipe = replace(ground.recipe, compress=ground.own)
    left = []
    for scheme in space.schemes:
        try:
            if scheme != NONE:
                form_of(ground, steps_of(Point(scheme), recipe, ground.target))
        except QuantizeError as error:
            ground.run.progress.say(f"{scheme} is not tried: {error}")
            continue
        except PluginError:
            pass  # a package missing here may exist on other hosts of this study: a trial reports it
        left.append(scheme)
    return replace(space, schemes=tuple(left))


def form_of(ground: Ground, steps: Sequence[Settings]) -> Form:
    """Return the model after ``steps``.

    Raises:
        CompressorError: As raised by a step.
    """
    run, target = replace(ground.run, recipe=replace(ground.recipe, compress=tuple(steps))), ground.target
    if run.recipe.model.imported and not becomes_network(run.recipe):  # the file itself, not a new export of it
        return imported_model.models_of(replace(run, models=Models()), ground.lesson.calibration).compressed[
            target.name
        ]
    if ground.trained is None:
        raise ConversionError("Expected steps after the export for a file that is no network, got others: remove them")
    weights, _ = shaped(run, ground.trained, ground.lesson)
    plain = exported(run, weights, target.runtime)
    return compress(run, plain, target, ground.lesson.calibration, weights)


def measured(ground: Ground, steps: Sequence[Settings]) -> TrialFigures:
    """Return the figures of the model after ``steps`` on the search rows.

    Raises:
        CompressorError: If it can't be made or measured.
    """
    form, rows, run = form_of(ground, steps), ground.lesson.search, ground.run
    right = run.predict(ground.target.name, form.candidate, rows).classes == rows.labels
    counts = paired(ground.baseline_right, right)
    some = rows.take(np.arange(min(_TIMED_ROWS, len(rows))))
    taken = run.timings({"float": ground.baseline.candidate, "candidate": form.candidate}, some)
    return TrialFigures(
        drop=counts.drop,
        drop_lower=drop_lower(counts, CONFIDENCE),
        drop_upper=drop_upper(counts, CONFIDENCE),
        accuracy=float(right.mean()),
        n=counts.n,
        size_bytes=len(form.data),
        latency_p50_ms=taken["latency_p50_ms"],
        float_latency_p50_ms=taken["float_latency_p50_ms"],
    )


def study_digest(ground: Ground, space: Space) -> str:
    """Return the SHA-256 of everything a trial's figures depend on, so that a study never mixes different trials.

    The data and an imported model count by content, not by path, so that several hosts can share a study. The version
    of the release does not count.
    """
    recipe = ground.recipe
    plain = replace(
        recipe,
        model=replace(recipe.model, version=1, security_floor=0, checkpoint="", onnx=""),
        data=replace(recipe.data, path=""),
        folder=Path(),
    )
    given = ground.baseline.digest if recipe.model.imported or recipe.model.checkpoint else ""
    given += "" if ground.run.models.source is None else ground.run.models.source.digest
    told = {
        "recipe": repr(plain), "steps": repr(ground.own), "data": ground.lesson.digest(), "model": given,
        "space": repr(space), "task": recipe.data.task,
        "code": code_digests((__name__, *_TRIED, *plugins_of(recipe))),
    }  # fmt: skip
    return sha256_hex(canonical_bytes(told))
