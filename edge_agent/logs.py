"""The log of the device's processes: one format on standard error, because all write to one journal."""

from __future__ import annotations

import logging
import sys


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write records of ``level`` and above to standard error."""
    text = "time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"
    logging.basicConfig(level=level, format=text, stream=sys.stderr)
