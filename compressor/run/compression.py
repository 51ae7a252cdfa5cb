"""From weights to files: the network steps, the exports, the steps after the export. Each result is cached.

Decides in which order a recipe's steps run and their inputs, and the final settings of a step with ``rescue``: remedies
are tried on search rows, never on the gate split. A step's file decides what it does; the gates judge its result.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor import formats, steps, tasks
from compressor.cache import Result, Stage
from compressor.closure import package, plugin
from compressor.data._table import Table
from compressor.errors import CompressorError, MeasureError, QuantizeError
from compressor.measurement import first_run, left_float, output_noise
from compressor.measurement.noise_figures import LIMIT_DB, OutputNoise, noisy_text
from compressor.measurement.predictions import Candidate
from compressor.progress import Silent
from compressor.recipe.model import Recipe, TargetRecipe
from compressor.run.stages import (
    Form,
    Models,
    Run,
    float_target,
    packed,
    table_digest,
    unpacked,
    versions,
    with_contract,
)
from compressor.steps._base import Bench, Network
from compressor.steps._selection import artifact_steps, network_steps
from compressor.steps._settings import Settings
from compressor.steps.equalize import Settings as EqualizeRecipe
from compressor.steps.quantize import Settings as QuantizeRecipe
from edge_agent import declarations, decoders
from wire.canonical import sha256_hex

Floats = NDArray[np.float32]
Notes = tuple[tuple[str, Mapping[str, Any]], ...]
_PROBE_ROWS = 4
NOISE_ROWS = 16
EQUALIZE = "equalize"
_QUIETER = ("dynamic_int8", "static_int8_16", "weight_int8", "float16")
"""Schemes whose activations have more than 8 bits, or a range of their own each time, the fastest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """The tables for steps: to learn from, to calibrate on, and to judge a step's own choices.

    ``unlabelled``: inputs for which only a teacher has answers, if there are any.

    Raises:
        DataError: If there are calibration rows of one class only.
    """

    train: Sequence[Table]
    calibration: Sequence[Table]
    search: Table
    _: KW_ONLY
    unlabelled: Table | None = None

    def __post_init__(self) -> None:
        """Reject tables that no step could calibrate on, before anything is trained."""
        check_calibration(self.calibration)

    def digest(self) -> str:
        """Return the SHA-256 of the content of all tables."""
        tables = [*self.train, *self.calibration, self.search]
        unit = repr(self.search.unit) if self.search.unit is not None else ""
        beside = f" unlabelled {table_digest(self.unlabelled)}" if self.unlabelled is not None else ""
        return sha256_hex(("".join(table_digest(table) for table in tables) + unit + beside).encode())


def check_calibration(tables: Sequence[Table]) -> None:
    """Check that the rows of ``tables`` are sufficient to calibrate a model.

    Raises:
        DataError: If they are not: they have only one class, or one value.
    """
    tasks.of_rows(tables[0]).targets.check_calibration(tables)


def shaped(run: Run, trained: Result, lesson: Lesson) -> tuple[Result, Notes]:
    """Return the weights after the recipe's network steps, and the notes of each step.

    Raises:
        CompressorError: As raised by a step.
    """
    weights, notes = trained, []
    teacher = run.models.teacher.digest if run.models.teacher is not None else trained.digest
    for step in network_steps(run.recipe):
        inputs = {
            "weights": weights.digest, "teacher": teacher, "step": repr(step), "data": lesson.digest(),
            "settings": repr(run.recipe.train), "network": repr(run.recipe.model.network),
            "options": repr(sorted(run.recipe.model.network_options.items())),
            "preprocessing": repr(run.preprocessing), **versions("torch", "numpy", "torch-pruning"),
            **run.source_inputs,
        }  # fmt: skip
        make = _applying(run, weights, trained, step, lesson)
        step_code = plugin("compressor.steps", step.step)
        taught = ("compressor.importing.heads",) if run.models.teacher is not None else ()
        entries = (step_code, "compressor.train.checkpoint", run.network_code, run.task.code("training"), *taught)
        made = run.cache.result(Stage(name=f"step-{step.step}", inputs=inputs, make=make, uses=entries))
        said, data = unpacked(made.data)
        weights = Result(data, sha256_hex(data), cached=made.cached)
        if left := said.get("left_alone"):
            run.progress.say(f"{step.step}: left alone are {left}")
        if few := said.get("bears_the_rest"):
            told = f"more than half of the channels went in {few}, because other layers are left alone"
            run.progress.say(f"{step.step}: {told}: if accuracy falls, raise macs_ratio, or lower round_to")
        notes.append((step.step, said))
    return weights, tuple(notes)


