"""Collects the contents of a run's report.

Decides which target, flips and layers are shown. Runs models only to explain: occlusion saliency of a few flipped
inputs, and a layer-by-layer comparison of one pair of ONNX files. No gate uses the results.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from compressor import formats, report
from compressor.cache import Stage
from compressor.closure import plugin
from compressor.data._shades import face
from compressor.data._table import Table
from compressor.errors import MeasureError
from compressor.gates.certificate import Certificate
from compressor.gates.evidence import Verdict
from compressor.measurement import layers, parity, predictions, saliency
from compressor.measurement.noise_figures import LIMIT_DB, OutputNoise
from compressor.measurement.predictions import Candidate, Compared, Predictions
from compressor.measurement.saliency import Explained, Flip, Predict
from compressor.portions import row_bytes, rows_within
from compressor.run.bundles import Judged, lineage_of
from compressor.run.comparison import Comparison
from compressor.run.compression import NOISE_ROWS, noise_of
from compressor.run.stages import Run, table_digest, versions
from compressor.steps._selection import artifact_steps
from compressor.steps._settings import Settings
from compressor.tasks import Task
from edge_agent.inference import preprocess
from edge_agent.pictures.resizing import resized
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import to_document
from wire.manifest import LETTERBOX, Preprocessing

Floats = NDArray[np.float32]

_LAYER_ROWS = 8
_LAYER_INPUT_BYTES = 1 << 20  # for these, every tensor of both files is held in memory
_MAX_FLIP_RATIO, _MIN_COSINE = 0.01, 0.99
"""Forms that disagree more than this are suspicious overall."""
_MEASURED = {
    "score": ("{}_before", "{}_after"),
    "fake_quant_score": ("fake_quant_{}_before", "fake_quant_{}"),
    "macs": ("macs_before", "macs_after"),
    "parameters": ("parameters_before", "parameters_after"),
    "bytes": ("weights_zlib_bytes_before", "weights_zlib_bytes_after"),
}
"""What steps note, before and after; ``{}`` is what the task measures."""
_REMARKS = {
    "fake_quant_score": "{} with int8 simulated",
    "bytes": "bytes of the packed weights",
}


def shown(certificate: Certificate, run: Run, results: Sequence[Judged]) -> report.Shown:
    """Return the contents of a run's report; pictures show the worst target."""
    task = run.task
    worst = max(  # by its verdict, then the upper bound of its loss
        results,
        key=lambda item: (
            Verdict(item.certificate.verdict).rank,
            item.certificate.figures.get(task.headline[-1], 0.0),
        ),
    )
    compared = worst.compared
    gate_set, names = compared.gate_set, run.table.class_names
    everything = np.ones(len(gate_set.labels), dtype=bool)
    slices = {
        name: _bars(task, gate_set, gate_set.slices == name, compared) for name in np.unique(gate_set.slices).tolist()
    }
    drifted = compared.drifted
    return report.Shown(
        certificate=certificate,
        class_names=names,
        accuracies=_bars(task, gate_set, everything, compared),
        slices=slices,
        measure=task.measure,
        answers=task.reporting.answers(gate_set, names),
        tiles=task.reporting.tiles(worst.certificate.figures),
        headline=task.headline,
        parity=compared.parity,
        drifted=_bars(task, drifted, np.ones(len(drifted.labels), dtype=bool), compared) if drifted else (),
        lineage={
            **lineage_of(run, compared),
            **{f"artifact_{name}": form.digest for name, form in run.models.compressed.items()},
            "judging_code": sha256_hex(canonical_bytes(dict(certificate.code_digests))),
        },
        made=made(run),
        targets=tuple(judged.certificate for judged in results),
        changes=_changes(run, worst),
        drawings=_drawings(run, worst),
        layers=_layers(run, results),
        noise=_noise(run, results),
        steps=_steps(run, worst),
        pictured=worst.certificate,
    )  # fmt: skip


