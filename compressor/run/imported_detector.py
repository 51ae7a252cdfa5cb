"""The outputs of an imported detector: which of them its decoder reads and how, settled and checked on some rows.

A recipe may leave open what the outputs themselves tell: the layout, the coordinates, whether scores are logits. What
is settled stands in the manifest, so that a device decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compressor.errors import MeasureError, ModelOutputsError, ModelSignatureError
from compressor.measurement.predictions import Candidate
from edge_agent import decoders, runtimes
from edge_agent.decoders import shape_of
from edge_agent.errors import AgentError, DecoderError
from wire.manifest import Manifest, TensorSpec

Specs = tuple[TensorSpec, ...]
Floats = NDArray[np.float32]
_BATCHED = 3
_SUPPRESSED = 3  # outputs of a file that suppresses, at least: boxes, classes, scores
_APART_RATIO, _ROUNDING = 0.05, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxOutputs:
    """The ``outputs`` that the decoder gets, in its order, and its ``options``; ``remarks``: what was read off."""

    outputs: Specs
    options: Mapping[str, float]
    remarks: tuple[str, ...] = ()


def stated(manifest: Manifest, outputs: Specs) -> BoxOutputs:
    """Return how the decoder of ``manifest`` reads a file with ``outputs``, as far as the file itself tells.

    Raises:
        ModelSignatureError: If it can't.
    """
    try:
        found = decoders.read(manifest.decoder, manifest.decoder_options, shape_of(manifest), outputs)
    except DecoderError as error:
        raise ModelSignatureError(str(error)) from error
    return BoxOutputs(
        outputs=tuple(outputs[place] for place in found.places), options=found.options, remarks=found.remarks
    )


def settled(candidate: Candidate, outputs: Specs, rows: Floats) -> BoxOutputs:
    """Return how the decoder of ``candidate`` reads its file with ``outputs``, after a run of ``rows``.

    Raises:
        MeasureError: If the file can't be run, or its outputs are not finite.
        ModelOutputsError: If they are no boxes inside the input, or no scores.
        ModelSignatureError: If they have no layout of the decoder, or differ between a row alone and among others.
    """
    manifest = candidate.manifest
    found, together = outputs_of_rows(replace(candidate, manifest=_raw(manifest, outputs)), rows)
    known = tuple(
        replace(spec, shape=(-1, *values.shape[1:])) if values.ndim else spec
        for spec, values in zip(outputs, found, strict=True)
    )
    read = stated(manifest, known)
    taken = [found[known.index(spec)] for spec in read.outputs]
    if len(taken) < _SUPPRESSED:  # behind the last box of a suppressed list may be anything
        check_alone(taken, [together[known.index(spec)] for spec in read.outputs])
        if not any(all(np.isfinite(part).all() for part in row) for row in zip(*taken, strict=True)):
            raise MeasureError("Expected finite outputs, got NaN or infinity for every row: check the export")
    try:
        tried = decoders.tried(manifest.decoder, read.options, shape_of(manifest), taken)
    except DecoderError as error:
        raise ModelOutputsError(str(error)) from error
    order = tried.places if len(tried.places) == len(read.outputs) else range(len(read.outputs))
    declared = {spec.name: spec for spec in outputs}
    return BoxOutputs(
        outputs=tuple(declared[read.outputs[place].name] for place in order), options=tried.options,
        remarks=(*read.remarks, *tried.remarks),
    )  # fmt: skip


def check_joined(outputs: Specs) -> None:
    """Check that boxes and scores are one output, as those of a network are that is exported for another runtime.

    Raises:
        ModelSignatureError: If they are several.
    """
    if len(outputs) > 1:
        message = "Expected boxes and scores in one output, of a file that becomes a network for another runtime"
        got = ", ".join(output.name for output in outputs)
        raise ModelSignatureError(f"{message}, got {got}: join them in the export, or give targets of the file's own")


def _raw(manifest: Manifest, outputs: Specs) -> Manifest:
    """Return ``manifest`` with all outputs of the file, and nothing that reads them."""
    return replace(manifest, decoder="", decoder_options={}, outputs=outputs)


def outputs_of_rows(candidate: Candidate, rows: Floats) -> tuple[Sequence[Floats], Sequence[Floats]]:
    """Return the outputs for ``rows``, row by row and joined, and of all rows at once.

    Those of a list of one input are one long list, both times.

    Raises:
        MeasureError: If the file can't be run.
    """
    try:
        runtime = runtimes.load(candidate.manifest, candidate.artifact)
        alone = [runtime.run(row[None]) for row in rows]
        joined = [np.concatenate([np.atleast_1d(one) for one in parts]) for parts in zip(*alone, strict=True)]
        together = runtime.run(rows) if joined[0].ndim >= _BATCHED else joined
        runtime.close()
    except AgentError as error:
        raise MeasureError(str(error)) from error
    return joined, together


def check_alone(alone: Sequence[Floats], together: Sequence[Floats]) -> None:
    """Check that a row has the same answer among others: a device runs one at a time.

    Raises:
        ModelSignatureError: If it has not.
    """
    for one, other in zip(alone, together, strict=True):
        if one.shape != other.shape or not np.isfinite(one).all() or not one.size:
            continue  # other numbers of boxes are the decoder's to judge
        apart, spread = float(np.abs(one - other).max()), float(np.ptp(one))
        if apart > _APART_RATIO * spread + _ROUNDING * (1 + float(np.abs(one).max())):
            message = f"Expected the same outputs for a row alone and among others, got {apart:.3g} apart"
            raise ModelSignatureError(f"{message} of {spread:.3g}: export in evaluation mode (model.eval())")
