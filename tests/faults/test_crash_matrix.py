"""``scripts/crash-matrix``: kill -9, EIO and ENOSPC at the durable system calls of an update; all of them at night."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")]
# the parent of the runs must have one thread, so that its children have one
MATRIX = [sys.executable, "-m", "scripts.crashes"]
WITHOUT_RECLAIM = """\
import sys
from edge_agent.updater.storage.slots import Slots
from scripts.crashes.__main__ import main
Slots.reclaim = lambda *_: 0
main(sys.argv[1:])
"""


def _matrix(command: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *options], cwd=ROOT, check=False, capture_output=True, text=True)


def test_a_sample_of_the_faults_breaks_no_invariant(tmp_path: Path) -> None:
    """In each scenario, with each fault: old or new is current and served, and no accepted row is lost."""
    done = _matrix(MATRIX, "--quick", "2", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = json.loads((tmp_path / "found.json").read_bytes())
    assert len(verdicts) == 18
    assert all(one["points"] == 2 and one["of"] > 150 and not one["violations"] for one in verdicts)


def test_an_update_that_leaves_rubbish_is_found() -> None:
    """The matrix itself: with an agent that never removes a bundle, a point fails by name."""
    done = _matrix([sys.executable, "-c", WITHOUT_RECLAIM], "--quick", "1", "--scenario", "commit",
                   "--fault", "kill")  # fmt: skip
    assert (done.returncode, "more or less than the slots name" in done.stdout) == (1, True), done.stdout + done.stderr


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_no_fault_at_any_durable_call_breaks_an_invariant() -> None:
    """About a thousand calls, three faults each."""
    done = _matrix(MATRIX, "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
