#!/usr/bin/env python3
"""Prints cost and gain of int8 on real data, compared with onnxruntime's own quantizer in the same run.

``compress.py [--quick] [--data METER_ZIP] [--out DIR] [--json FILE]``: digits, and meter digits if ``--data`` or
``TINYFLEET_DATA`` names their zip. One thread. Each row: what, ours, reference, ratio, target, met (null: no target).
"""

# ruff: noqa: E402 - telemetry is off and threads are set before the imports that read them
from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from compressor.data import load
from compressor.data._front_end import preprocessing_of
from compressor.data._split import split
from compressor.data._table import Table
from compressor.measurement import predictions as measure
from compressor.measurement.predictions import Candidate, Predictions
from compressor.quantize import quantize
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe
from compressor.statistics.paired import drop_upper, paired, wilson
from compressor.steps.quantize import Settings as QuantizeRecipe
from edge_agent.inference import preprocess
from scripts.bench.rows import Row
from wire.bundle import read_bundle

Floats = NDArray[np.float32]
BATCH, _LATENCY_RUNS = 64, 5  # the least of the medians: a busy host only adds time
MARGIN, FLIPS_MAX, QUANTIZE_MAX, MEMORY_SLACK, NEVER_LARGER = 0.01, 0.02, 1.5, 0.05, 1.0
NEVER_SLOWER = 1.05  # 5 %: the variation of the clock of a shared host


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration batches in onnxruntime's interface."""

    def __init__(self, batches: Iterator[Floats]) -> None:
        """Start at the first batch."""
        self._batches = batches

    def get_next(self) -> dict[str, Floats] | None:
        """Return the next batch by input name; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"input": batch}


def pieces(inputs: Floats, count: int) -> Iterator[Floats]:
    """Yield ``count`` rows in batches, repeating ``inputs``, each time a little darker."""
    for start in range(0, count, BATCH):
        rows = np.arange(start, min(start + BATCH, count)) % len(inputs)
        yield (inputs[rows] * np.float32(1 - 0.01 * (start // len(inputs) % 50))).astype(np.float32)


def ort_static(model: Path, out: Path, inputs: Iterator[Floats], **options: object) -> bytes:
    """Return ``model`` quantized by onnxruntime's ``quantize_static``, prepared as documented."""
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))
    quantize_static(str(prepared), str(out), Reader(inputs), **options)
    return out.read_bytes()


SAME_SCHEME = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}


