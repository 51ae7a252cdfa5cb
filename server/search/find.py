"""Finds things of every kind by words, a few of each: bounded by the database, however large the fleet is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from server.store.database import Database
from server.store.lists.search import QUERIES, found_rows

MAX_TEXT, MAX_WORDS = 200, 8
ADMINS = frozenset({"user"})
"""Kinds that only admins find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundThing:
    """One thing: its ``kind`` and ``id``, what it is called, and a detail in words."""

    kind: str
    id: str
    text: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundKind:
    """What was found of one kind, the closest first; ``more``: whether there is more than is shown."""

    kind: str
    things: tuple[FoundThing, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Search:
    """The search of one server. Safe to share between threads."""

    database: Database

    def find(self, text: str, *, each: int, admin: bool) -> tuple[FoundKind, ...]:
        """Return the first ``each`` of every kind that have all words of ``text``, in any case; only kinds with some.

        Args:
            text: words; more than ``MAX_WORDS``, or letters beyond ``MAX_TEXT``, are cut off.
            each: how many of a kind at most.
            admin: whether users are among them.
        """
        words = text[:MAX_TEXT].split()[:MAX_WORDS]
        found = []
        for kind in QUERIES:
            if kind in ADMINS and not admin:
                continue
            with self.database.begin() as connection:
                rows = found_rows(connection, kind, words, each + 1)
            if rows:
                things = tuple(_MADE[kind](row) for row in rows[:each])
                found.append(FoundKind(kind=kind, things=things, more=len(rows) > each))
        return tuple(found)


def _device(row: sa.RowMapping) -> FoundThing:
    title, tags = str(row["title"]), " ".join(f"#{tag}" for tag in row["tags"].split())
    detail = [row["ended"] or "", f"site {row['site']}", row["device"] if title else "", tags]
    return _thing("device", row["device"], title or row["device"], *detail)


def _release(row: sa.RowMapping) -> FoundThing:
    return _thing("release", row["name"], row["name"], "withdrawn" if row["withdrawn_ms"] else "")


def _rollout(row: sa.RowMapping) -> FoundThing:
    return _thing("rollout", row["id"], f"{row['release']}", row["id"], row["phase"].replace("_", " "))


def _verdict(row: sa.RowMapping) -> FoundThing:
    state = "closed" if row["closed_ms"] else "open"
    return _thing("verdict", row["id"], f"{row['id']}: {row['kind'].replace('_', ' ')}", state, row["cause"])


def _sample(row: sa.RowMapping) -> FoundThing:
    label = f"label {row['label']}" if row["label"] else "no label"
    return _thing("sample", row["id"], f"{row['id']} of {row['device']}", label, row["model"])


def _job(row: sa.RowMapping) -> FoundThing:
    return _thing("job", row["id"], f"{row['model']}", row["id"], row["state"], row["release"], row["worker"])


def _user(row: sa.RowMapping) -> FoundThing:
    return _thing("user", row["name"], row["name"], row["role"], "disabled" if row["disabled_ms"] else "")


def _thing(kind: str, identity: object, text: str, *details: str) -> FoundThing:
    return FoundThing(kind=kind, id=str(identity), text=text, detail=", ".join(part for part in details if part))


_MADE: Mapping[str, Callable[[sa.RowMapping], FoundThing]] = {
    "device": _device, "release": _release, "rollout": _rollout, "verdict": _verdict, "sample": _sample, "job": _job,
    "user": _user,
}  # fmt: skip
