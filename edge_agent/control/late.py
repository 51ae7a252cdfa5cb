"""Modules of the standard library that this process imports on first use, although others import them at their top.

``paho-mqtt`` imports ``urllib.request`` for proxies, ``dataclasses`` imports ``inspect`` for documentation, and so on:
3 MB of private memory for what a control process does seldom, such as a download over HTTP, or never. ``put_off``
puts a small object in the place of each, which imports the module when an attribute of it is read. A download, or a
failure that is logged with its stack, takes the memory then. Modules of ours are not put off: what they need is here.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any

PUT_OFF = (
    "ast", "base64", "copy", "http.client", "inspect", "ipaddress", "locale", "ntpath", "shutil", "tokenize",
    "traceback", "urllib.error", "urllib.request", "uuid",
)  # fmt: skip
"""Imported by paho-mqtt, dataclasses, logging, pathlib, subprocess and the like, or by us for what happens seldom."""

_LOCK = threading.Lock()


class _Late(ModuleType):
    """Stands in the place of a module until an attribute of it is read."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of any module
        """Return the attribute of the real module, which is imported now.

        Raises:
            AttributeError: For ``__spec__`` and the like, which the import system asks for, or if it has none.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        with _LOCK:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def put_off() -> None:
    """Put off the modules that are not imported yet; to be called before anything else is imported."""
    for name in PUT_OFF:
        if name in sys.modules:
            continue
        package, _, last = name.rpartition(".")
        sys.modules[name] = late = _Late(name)
        if package:
            setattr(importlib.import_module(package), last, late)


def put_off_still() -> frozenset[str]:
    """Return the names of those that nothing has used yet."""
    return frozenset(name for name in PUT_OFF if isinstance(sys.modules.get(name), _Late))
