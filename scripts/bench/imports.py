#!/usr/bin/env python3
"""Prints size, time and accuracy of other people's exports after our import, beside the quantizers of the field.

``imports.py [--quick] [--cases padded,transformer] [--out DIR] [--peers DIR] [--json FILE]``: two networks as torch
exports them, trained on scikit-learn's digits enlarged to 32 x 32. ``padded``: convolutions of stride 2 behind
``F.pad`` (TF-SAME), whose amounts the file computes. ``transformer``: two blocks of attention over 64 patches, with
reshapes that the file computes. All start from the same file and calibration rows: onnxruntime's ``quantize_static``
and ``quantize_dynamic``, NNCF if ``--peers`` names the folder from ``peers/setup``, and ours: ``compressor run``, the
schemes ``static_int8`` and ``dynamic_int8``, gate ``accuracy_drop`` of 2 points. ai-edge-quantizer takes no ONNX file:
it gets the TFLite file that our import makes. Asked is that, for each peer whose own bound is within the gate, one of
our files that pass is neither larger nor slower. Time is the agent's, batch size 1, one thread, in turns; the smallest
of five medians. ``--quick``: the padded network, two epochs, ONNX alone; judges nothing.
"""

# ruff: noqa: E402 - telemetry is off and threads are set before imports
from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from compressor import formats
from compressor.cache import Cache
from compressor.data.digits import source_images
from compressor.errors import CompressorError
from compressor.measurement import predictions
from compressor.measurement.predictions import Candidate
from compressor.progress import Bars
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe
from compressor.run import imported_model
from compressor.run.compression import exported
from compressor.run.pipeline import calibration_of, material_of, run_recipe
from compressor.run.stages import Run, bare, float_target, with_contract
from scripts.bench.beside import NEVER, Seen, least_ms
from scripts.bench.contenders import LITERT, ONNX, Peer, quantized
from scripts.bench.contenders import Rows as PeerRows
from scripts.bench.rows import Row, told
from wire.bundle import read_bundle

SIDE, CLASSES, BATCH, MARGIN, QUICK_EPOCHS = 32, 10, 32, 0.02, 2
ENDS = (800, 950, 1050)  # rows of train, calibration, reference; the rest gates
FLOAT, OURS = "fp32", "ours"
SCHEMES = ("static_int8", "dynamic_int8")
PEERS = (
    Peer("ORT quantize_static", "ort_quantize.py"),
    Peer("ORT quantize_dynamic", "ort_dynamic_quantize.py"),
    Peer("NNCF", "nncf_quantize.py", "nncf"),
    Peer("ai-edge static", "ai_edge_quantize.py", runtime=LITERT),
    Peer("ai-edge dynamic", "ai_edge_dynamic_quantize.py", runtime=LITERT),
)
RECIPE = """
[model]
name = "mine"
onnx = "{name}.onnx"
[data]
dataset = "arrays"
path = "digits.npz"
split = "part"
width = 32
height = 32
colour = "grey"
[[compress]]
step = "quantize"
scheme = "{scheme}"
[targets.{runtime}]
runtime = "{runtime}"
[gates]
accuracy_drop = {{max = 0.02}}
"""


