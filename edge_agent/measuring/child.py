"""Run a measurement: ``python -m edge_agent.measuring.child``, a process of its own at the lowest priority.

Sequence: bundle and digests, runtime, golden vectors, peak memory, latency, then every row, one by one, as on the
device. Reads the order that its parent verified; writes one report; prints one JSON line. Its latencies are measured
beside the running model and at a lower priority: they are never better than the model's own. It ends as soon as its
parent does (the pipe on its stdin closes).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import gc
import json
import os
import platform
import sys
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent import declarations, runtimes, tasks
from edge_agent.device.hardware import Hardware
from edge_agent.errors import AgentError, ImageError
from edge_agent.inference.preprocess import from_fitted
from edge_agent.inference.probe import golden_differences, peak_memory_bytes, read_golden
from edge_agent.measuring.meters import Meters
from wire import __version__
from wire.bundle import Bundle, read_bundle
from wire.canonical import sha256_file
from wire.errors import MessageError, WireError
from wire.manifest import Manifest
from wire.measurement import MeasureOrder, MeasureReport, blank_report, encode_report, read_order

_NPY_HEADER_BYTES = 4096
_WARM_UP_RUNS, _REPEATS, _RUNS, _MEMORY_RUNS = 20, 8, 60, 8  # as the build host's own measurement
_LOWEST = 19
_METERED_S = 1.0  # meters count in steps of a millisecond and more
Floats = NDArray[np.float32]


def measure(
    order: MeasureOrder,
    bundle_path: Path,
    rows_path: Path | None,
    *,
    meters: Meters = Meters(),  # noqa: B008 - frozen
) -> bytes:
    """Return the bytes of the report on ``order``, measured in this process; ``meters``: those of this device.

    Raises:
        WireError: If the bundle is invalid, or not the one that the order names.
        AgentError: If the model can't be run on this device.
        OSError: If a file can't be read.
    """
    if sha256_file(bundle_path) != order.bundle_sha256:
        raise MessageError("Expected the bundle that the order names, got other bytes")
    bundle = read_bundle(bundle_path)
    if bundle.manifest.artifact_sha256 != order.artifact_sha256:
        raise MessageError("Expected the artifact that the order names, got a bundle of another")
    golden = read_golden(bundle)
    runtime = runtimes.load(bundle.manifest, bundle.artifact)
    for index in range(min(_MEMORY_RUNS, len(golden.inputs))):
        runtime.run(golden.inputs[index : index + 1])
    peak_bytes = peak_memory_bytes()
    max_abs, flips = golden_differences(runtime, tasks.of_manifest(bundle.manifest), golden)
    report = dataclasses.replace(
        blank_report(order),
        golden_max_abs=max_abs,
        golden_flips=flips,
        golden_rows=len(golden.inputs),
        peak_memory_bytes=peak_bytes,
        facts=_facts(bundle),
    )
    pixels = _pixels(order, rows_path) if rows_path is not None else None
    logits = np.zeros((0, 0), "<f4")
    throttles = meters.throttle_count()
    if pixels is None:
        inputs = [golden.inputs[index : index + 1] for index in range(min(_RUNS, len(golden.inputs)))]
    else:
        inputs = [_tensor(image, bundle.manifest) for image in pixels[:_RUNS]]
    report = dataclasses.replace(_timed(runtime, inputs, report), energy_mj=_energy_mj(runtime, inputs, meters))
    if pixels is not None:
        answers = (runtime.run(_tensor(image, bundle.manifest))[0] for image in pixels)  # one by one, as on the device
        logits = np.concatenate([np.asarray(answer, "<f4").reshape(1, -1) for answer in answers])
    report = dataclasses.replace(
        report,
        classes=logits.shape[1],
        temperature_celsius=Hardware(state=bundle_path.parent).temperature_celsius(),
        throttle_events=meters.throttle_events(throttles),
    )
    return encode_report(report, logits.tobytes())


def _pixels(order: MeasureOrder, path: Path) -> NDArray[np.uint8]:
    """Return the rows as a memory map: memory does not grow with their number."""
    if sha256_file(path) != order.rows_sha256:
        raise MessageError("Expected the rows that the order names, got other bytes")
    try:
        pixels = np.lib.format.open_memmap(path, mode="r", max_header_size=_NPY_HEADER_BYTES)
    except ValueError as error:
        message = f"Expected rows as npy, got: {error}"
        raise MessageError(message) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in {1, 2, 3} or len(pixels) != order.rows:  # noqa: PLR2004 - rows, height, width, channels or bytes
        message = f"Expected {order.rows} rows of uint8 (H, W, 1 to 3), got {pixels.dtype} {pixels.shape}"
        raise MessageError(message)
    return pixels


def _tensor(image: NDArray[np.uint8], manifest: Manifest) -> Floats:
    """Return the input of a row: it has the input's colours and size already, and is not resized again."""
    return from_fitted([image], 1, manifest.preprocessing)


