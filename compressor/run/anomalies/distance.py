"""The distance from normal embeddings as a score: fitted on train rows, and added to the file as its last layer.

The embedding is that of an imported file, or of a network of ours that learned to tell the labels of normal rows apart.
Either way the statistics are a linear layer of an ONNX file, so that both formats, int8 and the device take them as
they take any layer. Decides on which rows they are fitted. What a device makes of the layer's output stands in
``edge_agent/decoders/distance.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from compressor import formats, tasks
from compressor.cache import Result
from compressor.data._table import Table
from compressor.errors import RecipeError
from compressor.measurement.predictions import Candidate
from compressor.run.stages import NetworkFile, Run, bare, float_target
from compressor.statistics import embedding_distance
from compressor.steps._selection import network_steps
from wire.manifest import TensorSpec

if TYPE_CHECKING:
    from compressor.run.compression import Lesson

_DECODER = "distance"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScoredFile:
    """A file as the gates and devices get it: its ``data`` and ``outputs``, and the decoder that reads them."""

    data: bytes
    outputs: tuple[TensorSpec, ...]
    decoder: str
    options: Mapping[str, float] = field(default_factory=dict)


def with_distance(run: Run, candidate: Candidate, output: TensorSpec) -> ScoredFile:
    """Return the ONNX file of ``candidate`` with a last layer for the distance in its ``output``, (N, D).

    It gives deviations from the centres first, then the embedding.

    Raises:
        MeasureError: If it can't be run, or its embeddings of normal rows have no spread.
    """
    from compressor.export import onnx_ends  # noqa: PLC0415 - loads onnx

    rows = run.rows("train")
    rows = rows if len(rows) else run.rows("reference")
    plain = replace(candidate.manifest, decoder="", decoder_options={}, outputs=(output,))
    said = run.predict("embeddings", replace(candidate, manifest=plain), rows).logits
    kinds = np.zeros(len(rows), np.int64) if rows.kinds is None else rows.kinds
    made = embedding_distance.fitted(said, kinds)
    data, (first, second) = onnx_ends.with_linear(candidate.artifact, output.name, made.weights, made.offsets)
    specs = (
        TensorSpec(name=first, shape=(-1, made.weights.shape[1]), dtype="float32"),
        TensorSpec(name=second, shape=(-1, made.weights.shape[0]), dtype="float32"),
    )
    centres = f"{made.centres} centres" if made.centres > 1 else "one centre"
    run.progress.say(f"the score is the distance from {centres} of {len(rows)} train rows, in {said.shape[1]} numbers")
    return ScoredFile(data=data, outputs=specs, decoder=_DECODER, options={"centres": made.centres})


def is_learned(run: Run) -> bool:
    """Return whether the recipe names a network without a decoder for a task of scores: a classifier."""
    if not run.task.scored or run.recipe.model.imported:
        return False
    from compressor import networks  # noqa: PLC0415 - torch is loaded only to train

    model, data = run.recipe.model, run.recipe.data
    sizes = (2, data.channels, data.height, data.width)
    return not networks.decoder_of(networks.build(model.network, *sizes, model.network_options))


def learned(run: Run, lesson: Lesson) -> Run:
    """Return ``run`` with a file as its source: a classifier of the normal rows' labels, and the distance behind it.

    Raises:
        RecipeError: If the normal rows have one label, or a step would change the network.
        TrainError: If training failed.
        MeasureError: If the embeddings have no spread.
    """
    check_steps(run)
    if run.recipe.model.checkpoint:
        message = f"Expected no checkpoint with network {run.recipe.model.network!r} in a recipe {run.task.recipes}"
        raise RecipeError(f"{message}, got one: export it as ONNX, and give that in onnx with outputs = 'embedding'")
    classifier, weights = _classifier(run, lesson)
    data = classifier.export(weights, len(classifier.table.class_names)).data
    embedding = TensorSpec(name="embedding", shape=(-1, -1), dtype="float32")
    plain = bare(run.recipe, run.table, data, float_target(run.recipe, formats.BASELINE))
    made = with_distance(run, plain, embedding)
    source = NetworkFile(
        data=made.data, logits=made.outputs[0].name, embedding=made.outputs[1].name, decoder=made.decoder,
        decoder_options=made.options,
    )  # fmt: skip
    return replace(run, models=replace(run.models, source=source))


def check_steps(run: Run) -> None:
    """Check that no step changes a network whose score is no picture of its input: there is no loss for it.

    Raises:
        RecipeError: If one does.
    """
    wrong = network_steps(run.recipe)
    if wrong:
        message = f"Expected no step {wrong[0].step!r} in a recipe whose score is a distance or a file's own, got one"
        raise RecipeError(f"{message}: there is no loss for such outputs; only quantize applies")


def _classifier(run: Run, lesson: Lesson) -> tuple[Run, Result]:
    """Return a run of classes, those of the normal train rows, and the weights of its network."""
    rows = run.rows("train")
    names = tuple(np.unique(rows.kinds).tolist()) if rows.kinds is not None else ()
    if len(names) < 2:  # noqa: PLR2004 - nothing to tell apart
        message = f"Expected normal rows of two labels or more for network {run.recipe.model.network!r}, got {names}"
        raise RecipeError(
            f"{message}: it learns to tell them apart; name more in [data] normal, take network = 'auto_encoder', or "
            "give a trained file in [model] onnx with outputs = 'embedding'"
        )
    data = replace(run.recipe.data, task="", normal=())

    def told(table: Table) -> Table:
        labels = np.searchsorted(np.array(names), table.kinds).astype(np.int64)  # type: ignore[arg-type]
        return replace(table, labels=labels, class_names=names, task=tasks.of(data).name, kinds=None)

    classifier = replace(
        run, recipe=replace(run.recipe, data=data), material=replace(run.material, table=told(rows)),
    )  # fmt: skip
    settings = replace(run.recipe.train, fine_tune_layers="all")
    return classifier, classifier.train([told(one) for one in lesson.train], settings, None, told(lesson.search))
