"""What a receiver gets, and the files of secrets that receivers read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.alerts.picture import DrawnEvidence
from server.errors import ConfigError
from wire.codec import Json

_MAX_SECRET_BYTES = 4_096
SHOWN = 300
"""Characters of an answer that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeMessage:
    """One notice on its way. ``key``: the same each time that it is sent; ``body``: its document, JSON in UTF-8.

    ``alert``: the id, 0 for a trial. ``sent_s``: when this try began, in UTC seconds.
    """

    key: str
    alert: int
    event: str
    body: bytes
    sent_s: int
    picture: DrawnEvidence | None = None

    @property
    def document(self) -> dict[str, Json]:
        """The document as a value."""
        found: dict[str, Json] = json.loads(self.body)
        return found


class Receiver(Protocol):
    """Sends notices by one route."""

    def check(self) -> None:
        """Check, without sending anything, that files and packages are there.

        Raises:
            ConfigError: If one is missing, or a secret is readable by others.
        """

    def send(self, message: NoticeMessage) -> str:
        """Send one notice; return what the receiver answered when it accepted it.

        Raises:
            DeliveryError: If it did not accept it.
            ConfigError: As ``check``.
        """


def secret_in(file: str, least: int = 1) -> str:
    """Return the secret in ``file``, without blanks around it; it has at least ``least`` characters.

    Raises:
        ConfigError: If the file can't be read, is readable by others, or holds no such secret. Nothing of it is shown.
    """
    path = Path(file)
    try:
        mode = path.stat().st_mode
        with path.open("rb") as opened:
            data = opened.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        message = f"Expected a file with a secret at {file}, got: {error.strerror}"
        raise ConfigError(message) from error
    if mode & 0o077:
        raise ConfigError(f"Expected {file} to be readable by its owner alone, got mode {mode & 0o777:o}: chmod 600 it")
    text = data.decode(errors="replace").strip()
    if not least <= len(text) <= _MAX_SECRET_BYTES or "\n" in text:
        raise ConfigError(f"Expected one line with a secret of at least {least} characters in {file}, got another text")
    return text


def line_of(answer: str) -> str:
    """Return what a receiver answered as one line that is short enough to keep."""
    return "".join(one if one.isprintable() else " " for one in answer)[:SHOWN].strip()
