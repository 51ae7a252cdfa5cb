#!/usr/bin/env python3
"""Prints what compression costs and gains beside its peers, on the same model and data, one thread, in one run.

``compression.py [--quick] [--cases resnet8,ds_cnn,...] [--out DIR] [--peers DIR] [--json FILE]``: scikit-learn's digits
through a camera. Ours is a recipe (prune, distil, QAT, int8) on onnxruntime and LiteRT and must pass a 1-point gate at
95 %; beside it fp32 onnxruntime, onnxruntime's ``quantize_static`` defaults, ai-edge-quantizer's defaults, and NNCF and
Olive where ``--peers`` names the folder that ``peers/setup`` made. ``--quick``: ResNet8 alone, two epochs.
"""

# ruff: noqa: E402, PLC0415 - telemetry is off and threads are set before imports; TFLite packages only where used
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from compressor import measure
from compressor.data.split import split
from compressor.data.table import Table
from compressor.data_step import load_kept
from compressor.errors import CompressorError
from compressor.forms import bare, float_target, with_contract
from compressor.measure import Candidate
from compressor.pipeline import run_recipe
from compressor.progress import Bars
from compressor.recipe import Recipe, parse_recipe
from compressor.shaping import exported
from compressor.statistics import drop_upper, paired, wilson
from compressor.step import Cache, Result
from compressor.workshop import Workshop
from scripts.bench.rows import Row, told
from wire.bundle import read_bundle
from wire.canonical import sha256_hex

Floats = NDArray[np.float32]
HERE = Path(__file__).resolve().parent
MARGIN, NEVER = 0.01, 1.05  # 5 % is what the clock of a shared host varies by
TIMED_ROWS, CALIBRATION_ROWS = 60, 256


@dataclass(frozen=True, slots=True)
class Case:
    """A network, how it is trained and compressed, and the figures asked of it (0: none)."""

    network: str
    options: str
    side: int
    epochs: int
    macs_ratio: float
    litert_faster: float = 0.0
    ort_faster: float = 0.0
    smaller: float = 0.0


CASES = {
    "resnet8": Case("resnet8", "{filters = 16}", 32, 12, 0.25, 6.0, 1.9, 9.0),
    "ds_cnn": Case("ds_cnn", "{filters = 64}", 32, 12, 0.4, 3.3, 1.7, 3.3),
    "mobilenet_v2_035_64": Case("mobilenet_v2", "{width_mult = 0.35}", 64, 12, 0.5),
    "mobilenet_v2_96": Case("mobilenet_v2", "{width_mult = 1.0}", 96, 6, 0.3, 5.6, 3.7, 8.8),
}

RECIPE = """
[model]
name = "bench"
network = "{network}"
network_options = {options}
[data]
dataset = "digits"
slices = "lens"
width = {side}
height = {side}
[train]
epochs = {epochs}
batch = 64
learning_rate = 0.01
augment = 0.5
[[compress]]
step = "prune"
macs_ratio = {macs_ratio}
rounds = 3
fine_tune_epochs = {tune}
[[compress]]
step = "distill"
epochs = {distil}
learning_rate = 0.004
[[compress]]
step = "qat"
epochs = 2
[[compress]]
step = "quantize"
reduce_range = false
[targets.ort]
runtime = "onnx"
[targets.litert]
runtime = "litert"
[gates]
accuracy_drop = {{max = 0.01, confidence = 0.95}}
int8_macs_ratio = {{min = 0.95}}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A model of the comparison, and how long it took to quantize."""

    candidate: Candidate
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Predictions of a contender beside the float model's, on the same rows."""

    base: NDArray[np.int64]
    own: NDArray[np.int64]
    labels: NDArray[np.int64]
    slices: NDArray[np.str_]

    @property
    def upper(self) -> float:
        """The one-sided 95 % bound of the drop in accuracy."""
        return drop_upper(paired(self.base == self.labels, self.own == self.labels), 0.95)

    def said(self) -> str:
        """Return accuracy with bounds, bound of the drop, flips and the worst slice's drop."""
        right, before = self.own == self.labels, self.base == self.labels
        low, high = wilson(int(right.sum()), len(right), 0.95)
        parts = [self.slices == name for name in np.unique(self.slices)]
        worst = max(float(before[part].mean() - right[part].mean()) for part in parts)
        flips = int((self.own != self.base).sum())
        return (f"{right.mean():.4f} [{low:.4f} {high:.4f}]  drop <= {100 * self.upper:5.2f} %  flips {flips:>4}  "
                f"worst slice {100 * worst:+5.2f}")  # fmt: skip


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration rows as onnxruntime wants them."""

    def __init__(self, rows: Floats) -> None:
        """Start at the first row."""
        self._rows = iter(rows)

    def get_next(self) -> dict[str, Floats] | None:
        """Return the next row by input name; None at the end."""
        row = next(self._rows, None)
        return None if row is None else {"input": row[None]}


def ort_defaults(model: bytes, rows: Floats) -> bytes:
    """Return ``model`` by onnxruntime's ``quantize_static`` as its documentation says, all defaults."""
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, out = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "out.onnx"))
        source.write_bytes(model)
        quant_pre_process(str(source), str(prepared))
        quantize_static(str(prepared), str(out), Reader(rows))
        return out.read_bytes()


