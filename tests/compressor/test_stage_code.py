"""The real imports of every stage while it works are part of the code that its key names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STAGES = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from compressor import formats
from compressor.cache import Cache
from compressor.data import load_kept
from compressor.progress import Silent
from compressor.recipe.read import parse_recipe
from compressor.run.compression import Lesson, compress, exported, rescued, shaped
from compressor.run.stages import Run
import numpy as np

OURS = ("compressor", "edge_agent", "wire")

class Watched(Cache):
    def result(self, stage):
        def watched():
            before = set(sys.modules)
            made = stage.make()
            came = {name for name in set(sys.modules) - before if name.partition(".")[0] in OURS}
            print(json.dumps([stage.name, len(came), sorted(came - set(stage.code()))]), flush=True)
            return made
        watched.__module__ = stage.make.__module__
        return super().result(replace(stage, make=watched))

RECIPE = parse_recipe(Path(sys.argv[1]).read_bytes())
CACHE = Watched(Path(sys.argv[2]))
SHOP = Run(recipe=RECIPE, cache=CACHE, progress=Silent())

def shop():
    return replace(SHOP, material=replace(SHOP.material, table=table()))

def table():
    return load_kept(CACHE, RECIPE.data, Path())

def trained():
    return SHOP.train([table().take(np.arange(0, 600))], RECIPE.train)

def lesson():
    rows = table()
    return Lesson([rows.take(np.arange(0, 600))], [rows.take(np.arange(600, 664))], rows.take(np.arange(664, 800)))

def steps():
    return shaped(SHOP, trained(), lesson())[0]

def form():
    return exported(shop(), steps(), RECIPE.targets[0].runtime)

def int8():
    return compress(shop(), form(), RECIPE.targets[0], lesson().calibration, steps())

def predicted():
    return SHOP.predict("x", int8().candidate, lesson().search)

def timed():
    return SHOP.timings({"float": form().candidate, "int8": int8().candidate}, lesson().search.take(np.arange(16)))

def logits():
    return SHOP.torch_logits(steps(), lesson().search)

def climbed():
    asked = replace(RECIPE, compress=tuple(
        replace(step, rescue=0.001) if step.step == "quantize" else step for step in RECIPE.compress))
    return rescued(replace(shop(), recipe=asked), form(), lesson().calibration, lesson().search)

works = [table, trained, steps, form, int8, predicted, timed, logits]
for work in [*works, climbed] if RECIPE.targets[0].runtime == formats.BASELINE else works:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit(work.__name__)
"""

RECIPE = """
[model]
name = "digits"
network = "ds_cnn"
[train]
epochs = 1
[[compress]]
step = "prune"
rounds = 1
fine_tune_epochs = 0
[[compress]]
step = "qat"
max_steps = 1
allow_unchanged = true
[[compress]]
step = "quantize"
reduce_range = false
[targets.host]
runtime = "RUNTIME"
"""


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "litert"])
def test_nothing_that_a_stage_imports_is_missing_from_its_key(runtime: str, tmp_path: Path) -> None:
    """Each stage runs in a process that has imported only the modules that define stages."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("RUNTIME", runtime))
    command = [sys.executable, "-c", STAGES, str(recipe), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name for name, _, missing in told if missing} == set(), told
    assert {"data", "train", "step-prune", "step-qat", "export", "quantize", "predict", "torch"} | (
        {"clean"} if runtime == "onnx" else set()
    ) <= {one[0] for one in told}
    assert sum(count for _, count, _ in told) > 20
