"""Tables and queries of samples, changes of their labels and claims, audits, training jobs and retraining triggers.

A label belongs to a model and an image: queries take both, and "an image" below is one that one model saw.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_some, insert_many

SAMPLES = sa.Table(
    "samples",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False, index=True),
    sa.Column("boot", sa.String(32), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("media_type", sa.String(32), nullable=False),
    sa.Column("length_bytes", sa.BigInteger, nullable=False),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("lane", sa.String(16), nullable=False),
    sa.Column("inclusion_ratio", sa.Float, nullable=False),
    sa.Column("predicted", sa.Integer, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("artifact_sha256", sa.String(64), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
    sa.Column("label", sa.String(127)),
    sa.Column("label_by", sa.String(127)),
    sa.Column("labelled_ms", sa.BigInteger, nullable=False, default=0, index=True),
    sa.Column("claimed", sa.String(127), nullable=False, default="", server_default=""),
    sa.Column("expired_ms", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Column("model", sa.String(127), nullable=False, default="", server_default=""),
    sa.UniqueConstraint("device", "boot", "seq"),
    sqlite_autoincrement=True,
)

LABEL_CHANGES = sa.Table(
    "label_changes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("label", sa.String(127), nullable=False),
    sa.Column("label_by", sa.String(127), nullable=False),
    sa.Column("labelled_ms", sa.BigInteger, nullable=False),
    sa.Column("new_label", sa.String(127), nullable=False),
    sa.Column("changed_by", sa.String(127), nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
    sa.Column("model", sa.String(127), nullable=False, default="", server_default=""),
    sqlite_autoincrement=True,
)

CLAIM_CHANGES = sa.Table(
    "claim_changes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False),
    sa.Column("model", sa.String(127), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("claimed", sa.String(127), nullable=False),
    sa.Column("new_claimed", sa.String(127), nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

AUDITS = sa.Table(
    "audits",
    METADATA,
    sa.Column("model", sa.String(127), primary_key=True),
    sa.Column("asked_ms", sa.BigInteger, nullable=False),
    sa.Column("ratio", sa.Float, nullable=False),
    sa.Column("devices", sa.Integer, nullable=False),
    sa.Column("images_per_day", sa.Float, nullable=False),
)

JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("retraining", sa.Integer, nullable=False),
    sa.Column("model", sa.String(127), nullable=False),
    sa.Column("base_release", sa.String(127), nullable=False),
    sa.Column("base_sha256", sa.String(64), nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("labelled", sa.Integer, nullable=False),
    sa.Column("samples_sha256", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("worker", sa.String(127), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("lease_until_ms", sa.BigInteger, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("ended_ms", sa.BigInteger, nullable=False),
    sa.Column("release", sa.String(127), nullable=False),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("certificate", sa.JSON, nullable=False),
    sa.Column("gate_split", sa.String(64), nullable=False, default="", server_default=""),
    sa.Column("look", sa.Integer, nullable=False, default=0, server_default="0"),
)

JOB_SAMPLES = sa.Table(
    "job_samples",
    METADATA,
    sa.Column("job", sa.String(32), primary_key=True),
    sa.Column("sample", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("device", sa.String(63), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("lane", sa.String(16), nullable=False),
    sa.Column("label", sa.String(127), nullable=False),
    sa.Column("label_by", sa.String(127), nullable=False),
    sa.Column("labelled_ms", sa.BigInteger, nullable=False),
    sa.Column("watched", sa.Boolean, nullable=False),
)
"""What each job was given: the images with their labels as they were then. ``watched``: of devices that did not drift.

