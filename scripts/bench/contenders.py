"""The contenders of ``compression.py``: the float model, the peers' results, and ours.

Every quantizer runs as a script of ``peers/`` in its own process, which prints its seconds and peak memory. A peer
whose virtual environment is missing, or that fails, is left out and named.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.cache import Cache
from compressor.measurement.predictions import Candidate
from compressor.run.compression import compress, exported, shaped
from compressor.run.pipeline import lesson_of, trained_of
from compressor.run.stages import Form, Run, bare, float_target, with_contract

Floats = NDArray[np.float32]
HERE = Path(__file__).resolve().parent
CALIBRATION_ROWS, LIMIT_S = 256, 900
ONNX, LITERT = "onnx", "litert"


@dataclass(frozen=True, slots=True)
class Peer:
    """A third-party quantizer: name in the table, script, virtual environment in ``--peers`` (empty: ours)."""

    name: str
    script: str
    place: str = ""
    runtime: str = ONNX


PEERS = (
    Peer("ORT quantize_static", "ort_quantize.py"),
    Peer("ai-edge-quantizer", "ai_edge_quantize.py", runtime=LITERT),
    Peer("NNCF", "nncf_quantize.py", "nncf"),
    Peer("NNCF accuracy ctrl", "nncf_accuracy_quantize.py", "nncf"),
    Peer("Olive", "olive_quantize.py", "olive"),
)
OURS = Peer("ours", "ours_quantize.py")


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A model of the comparison, the seconds of its quantization and the peak memory of that process in bytes."""

    candidate: Candidate
    seconds: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows for quantizers: calibration rows in both layouts, search rows (NCHW) and their labels."""

    calibration: Floats
    calibration_nhwc: Floats
    search: Floats
    labels: NDArray[np.int64]

    def write(self, file: Path) -> None:
        """Write them to ``file``."""
        np.savez(file, calibration=self.calibration, calibration_nhwc=self.calibration_nhwc, search=self.search,
                 labels=self.labels)  # fmt: skip


def rows_of(run: Run) -> Rows:
    """Return the rows that every quantizer gets."""
    calibration, search = run.rows("calibration"), lesson_of(run).search
    some = calibration.take(np.arange(min(CALIBRATION_ROWS, len(calibration))))
    return Rows(run.inputs(some), run.inputs(some, "NHWC"), run.inputs(search), search.labels)


def floats(run: Run, runtimes: Collection[str]) -> dict[str, Form]:
    """Return the float model from which all start, by runtime; always includes onnxruntime's."""
    trained = trained_of(run, lesson_of(run), None)
    return {name: exported(run, trained, name) for name in (ONNX, *({LITERT} & {*runtimes}))}


def of_peers(run: Run, forms: Mapping[str, Form], place: Path | None) -> Iterator[tuple[str, Contender]]:
    """Yield each peer's result for ``forms``; ``place`` has the peers' virtual environments."""
    rows = rows_of(run)
    for peer in [peer for peer in PEERS if peer.runtime in forms]:
        python = (place or Path()) / peer.place / "bin" / "python" if peer.place else Path(sys.executable)
        if peer.place and not (place and python.exists()):
            print(f"left out {peer.name}: no {peer.place} below --peers (peers/setup makes it)", file=sys.stderr)
            continue
        try:
            data, said = quantized(python, peer, forms[peer.runtime].data, rows)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"left out {peer.name}: {str(error)[:300]}", file=sys.stderr)
            continue
        yield peer.name, Contender(_candidate(run, data, peer.runtime), *said)


def of_ours(run: Run) -> Iterator[tuple[str, Contender]]:
    """Yield our file for each target of the recipe: the quantize step run again, its memory in a separate process."""
    lesson = lesson_of(run)
    weights, _ = shaped(run, trained_of(run, lesson, None), lesson)
    rows = rows_of(run)
    for target in run.recipe.targets:
        form = exported(run, weights, target.runtime)
        with tempfile.TemporaryDirectory() as folder:
            fresh = replace(run, cache=Cache(Path(folder)))
            start = time.perf_counter()
            made = compress(fresh, form, target, lesson.calibration, weights)
            seconds = time.perf_counter() - start
        _, said = quantized(Path(sys.executable), replace(OURS, runtime=target.runtime), form.data, rows)
        yield f"ours {target.name}", Contender(made.candidate, seconds, said[1])


def quantized(python: Path, peer: Peer, model: bytes, rows: Rows) -> tuple[bytes, tuple[float, int]]:
    """Return ``model`` quantized by ``peer``'s script, its seconds and the peak memory of its process, bytes.

    Raises:
        OSError: If the script fails or does not print its measurements.
        subprocess.SubprocessError: If it takes more than ``LIMIT_S``.
    """
    suffix = "onnx" if peer.runtime == ONNX else "tflite"
    with tempfile.TemporaryDirectory() as folder:
        source, data, out = (Path(folder) / name for name in (f"float.{suffix}", "rows.npz", f"out.{suffix}"))
        source.write_bytes(model)
        rows.write(data)
        command = [str(python), str(HERE / "peers" / peer.script), str(source), str(data), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("measured ")]
        if done.returncode or not lines or not out.is_file():
            raise OSError(f"{peer.script}: {' '.join(done.stderr.strip().splitlines()[-2:])}")
        said = json.loads(lines[-1].removeprefix("measured "))
        return out.read_bytes(), (float(said["seconds"]), int(said["peak_memory_bytes"]))


def _candidate(run: Run, data: bytes, runtime: str) -> Candidate:
    candidate = bare(run.recipe, run.table, data, float_target(run.recipe, runtime))
    if runtime == ONNX:
        return candidate
    from compressor.tflite.contract import contract  # noqa: PLC0415 - TFLite packages only where used

    inputs, outputs = contract(data)
    names = ("logits", "embedding")
    return with_contract(candidate, inputs, tuple(replace(o, name=n) for o, n in zip(outputs, names, strict=False)))