def _changes(run: Run, judged: Judged) -> report.Changes | None:
    """Return the flips on the gate split, the first ones with the saliency of both models.

    None for a task whose answers don't flip.
    """
    gate_set = judged.compared.gate_set
    found = run.task.reporting.flips(gate_set)
    if found is None:
        return None
    shown = found[: saliency.SHOWN]
    rows = run.rows("gate").take(np.array([flip.row for flip in shown], dtype=np.int64))
    try:
        pictured = explained(run, shown, rows, run.models.baseline.candidate, judged.compared.form.candidate)
    except MeasureError as error:
        run.progress.say(f"what flipped is not pictured: {error}")
        pictured = ()
    first = [
        report.Changed(item, face(image), preprocess.resize_pixels(image, run.preprocessing))
        for item, image in zip(pictured, rows.images, strict=bool(pictured))
    ]
    return report.Changes(
        target=judged.target.name, n=len(gate_set.labels), flips=len(found), lost=sum(flip.lost for flip in found),
        won=sum(flip.won for flip in found), first=tuple(first),
    )  # fmt: skip


def _drawings(run: Run, judged: Judged) -> report.Drawings | None:
    """Return the answers that changed on the gate split, drawn on their inputs; None for a task without such."""
    drawn = getattr(run.task.reporting, "drawings", None)
    if drawn is None:
        return None
    rows = run.rows("gate")

    def image_of(row: int) -> NDArray[np.uint8]:
        return as_judged(face(next(iter(rows.take(np.array([row])).images))), run.preprocessing)

    made: report.Drawings = drawn(judged.compared.gate_set, image_of, rows.class_names)
    return made


