"""Builds the wheels of this checkout; `scripts/package` starts it."""
