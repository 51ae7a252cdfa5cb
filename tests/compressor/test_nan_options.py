"""A number that is none is refused by every option of the build host that takes a number."""

from __future__ import annotations

import pytest

from compressor.cli import main


@pytest.mark.parametrize("words", [
    ["search", "x.toml", "--timeout-s"], ["data", "fit", "x.toml", "--inside"], ["gate", "x", "--device-wait-s"],
])  # fmt: skip
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_what_is_no_number_is_refused(words: list[str], number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the option, and the exit code of a mistake in the command."""
    with pytest.raises(SystemExit) as stopped:
        main([*words, number])
    assert stopped.value.code == 4
    assert words[-1] in capsys.readouterr().err
