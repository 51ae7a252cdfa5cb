"""Assignments of devices: written first, published second, never lost."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from server.errors import UnknownDeviceError
from server.fleet.fleet import Fleet, Outbox, next_gen, would_ignore
from server.store.fleet import DEVICES, touch_devices, update_device
from wire.codec import encode
from wire.errors import NameRefusedError
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import DeviceState, Get, InstalledRelease, Reported, State, UpdatePhase, UpdateStatus

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

RELEASE = {"release": "m-2", "target": "m-2/gateway.tfb", "sha256": "1" * 64, "length_bytes": 10}


def test_gen_only_grows(fleet: MemoryFleet) -> None:
    """Each change of release or settings is one generation."""
    device = fleet.enrol()
    gens = [
        fleet.app.parts.fleet.set_desired("cam-1", **RELEASE),
        fleet.app.parts.fleet.set_config("cam-1", {"sample_bytes_per_day": 5}),
        fleet.app.parts.fleet.set_desired("cam-1", **{**RELEASE, "release": "m-3"}, probation_s=3.0),
    ]
    assert gens == [1, 2, 3]
    desired = device.desired()
    assert (desired.gen, desired.release, desired.probation_s) == (3, "m-3", 3.0)
    assert desired.config == {"sample_bytes_per_day": 5}


def test_gen_goes_past_what_the_device_knows(fleet: MemoryFleet) -> None:
    """After a restored backup the device is ahead: it would ignore a lower number."""
    device = fleet.enrol()
    device.say("reported", Reported(gen=41), retain=True)
    fleet.turn()
    assert fleet.app.parts.fleet.set_desired("cam-1", **RELEASE) == 42
    device.say("reported", Reported(gen=2**62), retain=True)
    fleet.turn()
    assert fleet.app.parts.fleet.set_desired("cam-1", **RELEASE) == 43


@pytest.mark.parametrize(
    ("ours", "theirs", "following", "ignored"),
    [
        (7, None, 8, False),
        (7, 7, 8, False),
        (7, 5, 8, False),
        (7, 9, 10, True),
        (7, 2**62, 8, False),
        (2**32 + 7, 7, 2**32 + 8, False),
        (2**32 + 8, 7, 8, True),  # enrolled again, after a generation that was no server's
        (7, 2**53 - 1, 2**53, True),
        (2**53, 0, 1, True),
    ],
)
def test_the_next_gen_is_one_the_device_will_take(
    fleet: MemoryFleet, ours: int, theirs: int | None, following: int, *, ignored: bool
) -> None:
    """Above the device's own, and never so far ahead that the device would ignore it."""
    fleet.enrol()
    reported = None if theirs is None else Reported(gen=theirs)
    known = replace(fleet.app.parts.fleet.device("cam-1"), desired_gen=ours, reported=reported)
    assert (next_gen(known), would_ignore(known)) == (following, ignored)


@pytest.mark.parametrize(
    ("reported", "again"),
    [
        (Reported(gen=1, update=UpdateStatus(phase=UpdatePhase.COMMITTED, gen=1)), True),
        (
            Reported(
                gen=1,
                current=InstalledRelease("m-1", "0" * 64),
                update=UpdateStatus(phase=UpdatePhase.COMMITTED, gen=1),
            ),
            True,
        ),
        (
            Reported(
                gen=1,
                current=InstalledRelease("m-2", "1" * 64),
                update=UpdateStatus(phase=UpdatePhase.COMMITTED, gen=1),
            ),
            False,
        ),
        (
            Reported(  # a person on site brought it
                gen=1,
                current=InstalledRelease("m-3", "2" * 64),
                update=UpdateStatus(phase=UpdatePhase.COMMITTED, gen=1, release="m-3"),
            ),
            False,
        ),
        (Reported(gen=1, update=UpdateStatus(phase=UpdatePhase.REFUSED, gen=1)), False),
        (Reported(gen=0, update=UpdateStatus(phase=UpdatePhase.COMMITTED, gen=0)), False),
    ],
)
def test_sends_a_release_again_that_the_device_lost(fleet: MemoryFleet, reported: Reported, *, again: bool) -> None:
    """The device reports it as committed and lacks it: a new attempt. A refused release stays refused."""
    device = fleet.enrol()
    fleet.app.parts.fleet.set_desired("cam-1", **RELEASE)
    device.say("reported", reported, retain=True)
    device.say("get", Get())
    fleet.turn()
    desired = device.desired()
    assert (desired.gen, desired.attempt, desired.release) == ((2, 2, "m-2") if again else (1, 1, "m-2"))