def ai_edge_defaults(model: bytes, rows: Floats) -> bytes:
    """Return TFLite ``model`` by ai-edge-quantizer's static int8 recipe and its own calibration."""
    from ai_edge_quantizer import quantizer, recipe

    worker = quantizer.Quantizer(bytes(model), recipe.static_wi8_ai8())
    key = next(iter(worker_signatures(model)))
    data = {key: [{worker_signatures(model)[key]: row[None]} for row in rows]}
    return bytes(worker.quantize(worker.calibrate(data)).quantized_model)


def worker_signatures(model: bytes) -> dict[str, str]:
    """Return the input's name of each signature of a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(model_content=model).get_signature_list()
    return {name: entry["inputs"][0] for name, entry in signatures.items()}


def peer(python: Path, script: str, model: bytes, rows: Floats) -> bytes:
    """Return ``model`` quantized by a peer in its own virtual environment."""
    with tempfile.TemporaryDirectory() as folder:
        source, data, out = (Path(folder) / name for name in ("float.onnx", "rows.npy", "out.onnx"))
        source.write_bytes(model)
        np.save(data, rows, allow_pickle=False)
        command = [str(python), str(HERE / "peers" / script), str(source), str(data), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise OSError(f"{script}: {done.stderr.strip().splitlines()[-1:]}")
        return out.read_bytes()


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """One case under the bench."""

    name: str
    case: Case
    workshop: Workshop
    table: Table
    gate: Table
    calibration: Table
    peers: Path | None

    def rows(self, out: Path) -> Iterator[Row]:
        """Yield all lines of this case."""
        outcome = run_recipe(self.workshop.recipe, out=out, progress=Bars())
        yield Row(f"{self.name}: ours passes the 1-point gate (1 yes)", float(outcome.verdict == "pass"), None, "1",
                  outcome.verdict == "pass")  # fmt: skip
        weights = (out / "float.pt").read_bytes()
        trained = Result(weights, sha256_hex(weights), cached=True)
        contenders = self.contenders(trained)
        for path in outcome.bundles:
            bundle = read_bundle(path)
            contenders[f"ours {bundle.manifest.target}"] = Contender(Candidate(bundle.manifest, bundle.artifact))
        yield from self.compared(contenders)

    def contenders(self, trained: Result) -> dict[str, Contender]:
        """Return the float model and what the peers make of it."""
        rows = self.workshop.inputs(self.calibration)[:CALIBRATION_ROWS]
        channels_last = self.workshop.inputs(self.calibration, "NHWC")[:CALIBRATION_ROWS]
        forms = {name: exported(self.workshop, self.table, trained, name) for name in ("onnx", "litert")}
        made = {"fp32 ORT": Contender(forms["onnx"].candidate), "fp32 LiteRT": Contender(forms["litert"].candidate)}
        onnx, tflite = forms["onnx"].data, forms["litert"].data
        ways: dict[str, tuple[str, Callable[[], bytes]]] = {
            "ORT quantize_static": ("onnx", lambda: ort_defaults(onnx, rows)),
            "ai-edge-quantizer": ("litert", lambda: ai_edge_defaults(tflite, channels_last)),
        }
        for tool in ("nncf", "olive"):
            python = (self.peers or Path()) / tool / "bin" / "python"
            if self.peers and python.exists():
                script = f"{tool}_quantize.py"
                ways[tool] = ("onnx", lambda at=python, name=script: peer(at, name, onnx, rows))  # type: ignore[misc]
        for name, (runtime, way) in ways.items():
            start = time.monotonic()
            try:
                data = way()
            except (OSError, subprocess.SubprocessError, ValueError, RuntimeError) as error:
                print(f"left out {name}: {str(error)[:200]}", file=sys.stderr)
                continue
            seconds = time.monotonic() - start
            made[name] = Contender(self._candidate(data, runtime), seconds)
        return made

    def _candidate(self, data: bytes, runtime: str) -> Candidate:
        candidate = bare(self.workshop.recipe, self.table, data, float_target(self.workshop.recipe, runtime))
        if runtime == "onnx":
            return candidate
        from compressor.tflite.contract import contract

        inputs, outputs = contract(data)
        names = ("logits", "embedding")
        return with_contract(candidate, inputs, tuple(replace(o, name=n) for o, n in zip(outputs, names, strict=False)))

    def compared(self, contenders: Mapping[str, Contender]) -> Iterator[Row]:
        """Yield accuracy, flips, slices, size and latency of every contender, then ours against each peer."""
        some = self.gate.take(np.arange(min(TIMED_ROWS, len(self.gate))))
        inputs = {
            name: self.workshop.inputs(some, item.candidate.manifest.preprocessing.layout)
            for name, item in contenders.items()
        }
        timed = measure.latency({name: item.candidate for name, item in contenders.items()}, inputs)
        base = self.predictions(contenders["fp32 ORT"].candidate)
        ok = {}
        for name, item in contenders.items():
            seen = _Seen(base, self.predictions(item.candidate), self.gate.labels, self.gate.slices)
            ok[name] = seen.upper <= MARGIN
            size = f"{len(item.candidate.artifact):>9,} B"
            print(f"{self.name:<20}{name:<20}{seen.said()}  {size}  {timed[name].p50_ms:.3f} ms  "
                  f"{item.seconds:5.1f} s  {self.memory(item) / 1e6:.0f} MB", flush=True)  # fmt: skip
        yield from self.judged(contenders, {name: one.p50_ms for name, one in timed.items()}, ok)

    def memory(self, item: Contender) -> int:
        """Return the peak memory of a fresh process that runs the contender, bytes."""
        layout = item.candidate.manifest.preprocessing.layout
        return measure.peak_memory_bytes(item.candidate, self.workshop.inputs(self.gate.take(np.arange(8)), layout))

    def predictions(self, candidate: Candidate) -> NDArray[np.int64]:
        """Return the predicted class of every gate row."""
        layout = candidate.manifest.preprocessing.layout
        return measure.predict(candidate, self.workshop.inputs(self.gate, layout)).classes

    def judged(
        self, contenders: Mapping[str, Contender], p50: Mapping[str, float], ok: Mapping[str, bool]
    ) -> Iterator[Row]:
        """Yield the figures asked, and ours against each peer that holds the same gate."""
        size = {name: len(item.candidate.artifact) for name, item in contenders.items()}
        for target, asked in (("litert", self.case.litert_faster), ("ort", self.case.ort_faster)):
            ours = f"ours {target}"
            if ours in p50 and asked:
                speed = p50["fp32 ORT"] / p50[ours]
                yield Row(f"{self.name}: {target} times faster than fp32 ORT", speed, 1.0, f">= {asked}",
                          speed >= asked and ok[ours])  # fmt: skip
        best = min((size[name] for name in size if name.startswith("ours")), default=0)
        if best and self.case.smaller:
            times = size["fp32 ORT"] / best
            yield Row(f"{self.name}: times smaller", times, 1.0, f">= {self.case.smaller}", times >= self.case.smaller)
        for name in [name for name in p50 if not name.startswith("ours")]:
            runtime = contenders[name].candidate.manifest.runtime
            ours = "ours ort" if runtime == "onnx" else "ours litert"
            if ours not in p50:
                continue
            note = "" if ok[name] else " (which fails the gate)"
            slower = p50[ours] > NEVER * p50[name]
            yield Row(f"{self.name}: ms, {ours} vs {name}{note}", p50[ours], p50[name], f"<= {NEVER} x",
                      None if slower and not ok[name] else not slower)  # fmt: skip
            yield Row(f"{self.name}: bytes, {ours} vs {name}{note}", size[ours], size[name], "<= 1 x",
                      size[ours] <= size[name])  # fmt: skip


def recipe_of(case: Case, *, quick: bool) -> Recipe:
    """Return the recipe of ``case``."""
    epochs, tune, distil = (2, 1, 1) if quick else (case.epochs, 4, 8)
    fields = {**asdict(case), "epochs": epochs, "tune": tune, "distil": distil}
    return parse_recipe(RECIPE.format(**fields).encode())


def bench_of(name: str, folder: Path, peers: Path | None, *, quick: bool) -> Bench:
    """Return the bench of one case; ``folder`` keeps its steps."""
    recipe = recipe_of(CASES[name], quick=quick)
    workshop = Workshop(recipe, Cache(folder / "cache"), Bars())
    table = load_kept(workshop.cache, recipe.data, ROOT)
    splits = split(table, recipe.train.seed)
    return Bench(name, CASES[name], workshop, table, table.take(splits.gate), table.take(splits.calibration), peers)


def main() -> int:
    """Print the tables; return 1 while a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cases", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = options.cases.split(",") if options.cases else (["resnet8"] if options.quick else list(CASES))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            folder = (options.out or Path(temporary)) / name
            try:
                rows += bench_of(name, folder, options.peers, quick=options.quick).rows(folder)
            except CompressorError as error:
                print(f"{name}: error [{error.code}] {error}", file=sys.stderr)
                rows.append(Row(f"{name}: ran", 0.0, None, "1", met=False))
    return told(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
