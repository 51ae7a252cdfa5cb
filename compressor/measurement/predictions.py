"""Measures an artifact with the same runtime that the device uses.

Decides how predictions, latency and memory are measured: a trained model on real inputs, one image at a time, pinned
threads, warm-up, the median of repeated runs (timings with untrained weights or zero inputs mislead). Does not decide
whether a figure is good enough.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor import child
from compressor.errors import MeasureError
from compressor.portions import Inputs, portions
from compressor.statistics.order_statistics import median_bounds
from edge_agent import runtimes, smoothers
from edge_agent.errors import AgentError
from wire.codec import decode, encode
from wire.manifest import MAX_MANIFEST_BYTES, Manifest

Floats = NDArray[np.float32]

MOST_ROWS = 256
_BY_BATCH = b"DynamicQuantize"
"""Operators that compute one range per batch: a device runs single inputs and would get other results."""
_WARM_UP_RUNS = 20
_REPEATS = 8
"""The bound of their median is then the second largest: one disturbed repeat does not decide."""
_RUNS = 60
_CHILD_LIMIT_S = 60.0
_MEMORY_ROWS = 8
_MANIFEST, _ARTIFACT, _INPUTS = "manifest.json", "model", "inputs.npy"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Outputs of a model for N inputs: ``logits`` float32 (N, classes), ``embedding`` float32 (N, D), D may be 0.

    Of a model with a decoder ``logits`` are its boxes, float32 (N, 6 * K). ``fitted``: the task's number for this
    model, fitted on calibration rows (``Judging.temperature``), where answers depend on it. ``thresholds``: of each
    output, the probability from which its label is answered, of a task that has them. ``smoothing``: the settings of
    the smoother that made the outputs of several inputs, empty without one.
    """

    logits: Floats
    embedding: Floats
    fitted: float = 1.0
    thresholds: tuple[float, ...] = field(default=(), kw_only=True)
    smoothing: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    @property
    def classes(self) -> NDArray[np.int64]:
        """The predicted class of each input, (N,)."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Compared:
    """One labelled set with the predictions of all models.

    ``baseline``: the model that the candidate must not be worse than (the float model, or the previous release);
    ``float_model``: the model that was compressed; ``labels`` int64 (N,), float32 (N, D) of a regression, or bool
    (N, labels); ``slices`` str (N,); ``sources`` str (N,), equal for rows that show the same object; None: every row is
    its own. ``interval_s``: the time between neighbouring rows of a source, and ``gap_s``: alarms at most so far apart
    are one; only of a task with alarms.
    """

    labels: NDArray[Any]
    slices: NDArray[np.str_]
    baseline: Predictions
    float_model: Predictions
    candidate: Predictions
    sources: NDArray[np.str_] | None = None
    interval_s: float = 60.0
    gap_s: float = 0.0

    @property
    def independent(self) -> int:
        """The number of sources."""
        return len(self.labels) if self.sources is None else len(np.unique(self.sources))

    def one_of_each(self) -> Compared:
        """Return the first row of each source."""
        if self.independent == len(self.labels):
            return self
        rows = np.sort(np.unique(np.asarray(self.sources), return_index=True)[1])
        before, plain, after = (
            replace(said, logits=said.logits[rows], embedding=said.embedding[rows])
            for said in (self.baseline, self.float_model, self.candidate)
        )
        return replace(
            self, labels=self.labels[rows], slices=self.slices[rows], baseline=before, float_model=plain,
            candidate=after, sources=None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One inference at batch size 1, in milliseconds: each percentile is the median over repeated runs.

    ``p50_repeats_ms``, ``p95_repeats_ms``: those of the repeats, in their order; ``runs``: all inferences.
    """

    p50_ms: float
    p95_ms: float
    runs: int
    p50_repeats_ms: tuple[float, ...] = ()
    p95_repeats_ms: tuple[float, ...] = ()

    @property
    def figures(self) -> dict[str, float]:
        """The figures by the names of gates and certificate, with the bounds of the medians over repeats."""
        return {
            **repeated("latency_p50_ms", self.p50_ms, self.p50_repeats_ms),
            **repeated("latency_p95_ms", self.p95_ms, self.p95_repeats_ms),
        }


