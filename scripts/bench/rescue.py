#!/usr/bin/env python3
"""Prints how int8 breaks MobileNets and how they are rescued, on the exported files, one thread, in one run.

``rescue.py [--quick] [--cases mobilenet_v2,mobilenet_v3_small] [--out DIR] [--json FILE]``: scikit-learn's digits
enlarged to 64 x 64. MobileNetV2-0.35 with one weight scale per tensor, and MobileNetV3-small-0.5, are trained (once:
``--out`` keeps the weights) at a rate so high that channels die: the weights after them get no signal, their norms
make these large, and one scale has no levels left for the others. Each is exported and quantized to int8 unchanged,
with MSE ranges, with bias correction, after step ``equalize`` and after step ``qat``, which is timed. MobileNetV2 also
with channels scaled unevenly by hand; these matter, so that clipping them does not help. Accuracy is onnxruntime's on
gate rows, which no step sees. ``--quick``: a rough version with few rows and steps and without LiteRT; it checks that
the bench runs, and its figures do not count. ``compressor search scripts/bench/mobilenet_v3_small.toml --trials 5
--no-gate`` shows that int8 is slower and a search keeps a float form.
"""

# ruff: noqa: E402, PLC0415 - telemetry is off and threads are set before imports; TFLite packages only where used
from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from compressor import networks
from compressor.data.digits import source_images
from compressor.export.onnx import export_onnx
from compressor.qat import equalization, graph
from compressor.quantize import _learned_ranges as learned_ranges
from compressor.quantize import quantize
from compressor.recipe.model import TrainRecipe
from compressor.steps import equalize, qat
from compressor.steps._base import Applied, Bench, Rows
from compressor.steps.quantize import Settings
from compressor.train import checkpoint, supervised
from scripts.bench.rows import Row, told

Floats = NDArray[np.float32]
SIDE, CLASSES, CHANNELS = 64, 10, 3
COLLAPSED, MARGIN, LIMIT_S, CLIP, QAT_STEPS = 0.2, 0.01, 120.0, 6.0, 36
TIMED_ROWS, ROUNDS, CALIBRATION_ROWS, SEARCH_ROWS = 40, 5, 128, 128


@dataclass(frozen=True, slots=True)
class Case:
    """A network, its training, and the accuracy that QAT must restore (0: float's, less one point).

    ``spread``: it is also measured with channels scaled unevenly by hand.
    """

    network: str
    width_mult: float
    train: TrainRecipe
    rescued: float = 0.0
    spread: bool = False


