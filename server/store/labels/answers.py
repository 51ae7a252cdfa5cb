"""Tables and queries of answers, leases and marks.

An answer is what one person labelled an image of a model as. A lease keeps an image for who looks at it now. A mark
says why an image can't be labelled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from server.store.database import METADATA, delete_some
from server.store.retraining import SAMPLES

ANSWERS = sa.Table(
    "label_answers",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(127), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("person", sa.String(127), nullable=False),
    sa.Column("label", sa.String(127), nullable=False),
    sa.Column("first_label", sa.String(127), nullable=False),
    sa.Column("seen", sa.Boolean, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("model", "sha256", "person"),
    sqlite_autoincrement=True,
)

LEASES = sa.Table(
    "label_leases",
    METADATA,
    sa.Column("model", sa.String(127), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("person", sa.String(127), nullable=False),
    sa.Column("until_ms", sa.BigInteger, nullable=False),
)

MARKS = sa.Table(
    "label_marks",
    METADATA,
    sa.Column("model", sa.String(127), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("mark", sa.String(16), nullable=False),
    sa.Column("person", sa.String(127), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)


def _of(table: sa.Table, model: str, sha256: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.model == model, table.c.sha256 == sha256)


def lock_image(connection: sa.Connection, model: str, sha256: str) -> None:
    """Hold the samples of one image, so that of two people at once the second one counts the first one's answer."""
    query = sa.select(SAMPLES.c.id).where(_of(SAMPLES, model, sha256)).order_by(SAMPLES.c.id)
    connection.execute(query.with_for_update())  # of no effect on SQLite, where the first write locks the database


def put_answer(  # noqa: PLR0913 - the columns of a row
    connection: sa.Connection, model: str, sha256: str, person: str, label: str, now_ms: int, *, first: str,
    seen: bool = False,
) -> None:  # fmt: skip
    """Store what ``person`` labels an image as, in place of the last; the first one of the person is kept beside it.

    ``first``: the label if the person could see no other's, otherwise "". ``seen``: the model's answer was in view.
    """
    own = sa.and_(_of(ANSWERS, model, sha256), ANSWERS.c.person == person)
    changed = connection.execute(ANSWERS.update().where(own).values(label=label, changed_ms=now_ms)).rowcount
    if not changed:
        row = {"model": model, "sha256": sha256, "person": person, "label": label, "first_label": first, "seen": seen}
        connection.execute(ANSWERS.insert(), row | {"at_ms": now_ms, "changed_ms": now_ms})


def take_answer_back(connection: sa.Connection, model: str, sha256: str, person: str) -> bool:
    """Delete the answer of one person; return whether there was one."""
    own = sa.and_(_of(ANSWERS, model, sha256), ANSWERS.c.person == person)
    return connection.execute(ANSWERS.delete().where(own)).rowcount > 0


def answers_of(connection: sa.Connection, model: str, sha256: str) -> list[sa.RowMapping]:
    """Return the answers for one image, the first first."""
    query = ANSWERS.select().where(_of(ANSWERS, model, sha256)).order_by(ANSWERS.c.at_ms, ANSWERS.c.id)
    return list(connection.execute(query).mappings())


def has_answer() -> sa.ColumnElement[bool]:
    """Return the condition that somebody has labelled the image of a sample."""
    return sa.exists().where(ANSWERS.c.model == SAMPLES.c.model, ANSWERS.c.sha256 == SAMPLES.c.sha256)


def unsettled_answers(connection: sa.Connection, model: str = "") -> list[sa.RowMapping]:
    """Return the answers for images without a label, by image, the first first; ``model``: "" for any."""
    waiting = sa.exists().where(
        SAMPLES.c.model == ANSWERS.c.model, SAMPLES.c.sha256 == ANSWERS.c.sha256, SAMPLES.c.label.is_(None),
        SAMPLES.c.expired_ms == 0,
    )  # fmt: skip
    query = ANSWERS.select().where(waiting, *([ANSWERS.c.model == model] if model else []))
    ordered = query.order_by(ANSWERS.c.model, ANSWERS.c.sha256, ANSWERS.c.at_ms, ANSWERS.c.id)
    return list(connection.execute(ordered).mappings())


def twice_answered(connection: sa.Connection, model: str, limit: int) -> list[sa.RowMapping]:
    """Return the answers for the newest ``limit`` images of ``model`` that two people or more have labelled."""
    twice = (
        sa.select(ANSWERS.c.sha256).where(ANSWERS.c.model == model).group_by(ANSWERS.c.sha256)
        .having(sa.func.count() > 1).order_by(sa.func.max(ANSWERS.c.id).desc()).limit(limit)
    )  # fmt: skip
    query = ANSWERS.select().where(ANSWERS.c.model == model, ANSWERS.c.sha256.in_(twice))
    return list(connection.execute(query.order_by(ANSWERS.c.sha256, ANSWERS.c.at_ms, ANSWERS.c.id)).mappings())


def waiting_images(
    connection: sa.Connection, *, model: str, person: str, devices: Collection[str], since_ms: int, limit: int
) -> list[sa.RowMapping]:  # fmt: skip
    """Return the first sample of each image that ``person`` may label, oldest first.

    It has no label and no mark, and the person has not labelled it. ``devices``: () for all of them.
    """
    waiting = [SAMPLES.c.label.is_(None), SAMPLES.c.expired_ms == 0, SAMPLES.c.model == model]
    if devices:
        waiting += [SAMPLES.c.device.in_(list(devices)), SAMPLES.c.at_ms >= since_ms]
    marked = sa.exists().where(MARKS.c.model == SAMPLES.c.model, MARKS.c.sha256 == SAMPLES.c.sha256)
    answered = sa.exists().where(
        ANSWERS.c.model == SAMPLES.c.model, ANSWERS.c.sha256 == SAMPLES.c.sha256, ANSWERS.c.person == person
    )
    first = sa.select(sa.func.min(SAMPLES.c.id)).where(*waiting, ~marked, ~answered).group_by(SAMPLES.c.sha256)
    query = SAMPLES.select().where(SAMPLES.c.id.in_(first)).order_by(SAMPLES.c.id).limit(limit)
    return list(connection.execute(query).mappings())