``label_by`` is "" where a job was made before this table: its archive names no people.
"""

TRIGGERS = sa.Table(
    "retraining",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(127), nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("words", sa.Text, nullable=False),
    sa.Column("verdict", sa.Integer, nullable=False),
    sa.Column("devices", sa.JSON, nullable=False),
    sa.Column("since_ms", sa.BigInteger, nullable=False),
    sa.Column("release", sa.String(127), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("approved", sa.Boolean, nullable=False),
    sa.Column("job", sa.String(32), nullable=False),
    sa.Column("result", sa.String(127), nullable=False),
    sa.Column("rollout", sa.String(64), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("asked_ms", sa.BigInteger, nullable=False),
    sa.Column("opened_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)


def insert_sample(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a sample; an ``IntegrityError`` means that it is stored already."""
    connection.execute(SAMPLES.insert(), dict(row))


def correction_of(
    connection: sa.Connection, device: str, model: str, sha256: str, at_ms: int
) -> sa.RowMapping | None:  # fmt: skip
    """Return the sample of the correction of one input, if the user of ``device`` has corrected it before."""
    of_input = (
        SAMPLES.c.device == device, SAMPLES.c.model == model, SAMPLES.c.sha256 == sha256, SAMPLES.c.at_ms == at_ms,
        SAMPLES.c.lane == "correction", SAMPLES.c.expired_ms == 0,
    )  # fmt: skip
    query = SAMPLES.select().where(*of_input).order_by(SAMPLES.c.id.desc()).limit(1)
    return connection.execute(query).mappings().first()


def set_sample_key(connection: sa.Connection, sample: int, boot: str, seq: int) -> None:
    """Let the sample be the one that its device sent last under this key."""
    connection.execute(SAMPLES.update().where(SAMPLES.c.id == sample).values(boot=boot, seq=seq))


def replace_claims(
    connection: sa.Connection, device: str, model: str, sha256: str, claimed: str, now_ms: int
) -> None:  # fmt: skip
    """Let ``claimed`` be what the user of ``device`` says of an image, in all its samples that have a claim.

    What it was is kept (``claim_changes``).
    """
    of_input = sa.and_(
        SAMPLES.c.device == device, SAMPLES.c.model == model, SAMPLES.c.sha256 == sha256,
        SAMPLES.c.claimed.not_in(["", claimed]),
    )  # fmt: skip
    for was in connection.execute(sa.select(SAMPLES.c.claimed).where(of_input).distinct()).scalars().all():
        row = {"device": device, "model": model, "sha256": sha256, "claimed": was, "new_claimed": claimed}
        connection.execute(CLAIM_CHANGES.insert(), row | {"changed_ms": now_ms})
    connection.execute(SAMPLES.update().where(of_input).values(claimed=claimed))


def claim_changes(connection: sa.Connection, model: str, sha256: str) -> list[sa.RowMapping]:
    """Return the changes of what users of devices said of one image, the first first."""
    of_image = sa.and_(CLAIM_CHANGES.c.model == model, CLAIM_CHANGES.c.sha256 == sha256)
    return list(connection.execute(CLAIM_CHANGES.select().where(of_image).order_by(CLAIM_CHANGES.c.id)).mappings())


def has_sample(connection: sa.Connection, device: str, boot: str, seq: int) -> bool:
    """Return whether the sample with this key is stored."""
    query = sa.select(SAMPLES.c.id).where(SAMPLES.c.device == device, SAMPLES.c.boot == boot, SAMPLES.c.seq == seq)
    return connection.execute(query).first() is not None


def count_of_request(connection: sa.Connection, device: str, request: str) -> int:
    """Return how many samples of one request are stored from ``device``."""
    query = sa.select(sa.func.count()).where(SAMPLES.c.device == device, SAMPLES.c.request == request)
    return int(connection.execute(query).scalar() or 0)


def sample_bytes(connection: sa.Connection, device: str, since_ms: int) -> int:
    """Return the bytes of samples received from ``device`` since a time."""
    total = sa.select(sa.func.sum(SAMPLES.c.length_bytes)).where(
        SAMPLES.c.device == device, SAMPLES.c.received_ms >= since_ms
    )
    return int(connection.execute(total).scalar() or 0)


