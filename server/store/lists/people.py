"""Queries of lists of users, of tokens and of the log of acts, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from server.store.lists.paging import Order, Page, SortKey, equal, has_word, read_page
from server.store.people.accounts import TOKENS, USERS
from server.store.people.audit_log import AUDIT_LOG

_BY_NAME = Order("users", (SortKey(USERS.c.name, str),))
_TOKENS = Order("tokens", (SortKey(TOKENS.c.created_ms, int, descending=True), SortKey(TOKENS.c.id, str)))
_NEWEST = Order("acts", (SortKey(AUDIT_LOG.c.seq, int, descending=True),))


@dataclass(frozen=True, slots=True, kw_only=True)
class ActFilter:
    """Which acts; "" and None are not set.

    ``person``: the account that acted, or for whom a program said that it acted. ``act``: a code (``rollout.approve``)
    or what stands before its dot (``rollout``). ``subject``: the whole of it; ``search``: words in it, each of them.
    ``since_ms`` (inclusive) and ``until_ms`` (exclusive): UTC milliseconds.
    """

    person: str = ""
    act: str = ""
    subject: str = ""
    search: str = ""
    since_ms: int | None = None
    until_ms: int | None = None


def user_page(
    connection: sa.Connection, *, search: str, role: str, disabled: bool | None, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of users by name; ``search``: words in the name; ``disabled``: only those, or only the others.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    where = [*equal(USERS, role=role), *_words(USERS.c.name, search)]
    if disabled is not None:
        where.append((USERS.c.disabled_ms > 0) == disabled)
    return read_page(connection, USERS.select().where(*where), _BY_NAME, limit, cursor)


def token_page(  # noqa: PLR0913 - a filter and a place in the list
    connection: sa.Connection, *, search: str, owner: str, valid: bool | None, now_ms: int, limit: int,
    cursor: str | None,
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of tokens, the newest first; ``search``: words in name or owner; ``valid``: at ``now_ms``, or not.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    column = TOKENS.c
    where = [*equal(TOKENS, owner=owner)]
    where += [sa.or_(*pair) for pair in zip(_words(column.name, search), _words(column.owner, search), strict=True)]
    if valid is not None:
        alive = sa.and_(column.revoked_ms == 0, sa.or_(column.expires_ms == 0, column.expires_ms > now_ms))
        where.append(alive if valid else ~alive)
    asked = (search, owner, valid)  # not the time
    return read_page(connection, TOKENS.select().where(*where), _TOKENS, limit, cursor, asked=asked)


def act_page(
    connection: sa.Connection, wanted: ActFilter, *, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of acts, the newest first; it is not counted.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    column = AUDIT_LOG.c
    where = [*equal(AUDIT_LOG, subject=wanted.subject), *_words(column.subject, wanted.search)]
    if wanted.person:
        where.append(sa.or_(*equal(AUDIT_LOG, account=wanted.person), *equal(AUDIT_LOG, said=wanted.person)))
    if "." in wanted.act:
        where += equal(AUDIT_LOG, act=wanted.act)
    elif wanted.act:
        known = column.act.startswith(f"{wanted.act}.", autoescape=True)
        where += [sa.false()] if "\0" in wanted.act else [sa.or_(column.act == wanted.act, known)]
    if wanted.since_ms is not None:
        where.append(column.at_ms >= wanted.since_ms)
    if wanted.until_ms is not None:
        where.append(column.at_ms < wanted.until_ms)
    return read_page(connection, AUDIT_LOG.select().where(*where), _NEWEST, limit, cursor, counted=False)


def _words(column: sa.ColumnElement[str], search: str) -> list[sa.ColumnElement[bool]]:
    """Return the condition that ``column`` has a word, for each word of ``search``; NUL is in no stored text."""
    return [sa.false() if "\0" in word else has_word(column, word) for word in search.split()]
