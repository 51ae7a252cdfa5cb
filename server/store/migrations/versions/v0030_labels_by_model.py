"""A label belongs to a model and an image; it belonged to the image alone.

Each sample keeps its label, and with it each model that saw the image; which of several models it was given for is not
known. The server takes off labels that a model can't have when it starts (``SampleStore.settle``): that is in bundles.
Of contrary claims of one device, model and image the last counts, as for those that come now.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
_SAMPLES = sa.table(
    "samples",
    *(sa.column(name) for name in ("id", "device", "sha256", "model", "artifact_sha256", "claimed", "received_ms")),
)
_CLAIMS = sa.table(
    "claim_changes",
    *(sa.column(name) for name in ("device", "model", "sha256", "claimed", "new_claimed", "changed_ms")),
)
_KEPT = ("sha256", "label", "label_by", "labelled_ms", "new_label", "changed_by", "changed_ms")
_CHANGES = sa.table("label_changes", *(sa.column(name) for name in ("id", "model", *_KEPT)))
_RELEASES = sa.table("releases", *(sa.column(name) for name in ("custom", "registered_ms", "path")))


def upgrade() -> None:
    """Add the columns and the table of claims; name the model of each sample, and give each its changes."""
    for table in ("samples", "label_changes"):
        op.add_column(table, sa.Column("model", sa.String(127), nullable=False, server_default=""))
    op.create_table(
        "claim_changes",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("device", sa.String(63), nullable=False),
        sa.Column("model", sa.String(127), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("claimed", sa.String(127), nullable=False),
        sa.Column("new_claimed", sa.String(127), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_claim_changes_sha256", "claim_changes", ["sha256"])
    connection = op.get_bind()
    _name_models(connection)
    _share_changes(connection)
    _settle_claims(connection)


def _name_models(connection: sa.Connection) -> None:
    """Write the model of each sample: that of the first release with its artifact, or the artifact itself."""
    models: dict[str, str] = {}
    for (custom,) in connection.execute(
        sa.select(_RELEASES.c.custom).order_by(_RELEASES.c.registered_ms, _RELEASES.c.path)
    ):
        document = json.loads(custom)
        models.setdefault(str(document.get("artifact_sha256", "")), str(document.get("model", "")))
    connection.execute(_SAMPLES.update().values(model=_SAMPLES.c.artifact_sha256))
    for artifact, model in models.items():
        if artifact and model:
            of_artifact = _SAMPLES.c.artifact_sha256 == artifact
            connection.execute(_SAMPLES.update().where(of_artifact).values(model=model))


def _share_changes(connection: sa.Connection) -> None:
    """Give each model that saw an image the changes of its label, in their order."""
    changes = list(
        connection.execute(sa.select(_CHANGES.c.id, *(_CHANGES.c[name] for name in _KEPT)).order_by(_CHANGES.c.id))
    )
    if not changes:
        return
    models: dict[str, list[str]] = defaultdict(list)
    changed = sa.select(_CHANGES.c.sha256)
    pairs = sa.select(_SAMPLES.c.sha256, _SAMPLES.c.model).where(_SAMPLES.c.sha256.in_(changed)).distinct()
    for sha256, model in connection.execute(pairs.order_by(_SAMPLES.c.model)):
        models[sha256].append(model)
    for number, *values in changes:
        first, *others = models[values[0]] or [""]
        connection.execute(_CHANGES.update().where(_CHANGES.c.id == number).values(model=first))
        for model in others:
            connection.execute(_CHANGES.insert().values(model=model, **dict(zip(_KEPT, values, strict=True))))


def _settle_claims(connection: sa.Connection) -> None:
    """Give all corrections of an image by one device and model the last claim; keep those before it as changes."""
    image = (_SAMPLES.c.device, _SAMPLES.c.model, _SAMPLES.c.sha256)
    several = sa.func.count(_SAMPLES.c.claimed.distinct()) > 1
    contrary = sa.select(*image).where(_SAMPLES.c.claimed != "").group_by(*image).having(several)
    for device, model, sha256 in connection.execute(contrary).all():
        of_image = sa.and_(*(column == value for column, value in zip(image, (device, model, sha256), strict=True)))
        claimed = sa.and_(of_image, _SAMPLES.c.claimed != "")
        query = sa.select(_SAMPLES.c.claimed, _SAMPLES.c.received_ms).where(claimed).order_by(_SAMPLES.c.id)
        claims = connection.execute(query).all()
        for (was, _), (now, at_ms) in itertools.pairwise(claims):
            if was != now:
                row = {"device": device, "model": model, "sha256": sha256, "claimed": was, "new_claimed": now}
                connection.execute(_CLAIMS.insert().values(**row, changed_ms=at_ms))
        connection.execute(_SAMPLES.update().where(claimed).values(claimed=claims[-1][0]))
