"""Names and reasons recorded with decisions: the name used when none was given, and their maximum lengths."""

from __future__ import annotations

SOMEBODY = "an operator"
MAX_NAME, MAX_WHY = 100, 500
