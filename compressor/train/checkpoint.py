"""Weights on disk: only a state dict, so that loading executes no code.

Other frameworks' files are read as well: safetensors, a state dict beside other entries, names behind the prefix of a
wrapper (``module.``, ``model.``), and the names that a network of a library has without the embedding that we add.

A pruned network is the same network with narrower layers: a fresh one is resized to the shapes of the state dict.
Learned ranges are stored as tensors beside the weights; their names begin with ``RANGE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from compressor.errors import CheckpointError
from wire.durable import replacing


def save(network: nn.Module, path: Path, ranges: Mapping[str, tuple[float, float]] | None = None) -> None:
    """Write the weights of ``network``, and learned ``ranges``, to ``path``, whole or not at all.

    Raises:
        CheckpointError: If the file can't be written.
    """
    state = dict(network.state_dict())
    state |= {f"{RANGE}{name}": torch.tensor(pair, dtype=torch.float64) for name, pair in (ranges or {}).items()}
    try:
        with replacing(path, mode=0o644, alone=True) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError when the disk is full
        message = f"Expected to write weights to {path}, got: {error}"
        raise CheckpointError(message) from error


RANGE = "range:"
_SIZES = {
    nn.Conv2d: (("out_channels", 0),),
    nn.Linear: (("out_features", 0), ("in_features", 1)),
    nn.BatchNorm1d: (("num_features", 0),),
    nn.BatchNorm2d: (("num_features", 0),),
    nn.InstanceNorm2d: (("num_features", 0),),
    nn.GroupNorm: (("num_channels", 0),),
    nn.PReLU: (("num_parameters", 0),),
}


_KEYS_SHOWN = 3
_HOLDERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Entries under which training loops keep the state dict, beside the state of an optimizer and others."""
_COUNTED = "n_averaged"
"""Of torch's ``AveragedModel``, beside its weights."""
_LENGTH_BYTES = 8  # of the length of a safetensors header


def load(network: nn.Module, path: Path, named: str = "") -> nn.Module:
    """Return ``network`` with the weights in ``path``, narrowed to their shapes, in evaluation mode.

    ``named``: the file's name in messages, if ``path`` is a copy of a user's file.

    Raises:
        CheckpointError: If the file does not exist, holds anything but tensors, or is of another network.
    """
    state = {name: value for name, value in _read(path).items() if not name.startswith(RANGE)}
    own = network.state_dict()
    state = _unwrapped(state, network)
    try:
        return fit(network, state)
    except (RuntimeError, KeyError, TypeError) as error:
        odd = (_shown("missing", own.keys() - state.keys()), _shown("unknown", state.keys() - own.keys()))
        got = "; ".join(filter(None, odd)) or " ".join(str(error).split())[:300]
        message = f"Expected weights of this network in {named or path}, got: {got}"
        raise CheckpointError(
            f"{message}: check [model] network and network_options, or give weights of that network"
        ) from error


