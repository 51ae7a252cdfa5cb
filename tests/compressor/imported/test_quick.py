"""``--quick`` with an imported file, of which nothing is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.cli import main
from tests.compressor.imported import colours


def test_a_run_that_trains_nothing_is_not_said_to_be_better_without_quick(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two epochs are no reason for what it lacks: the next step is that of a whole run."""
    (tmp_path / "mine.onnx").write_bytes(colours.network(constant=True))
    colours.arrays(tmp_path / "data.npz", ["gate", "calibration"])
    path = colours.recipe(tmp_path, more='[[compress]]\nstep = "quantize"\nscheme = "none"\n')
    with pytest.raises(SystemExit) as stop:
        main(["run", str(path), "--quick", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    said = capsys.readouterr().out
    assert "no bundle was made: fail (better_than_constant): mend what is marked ✗" in said
    assert "--quick" not in said
