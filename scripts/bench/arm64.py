#!/usr/bin/env python3
"""Bundles on the emulated arm64 device beside this host: do the int8 outputs agree, and what memory do they take?

    scripts/hil/arm64 && scripts/bench/arm64.py build/digits-1-gateway.tfb build/digits-1-pi.tfb --probe models/digits

Prints a line for each bundle: golden vectors, rows of the probe, how many have bit-equal outputs, the largest
difference, the rows with another answer, the accuracy of each, and the peak memory above that of bare Python on the
same machine. Times of an emulator mean nothing and are not printed. Exit codes: 0 done, 1 not, 2 usage.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from compressor.devices.inventory import EmulatedEntry
from compressor.devices.shell import ShellBench, shell_of, this_host
from compressor.devices.under_test import DeviceUnderTest, read_bundle_under_test
from compressor.errors import CompressorError

_PEAK = "print(next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) / 1e3)"
_HOME = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tinyfleet/arm64"


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Bundles on the emulated arm64 device beside this host.")
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--probe", default="models/digits", help="recipe whose gate split is answered [models/digits]")
    parser.add_argument("--rows", type=int, default=200, help="at most so many rows of it [200]")
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("TINYFLEET_ARM64", _HOME)))
    given = parser.parse_args()
    entry = EmulatedEntry(root=given.root)
    try:
        bench, host = ShellBench(name="arm64", entry=entry, shell=shell_of(entry)), this_host()
        there = DeviceUnderTest(name="arm64", entry=entry, bench=bench)
        here = DeviceUnderTest(name="host", entry=entry, bench=host)
        bare_mb = [float(one.shell.run(f"{one.python()} -c {shlex.quote(_PEAK)}")) for one in (bench, host)]
        print(f"bare Python: {bare_mb[0]:.1f} MB on arm64 (with the emulator), {bare_mb[1]:.1f} MB here")
        for path in given.bundles:
            bundle = read_bundle_under_test(path, given.probe, most=given.rows)
            far, near = there.measure(bundle), here.measure(bundle)
            equal = int((far.logits == near.logits).all(axis=1).sum())
            above = [
                answer.report.peak_memory_bytes / 1e6 - bare for answer, bare in zip((far, near), bare_mb, strict=True)
            ]
            print(
                f"{path.name}: {far.report.facts['runtime']} on {far.report.facts['machine']}; "
                f"golden vectors {far.report.golden_rows}, difference {far.report.golden_max_abs:g}, "
                f"flips {far.report.golden_flips}; rows {bundle.subject.n}, bit-equal {equal}, "
                f"largest difference {np.abs(far.logits - near.logits).max():g}, "
                f"other answers {bundle.flips(far, near)}; accuracy {bundle.accuracy(far):.4f}, "
                f"here {bundle.accuracy(near):.4f}; "
                f"peak memory above bare Python {above[0]:.1f} MB, here {above[1]:.1f} MB",
                flush=True,
            )
    except CompressorError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
