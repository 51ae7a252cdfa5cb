#!/usr/bin/env python3
"""Prints how many bytes a retrained release takes over the air as a patch, against the whole bundle.

``patches.py [--quick] [--json FILE]``: models/digits and the stand-in of models/gestures are trained, and retrained on
the same data, once with every layer free and once with ``[train] fine_tune_layers = "head"`` (body and scales stay).
The patch is the one that ``compressor publish --base`` makes; it is applied again and must give the bundle byte for
byte. Gates are left out but for the size, because bytes are measured here. A first retraining on drifted samples adds
their drift context to the reference, which is new: about 1.3 KB more. ``--quick``: digits with two epochs.
"""

# ruff: noqa: E402 - telemetry is off and threads are set before imports
from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from compressor import stand_ins
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe
from compressor.release.patches import make_patch
from compressor.run.pipeline import BasePoint, run_recipe
from scripts.bench.rows import Row, told
from wire.patch import apply_patch

HEAD, ALL = 0.02, 0.45


def measured(name: str, recipe: Recipe, folder: Path, *, quick: bool) -> list[Row]:
    """Return the rows of one recipe: of each target, retrained by its head and as a whole."""
    first = run_recipe(recipe, out=folder / f"{name}-1", quick=quick)
    rows = []
    for layers, limit in (("head", HEAD), ("all", ALL)):
        retrained = replace(recipe, train=replace(recipe.train, fine_tune_layers=layers))
        base = BasePoint(first.bundles[0], first.checkpoint)  # one job is about one release, for all targets
        second = run_recipe(retrained, out=folder / f"{name}-2-{layers}", version=2, base=base, quick=quick)
        for target, one, other in zip(recipe.targets, first.bundles, second.bundles, strict=True):
            old, new = one.read_bytes(), other.read_bytes()
            patch, made = make_patch(old, new), io.BytesIO()
            apply_patch(io.BytesIO(old), io.BytesIO(patch), made.write, len(new))
            if made.getvalue() != new:
                sys.exit(f"Expected the patch to give {other.name}, got other bytes")
            what = f"{name}, {target.name}: {layers} retrained: bytes, against the bundle"
            share = len(patch) / len(new)
            rows.append(Row(what, len(patch), len(new), f"<= {limit:.0%}", share <= limit))
    return rows


def main() -> int:
    """Print the table; return 0 if all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits alone, two epochs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tinyfleet-patches-") as name:
        for model in ("digits",) if options.quick else ("digits", "gestures"):
            recipe = stand_ins.stood_in(read_recipe(ROOT / "models" / model), Path(name))
            sizes = tuple(gate for gate in recipe.gates if gate.name == "size_bytes")
            recipe = replace(recipe, gates=sizes, model=replace(recipe.model, allow_constant="bytes are measured"))
            rows += measured(model, recipe, Path(name), quick=options.quick or bool(recipe.data.stand_in))
    return told(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