LEARNING = TrainRecipe(epochs=25, learning_rate=0.1, augment=0.0, weight_decay=1e-4, label_smoothing=0.0)
"""At a rate of 0.005 or 0.03 an equally good network has hardly a dead channel, and int8 per tensor loses nothing.

Accuracy float and int8 per tensor by rate: MobileNetV2 0.957 and 0.953 (0.005), 0.982 and 0.978 (0.03), 0.990 and 0.105
(0.1); MobileNetV3-small 0.987 and 0.985 (0.03), 0.980 and 0.980 (0.1), 0.970 and 0.907 (0.2), 0.960 and 0.085 (0.3).
"""
CASES = {
    "mobilenet_v2": Case("mobilenet_v2", 0.35, LEARNING, 0.95, spread=True),
    "mobilenet_v3_small": Case("mobilenet_v3_small", 0.5, replace(LEARNING, epochs=40, learning_rate=0.3)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Disjoint rows of each split."""

    train: Rows
    calibration: Rows
    search: Rows
    gate: Rows


def data_of(*, quick: bool) -> Data:
    """Return scikit-learn's 1,797 digits, enlarged to 64 x 64, values in -1 to 1; a third is the gate split."""
    images, labels = source_images()
    large = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in images]
    inputs = np.repeat(np.stack(large)[:, None].astype(np.float32) / 127.5 - 1, CHANNELS, axis=1)
    ends = np.cumsum([len(labels) // 3, CALIBRATION_ROWS, SEARCH_ROWS])
    order = np.random.default_rng(0).permutation(len(labels))
    gate, calibration, search, train = np.split(order, ends)
    train, gate = (train[:320], gate[:200]) if quick else (train, gate)
    return Data(*(Rows(inputs[part], labels[part]) for part in (train, calibration, search, gate)))


def trained(case: Case, data: Data, path: Path) -> nn.Module:
    """Return the network of ``case``, loaded from ``path`` or trained and saved there."""
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


def uneven(network: nn.Module, rows: Floats) -> nn.Module:
    """Return a copy with equal outputs on ``rows`` and channels of very different size, the spread that ruins int8.

    Seeded factors between 1 and 1/1000 shrink each channel before a depthwise or projecting layer, which compensates; a
    channel that reaches ReLU6's clip on ``rows`` is left. After such a short training these networks have no such
    spread.
    """
    changed, rng = copy.deepcopy(network), torch.Generator().manual_seed(0)
    graph.fold(changed)
    among = equalization.pairs(changed)
    largest = equalization.extremes(changed, among, rows)[1]
    with torch.no_grad():
        for pair in among:
            first, second = (graph.weight_of(changed, layer) for layer in (pair.first, pair.second))
            factor = 1000 ** -torch.rand(len(first), generator=rng)
            factor[largest[pair.first.node] >= CLIP] = 1
            bias = graph.bias_of(changed, pair.first)
            first.mul_(factor.reshape(-1, *[1] * (first.ndim - 1)))
            if bias is not None:
                bias.mul_(factor)
            depthwise = second.shape[1] == 1
            second.div_(factor.reshape((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)))
    return changed


def session(model: bytes) -> onnxruntime.InferenceSession:
    """Return ``model`` in onnxruntime with one thread, opened as on a device."""
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
    """An int8 file, its accuracy on gate rows, and the seconds of the steps before its quantization."""

    model: bytes
    accuracy: float
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Stand:
    """One case of the bench."""

    case: Case
    data: Data
    network: nn.Module
    quick: bool

    def bench(self) -> Bench:
        """Return the input of steps; the teacher is the network as it was trained."""
        data = self.data
        return Bench(
            train=data.train,
            calibration=data.calibration,
            search=data.search,
            settings=self.case.train,
            teacher=copy.deepcopy(self.network).eval(),
            tell=lambda note: print(note, file=sys.stderr),
        )

    def int8(self, applied: Applied, settings: Settings, spent: tuple[float, float] = (0.0, 0.0)) -> Made:
        """Return the ONNX export of ``applied`` quantized by ``settings``, with its learned ranges if there are any."""
        model, probe = export_onnx(applied.network, CHANNELS, SIDE, SIDE), self.data.calibration.inputs[:4]
        ranges = None
        if applied.ranges:
            held = learned_ranges.activations(applied.network, probe)
            ranges = learned_ranges.place(applied.ranges, held, learned_ranges.onnx_tensors(model, probe))
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
        steps = 4 if self.quick else QAT_STEPS
        learn = qat.Settings(epochs=1000, max_steps=steps, per_channel=per_channel, allow_unchanged=True)
        even = equalize.Settings(relu6=equalize.WITHIN_CLIP, per_channel=per_channel)
        plain = Applied(network=self.network)
        ways = {
            "min/max": self.int8(plain, settings),
            "MSE ranges": self.int8(plain, replace(settings, calibration="mse")),
            "bias correction": self.int8(plain, replace(settings, bias_correction=True)),
            "step equalize": self.stepped(lambda n, b: equalize.apply(n, b, even), settings),
            "step equalize, clip_weights": self.stepped(
                lambda n, b: equalize.apply(n, b, replace(even, clip_weights=True)), settings
            ),
            "step qat": self.stepped(lambda n, b: qat.apply(n, b, learn), settings),
        }
        if not self.quick:
            alone = replace(learn, equalize=False)
            ways["step qat, equalize = false"] = self.stepped(lambda n, b: qat.apply(n, b, alone), settings)
        return ways

    def rows(self) -> Iterator[Row]:
        """Yield all lines of this case."""
        model, name = export_onnx(self.network, CHANNELS, SIDE, SIDE), self.case.network
        base, settings = accuracy(model, self.data.gate), Settings(per_channel=False, reduce_range=False)
        yield Row(f"{name}: float accuracy", base)
        wide = self.int8(Applied(network=self.network), replace(settings, per_channel=True))
        yield Row(f"{name}: int8 per channel, accuracy vs float", wide.accuracy, base)
        least = self.case.rescued or base - MARGIN
        yield from claimed(name, self.rescues(settings), base, least)
        if self.case.spread and not self.quick:
            spread = replace(self, network=uneven(self.network, self.data.calibration.inputs))
            yield from claimed(f"{name}, spread by hand", spread.rescues(settings), base, least)
        fast = timed({"float": ort(model), "int8": ort(wide.model)}, self.data.gate.inputs[:TIMED_ROWS])
        yield Row(f"{name}: ORT ms, int8 vs float", fast["int8"], fast["float"])
        if not self.quick:
            yield from litert_rows(name, self.network, self.data)


def claimed(name: str, made: Mapping[str, Made], base: float, least: float) -> Iterator[Row]:
    """Yield the accuracy left by one scale per tensor, the accuracy restored by each rescue, and its cost."""
    plain, learnt = made["min/max"], made["step qat"]
    for way, one in made.items():
        yield Row(f"{name}: int8 per tensor, {way}, accuracy vs float", one.accuracy, base)
        if one.wall_s:
            yield Row(f"{name}: {way}, wall s vs CPU s", one.wall_s, one.cpu_s)
    yield Row(f"{name}: collapse, accuracy", plain.accuracy, base, f"< {COLLAPSED}", plain.accuracy < COLLAPSED)
    yield Row(f"{name}: QAT, accuracy vs collapsed", learnt.accuracy, plain.accuracy, f">= {least:.3f}",
              learnt.accuracy >= least)  # fmt: skip
    yield Row(f"{name}: QAT, wall s vs CPU s", learnt.wall_s, learnt.cpu_s, f"<= {LIMIT_S:g}",
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
    """Return the CPU milliseconds of one row: the fastest round's median, in turns so that all share the conditions."""
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
    """Yield the latency of int8 per channel beside float in LiteRT; nothing if its packages are missing.

    Nor if it can't open the int8 file.
    """
    try:
        from compressor.export.tflite import export_tflite
        from compressor.tflite.quantizing import quantize_by
    except ImportError as error:
        print(f"left out LiteRT: {error}", file=sys.stderr)
        return
    with contextlib.redirect_stdout(io.StringIO()):
        model = export_tflite(network, CHANNELS, SIDE, SIDE)
    rows = np.ascontiguousarray(data.calibration.inputs[:64].transpose(0, 2, 3, 1))
    made = quantize_by(model, lambda: [rows], Settings(reduce_range=False))
    inputs = np.ascontiguousarray(data.gate.inputs[:TIMED_ROWS].transpose(0, 2, 3, 1))
    try:
        calls = {"float": litert(model), "int8": litert(made)}
    except RuntimeError as error:  # XNNPACK refuses scales that are too far apart
        print(f"left out LiteRT: {error}", file=sys.stderr)
        return
    fast = timed(calls, inputs)
    yield Row(f"{name}: LiteRT ms, int8 vs float", fast["int8"], fast["float"])


def main() -> int:
    """Print the table; return 1 if a target is missed."""
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
        data = data_of(quick=options.quick)
        for name in options.cases.split(","):
            case = CASES[name]
            case = replace(case, train=replace(case.train, epochs=2)) if options.quick else case
            path = folder / f"{name}{'-quick' if options.quick else ''}.pt"
            rows += Stand(case, data, trained(case, data, path), options.quick).rows()
    if options.quick:  # a network of two epochs is at chance: it shows that the bench runs, not the effect of a rescue
        rows = [replace(row, met=None) for row in rows]
    return told(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
