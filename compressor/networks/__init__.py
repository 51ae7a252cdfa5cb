"""Networks. The folder is the registry: each has ``build(classes, channels, height, width, **options) -> nn.Module``.

Every network's forward takes float32 (N, C, H, W) and returns (logits (N, classes), embedding (N, D)).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from compressor import registry
from compressor.errors import CompressorError, PluginError

_INIT_SEED = 20_250_101
_SUM_SLACK = 1e-4


def networks() -> tuple[str, ...]:
    """Return the names of the networks in this folder."""
    return registry.names(__name__)


def build(
    name: str, classes: int, channels: int, height: int, width: int, options: Mapping[str, int | float] | None = None
) -> nn.Module:
    """Return an untrained network; the same arguments give the same weights.

    Raises:
        PluginError: If there is no such network, it does not know an option, can't be built with these or fails with
            an error of its own, or it does not return (logits, embedding) of these shapes.
    """
    found = registry.resolve(__name__, name, "build", known=networks())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_INIT_SEED)
        try:
            network = found(classes, channels, height, width, **(options or {}))
        except TypeError as error:
            message = f"Expected options that network {name!r} knows, got {dict(options or {})}: {error}"
            raise PluginError(message) from error
        except CompressorError:
            raise
        except Exception as error:  # torch refuses sizes with whatever comes up; a network of one's own is foreign code
            given = f"{classes} classes, {channels} x {height} x {width}, {dict(options or {})}"
            message = f"Expected network {name!r} to build for {given}, got {registry.failure(error)}"
            raise PluginError(message) from error
    if not isinstance(network, nn.Module):
        message = f"Expected {name!r} to return a torch.nn.Module, got {type(network).__name__}"
        raise PluginError(message)
    _check_outputs(name, network, classes, torch.zeros(2, channels, height, width))
    return network


def _check_outputs(name: str, network: nn.Module, classes: int, inputs: torch.Tensor) -> None:
    network.eval()
    try:
        with torch.no_grad():
            outputs = network(inputs)
    except Exception as error:  # as above
        message = f"Expected {name!r} to take inputs of {tuple(inputs.shape)}, got {registry.failure(error)}"
        raise PluginError(message) from error
    if not isinstance(outputs, tuple) or [output.ndim for output in outputs] != [2, 2]:
        message = f"Expected {name!r} to return (logits (N, classes), embedding (N, D)), got {type(outputs).__name__}"
        raise PluginError(message)
    if tuple(outputs[0].shape) != (len(inputs), classes):
        message = f"Expected logits of {(len(inputs), classes)} from {name!r}, got {tuple(outputs[0].shape)}"
        raise PluginError(message)
    said = outputs[0].double()
    if classes > 1 and bool((said >= 0).all()) and bool(((said.sum(dim=1) - 1).abs() < _SUM_SLACK).all()):
        message = f"Expected logits from {name!r}, got probabilities (each row sums to 1)"
        raise PluginError(f"{message}: return what goes into the softmax, the loss and the device have their own")
