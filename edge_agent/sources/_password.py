"""The password of a camera or broker, from a file that only its owner may read."""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.errors import SourceError

_LONGEST_BYTES = 65_535  # MQTT 5.0, 3.1.3.6


def read_password(path: Path | None) -> str:
    """Return the first line of the file at ``path``; "" without one.

    Raises:
        SourceError: If it can't be read, others than its owner may, or it is no text.
    """
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LONGEST_BYTES)
        if mode & 0o077:
            message = f"Expected a password in {path} that only its owner may read, got mode {mode & 0o777:04o}"
            raise SourceError(f"{message}: chmod 600 {path}")
        return data.decode().partition("\n")[0].removesuffix("\r")
    except OSError as error:
        raise SourceError(f"Expected a password in {path}, got: {error.strerror}: correct password_file") from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"Expected a password as UTF-8 text in {path}, got: {error.reason}: write it again"
        ) from error
