"""Two people label one image at the same moment: the database lets one through, also where writers do not queue."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import sqlalchemy as sa

from server.errors import LabelTakenError
from server.retraining.samples import SampleStore, StoredSample
from server.store import retraining as store
from server.store.database import Database, open_database
from wire.messages import Sample

DATA = b"an image"
SHA256 = hashlib.sha256(DATA).hexdigest()
SAMPLE = Sample(boot="b", seq=1, sha256=SHA256, data=base64.b64encode(DATA).decode())


def until_blocked(database: Database, slower: Future[StoredSample]) -> None:
    """Return once the statement of the slower person waits for the faster one's transaction."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(1_000):
        with database.begin() as connection:
            if connection.execute(waiting).scalar():
                return
        if wait([slower], timeout=0.02).done:
            return
    pytest.fail("Expected a statement that waits for a lock")


@pytest.mark.slow
@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("was", [None, "0"])
def test_of_two_transactions_at_once_the_slower_one_changes_nothing(
    empty_url: str, tmp_path: Path, was: str | None
) -> None:
    """Its change of the label is not kept either: it never was one."""
    database = open_database(empty_url)
    samples = SampleStore(database=database, folder=tmp_path)
    samples.accept("d1", SAMPLE, 50)
    if was is not None:
        samples.label(1, was, "anna", 60)
    with ThreadPoolExecutor(1) as pool, database.engine.connect() as faster:
        assert store.label_image(faster, "", SHA256, was, {"label": "8", "label_by": "ben", "labelled_ms": 70})
        slower = pool.submit(samples.label, 1, "9", "cy", 71, replaces=was)
        until_blocked(database, slower)
        assert not slower.done()
        faster.commit()
        with pytest.raises(LabelTakenError, match="ben has labelled '8'"):
            slower.result(30)
    assert (samples.sample(1).label, samples.changes(1)) == ("8", ())
    database.close()


@pytest.mark.slow
def test_a_changed_label_is_kept_in_every_database(empty_url: str, tmp_path: Path) -> None:
    """With what it was; on PostgreSQL an INSERT does not say how many rows it made."""
    database = open_database(empty_url)
    samples = SampleStore(database=database, folder=tmp_path)
    samples.accept("d1", SAMPLE, 50)
    samples.label(1, "0", "anna", 60)
    assert samples.label(1, "8", "ben", 70, replaces="0").label == "8"
    assert [(one.label, one.label_by, one.new_label, one.changed_by) for one in samples.changes(1)] == [
        ("0", "anna", "8", "ben")
    ]  # fmt: skip
    assert [one.label for one in samples.labelled_last(2)] == ["8"]
    database.close()
