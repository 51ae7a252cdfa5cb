"""Networks. The folder is the registry: each has ``build(classes, channels, height, width, **options) -> nn.Module``.

Every network's forward takes float32 (N, C, H, W) and returns (logits (N, classes), embedding (N, D)). A person's own
network may also come from a function that takes only ``num_classes``, and return only logits, as torchvision's do: then
the embedding is the input of its last linear layer. ``torchvision:NAME`` and ``timm:NAME`` are networks of those
libraries by the names that they list; they come without weights, because nothing is downloaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from compressor import plugins
from compressor.errors import CompressorError, PluginError
from edge_agent import decoders
from wire.settings import nearest

_INIT_SEED = 20_250_101
_SUM_SLACK = 1e-4
_PHOTO = 3
_MAKERS = {"torchvision": ("torchvision.models:get_model", "torchvision.models:list_models"),
           "timm": ("timm:create_model", "timm:list_models")}  # fmt: skip
_LISTS = {"torchvision": "https://docs.pytorch.org/vision/stable/models.html", "timm": "timm.list_models()"}


def networks() -> tuple[str, ...]:
    """Return the names of the networks in this folder."""
    return plugins.names(__name__)


def build(
    name: str, classes: int, channels: int, height: int, width: int, options: Mapping[str, int | float] | None = None
) -> nn.Module:
    """Return an untrained network; the same arguments give the same weights.

    Raises:
        PluginError: If the network is unknown, rejects an option, fails while being built, or does not return
            (logits, embedding) of these shapes.
    """
    found = _of_library(name) or plugins.resolve(__name__, name, "build", known=networks())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_INIT_SEED)
        try:
            network = _called(found, (classes, channels, height, width), options or {})
        except TypeError as error:
            message = f"Expected options that network {name!r} knows, got {dict(options or {})}: {error}"
            raise PluginError(message) from error
        except CompressorError:
            raise
        except Exception as error:  # torch, or a person's own network, may raise anything
            given = f"{classes} classes, {channels} x {height} x {width}, {dict(options or {})}"
            message = f"Expected network {name!r} to build for {given}, got {plugins.failure(error)}"
            raise PluginError(message) from error
    if not isinstance(network, nn.Module):
        message = f"Expected {name!r} to return a torch.nn.Module, got {type(network).__name__}"
        raise PluginError(message)
    return with_embedding(name, network, classes, torch.zeros(2, channels, height, width))


def _of_library(name: str) -> Callable[..., nn.Module] | None:
    """Return the builder of ``library:network``; None for every other name.

    Raises:
        PluginError: If the library is missing, or lists no such network.
    """
    library, colon, network = name.partition(":")
    if not colon or library not in _MAKERS:
        return None
    make, known = (cast("Any", plugins.resolve(__name__, one, "", known=())) for one in _MAKERS[library])
    names: tuple[str, ...] = tuple(known())
    if network not in names:
        hint = nearest(network, names) or f": {_LISTS[library]} has their names"
        message = f"Expected a network that {library} lists, got {network!r}{hint}"
        raise PluginError(message)

    def build(classes: int, channels: int, height: int, width: int, **options: float) -> nn.Module:
        del height, width  # those that need them take them as options
        if library == "timm":
            return cast("nn.Module", make(network, pretrained=False, num_classes=classes, in_chans=channels, **options))
        if channels != _PHOTO:
            message = f"Expected 3 channels for {name}, got {channels}: set [data] colour, or take one of timm"
            raise PluginError(message)
        return cast("nn.Module", make(network, num_classes=classes, **options))

    return build


def _called(found: Callable[..., object], given: tuple[int, int, int, int], options: Mapping[str, object]) -> object:
    """Return what ``found`` builds, called with our arguments or, if it takes only that, with ``num_classes``."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # compiled code may have no signature
        return found(*given, **options)
    try:
        signature.bind(*given, **options)
    except TypeError:
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        if "num_classes" in signature.parameters or inspect.Parameter.VAR_KEYWORD in kinds:
            return found(num_classes=given[0], **options)
    return found(*given, **options)


