"""Both demos keep their promises for ten seeds of the world, not for one that was chosen.

``TINYFLEET_DEMO_SEEDS`` (as ``0,1,2``) runs others; the meters need ``TINYFLEET_DATA``, a folder with ``meter-digits``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = [int(seed) for seed in os.environ.get("TINYFLEET_DEMO_SEEDS", "0,1,2,3,4,5,6,7,8,9").split(",")]
METERS = Path(os.environ.get("TINYFLEET_DATA", "/nowhere")) / "meter-digits" / "meter-digits-dev.zip"
LIMIT_S = 1800.0

pytestmark = [pytest.mark.nightly, pytest.mark.broker, pytest.mark.slow]


def _promises(tmp_path: Path, seed: int, *options: str) -> dict[str, bool]:
    """Run the demo in a process of its own; return whether each promise was kept.

    The exit code is 0 if all are. How long it took is a figure of the bench: a slow machine may take longer.
    """
    rows = tmp_path / "rows.json"
    command = [sys.executable, "-m", "scripts.story", "--seed", str(seed), "--out", str(tmp_path / "demo")]
    command += ["--json", str(rows), *options]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    env = {**os.environ, "PATH": path, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stdout[-3000:]}\n{done.stderr[-2000:]}"
    return {
        row["what"]: row["met"] for row in json.loads(rows.read_text()) if not row["what"].startswith("whole story")
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_the_demo_on_digits_comes_true(tmp_path: Path, seed: int) -> None:
    """Three cameras out of focus: found, labelled, retrained, better there and no worse elsewhere."""
    kept = _promises(tmp_path, seed)
    assert kept["false alarms on unchanged devices"]
    assert all(kept.values())


@pytest.mark.skipif(not METERS.is_file(), reason="TINYFLEET_DATA has no meter-digits/meter-digits-dev.zip")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_demo_on_meters_comes_true(tmp_path: Path, seed: int) -> None:
    """Two devices moved to another maker's meters."""
    kept = _promises(tmp_path, seed, "--data", str(METERS))
    assert kept["false alarms on unchanged devices"]
    assert all(kept.values())
