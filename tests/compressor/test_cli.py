"""The command line: exit codes, one clear line on stderr, help that teaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.cli import main


def _exit(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("command", [[], ["run"], ["gate"], ["verify"], ["keys"]])
def test_help_ends_well_and_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself."""
    assert _exit([*command, "--help"]) == 0
    assert "Usage: compressor" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run"], "usage"),
        (["rnu"], "usage"),
        (["run", "x.toml", "--version", "0"], "usage"),
        (["run", "missing.toml"], "recipe_invalid"),
        (["verify", "missing.tfb"], "package_invalid"),
        (["gate", "missing.tfb"], "package_invalid"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_4(
    arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 always means that a gate failed."""
    assert _exit(arguments) == 4
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error [{code}]: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_an_unknown_recipe_key_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe's error reaches the person, and nothing is written."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[model]\nname = "m"\n[train]\nepoch = 3\n')
    assert _exit(["run", str(recipe), "--out", str(tmp_path / "out")]) == 4
    assert "epochs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_there_is_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--data`` is checked first."""
    recipe = Path(__file__).with_name("pipeline_recipe.toml")
    assert _exit(["run", str(recipe), "--data", str(tmp_path / "no.zip"), "--out", str(tmp_path / "out")]) == 4
    assert "no.zip" in capsys.readouterr().err


def test_a_fault_of_ours_is_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is a documented one, and the message says how to see the stack."""

    def broken(path: Path) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr("compressor.release.regate.gate_again", broken)
    assert _exit(["gate", str(tmp_path)]) == 4
    assert capsys.readouterr().err.startswith("error [internal]: ZeroDivisionError")


def test_a_process_of_torchrun_that_can_not_join_ends_with_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Joining the others happens outside of the command, and its errors are printed in the same form."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "digits")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["run", "recipe.toml"])
    assert stop.value.code == 4
    assert capsys.readouterr().err.startswith("error [internal]: KeyError: 'RANK'")


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 2), ("inconclusive", 3)])
def test_the_verdict_is_the_exit_code(verdict: str, code: int, tmp_path: Path) -> None:
    """A folder's certificate is judged again; its verdict ends the command."""
    lost = {"pass": 0, "fail": 90, "inconclusive": 3}[verdict]
    document = '{"schema":1,"rules":[{"name":"accuracy_drop","max":0.01}],"counts":{"accuracy":[%d,0,400]}}'
    (tmp_path / "gate.json").write_text(document % lost)
    assert _exit(["gate", str(tmp_path)]) == code
