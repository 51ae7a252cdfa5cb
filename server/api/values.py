"""Values that many requests have, and answers that show a value of the server as it is.

Other values in a request than these are a caller's mistake, never a fault of ours.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field

from server.people import MAX_NAME, MAX_WHY

StoredNumber = Annotated[int, Field(ge=0, lt=2**63)]
"""An id or a time in UTC ms, as signed 64 bits hold it."""
Person = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
"""Who decides something."""
Why = Annotated[str, Field(max_length=MAX_WHY)]
"""Why it is decided; "" where that is not said."""


class Shown(BaseModel):
    """An answer whose fields are those of a value of the server, by the same names."""

    @classmethod
    def of(cls, value: object) -> Self:
        """Return ``value`` as it is shown."""
        return cls.model_validate(value, from_attributes=True)
