"""The tables of ``compression.py``: ours, fp32 and the peers on the gate rows of each case, with the targets."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.cache import Cache
from compressor.errors import CompressorError
from compressor.measurement import predictions
from compressor.measurement.predictions import Candidate
from compressor.progress import Bars
from compressor.recipe.model import Recipe
from compressor.run.pipeline import material_of, run_recipe
from compressor.run.stages import Run
from compressor.statistics.paired import drop_upper, paired, wilson
from scripts.bench import cases, contenders
from scripts.bench.contenders import LITERT, ONNX, Contender
from scripts.bench.rows import Row, told

MARGIN, NEVER = 0.01, 1.05  # 5 %: the variation of the clock of a shared host
ROOT = Path(__file__).resolve().parents[2]
TIMED_ROWS, LATENCY_TURNS, MEGA = 60, 5, 1e6
Floats = NDArray[np.float32]
_FLOAT = {ONNX: "fp32 ORT", LITERT: "fp32 LiteRT"}


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Predictions of a contender and of the float model, on the same rows."""

    base: NDArray[np.int64]
    own: NDArray[np.int64]
    labels: NDArray[np.int64]
    slices: NDArray[np.str_]

    def figures(self) -> dict[str, float | str]:
        """Return accuracy with 95 % bounds, drop with its one-sided 95 % bound, flips and the slice that lost most."""
        right, before = self.own == self.labels, self.base == self.labels
        low, high = wilson(int(right.sum()), len(right), 0.95)
        drops = {
            str(name): float(before[self.slices == name].mean() - right[self.slices == name].mean())
            for name in np.unique(self.slices)
        }
        worst = max(drops, key=lambda name: drops[name])
        return {
            "accuracy": float(right.mean()), "low": low, "high": high,
            "drop_upper": drop_upper(paired(before, right), 0.95), "flips": int((self.own != self.base).sum()),
            "worst_slice": worst, "worst_slice_drop": drops[worst],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One contender in the table of a case."""

    case: str
    contender: str
    runtime: str
    figures: Mapping[str, float | str]

    def told(self) -> str:
        """Return the line as text."""
        f: dict[str, float] = {name: value for name, value in self.figures.items() if not isinstance(value, str)}
        return (f"{self.contender:<20}{f['accuracy']:.4f} [{f['low']:.4f} {f['high']:.4f}] "
                f"drop <={100 * f['drop_upper']:6.2f} % flips {f['flips']:>4.0f} "
                f"worst slice {100 * f['worst_slice_drop']:+6.2f} {f['bytes']:>10,.0f} B {f['ms']:7.4f} ms "
                f"{f['speed']:6.2f} x  quantize {f['quantize_s']:6.2f} s {f['quantize_mb']:6.0f} MB  "
                f"run {f['run_mb']:5.0f} MB")  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """One case of the bench; its ``recipes`` share data and trained network."""

    name: str
    recipes: tuple[Recipe, ...]
    out: Path
    peers: Path | None

    def run(self) -> tuple[list[Line], list[Row]]:
        """Return the table of this case and its targets.

        Raises:
            CompressorError: If a step fails.
        """
        passed = {}
        for recipe in self.recipes:
            for one in run_recipe(recipe, data_root=ROOT, out=self.out, progress=Bars()).targets:
                passed[f"ours {one.target}"] = one.verdict == "pass"
        runs = [Run(recipe=recipe, cache=Cache(self.out / "cache"), progress=Bars()) for recipe in self.recipes]
        material = material_of(runs[0], ROOT, None)
        runs = [replace(run, material=material) for run in runs]
        lines = self.lines(runs[0], dict(self.contenders(runs)))
        return lines, list(self.judged(lines, passed))

    def contenders(self, runs: list[Run]) -> Iterator[tuple[str, Contender]]:
        """Yield the float model, the peers' and ours."""
        runtimes = {target.runtime for recipe in self.recipes for target in recipe.targets}
        forms = contenders.floats(runs[0], runtimes)
        for name, form in forms.items():
            yield _FLOAT[name], Contender(form.candidate)
        yield from contenders.of_peers(runs[0], forms, self.peers)
        for run in runs:
            yield from contenders.of_ours(run)

    def lines(self, run: Run, found: Mapping[str, Contender]) -> list[Line]:
        """Return, and print, the figures of each contender."""
        gate = run.rows("gate")
        inputs = {layout: run.inputs(gate, layout) for layout in ("NCHW", "NHWC")}
        own = {name: inputs[item.candidate.manifest.preprocessing.layout] for name, item in found.items()}
        timed = least_ms({name: item.candidate for name, item in found.items()}, own)
        base = predictions.predict(found["fp32 ORT"].candidate, own["fp32 ORT"]).classes
        learnt = run.recipe.data.train_slices
        print(f"{self.name}: {len(gate)} gate rows, {len(run.material.splits.train)} training rows"
              f"{f' of {len(learnt)} sites' if learnt else ''}, {run.recipe.train.epochs} epochs")  # fmt: skip
        lines = []
        for name, item in found.items():
            seen = Seen(base, predictions.predict(item.candidate, own[name]).classes, gate.labels, gate.slices)
            taken = {
                "bytes": len(item.candidate.artifact), "ms": timed[name],
                "speed": timed["fp32 ORT"] / timed[name], "quantize_s": item.seconds,
                "quantize_mb": item.memory_bytes / MEGA,
                "run_mb": predictions.peak_memory_bytes(item.candidate, own[name][:8]) / MEGA,
            }  # fmt: skip
            lines.append(Line(self.name, name, item.candidate.manifest.runtime, {**seen.figures(), **taken}))
            print(lines[-1].told(), flush=True)
        return lines

    def judged(self, lines: list[Line], passed: Mapping[str, bool]) -> Iterator[Row]:
        """Yield the targets for our best on each runtime: the fastest that passes the gate, if one does."""
        asked, by_name = cases.case_of(self.name).asked, {line.contender: line for line in lines}
        for runtime, wanted in ((ONNX, asked.ort), (LITERT, asked.litert)):
            ours = [by_name[name] for name in passed if by_name[name].runtime == runtime]
            if not ours:
                continue
            best = max(ours, key=lambda line: (passed[line.contender], line.figures["speed"]))
            ok, what = passed[best.contender], f"{self.name}: {best.contender}"
            yield Row(f"{what} passes the 1-point gate (1 yes)", float(ok), None, "1", ok)
            speed = float(best.figures["speed"])
            times = float(by_name[_FLOAT[ONNX]].figures["bytes"]) / float(best.figures["bytes"])
            if wanted:
                yield Row(f"{what}, times faster than fp32 ORT", speed, 1.0, f">= {wanted}", speed >= wanted and ok)
            if asked.smaller:
                yield Row(f"{what}, times smaller than fp32 ORT", times, 1.0, f">= {asked.smaller}",
                          times >= asked.smaller and ok)  # fmt: skip
            for line in lines:
                if line.runtime == runtime and not line.contender.startswith("ours"):
                    yield from _against(best, line)


def least_ms(found: Mapping[str, Candidate], inputs: Mapping[str, Floats]) -> dict[str, float]:
    """Return each candidate's median in milliseconds: the least of several, since a busy host only adds time."""
    rows = {name: own[:TIMED_ROWS] for name, own in inputs.items()}
    turns = [predictions.latency(found, rows) for _ in range(LATENCY_TURNS)]
    return {name: min(turn[name].p50_ms for turn in turns) for name in found}


def _against(ours: Line, other: Line) -> Iterator[Row]:
    """Yield time and size of ``ours`` against ``other``; if only the other fails the gate, losing is no miss."""
    equal = float(other.figures["drop_upper"]) <= MARGIN
    note = "" if equal else " (which fails the gate)"
    for figure, factor in (("ms", NEVER), ("bytes", 1.0)):
        mine, theirs = float(ours.figures[figure]), float(other.figures[figure])
        met = mine <= factor * theirs
        yield Row(f"{ours.case}: {figure}, {ours.contender} vs {other.contender}{note}", mine, theirs, f"<= {factor} x",
                  met if met or equal else None)  # fmt: skip


def measured(name: str, options: argparse.Namespace, meter: Path | None, out: Path) -> tuple[list[Line], list[Row]]:
    """Return table and rows of the case ``name``; an error becomes a row."""
    recipes = tuple(cases.recipes(name, meter, quick=options.quick))
    try:
        return Bench(name, recipes, out / name.replace("/", "_"), options.peers).run()
    except CompressorError as error:
        print(f"{name}: error [{error.code}] {error}", file=sys.stderr)
        return [], [Row(f"{name}: ran", 0.0, None, "1", met=False)]


def options_of(told_of: str | None) -> argparse.Namespace:
    """Return the options of the command line; exit 2 if they are invalid."""
    parser = argparse.ArgumentParser(description=told_of, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="ResNet8 on few digits for onnxruntime, one epoch; judges nothing"
    )
    parser.add_argument("--cases", default="", help=f"of {', '.join(cases.names(quick=False))}; default all")
    parser.add_argument("--out", type=Path, help="folder that keeps every step")
    parser.add_argument("--peers", type=Path, help="folder that peers/setup made")
    parser.add_argument("--data", type=Path, help=f"{cases.ZIP}, or a folder that has it")
    parser.add_argument("--json", type=Path, help="also write tables and rows there")
    options = parser.parse_args()
    try:
        options.names = options.cases.split(",") if options.cases else cases.names(quick=options.quick)
        for name in options.names:
            cases.case_of(name)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(told_of: str | None) -> int:
    """Print the tables; return 1 if a target is missed. ``told_of``: the text of the help page."""
    options = options_of(told_of)
    meter = cases.meter_zip(options.data)
    lines: list[Line] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.names:
            if name.endswith(cases.METER) and meter is None:
                print(f"{name}: skipped, no {cases.ZIP}: name it with --data or TINYFLEET_DATA", file=sys.stderr)
                continue
            table, asked = measured(name, options, meter, options.out or Path(temporary))
            lines += table
            rows += [row.unjudged() for row in asked] if options.quick else asked
    return told(rows, options.json, lines)
