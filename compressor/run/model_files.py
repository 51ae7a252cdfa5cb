"""The forms of a model: a file with its manifest, for every runtime and target.

Decides names, layouts and signatures of inputs and outputs. Runs nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from compressor import formats, tasks
from compressor.cache import Result
from compressor.data._front_end import preprocessing_of
from compressor.data._table import Table
from compressor.measurement.predictions import Candidate
from compressor.recipe.model import Recipe, TargetRecipe
from edge_agent import declarations
from edge_agent import tasks as device_tasks
from wire.canonical import sha256_hex
from wire.manifest import Manifest, TensorSpec


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """A runnable file. ``converted_from``: its plain form, whose graph can be read; empty: it is in that form."""

    candidate: Candidate
    converted_from: bytes = b""

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return self.candidate.artifact

    @property
    def plain(self) -> bytes:
        """The file in its format's plain form."""
        return self.converted_from or self.data

    @property
    def digest(self) -> str:
        """The SHA-256 of the file."""
        return sha256_hex(self.candidate.artifact)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Models:
    """All models of a run; every field is empty until a model is made.

    ``trained``: the weights before any step, ``weights``: after the last (None for an imported file); ``baseline``: the
    float model without compression, for the baseline's runtime or that of the import; ``floats``: the float file after
    the network steps, by runtime; ``compressed``: the gated file, by target; ``notes``: measurements of the steps.
    """

    trained: Result | None = None
    weights: Result | None = None
    baseline: Form = field(default_factory=lambda: Form(Candidate(Manifest(), b"")))
    floats: Mapping[str, Form] = field(default_factory=dict)
    compressed: Mapping[str, Form] = field(default_factory=dict)
    notes: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=())


def bare(recipe: Recipe, table: Table, artifact: bytes, target: TargetRecipe) -> Candidate:
    """Return ``artifact`` with the minimal manifest to run it on ``target`` (the embedding's width is left open)."""
    return Candidate(manifest_of(recipe, table, target), artifact)


def manifest_of(recipe: Recipe, table: Table, target: TargetRecipe) -> Manifest:
    """Return the manifest of a float32-input model on ``target``; inputs and outputs have our exporters' names."""
    data, runtime = recipe.data, declarations.runtime(target.runtime)
    layout, suffix = runtime.layout, runtime.formats[target.format]
    preprocessing, task = preprocessing_of(data, layout), tasks.of(data)
    known = task.device in device_tasks.names()  # found by the reference
    made = Manifest(
        model=recipe.model.name,
        version=recipe.model.version,
        security_floor=recipe.model.security_floor,
        target=target.name,
        runtime=target.runtime,
        artifact=f"model.{suffix}",
        opset=formats.or_plain(target.runtime).opset,
        threads=target.threads,
        inputs=(input_of(recipe, target.runtime),),
        outputs=(_logits(table), TensorSpec(name="embedding", shape=(-1, -1))),
        preprocessing=preprocessing,
        hardware=(target.cpu,),
        task="" if known else task.device,
        **{task.names_are: table.class_names},  # type: ignore[arg-type]  # labels or values
    )
    return replace(made, schema=made.needed_schema)


def _logits(table: Table) -> TensorSpec:
    """Return the first output; for a regression with the mean and spread that convert it to the values' unit."""
    unit = table.unit
    mean, spread = (unit.mean, unit.spread) if unit is not None else ((), ())
    return TensorSpec(name="logits", shape=(-1, len(table.class_names)), mean=mean, spread=spread)


def input_of(recipe: Recipe, runtime: str) -> TensorSpec:
    """Return the float32 input that ``recipe`` describes, in the layout of ``runtime``."""
    data, layout = recipe.data, declarations.runtime(runtime).layout
    sizes = {"NCHW": (data.channels, data.height, data.width), "NHWC": (data.height, data.width, data.channels)}
    return TensorSpec(name="input", shape=(-1, *sizes[layout]), dtype="float32", layout=layout)


def with_contract(candidate: Candidate, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Candidate:
    """Return ``candidate`` with the actual inputs and outputs of its file; their meaning is kept."""
    meant = candidate.manifest.outputs[0]
    first = replace(outputs[0], mean=meant.mean, spread=meant.spread, meaning=meant.meaning or outputs[0].meaning)
    outputs = (first, *outputs[1:])
    return replace(candidate, manifest=replace(candidate.manifest, inputs=inputs, outputs=outputs))


def float_target(recipe: Recipe, runtime: str) -> TargetRecipe:
    """Return a target for the float file of ``runtime``: the recipe's first with it, in the plain format."""
    found = [target for target in recipe.targets if target.runtime == runtime]
    first = found[0] if found else replace(recipe.targets[0], runtime=runtime)
    return replace(first, format="")
