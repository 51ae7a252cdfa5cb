"""Networks of torchvision and timm by the names that these libraries list. Both are used as they are installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from compressor import plugins
from compressor.errors import PluginError
from wire.settings import nearest

LIBRARIES = ("torchvision", "timm")
_PHOTO = 3
_MAKERS = {"torchvision": ("torchvision.models:get_model", "torchvision.models:list_models"),
           "timm": ("timm:create_model", "timm:list_models")}  # fmt: skip
_LISTS = {"torchvision": "https://docs.pytorch.org/vision/stable/models.html", "timm": "timm.list_models()"}


def of_library(name: str) -> Callable[..., nn.Module] | None:
    """Return the builder of ``library:network``; None for every other name.

    Raises:
        PluginError: If the library is missing, or lists no such network.
    """
    library, colon, network = name.partition(":")
    if not colon or library not in LIBRARIES:
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