def _applying(run: Run, weights: Result, trained: Result, step: Settings, lesson: Lesson) -> Callable[[], bytes]:
    def make() -> bytes:
        from compressor.train import checkpoint  # noqa: PLC0415 - torch is loaded only where needed

        classes = len(lesson.search.class_names)
        with run.progress.stage(step.step, 1, "step") as stage, tempfile.TemporaryDirectory(prefix="tinyfleet-") as at:
            train, calibration, search = map(run.lessons, (lesson.train, lesson.calibration, [lesson.search]))
            given, beside = run.models.teacher, lesson.unlabelled
            teacher: Network = given.network() if given is not None else run.loaded(trained.data, classes)  # type: ignore[assignment]
            bench = Bench(
                train=train,
                calibration=calibration,
                search=search,
                settings=run.recipe.train,
                teacher=teacher,
                unlabelled=run.lessons([beside]).inputs if beside is not None else None,
                tell=lambda note: stage.advance(0, note),
            )
            applied = steps.apply(run.loaded(weights.data, classes), bench, step)  # type: ignore[arg-type]
            path = Path(at) / "weights.pt"
            checkpoint.save(applied.network, path, applied.ranges)
            stage.advance()
            return packed(applied.notes, path.read_bytes())

    return make


def models_of(
    run: Run, trained: Result, weights: Result, calibration: Sequence[Table],
    notes: Notes, baseline: Form | None = None,
) -> Models:  # fmt: skip
    """Return all files of a run: the float baseline, the float files by runtime, the compressed ones by target.

    ``baseline``: a person's own file; None: the export of ``trained``.

    Raises:
        ExportError: If the network can't be exported.
        QuantizeError: If a file can't be quantized.
        PluginError: If a scheme or a converter is missing.
    """
    recipe = run.recipe
    baseline = baseline or exported(run, trained, formats.BASELINE)
    notes = (("clean", baseline.mended), *notes) if baseline.mended else notes
    floats = {name: exported(run, weights, name) for name in sorted({t.runtime for t in recipe.targets})}
    compressed = {
        target.name: compress(run, floats[target.runtime], target, calibration, weights) for target in recipe.targets
    }
    return Models(
        trained=trained,
        weights=weights,
        baseline=baseline,
        floats=floats,
        compressed=compressed,
        notes=notes,
        source=run.models.source,
        teacher=run.models.teacher,
    )


def exported(run: Run, weights: Result, runtime: str) -> Form:
    """Return the float file of ``weights`` for ``runtime``.

    Raises:
        ExportError: If the network can't be exported.
        PluginError: If ``runtime`` has no exporter, or its packages are missing.
    """
    data, mended = run.cleaned(run.export(weights, len(run.table.class_names), runtime).data, runtime)
    return Form(candidate=run.bare(data, float_target(run.recipe, runtime)), mended=mended)


