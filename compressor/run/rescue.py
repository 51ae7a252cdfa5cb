"""A quantize step with ``rescue``: tries remedies on search rows, and puts the chosen settings into the recipe.

Decides the final settings of a step, and reports the cost of every rung. The gate split is not used: the gates still
decide whether the rescued model is good enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor import formats
from compressor.cache import Stage
from compressor.closure import package, plugin
from compressor.data._table import Table
from compressor.measurement import first_run
from compressor.recipe.model import Recipe, TargetRecipe
from compressor.run.model_files import Form, bare
from compressor.run.stages import Run, table_digest, versions
from compressor.steps.quantize import Settings
from wire.canonical import sha256_hex

Floats = NDArray[np.float32]
Notes = tuple[tuple[str, Mapping[str, Any]], ...]


def rescued(run: Run, form: Form, calibration: Sequence[Table], search: Table) -> tuple[Recipe, Notes]:
    """Return the recipe with the chosen settings of every step with rescue, and the cost of each rung.

    ``form``: the float ONNX file after the network steps.

    Raises:
        QuantizeError: If the float model can't be read.
        MeasureError: If a rung's file can't be run.
    """
    recipe, notes, changed = run.recipe, [], []
    for step in recipe.compress:
        if not isinstance(step, Settings) or not step.rescue:
            changed.append(step)
            continue
        target = next(
            item for item in recipe.targets if formats.named(item.runtime).rescues and step.on in {"", item.name}
        )
        said = json.loads(_climbed(run, form, step, target, calibration, search))
        chosen = {**said["settings"], "float_layers": tuple(said["settings"]["float_layers"])}
        changed.append(Settings(**chosen))
        notes.append((f"rescue {step.on or target.name}", said["rungs"]))
    return replace(recipe, compress=tuple(changed)), tuple(notes)


def _climbed(
    run: Run, form: Form, step: Settings, target: TargetRecipe, calibration: Sequence[Table],
    search: Table,
) -> bytes:  # fmt: skip
    """Return the chosen settings and a line for every rung tried, as JSON; cached."""
    tables, file_format = [*calibration, search], formats.named(target.runtime)
    inputs = {
        "model": form.digest, "settings": repr(step), "preprocessing": repr(run.preprocessing),
        "data": sha256_hex("".join(table_digest(item) for item in tables).encode()),
        **versions(*file_format.quantized_with),
    }  # fmt: skip

    def batches() -> Iterator[Floats]:
        return run.batches(calibration, file_format.layout)

    @cache
    def tried() -> Floats:
        return next(iter(batches()))[: first_run.ROWS].copy()  # once for all rungs, and no view of the whole batch

    def judge(artifact: bytes) -> float:
        first_run.check(target.runtime, artifact, tried(), "a file of the rescue")
        candidate = bare(run.recipe, run.table, artifact, replace(target, format=""))
        return run.task.judging.score(run.predict("rescue", candidate, search), search.labels)

    def make() -> bytes:
        from compressor.quantize._remedies import climb  # noqa: PLC0415 - onnxruntime only to quantize

        climbed = climb(form.data, batches, judge, replace(step, rescue=0.0), allowed_drop=step.rescue)
        rungs = {
            item.rung.name: f"{item.artifact_bytes:,} bytes, {item.seconds:.1f} s, {item.why}" for item in climbed.tried
        }
        return json.dumps({"settings": asdict(climbed.chosen.settings), "rungs": rungs}).encode()

    entries = (
        *package("compressor.quantize"),
        plugin("edge_agent.runtimes", target.runtime),
    )  # a rung may be any scheme
    entries += (run.task.code("evidence"),)
    return run.cache.result(Stage(name="rescue", inputs=inputs, make=make, uses=entries)).data
