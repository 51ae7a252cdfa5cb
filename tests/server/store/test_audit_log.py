"""The log of acts: a whole chain, and each way to break it is found at the first record; on both databases."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from server.access.audit_log import AuditLog, parsed_anchor, record_act
from server.errors import AnchorInvalidError
from server.people import Actor, ActorKind
from server.store.database import Database, open_database
from server.store.people.audit_log import AUDIT_HEAD, AUDIT_LOG
from wire.canonical import canonical_bytes

ADA = Actor(account="ada", kind=ActorKind.USER, through="page", address="192.0.2.1")


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    """An empty database of each kind."""
    made = open_database(empty_url)
    yield made
    made.close()


@pytest.fixture
def log(database: Database) -> AuditLog:
    """A log with five acts."""
    found = AuditLog(database)
    for number in range(1, 6):
        found.add(ADA, "rollout.approve", f"rollout-{number}", 1_000 * number, data={"ü": [1.5, None], "n": number})
    return found


def test_a_chain_is_whole_and_numbered_without_a_gap(log: AuditLog) -> None:
    """The first record follows nothing; the head is the last one."""
    records = log.after(0, 9)
    assert [one.seq for one in records] == [1, 2, 3, 4, 5]
    assert [one.previous_sha256 for one in records] == ["", *(one.sha256 for one in records[:-1])]
    found = log.verify()
    assert (found.count, found.broken_seq, found.why) == (5, 0, "")
    assert log.head() == (5, found.head_sha256)


def test_others_can_verify_the_export(log: AuditLog) -> None:
    """From the lines alone, by the rule that its help states."""
    previous = ""
    for line in log.export():
        record = json.loads(line)
        sha256, before = record.pop("sha256"), record.pop("previous_sha256")
        assert before == previous
        assert hashlib.sha256(before.encode() + canonical_bytes(record)).hexdigest() == sha256
        previous = sha256
    assert previous == log.head()[1]


def _change(log: AuditLog, *statements: sa.Executable) -> None:
    with log.database.begin() as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("column", [column.name for column in AUDIT_LOG.columns if column.name != "seq"])
def test_a_changed_field_breaks_its_record(log: AuditLog, column: str) -> None:
    """Whichever it is, also one of the hashes."""
    value: object = 7 if column == "at_ms" else '{"n":3}' if column == "data" else "0" * 64
    value = str(value)[:16] if column == "kind" else value
    _change(log, AUDIT_LOG.update().where(AUDIT_LOG.c.seq == 3).values({column: value}))
    found = log.verify()
    assert (found.broken_seq, found.count) == (3, 2)
    assert "changed" in found.why


@pytest.mark.parametrize("data", ["{", '{"n": 3}', '{"n":NaN}', '"\\ud800"'])
def test_data_that_is_no_canonical_json_is_a_changed_record(log: AuditLog, data: str) -> None:
    """Never a stack."""
    _change(log, AUDIT_LOG.update().where(AUDIT_LOG.c.seq == 2).values(data=data))
    assert log.verify().broken_seq == 2


def test_a_removed_record_breaks_the_next(log: AuditLog) -> None:
    """The one that follows it is named."""
    _change(log, AUDIT_LOG.delete().where(AUDIT_LOG.c.seq == 2))
    found = log.verify()
    assert (found.broken_seq, found.why) == (3, "record 2 is missing")


def test_removed_and_renumbered_is_found_too(log: AuditLog) -> None:
    """The number is part of the hash."""
    _change(log, AUDIT_LOG.delete().where(AUDIT_LOG.c.seq == 2),
            *(AUDIT_LOG.update().where(AUDIT_LOG.c.seq == seq).values(seq=seq - 1) for seq in (3, 4, 5)))  # fmt: skip
    assert log.verify().broken_seq == 2


def test_swapped_records_break_at_the_first(log: AuditLog) -> None:
    """Each has its place."""
    _change(log, *(AUDIT_LOG.update().where(AUDIT_LOG.c.seq == old).values(seq=new)
                   for old, new in ((2, 99), (3, 2), (99, 3))))  # fmt: skip
    assert log.verify().broken_seq == 2


def test_a_record_written_anew_breaks_the_one_after(log: AuditLog) -> None:
    """Its own hash fits; the next one follows the old record."""
    third = log.after(2, 1)[0]
    content = {name: getattr(third, name) for name in ("seq", "at_ms", "kind", "said", "through", "address", "act")}
    content |= {"account": "eve", "subject": third.subject, "data": dict(third.data)}
    sha256 = hashlib.sha256(third.previous_sha256.encode() + canonical_bytes(content)).hexdigest()
    _change(log, AUDIT_LOG.update().where(AUDIT_LOG.c.seq == 3).values(account="eve", sha256=sha256))
    found = log.verify()
    assert (found.broken_seq, found.why) == (
        4, "it follows another record: one before it was changed, removed or swapped"
    )  # fmt: skip


def test_a_cut_end_shows_by_the_head(log: AuditLog) -> None:
    """As long as the head was left alone."""
    _change(log, AUDIT_LOG.delete().where(AUDIT_LOG.c.seq > 3))
    found = log.verify()
    assert (found.broken_seq, found.why) == (
        4, "the records end with 3, and the head is that of 5: the end was cut off"
    )  # fmt: skip


def test_a_cut_end_with_a_forged_head_shows_by_the_anchor_alone(log: AuditLog) -> None:
    """What no chain can show: the anchor was kept elsewhere."""
    anchor, third = log.head(), log.after(2, 1)[0]
    _change(log, AUDIT_LOG.delete().where(AUDIT_LOG.c.seq > 3), AUDIT_HEAD.update().values(seq=3, sha256=third.sha256))
    assert log.verify().broken_seq == 0
    found = log.verify(anchor)
    assert (found.broken_seq, "the log ends before it" in found.why) == (4, True)


def test_an_anchor_fits_a_log_that_grew(log: AuditLog) -> None:
    """Also the anchor of an empty log; one of another log does not."""
    anchor = log.head()
    log.add(ADA, "logout", "ada", 9_000)
    assert [log.verify(one).broken_seq for one in (anchor, (0, ""), None)] == [0, 0, 0]
    found = log.verify((5, "0" * 64))
    assert (found.broken_seq, "the anchor says that record 5" in found.why) == (5, True)


@pytest.mark.parametrize("text", ["", "5", "5:", "x:" + "0" * 64, "-1:" + "0" * 64, "5:" + "0" * 63])
def test_an_anchor_that_is_none_is_named(text: str) -> None:
    """Before anything is compared with it."""
    with pytest.raises(AnchorInvalidError, match="Expected an anchor SEQ:SHA256"):
        parsed_anchor(text)
    assert parsed_anchor(" 5:" + "0" * 64 + "\n") == (5, "0" * 64)


def test_an_act_that_fails_leaves_no_record_and_no_gap(log: AuditLog) -> None:
    """Both are one transaction."""

    def fail() -> None:
        with log.database.begin() as connection:
            record_act(connection, ADA, "rollout.pause", "rollout-1", 6_000)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    log.add(ADA, "rollout.pause", "rollout-1", 6_000)
    assert (log.verify().count, log.verify().broken_seq) == (6, 0)


def test_two_writers_make_one_chain(database: Database) -> None:
    """Each waits for the other's transaction; the first act of all is one of them."""
    log, errors = AuditLog(database), []

    def write(name: str) -> None:
        try:
            for number in range(20):
                log.add(name, "device.command", str(number), number)
        except Exception as error:  # noqa: BLE001 - the test shows it
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("ada", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (log.verify().count, log.verify().broken_seq) == (60, 0)
    assert [one.subject for one in log.after(0, 99) if one.account == "bob"] == [str(number) for number in range(20)]