def known_label(connection: sa.Connection, model: str, sha256: str) -> sa.RowMapping | None:
    """Return the first labelled sample of the same image, if there is one."""
    labelled = (SAMPLES.c.model == model, SAMPLES.c.sha256 == sha256, SAMPLES.c.label.is_not(None))
    query = SAMPLES.select().where(*labelled).order_by(SAMPLES.c.id).limit(1)
    return connection.execute(query).mappings().first()


def latest_samples(
    connection: sa.Connection, *, unlabelled: bool, limit: int, after: int | None = None
) -> list[sa.RowMapping]:
    """Return samples, newest first; with ``unlabelled``, each image once, oldest first.

    ``after``: the id of a sample; only those after it in that order are returned.
    """
    query = SAMPLES.select().where(SAMPLES.c.expired_ms == 0).limit(limit)
    if after is not None:
        query = query.where(SAMPLES.c.id > after if unlabelled else SAMPLES.c.id < after)
    if unlabelled:
        waiting = sa.and_(SAMPLES.c.label.is_(None), SAMPLES.c.expired_ms == 0)
        first = sa.select(sa.func.min(SAMPLES.c.id)).where(waiting).group_by(SAMPLES.c.model, SAMPLES.c.sha256)
        return list(connection.execute(query.where(SAMPLES.c.id.in_(first)).order_by(SAMPLES.c.id)).mappings())
    return list(connection.execute(query.order_by(SAMPLES.c.id.desc())).mappings())


def one_sample(connection: sa.Connection, sample: int) -> sa.RowMapping | None:
    """Return one sample."""
    query = SAMPLES.select().where(SAMPLES.c.id == sample, SAMPLES.c.expired_ms == 0)
    return connection.execute(query).mappings().first()


def expire_samples(
    connection: sa.Connection, lane: str, kept: int, now_ms: int, needed: sa.ColumnElement[bool]
) -> list[str]:  # fmt: skip
    """Mark all but the newest ``kept`` images of ``lane`` that wait for a label as expired, but those ``needed``.

    Return the digests of those that no other sample has, such as another model's: their files are needed no more.
    """
    waiting = sa.and_(SAMPLES.c.label.is_(None), SAMPLES.c.expired_ms == 0, ~needed)
    newest = sa.func.max(SAMPLES.c.id)
    image = (SAMPLES.c.model, SAMPLES.c.sha256)
    query = sa.select(*image).where(waiting, SAMPLES.c.lane == lane).group_by(*image)
    found = [(row[0], row[1]) for row in connection.execute(query.order_by(newest.desc()).offset(kept))]
    for model, sha256 in found:
        of_image = (SAMPLES.c.model == model, SAMPLES.c.sha256 == sha256, waiting)
        connection.execute(SAMPLES.update().where(*of_image).values(expired_ms=now_ms))
    return [sha256 for sha256 in dict.fromkeys(one for _, one in found) if not _has_image(connection, sha256)]


def _has_image(connection: sa.Connection, sha256: str) -> bool:
    """Return whether a sample of any model shows an image, and has a label or has not expired."""
    needed = sa.or_(SAMPLES.c.expired_ms == 0, SAMPLES.c.label.is_not(None))
    return connection.execute(sa.select(SAMPLES.c.id).where(SAMPLES.c.sha256 == sha256, needed)).first() is not None


def count_samples(connection: sa.Connection, *, expired_since_ms: int) -> tuple[int, int, int]:
    """Return three numbers that change with the labels: of audit samples with one, when the last came, and expired."""
    audited = sa.and_(SAMPLES.c.lane == "audit", SAMPLES.c.label.is_not(None))
    query = sa.select(
        sa.func.coalesce(sa.func.sum(sa.case((audited, 1), else_=0)), 0),
        sa.func.coalesce(sa.func.max(SAMPLES.c.labelled_ms), 0),
        sa.func.coalesce(sa.func.sum(sa.case((SAMPLES.c.expired_ms > expired_since_ms, 1), else_=0)), 0),
    )
    labelled, last_ms, expired = connection.execute(query).one()
    return int(labelled), int(last_ms), int(expired)


