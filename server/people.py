"""Who decided something, and why, as it is kept: the words for nobody named, and how long each may be."""

from __future__ import annotations

SOMEBODY = "an operator"
MAX_NAME, MAX_WHY = 100, 500
