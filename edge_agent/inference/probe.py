"""Checks that a bundle reaches the build host's figures here: ``python -m edge_agent.inference.probe BUNDLE``.

Meant for a fresh process, whose peak memory is then the model's. Order: bundle and digests, runtime, golden vectors,
latency, memory. Prints one JSON line and exits with 0 (it does) or 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import resource
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent import runtimes, tasks
from edge_agent.device import memory_limit
from edge_agent.errors import AgentError, GoldenError, RuntimeMemoryError, RuntimeMissingError, TaskMissingError
from edge_agent.tasks import DeviceTask
from wire.bundle import GOLDEN, MAX_BUNDLE_BYTES, Bundle, read_bundle
from wire.errors import WireError
from wire.manifest import Budgets

MAX_GOLDEN_BYTES = 64 * 1024 * 1024
_NPY_HEADER_BYTES = 4096
_NOT_A_NUMBER = 1e30  # JSON has no NaN
_WARM_UP_RUNS = 5
_LOWEST_PRIORITY = 19
_RUNS = 50
_MIN_S = 0.2  # fast models run more often, so that one delay of the system does not become the 95th percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeVerdict:
    """The JSON line. ``runs``: how many inferences were timed.

    ``max_abs``: largest difference from the golden logits; ``flips``: rows with another class.
    """

    ok: bool
    code: str = ""
    text: str = ""
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    latency_p99_ms: float = 0.0
    runs: int = 0
    peak_memory_bytes: int = 0
    max_abs: float = 0.0
    flips: int = 0


@dataclass(frozen=True, slots=True)
class GoldenVectors:
    """Inputs, float32 (N, C, H, W), and the build host's logits for them, float32 (N, classes)."""

    inputs: NDArray[np.float32]
    logits: NDArray[np.float32]


def read_golden(bundle: Bundle) -> GoldenVectors:
    """Return the golden vectors of ``bundle``; sizes are checked before anything is decompressed.

    Raises:
        GoldenError: If they are missing or invalid.
    """
    data = bundle.files.get(GOLDEN)
    if data is None:
        raise GoldenError(f"Expected {GOLDEN} in the bundle, got {sorted(bundle.files)}: rebuild it")
    try:
        _check_size(data)
        with np.load(io.BytesIO(data), allow_pickle=False, max_header_size=_NPY_HEADER_BYTES) as arrays:
            golden = GoldenVectors(arrays["inputs"], arrays["logits"])
    except GoldenError:
        raise
    except Exception as error:  # NumPy parses a header as Python text, and a zip is what it is: both may raise anything
        raise GoldenError(f"Expected the arrays inputs and logits in {GOLDEN}, got: {error}") from error
    if len(golden.inputs) == 0 or len(golden.inputs) != len(golden.logits) or golden.inputs.dtype != np.float32:
        shapes = f"{golden.inputs.dtype} {golden.inputs.shape} and {golden.logits.shape}"
        raise GoldenError(f"Expected as many float32 inputs as logits, at least one, got {shapes}")
    return golden