def count_waiting(connection: sa.Connection, lane: str) -> int:
    """Return how many samples of ``lane`` wait for a label."""
    waiting = sa.and_(SAMPLES.c.label.is_(None), SAMPLES.c.expired_ms == 0, SAMPLES.c.lane == lane)
    return connection.execute(sa.select(sa.func.count()).select_from(SAMPLES).where(waiting)).scalar_one()


def audit_samples(connection: sa.Connection, model: str, artifacts: Sequence[str]) -> list[sa.RowMapping]:
    """Return the uniform samples that ``artifacts`` took for ``model``, labelled or not, but expired ones, by id."""
    query = SAMPLES.select().where(
        SAMPLES.c.lane == "audit", SAMPLES.c.model == model, SAMPLES.c.artifact_sha256.in_(list(artifacts)),
        SAMPLES.c.expired_ms == 0,
    )  # fmt: skip
    return list(connection.execute(query.order_by(SAMPLES.c.id)).mappings())


def label_image(
    connection: sa.Connection, model: str, sha256: str, was: str | None, values: Mapping[str, object]
) -> bool:  # fmt: skip
    """Set the label of the samples of one image that have the label ``was``, or, for None, if none of them has one.

    Return whether one was set. One statement, so that of two people at once only one changes something.
    """
    other = SAMPLES.alias()
    labelled = sa.exists().where(other.c.model == model, other.c.sha256 == sha256, other.c.label.is_not(None))
    free = sa.and_(SAMPLES.c.label.is_(None), ~labelled) if was is None else SAMPLES.c.label == was
    of_image = (SAMPLES.c.model == model, SAMPLES.c.sha256 == sha256, free)
    return connection.execute(SAMPLES.update().where(*of_image).values(dict(values))).rowcount > 0


def keep_label(connection: sa.Connection, model: str, sha256: str, was: str, change: Mapping[str, object]) -> bool:
    """Keep the label ``was`` of one image beside the ``change`` that follows; return whether the image had it."""
    kept = (SAMPLES.c.model, SAMPLES.c.sha256, SAMPLES.c.label, SAMPLES.c.label_by, SAMPLES.c.labelled_ms)
    query = sa.select(*kept, *(sa.literal(value) for value in change.values()))
    of_image = (SAMPLES.c.model == model, SAMPLES.c.sha256 == sha256, SAMPLES.c.label == was)
    row = query.where(*of_image).order_by(SAMPLES.c.id).limit(1)
    columns = [*(column.name for column in kept), *change]
    kept_one = LABEL_CHANGES.insert().from_select(columns, row).returning(LABEL_CHANGES.c.id)
    return connection.execute(kept_one).first() is not None  # an INSERT has no rowcount on every driver


def label_changes(connection: sa.Connection, model: str, sha256: str) -> list[sa.RowMapping]:
    """Return the changes of the label of one image, the first first."""
    of_image = (LABEL_CHANGES.c.model == model, LABEL_CHANGES.c.sha256 == sha256)
    query = LABEL_CHANGES.select().where(*of_image).order_by(LABEL_CHANGES.c.id)
    return list(connection.execute(query).mappings())


def given_labels(connection: sa.Connection) -> list[tuple[str, str, str]]:
    """Return model, artifact and label of all labelled samples, each combination once."""
    columns = (SAMPLES.c.model, SAMPLES.c.artifact_sha256, SAMPLES.c.label)
    query = sa.select(*columns).where(SAMPLES.c.label.is_not(None)).distinct()
    return [(str(model), str(artifact), str(label)) for model, artifact, label in connection.execute(query)]


