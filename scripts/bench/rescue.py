#!/usr/bin/env python3
"""Prints how int8 breaks MobileNets and what brings them back, on the exported files, one thread, in one run.

``rescue.py [--quick] [--cases mobilenet_v2,mobilenet_v3_small] [--out DIR] [--json FILE]``: scikit-learn's digits
through a camera at 64 x 64. MobileNetV2-0.35 with one weight scale per tensor, and MobileNetV3-small-0.5, are trained
(once: ``--out`` keeps the weights), exported and made int8 as they are, with bias correction, after step ``equalize``
and after step ``qat``, whose seconds count. Accuracy is onnxruntime's on gate rows, which no step sees. ``--quick``: a
rough version, few rows and steps; its figures are not the claim's.
"""

# ruff: noqa: E402, PLC0415 - telemetry is off and threads are set before imports; TFLite packages only where used
from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
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
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from compressor import networks
from compressor.data.split import split
from compressor.data_step import load_kept
from compressor.export.onnx import export_onnx
from compressor.quantize import placed, quantize
from compressor.recipe import DataRecipe, TrainRecipe
from compressor.step import Cache
from compressor.steps import equalize, qat
from compressor.steps.base import Applied, Bench, Rows
from compressor.steps.quantize import Settings
from compressor.train import checkpoint, supervised
from edge_agent import preprocess

Floats = NDArray[np.float32]
SIDE, CLASSES, CHANNELS = 64, 10, 3
COLLAPSED, RESCUED, LIMIT_S, MARGIN = 0.2, 0.95, 120.0, 0.01
TIMED_ROWS, ROUNDS, SEARCH_ROWS = 40, 7, 256


@dataclass(frozen=True, slots=True)
class Case:
    """A network, how it is trained, and the steps of QAT that fit in the time."""

    network: str
    width_mult: float
    train: TrainRecipe
    qat_steps: int
    per_channel: bool