def compress(
    run: Run, form: Form, target: TargetRecipe, calibration: Sequence[Table],
    weights: Result | None = None,
) -> Form:  # fmt: skip
    """Return ``form`` after the recipe's steps for ``target``; ``weights`` may contain learned ranges.

    Raises:
        QuantizeError: If it can't be quantized.
        MeasureError: If the runtime crashes when it opens the result.
        PluginError: If a scheme is missing.
    """
    data, remarks = form.data, list[str]()
    if (own := run.material.calibration) is not None and artifact_steps(run.recipe, target.name):
        remarks += filter(None, (f"{own.said}.", own.unlike(next(run.batches(calibration)))))
    for asked in artifact_steps(run.recipe, target.name):
        step = _with_float_score(form, data, target, asked)
        if coarse := formats.named(target.runtime).coarser(data, step):
            named = ", ".join(coarse)
            remarks.append(f"One scale for all channels has {named}: a grouped ConvTranspose can't have one a channel.")
        before = data
        data, said = _not_larger(run, before, target, calibration, step, weights)
        remarks += [said] * bool(said)
        if run.task.decoder and not said:
            given = replace(form, candidate=replace(form.candidate, artifact=before))

            def again(changed: QuantizeRecipe, model: bytes = before) -> bytes:
                return _quantized(run, model, target, calibration, changed, weights)

            data, said = _less_noise(run, given, data, target, step, again)
            remarks += [said] * bool(said)
        if left := left_float.check(data, target.runtime, step):
            run.progress.say(f"{target.name}: {left}")
    for said in remarks:
        run.progress.say(f"{target.name}: {said}")
    plain = data
    if target.format:
        data = run.saved_as(data, target.runtime, target.format)
    made = run.bare(data, target)
    stated = formats.named(target.runtime).stated(plain)
    made = with_contract(made, *stated) if stated is not None else made
    return Form(candidate=made, converted_from=plain, remarks=tuple(remarks))


def _with_float_score(form: Form, model: bytes, target: TargetRecipe, step: QuantizeRecipe) -> QuantizeRecipe:
    """Return ``step`` with the layers that make the score of a person's file in float, where its decoder wants that."""
    file_format = formats.named(target.runtime)
    made = form.candidate.manifest
    if not decoders.ends_float(made.decoder, made.decoder_options) or step.scheme == "none" or step.integer_io:
        return step
    if "float_layers" not in (file_format.reads(step.scheme) or ("float_layers",)):
        return step
    last = file_format.end_layers(model)
    return replace(step, float_layers=tuple(dict.fromkeys((*step.float_layers, *last))))


def _not_larger(
    run: Run, model: bytes, target: TargetRecipe, calibration: Sequence[Table], step: QuantizeRecipe,
    weights: Result | None,
) -> tuple[bytes, str]:  # fmt: skip
    """Return ``model`` after ``step``, and a remark if that is not smaller than ``model`` itself.

    Where the format has another scheme whose file is smaller than ``model``, its file is returned instead: an unrolled
    recurrent layer in TFLite has the scales of every time step, but weights of 8 bits once. Integer inputs and outputs
    only a static scheme has, so that it stays where they are asked for.
    """
    made = _quantized(run, model, target, calibration, step, weights)
    if len(made) < len(model) or step.scheme == "none":
        return made, ""
    said = f"Not smaller than the float file of {len(model):,} bytes is that of {step.scheme} with {len(made):,}"
    other = formats.named(target.runtime).instead.get(step.scheme, "")
    if other and not step.integer_io:
        tried = _quantized(run, model, target, calibration, replace(step, scheme=other, per_channel=True), weights)
        if len(tried) < len(model):
            return tried, f"{said}, so that it is one of {other} with {len(tried):,}."
    return made, f"{said}: scheme = 'none' leaves it float."