def models_waiting(connection: sa.Connection) -> dict[str, int]:
    """Return how many images without label and mark wait, by model."""
    marked = sa.exists().where(MARKS.c.model == SAMPLES.c.model, MARKS.c.sha256 == SAMPLES.c.sha256)
    count = sa.func.count(sa.distinct(SAMPLES.c.sha256))
    query = sa.select(SAMPLES.c.model, count).where(SAMPLES.c.label.is_(None), SAMPLES.c.expired_ms == 0, ~marked)
    return {str(model): int(number) for model, number in connection.execute(query.group_by(SAMPLES.c.model))}


def leases_now(connection: sa.Connection, model: str, now_ms: int) -> list[sa.RowMapping]:
    """Return the leases of images of ``model`` that have not ended."""
    return list(
        connection.execute(LEASES.select().where(LEASES.c.model == model, LEASES.c.until_ms >= now_ms)).mappings()
    )


def renew_own_lease(connection: sa.Connection, model: str, sha256: str, person: str, until_ms: int) -> bool:
    """Let the lease that ``person`` has of an image last longer; return whether there is one."""
    own = sa.and_(_of(LEASES, model, sha256), LEASES.c.person == person)
    return connection.execute(LEASES.update().where(own).values(until_ms=until_ms)).rowcount > 0


def renew_lease(
    connection: sa.Connection, place: Mapping[str, object], person: str, now_ms: int, until_ms: int
) -> bool:
    """Take a place (model, sha256, place) whose lease has ended; return whether there was one."""
    key = [LEASES.c[name] == value for name, value in place.items()]
    taken = LEASES.update().where(*key, LEASES.c.until_ms < now_ms).values(person=person, until_ms=until_ms)
    return connection.execute(taken).rowcount > 0


def insert_lease(connection: sa.Connection, place: Mapping[str, object], person: str, until_ms: int) -> None:
    """Take a place that nobody has had; an ``IntegrityError`` means that somebody was faster."""
    connection.execute(LEASES.insert(), {**place, "person": person, "until_ms": until_ms})


def end_leases(connection: sa.Connection, person: str, model: str = "", sha256: str = "") -> None:
    """End the leases of one person: of one image, or all."""
    of_image = [_of(LEASES, model, sha256)] if sha256 else []
    connection.execute(LEASES.delete().where(LEASES.c.person == person, *of_image))


def delete_leases_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete leases that ended before ``before_ms``; return how many."""
    return delete_some(connection, LEASES, limit, LEASES.c.until_ms < before_ms)


def put_mark(connection: sa.Connection, model: str, sha256: str, mark: str, person: str, now_ms: int) -> None:
    """Mark an image, in place of its mark of before; "": take the mark off."""
    connection.execute(MARKS.delete().where(_of(MARKS, model, sha256)))
    if mark:
        row = {"model": model, "sha256": sha256, "mark": mark, "person": person, "at_ms": now_ms}
        connection.execute(MARKS.insert(), row)


def marked_samples(connection: sa.Connection, model: str, limit: int) -> list[sa.RowMapping]:
    """Return the first sample of each marked image that still waits, with mark, by whom and when, newest mark first."""
    waiting = (SAMPLES.c.label.is_(None), SAMPLES.c.expired_ms == 0)
    first = (
        sa.select(SAMPLES.c.model, SAMPLES.c.sha256, sa.func.min(SAMPLES.c.id).label("id")).where(*waiting)
        .group_by(SAMPLES.c.model, SAMPLES.c.sha256).subquery()
    )  # fmt: skip
    query = sa.select(first.c.id, MARKS).join(
        MARKS, sa.and_(MARKS.c.model == first.c.model, MARKS.c.sha256 == first.c.sha256)
    )
    if model:
        query = query.where(MARKS.c.model == model)
    return list(connection.execute(query.order_by(MARKS.c.at_ms.desc(), first.c.id).limit(limit)).mappings())


def adopt_answers(connection: sa.Connection, artifact_sha256: str, model: str) -> None:
    """Give answers and marks of an artifact that no release was of to ``model``, which keeps those that it has."""
    connection.execute(LEASES.delete().where(LEASES.c.model == artifact_sha256))
    other, own = ANSWERS.alias(), ANSWERS
    twice = sa.select(own.c.id).where(
        own.c.model == artifact_sha256,
        sa.exists().where(
            other.c.model == model, other.c.sha256 == own.c.sha256, other.c.person == own.c.person
        ),
    )  # fmt: skip
    connection.execute(ANSWERS.delete().where(ANSWERS.c.id.in_(connection.execute(twice).scalars().all())))
    connection.execute(ANSWERS.update().where(ANSWERS.c.model == artifact_sha256).values(model=model))
    known = connection.execute(sa.select(MARKS.c.sha256).where(MARKS.c.model == model)).scalars().all()
    connection.execute(MARKS.delete().where(MARKS.c.model == artifact_sha256, MARKS.c.sha256.in_(known)))
    connection.execute(MARKS.update().where(MARKS.c.model == artifact_sha256).values(model=model))
