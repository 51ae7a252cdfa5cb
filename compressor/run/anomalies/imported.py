"""The outputs of an imported file for anomalies: a picture of the input, a score, or an embedding.

Decides what an output is: one of the input's shape is a reconstruction, one number a score; all else the recipe says in
``[model] outputs``. A file is given another end where the device's decoders read another form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from compressor.errors import ModelOutputsError, ModelSignatureError
from compressor.measurement.predictions import Candidate
from compressor.recipe.model import EMBEDDING, FITTED, FORECAST, OF_CLASSES, RECONSTRUCTION, SCORE
from compressor.run.anomalies import distance
from compressor.run.anomalies.distance import ScoredFile
from compressor.run.imported_detector import check_alone, outputs_of_rows
from compressor.run.stages import Run, with_contract
from compressor.steps._base import Floats
from wire.manifest import TensorSpec

Specs = tuple[TensorSpec, ...]
RESIDUAL = "residual"
_MATRIX, _SERIES, _IMAGE = 2, 3, 4
_PICTURES = (RECONSTRUCTION, FORECAST)
_MEANT = {
    RECONSTRUCTION: "an output of the input's shape",
    FORECAST: "an output of whole rows of the input, fewer than it has",
    SCORE: "one number an input, (N, 1)",
    EMBEDDING: "a matrix (N, D)",
    "": "an output of the input's shape (a reconstruction), or one number (N, 1) (a score)",
}


def chosen(asked: str, given: TensorSpec, outputs: Specs) -> tuple[str, TensorSpec]:
    """Return what the file's output is, and which one it is.

    Args:
        asked: ``[model] outputs``, "" for what the shapes tell.
        given: The file's input, (N, C, H, W) or (N, H, W, C) as its layout says.
        outputs: All outputs with their sizes; -1: open.

    Raises:
        ModelSignatureError: If no output, or several, are such.
    """
    floats = [_as_image(one, given) for one in outputs if one.dtype == "float32" or one.scale]
    if asked in FITTED:
        kind, found = asked, _matrices(asked, floats)
    elif asked:
        kind, found = asked, [one for one in floats if _kind(one, given) == asked]
        found = [one for one in found if one.name != EMBEDDING] or found  # our own exports have one of any width
    else:
        found = [one for one in floats if _kind(one, given) in {RECONSTRUCTION, SCORE}]
        kind = _kind(found[0], given) if found else ""
    if len(found) == 1:
        return kind, found[0]
    got = ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in found or outputs) or "none"
    wanted = _MEANT.get(asked, _MEANT[EMBEDDING]) + (f": {_forecasts(given)}" if asked == FORECAST else "")
    message = f"Expected for anomalies {wanted}, got {got}"
    if found:
        raise ModelSignatureError(f"{message}: export with one of them")
    remedy = (
        "write [model] outputs = 'embedding' if its distance from normal ones is to be the score, 'logits' for that in "
        f"front of a classifier's last layer, or 'forecast' of the input's last rows, {_forecasts(given)}"
    )
    raise ModelSignatureError(f"{message}: {'check the export, or leave outputs out' if asked else remedy}")


def _as_image(output: TensorSpec, given: TensorSpec) -> TensorSpec:
    """Return ``output`` as an image, if it is (N, rows, values) of an input with one column or one channel.

    So are (N, channels, rows) of an input with one column, as a convolution over time leaves them. A square of several
    channels may be either, and stays as it is, as does every other output.
    """
    if len(output.shape) != _SERIES:
        return output
    (channels, _, width), (one, two) = _planes(given), output.shape[1:]
    readings = []
    if two == channels * width and 1 in {channels, width}:
        readings.append(("NHWC", (-1, one, width, channels)))
    if one == channels and width == 1:
        readings.append(("NCHW", (-1, channels, two, 1)))
    if not readings or (len(readings) > 1 and channels > 1):
        return output
    layout, shape = readings[0]
    return replace(output, shape=shape, layout=layout)


def _forecasts(given: TensorSpec) -> str:
    """Return the shapes that a forecast may have, as text."""
    channels, height, width = _planes(given)
    image = f"(N, rows, {width}, {channels})" if given.layout == "NHWC" else f"(N, {channels}, rows, {width})"
    series = f"(N, rows, {channels * width}), " if 1 in {channels, width} else ""
    flat = "rows" if channels * width == 1 else f"rows * {channels * width}"
    return f"(N, {flat}), {series}or {image}, of 1 to {height - 1} rows"


def _matrices(asked: str, floats: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the matrices of ``floats``; if one has the name of what is ``asked``, that alone."""
    found = [one for one in floats if len(one.shape) == _MATRIX]
    named = [one for one in found if (one.name == EMBEDDING) == (asked == EMBEDDING)]
    exact = [one for one in found if one.name == asked]
    return exact or (named if len(named) == 1 else found)