def _less_noise(
    run: Run, form: Form, made: bytes, target: TargetRecipe, step: QuantizeRecipe,
    again: Callable[[QuantizeRecipe], bytes],
) -> tuple[bytes, str]:  # fmt: skip
    """Return ``made``, from ``form`` by ``step``; with float last layers if an output of it is noise.

    Some outputs share one scale with others of a far larger range. The text says what was found and done; "" if nothing
    was. ``again`` takes the step with other settings.
    """
    rows = run.rows("calibration")
    rows = rows.take(np.arange(min(NOISE_ROWS, len(rows))))
    file_format, plain = formats.named(target.runtime), form.data

    def noise(data: bytes) -> tuple[OutputNoise, ...]:
        other = Candidate(form.candidate.manifest, data)
        stated = file_format.stated(data)
        return noise_of(run, form.candidate, other if stated is None else with_contract(other, *stated), rows)

    try:
        found = noisy_text(noise(made))
    except MeasureError:  # a file that does not run is said where it is judged
        return made, ""
    if not found:
        return made, ""
    said = f"Noise of int8 leaves {found} of {LIMIT_DB:g} wanted"
    last = tuple(name for name in file_format.last_layers(plain) if name not in step.float_layers)
    if not last or "float_layers" not in (file_format.reads(step.scheme) or ()) or step.integer_io:
        return made, f"{said}: name layers in float_layers."
    changed = replace(step, float_layers=(*step.float_layers, *last))
    other = again(changed)
    left = noisy_text(noise(other))
    if left == found:
        return made, f"{said}, also with {', '.join(last)} in float."
    return other, f"{said}, so that {', '.join(last)} stay float" + (f", which leaves {left}." if left else ".")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remedy:
    """What a noisy file of a target leaves of its answers, and what mends it.

    ``found``: the noise as text; ``name``: of the scheme that mends it, ``EQUALIZE``, or "" if nothing of 8 bits does;
    ``sqnr_db`` and ``size_bytes``: of the file that it makes.
    """

    found: str
    name: str = ""
    sqnr_db: float = 0.0
    size_bytes: int = 0


def noise_remedy(
    run: Run, target: TargetRecipe, calibration: Sequence[Table], network: Callable[[], tuple[Run, Result]]
) -> str:
    """Return the lines of a recipe with which the int8 file of ``target`` keeps its float file's answers, "" for none.

    The steps of a recipe are a person's words, and the gate split was looked at: so nothing is changed, but what is
    named was quantized and measured, on calibration rows. Detectors are mended while they are compressed. ``network``:
    returns a run with the network of the recipe or its imported file, and its weights, for a step before the export.

    Raises:
        MeasureError: If the runtime crashes when it opens a file.
    """
    mended = _remedy(run, target, calibration, network)
    if mended is None:
        return ""
    (step,) = _quantizing(run, target)
    made = run.models.compressed[target.name].candidate.artifact
    said = f"Noise of {step.scheme} leaves {mended.found} of {LIMIT_DB:g} wanted"
    if not mended.name:
        return f'{said}, and so do other schemes of 8 bits: in the [[compress]] step quantize write scheme = "none".'
    gained = f"that leaves {mended.sqnr_db:.3g} dB, in {mended.size_bytes:,} bytes instead of {len(made):,}."
    if mended.name == EQUALIZE:
        return f'{said}. Before the [[compress]] step quantize write another, step = "{EQUALIZE}": {gained}'
    schemes = {target.name: mended.name}
    for other in run.recipe.targets:
        if other != target and step in artifact_steps(run.recipe, other.name):
            theirs = _remedy(run, other, calibration, network)
            schemes[other.name] = theirs.name if theirs and theirs.name not in {"", EQUALIZE} else step.scheme
    ordered = {one.name: schemes[one.name] for one in run.recipe.targets if one.name in schemes}
    several = f"for {target.name} " if len(set(schemes.values())) > 1 else ""
    return f"{said}. {written(ordered, step.on)}: {several}{gained}"


def written(schemes: Mapping[str, str], on: str = "") -> str:
    """Return what to write for a quantize step so that each target has its scheme; ``on``: what the step has now.

    One line where all have the same: a step is for one target or for all.
    """
    if len(set(schemes.values())) == 1:
        named = f' with on = "{on}"' if on else ""
        return f'In the [[compress]] step quantize{named} write scheme = "{next(iter(schemes.values()))}"'
    each = "; ".join(f'scheme = "{scheme}", on = "{target}"' for target, scheme in schemes.items())
    return f"In place of the [[compress]] step quantize write one for each target, alike but for {each}"