def fit(network: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return ``network`` with the weights ``state``, in place, narrowed to their shapes, in evaluation mode.

    Raises:
        RuntimeError: If they are of another network.
    """
    _narrow(network, state)
    network.load_state_dict(dict(state))
    return network.eval()


def is_own(network: nn.Module, path: Path) -> bool:
    """Return whether ``path`` has the form and names in which ``save`` writes ``network``.

    Raises:
        CheckpointError: If the file does not exist or holds anything but tensors.
    """
    state = {name for name in _read(path) if not name.startswith(RANGE)}
    return not _safetensors(path) and state == network.state_dict().keys()


def _unwrapped(state: Mapping[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Return ``state`` with the names of ``network``, if it has them but for wrappers; else as it is.

    A wrapper is a first part that all names have in common. What torch fills in itself may be missing.
    """
    own = _counted_apart(network.state_dict())
    renamed = getattr(network, "own_names", dict)
    found = {name: value for name, value in state.items() if name != _COUNTED}
    while found:
        for named in (found, renamed(found)):
            if _counted_apart(named) == own:
                return dict(named)
        first, dot, _ = next(iter(found)).partition(".")
        if not dot or not all(name.startswith(f"{first}.") for name in found):
            break
        found = {name[len(first) + 1 :]: value for name, value in found.items()}
    return dict(state)


def _counted_apart(names: Mapping[str, object]) -> set[str]:
    return {name for name in names if not name.endswith("num_batches_tracked")}


def _shown(what: str, keys: AbstractSet[str]) -> str:
    """Return the number of ``keys`` and the first of them as text; "" for none."""
    first = ", ".join(sorted(keys)[:_KEYS_SHOWN])
    return f"{len(keys)} {what} keys ({first}{', …' if len(keys) > _KEYS_SHOWN else ''})" if keys else ""


def check_finite(path: Path) -> None:
    """Check that ``path`` holds a state dict of finite tensors, of any network.

    Raises:
        CheckpointError: If the file does not exist, holds anything but tensors, no tensors at all, or NaN or infinity.
    """
    state = _read(path)
    if not state:
        message = f"Expected weights in {path}, got an empty state dict: save network.state_dict()"
        raise CheckpointError(message)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            message = f"Expected finite weights in {path}, got NaN or infinity in {name!r}"
            raise CheckpointError(f"{message}: take a checkpoint from before it diverged")


def load_ranges(path: Path) -> dict[str, tuple[float, float]]:
    """Return the learned (low, high) of activations in ``path``, by FX node; empty if no step learned any.

    Raises:
        CheckpointError: If the file does not exist or holds anything but tensors.
    """
    found = {name.removeprefix(RANGE): value for name, value in _read(path).items() if name.startswith(RANGE)}
    return {name: (float(value[0]), float(value[1])) for name, value in found.items()}


def _read(path: Path) -> dict[str, torch.Tensor]:
    if _safetensors(path):
        return _read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of zip, pickle and dictionaries alike
        raise CheckpointError(_foreign(path)) from error
    if isinstance(state, Mapping):
        held = (state[name] for name in _HOLDERS if isinstance(state.get(name), Mapping))
        state = next(held, state)  # the forms in which training frameworks save it
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        got = f"a mapping of {_listed(state)}" if isinstance(state, Mapping) else type(state).__name__
        message = f"Expected a state dict in {path}, got {got}: save network.state_dict()"
        raise CheckpointError(message)
    return dict(state)


def _listed(state: Mapping[object, object]) -> str:
    """Return the first entries that are no tensors, with their kinds."""
    odd = [f"{name!r} ({type(value).__name__})" for name, value in state.items() if not isinstance(value, torch.Tensor)]
    return ", ".join(odd[:_KEYS_SHOWN]) + (", …" if len(odd) > _KEYS_SHOWN else "")


def _safetensors(path: Path) -> bool:
    """Return whether ``path`` begins like a safetensors file: the length of a header, and the header in JSON.

    Source: the format's page, https://huggingface.co/docs/safetensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LENGTH_BYTES + 1)
        length = int.from_bytes(start[:_LENGTH_BYTES], "little")
        return start[_LENGTH_BYTES:] == b"{" and length <= path.stat().st_size - _LENGTH_BYTES
    except OSError:
        return False


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        library = _library()
    except ModuleNotFoundError as error:
        message = f"Expected the package safetensors to read {path}, got none: pip install safetensors"
        raise CheckpointError(message) from error
    try:
        return dict(library.load_file(path))
    except Exception as error:  # its errors have no common class
        message = f"Expected a safetensors file at {path}, got {' '.join(str(error).split())[:300]}"
        raise CheckpointError(f"{message}: save it again with safetensors.torch.save_file") from error


def _library() -> ModuleType:
    import safetensors.torch  # noqa: PLC0415 - only who has such files needs it

    return safetensors.torch


def _foreign(path: Path) -> str:
    """Return the likely kind of a file that torch does not read as plain tensors, and what is expected.

    torch's own message is left out: it suggests allowing a foreign file to execute code.
    """
    import zipfile  # noqa: PLC0415 - only for the message

    remedy = "save it with torch.save(network.state_dict(), path)"
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.rpartition("/")[2] == "data.pkl" for name in names):
            script = any("/code/" in name for name in names)
            kind = "TorchScript" if script else "a file of torch with other objects than tensors (a whole network?)"
        else:
            kind = "a zip of something else"
    elif not path.is_file():
        kind = "no file"
    else:
        kind = f"{path.stat().st_size} bytes that torch does not read as tensors, cut short or of another kind"
    return f"Expected a state dict (names and tensors, and no other objects) in {path}, got {kind}: {remedy}"


def _narrow(network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Resize every layer of ``network`` to the shapes in ``state``; a wider layer is left, and fails to load."""
    for name, module in network.named_modules():
        for own, tensor in list(module.named_parameters(recurse=False)) + list(module.named_buffers(recurse=False)):
            new = state.get(f"{name}.{own}" if name else own)
            if new is None or new.shape == tensor.shape or new.ndim != tensor.ndim:
                continue
            if not all(0 < small <= wide for small, wide in zip(new.shape, tensor.shape, strict=True)):
                continue
            empty = torch.empty_like(new)
            setattr(module, own, nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty)
            _resize(module, new)


def _resize(module: nn.Module, shaped: torch.Tensor) -> None:
    """Set the module's own size attributes, which export and MAC counting read; its groups keep their size."""
    if isinstance(module, nn.Conv2d) and shaped.ndim == 4:  # noqa: PLR2004 - (out, in / groups, height, width)
        module.groups = max(1, shaped.shape[0] * module.groups // module.out_channels)
        module.in_channels = shaped.shape[1] * module.groups
    if isinstance(module, nn.ConvTranspose2d) and shaped.ndim == 4:  # noqa: PLR2004 - (in, out / groups, height, width)
        module.groups = max(1, shaped.shape[0] * module.groups // module.in_channels)
        module.in_channels, module.out_channels = shaped.shape[0], shaped.shape[1] * module.groups
    if isinstance(module, nn.GroupNorm):
        module.num_groups = max(1, shaped.shape[0] * module.num_groups // module.num_channels)
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(shaped.shape)
    for kind, sizes in _SIZES.items():
        if isinstance(module, kind):
            for attribute, axis in sizes:
                if axis < shaped.ndim:
                    setattr(module, attribute, shaped.shape[axis])
