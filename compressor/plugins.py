"""The folder is the registry: a plug-in is a module of a package, or ``my_package.my_module:function``.

Decides how a name becomes a function. Nothing is imported before it is requested, so a missing package affects only
those who use the plug-in, and the error names it.

torchvision, which networks and a person's own plug-ins import, works beside a CPU build of torch: on the package index
it is a CUDA build, whose import fails there with "operator torchvision::nms does not exist". Declaring the operators
first fixes that and changes nothing if the real extension loads. A finder at the front of ``sys.meta_path`` declares
them when torchvision is about to be imported, so torch is not loaded otherwise.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.errors import PluginError
from wire.plugins import names
from wire.settings import nearest

__all__ = ["attribute", "failure", "names", "resolve"]

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[Any] = []
"""Referenced here, because a library that is garbage-collected takes its declarations with it."""


def resolve(package: str, name: str, function: str, *, known: tuple[str, ...]) -> Callable[..., object]:
    """Return ``function`` of the plug-in ``name`` in ``package``, or the function that a dotted path names.

    Raises:
        PluginError: If there is no such plug-in or function, or a package it needs is missing.
    """
    if ":" in name:
        module_name, _, function = name.partition(":")
    elif name in known:
        module_name = f"{package}.{name}"
    else:
        message = f"Expected a plug-in of {package} ({', '.join(known)}) or 'package.module:function', got {name!r}"
        raise PluginError(message + nearest(name, known))
    found: object = getattr(_module(module_name, name), function, None)
    if not callable(found):
        message = f"Expected a function {function!r} in {module_name}, got {type(found).__name__}"
        raise PluginError(message)
    return found


def attribute(name: str) -> object:
    """Return the object named by ``name``, ``my_package.my_module:ATTRIBUTE``; None if there is no such attribute.

    Raises:
        PluginError: If the module, or a package it needs, is missing or fails to import.
    """
    module_name, _, found = name.partition(":")
    return getattr(_module(module_name, name), found, None)


def _module(module_name: str, name: str) -> object:
    if _Declaring not in sys.meta_path:  # a person's own plug-ins may import torchvision directly
        sys.meta_path.insert(0, _Declaring)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        message = f"Expected the package {error.name!r} for {name!r}, got none: install it beside tinyfleet"
        raise PluginError(message) from error
    except Exception as error:  # importing runs the plug-in's code, which may raise anything
        message = f"Expected {name!r} to import, got {failure(error)}"
        raise PluginError(message) from error


def failure(error: Exception) -> str:
    """Return what a plug-in raised and where, for its author: ``KeyError: 'x' in mine.py, line 3``."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {str(error)[:200]}{place}: mend the plug-in"


class _Declaring:
    """Declares torchvision's operators before it is imported; never finds a module itself."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        if name == "torchvision" and not _libraries:
            import torch  # noqa: PLC0415 - torchvision imports it next

            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for operator, schema in _SCHEMAS.items():
                library.define(operator + schema)  # type: ignore[no-untyped-call]
            _libraries.append(library)
        return None