def adopt_samples(connection: sa.Connection, artifact_sha256: str, model: str, now_ms: int) -> None:
    """Give the samples of an artifact that no release was of to ``model``, with their labels and changes.

    An image that the model's other samples show has their label, if it has one; a contrary one is kept as a change.
    """
    of_artifact = SAMPLES.c.model == artifact_sha256
    images = connection.execute(sa.select(SAMPLES.c.sha256).where(of_artifact).distinct()).scalars().all()
    for sha256 in images:
        known, own = known_label(connection, model, sha256), known_label(connection, artifact_sha256, sha256)
        if known is not None and own is not None and known["label"] != own["label"]:
            change = {"new_label": known["label"], "changed_by": known["label_by"], "changed_ms": now_ms}
            keep_label(connection, artifact_sha256, sha256, own["label"], change)
        connection.execute(SAMPLES.update().where(of_artifact, SAMPLES.c.sha256 == sha256).values(model=model))
        if (row := known or own) is not None:
            values = {name: row[name] for name in ("label", "label_by", "labelled_ms")}
            of_image = (SAMPLES.c.model == model, SAMPLES.c.sha256 == sha256)
            connection.execute(SAMPLES.update().where(*of_image).values(values))
    for table in (LABEL_CHANGES, CLAIM_CHANGES):
        connection.execute(table.update().where(table.c.model == artifact_sha256).values(model=model))


def artifacts_of_image(connection: sa.Connection, model: str, sha256: str) -> frozenset[str]:
    """Return the artifacts of ``model`` that saw an image."""
    query = sa.select(SAMPLES.c.artifact_sha256).where(SAMPLES.c.model == model, SAMPLES.c.sha256 == sha256)
    return frozenset(connection.execute(query.distinct()).scalars())


def images_labelled(connection: sa.Connection, model: str, artifact_sha256: str, label: str) -> list[str]:
    """Return the images of ``model`` with ``label`` that the artifact saw."""
    query = sa.select(SAMPLES.c.sha256).where(
        SAMPLES.c.model == model, SAMPLES.c.artifact_sha256 == artifact_sha256, SAMPLES.c.label == label
    )
    return [str(sha256) for sha256 in connection.execute(query.distinct()).scalars()]


def last_labelled(connection: sa.Connection, limit: int) -> list[sa.RowMapping]:
    """Return one sample of each image that has a label, the one labelled last first."""
    other = SAMPLES.alias()
    earlier = sa.exists().where(
        other.c.model == SAMPLES.c.model, other.c.sha256 == SAMPLES.c.sha256, other.c.id < SAMPLES.c.id,
        other.c.label.is_not(None),
    )  # fmt: skip
    query = SAMPLES.select().where(SAMPLES.c.label.is_not(None), ~earlier)
    order = query.order_by(SAMPLES.c.labelled_ms.desc(), SAMPLES.c.id.desc()).limit(limit)
    return list(connection.execute(order).mappings())


def first_samples(connection: sa.Connection, model: str, images: Collection[str]) -> dict[str, int]:
    """Return the id of the first sample of each of ``images`` of ``model``, but expired ones."""
    query = sa.select(SAMPLES.c.sha256, sa.func.min(SAMPLES.c.id)).where(
        SAMPLES.c.model == model, SAMPLES.c.sha256.in_(images), SAMPLES.c.expired_ms == 0
    )
    return {str(sha256): int(number) for sha256, number in connection.execute(query.group_by(SAMPLES.c.sha256))}


def samples_with(connection: sa.Connection, ids: Collection[int]) -> list[sa.RowMapping]:
    """Return the samples with these ids, but expired ones."""
    query = SAMPLES.select().where(SAMPLES.c.id.in_(ids), SAMPLES.c.expired_ms == 0).order_by(SAMPLES.c.id)
    return list(connection.execute(query).mappings())


def images_after(
    connection: sa.Connection, model: str, after: int, limit: int, *, unlabelled: bool
) -> list[sa.RowMapping]:  # fmt: skip
    """Return the first sample of each image of ``model`` with an id above ``after``, by id, but expired ones."""
    of_model = [SAMPLES.c.model == model, SAMPLES.c.expired_ms == 0]
    first = sa.select(sa.func.min(SAMPLES.c.id)).where(*of_model).group_by(SAMPLES.c.sha256)
    query = SAMPLES.select().where(SAMPLES.c.id.in_(first), SAMPLES.c.id > after)
    if unlabelled:
        query = query.where(SAMPLES.c.label.is_(None))
    return list(connection.execute(query.order_by(SAMPLES.c.id).limit(limit)).mappings())


