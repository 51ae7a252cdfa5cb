"""Queries of lineage: what a job was given, which jobs were given an image, and on which devices releases ran."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from server.store.fleet import DEVICES, RAN
from server.store.lists.paging import Order, Page, SortKey, read_page
from server.store.retraining import JOB_SAMPLES, JOBS, SAMPLES
from server.store.rollouts import MEMBERS, ROLLOUTS

_RUNS = Order("runs of releases", (SortKey(RAN.c.device, str), SortKey(RAN.c.from_ms, int), SortKey(RAN.c.id, int)))


def jobs_that_made(connection: sa.Connection, release: str, limit: int) -> list[sa.RowMapping]:
    """Return the jobs whose result is ``release``, the newest first: one, or none for what a build host published."""
    query = JOBS.select().where(JOBS.c.release == release, JOBS.c.state == "done")
    return list(connection.execute(query.order_by(JOBS.c.created_ms.desc(), JOBS.c.id).limit(limit)).mappings())


def made_from(connection: sa.Connection, releases: Collection[str], limit: int) -> list[sa.RowMapping]:
    """Return the jobs that began from one of ``releases`` and made another one, the oldest first."""
    query = JOBS.select().where(JOBS.c.base_release.in_(releases), JOBS.c.state == "done", JOBS.c.release != "")
    return list(connection.execute(query.order_by(JOBS.c.created_ms, JOBS.c.id).limit(limit)).mappings())


def given_counts(connection: sa.Connection, job: str) -> list[tuple[bool, str, str, int]]:
    """Return of what a job was given: watched or not, the lane, who labelled, how many; the most first."""
    group = (JOB_SAMPLES.c.watched, JOB_SAMPLES.c.lane, JOB_SAMPLES.c.label_by)
    count = sa.func.count()
    query = sa.select(*group, count).where(JOB_SAMPLES.c.job == job).group_by(*group)
    rows = connection.execute(query.order_by(count.desc(), *group))
    return [(bool(watched), str(lane), str(by), int(found)) for watched, lane, by, found in rows]


def given_page(connection: sa.Connection, job: str, *, limit: int, cursor: str | None) -> Page[sa.RowMapping]:
    """Return a page of what a job was given, by the number of the sample; ``label_now`` is "" without a label or row.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    now = sa.func.coalesce(SAMPLES.c.label, "").label("label_now")
    query = sa.select(*JOB_SAMPLES.c, now).outerjoin(SAMPLES, SAMPLES.c.id == JOB_SAMPLES.c.sample)
    order = Order("samples of a job", (SortKey(JOB_SAMPLES.c.sample, int),))
    return read_page(connection, query.where(JOB_SAMPLES.c.job == job), order, limit, cursor)


def relabelled(connection: sa.Connection, job: str) -> int:
    """Return how many samples that a job was given have another label by now, or none."""
    other = sa.func.coalesce(SAMPLES.c.label, "") != JOB_SAMPLES.c.label
    query = sa.select(sa.func.count()).select_from(JOB_SAMPLES).join(SAMPLES, SAMPLES.c.id == JOB_SAMPLES.c.sample)
    return int(connection.execute(query.where(JOB_SAMPLES.c.job == job, other)).scalar_one())


def jobs_given(connection: sa.Connection, model: str, sha256: str, limit: int) -> list[sa.RowMapping]:
    """Return the jobs of ``model`` that were given an image, the oldest first, with the label then (``given_label``).

    ``given_by``: who had labelled it, "" if that is not known; ``given_watched``: its device did not drift.
    """
    given = (
        JOB_SAMPLES.c.label.label("given_label"), JOB_SAMPLES.c.label_by.label("given_by"),
        JOB_SAMPLES.c.watched.label("given_watched"), JOB_SAMPLES.c.sample.label("given_sample"),
    )  # fmt: skip
    query = sa.select(*JOBS.c, *given).join(JOB_SAMPLES, JOB_SAMPLES.c.job == JOBS.c.id)
    query = query.where(JOBS.c.model == model, JOB_SAMPLES.c.sha256 == sha256)
    return list(connection.execute(query.order_by(JOBS.c.created_ms, JOBS.c.id).limit(limit)).mappings())