def _timed(runtime: runtimes.Runtime, inputs: list[Floats], report: MeasureReport) -> MeasureReport:
    for index in range(_WARM_UP_RUNS):
        runtime.run(inputs[index % len(inputs)])
    repeats: list[list[float]] = []
    gc.disable()
    try:
        for _ in range(_REPEATS):
            times_ms = []
            for row in inputs:
                start = time.perf_counter_ns()
                runtime.run(row)
                times_ms.append((time.perf_counter_ns() - start) / 1e6)
            repeats.append(times_ms)
    finally:
        gc.enable()
    p50, p95 = (tuple(round(float(np.percentile(times, q)), 4) for times in repeats) for q in (50, 95))
    return dataclasses.replace(
        report, latency_p50_ms=round(float(np.median(p50)), 4), latency_p95_ms=round(float(np.median(p95)), 4),
        latency_p50_repeats_ms=p50, latency_p95_repeats_ms=p95,
    )  # fmt: skip


def _energy_mj(runtime: runtimes.Runtime, inputs: list[Floats], meters: Meters) -> float:
    """Return the energy of one inference in millijoules; 0 without a meter, or one that did not move."""
    before = meters.energy_uj()
    if not before:
        return 0.0
    runs, end_s = 0, time.perf_counter() + _METERED_S
    while time.perf_counter() < end_s:
        runtime.run(inputs[runs % len(inputs)])
        runs += 1
    return round(meters.spent_uj(before) / runs / 1000, 6)


def _facts(bundle: Bundle) -> dict[str, str]:
    manifest = bundle.manifest
    version = declarations.runtime(manifest.runtime).version
    return {
        "agent": __version__, "runtime": version or manifest.runtime, "threads": str(manifest.threads),
        "machine": platform.machine(), "cpu": _cpu(), "cores": str(os.cpu_count() or 0),
        "system": platform.platform()[:120], "python": platform.python_version(), "numpy": np.__version__,
        "priority": f"nice {os.nice(0)}",
    }  # fmt: skip


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model", "Hardware"))]
    return (named[0] if named else platform.machine())[:120]


def _end_with_parent() -> None:
    if not os.read(0, 1):
        os._exit(1)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the report; print one JSON line; return 0, or 1 on failure."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.measuring.child", description=main.__doc__)
    parser.add_argument("--order", type=Path, required=True, help="the verified order as JSON")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--energy", type=Path, help="file that counts microjoules; without it: RAPL, if readable")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    os.nice(_LOWEST)
    with contextlib.suppress(OSError):  # the first to be killed when memory runs out; some kernels don't have it
        Path("/proc/self/oom_score_adj").write_text("1000")
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        order, meters = read_order(options.order.read_bytes()), Meters(options.energy)
        options.out.write_bytes(measure(order, options.bundle, options.rows, meters=meters))
    except (WireError, AgentError, ImageError, OSError) as error:
        code = getattr(error, "code", "no_space" if getattr(error, "errno", 0) == errno.ENOSPC else "disk")
        sys.stdout.write(json.dumps({"ok": False, "code": code, "text": str(error)[:500]}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"ok": True}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
