"""Weights on disk: complete, and nothing but weights."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from compressor import networks
from compressor.errors import CheckpointError
from compressor.train import checkpoint


def _network(filters: int = 4) -> torch.nn.Module:
    return networks.build("resnet8", 3, 1, 8, 8, {"filters": filters})


class _Trap:
    """The code that a hostile pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run!",)


def test_weights_come_back(tmp_path: Path) -> None:
    """Saved weights are loaded, and no half-written file stays."""
    network = _network()
    torch.nn.init.constant_(network.get_parameter("head.bias"), 7)
    checkpoint.save(network, tmp_path / "w.pt")
    assert checkpoint.load(_network(), tmp_path / "w.pt").get_parameter("head.bias").tolist() == [7, 7, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]


def test_refuses_a_pickle_with_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint with anything but tensors is refused and runs nothing."""
    torch.save({"head.bias": _Trap()}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError):
        checkpoint.load(_network(), tmp_path / "w.pt")
    assert "run!" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken"])
def test_refuses_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    """Empty and foreign files are coded errors that name the file."""
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.pt"):
        checkpoint.load(_network(), tmp_path / "w.pt")


def test_refuses_weights_of_another_network(tmp_path: Path) -> None:
    """Weights of other shapes don't load in part."""
    checkpoint.save(_network(8), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="this network"):
        checkpoint.load(_network(4), tmp_path / "w.pt")


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    """A file that holds tensors but no state dict is refused too."""
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(CheckpointError):
        checkpoint.load(_network(), tmp_path / "w.pt")


def test_a_foreign_checkpoint_is_said_without_torchs_advice(tmp_path: Path) -> None:
    """``weights_only=False`` would run code from the file; the error names the kind of file instead."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    (tmp_path / "other.pt").write_bytes(b"\x80\x04no tensors")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "a")
    said = {
        "whole": "a whole network?",
        "script": "TorchScript",
        "other": "bytes that torch does not",
        "zip": "a zip of",
    }
    for name, words in said.items():
        with pytest.raises(CheckpointError) as caught:
            checkpoint.check_finite(tmp_path / f"{name}.pt")
        assert words in str(caught.value)
        assert "save it with torch.save(network.state_dict(), path)" in str(caught.value)
        assert "weights_only" not in str(caught.value)
