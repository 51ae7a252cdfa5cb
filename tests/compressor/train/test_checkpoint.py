"""Weights on disk: complete, and nothing but weights."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compressor import networks, plugins
from compressor.errors import CheckpointError
from compressor.train import checkpoint

State = Mapping[str, torch.Tensor]


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


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    own = other.state_dict()
    return all(torch.equal(value, own[name]) for name, value in one.state_dict().items())


def _trained(name: str) -> torch.nn.Module:
    """Return a network of torchvision's own form with other weights than a fresh one has."""
    network = plugins.resolve("", "torchvision.models:get_model", "", known=())(name, num_classes=3)
    with torch.no_grad():
        for parameter in network.parameters():  # type: ignore[attr-defined]
            parameter.mul_(1.25).add_(0.01)
    return network.eval()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    "form",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer": {"step": 1}},
        lambda state: {"model": {f"module._orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {"n_averaged": torch.tensor(5), **{f"module.{name}": value for name, value in state.items()}},
        lambda state: {name: value for name, value in state.items() if "num_batches_tracked" not in name},
    ],
)
def test_what_training_loops_write_is_read(tmp_path: Path, form: Callable[[State], object]) -> None:
    """Data-parallel, Lightning, compiled, averaged, an old torch: the weights are those of the network."""
    network = _network()
    torch.nn.init.constant_(network.get_parameter("head.bias"), 7)
    torch.save(form(network.state_dict()), tmp_path / "w.pt")
    found = checkpoint.load(_network(), tmp_path / "w.pt")
    assert _same(network, found)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_weights_of_a_network_of_a_library_have_its_own_names(tmp_path: Path, name: str) -> None:
    """The embedding that we add gives the layers other names; the answers are those of the network that was saved."""
    network = _trained(name)
    save_file({f"model.{one}": value for one, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    fresh = networks.build(f"torchvision:{name}", 3, 3, 32, 32)
    found = checkpoint.load(fresh, tmp_path / "w.safetensors")
    inputs = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(found(inputs)[0], network(inputs))
    assert not checkpoint.is_own(found, tmp_path / "w.safetensors")
    checkpoint.save(found, tmp_path / "own.pt")
    assert checkpoint.is_own(found, tmp_path / "own.pt")


def test_a_broken_safetensors_file_and_a_mapping_of_other_things_are_named(tmp_path: Path) -> None:
    """Each with what it is, and what to do."""
    path = tmp_path / "w.safetensors"
    save_file({"head.bias": torch.ones(3)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"Expected a safetensors file at .*: save it again"):
        checkpoint.load(_network(), path)
    torch.save({"weights_of": "mine", "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"got a mapping of 'weights_of' \(str\), 'epoch' \(int\)"):
        checkpoint.load(_network(), tmp_path / "w.pt")


def test_names_that_only_begin_alike_are_no_wrapper(tmp_path: Path) -> None:
    """What does not have the network's names under its prefix is refused, with the names as they are in the file."""
    state = {f"module.{name}": value for name, value in _network().state_dict().items()}
    state["module.loss.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"unknown keys \(module\."):
        checkpoint.load(_network(), tmp_path / "w.pt")


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