def given_of(connection: sa.Connection, sample: int) -> sa.RowMapping | None:
    """Return what a job was given of ``sample``, with the job's ``model``: of a sample whose own row is gone."""
    query = sa.select(*JOB_SAMPLES.c, JOBS.c.model).join(JOBS, JOBS.c.id == JOB_SAMPLES.c.job)
    return connection.execute(query.where(JOB_SAMPLES.c.sample == sample).limit(1)).mappings().first()


def ran_counts(connection: sa.Connection, releases: Collection[str]) -> dict[str, int]:
    """Return how many devices ever ran each of ``releases`` by their reports; a release that none ran is left out."""
    devices = sa.func.count(RAN.c.device.distinct())
    query = sa.select(RAN.c.release, devices).where(RAN.c.release.in_(releases)).group_by(RAN.c.release)
    return {str(release): int(count) for release, count in connection.execute(query)}


def run_page(
    connection: sa.Connection, releases: Collection[str], *, now: bool | None, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of the times at which devices ran one of ``releases``, by device and time.

    ``until_ms``: when the device reported something else, NULL where it is what it reported last; ``now``: only these
    of devices that are still in the fleet, or only the others. ``site``: NULL for a device whose row is gone.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    other = RAN.alias()
    later = sa.or_(other.c.from_ms > RAN.c.from_ms, sa.and_(other.c.from_ms == RAN.c.from_ms, other.c.id > RAN.c.id))
    until = sa.select(other.c.from_ms).where(other.c.device == RAN.c.device, later)
    until_ms = until.order_by(other.c.from_ms, other.c.id).limit(1).correlate(RAN).scalar_subquery()
    query = sa.select(*RAN.c, until_ms.label("until_ms"), DEVICES.c.site, DEVICES.c.ended)
    query = query.outerjoin(DEVICES, DEVICES.c.device == RAN.c.device).where(RAN.c.release.in_(releases))
    if now is not None:
        running = sa.and_(until_ms.is_(None), sa.func.coalesce(DEVICES.c.ended, "gone") == "")
        query = query.where(running if now else sa.not_(running))
    return read_page(connection, query, _RUNS, limit, cursor)


def ran_until(connection: sa.Connection, run: sa.RowMapping) -> int:
    """Return when the device of ``run``, a row of what ran, reported the next transition; 0: none since."""
    later = sa.or_(RAN.c.from_ms > run["from_ms"], sa.and_(RAN.c.from_ms == run["from_ms"], RAN.c.id > run["id"]))
    query = sa.select(RAN.c.from_ms).where(RAN.c.device == run["device"], later).order_by(RAN.c.from_ms, RAN.c.id)
    return int(connection.execute(query.limit(1)).scalar() or 0)


def rollouts_of(connection: sa.Connection, release: str, limit: int) -> tuple[list[sa.RowMapping], int]:
    """Return the newest rollouts of ``release``, the newest first, and how many there are."""
    of_release = ROLLOUTS.c.release == release
    query = ROLLOUTS.select().where(of_release).order_by(ROLLOUTS.c.created_ms.desc(), ROLLOUTS.c.id).limit(limit)
    count = connection.execute(sa.select(sa.func.count()).select_from(ROLLOUTS).where(of_release)).scalar_one()
    return list(connection.execute(query).mappings()), int(count)


def rollout_that_assigned(connection: sa.Connection, device: str, release: str, at_ms: int) -> sa.RowMapping | None:
    """Return the rollout that assigned ``release`` to ``device`` last at or before a time, with the member's fields.

    These are ``assigned_ms``, ``settled_ms`` and ``standing``.
    """
    member = (MEMBERS.c.assigned_ms, MEMBERS.c.settled_ms, MEMBERS.c.standing)
    query = sa.select(*ROLLOUTS.c, *member).join(MEMBERS, MEMBERS.c.rollout == ROLLOUTS.c.id)
    query = query.where(
        MEMBERS.c.device == device, ROLLOUTS.c.release == release, MEMBERS.c.assigned_ms > 0,
        MEMBERS.c.assigned_ms <= at_ms,
    )  # fmt: skip
    return connection.execute(query.order_by(MEMBERS.c.assigned_ms.desc()).limit(1)).mappings().first()