def _quantizing(run: Run, target: TargetRecipe) -> list[QuantizeRecipe]:
    return [step for step in artifact_steps(run.recipe, target.name) if step.scheme != "none"]


def _remedy(
    run: Run, target: TargetRecipe, calibration: Sequence[Table], network: Callable[[], tuple[Run, Result]]
) -> _Remedy | None:
    """Return what mends the file of ``target``; None if it is not noisy, or can't be compared."""
    steps, reference = _quantizing(run, target), run.models.floats.get(target.runtime)
    if run.task.decoder or target.format or len(steps) != 1 or reference is None or steps[0].integer_io:
        return None
    file_format, rows = formats.named(target.runtime), run.rows("calibration")
    rows = rows.take(np.arange(min(NOISE_ROWS, len(rows))))

    def noise(data: bytes) -> tuple[OutputNoise, ...]:  # of the answers: an embedding is not judged
        stated = file_format.stated(data)
        plain = replace(reference.candidate, artifact=data)
        return noise_of(run, reference.candidate, plain if stated is None else with_contract(plain, *stated), rows)[:1]

    try:
        found = noisy_text(noise(run.models.compressed[target.name].candidate.artifact))
    except MeasureError:  # other outputs, such as those of an integer file
        return None
    if not found:
        return None
    with suppress(CompressorError):  # no network, or nothing to equalize
        if (both := _equalized(run, target, calibration, network)) is not None:
            left = noise_of(run, both[0].candidate, both[1].candidate, rows)[:1]
            if not noisy_text(left):
                return _Remedy(found=found, name=EQUALIZE, sqnr_db=left[0].sqnr_db, size_bytes=len(both[1].data))
    return _quieter(run, target, calibration, noise, found)


def _quieter(
    run: Run, target: TargetRecipe, calibration: Sequence[Table], noise: Callable[[bytes], tuple[OutputNoise, ...]],
    found: str,
) -> _Remedy:  # fmt: skip
    """Return the first scheme whose file of ``target`` is not noisy by ``noise``, or none; ``found``: of the file's."""
    (step,), file_format = _quantizing(run, target), formats.named(target.runtime)
    for scheme in _QUIETER:
        if scheme == step.scheme or scheme not in file_format.schemes():
            continue
        changed = replace(step, scheme=scheme, per_channel=True)
        try:
            other = _quantized(run, run.models.floats[target.runtime].data, target, calibration, changed, None)
            left = noise(other)
        except (QuantizeError, MeasureError):  # not for such a network
            continue
        if not noisy_text(left):
            return _Remedy(found=found, name=scheme, sqnr_db=left[0].sqnr_db, size_bytes=len(other))
    return _Remedy(found=found)


def _equalized(
    run: Run, target: TargetRecipe, calibration: Sequence[Table], network: Callable[[], tuple[Run, Result]]
) -> tuple[Form, Form] | None:
    """Return the float file of the network for ``target``, and its file with step ``equalize`` in front of the others.

    Channels of one layer whose weights are of other sizes are what it mends, for no byte. None where it is no remedy: a
    recipe with steps before the export has a person's own order, and without train rows such a step is refused.

    Raises:
        CompressorError: If the file can't become a network, or there is nothing to equalize.
    """
    if network_steps(run.recipe) or run.task.scored or not len(run.rows("train")):
        return None
    (step,), train = _quantizing(run, target), run.rows("train")
    first = EqualizeRecipe(per_channel=step.per_channel, reduce_range=step.reduce_range)
    opened, weights = network()
    tried = replace(opened, progress=Silent(), recipe=replace(run.recipe, compress=(first, *run.recipe.compress)))
    reference = exported(tried, weights, target.runtime)
    equal, _ = shaped(tried, weights, Lesson([train], calibration, train))
    return reference, compress(tried, exported(tried, equal, target.runtime), target, calibration, equal)


