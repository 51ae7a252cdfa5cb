"""Queries of the search over all: of each kind the first few rows that have every word, the closest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from server.store.fleet import DEVICES
from server.store.lists.paging import has_word
from server.store.monitoring.evidence import VERDICTS
from server.store.people.accounts import USERS
from server.store.registry import RELEASES
from server.store.retraining import JOBS, SAMPLES
from server.store.rollouts import ROLLOUTS

_MAX_ID = 2**63
_DEVICES = 20
Query: TypeAlias = Callable[[Sequence[str], str], "sa.Select[Any]"]
"""Returns the query for some words, which are also given as the one text that they are parts of."""


def found_rows(connection: sa.Connection, kind: str, words: Sequence[str], limit: int) -> list[sa.RowMapping]:
    """Return at most ``limit`` rows of ``kind`` (a key of ``QUERIES``) that have every one of ``words``."""
    if not words or any("\0" in word for word in words):
        return []  # no stored text has it
    return list(connection.execute(QUERIES[kind](words, " ".join(words)).limit(limit)).mappings())


def _devices(words: Sequence[str], text: str) -> sa.Select[Any]:
    column = DEVICES.c
    query = sa.select(column.device, column.title, column.site, column.tags, column.ended)
    return query.where(_each(words, column.device, column.title, column.site, column.tags)).order_by(
        column.ended != "", _closeness(text, column.device, column.title), column.device
    )


def _releases(words: Sequence[str], text: str) -> sa.Select[Any]:
    column = RELEASES.c  # one row for each target class
    newest, withdrawn = sa.func.max(column.registered_ms), sa.func.max(column.withdrawn_ms)
    query = sa.select(column.name, withdrawn.label("withdrawn_ms")).where(_each(words, column.name))
    return query.group_by(column.name).order_by(_closeness(text, column.name), newest.desc())


def _rollouts(words: Sequence[str], text: str) -> sa.Select[Any]:
    column = ROLLOUTS.c
    query = sa.select(column.id, column.release, column.phase)
    return query.where(_each(words, column.id, column.release)).order_by(
        _closeness(text, column.id, column.release), column.created_ms.desc()
    )


def _verdicts(words: Sequence[str], text: str) -> sa.Select[Any]:
    column = VERDICTS.c
    query = sa.select(column.id, column.kind, column.cause, column.model, column.release, column.closed_ms)
    has = _each(words, column.kind, column.cause, column.model, column.release, column.key)
    return query.where(sa.or_(has, column.id == _number(text))).order_by(
        sa.case((column.id == _number(text), 0), else_=1), column.closed_ms != 0, column.id.desc()
    )


def _samples(_: Sequence[str], text: str) -> sa.Select[Any]:
    """Return the samples with this number or label, or of the first devices whose id begins so, by the index."""
    column = SAMPLES.c
    query = sa.select(column.id, column.device, column.model, column.label)
    begins = sa.select(DEVICES.c.device).where(DEVICES.c.device.startswith(text, autoescape=True))
    of_device = column.device.in_(begins.order_by(DEVICES.c.device).limit(_DEVICES))
    fits = sa.or_(column.id == _number(text), column.label == text, of_device)
    return query.where(fits, column.expired_ms == 0).order_by(
        sa.case((column.id == _number(text), 0), else_=1), column.id.desc()
    )


def _jobs(words: Sequence[str], text: str) -> sa.Select[Any]:
    column = JOBS.c
    query = sa.select(column.id, column.model, column.state, column.release, column.worker)
    return query.where(_each(words, column.id, column.model, column.release, column.worker)).order_by(
        _closeness(text, column.id), column.created_ms.desc()
    )


def _users(words: Sequence[str], text: str) -> sa.Select[Any]:
    query = sa.select(USERS.c.name, USERS.c.role, USERS.c.disabled_ms).where(_each(words, USERS.c.name))
    return query.order_by(_closeness(text, USERS.c.name), USERS.c.name)


def _each(words: Sequence[str], *columns: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that each word is in one of the columns."""
    return sa.and_(*(sa.or_(*(has_word(column, word) for column in columns)) for word in words))


def _closeness(text: str, *columns: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    """Return 0 where a column is ``text``, 1 where one begins with it, else 2."""
    same = sa.or_(*(column == text for column in columns))
    begins = sa.or_(*(column.startswith(text, autoescape=True) for column in columns))
    return sa.case((same, 0), (begins, 1), else_=2)


def _number(text: str) -> int:
    """Return ``text`` as an id, -1, which nothing has, if it is none."""
    return int(text) if text.isascii() and text.isdecimal() and int(text) < _MAX_ID else -1


QUERIES: Mapping[str, Query] = {
    "device": _devices, "release": _releases, "rollout": _rollouts, "verdict": _verdicts, "sample": _samples,
    "job": _jobs, "user": _users,
}  # fmt: skip
"""By kind, in the order in which what is found is shown."""
