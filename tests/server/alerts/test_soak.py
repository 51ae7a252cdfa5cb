"""Ten minutes of faults: no notice is lost, none overtakes another of its alert, and each has a right signature."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "bench" / "alerts.py"


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
def test_nothing_is_lost_while_receivers_fail_and_the_server_is_killed(tmp_path: Path) -> None:
    """The script decides; that it did something is checked here."""
    command = [sys.executable, str(SCRIPT), "--minutes", "10", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_100)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["notices"] > 200
    assert found["kills"] > 10
    assert len(found["faults"]) == 6