@dataclass(frozen=True, slots=True)
class Bench:
    """One data set of the bench: a float model, its data, and a folder for files."""

    name: str
    recipe: Recipe
    float_model: bytes
    ours: Candidate
    calibration: Floats
    gate: Table
    folder: Path

    @property
    def step(self) -> QuantizeRecipe:
        """The recipe's first step, which quantizes."""
        return cast("QuantizeRecipe", self.recipe.compress[0])

    def rows(self, counts: Sequence[int], repeats: int) -> Iterator[Row]:
        """Yield all lines of this data set."""
        model = self.folder / f"{self.name}.onnx"
        model.write_bytes(self.float_model)
        yield from self.quantizing(model, repeats)
        reduced = {**SAME_SCHEME, "reduce_range": self.step.reduce_range}
        others = {
            "ORT defaults": ort_static(model, self.folder / "defaults.onnx", pieces(self.calibration, 256)),
            "ORT same scheme": ort_static(model, self.folder / "same.onnx", pieces(self.calibration, 256), **reduced),
        }
        runs = {"float": self.candidate(self.float_model), "ours": self.ours}
        runs |= {name: self.candidate(data) for name, data in others.items()}
        yield from self.judging(runs)
        yield from self.memory(model, counts)

    def candidate(self, artifact: bytes) -> Candidate:
        """Return another artifact with our manifest."""
        return Candidate(self.ours.manifest, artifact)

    def quantizing(self, model: Path, repeats: int) -> Iterator[Row]:
        """Time our quantizer and onnxruntime's in turns on the same calibration samples; the least time counts."""
        settings = self.step
        taken: dict[str, list[float]] = {"ours": [], "ort": []}
        out = self.folder / "timed.onnx"
        for _ in range(repeats):
            taken["ours"].append(
                timed(lambda: quantize(self.float_model, lambda: pieces(self.calibration, 256), settings))
            )
            taken["ort"].append(timed(lambda: ort_static(model, out, pieces(self.calibration, 256), **SAME_SCHEME)))
        ours, theirs = min(taken["ours"]), min(taken["ort"])
        yield Row("quantize, s (256 samples; ORT quantize_static)", ours, theirs, f"<= {QUANTIZE_MAX} x ORT",
                  ours <= QUANTIZE_MAX * theirs)  # fmt: skip

    def judging(self, runs: dict[str, Candidate]) -> Iterator[Row]:
        """Yield accuracy, drop, flips, size and latency of every artifact, in one run."""
        inputs, labels = tensors(self.gate, self.recipe), self.gate.labels
        said = {name: measure.predict(candidate, inputs) for name, candidate in runs.items()}
        right = {name: predictions.classes == labels for name, predictions in said.items()}
        before, n = said["float"], len(labels)
        low, high = wilson(int(right["ours"].sum()), n, 0.95)
        yield Row(
            f"accuracy int8 (float), n={n}, 95 % {low:.4f}..{high:.4f}", right["ours"].mean(), right["float"].mean()
        )
        drops = {name: drop_upper(paired(right["float"], right[name]), 0.95) for name in runs if name != "float"}
        yield Row("drop, upper bound 95 % (ORT defaults)", drops["ours"], drops["ORT defaults"], f"<= {MARGIN}",
                  drops["ours"] <= MARGIN)  # fmt: skip
        flipped = {name: flips(before, said[name]) for name in drops}
        yield Row("flips (ORT defaults)", flipped["ours"], flipped["ORT defaults"], f"<= {FLIPS_MAX}",
                  flipped["ours"] <= FLIPS_MAX)  # fmt: skip
        size = {name: float(len(candidate.artifact)) for name, candidate in runs.items()}
        yield Row("bytes (float)", size["ours"], size["float"])
        yield Row("bytes (ORT defaults: one scale per tensor)", size["ours"], size["ORT defaults"])
        same = size["ORT same scheme"]
        yield Row("bytes (ORT same scheme)", size["ours"], same, f"<= {NEVER_LARGER} x ORT",
                  size["ours"] <= NEVER_LARGER * same)  # fmt: skip
        taken = [measure.latency(runs, inputs) for _ in range(_LATENCY_RUNS)]
        latency = {name: min(run[name].p50_ms for run in taken) for name in runs}
        yield Row("latency p50, ms (float)", latency["ours"], latency["float"])
        yield Row("latency p50, ms (ORT same scheme: the same kernels)", latency["ours"], latency["ORT same scheme"])
        theirs = latency["ORT defaults"]
        yield Row("latency p50, ms (ORT defaults)", latency["ours"], theirs, f"<= {NEVER_SLOWER} x ORT",
                  latency["ours"] <= NEVER_SLOWER * theirs)  # fmt: skip

    def memory(self, model: Path, counts: Sequence[int]) -> Iterator[Row]:
        """Yield the peak memory of calibration in fresh processes; ours must not grow with the samples."""
        data = self.folder / "calibration.npy"
        np.save(data, self.calibration)
        first = 0.0
        for count in counts:
            ours, theirs = (child_memory(kind, model, data, count) for kind in ("ours", "ort"))
            first = first or ours
            yield Row(f"calibration peak memory, MB, {count} samples (ORT quantize_static)", ours, theirs,
                      f"within {MEMORY_SLACK:.0%} of {counts[0]}", abs(ours / first - 1) <= MEMORY_SLACK)  # fmt: skip


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def flips(before: Predictions, after: Predictions) -> float:
    """Return the share of predictions that differ."""
    return float((before.classes != after.classes).mean())


def tensors(table: Table, recipe: Recipe) -> Floats:
    """Return the images of ``table`` after the device's preprocessing."""
    return preprocess.to_batch(list(table.images), preprocessing_of(recipe.data))