def _check_size(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(info.file_size for info in archive.infolist())
    if total > MAX_GOLDEN_BYTES:
        raise GoldenError(f"Expected golden vectors of at most {MAX_GOLDEN_BYTES} bytes, got {total}")


def golden_differences(runtime: runtimes.Runtime, task: DeviceTask, golden: GoldenVectors) -> tuple[float, int]:
    """Return the largest difference from the golden logits, and how many rows have another answer.

    Raises:
        GoldenError: If the outputs have another shape.
    """
    # one by one, as on the device; a batch may use other kernels
    logits = np.concatenate([runtime.run(golden.inputs[i : i + 1])[0] for i in range(len(golden.inputs))])
    if logits.shape != golden.logits.shape:
        raise GoldenError(f"Expected logits of shape {golden.logits.shape}, got {logits.shape}")
    differences = np.nan_to_num(np.abs(logits - golden.logits), nan=_NOT_A_NUMBER, posinf=_NOT_A_NUMBER)
    return float(differences.max()), task.flips(logits, golden.logits)


def judge(figures: ProbeVerdict, budgets: Budgets) -> ProbeVerdict:
    """Return ``figures`` with the verdict of the budgets; 0 means no limit on latency and memory."""
    if figures.flips > budgets.golden_max_flips or not figures.max_abs <= budgets.golden_max_abs:
        text = f"at most {budgets.golden_max_abs:g} and {budgets.golden_max_flips} flips from the golden logits"
        return _refused(figures, "golden_mismatch", text, f"{figures.max_abs:g} and {figures.flips}")
    if 0 < budgets.latency_p95_ms < figures.latency_p95_ms:
        text, got = f"p95 latency of at most {budgets.latency_p95_ms:g} ms", f"{figures.latency_p95_ms:.3g} ms"
        return _refused(figures, "latency_over_budget", text, got)
    if 0 < budgets.peak_memory_bytes < figures.peak_memory_bytes:
        text, got = f"at most {budgets.peak_memory_bytes} bytes of memory", str(figures.peak_memory_bytes)
        return _refused(figures, "memory_over_budget", text, got)
    return dataclasses.replace(figures, ok=True)


def _refused(figures: ProbeVerdict, code: str, expected: str, got: str) -> ProbeVerdict:
    return dataclasses.replace(figures, ok=False, code=code, text=f"Expected {expected}, got {got}")


def probe(path: Path, *, limit_bytes: int = MAX_BUNDLE_BYTES, least_s: float = _MIN_S) -> ProbeVerdict:
    """Return the verdict on the bundle at ``path``, measured in this process, for ``least_s`` seconds or more."""
    try:
        bundle = read_bundle(path, limit_bytes=limit_bytes)
        golden = read_golden(bundle)
        task = tasks.of_manifest(bundle.manifest)
        runtime = runtimes.load(bundle.manifest, bundle.artifact)
        max_abs, flips = golden_differences(runtime, task, golden)
        latencies = _latencies_ms(runtime, golden.inputs, least_s)
        p50_ms, p95_ms, p99_ms = np.percentile(latencies, [50, 95, 99]).tolist()
        figures = ProbeVerdict(
            ok=False,
            latency_p50_ms=p50_ms,
            latency_p95_ms=p95_ms,
            latency_p99_ms=p99_ms,
            runs=len(latencies),
            peak_memory_bytes=peak_memory_bytes(),
            max_abs=max_abs,
            flips=flips,
        )
        return judge(figures, bundle.manifest.budgets)
    except (RuntimeMissingError, TaskMissingError, RuntimeMemoryError) as error:
        return ProbeVerdict(ok=False, code=error.code, text=str(error))
    except MemoryError:
        return ProbeVerdict(
            ok=False, code=RuntimeMemoryError.code, text="Expected a model that fits this device's memory"
        )
    except (WireError, AgentError, OSError) as error:
        return ProbeVerdict(ok=False, code="bundle_invalid", text=str(error))


def peak_memory_bytes() -> int:
    """Return this process's own peak memory: ``VmHWM``; ``ru_maxrss`` includes the parent's memory before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _latencies_ms(runtime: runtimes.Runtime, inputs: NDArray[np.float32], least_s: float) -> list[float]:
    for index in range(_WARM_UP_RUNS):
        runtime.run(inputs[index % len(inputs)][None])
    latencies: list[float] = []
    started_s = time.perf_counter()
    while len(latencies) < _RUNS or time.perf_counter() - started_s < least_s:
        batch = inputs[len(latencies) % len(inputs)][None]
        start_s = time.perf_counter()
        runtime.run(batch)
        latencies.append((time.perf_counter() - start_s) * 1000)
    return latencies


def main(arguments: list[str] | None = None) -> int:
    """Print the verdict on one bundle as a JSON line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.inference.probe", description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--limit-bytes", type=int, default=MAX_BUNDLE_BYTES)
    parser.add_argument("--memory-bytes", type=int, default=0, help="private memory; 0: what the machine allows")
    parser.add_argument("--least-s", type=float, default=_MIN_S, help="seconds of inferences to time")
    parser.add_argument("--gently", action="store_true", help="at the lowest priority, beside a model that serves")
    options = parser.parse_args(arguments)
    if options.gently:
        os.nice(_LOWEST_PRIORITY)
    ceiling = memory_limit.ceiling_bytes(options.memory_bytes)
    memory_limit.go_first()
    memory_limit.keep_below(ceiling)
    verdict = probe(options.bundle, limit_bytes=options.limit_bytes, least_s=options.least_s)
    sys.stdout.write(json.dumps(dataclasses.asdict(verdict)) + "\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
