"""Exit codes of the device's commands, and how an error becomes one. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_agent.device.disk import advice
from edge_agent.errors import (
    AgentConfigError,
    AgentError,
    EnrolmentError,
    IdentityError,
    IdentityInUseError,
    RequestRefusedError,
    SourceError,
    SpoolError,
)
from wire.errors import WireError

EXIT_FAULT, EXIT_UNUSABLE, EXIT_IN_USE, EXIT_ENROLMENT, EXIT_DISK, EXIT_REFUSED = 1, 3, 4, 5, 6, 11
_EXITS: tuple[tuple[type[Exception], int], ...] = (
    (IdentityInUseError, EXIT_IN_USE),
    (EnrolmentError, EXIT_ENROLMENT),
    (IdentityError, EXIT_UNUSABLE),
    (AgentConfigError, EXIT_UNUSABLE),
    (SourceError, EXIT_UNUSABLE),
    (SpoolError, EXIT_DISK),
    (RequestRefusedError, EXIT_REFUSED),
    (OSError, EXIT_DISK),
)


STOPS = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a command that serves, with exit code 0."""


def end_at_once_when_stopped() -> None:
    """End this process with exit code 0 at the first of ``STOPS``: of a command that has begun nothing yet.

    A command calls it before it loads what takes long, and sets handlers of its own once there is something to end.
    """
    for number in STOPS:
        signal.signal(number, lambda *_: os._exit(0))


@contextlib.contextmanager
def coded(state: Path) -> Iterator[None]:
    """Turn errors of the ``with`` block into ``error [code]: message`` and an exit code; never a traceback."""
    try:
        yield
    except BrokenPipeError:  # the reader closed the pipe: click ends quietly
        raise
    except (AgentError, WireError, OSError) as error:
        code, words = getattr(error, "code", "disk"), str(error)
        if isinstance(error, RequestRefusedError):
            code = error.refused
        if isinstance(error, OSError):
            words = f"Expected files that can be read and written, got: {words}: {advice(state, error)}"
        print(f"error [{code}]: {words}", file=sys.stderr)
        sys.exit(next((number for kind, number in _EXITS if isinstance(error, kind)), EXIT_FAULT))
