"""Measures one quantization: seconds of the call itself, and the peak memory of its process including imports.

Standard library only: it runs in every peer's virtual environment. ``compression.py`` reads the line it prints.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = "measured "


@contextmanager
def measured() -> Iterator[None]:
    """Print ``measured {"seconds": ..., "peak_memory_bytes": ...}`` if the block succeeds."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    print(f"\n{MARK}{json.dumps({'seconds': seconds, 'peak_memory_bytes': peak})}", flush=True)