def noise_of(run: Run, reference: Candidate, other: Candidate, rows: Table) -> tuple[OutputNoise, ...]:
    """Return the noise of ``other`` against the float file ``reference``, of one runtime, on ``rows``.

    Raises:
        MeasureError: If one can't be run, or their outputs differ in shape.
    """
    manifest = other.manifest
    inputs = {
        "reference": sha256_hex(reference.artifact), "other": sha256_hex(other.artifact), "data": table_digest(rows),
        "outputs": repr(manifest.outputs), "decoder": f"{manifest.decoder} {sorted(manifest.decoder_options.items())}",
        "preprocessing": repr(run.preprocessing),
        **versions(declarations.runtime(manifest.runtime).distribution or "numpy", "numpy", "pillow"),
    }  # fmt: skip

    def make() -> bytes:
        given = tuple(run.inputs(rows, one.manifest.preprocessing.layout) for one in (reference, other))
        found = output_noise.measured(reference, other, (given[0], given[1]))
        return json.dumps([one.document() for one in found]).encode()

    uses = [plugin("edge_agent.runtimes", manifest.runtime), "compressor.measurement.output_noise"]
    uses += [plugin("edge_agent.decoders", manifest.decoder)] if manifest.decoder else []
    kept = run.cache.result(Stage(name="noise", inputs=inputs, make=make, uses=tuple(uses)))
    return tuple(OutputNoise(**one) for one in json.loads(kept.data))


def _quantized(
    run: Run, model: bytes, target: TargetRecipe, calibration: Sequence[Table], step: QuantizeRecipe,
    weights: Result | None,
) -> bytes:  # fmt: skip
    file_format = formats.named(target.runtime)
    step = _with_float_end(run, file_format, model, target, step)
    learnt = run.learnt(weights) if weights is not None else {}
    digest, inputs_of = run.ranges_from(calibration, file_format.layout)
    inputs = {
        "model": sha256_hex(model), "settings": repr(step), "preprocessing": repr(run.preprocessing),
        "runtime": target.runtime, "ranges": repr(sorted(learnt.items())), "data": digest,
        **versions(*file_format.quantized_with),
    }  # fmt: skip

    as_it_came = run.recipe.model.imported and run.models.source is None
    size = file_format.fixed_batch(model) if as_it_came else 0

    def batches() -> Iterator[Floats]:
        return _pieces(inputs_of(), size) if size else inputs_of()

    def make() -> bytes:
        with run.progress.stage("quantize", 1, "model") as stage:
            placed = _placed(run, model, target.runtime, calibration, weights) if learnt and weights else None
            made = file_format.quantize(model, batches, step, placed)
            first_run.check(target.runtime, made, next(iter(batches())), f"the {step.scheme} file of {target.name}")
            stage.advance(1, file_format.float_name)
        return made

    entries = [plugin("compressor.quantize", step.scheme), formats.code(target.runtime)]
    if learnt:
        entries += ("compressor.quantize._learned_ranges", "compressor.train.checkpoint", run.network_code)
    return run.cache.result(Stage(name="quantize", inputs=inputs, make=make, uses=tuple(entries))).data


def _with_float_end(
    run: Run, file_format: formats.ModelFormat, model: bytes, target: TargetRecipe, step: QuantizeRecipe
) -> QuantizeRecipe:
    """Return ``step`` with what makes boxes and scores of an imported detector's last layers in float.

    In one int8 tensor boxes in pixels and scores of 0 to 1 share a scale: of the scores little is left.
    """
    reads = file_format.reads(step.scheme)
    if not run.recipe.decoder.kind or step.scheme == "none" or (reads is not None and "float_layers" not in reads):
        return step
    behind = file_format.behind_layers(model)
    if behind:
        run.progress.say(f"{target.name}: {len(behind)} operators behind the last layers stay float, boxes and scores")
    return replace(step, float_layers=(*step.float_layers, *behind))