def labelled_images(connection: sa.Connection, model: str, limit: int) -> list[sa.RowMapping]:
    """Return the first sample of each labelled image of ``model``, the newest image first."""
    first = sa.select(sa.func.min(SAMPLES.c.id)).where(SAMPLES.c.model == model, SAMPLES.c.label.is_not(None))
    query = SAMPLES.select().where(SAMPLES.c.id.in_(first.group_by(SAMPLES.c.sha256)))
    return list(connection.execute(query.order_by(SAMPLES.c.id.desc()).limit(limit)).mappings())


def labelled_samples(
    connection: sa.Connection, devices: Sequence[str], since_ms: int, model: str
) -> list[sa.RowMapping]:
    """Return the labelled samples of ``devices`` that releases of ``model`` took since a time, by id."""
    query = SAMPLES.select().where(
        SAMPLES.c.device.in_(list(devices)), SAMPLES.c.model == model, SAMPLES.c.at_ms >= since_ms,
        SAMPLES.c.label.is_not(None),
    )  # fmt: skip
    return list(connection.execute(query.order_by(SAMPLES.c.id)).mappings())


def all_audits(connection: sa.Connection) -> dict[str, sa.RowMapping]:
    """Return what each model's devices were asked last, by model."""
    return {row["model"]: row for row in connection.execute(AUDITS.select()).mappings()}