@pytest.mark.stores
def test_what_is_acknowledged_survives_a_power_cut(fleet: MemoryFleet) -> None:
    """Every commit is synced: under WAL the lesser setting may lose the last ones; PostgreSQL's host may have one."""
    database = fleet.app.parts.database
    setting, durable = ("SHOW synchronous_commit", "on") if database.is_shared else ("PRAGMA synchronous", 2)
    with database.begin() as connection:
        assert connection.execute(sa.text(setting)).scalar_one() == durable


def test_an_assignment_is_a_new_attempt_and_settings_are_not(fleet: MemoryFleet) -> None:
    """By the number a device knows whether to try a refused release again."""
    device, attempts = fleet.enrol(), []
    for change in ("set_desired", "set_config", "set_desired"):
        arguments = RELEASE if change == "set_desired" else {"config": {"x": 1}}
        getattr(fleet.app.parts.fleet, change)("cam-1", **arguments)
        attempts.append(device.desired().attempt)
    assert attempts == [1, 1, 3]


def test_changes_from_many_threads_get_different_gens(fleet: MemoryFleet) -> None:
    """Two operators can't publish the same generation."""
    fleet.enrol()
    gens = []
    threads = [
        threading.Thread(target=lambda: gens.append(fleet.app.parts.fleet.set_config("cam-1", {}))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(gens) == list(range(1, 9))


def test_desired_survives_server_and_broker(fleet: MemoryFleet) -> None:
    """The database is the truth; a broker that lost everything is filled again."""
    device = fleet.enrol()
    fleet.app.parts.fleet.set_desired("cam-1", **RELEASE)
    fleet.restart(broker=MemoryBroker())
    device.transport.broker = fleet.broker
    device.heard.clear()
    device.connect()
    fleet.turn()
    assert device.desired().release == "m-2"


def test_desired_set_while_disconnected_is_published_later(fleet: MemoryFleet) -> None:
    """Persisted at once, published in the first turn with a connection."""
    device = fleet.enrol()
    fleet.broker.disconnect("server", lost=True)
    fleet.app.parts.fleet.set_desired("cam-1", **RELEASE)
    assert device.desired() is None
    fleet.app.connect()
    fleet.turn()
    assert device.desired().gen == 1


def test_refuses_an_unknown_device(fleet: MemoryFleet) -> None:
    """The error says where to look."""
    with pytest.raises(UnknownDeviceError, match="fleet-server devices"):
        fleet.app.parts.fleet.set_desired("nobody", **RELEASE)


def test_refuses_a_command_that_is_no_topic_level(fleet: MemoryFleet) -> None:
    """A verb can't smuggle in another topic."""
    fleet.enrol()
    with pytest.raises(NameRefusedError):
        fleet.app.parts.fleet.send_command("cam-1", "a/../b", {}, 1.0)


def test_silence_is_noted_once_and_ends(fleet: MemoryFleet) -> None:
    """A device that reported ready and then nothing for two hours is an event; so is its return."""
    device = fleet.enrol()
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock()))
    fleet.turn()
    for _ in range(2):
        fleet.clock.now_ms += 8_000_000
        fleet.turn()
    device.report(0)
    fleet.turn()
    fleet.clock.now_ms += 20_000
    fleet.turn()
    assert [code for code in fleet.codes() if code in {"silent", "heard"}] == ["silent", "heard"]