def _kind(output: TensorSpec, given: TensorSpec) -> str:
    """Return what an output of this shape may be, but an embedding; "" if it is nothing else."""
    sizes, (channels, height, width) = output.shape[1:], _planes(given)
    if len(output.shape) == 1 or sizes == (1,):
        return SCORE
    row = channels * width
    if len(output.shape) == _IMAGE:
        layout = next(iter(_layouts(output, given)), "")
        covered = _planes(output, layout)[1] * row if layout else 0
    elif len(output.shape) == _MATRIX:
        covered = sizes[0]
    else:
        return ""
    if covered == height * row:
        return RECONSTRUCTION
    return FORECAST if 0 < covered < height * row and covered % row == 0 else ""


def _layouts(output: TensorSpec, given: TensorSpec) -> list[str]:
    """Return the layouts in which the picture ``output`` has the channels and the width of the input, its own first.

    A file whose input was wrapped into another layout has its output in the old one.
    """
    channels, _, width = _planes(given)
    known = [given.layout, *({"NCHW", "NHWC"} - {given.layout})]
    return [layout for layout in known if _planes(output, layout)[::2] == (channels, width)]


def _planes(spec: TensorSpec, layout: str = "") -> tuple[int, int, int]:
    """Return channels, height and width of a picture."""
    one, two, three = spec.shape[1:]
    return (three, one, two) if (layout or spec.layout) == "NHWC" else (one, two, three)


def check(asked: str, given: TensorSpec, outputs: Specs) -> None:
    """Check without data that a file with these ``outputs`` has a score, as far as it states their sizes.

    Raises:
        ModelSignatureError: If it has none.
    """
    if not any(-1 in one.shape[1:] for one in outputs):
        chosen(asked, given, outputs)


def scored(run: Run, candidate: Candidate, outputs: Specs, rows: Floats, came: TensorSpec) -> ScoredFile:
    """Return the file of ``candidate`` as its scores are read, after a run of ``rows``; its input is settled.

    ``came``: the input of the file as it came, whose layout its outputs still have.

    Raises:
        MeasureError: If the file can't be run, or has no such output.
        RecipeError: If a step would change a network without a loss.
    """
    alone, together = outputs_of_rows(with_contract(candidate, candidate.manifest.inputs, outputs), rows)
    check_alone(alone, together)
    sized = tuple(
        replace(spec, shape=(-1, *values.shape[1:])) for spec, values in zip(outputs, alone, strict=True)
    )  # fmt: skip
    kind, output = chosen(run.recipe.model.outputs, came, sized)
    shape = next(one.shape for one in sized if one.name == output.name)  # as the file has it
    run.progress.say(f"the file's output {output.name} {shape} is taken as {_said(kind)}")
    if kind in _PICTURES:
        return _picture(candidate, came, output)
    distance.check_steps(run)
    if kind == SCORE:
        return _score(candidate, output)
    return _fitted(run, candidate, kind, output)


def _said(kind: str) -> str:
    return kind if kind in OF_CLASSES else f"an {kind}" if kind == EMBEDDING else f"a {kind}"


def _picture(candidate: Candidate, given: TensorSpec, output: TensorSpec) -> ScoredFile:
    """Return a file whose picture is (N, D) in the order of channels, rows and columns."""
    from compressor.export import onnx_ends  # noqa: PLC0415 - loads onnx

    sizes, (channels, _, width) = output.shape[1:], _planes(given)  # of an image, also where the file's is a series
    layout = given.layout if len(sizes) == 1 else _layouts(output, given)[0]
    last = layout == "NHWC"
    if len(sizes) == 1 and not (last and channels > 1):
        data = onnx_ends.with_outputs(candidate.artifact, [output.name])
        return ScoredFile(data=data, outputs=(output,), decoder=RESIDUAL)
    if len(sizes) == 1:
        sizes = (sizes[0] // (channels * width), width, channels)
    data, name = onnx_ends.as_matrix(candidate.artifact, output.name, sizes, channels_last=last)
    return ScoredFile(
        data=data, decoder=RESIDUAL, outputs=(TensorSpec(name=name, shape=(-1, math.prod(sizes)), dtype="float32"),)
    )


def _score(candidate: Candidate, output: TensorSpec) -> ScoredFile:
    from compressor.export import onnx_ends  # noqa: PLC0415 - loads onnx

    data, name = onnx_ends.as_matrix(candidate.artifact, output.name, (1,), channels_last=False)
    return ScoredFile(data=data, decoder=SCORE, outputs=(TensorSpec(name=name, shape=(-1, 1), dtype="float32"),))


def _fitted(run: Run, candidate: Candidate, kind: str, output: TensorSpec) -> ScoredFile:
    from compressor.export import onnx_ends  # noqa: PLC0415 - loads onnx

    if kind != EMBEDDING:
        data, name = onnx_ends.before_last(candidate.artifact, output.name)
        candidate = replace(candidate, artifact=data)
        output = TensorSpec(name=name, shape=(-1, -1), dtype="float32")
    if output.shape[1] == 1:
        message = f"Expected an embedding of several numbers, got {output.name!r} (N, 1)"
        raise ModelOutputsError(f"{message}: write outputs = 'score'")
    return distance.with_distance(run, candidate, output)
