"""A child process of a run imports the same modules as the run, and no others in their place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compressor import child

ROOT = Path(child.__file__).parent
SAYS = "import statistics, sys\nprint(statistics.__file__, *sys.path, sep='\\n')\nsys.stderr.write('one\\ntwo\\n')\n"


def test_no_folder_of_ours_stands_before_the_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``compressor/`` on the path would hide Python's own ``statistics`` behind ours."""
    (tmp_path / "says.py").write_text(SAYS)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = child.run("says", tmp_path, 60)
    found, *path = done.stdout.decode().splitlines()
    assert Path(found).is_relative_to(Path(sys.base_prefix))
    assert str(ROOT) not in path
    assert child.last_line(done) == "two"


def test_a_child_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller words the error."""
    (tmp_path / "hangs.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(subprocess.TimeoutExpired):
        child.run("hangs", tmp_path, 0.5)