def test_a_fleet_of_any_size_is_decoded_once(fleet: MemoryFleet) -> None:
    """8,193 devices, one more than a cache once held: the second look decodes nothing, a changed report is decoded."""
    parts, text = fleet.app.parts, encode(Reported(gen=1)).decode()
    row = {"site": "berlin", "attributes": {}, "password_hash": "", "enrolled_ms": 0, "state": "ready"}
    rows = [{**row, "device": f"cam-{i:05d}", "reported": text} for i in range(8193)]
    with parts.database.begin() as connection:
        connection.execute(DEVICES.insert(), rows)
    once, twice = parts.fleet.devices(), parts.fleet.devices()
    assert all(one.reported is two.reported for one, two in zip(once, twice, strict=True))
    with parts.database.begin() as connection:
        update_device(connection, "cam-00000", {"reported": encode(Reported(gen=2)).decode()})
    assert [device.reported.gen for device in parts.fleet.devices()[:2] if device.reported] == [2, 1]


def test_a_device_that_is_only_seen_again_is_no_news(fleet: MemoryFleet) -> None:
    """Its first sign of life is, and so is each other change; who was seen when is always up to date."""
    device, parts = fleet.enrol("cam-1"), fleet.app.parts
    enrolled = parts.fleet.roster()
    touch(fleet, 5)
    first = parts.fleet.roster()
    touch(fleet, 9)
    again = parts.fleet.roster()
    assert enrolled.revision < first.revision == again.revision
    assert (first.devices[0].last_seen_ms, again.by_id["cam-1"].last_seen_ms) == (5, 9)
    device.say("state", State(state=DeviceState.DEGRADED, at_ms=fleet.clock()))
    fleet.turn()
    assert parts.fleet.roster().revision > again.revision
    assert parts.fleet.roster() is parts.fleet.roster()


def touch(fleet: MemoryFleet, now_ms: int) -> None:
    """Note a sign of life of ``cam-1``."""
    with fleet.app.parts.database.begin() as connection:
        touch_devices(connection, ["cam-1"], now_ms)


def test_who_leaves_and_comes_back_is_news(fleet: MemoryFleet) -> None:
    """A revoked device is in no roster; enrolled again, it is in the next, in its place."""
    parts = fleet.app.parts
    for name in ("cam-1", "cam-2", "cam-3"):
        fleet.enrol(name)
    before = parts.fleet.roster()
    parts.revocations.revoke("cam-2")
    gone = parts.fleet.roster()
    assert [device.device for device in gone.devices] == ["cam-1", "cam-3"]
    fleet.enrol("cam-2")
    back = parts.fleet.roster()
    assert [device.device for device in back.devices] == ["cam-1", "cam-2", "cam-3"]
    assert before.revision < gone.revision < back.revision


def test_what_another_process_assigns_is_published(fleet: MemoryFleet) -> None:
    """Also once all that was known is published: the database says that something changed."""
    device, parts = fleet.enrol("cam-1"), fleet.app.parts
    fleet.turn()
    other = Fleet(database=parts.database, outbox=Outbox(_unconnected()), clock=fleet.clock)
    other.set_config("cam-1", {"sample_bytes_per_day": 7})
    assert device.desired() is None
    fleet.turn()
    desired = device.desired()
    assert desired is not None
    assert desired.config == {"sample_bytes_per_day": 7}
    device.heard.clear()
    fleet.turn()
    assert device.desired() is None
    parts.fleet.forget_published()
    fleet.turn()
    assert device.desired() == desired


def _unconnected() -> MemoryTransport:
    """Return the transport of a process whose broker nobody listens to."""
    return MemoryTransport(broker=MemoryBroker(), client_id="other")