CASES = {
    "mobilenet_v2": Case(
        "mobilenet_v2", 0.35, TrainRecipe(epochs=12, learning_rate=0.01, augment=0.5, weight_decay=1e-4), 160, False
    ),
    "mobilenet_v3_small": Case(
        "mobilenet_v3_small", 0.5, TrainRecipe(epochs=8, learning_rate=0.01, augment=0.5, weight_decay=1e-4), 160, True
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``met`` None where nothing is asked."""

    what: str
    ours: float
    reference: float | None = None
    target: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over the reference."""
        return self.ours / self.reference if self.reference else None


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Rows of each split; ``search`` is taken from the reference split, which nothing is trained on."""

    train: Rows
    calibration: Rows
    search: Rows
    gate: Rows


def data_of(folder: Path, *, quick: bool) -> Data:
    """Return digits at 64 x 64; the table is kept in ``folder``."""
    recipe = DataRecipe(dataset="digits", slices="lens", width=SIDE, height=SIDE)
    table = load_kept(Cache(folder / "cache"), recipe, ROOT)
    splits, most = split(table, 0), 800 if quick else len(table)

    def rows(which: NDArray[np.int64], limit: int) -> Rows:
        some = table.take(np.sort(np.random.default_rng(0).permutation(which)[:limit]))
        return Rows(preprocess.to_batch(list(some.images), recipe.preprocessing("NCHW")), some.labels)

    gate, search = (300, 100) if quick else (len(table), SEARCH_ROWS)
    return Data(
        rows(splits.train, most), rows(splits.calibration, 64 if quick else most), rows(splits.reference, search),
        rows(splits.gate, gate),
    )  # fmt: skip


def trained(case: Case, data: Data, path: Path) -> nn.Module:
    """Return the network of ``case``, from ``path`` or trained and kept there."""
    network = networks.build(case.network, CLASSES, CHANNELS, SIDE, SIDE, {"width_mult": case.width_mult})
    if path.exists():
        return checkpoint.load(network, path).eval()
    supervised.fit(
        network, data.train.inputs, data.train.labels, case.train,
        on_epoch=lambda e: print(f"{case.network} epoch {e.number}/{e.of}: {e.accuracy:.3f}", file=sys.stderr),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(network, path)
    return network


def session(model: bytes) -> onnxruntime.InferenceSession:
    """Return ``model`` in onnxruntime, one thread, as the device opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def accuracy(model: bytes, rows: Rows) -> float:
    """Return the share of ``rows`` that ``model`` gets right in onnxruntime."""
    opened, right = session(model), 0
    for start in range(0, len(rows), 64):
        logits = opened.run(["logits"], {"input": rows.inputs[start : start + 64]})[0]
        right += int((logits.argmax(1) == rows.labels[start : start + 64]).sum())
    return right / len(rows)


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """An int8 file, its accuracy on gate rows, and the seconds of what came before its quantization."""

    model: bytes
    accuracy: float
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Stand:
    """One case under the bench."""

    case: Case
    data: Data
    network: nn.Module
    quick: bool

    def bench(self) -> Bench:
        """Return what steps work with; the teacher is the network as it was trained."""
        data = self.data
        return Bench(
            data.train, data.calibration, data.search, self.case.train, copy.deepcopy(self.network).eval(),
            lambda note: print(note, file=sys.stderr),
        )  # fmt: skip

    def int8(self, applied: Applied, settings: Settings, spent: tuple[float, float] = (0.0, 0.0)) -> Made:
        """Return the ONNX export of ``applied`` as int8 by ``settings``, learned ranges placed where there are any."""
        model, probe = export_onnx(applied.network, CHANNELS, SIDE, SIDE), self.data.calibration.inputs[:4]
        ranges = None
        if applied.ranges:
            held = placed.activations(applied.network, probe)
            ranges = placed.place(applied.ranges, held, placed.onnx_tensors(model, probe))
        rows = self.data.calibration.inputs
        made = quantize(model, lambda: iter(np.array_split(rows, 1 + len(rows) // 64)), settings, ranges=ranges)
        return Made(made, accuracy(made, self.data.gate), *spent)

    def stepped(self, apply: Callable[[nn.Module, Bench], Applied], settings: Settings) -> Made:
        """Return the int8 file after a step on a copy of the network; the step is timed."""
        bench, network = self.bench(), copy.deepcopy(self.network)
        wall, cpu = time.perf_counter(), time.process_time()
        applied = apply(network, bench)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        return self.int8(applied, settings, spent)

    def rescues(self, settings: Settings) -> dict[str, Made]:
        """Return int8 files without and with each rescue."""
        per_channel = settings.per_channel
        steps = 20 if self.quick else self.case.qat_steps
        learn = qat.Settings(epochs=1000, max_steps=steps, per_channel=per_channel)
        even = equalize.Settings(relu6=equalize.WITHIN_CLIP, per_channel=per_channel)
        plain = Applied(self.network)
        return {
            "min/max": self.int8(plain, settings),
            "MSE ranges": self.int8(plain, replace(settings, calibration="mse")),
            "bias correction": self.int8(plain, replace(settings, bias_correction=True)),
            "step equalize": self.stepped(lambda n, b: equalize.apply(n, b, even), settings),
            "step qat": self.stepped(lambda n, b: qat.apply(n, b, learn), settings),
        }

    def rows(self) -> Iterator[Row]:
        """Yield all lines of this case."""
        model = export_onnx(self.network, CHANNELS, SIDE, SIDE)
        base, name = accuracy(model, self.data.gate), self.case.network
        yield Row(f"{name}: float accuracy", base)
        made = self.rescues(Settings(per_channel=False, reduce_range=False))
        yield from self.told("per tensor", made, base)
        yield from self.claimed(made, base)
        if self.case.per_channel:
            made = self.rescues(Settings(per_channel=True, reduce_range=False))
            yield from self.told("per channel", made, base)
            best = max(one.accuracy for one in made.values())
            yield Row(f"{name}: best of int8 per channel, accuracy vs float", best, base, f">= float - {MARGIN}",
                      best >= base - MARGIN)  # fmt: skip
        inputs = self.data.gate.inputs[:TIMED_ROWS]
        fast = timed({"float": ort(model), "int8": ort(made["min/max"].model)}, inputs)
        yield Row(f"{name}: ORT ms, int8 vs float", fast["int8"], fast["float"])
        yield from litert_rows(name, self.network, self.data)

    def told(self, kind: str, made: Mapping[str, Made], base: float) -> Iterator[Row]:
        """Yield the accuracy of every int8 file beside float."""
        for way, one in made.items():
            yield Row(f"{self.case.network}: int8 {kind}, {way}, accuracy vs float", one.accuracy, base)

    def claimed(self, made: Mapping[str, Made], base: float) -> Iterator[Row]:
        """Yield what is claimed of the rescue per tensor: collapse, accuracy after QAT, its seconds."""
        name, plain, learnt = self.case.network, made["min/max"], made["step qat"]
        if not self.case.per_channel:
            yield Row(f"{name}: collapse per tensor, accuracy", plain.accuracy, base, f"< {COLLAPSED}",
                      plain.accuracy < COLLAPSED)  # fmt: skip
            yield Row(f"{name}: QAT per tensor, accuracy vs collapsed", learnt.accuracy, plain.accuracy,
                      f">= {RESCUED}", learnt.accuracy >= RESCUED)  # fmt: skip
        yield Row(f"{name}: QAT per tensor, wall s (reference: CPU s)", learnt.wall_s, learnt.cpu_s, f"<= {LIMIT_S:g}",
                  learnt.wall_s <= LIMIT_S)  # fmt: skip


def ort(model: bytes) -> Callable[[Floats], object]:
    """Return a call of ``model`` in onnxruntime on one row, (1, C, H, W)."""
    opened = session(model)
    return lambda row: opened.run(None, {"input": row})


def litert(model: bytes) -> Callable[[Floats], object]:
    """Return a call of TFLite ``model`` in LiteRT on one row, (1, H, W, C)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    index = interpreter.get_input_details()[0]["index"]

    def call(row: Floats) -> None:
        interpreter.set_tensor(index, row)
        interpreter.invoke()

    return call


def timed(calls: Mapping[str, Callable[[Floats], object]], inputs: Floats) -> dict[str, float]:
    """Return the CPU milliseconds of one row: the fastest round's median, in turns so that all see the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times = []
            for i in range(len(inputs)):
                start = time.thread_time_ns()
                call(inputs[i : i + 1])
                times.append((time.thread_time_ns() - start) / 1e6)
            taken[name].append(float(np.median(times)))
    return {name: min(values) for name, values in taken.items()}


def litert_rows(name: str, network: nn.Module, data: Data) -> Iterator[Row]:
    """Yield the latency of int8 per channel beside float in LiteRT; nothing where its packages are missing."""
    try:
        from compressor.export.tflite import export_tflite
        from compressor.tflite.by_recipe import quantize_by
    except ImportError as error:
        print(f"left out LiteRT: {error}", file=sys.stderr)
        return
    with contextlib.redirect_stdout(io.StringIO()):
        model = export_tflite(network, CHANNELS, SIDE, SIDE)
    rows = np.ascontiguousarray(data.calibration.inputs.transpose(0, 2, 3, 1))
    made = quantize_by(model, lambda: [rows[:64]], Settings(reduce_range=False))
    inputs = np.ascontiguousarray(data.gate.inputs[:TIMED_ROWS].transpose(0, 2, 3, 1))
    fast = timed({"float": litert(model), "int8": litert(made)}, inputs)
    yield Row(f"{name}: LiteRT ms, int8 vs float", fast["int8"], fast["float"])


def main() -> int:
    """Print the table; return 1 while a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        data = data_of(folder, quick=options.quick)
        for name in options.cases.split(","):
            case = CASES[name]
            case = replace(case, train=replace(case.train, epochs=2)) if options.quick else case
            path = folder / f"{name}{'-quick' if options.quick else ''}.pt"
            rows += Stand(case, data, trained(case, data, path), options.quick).rows()
    for row in rows:
        ratio = f"{row.ratio:.3f}" if row.ratio else "-"
        print(f"{row.what:<76}{row.ours:>9.4g}{row.reference or 0:>9.4g}{ratio:>8}  {row.target:<16}"
              f"{'' if row.met is None else 'met' if row.met else 'MISSED'}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps([{**asdict(row), "ratio": row.ratio} for row in rows], indent=1))
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
