"""Queries of one window's evidence, added up by cohort and stream: the database reads the details, not the server.

A cohort is the value of an attribute: of the claim, or else as the device reports it; ``site``, ``release`` (the one
that it reports) and ``device`` are attributes here too. Devices without the attribute have the value "".
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from server.store.fleet import DEVICES
from server.store.monitoring.evidence import EVIDENCE

SITE, RELEASE, DEVICE = "site", "release", "device"
_NUL = "\\u0000"
_JUDGED = "judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapQuery:
    """What is added up: evidence of windows that start in [``start_ms``, ``end_ms``), ``by`` an attribute.

    ``refs``: of these references alone, None for any. ``within``: (attribute, value) that a device must have, if set.
    """

    start_ms: int
    end_ms: int
    by: str
    refs: Collection[str] | None = None
    within: tuple[str, str] | None = None


def cohort_rows(
    connection: sa.Connection, query: MapQuery, *, stream: str, limit: int
) -> tuple[list[sa.RowMapping], int]:  # fmt: skip
    """Return the ``limit`` cohorts with most evidence, of one device, and how many cohorts there are.

    ``stream``: those with most evidence in that stream; "" for any. A row: ``cohort``, its ``devices``, how many have
    evidence in that window (``windows``), are ``flagged``, ``faulty`` or ``learning``, and the largest share of a
    threshold (``largest``). A cohort whose devices have no evidence comes last, with 0 windows.
    """
    cohort, evidence = _value(connection, query.by).label("cohort"), _ratio()
    first = _of_stream(connection, stream) * evidence if stream else evidence
    joined = DEVICES.outerjoin(EVIDENCE, sa.and_(EVIDENCE.c.device == DEVICES.c.device, *_window(query)))
    counted = sa.select(
        cohort, sa.func.count().label("devices"), sa.func.count(EVIDENCE.c.id).label("windows"),
        _count(EVIDENCE.c.flagged).label("flagged"), _count(EVIDENCE.c.fault != "").label("faulty"),
        _count(EVIDENCE.c.phase != _JUDGED).label("learning"), sa.func.max(evidence).label("largest"),
        sa.func.coalesce(sa.func.max(first), -1.0).label("first"),
    ).select_from(joined).where(*_fleet(connection, query)).group_by(cohort)  # fmt: skip
    table = counted.subquery()
    all_of_them = sa.select(*table.c, sa.func.count().over().label("cohorts"))
    most = sa.func.coalesce(table.c.largest, -1.0)
    shown = all_of_them.order_by(table.c.first.desc(), most.desc(), table.c.windows.desc(), table.c.cohort).limit(limit)
    found = list(connection.execute(shown).mappings())
    return found, int(found[0]["cohorts"]) if found else 0


def stream_rows(connection: sa.Connection, query: MapQuery, cohorts: Collection[str]) -> list[sa.RowMapping]:
    """Return, for each of ``cohorts``, stream and direction, what the devices' evidence holds of it.

    A row: ``cohort``, ``stream``, ``words``, the ``devices`` that name it, the ``sum`` of their shares of a threshold
    and the ``largest``. A device names the five streams with most evidence, so nothing is known of the others.
    """
    joined = DEVICES.join(EVIDENCE, sa.and_(EVIDENCE.c.device == DEVICES.c.device, *_window(query)))
    cohort = _value(connection, query.by).label("cohort")
    rows = sa.select(cohort, _ratio().label("ratio"), EVIDENCE.c.streams).select_from(joined)
    # materialized: otherwise the cohort is looked up in the documents again for every entry of ``streams``
    mine = rows.where(*_fleet(connection, query)).cte("mine").prefix_with("MATERIALIZED")
    part = _parts(connection, mine.c.streams)
    share = sa.cast(_field(connection, part, "share_ratio"), sa.Float) * mine.c.ratio
    stream, words = _field(connection, part, "stream").label("stream"), _field(connection, part, "words").label("words")
    found = sa.select(
        mine.c.cohort, stream, words, sa.func.count().label("devices"), sa.func.sum(share).label("sum"),
        sa.func.max(share).label("largest"),
    ).select_from(mine.join(part, sa.true())).where(mine.c.cohort.in_(cohorts))  # fmt: skip
    return list(connection.execute(found.group_by(mine.c.cohort, stream, words)).mappings())


def references_in(connection: sa.Connection, query: MapQuery) -> list[str]:
    """Return the references that the evidence of the window is against."""
    found = sa.select(EVIDENCE.c.ref_id).where(*_window(query)).distinct().order_by(EVIDENCE.c.ref_id)
    return list(connection.execute(found).scalars())


def _window(query: MapQuery) -> list[sa.ColumnElement[bool]]:
    found = [EVIDENCE.c.start_ms >= query.start_ms, EVIDENCE.c.start_ms < query.end_ms]
    return found if query.refs is None else [*found, EVIDENCE.c.ref_id.in_(query.refs)]


def _fleet(connection: sa.Connection, query: MapQuery) -> list[sa.ColumnElement[bool]]:
    found = [DEVICES.c.ended == ""]
    if query.within is not None:
        name, value = query.within
        found.append(sa.false() if "\0" in value else _value(connection, name) == value)
    return found


def _ratio() -> sa.ColumnElement[float]:
    """Return a row's evidence as a share of its threshold, 0 and above; NULL without any."""
    column = EVIDENCE.c
    value = sa.case((column.phase == _JUDGED, column.log_value), else_=column.training_log_value)
    share = sa.case((value > 0, value / column.log_threshold), (value <= 0, 0.0))
    return sa.case((column.log_threshold > 0, share))


