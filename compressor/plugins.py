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
    found = _member(_module(module_name, name), function)
    if not callable(found):
        message = f"Expected a function {function!r} in {module_name}, got {type(found).__name__}"
        raise PluginError(message)
    return found


def attribute(name: str) -> object:
    """Return the object named by ``name``, ``my_package.my_module:ATTRIBUTE``.

    Raises:
        PluginError: If the module, or a package it needs, is missing or fails to import, or has no such attribute.
    """
    module_name, _, found = name.partition(":")
    return _member(_module(module_name, name), found)


def _member(module: ModuleType, name: str) -> object:
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        message = f"Expected {name!r} in {module.__name__}, got no such name"
        raise PluginError(f"{message}{nearest(name, public) or f' in {module.__file__}: define it there'}")
    return getattr(module, name)


def _module(module_name: str, name: str) -> ModuleType:
    if _Declaring not in sys.meta_path:  # a person's own plug-ins may import torchvision directly
        sys.meta_path.insert(0, _Declaring)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        own = (error.name or "").partition(".")[0] == module_name.partition(".")[0]
        remedy = "put its folder on PYTHONPATH or install it" if own else "install it beside tinyfleet"
        message = f"Expected the {'module' if own else 'package'} {error.name!r} for {name!r}, got none: {remedy}"
        raise PluginError(message) from error
    except SystemExit as error:  # a script that parses its arguments at import: its exit code must not become ours
        message = f"Expected {name!r} to import, got the end of the program, exit({error.code!r})"
        raise PluginError(f"{message}: move what runs at import below `if __name__ == '__main__':`") from error
    except Exception as error:  # importing runs the plug-in's code, which may raise anything
        message = f"Expected {name!r} to import, got {failure(error)}"
        raise PluginError(message) from error


def failure(error: Exception) -> str:
    """Return what a plug-in raised and where, for its author: ``KeyError: 'x' in mine.py, line 3``."""
    traced = None if isinstance(error, SyntaxError) else error.__traceback__  # a syntax error names its own place
    frames = traceback.extract_tb(traced)
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