def _pieces(batches: Iterable[Floats], size: int) -> Iterator[Floats]:
    """Yield all rows in batches of ``size``, the last padded with its last row."""
    for batch in batches:
        padded = np.concatenate([batch, np.repeat(batch[-1:], -len(batch) % size, axis=0)])
        yield from (padded[start : start + size] for start in range(0, len(padded), size))


def _placed(run: Run, model: bytes, runtime: str, calibration: Sequence[Table], weights: Result) -> formats.Ranges:
    """Return learned ranges by the names of the file's tensors, matched by value on a few calibration rows."""
    from compressor.quantize import _learned_ranges as placed  # noqa: PLC0415 - torch is loaded only where needed

    rows = calibration[0].take(np.arange(min(_PROBE_ROWS, len(calibration[0]))))
    learnt, network = run.learnt(weights), run.loaded(weights.data, len(rows.class_names))
    by_node = placed.activations(network, run.inputs(rows))  # type: ignore[arg-type]
    file_format = formats.named(runtime)
    return placed.place(learnt, by_node, file_format.activations(model, run.inputs(rows, file_format.layout)))


def rescued(run: Run, form: Form, calibration: Sequence[Table], search: Table) -> tuple[Recipe, Notes]:
    """Return the recipe with the chosen settings of every step with rescue, and the cost of each rung.

    ``form``: the float ONNX file after the network steps.

    Raises:
        QuantizeError: If the float model can't be read.
        MeasureError: If a rung's file can't be run.
    """
    recipe, notes, changed = run.recipe, [], []
    for step in recipe.compress:
        if not isinstance(step, QuantizeRecipe) or not step.rescue:
            changed.append(step)
            continue
        target = next(
            item for item in recipe.targets if formats.named(item.runtime).rescues and step.on in {"", item.name}
        )
        said = json.loads(_climbed(run, form, step, target, calibration, search))
        chosen = {**said["settings"], "float_layers": tuple(said["settings"]["float_layers"])}
        changed.append(QuantizeRecipe(**chosen))
        notes.append((f"rescue {step.on or target.name}", said["rungs"]))
    return replace(recipe, compress=tuple(changed)), tuple(notes)


def _climbed(
    run: Run, form: Form, step: QuantizeRecipe, target: TargetRecipe, calibration: Sequence[Table],
    search: Table,
) -> bytes:  # fmt: skip
    """Return the chosen settings and a line for every rung tried, as JSON; cached."""
    file_format = formats.named(target.runtime)
    digest, batches = run.ranges_from(calibration, file_format.layout)
    inputs = {
        "model": form.digest, "settings": repr(step), "preprocessing": repr(run.preprocessing),
        "data": sha256_hex(f"{digest} {table_digest(search)}".encode()),
        **versions(*file_format.quantized_with),
    }  # fmt: skip

    @cache
    def tried() -> Floats:
        return next(iter(batches()))[: first_run.ROWS].copy()  # once for all rungs, and no view of the whole batch

    def judge(artifact: bytes) -> float:
        first_run.check(target.runtime, artifact, tried(), "a file of the rescue")
        candidate = run.bare(artifact, replace(target, format=""))
        return run.task.judging.score(run.predict("rescue", candidate, search), search.labels)

    def make() -> bytes:
        from compressor.quantize._remedies import climb  # noqa: PLC0415 - onnxruntime only to quantize

        climbed = climb(form.data, batches, judge, replace(step, rescue=0.0), allowed_drop=step.rescue)
        rungs = {
            item.rung.name: f"{item.artifact_bytes:,} bytes, {item.seconds:.1f} s, {item.why}" for item in climbed.tried
        }
        return json.dumps({"settings": asdict(climbed.chosen.settings), "rungs": rungs}).encode()

    schemes = package("compressor.quantize")  # a rung may be any of them
    entries = (*schemes, plugin("edge_agent.runtimes", target.runtime), run.task.code("evidence"))
    return run.cache.result(Stage(name="rescue", inputs=inputs, make=make, uses=entries)).data