def _count(held: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((held, 1), else_=0)), 0)


def _value(connection: sa.Connection, name: str) -> sa.ColumnElement[str]:
    """Return the value of an attribute of a device, "" if it has none."""
    if name in {SITE, DEVICE}:
        return DEVICES.c[name]
    if "\0" in name:  # no stored text has it
        return sa.literal("")
    if connection.dialect.name == "sqlite":
        told: sa.ColumnElement[str] = (
            sa.cast(sa.func.json_extract(DEVICES.c.reported, "$.current.release"), sa.Text) if name == RELEASE
            else _one_of(DEVICES.c.reported, name, "$.attributes")
        )  # fmt: skip
        claimed: sa.ColumnElement[str] = _one_of(DEVICES.c.attributes, name)
    else:  # it reads no document that has this character anywhere
        reported = sa.case((DEVICES.c.reported.contains(_NUL, autoescape=True), None), else_=DEVICES.c.reported)
        told = _text(sa.cast(reported, sa.JSON), *(("current", "release") if name == RELEASE else ("attributes", name)))
        claimed = _text(DEVICES.c.attributes, name)
    known = (told,) if name == RELEASE else (claimed, told)
    return sa.func.coalesce(*known, "", type_=sa.Text)


def _text(document: sa.ColumnElement[Any], *path: str) -> sa.ColumnElement[str]:
    return sa.func.json_extract_path_text(document, *path, type_=sa.Text)


def _one_of(document: sa.ColumnElement[Any], name: str, *path: str) -> sa.ScalarSelect[str]:
    """Return the text under ``name``, whatever characters that has: it is compared, not part of a path."""
    each = sa.func.json_each(document, *path).table_valued("key", "value")
    found = sa.select(sa.cast(each.c.value, sa.Text)).where(each.c.key == name)
    return found.limit(1).scalar_subquery()


def _parts(connection: sa.Connection, streams: sa.ColumnElement[Any]) -> sa.TableValuedAlias:
    """Return the entries of a row's ``streams``, each as a row with a ``value``."""
    if connection.dialect.name == "sqlite":
        return sa.func.json_each(streams).table_valued("value", name="part")
    entries = sa.func.json_array_elements(sa.case(
        (sa.cast(streams, sa.Text).contains(_NUL, autoescape=True), sa.cast("[]", sa.JSON)),
        (sa.func.json_typeof(streams) == "array", streams), else_=sa.cast("[]", sa.JSON),
    ))  # fmt: skip
    return entries.table_valued(sa.column("value", sa.JSON), name="part").render_derived()


def _field(connection: sa.Connection, part: sa.TableValuedAlias, name: str) -> sa.ColumnElement[Any]:
    if connection.dialect.name == "sqlite":
        return sa.func.json_extract(part.c.value, f"$.{name}")
    return _text(part.c.value, name)


def _of_stream(connection: sa.Connection, stream: str) -> sa.ColumnElement[float]:
    """Return the share of a row's evidence that ``stream`` holds, NULL if it is not named."""
    part = _parts(connection, EVIDENCE.c.streams)
    share = sa.func.max(sa.cast(_field(connection, part, "share_ratio"), sa.Float))
    found = sa.select(share).select_from(part).where(_field(connection, part, "stream") == stream)
    return found.correlate(EVIDENCE).scalar_subquery()
