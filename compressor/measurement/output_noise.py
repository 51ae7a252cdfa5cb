"""Noise of compression at each output: a float file and the one made from it, on the same inputs, before the decoder.

An output that joins several things, such as scores and sizes, is compared part by part, as its decoder names them: one
scale for all may leave the part with the least range nothing, while the output as a whole looks right. Decides what is
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import MeasureError
from compressor.measurement.layers import sqnr_db
from compressor.measurement.noise_figures import MOST_DB, OutputNoise
from compressor.measurement.predictions import Candidate
from edge_agent import decoders, runtimes
from edge_agent.errors import AgentError

Floats = NDArray[np.float32]


def measured(reference: Candidate, other: Candidate, inputs: tuple[Floats, Floats]) -> tuple[OutputNoise, ...]:
    """Return the noise of ``other`` at each output that its decoder uses, or at all without a decoder.

    Args:
        reference: The float file.
        other: The file made from it, of the same outputs.
        inputs: The same rows for each of the two, in its layout.

    Returns:
        Nothing if the outputs can't be compared, because the file sorts its boxes itself.

    Raises:
        MeasureError: If one can't be run, or they differ in shape.
    """
    own, said = (_outputs(one, rows) for one, rows in zip((reference, other), inputs, strict=True))
    names = [spec.name for spec in other.manifest.outputs]
    parts = [_parts(one.manifest, values) for one, values in ((reference, own), (other, said))]
    if parts[0] is None or parts[1] is None:
        return ()
    found = [_noise(names[0], part, parts[0][part], parts[1][part]) for part in parts[0]]
    first = 1 if found else 0  # the others are what they are called
    return (*found, *(_noise(name, "", own[at], said[at]) for at, name in enumerate(names) if at >= first))


def _noise(output: str, part: str, reference: NDArray[Any], other: NDArray[Any]) -> OutputNoise:
    return OutputNoise(
        output=output, part=part, sqnr_db=max(-MOST_DB, min(sqnr_db(reference, other), MOST_DB)),
        low=float(reference.min()), high=float(reference.max()), levels=len(np.unique(other)),
    )  # fmt: skip


def _parts(manifest: Any, outputs: Sequence[NDArray[Any]]) -> Any:  # noqa: ANN401 - a manifest; parts or None
    if not manifest.decoder:
        return {}
    try:
        return decoders.parts(manifest.decoder, manifest.decoder_options, decoders.shape_of(manifest), outputs)
    except AgentError as error:
        raise MeasureError(str(error)) from error


def _outputs(candidate: Candidate, rows: Floats) -> list[NDArray[Any]]:
    """Return all outputs for ``rows``, one row at a time, without the decoder."""
    plain = replace(candidate.manifest, decoder="", decoder_options={})
    try:
        runtime = runtimes.load(plain, candidate.artifact)
        try:
            each = [runtime.run(rows[at : at + 1]) for at in range(len(rows))]
        finally:
            runtime.close()
    except AgentError as error:
        raise MeasureError(str(error)) from error
    return [np.concatenate(values) for values in zip(*each, strict=True)]