def put_audit(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Store what the devices of one model were asked, in place of the last."""
    connection.execute(AUDITS.delete().where(AUDITS.c.model == row["model"]))
    connection.execute(AUDITS.insert(), dict(row))


def newest_labelled(
    connection: sa.Connection, lane: str, model: str, without: Sequence[str], limit: int
) -> list[sa.RowMapping]:
    """Return the newest labelled samples of one lane and model, newest first, but those of the devices ``without``."""
    query = SAMPLES.select().where(
        SAMPLES.c.lane == lane, SAMPLES.c.model == model, SAMPLES.c.device.not_in(list(without)),
        SAMPLES.c.label.is_not(None),
    )  # fmt: skip
    return list(connection.execute(query.order_by(SAMPLES.c.id.desc()).limit(limit)).mappings())


def insert_job(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a job."""
    connection.execute(JOBS.insert(), dict(row))


def insert_job_samples(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add what a job was given (all columns)."""
    if rows:
        insert_many(connection, JOB_SAMPLES, rows)


def jobs_unlisted(connection: sa.Connection) -> list[str]:
    """Return the jobs with samples of which none is listed, the oldest first."""
    listed = sa.exists().where(JOB_SAMPLES.c.job == JOBS.c.id)
    query = sa.select(JOBS.c.id).where(JOBS.c.labelled > 0, ~listed).order_by(JOBS.c.created_ms, JOBS.c.id)
    return list(connection.execute(query).scalars())


def one_job(connection: sa.Connection, job: str) -> sa.RowMapping | None:
    """Return one job."""
    return connection.execute(JOBS.select().where(JOBS.c.id == job)).mappings().first()


def looks_at(connection: sa.Connection, model: str, gate_split: str) -> int:
    """Return the number of the last look that a job of ``model`` had at a gate split; 0 for none."""
    query = sa.select(sa.func.max(JOBS.c.look)).where(JOBS.c.model == model, JOBS.c.gate_split == gate_split)
    return int(connection.execute(query).scalar() or 0)


def free_job(connection: sa.Connection, worker: str, now_ms: int) -> sa.RowMapping | None:
    """Return a job that ``worker`` may lease: its own first, then the oldest that is not leased."""
    held = sa.and_(JOBS.c.state == "leased", sa.or_(JOBS.c.worker == worker, JOBS.c.lease_until_ms < now_ms))
    own_first = sa.case((JOBS.c.worker == worker, 0), else_=1)
    query = JOBS.select().where(sa.or_(JOBS.c.state == "queued", held)).order_by(own_first, JOBS.c.created_ms)
    return connection.execute(query.limit(1)).mappings().first()


def change_job(connection: sa.Connection, job: str, was: Mapping[str, object], values: Mapping[str, object]) -> bool:
    """Change a job if its columns are still as in ``was``; return whether they were. One statement, so no race."""
    conditions = [JOBS.c[name] == value for name, value in was.items()]
    return connection.execute(JOBS.update().where(JOBS.c.id == job, *conditions).values(dict(values))).rowcount == 1


def insert_trigger(connection: sa.Connection, row: Mapping[str, object]) -> int:
    """Add a trigger; return its id."""
    return int(connection.execute(TRIGGERS.insert().returning(TRIGGERS.c.id), dict(row)).scalar_one())


def update_trigger(connection: sa.Connection, trigger: int, values: Mapping[str, object]) -> None:
    """Change columns of one trigger."""
    connection.execute(TRIGGERS.update().where(TRIGGERS.c.id == trigger).values(dict(values)))


def one_trigger(connection: sa.Connection, trigger: int) -> sa.RowMapping | None:
    """Return one trigger."""
    return connection.execute(TRIGGERS.select().where(TRIGGERS.c.id == trigger)).mappings().first()


def trigger_with_rollout(connection: sa.Connection, rollout: str) -> sa.RowMapping | None:
    """Return the trigger whose release a rollout brings to devices, None if a person made it for another reason."""
    query = TRIGGERS.select().where(TRIGGERS.c.rollout == rollout).order_by(TRIGGERS.c.id.desc()).limit(1)
    return connection.execute(query).mappings().first()


def count_triggers(connection: sa.Connection) -> int:
    """Return how many triggers there are."""
    return connection.execute(sa.select(sa.func.count()).select_from(TRIGGERS)).scalar_one()


def all_triggers(connection: sa.Connection, limit: int) -> list[sa.RowMapping]:
    """Return the newest ``limit`` triggers, newest first."""
    return list(connection.execute(TRIGGERS.select().order_by(TRIGGERS.c.id.desc()).limit(limit)).mappings())


def triggers_in(connection: sa.Connection, phases: Collection[str]) -> list[sa.RowMapping]:
    """Return the triggers in one of ``phases``, oldest first."""
    query = TRIGGERS.select().where(TRIGGERS.c.phase.in_(phases)).order_by(TRIGGERS.c.id)
    return list(connection.execute(query).mappings())


def triggers_of(connection: sa.Connection, verdicts: Collection[int]) -> list[sa.RowMapping]:
    """Return the triggers of these verdicts, oldest first."""
    query = TRIGGERS.select().where(TRIGGERS.c.verdict.in_(sorted(verdicts))).order_by(TRIGGERS.c.id)
    return list(connection.execute(query).mappings())


def delete_expired_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete samples without a label whose files were deleted before ``before_ms``; return how many."""
    expired = (SAMPLES.c.expired_ms > 0, SAMPLES.c.expired_ms < before_ms, SAMPLES.c.label.is_(None))
    return delete_some(connection, SAMPLES, limit, *expired, SAMPLES.c.received_ms < before_ms)


def images_needed(connection: sa.Connection, images: Collection[str]) -> set[str]:
    """Return those of ``images`` that a sample shows which has a label, or has not expired."""
    needed = sa.or_(SAMPLES.c.expired_ms == 0, SAMPLES.c.label.is_not(None))
    query = sa.select(SAMPLES.c.sha256).where(SAMPLES.c.sha256.in_(images), needed).distinct()
    return set(connection.execute(query).scalars())


def jobs_known(connection: sa.Connection, jobs: Collection[str]) -> set[str]:
    """Return those of ``jobs`` that there are."""
    return set(connection.execute(sa.select(JOBS.c.id).where(JOBS.c.id.in_(jobs))).scalars())
