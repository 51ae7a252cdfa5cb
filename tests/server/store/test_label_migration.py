"""Labels of a database in which they belonged to pictures alone are those of each model that saw the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import sqlalchemy as sa
from alembic import command

from server.store import revisions
from server.store.revisions import upgrade

from .conftest import rows_of

ARTIFACTS = {"a1": "digits", "a2": "digits", "b": "odd"}
CHANGE = {
    "label_by": "anna", "labelled_ms": 5, "changed_by": "ben", "changed_ms": 7, "sha256": "shared",
}  # fmt: skip


@pytest.fixture
def engine(empty_url: str, engine_at: Callable[[str], sa.Engine], tables: sa.MetaData) -> sa.Engine:
    """A database of revision 0029 with releases of two models that saw one picture; a third is of no release."""
    made = engine_at(empty_url)
    with revisions._alone(made) as connection:
        command.upgrade(revisions._config(connection, tables), "0029")
        metadata = sa.MetaData()
        metadata.reflect(connection)
        for number, (artifact, model) in enumerate([*ARTIFACTS.items(), ("b", "renamed"), ("", "bare")]):
            custom = f'{{"model":"{model}","artifact_sha256":"{artifact}"}}'
            _insert(connection, metadata, "releases", {"path": str(number), "custom": custom, "registered_ms": number})
        for number, artifact in enumerate(("a1", "b", "a2", "c", "")):
            row = {
                "sha256": "shared" if artifact else "other",
                "artifact_sha256": artifact,
                "label": "7",
                "seq": number,
            }
            _insert(connection, metadata, "samples", row)
        for number, claimed in enumerate(("7", "7", "", "none of these", "8"), 10):
            row = {"device": "d1", "sha256": "claimed", "artifact_sha256": "a1", "claimed": claimed}
            _insert(connection, metadata, "samples", row | {"seq": number, "received_ms": number})
        row = {"device": "d1", "sha256": "claimed", "artifact_sha256": "b", "claimed": "9", "seq": 20}
        _insert(connection, metadata, "samples", row)
        for label, new in (("1", "2"), ("2", "7")):
            _insert(connection, metadata, "label_changes", CHANGE | {"label": label, "new_label": new})
        _insert(connection, metadata, "label_changes", CHANGE | {"sha256": "gone", "label": "x", "new_label": "y"})
    return made


def _insert(connection: sa.Connection, metadata: sa.MetaData, table: str, values: Mapping[str, object]) -> None:
    """Add a row; columns that matter to nobody here are 0 or empty."""
    columns = metadata.tables[table].columns
    other = {one.name: "" if isinstance(one.type, sa.String) else 0 for one in columns if not one.nullable}
    other.pop("id", None)
    connection.execute(metadata.tables[table].insert(), {**other, **values})


def test_each_model_that_saw_a_picture_has_its_label_and_changes(engine: sa.Engine, tables: sa.MetaData) -> None:
    """In their order; an artifact of two models is the first release's, and one of no release stands for itself."""
    upgrade(engine, tables)
    found = rows_of(engine)
    samples = sorted(
        (str(one["artifact_sha256"]), one["model"], one["label"]) for one in found["samples"] if one["label"]
    )  # fmt: skip
    assert samples == [("", "", "7"), *((name, model, "7") for name, model in ARTIFACTS.items()), ("c", "c", "7")]
    changes: dict[object, list[object]] = {}
    for one in sorted(found["label_changes"], key=lambda row: int(str(row["id"]))):
        changes.setdefault((one["model"], one["sha256"]), []).append((one["label"], one["new_label"]))
        assert [one[name] for name in ("label_by", "labelled_ms", "changed_by", "changed_ms")] == ["anna", 5, "ben", 7]
    each = [("1", "2"), ("2", "7")]
    assert changes == {
        ("digits", "shared"): each, ("odd", "shared"): each, ("c", "shared"): each, ("", "gone"): [("x", "y")],
    }  # fmt: skip


def test_of_contrary_claims_the_last_counts_and_the_others_are_kept(engine: sa.Engine, tables: sa.MetaData) -> None:
    """Of one device and model; a sample that was drawn has none."""
    upgrade(engine, tables)
    found = rows_of(engine)
    claims = [(str(one["model"]), one["claimed"]) for one in found["samples"] if one["sha256"] == "claimed"]
    assert sorted(claims) == [("digits", ""), *[("digits", "8")] * 4, ("odd", "9")]
    changes = sorted(found["claim_changes"], key=lambda one: int(str(one["id"])))
    assert [(one["claimed"], one["new_claimed"], one["changed_ms"]) for one in changes] == [
        ("7", "none of these", 13), ("none of these", "8", 14)
    ]  # fmt: skip
    assert {(one["device"], one["model"], one["sha256"]) for one in changes} == {("d1", "digits", "claimed")}