def repeated(name: str, value: float, repeats: Sequence[float]) -> dict[str, float]:
    """Return the figure ``name`` with its number of repeats, and with its bounds if there are enough of them."""
    found, bounds = {name: value}, median_bounds(repeats)
    found |= {f"{name}_repeats": float(len(repeats))} if repeats else {}
    return found if bounds is None else found | {f"{name}_lower": bounds[0], f"{name}_upper": bounds[1]}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artifact with the manifest needed to run it."""

    manifest: Manifest
    artifact: bytes


def predict(
    candidate: Candidate, inputs: Floats | Iterable[Floats], progress: Callable[[int], object] | None = None
) -> Predictions:
    """Return the predictions for ``inputs`` from the device's runtime; rows do not affect each other.

    ``inputs``: float32 (N, ...), or an iterable of such arrays, so that not all rows need to be in memory.

    Raises:
        MeasureError: If the artifact can't be opened or run, or its outputs are not finite.
    """
    names = [output.name for output in candidate.manifest.outputs]
    parts: list[tuple[NDArray[np.float32], ...]] = []
    try:
        runtime = runtimes.load(candidate.manifest, candidate.artifact)
        most = 1 if _BY_BATCH in candidate.artifact else MOST_ROWS
        for batch in [inputs] if isinstance(inputs, np.ndarray) else inputs:
            for rows in portions(batch, most=most):
                parts.append(runtime.run(rows))
                if progress:
                    progress(len(parts[-1][0]))
        runtime.close()
    except AgentError as error:
        raise MeasureError(str(error)) from error
    columns = [np.concatenate(part) for part in zip(*parts, strict=True)]
    logits = np.asarray(columns[0], dtype=np.float32)
    if not np.isfinite(logits).all():
        raise MeasureError("Expected finite logits, got NaN or infinity: check training and the calibration range")
    index = names.index("embedding") if "embedding" in names else -1
    flat = columns[index].reshape(len(logits), -1) if index >= 0 else np.zeros((len(logits), 0))
    return Predictions(logits, np.asarray(flat, dtype=np.float32))


def smoothed(predictions: Predictions, manifest: Manifest, sources: NDArray[np.str_], interval_ms: int) -> Predictions:
    """Return ``predictions`` as a device answers them for streams: those of each source in their order.

    ``sources``: str (N,); ``interval_ms``: the time between neighbouring rows of a source. Embeddings stay.

    Raises:
        MeasureError: If the manifest's smoother is not that of this kind of output.
    """
    if not manifest.smoothing:
        return predictions
    streams: dict[str, smoothers.Smoother | None] = {}
    times: dict[str, int] = {}
    answers = predictions.logits.copy()
    try:
        for row, source in enumerate(sources.tolist()):
            if source not in streams:
                streams[source], times[source] = smoothers.of_manifest(manifest), 0
            if (stream := streams[source]) is not None:
                answers[row], _ = stream.add(predictions.logits[row], times[source])
            times[source] += interval_ms
    except AgentError as error:
        raise MeasureError(str(error)) from error
    return replace(predictions, logits=answers, smoothing=manifest.smoothing_options)


def latency(candidates: Mapping[str, Candidate], inputs: Mapping[str, Floats] | Inputs) -> dict[str, Latency]:
    """Return the latency of each candidate on real ``inputs``, (N, ...) or one such array per candidate, row by row.

    The candidates take turns, so that a busy machine affects all alike.

    Raises:
        MeasureError: If an artifact can't be opened or run.
    """
    rows = {name: _rows(inputs[name] if isinstance(inputs, Mapping) else inputs) for name in candidates}
    try:
        loaded = {name: runtimes.load(item.manifest, item.artifact) for name, item in candidates.items()}
        taken: dict[str, list[Floats]] = {name: [] for name in loaded}
        for name, runtime in loaded.items():
            for i in range(_WARM_UP_RUNS):
                runtime.run(rows[name][i % len(rows[name])])
        for _ in range(_REPEATS):
            for name, runtime in loaded.items():
                taken[name].append(_timed(runtime, rows[name]))
    except AgentError as error:
        raise MeasureError(str(error)) from error
    found = {}
    for name, repeats in taken.items():
        p50, p95 = (tuple(round(float(np.percentile(times, q)), 4) for times in repeats) for q in (50, 95))
        found[name] = Latency(
            p50_ms=round(float(np.median(p50)), 4), p95_ms=round(float(np.median(p95)), 4),
            runs=sum(len(times) for times in repeats), p50_repeats_ms=p50, p95_repeats_ms=p95,
        )  # fmt: skip
    return found


def _rows(inputs: Inputs) -> list[Floats]:
    return [np.ascontiguousarray(inputs[i : i + 1]) for i in range(min(len(inputs), _RUNS))]


def _timed(runtime: runtimes.Runtime, rows: Sequence[Floats]) -> Floats:
    enabled = gc.isenabled()
    gc.disable()
    try:
        times = []
        for row in rows:
            start = time.perf_counter_ns()
            runtime.run(row)
            times.append((time.perf_counter_ns() - start) / 1e6)
    finally:
        if enabled:
            gc.enable()
    return np.asarray(times, dtype=np.float32)


def peak_memory_bytes(candidate: Candidate, inputs: Floats) -> int:
    """Return the peak resident memory of a fresh process that loads the artifact and runs a few inputs.

    The process runs only this module (``python -m``): a spawned one would run the caller's script again.

    Raises:
        MeasureError: If the child fails or takes more than a minute.
    """
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as name:
        folder = Path(name)
        (folder / _MANIFEST).write_bytes(encode(candidate.manifest))
        (folder / _ARTIFACT).write_bytes(candidate.artifact)
        np.save(folder / _INPUTS, inputs[:_MEMORY_ROWS], allow_pickle=False)
        try:
            done = child.run(__name__, folder, _CHILD_LIMIT_S)
            return int(done.stdout)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"Expected a memory measurement within {_CHILD_LIMIT_S:g} s, got none") from error
        except ValueError as error:
            last = child.last_line(done)
            said = f": {last}" if last else ""
            message = f"Expected a memory measurement, got none: the child process ended early{said}"
            raise MeasureError(message) from error


def _own_peak_bytes(folder: Path) -> int:
    """Return the peak memory of this process after running the model that the parent wrote to ``folder``."""
    manifest = decode(Manifest, (folder / _MANIFEST).read_bytes(), limit_bytes=MAX_MANIFEST_BYTES)
    runtime = runtimes.load(manifest, (folder / _ARTIFACT).read_bytes())
    for row in np.load(folder / _INPUTS, allow_pickle=False):
        runtime.run(row[None])
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def log_probabilities(logits: Floats) -> NDArray[np.float64]:
    """Return the log-probability of each class, float64 (N, classes), for logits of that shape."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def calibration_error(logits: Floats, labels: NDArray[np.int64], bins: int = 15) -> float:
    """Return the expected calibration error (0..1) of (N, classes) logits against (N,) labels.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    confidence = np.exp(log_probabilities(logits)).max(axis=1)
    right = logits.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[index == i].sum() - confidence[index == i].sum()) for i in range(bins)]
    return float(np.sum(gaps) / len(labels))


if __name__ == "__main__":
    sys.stdout.write(str(_own_peak_bytes(Path(sys.argv[1]))))