class Headed(nn.Module):
    """A network that returns only logits, split before its last linear layer: ``body`` gives the embedding."""

    def __init__(self, body: nn.Module, head: nn.Linear, path: str) -> None:
        """Store both; ``head`` takes the output of ``body``, where it stood at ``path``."""
        super().__init__()
        self.body = body
        self.head = head
        self.path = path

    def own_names(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return weights of the network that was split, with the names that they have here."""
        first = f"{self.path}."
        return {
            f"head.{name[len(first) :]}" if name.startswith(first) else f"body.{name}": value
            for name, value in state.items()
        }

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding) of ``x``, float32 (N, C, H, W)."""
        embedding = self.body(x)
        return self.head(embedding), embedding


def _headed(network: nn.Module, classes: int, inputs: torch.Tensor, logits: torch.Tensor) -> nn.Module | None:
    """Return ``network`` with an embedding; None if its last linear layer does not compute ``logits``."""
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not found or not found[-1][0] or found[-1][1].out_features != classes:
        return None
    path, head = found[-1]
    parent, _, own = path.rpartition(".")
    setattr(network.get_submodule(parent), own, nn.Identity())
    made = Headed(network, head, path).eval()
    with torch.no_grad():
        again, embedding = made(inputs)
    return made if embedding.ndim == 2 and torch.equal(again, logits) else None  # noqa: PLR2004 - (N, D)


def with_embedding(name: str, network: nn.Module, classes: int, inputs: torch.Tensor) -> nn.Module:
    """Return ``network`` in evaluation mode, checked; one that returns only logits is extended by an embedding.

    ``name`` is used in messages; the network is tried with ``inputs``, float32 (2, C, H, W).

    Raises:
        PluginError: If it fails on ``inputs``, or does not return (logits, embedding) of these shapes.
    """
    network.eval()
    if decoder_of(network):
        return _detector(name, network, classes, inputs)
    try:
        with torch.no_grad():
            outputs = network(inputs)
            alone = isinstance(outputs, torch.Tensor) and outputs.shape == (len(inputs), classes)
            whole = _headed(network, classes, inputs, outputs) if alone else network
            outputs = whole(inputs) if alone and whole is not None else outputs
    except Exception as error:  # as above
        message = f"Expected {name!r} to take inputs of {tuple(inputs.shape)}, got {plugins.failure(error)}"
        raise PluginError(message) from error
    if whole is None and not torch.isfinite(outputs).all():
        message = f"Expected finite logits from {name!r}, got NaN or infinity"
        raise PluginError(f"{message}: take weights from before training diverged, and check layers that divide")
    if whole is None:
        _check_logits(name, outputs)
        message = f"Expected {name!r} to return (logits (N, classes), embedding (N, D)), got logits alone"
        raise PluginError(f"{message} that no linear layer ends in: return both")
    if not isinstance(outputs, tuple) or [output.ndim for output in outputs] != [2, 2]:
        got = f"a tensor {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        message = f"Expected {name!r} to return (logits (N, classes), embedding (N, D)) of {classes} classes, got {got}"
        raise PluginError(message)
    if tuple(outputs[0].shape) != (len(inputs), classes):
        message = f"Expected logits of {(len(inputs), classes)} from {name!r}, got {tuple(outputs[0].shape)}"
        raise PluginError(message)
    _check_logits(name, outputs[0])
    return whole


def decoder_of(network: nn.Module) -> str:
    """Return the file of ``edge_agent/decoders`` that reads the outputs of ``network``, its ``decoder``; "": none."""
    return str(getattr(network, "decoder", ""))


def _detector(name: str, network: nn.Module, classes: int, inputs: torch.Tensor) -> nn.Module:
    """Return ``network``, whose first output is for its decoder, checked.

    Raises:
        PluginError: If it fails on ``inputs``, or does not return (outputs, embedding (N, D)) in the decoder's shape.
    """
    try:
        with torch.no_grad():
            outputs = network(inputs)
        shape = decoders.output_shape(decoder_of(network), classes)
    except Exception as error:  # as in ``with_embedding``
        message = f"Expected {name!r} to take inputs of {tuple(inputs.shape)}, got {plugins.failure(error)}"
        raise PluginError(message) from error
    got = [tuple(output.shape) for output in outputs] if isinstance(outputs, tuple) else [type(outputs).__name__]
    fits = len(got) == 2 and len(got[0]) == len(shape) and len(got[1]) == 2  # noqa: PLR2004 - outputs and (N, D)
    if not fits or any(want not in {-1, size} for want, size in zip(shape, got[0], strict=True)):
        message = f"Expected {name!r} to return outputs {shape} and an embedding (N, D), got {got}"
        raise PluginError(f"{message}: build it for {classes} classes")
    return network


def _check_logits(name: str, outputs: torch.Tensor) -> None:
    """Check that ``outputs``, (N, classes), are not probabilities.

    Raises:
        PluginError: If every row is positive and sums to 1.
    """
    said = outputs.double()
    if said.shape[1] > 1 and bool((said >= 0).all()) and bool(((said.sum(dim=1) - 1).abs() < _SUM_SLACK).all()):
        message = f"Expected logits from {name!r}, got probabilities (each row sums to 1)"
        raise PluginError(f"{message}: return what goes into the softmax, the loss and the device have their own")