def as_judged(image: NDArray[np.uint8], pre: Preprocessing) -> NDArray[np.uint8]:
    """Return ``image``, uint8 (H, W, 3), with the border that ``pre`` gives it: places are ratios of the input.

    Its pixels are not reduced; without a border it is unchanged.
    """
    if pre.resize != LETTERBOX:
        return image
    factor = -(-max(image.shape[:2]) // max(pre.width, pre.height))
    return resized(image, replace(pre, width=factor * pre.width, height=factor * pre.height))


def _layers(run: Run, results: Sequence[Judged]) -> report.Layers | None:
    """Return the first layer at which float and compressed file of the worst target diverge; None without one.

    A target whose format can't compare layers is passed over.
    """
    floats = {name: form for name, form in run.models.floats.items() if formats.named(name).compares_layers}
    judged = min(
        (item for item in results if item.target.runtime in floats),
        key=lambda item: -Verdict(item.certificate.verdict).rank,
        default=None,
    )
    if judged is None:
        return None
    target, form = judged.target, judged.compared.form
    file_format, reference = formats.named(target.runtime), floats[target.runtime]
    pair = parity.find(judged.compared.parity, file_format.float_name, target.name)
    suspicious = pair is not None and (pair.flip_ratio > _MAX_FLIP_RATIO or pair.cosine < _MIN_COSINE)
    rows = run.rows("gate")
    inputs = run.inputs(rows.take(np.arange(min(_LAYER_ROWS, len(rows)))))
    inputs = inputs[: rows_within(row_bytes(inputs), most=_LAYER_ROWS, limit_bytes=_LAYER_INPUT_BYTES)]
    return report.Layers(target.name, _diverging(file_format, reference.plain, form.plain, inputs), suspicious)


def _noise(run: Run, results: Sequence[Judged]) -> Mapping[str, Sequence[OutputNoise]]:
    """Return the noise at each output of every target whose answers are decoded from several things."""
    rows = run.rows("gate").take(np.arange(min(NOISE_ROWS, len(run.rows("gate")))))
    found = {}
    for item in results:
        form, reference = item.compared.form, run.models.floats.get(item.target.runtime)
        if form.candidate.manifest.decoder and reference is not None and form.data != reference.data:
            try:
                found[item.target.name] = noise_of(run, reference.candidate, form.candidate, rows)
            except MeasureError as error:
                run.progress.say(f"{item.target.name}: the noise of its outputs is not measured: {error}")
    return {name: outputs for name, outputs in found.items() if outputs}


def _diverging(file_format: formats.ModelFormat, float_model: bytes, compressed: bytes, inputs: Floats) -> str:
    """Describe the first layer at which the two models diverge."""
    try:
        reference, other = file_format.layers(float_model, compressed, inputs)
        found = layers.first_diverging(reference, other)
    except MeasureError as error:
        return f"not compared: {error}"
    if found is not None:
        return f"{found} (signal to quantization noise on {len(inputs)} inputs, largest difference {found.max_abs:.3g})"
    ratios = {name: layers.sqnr_db(signal, other[name]) for name, signal in reference if name in other}
    least = min(ratios, key=ratios.__getitem__)
    kept = f"none: all {len(ratios)} compared tensors keep {LIMIT_DB:g} dB"
    if ratios[least] == np.inf:
        return f"{kept}, without any difference"
    return (
        f"{kept} of signal to quantization noise on {len(inputs)} inputs, least {least!r} with {ratios[least]:.1f} dB"
    )


def _steps(run: Run, judged: Judged) -> tuple[report.Step, ...]:
    """Return the notes of each network step, and the effect of the steps after the export on the file of ``judged``."""
    made = [_step_cost(run.task, name, notes) for name, notes in run.models.notes]
    target, form = judged.target, judged.compared.form
    after = artifact_steps(run.recipe, target.name)
    if after and target.runtime in run.models.floats:
        sizes = float(len(run.models.floats[target.runtime].data)), float(len(form.data))
        made.append(report.Step(name=f"{' + '.join(step.step for step in after)} ({target.name})", size_bytes=sizes))
    return tuple(made)


def _step_cost(task: Task, name: str, notes: Mapping[str, object]) -> report.Step:
    measured = {what: [key.format(task.measure) for key in keys] for what, keys in _MEASURED.items()}
    found = {what: pair for what, keys in measured.items() if (pair := _pair(notes, *keys)) is not None}
    used = {key for what in found for key in measured[what]}
    score = found.get("score", found.get("fake_quant_score"))
    return report.Step(
        name=name,
        score=(task.reporting.goodness(score[0]), task.reporting.goodness(score[1])) if score else None,
        macs=found.get("macs"),
        parameters=found.get("parameters"),
        size_bytes=found.get("bytes"),
        remark="; ".join(_REMARKS[what].format(task.measure) for what in found if what in _REMARKS),
        notes={key.replace("_", " "): _said(value) for key, value in notes.items() if key not in used},
    )


def _pair(notes: Mapping[str, object], *keys: str) -> tuple[float, float] | None:
    before, after = (notes.get(key) for key in keys)
    if isinstance(before, int | float) and isinstance(after, int | float):
        return float(before), float(after)
    return None


def made(run: Run) -> dict[str, str]:
    """Return how a model was made, as text; never the settings of a training that was skipped."""
    recipe = run.recipe
    parts = {name: run.rows(name) for name in ("train", "calibration", "gate", "reference")}
    rows = {
        f"{name} split": f"{len(part):,} rows of {len(np.unique(part.sources)):,} sources"
        for name, part in parts.items()
    }
    drifted = run.drifted
    if drifted is not None:
        rows["drifted samples"] = f"{len(drifted.train):,} learnt from, {len(drifted.held):,} held out to judge"
    train, training = recipe.train if drifted is None else recipe.train.for_fine_tuning(), ""
    if recipe.model.imported or (recipe.model.checkpoint and drifted is None):
        training = "elsewhere; if it saw rows of the gate split, its accuracy here says too much"
    left_out = {"left out": f"{len(run.table.corrupt)} corrupt images"} if run.table.corrupt else {}
    options = ", ".join(f"{name} = {value:g}" for name, value in recipe.model.network_options.items())
    return {
        "network": f"{recipe.model.architecture}{f' ({options})' if options and not recipe.model.imported else ''}",
        "data set": recipe.data.dataset, **rows, **left_out,
        "training": training or f"{train.epochs} epochs, {train.optimizer}, seed {train.seed}",
        "compression": "; ".join(_step(step) for step in recipe.compress) or "none",
    }  # fmt: skip


def _step(step: Settings) -> str:
    """Return a step and its settings that differ from the defaults, as text."""
    own = {field.name: getattr(step, field.name) for field in fields(step) if field.name != "step"}  # type: ignore[arg-type]
    usual = {field.name: field.default for field in fields(step)}  # type: ignore[arg-type]
    changed = ", ".join(f"{name} = {value}" for name, value in own.items() if value != usual[name] or name == "scheme")
    return f"{step.step} ({changed})" if changed else step.step


def _said(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:,.6g}" if number else str(value)


def _bars(
    task: Task, compared: Compared, rows: np.ndarray[tuple[int], np.dtype[np.bool_]], whole: Comparison
) -> report.Bars:
    models: dict[str, Predictions] = {"float": compared.float_model, "compressed": compared.candidate}
    if compared.baseline is not compared.float_model:
        models = {whole.baseline: compared.baseline, **models}
    said = {
        name: replace(item, logits=item.logits[rows], embedding=item.embedding[rows]) for name, item in models.items()
    }
    return [task.reporting.bar(name, item, compared.labels[rows]) for name, item in said.items()]


_PATCHES = 6  # along the longer side: 50 inputs per picture, so that twelve flips take about a second


def explained(
    run: Run, found: Sequence[Flip], rows: Table, before: Candidate, after: Candidate
) -> tuple[Explained, ...]:
    """Return the flips ``found`` with the saliency of ``before`` and ``after``.

    ``rows`` are their inputs, one per flip and in their order.

    Raises:
        MeasureError: If a model can't be run, or its outputs are not finite.
        PackageError: If the result can't be stored.
    """
    inputs = {
        "before": sha256_hex(before.artifact), "after": sha256_hex(after.artifact), "flips": repr(tuple(found)),
        "manifests": sha256_hex(canonical_bytes([to_document(before.manifest), to_document(after.manifest)])),
        "data": table_digest(rows), "patches": str(_PATCHES), **versions("numpy", "scipy", "pillow"),
    }  # fmt: skip

    def make() -> bytes:
        said = _predict(before), _predict(after)
        maps: list[Floats] = []
        with run.progress.stage("explain", max(len(found), 1), "flip") as stage:
            for flip, given in zip(found, run.inputs(rows) if len(found) else (), strict=True):
                maps += [
                    saliency.saliency(predict, given, answer, patches=_PATCHES)
                    for predict, answer in zip(said, (flip.before, flip.after), strict=True)
                ]
                stage.advance()
        return _pack(maps)

    runtimes = sorted({before.manifest.runtime, after.manifest.runtime})
    stage = Stage(
        name="explain", inputs=inputs, make=make, uses=tuple(plugin("edge_agent.runtimes", name) for name in runtimes)
    )
    kept = _unpack(run.cache.result(stage).data)
    return tuple(Explained(flip, *pair) for flip, pair in zip(found, kept, strict=True))


def _predict(candidate: Candidate) -> Predict:
    """Return a function from inputs float32 (N, C, H, W) to logits (N, classes)."""
    last = candidate.manifest.preprocessing.layout == "NHWC"

    def said(inputs: Floats) -> Floats:
        given = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)) if last else inputs
        return predictions.predict(candidate, given).logits

    return said


def _pack(maps: Sequence[Floats]) -> bytes:
    """Return the bytes of 2 N maps, float32 (H, W) of one size: for each flip before, then after."""
    buffer = io.BytesIO()
    stacked = np.stack(maps).reshape(-1, 2, *maps[0].shape) if maps else np.zeros((0, 2, 1, 1), np.float32)
    np.lib.format.write_array(buffer, stacked, allow_pickle=False)
    return buffer.getvalue()


def _unpack(data: bytes) -> Floats:
    kept: Floats = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return kept
