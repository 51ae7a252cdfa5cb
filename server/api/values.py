"""Whole numbers in paths and queries that the store can hold: others are a caller's mistake, never a fault of ours."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

StoredNumber = Annotated[int, Field(ge=0, lt=2**63)]
"""An id or a time in UTC ms, as signed 64 bits hold it."""
