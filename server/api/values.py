"""Types of values that many requests share, and a base of answers that copy a value of the server.

A request with a value outside these types is a caller's error, never a fault of the server.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field

from server.people import MAX_NAME, MAX_WHY

StoredNumber = Annotated[int, Field(ge=0, lt=2**63)]
"""An id or a time in UTC ms, within signed 64 bits."""
Person = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
"""Who decides something."""
Why = Annotated[str, Field(max_length=MAX_WHY)]
"""Why it is decided; "" for no reason."""
Reason = Annotated[str, Field(min_length=1, max_length=MAX_WHY)]
"""Why it is decided, where a reason is needed."""


class ValueBody(BaseModel):
    """An answer whose fields have the names of a value's attributes."""

    @classmethod
    def of(cls, value: object) -> Self:
        """Return the answer with the attributes of ``value``."""
        return cls.model_validate(value, from_attributes=True)