def child_memory(kind: str, model: Path, data: Path, count: int) -> float:
    """Return the peak resident memory, in MB, of a fresh process that quantizes with ``count`` samples."""
    command = [sys.executable, __file__, "--child", kind, str(model), str(data), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def child(kind: str, model: str, data: str, count: str) -> None:
    """Quantize in this process and print its peak memory."""
    inputs = np.load(data)
    if kind == "ours":
        quantize(Path(model).read_bytes(), lambda: pieces(inputs, int(count)), QuantizeRecipe())
    else:
        with tempfile.TemporaryDirectory() as folder:
            ort_static(
                Path(model),
                Path(folder) / "q.onnx",
                pieces(inputs, int(count)),
                calibrate_method=CalibrationMethod.MinMax,
            )
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM:"))
    sys.stdout.write(f"{int(peak.split()[1]) / 1000:.1f}\n")


def prepare(name: str, recipe: Recipe, out: Path, *, quick: bool) -> Bench:
    """Train and compress (or load the results from ``out``), and prepare what is compared."""
    from compressor import networks  # noqa: PLC0415 - torch stays out of the processes whose memory is measured
    from compressor.export.onnx import export_onnx  # noqa: PLC0415 - as above
    from compressor.progress import Bars  # noqa: PLC0415 - as above
    from compressor.run.pipeline import run_recipe  # noqa: PLC0415 - as above
    from compressor.train import checkpoint  # noqa: PLC0415 - as above

    folder = out / name
    recipe = replace(recipe, gates=tuple(gate for gate in recipe.gates if gate.name == "int8_macs_ratio"))
    outcome = run_recipe(recipe, out=folder, progress=Bars(), quick=quick)
    bundle = read_bundle(outcome.bundles[0])
    table = load(recipe.data, recipe.folder)
    splits = split(table, recipe.train.seed, slices=recipe.data.train_slices)
    data, model = recipe.data, recipe.model
    network = networks.build(
        model.network, len(table.class_names), data.channels, data.height, data.width, model.network_options
    )
    weights = checkpoint.load(network, outcome.checkpoint)
    return Bench(
        name, recipe, export_onnx(weights, data.channels, data.height, data.width),
        Candidate(bundle.manifest, bundle.artifact), tensors(table.take(splits.calibration), recipe),
        table.take(splits.gate), folder,
    )  # fmt: skip


def recipes(data: Path | None) -> Iterator[tuple[str, Recipe]]:
    """Yield the recipes whose data is available."""
    yield "digits", read_recipe(ROOT / "models" / "digits")
    if data is not None:
        yield "meter-digits", read_recipe(ROOT / "models" / "meter_digits").with_data(data)


def shown(row: Row) -> str:
    """Return one line for people."""
    reference = "" if row.reference is None else f"{row.reference:12.4g}"
    ratio = "" if row.ratio is None else f"{row.ratio:8.3f}"
    mark = {True: "met", False: "MISSED", None: ""}[row.met]
    return f"  {row.what:<62}{row.ours:12.4g}{reference:>12}{ratio:>8}  {row.target:<20}{mark}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 0 if every target is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two epochs, fewer samples and repeats")
    parser.add_argument("--data", type=Path, default=os.environ.get("TINYFLEET_DATA"), help="meter-digits-dev.zip")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "tinyfleet-bench-compress")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # onnxruntime's quantizer logs advice on the root logger
    if options.child:
        child(*options.child)
        return 0
    counts, repeats = ((128, 1024), 2) if options.quick else ((128, 1024, 4096), 5)
    rows: list[dict[str, object]] = []
    sys.stdout.write(f"onnxruntime {ort.__version__}, one thread; ours, (reference), ours / reference\n")
    for name, recipe in recipes(Path(options.data) if options.data else None):
        sys.stdout.write(f"{name}\n")
        for row in prepare(name, recipe, options.out, quick=options.quick).rows(counts, repeats):
            sys.stdout.write(shown(row) + "\n")
            sys.stdout.flush()
            rows.append({**asdict(row), "ratio": row.ratio, "what": f"{name}: {row.what}"})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
