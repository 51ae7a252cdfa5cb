"""Checks the settings of an external source in a separate process, because importing it may load or crash anything.

The process is ``python -m edge_agent.sources``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from wire.codec import Json
from wire.errors import SettingsError

LIMIT_S = 60.0  # limit for an import that hangs; a framework on a small board takes ten


def checked(kind: str, keys: Mapping[str, object], where: str, folder: Path | None) -> dict[str, Json]:
    """Return the given keys that are not at their defaults, as the source ``kind`` accepts them.

    Raises:
        SettingsError: If it can't be imported, rejects them, crashes its process, or exceeds ``LIMIT_S``.
    """
    asked = {"kind": kind, "keys": dict(keys), "where": where, "folder": None if folder is None else str(folder)}
    command = [sys.executable, "-m", "edge_agent.sources"]
    try:
        done = subprocess.run(
            command,
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
