"""What ``kind`` of a source or sink may name: a file of its folder, or ``my_package.my_module:function`` from outside.

Modules from outside may import anything, hang, or end the process that imports them. So the control process doesn't
import them: ``python -m edge_agent.outside`` checks their keys in a process of its own and prints them as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.errors import AgentError
from wire import plugins
from wire.codec import Json
from wire.errors import SettingsError
from wire.settings import nearest

LIMIT_S = 60.0  # limit for an import that hangs; a framework on a small board takes ten


@dataclass(frozen=True, slots=True)
class NoSettings:
    """The settings of a plug-in that declares none."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of one folder of plug-ins, and those from outside.

    ``package``: the folder. ``what``: source or sink, for messages and for the function that opens one, ``open_source``
    or ``open_sink``. ``error``: raised for a child's document, and if a module from outside can't be imported.
    """

    package: str
    what: str
    error: type[AgentError]

    def names(self) -> tuple[str, ...]:
        """Return the names of the plug-ins in the folder."""
        return plugins.names(self.package)

    def check(self, kind: object, where: str) -> str:
        """Return ``kind`` of the table ``where`` if it is one.

        Raises:
            SettingsError: If it is neither in the folder nor from outside.
        """
        if isinstance(kind, str) and self._is_known(kind):
            return kind
        known = self.names()
        message = f"Expected {where} kind as one of {', '.join(known)} or 'package.module:function', got {kind!r}"
        raise SettingsError(message + nearest(str(kind), known))

    def split(self, document: Mapping[str, Json]) -> tuple[str, dict[str, Json]]:
        """Return the kind that the child's ``document`` names, and the other keys.

        Raises:
            AgentError: As ``error``, if it is neither in the folder nor from outside.
        """
        keys = dict(document)
        kind = keys.pop("kind", None)
        if not isinstance(kind, str) or not self._is_known(kind):
            message = f"Expected a {self.what} of {', '.join(self.names())}, got {kind!r}"
            raise self.error(message)
        return kind, keys

    def _is_known(self, kind: str) -> bool:
        return ":" in kind or kind in self.names()

    def declared(self, kind: str) -> tuple[type[Any], Callable[..., Any]]:
        """Return ``Settings`` of ``kind`` and the function that opens it.

        Raises:
            AgentError: As ``error``, if a module from outside can't be imported or has no such function.
        """
        if ":" not in kind:
            own: Any = importlib.import_module(f"{self.package}.{kind}")
            return own.Settings, getattr(own, f"open_{self.what}")
        name, _, function = kind.partition(":")
        try:
            module = importlib.import_module(name)
        except Exception as raised:  # a person's own code may raise anything
            message = f"Expected the {self.what} {kind!r} to import, got {type(raised).__name__}: {str(raised)[:200]}"
            raise self.error(f"{message}: install its package beside the agent, or correct it") from raised
        opener = getattr(module, function, None)
        if not callable(opener):
            message = f"Expected a function {function!r} in {name}, got {type(opener).__name__}"
            raise self.error(f"{message}: name it in kind")
        return getattr(module, "Settings", NoSettings), opener


def checked_apart(
    registry: str, kind: str, keys: Mapping[str, object], where: str, folder: Path | None
) -> dict[str, Json]:
    """Return the given keys that are not at their defaults, as ``checked`` of the package ``registry`` returns them.

    Raises:
        SettingsError: If the module can't be imported, rejects them, crashes its process, or exceeds ``LIMIT_S``.
    """
    asked = {
        "registry": registry, "kind": kind, "keys": dict(keys), "where": where,
        "folder": None if folder is None else str(folder),
    }  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edge_agent.outside"],
            input=json.dumps(asked, default=str),
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"Expected {where} kind {kind!r} to import within {LIMIT_S:g} s, got no end of it"
        raise SettingsError(message) from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        message = f"Expected {where} kind {kind!r} to import, got the end of its process ({done.returncode})"
        raise SettingsError(f"{message}: see what it wrote above") from error
    if "error" in answer:
        raise SettingsError(answer["error"])
    found: dict[str, Json] = answer["keys"]
    return found


def main() -> None:
    """Check the keys of one plug-in: reads registry, kind, keys and folder as JSON, prints keys or error as JSON."""
    asked = json.loads(sys.stdin.read())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of the module must not mix with the answer
    folder = None if asked["folder"] is None else Path(asked["folder"])
    registry = importlib.import_module(asked["registry"])
    answer: dict[str, object]
    try:
        answer = {"keys": registry.checked(asked["kind"], asked["keys"], asked["where"], folder)}
    except AgentError as error:
        answer = {"error": f"{asked['where']}: {error}"}
    except SettingsError as error:
        answer = {"error": str(error)}
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()
