"""A person's own model: a checkpoint, an ONNX file or a TFLite file instead of training.

Decides what is accepted: first sizes, then one complete file with operators of known domains, then one input of the
recipe's shape and logits for its classes, then one row that runs. The error for a rejected file gives the next step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor import formats, importing, tasks
from compressor.cache import Result, Stage
from compressor.clean.given import Given, random_rows
from compressor.data._table import Table
from compressor.errors import CheckpointError, MeasureError, ModelFileError, ModelOutputsError, ModelSignatureError
from compressor.measurement import first_run, predictions
from compressor.measurement.predictions import Candidate
from compressor.recipe.model import LOGITS, PROBABILITIES, Recipe
from compressor.run import described, imported_detector, usual_preprocessing
from compressor.run.anomalies import imported
from compressor.run.compression import Notes, check_calibration, compress
from compressor.run.stages import (
    Form,
    Models,
    NetworkFile,
    Run,
    bare,
    decoded_by,
    float_target,
    input_of,
    packed,
    unpacked,
    versions,
    with_contract,
)
from compressor.steps._selection import artifact_steps, becomes_network
from edge_agent import runtimes
from edge_agent.errors import AgentError
from wire.canonical import sha256_hex
from wire.manifest import BITS, Manifest, Preprocessing, TensorSpec

MAX_MODEL_BYTES = 512 * 1024 * 1024
Specs = tuple[TensorSpec, ...]
_MATRIX = 2
_TRIED_ROWS, _CLEANED_ROWS = 16, 3
_ALONE, _MAX_APART_RATIO, _ROUNDING = 4, 0.05, 1e-4
_SUM_SLACK = 1e-3


def checkpoint_of(run: Run, classes: int) -> Result:
    """Return the weights in ``[model] checkpoint``, in this project's format.

    Raises:
        CheckpointError: If the file does not exist, is too large, holds anything but tensors, does not fit the network
            or has weights that are not finite.
    """
    from compressor.steps._base import Applied  # noqa: PLC0415 - its check needs torch, which only this path needs
    from compressor.train import checkpoint  # noqa: PLC0415 - as above

    path = run.recipe.folder / run.recipe.model.checkpoint
    data = _read(path, "[model] checkpoint")
    network = run.loaded(data, classes, str(path))
    if not Applied(network=network).finite():  # type: ignore[arg-type]
        message = f"Expected finite weights in {path}, got NaN or infinity: take a checkpoint from before it diverged"
        raise CheckpointError(message)
    if not checkpoint.is_own(network, path):  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
            checkpoint.save(network, Path(folder) / "weights.pt")  # type: ignore[arg-type]
            data = (Path(folder) / "weights.pt").read_bytes()
    return Result(data, sha256_hex(data), cached=True)


def models_of(run: Run, calibration: Sequence[Table]) -> Models:
    """Return all files of a run that compresses an exported file itself.

    Raises:
        CheckpointError: If the file does not exist or is too large.
        DataError: If there are calibration rows of one class only.
        MeasureError: If it is not such a file, has foreign operators, other inputs or outputs than the recipe, or does
            not run.
        QuantizeError: If it can't be quantized.
    """
    recipe = run.recipe
    file_format, start, specs = _read_as(run, calibration)
    data, compressed = start.data, {}
    for target in recipe.targets:
        given = file_format.with_first(data, specs[1][0].name) if artifact_steps(recipe, target.name) else data
        form = compress(run, Form(candidate=replace(start.candidate, artifact=given)), target, calibration)
        made = _stated(form.candidate, specs, form.plain)
        known = start.candidate.manifest
        made = replace(made, manifest=decoded_by(made.manifest, known.decoder, known.decoder_options))
        made = replace(made, manifest=replace(made.manifest, outputs=known.outputs)) if run.task.scored else made
        compressed[target.name] = replace(form, candidate=made)
    return Models(
        trained=None, weights=None, baseline=start, floats={file_format.runtime: start}, compressed=compressed,
        notes=(("clean", start.mended),) if start.mended else (),
    )  # fmt: skip


def opened(run: Run, calibration: Sequence[Table]) -> tuple[Run, Form]:
    """Return ``run`` with the network of its imported file, and the file as it came, to compare with.

    Raises:
        CheckpointError: If the file does not exist or is too large.
        DataError: If there are calibration rows of one class only.
        MeasureError: As ``models_of``.
    """
    _, start, (_, outputs) = _read_as(run, calibration)
    names, boxes, known = [output.name for output in outputs], bool(run.recipe.decoder.kind), start.candidate.manifest
    if boxes:
        imported_detector.check_joined(outputs)
    source = NetworkFile(
        data=start.data, logits=names[0], embedding=names[1] if len(names) > 1 else "",
        sigmoid=run.recipe.model.outputs == PROBABILITIES or run.task.several,
        decoder=known.decoder if run.task.scored else "",
        decoder_options=known.decoder_options if boxes or run.task.scored else {},
    )  # fmt: skip
    return replace(run, models=replace(run.models, source=source)), start


def answered(run: Run) -> Run:
    """Return ``run`` with the answers of its imported file as the labels of its rows, unless they have labels.

    Raises:
        CheckpointError: If the file does not exist or is too large.
        MeasureError: As ``models_of``.
    """
    if run.table.labelled:
        return run
    _, start, _ = _read_as(run, [run.rows("calibration")])
    said = run.predict("answers of the original", start.candidate, run.table)
    labels = said.classes if run.task.names_are == "labels" else said.logits
    return replace(run, material=replace(run.material, table=replace(run.table, labels=labels)))


def with_teacher(run: Run, calibration: Sequence[Table]) -> Run:
    """Return ``run`` with the network of ``[model] teacher`` as the teacher of its steps.

    Raises:
        CheckpointError: If the file does not exist or is too large.
        MeasureError: As ``models_of``.
        ConversionError: If the file can't become a network.
    """
    taught, _ = opened(replace(run, recipe=_of_teacher(run.recipe)), calibration)
    return replace(run, models=replace(run.models, teacher=taught.models.source))


def _of_teacher(recipe: Recipe) -> Recipe:
    """Return ``recipe`` with its teacher as the imported file, for a step that needs the network."""
    return replace(recipe, model=replace(recipe.model, onnx=recipe.model.teacher, checkpoint="", tflite="", teacher=""))


def weights_of(run: Run) -> tuple[Result, Notes]:
    """Return the weights of the network in the imported file, in this project's format, and how the import went.

    Raises:
        ConversionError: If the file can't become a network: an operator is unknown, or a node computes something else.
    """
    source = run.models.source
    if source is None:
        raise CheckpointError("Expected the file of a network, got none: give [model] onnx")
    data, names, sigmoid = source.data, (source.logits, source.embedding), source.sigmoid

    def make() -> bytes:
        from compressor.importing.heads import network_of  # noqa: PLC0415 - torch is loaded only where needed
        from compressor.train import checkpoint  # noqa: PLC0415 - as above

        with run.progress.stage("import", 1, "model") as stage, tempfile.TemporaryDirectory(prefix="tinyfleet-") as at:
            made = network_of(data, *names, sigmoid=sigmoid)
            checkpoint.save(made.network, Path(at) / "weights.pt")
            stage.advance()
            notes = {
                "operators": ", ".join(f"{count} {name}" for name, count in sorted(made.operators.items())),
                "weights": made.weights,
                "largest_difference": float(f"{made.apart:.2g}"),
            }
            return packed(notes, (Path(at) / "weights.pt").read_bytes())

    inputs = {**run.source_inputs, **versions(*importing.MADE_WITH)}
    uses = (run.network_code, "compressor.train.checkpoint")
    made = run.cache.result(Stage(name="import", inputs=inputs, make=make, uses=uses))
    said, weights = unpacked(made.data)
    apart = said["largest_difference"]
    run.progress.say(f"the file is a network of {said['weights']:,} weights now, {apart:g} from onnxruntime at most")
    return Result(weights, sha256_hex(weights), cached=made.cached), (("import", said),)


def _read_as(run: Run, calibration: Sequence[Table]) -> tuple[formats.ModelFormat, Form, tuple[Specs, Specs]]:
    """Return the imported file of ``run``: its format, a form that runs it, and its tensors.

    Raises:
        MeasureError: As ``models_of``.
    """
    recipe = run.recipe
    file_format = formats.imported(recipe.model)
    if file_format is None:
        raise CheckpointError(f"Expected in [model] one of {', '.join(formats.model_keys())}, got none")
    check_calibration(calibration)
    rows = run.inputs(calibration[0].take(np.arange(min(len(calibration[0]), _CLEANED_ROWS))), file_format.layout)
    given = _imported(recipe, file_format)
    data, mended = run.cleaned(given, file_format.runtime, _given(recipe, rows))
    _compare_words(run, file_format.words(given))
    plain = bare(recipe, run.table, data, float_target(recipe, file_format.runtime))
    if recipe.decoder.kind:
        specs, plain = _of_boxes(run, plain, data, calibration[0])
    elif run.task.scored:
        specs, plain = _of_scores(run, plain, (given, data), calibration[0])
        data = plain.artifact
    else:
        specs = contract_of(data, plain.manifest)
        specs = _meant(run, _stated(plain, specs, data), specs, calibration[0])
    start = _stated(plain, specs, data)
    if doubt := usual_preprocessing.check(run, start, calibration[0]):
        run.progress.say(doubt)
    return file_format, Form(candidate=start, mended=mended), specs


def _compare_words(run: Run, words: formats.FileWords) -> None:
    """Say where what the file says of itself differs from the recipe.

    Raises:
        ModelSignatureError: If it has the same classes in another order.
    """
    table = run.table
    described.check_task(words, boxes=bool(run.recipe.decoder.kind))
    described.check_sides(words, run.recipe.data)
    has_classes = bool(run.recipe.decoder.kind) or run.task.targets.classes(table.labels[:1]) is not None
    lines = (described.check_labels(words, table.class_names) if has_classes else "",
             described.normalisation(words, run.recipe.data),
             described.default_scale(words, run.recipe.data))  # fmt: skip
    for said in filter(None, lines):
        run.progress.say(said)


def check(recipe: Recipe) -> None:
    """Check without data whether the model file of ``recipe`` fits.

    Its outputs are checked against ``[model] labels`` if these are given; otherwise they are checked with the data.

    Raises:
        CheckpointError: If the file does not exist, is too large, or is a checkpoint that holds anything but finite
            tensors or, if ``[model] labels`` give the number of classes, does not fit the network.
        PluginError: If the network of a checkpoint can't be built.
        MeasureError: If it is not an ONNX or TFLite file, has foreign operators, other inputs or outputs than the
            recipe, or the runtime rejects it.
        ConversionError: If a step or target needs the network in an ONNX file, and the file can't become one.
    """
    model = recipe.model
    if model.teacher:
        check(_of_teacher(recipe))
    if model.checkpoint:
        from compressor import networks  # noqa: PLC0415 - torch is loaded only where a checkpoint is
        from compressor.train import checkpoint  # noqa: PLC0415 - as above

        path, pictures = recipe.folder / model.checkpoint, recipe.data
        _read(path, "[model] checkpoint")
        checkpoint.check_finite(path)
        if model.labels:
            sizes = (len(model.labels), pictures.channels, pictures.height, pictures.width)
            checkpoint.load(networks.build(model.network, *sizes, model.network_options), path)
    file_format = formats.imported(model)
    if file_format is None:
        return
    _check_file(recipe, file_format)


def _check_file(recipe: Recipe, file_format: formats.ModelFormat) -> None:
    """Check without data the imported file of ``recipe``."""
    model = recipe.model
    spec, data = input_of(recipe, file_format.runtime), _imported(recipe, file_format)
    zeros = np.zeros([max(1, size) for size in spec.shape], np.float32)
    first_run.check(file_format.runtime, data, zeros, f"[model] {file_format.model_key}")
    if file_format.cleaned_with:
        data, _ = file_format.cleaned(data, _given(recipe, random_rows(spec.shape[1:])))
    inputs, outputs = file_format.tensors(data)
    wanted = _input(inputs, spec)
    named: Specs = ()
    words = file_format.words(data)
    described.check_task(words, boxes=bool(recipe.decoder.kind))
    described.check_sides(words, recipe.data)
    if model.labels:
        described.check_labels(words, model.labels)
        if recipe.decoder.kind:
            _check_boxes(recipe, outputs)
        else:
            named = _outputs(outputs, len(model.labels))
    if scored := tasks.of(recipe.data).scored:
        imported.check(model.outputs, wanted, outputs)
    try:
        runtimes.load(Manifest(runtime=file_format.runtime, inputs=(wanted,)), data).close()
    except AgentError as error:
        raise ModelFileError(str(error)) from error
    if becomes_network(recipe) and not scored:  # such a file gets another end first
        _check_network(data, named, outputs, sigmoid=model.outputs == PROBABILITIES)


def _check_boxes(recipe: Recipe, outputs: Specs) -> None:
    """Check the outputs of a detector for the decoder of ``recipe``, if the file states all of their sizes."""
    if any(-1 in one.shape[1:] for one in outputs):
        return
    pixels = Preprocessing(width=recipe.data.width, height=recipe.data.height)
    wanted = Manifest(
        decoder=recipe.decoder.kind, decoder_options=recipe.decoder.options, labels=recipe.model.labels,
        preprocessing=pixels,
    )  # fmt: skip
    found = imported_detector.stated(wanted, outputs)
    if becomes_network(recipe):
        imported_detector.check_joined(found.outputs)


def _check_network(data: bytes, named: Specs, outputs: Specs, *, sigmoid: bool) -> None:
    """Check that the file becomes a network; ``named``: its outputs for the classes, if these are known."""
    from compressor.importing import conversion, heads  # noqa: PLC0415 - torch is loaded only where needed

    if not named and (of_rows := _of_rows(outputs)) is not None:
        named = (of_rows,)
    if named:  # with the arguments of the run, which then finds it translated
        logits, embedding = named[0].name, named[1].name if len(named) > 1 else ""
        heads.network_of(data, logits, embedding, sigmoid=sigmoid)
    else:  # which output has the classes is known with the data
        conversion.module_of(data)


def _of_rows(outputs: Specs) -> TensorSpec | None:
    """Return the only output that can have the classes, None if there are several or none.

    A label beside it, such as scikit-learn's, is nothing that the network needs: its operators are not translated.
    """
    found = [one for one in outputs if one.dtype == "float32" and len(one.shape) == _MATRIX]
    return found[0] if len(found) == 1 else None


def _stated(candidate: Candidate, specs: tuple[Specs, Specs], plain: bytes) -> Candidate:
    """Return ``candidate`` with the actual tensors and opset of its file, whose plain form is ``plain``."""
    stated = with_contract(candidate, *specs)
    opset = formats.named(stated.manifest.runtime).opset_of(plain)
    return replace(stated, manifest=replace(stated.manifest, opset=opset))


def _meant(run: Run, candidate: Candidate, specs: tuple[Specs, Specs], rows: Table) -> tuple[Specs, Specs]:
    """Return ``specs`` with the meaning of the first output, after running some rows.

    Rejections by the runtime are reported before the file is processed. If every row is positive and sums to 1, the
    file ends in a softmax: the manifest records that, and the runtime returns logarithms, which are logits.
    """
    layout = candidate.manifest.inputs[0].layout
    given = run.inputs(rows.take(np.arange(min(len(rows), _TRIED_ROWS))), layout)
    said = predictions.predict(candidate, given)
    inputs, outputs = specs
    logits, classes = said.logits, candidate.manifest.outputs[0].shape[1]
    if logits.shape[1:] != (classes,):
        message = f"Expected logits (N, {classes}), got {logits.shape} for one row: check [model] labels and the export"
        raise MeasureError(message)
    alone = np.concatenate([predictions.predict(candidate, row[None]).logits for row in given[:_ALONE]])
    apart, spread = float(np.abs(logits[: len(alone)] - alone).max()), float(np.ptp(logits))
    if apart > _MAX_APART_RATIO * spread + _ROUNDING * (1 + float(np.abs(logits).max())):  # a device runs one at a time
        message = f"Expected the same logits for a row alone and among others, got {apart:.3g} apart of {spread:.3g}"
        raise ModelSignatureError(
            f"{message}: export in evaluation mode (model.eval()); batch norm or dropout still train"
        )
    meaning = _meaning(run, rows, logits, outputs[0].scale)
    if meaning and run.recipe.data.labelled is run.table.labelled:  # of inputs without labels, the first time
        end, taken = ("sigmoid", "log odds are") if meaning == "sigmoid" else ("softmax", "logarithms are")
        made = "the recipe says so" if run.recipe.model.outputs else f"a {end} at its end"
        run.progress.say(f"the file gives probabilities ({made}): their {taken} taken as logits")
    return inputs, (replace(outputs[0], meaning=meaning), *outputs[1:]) if meaning else outputs


def _meaning(run: Run, rows: Table, said: NDArray[np.float32], scale: float) -> str:
    """Return ``probability`` if the outputs ``said`` for some ``rows`` are probabilities, else "".

    Raises:
        ModelOutputsError: If they may be those of a sigmoid, or are none of what the recipe says.
    """
    asked, low, high = run.recipe.model.outputs, float(said.min()), float(said.max())
    within = low >= -scale and high <= 1 + scale
    if asked == PROBABILITIES and not within:
        message = f"Expected outputs of 0 to 1, as [model] outputs = {asked!r} says, got {low:.3g} to {high:.3g}"
        raise ModelOutputsError(f"{message}: leave the key out, or write {LOGITS!r}")
    if asked:
        return run.task.probability if asked == PROBABILITIES else ""
    meaning = run.task.judging.meaning(said, _SUM_SLACK + scale * said.shape[1])
    several = run.task.targets.classes(rows.labels) is not None and said.shape[1] > 1
    if not meaning and within and several and high > low:  # a file without any answer is no sigmoid
        sums = said.sum(axis=1)
        message = (
            f"Expected logits, or probabilities that sum to 1, got outputs of 0 to 1 that sum to {sums.min():.3g} to "
            f"{sums.max():.3g} (a sigmoid at the end?)"
        )
        raise ModelOutputsError(
            f"{message}: write [model] outputs = {PROBABILITIES!r} if each input has one class, that with the largest, "
            f"{LOGITS!r} if these are logits after all, or [data] task = 'multi_label' if an input has several"
        )
    return meaning


def _of_boxes(run: Run, plain: Candidate, data: bytes, rows: Table) -> tuple[tuple[Specs, Specs], Candidate]:
    """Return the tensors of a detector, and ``plain`` with the settled options of its decoder.

    Raises:
        MeasureError: If the file is not such a detector, or does not run.
    """
    inputs, outputs = formats.named(plain.manifest.runtime).tensors(data)
    wanted = (_input(inputs, plain.manifest.inputs[0]),)
    if not outputs:
        raise ModelSignatureError("Expected outputs with boxes, got none: export the detection head, too")
    fed = with_contract(plain, wanted, outputs)
    given = run.inputs(rows.take(np.arange(min(len(rows), _TRIED_ROWS))), fed.manifest.inputs[0].layout)
    found = imported_detector.settled(fed, outputs, given)
    for said in found.remarks if run.recipe.data.labelled is run.table.labelled else ():
        run.progress.say(f"decoder {plain.manifest.decoder}: {said}")
    return (wanted, found.outputs), replace(plain, manifest=replace(plain.manifest, decoder_options=found.options))


def _of_scores(
    run: Run, plain: Candidate, files: tuple[bytes, bytes], rows: Table
) -> tuple[tuple[Specs, Specs], Candidate]:
    """Return the tensors of a file for anomalies, and ``plain`` with the file and its decoder as scores are read.

    ``files``: as it came, and mended.

    Raises:
        MeasureError: If the file has no such output, or does not run.
        RecipeError: If a step would change a network without a loss.
    """
    (came, _), (inputs, outputs) = map(formats.named(plain.manifest.runtime).tensors, files)
    wanted = (_input(inputs, plain.manifest.inputs[0]),)
    batch, channels, height, width = wanted[0].shape  # a file that took another layout has been wrapped
    last = replace(wanted[0], shape=(batch, height, width, channels), layout="NHWC")
    turned = len(came) == 1 and not _fits(came[0], wanted[0]) and _fits(came[0], last)
    pixels = replace(plain.manifest.preprocessing, layout=wanted[0].layout)
    fed = replace(plain, manifest=replace(plain.manifest, inputs=wanted, preprocessing=pixels, decoder=""))
    given = run.inputs(rows.take(np.arange(min(len(rows), _TRIED_ROWS))), wanted[0].layout)
    found = imported.scored(run, fed, outputs, given, last if turned else wanted[0])
    manifest = decoded_by(plain.manifest, found.decoder, found.options)
    return (wanted, found.outputs), Candidate(manifest, found.data)


def contract_of(data: bytes, wanted: Manifest) -> tuple[Specs, Specs]:
    """Return input and outputs of a model's file, logits (or values) first, checked against the manifest ``wanted``.

    The names are the file's own. Of the other outputs only a matrix named ``embedding`` is kept. ``wanted`` gives
    runtime, labels, and layout and shape of the input.

    Raises:
        MeasureError: If it is not such a file, has foreign operators, or not one such input and one output of logits.
    """
    inputs, outputs = formats.named(wanted.runtime).tensors(data)
    return (_input(inputs, wanted.inputs[0]),), _outputs(outputs, wanted.outputs[0].shape[1])


def _input(found: Specs, wanted: TensorSpec) -> TensorSpec:
    if len(found) != 1:
        got = ", ".join(spec.name for spec in found) or "none"
        message = f"Expected one float32 input, got {got}"
        remedy = "set the others in [model] constants, or export with a single input" if found else "export with one"
        raise ModelSignatureError(f"{message}: {remedy}")
    spec = found[0]
    if spec.dtype != "float32" and not spec.scale:
        message = f"Expected one float32 input, got {spec.name!r} {spec.dtype}: export with a float32 input"
        raise ModelSignatureError(message)
    fitting = next((one for one in (wanted, _other_layout(wanted)) if _fits(spec, one)), None)
    if fitting is None:
        message = f"Expected input {wanted.shape} ({wanted.layout}, as [data] says), got {spec.name!r} {spec.shape}"
        flat = len(spec.shape) == _MATRIX < len(wanted.shape)
        way = "with a Flatten of it inside" if flat else f"in layout {wanted.layout}"
        raise ModelSignatureError(f"{message}: set [data] width, height and colour, or export {way}")
    return replace(spec, shape=fitting.shape, layout=fitting.layout)


def _fits(found: TensorSpec, wanted: TensorSpec) -> bool:
    if len(found.shape) != len(wanted.shape):
        return False
    return all(own in {-1, want} for own, want in zip(found.shape[1:], wanted.shape[1:], strict=True))


def _other_layout(spec: TensorSpec) -> TensorSpec:
    """Return the same input with the axis of its channels elsewhere, as some converters keep it."""
    if spec.layout == "NHWC":
        batch, height, width, channels = spec.shape
        return replace(spec, shape=(batch, channels, height, width), layout="NCHW")
    return spec


def _outputs(found: Specs, classes: int) -> Specs:
    matrices = [spec for spec in found if len(spec.shape) == _MATRIX and (spec.dtype == "float32" or spec.scale)]
    fitting = [spec for spec in matrices if spec.shape[1] in {-1, classes}]
    logits = [spec for spec in fitting if spec.name == "logits"] or [s for s in fitting if s.name != "embedding"]
    if len(logits) != 1:
        got = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in logits or found) or "none"
        message = f"Expected one output with logits (N, {classes}), got {got}"
        other = any(spec.dtype != "float32" and spec.shape[1:] == (classes,) for spec in found)
        unfit = "export it as float32" if other else "check [model] labels and the export"
        name = "name one of them 'logits'" if logits else unfit
        raise ModelSignatureError(f"{message}: {name}")
    embedding = [spec for spec in matrices if spec.name == "embedding" and spec is not logits[0]]
    return (replace(logits[0], shape=(-1, classes)), *embedding)


def _imported(recipe: Recipe, file_format: formats.ModelFormat) -> bytes:
    """Return the recipe's file, with the weights that it has in files beside it."""
    path = recipe.folder / recipe.model.imported
    return file_format.with_external(_read(path, f"[model] {file_format.model_key}"), path)


def _given(recipe: Recipe, rows: NDArray[np.float32]) -> Given:
    """Return what step ``clean`` knows of the recipe's file, with some ``rows`` to compare it on."""
    steps = [step for target in recipe.targets for step in artifact_steps(recipe, target.name)]
    compressed = becomes_network(recipe) or any(step.scheme != "none" for step in steps)
    data = recipe.data
    given = {"std": data.per_channel("std"), "mean": data.per_channel("mean")} if data.bits == BITS[0] else {}
    factor, offset = (tuple(one / data.pixel_scale for one in given.get(name, ())) for name in ("std", "mean"))
    return Given(rows=rows, compressed=compressed, constants=recipe.model.constants, factor=factor, offset=offset)


def _read(path: Path, where: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            message = f"Expected {where} of at most {MAX_MODEL_BYTES} bytes, got {size} in {path}"
            raise CheckpointError(message)
        return path.read_bytes()
    except OSError as error:
        message = f"Expected a file as {where} at {path}, got: {error.strerror}: give a path beside the recipe"
        raise CheckpointError(message) from error