class Padded(nn.Module):
    """Three convolutions of stride 2, each behind a padding of the lower and right edge alone."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        widths = (1, 16, 32, 64)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = functional.relu(norm(layer(functional.pad(x, (0, 1, 0, 1)))))
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    """Attention of four heads and two linear layers, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, tokens: int) -> None:
        """Make the layers."""
        super().__init__()
        self.width, self.tokens = width, tokens
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, tokens, width)."""
        shape = (-1, self.tokens, 4, self.width // 4)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in self.query(self.first(x)).chunk(3, -1))
        shares = torch.softmax(q @ k.transpose(-1, -2) / (self.width // 4) ** 0.5, -1)
        x = x + self.out((shares @ v).transpose(1, 2).reshape(-1, self.tokens, self.width))
        return x + self.narrow(functional.gelu(self.wide(self.second(x))))


class Transformer(nn.Module):
    """Patches of 4 x 4 pixels, two blocks, and their mean."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        width, tokens = 48, (SIDE // 4) ** 2
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.blocks = nn.ModuleList(Block(width, tokens) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


@dataclass(frozen=True, slots=True)
class Case:
    """A network and its training."""

    make: Callable[[], nn.Module]
    epochs: int
    learning_rate: float


CASES = {"padded": Case(Padded, 12, 5e-3), "transformer": Case(Transformer, 16, 2e-3)}


@dataclass(frozen=True, slots=True)
class Line:
    """One contender in the table of a case."""

    case: str
    contender: str
    runtime: str
    figures: Mapping[str, float | str]

    def told(self) -> str:
        """Return the line as text."""
        f = self.figures
        return (
            f"{self.case:<12}{self.contender:<22}{f['accuracy']:.4f} drop <={100 * f['drop_upper']:6.2f} % "
            f"flips {f['flips']:>3.0f} {f['bytes']:>9,.0f} B {f['ms']:8.4f} ms {f['speed']:6.2f} x"
        )

    @property
    def passes(self) -> bool:
        """Whether its own bound is within the gate."""
        return float(self.figures["drop_upper"]) <= MARGIN


def written_data(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Write the digits and their splits to ``folder``; return the train pictures, uint8 (N, 32, 32), and labels.

    Each picture is a source of its own: the 20 that resemble another by chance are different digits of other writers.
    """
    small, labels = source_images()
    large = [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for one in small]
    order = np.random.default_rng(0).permutation(len(labels))
    pictures, labels = np.stack(large)[order], labels[order]
    parts = np.searchsorted(ENDS, np.arange(len(labels)), side="right")
    named = np.array(["train", "calibration", "reference", "gate"])[parts]
    sources = np.array([f"digit {row}" for row in order])
    np.savez(
        folder / "digits.npz", x=pictures, y=labels, part=named, source=sources,
        class_names=np.array([str(number) for number in range(CLASSES)]),
    )  # fmt: skip
    return pictures[: ENDS[0]], labels[: ENDS[0]]


def written_model(case: Case, path: Path, pictures: NDArray[np.uint8], labels: NDArray[np.int64], epochs: int) -> None:
    """Train the network of ``case`` for ``epochs`` and export it to ``path`` as torch's exporter writes it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network, rate = case.make(), case.learning_rate
    x = (torch.from_numpy(pictures).float()[:, None] / 255 - 0.5) / 0.25
    y = torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = functional.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age: it is the one that writes such files
        torch.onnx.export(
            network.eval(), (x[:1],), str(path), dynamo=False, opset_version=17, input_names=["input"],
            output_names=["logits"], dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """One case in a folder with its data and its file."""

    name: str
    folder: Path
    peers: Path | None
    runtimes: tuple[str, ...]

    def run_of(self, scheme: str, runtime: str) -> Run:
        """Return the run of the recipe with ``scheme`` for ``runtime``, with its data."""
        run = Run(recipe=self.recipe(scheme, runtime), cache=Cache(self.folder / "cache"), progress=Bars())
        return replace(run, material=material_of(run, None, None))

    def recipe(self, scheme: str, runtime: str) -> Recipe:
        """Return the recipe with ``scheme`` for ``runtime``."""
        path = self.folder / f"{self.name}-{scheme}-{runtime}.toml"
        path.write_text(RECIPE.format(name=self.name, scheme=scheme, runtime=runtime))
        return read_recipe(path)

    def lines(self) -> Iterator[Line]:
        """Yield the figures of each contender."""
        run = self.run_of(SCHEMES[0], ONNX)
        gate, found = run.rows("gate"), dict(self.contenders())
        inputs = {layout: run.inputs(gate, layout) for layout in ("NCHW", "NHWC")}
        given = {key: inputs[one.manifest.preprocessing.layout] for key, one in found.items()}
        ms, plain = least_ms(found, given), (ONNX, FLOAT)
        base = predictions.predict(found[plain], given[plain]).classes
        for key, one in found.items():
            seen = Seen(base, predictions.predict(one, given[key]).classes, gate.labels, gate.slices)
            taken = {"bytes": len(one.artifact), "ms": ms[key], "speed": ms[plain] / ms[key]}
            yield Line(self.name, key[1], key[0], {**seen.figures(), **taken})

    def contenders(self) -> Iterator[tuple[tuple[str, str], Candidate]]:
        """Yield, by runtime and name, the float file, ours that passed their gate, and the peers'."""
        for runtime in self.runtimes:
            run = self.run_of(SCHEMES[0], runtime)
            plain = self.plain(run, runtime)
            yield (runtime, FLOAT), plain
            for scheme in SCHEMES:
                own = self.ours(scheme, runtime)
                if own is not None:
                    yield (runtime, f"{OURS} {scheme}"), own
            for name, data in self.of_peers(run, plain.artifact, runtime):
                yield (runtime, name), _candidate(run, data, runtime)

    def plain(self, run: Run, runtime: str) -> Candidate:
        """Return the file as it came, or the TFLite file that our import makes of it."""
        if runtime == ONNX:
            return _candidate(run, (self.folder / f"{self.name}.onnx").read_bytes(), runtime)
        opened, _ = imported_model.opened(run, calibration_of(run, run.rows("train")))
        weights, _ = imported_model.weights_of(opened)
        return _candidate(run, exported(opened, weights, runtime).data, runtime)

    def ours(self, scheme: str, runtime: str) -> Candidate | None:
        """Return what ``compressor run`` makes; None if it does not pass, or the scheme does not fit the network."""
        try:
            done = run_recipe(self.recipe(scheme, runtime), out=self.folder / f"{scheme}-{runtime}", progress=Bars())
        except CompressorError as error:
            print(f"{self.name}: no {scheme} on {runtime}: [{error.code}] {str(error)[:200]}", file=sys.stderr)
            return None
        if not done.bundles:
            print(f"{self.name}: {scheme} on {runtime}: {done.verdict.value}", file=sys.stderr)
            return None
        bundle = read_bundle(done.bundles[0])
        return Candidate(bundle.manifest, bundle.artifact)

    def of_peers(self, run: Run, model: bytes, runtime: str) -> Iterator[tuple[str, bytes]]:
        """Yield the file of each peer of ``runtime``; who fails or is not installed is named."""
        rows = run.rows("calibration")
        given = PeerRows(run.inputs(rows), run.inputs(rows, "NHWC"), run.inputs(rows), rows.labels)
        for peer in (one for one in PEERS if one.runtime == runtime):
            python = (self.peers or Path()) / peer.place / "bin" / "python" if peer.place else Path(sys.executable)
            if peer.place and not (self.peers and python.exists()):
                print(f"left out {peer.name}: no {peer.place} below --peers (peers/setup makes it)", file=sys.stderr)
                continue
            try:
                yield peer.name, quantized(python, peer, model, given)[0]
            except (OSError, subprocess.SubprocessError) as error:
                print(f"{self.name}: {peer.name} failed: {str(error)[:300]}", file=sys.stderr)


def _candidate(run: Run, data: bytes, runtime: str) -> Candidate:
    """Return ``data`` with the manifest that runs it, whatever its outputs are called."""
    made = bare(run.recipe, run.table, data, float_target(run.recipe, runtime))
    inputs, outputs = formats.named(runtime).tensors(data)
    if runtime == ONNX:
        return with_contract(made, made.manifest.inputs, outputs)
    names = ("logits", "embedding")  # TFLite quantizers rename them
    return with_contract(made, inputs, tuple(replace(o, name=n) for o, n in zip(outputs, names, strict=False)))


def judged(lines: Sequence[Line]) -> Iterator[Row]:
    """Yield for each peer our file beside it: of those that are no larger, the fastest."""
    for line in lines:
        ours = [one for one in lines if (one.case, one.runtime) == (line.case, line.runtime)
                and one.contender.startswith(OURS)]  # fmt: skip
        if line.contender.startswith((OURS, FLOAT)):
            continue
        if not ours:
            yield Row(f"{line.case} {line.runtime}: ours passes the 2-point gate (1 yes)", 0.0, None, "1", met=False)
            continue
        best = min(ours, key=lambda one: (one.figures["bytes"] > line.figures["bytes"], one.figures["ms"]))
        note = "" if line.passes else " (which fails the gate)"
        for figure, factor in (("bytes", 1.0), ("ms", NEVER)):
            mine, theirs = float(best.figures[figure]), float(line.figures[figure])
            met = mine <= factor * theirs
            what = f"{line.case} {line.runtime}: {figure}, {best.contender} vs {line.contender}{note}"
            yield Row(what, mine, theirs, f"<= {factor} x", met if met or line.passes else None)


def measured(options: argparse.Namespace, folder: Path) -> list[Line]:
    """Return, and print, the table of all cases."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, labels = written_data(folder)
    lines = []
    for name in options.names:
        path = folder / f"{name}.onnx"
        if not path.exists():
            epochs = QUICK_EPOCHS if options.quick else CASES[name].epochs
            written_model(CASES[name], path, pictures, labels, epochs)
        runtimes = (ONNX,) if options.quick else (ONNX, LITERT)
        for line in Bench(name, folder, options.peers, runtimes).lines():
            print(line.told(), flush=True)
            lines.append(line)
    return lines


def main() -> int:
    """Print the tables; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="padded, two epochs, ONNX alone; judges nothing")
    parser.add_argument("--cases", default="", help=f"of {', '.join(CASES)}; default all")
    parser.add_argument("--out", type=Path, help="folder that keeps every step")
    parser.add_argument("--peers", type=Path, help="folder that peers/setup made")
    parser.add_argument("--json", type=Path, help="also write tables and rows there")
    options = parser.parse_args()
    options.names = options.cases.split(",") if options.cases else list(CASES)[: 1 if options.quick else None]
    if unknown := [name for name in options.names if name not in CASES]:
        parser.error(f"expected --cases of {', '.join(CASES)}, got {unknown[0]!r}")
    with tempfile.TemporaryDirectory() as temporary:
        lines = measured(options, options.out or Path(temporary))
    rows = list(judged(lines))
    return told([row.unjudged() for row in rows] if options.quick else rows, options.json, lines)


if __name__ == "__main__":
    sys.exit(main())
