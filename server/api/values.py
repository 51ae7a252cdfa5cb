"""Types of values that many requests share, a base of answers that copy a value of the server, and what lists share.

A request with a value outside these types is a caller's error, never a fault of the server. A list is asked for again
with ``cursor`` = ``next`` of the answer before, and the same filters, until ``next`` is null.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import BaseModel, Field

from server.errors import PageNeededError
from server.people import MAX_NAME, MAX_WHY
from server.store.lists.paging import Page

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


MAX_LIMIT = 1_000
Limit = Annotated[int | None, Query(ge=1, le=MAX_LIMIT)]
"""How many rows at most; None: as many as one answer has by default."""
Cursor = Annotated[str | None, Query(min_length=1, max_length=2_000)]
"""The ``next`` of the page before."""
Search = Annotated[str, Query(max_length=200)]
"""Words, each of which must be found, in any case; "" for no search."""
Name = Annotated[str, Query(max_length=200)]
"""The value of a filter; "" for any."""


class PageBody(BaseModel):
    """``next``: the ``cursor`` of the next page, null at the end; ``total``: rows of all pages, on the first one."""

    next: str | None = None
    total: int | None = None


def check_whole(page: Page[Any], limit: int | None, cursor: str | None) -> None:
    """Check that a caller who asked for no page gets all rows: without an error, a part would look like the whole.

    Raises:
        PageNeededError: If there are more rows than one answer has.
    """
    if page.next is not None and limit is None and cursor is None:
        shown = len(page.rows)
        message = (
            f"Expected limit in the query for a list of {page.total} entries, got none: ask with limit={shown}, then "
            "with cursor=NEXT, the next of each answer, until that is null"
        )
        raise PageNeededError(message)
