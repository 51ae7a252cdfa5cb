"""Sources and sinks from outside of this package, ``my_package.my_module:function``: import, and a check of their keys.

Their modules may import anything, hang, or end the process that imports them. So the control process doesn't import
them: ``python -m edge_agent.outside`` checks their keys in a process of its own and prints them as JSON.
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
from wire.codec import Json
from wire.errors import SettingsError

LIMIT_S = 60.0  # limit for an import that hangs; a framework on a small board takes ten


@dataclass(frozen=True, slots=True)
class NoSettings:
    """The settings of a plug-in that declares none."""


def declared(kind: str, what: str, error: type[AgentError]) -> tuple[type[Any], Callable[..., Any]]:
    """Return ``Settings`` and the function that ``kind`` names; ``what``: source or sink, for messages.

    Raises:
        AgentError: As ``error``, if its module can't be imported or has no such function.
    """
    name, _, function = kind.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as raised:  # a person's own code may raise anything
        message = f"Expected the {what} {kind!r} to import, got {type(raised).__name__}: {str(raised)[:200]}"
        raise error(f"{message}: install its package beside the agent, or correct it") from raised
    opener = getattr(module, function, None)
    if not callable(opener):
        message = f"Expected a function {function!r} in {name}, got {type(opener).__name__}"
        raise error(f"{message}: name it in kind")
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
