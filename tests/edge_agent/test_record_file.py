"""Persistent records: old ones are read, newer ones are kept and not read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.control.inbox import CommandState, CommandStateFile
from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import read_identity
from edge_agent.device.record_file import newer_records, read_record, remove_half_written, write_record
from edge_agent.errors import IdentityError, NewerFormatError
from edge_agent.updater.storage.slots import Records, SlotRelease, Slots
from edge_agent.updater.storage.time_floor import TimeFloor
from wire.errors import MessageError

OF_42F48EE = {
    "identity.json": '{"device":"cam-1","http_url":"http://h:1","mqtt_host":"h","mqtt_port":1,"mqtt_tls_ca":"",'
    '"password":"p","site":"north"}',
    "slots/a.json": '{"latency_budget_ms":5.0,"release":"m-1","security_floor":1,"sha256":"aa"}',
    "slots/boots.json": '{"a":2}',
    "floor.json": '{"security_floor":3}',
    "gen.json": '{"gen":7}',
    "samples.json": '{"day":20000,"granted_bytes":500}',
    "tuf/time_floor.json": '{"floor_ms":1770000000000}',
    "update.json": '{"code":"","desired":{"gen":7,"release":"m-1"},"phase":"committed","since_ms":5,"slot":"a"}',
}
READERS: dict[str, Callable[[Path], object]] = {
    "identity.json": lambda state: read_identity(state).device,
    "slots/a.json": lambda state: Slots(state, RealDisk()).read("a"),
    "slots/boots.json": lambda state: Slots(state, RealDisk()).boots("a"),
    "floor.json": lambda state: Slots(state, RealDisk()).floor(),
    "gen.json": lambda state: Records(state, RealDisk()).read()[0].desired.gen,
    "samples.json": lambda state: CommandStateFile(state, RealDisk()).read(20000 * 86_400_000),
    "tuf/time_floor.json": lambda state: TimeFloor(state / "tuf" / "time_floor.json").read_ms(),
    "update.json": lambda state: Records(state, RealDisk()).read()[0].phase,
}
READ = {
    "identity.json": "cam-1",
    "slots/a.json": SlotRelease(release="m-1", sha256="aa", security_floor=1, latency_budget_ms=5.0),
    "slots/boots.json": 2,
    "floor.json": 3,
    "gen.json": 6,
    "samples.json": CommandState(day=20000, granted_bytes=500),
    "tuf/time_floor.json": 1_770_000_000_000,
    "update.json": "committed",
}


@pytest.mark.parametrize("name", OF_42F48EE)
def test_reads_the_records_of_the_first_agents(tmp_path: Path, name: str) -> None:
    """A record without a format, as every agent up to commit 42f48ee wrote it, is read without loss."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(OF_42F48EE[name])
    assert READERS[name](tmp_path) == READ[name]


@pytest.mark.parametrize("name", OF_42F48EE)
def test_never_reads_a_record_of_a_newer_agent(tmp_path: Path, name: str) -> None:
    """The record is not misread with today's meaning, and its file is named."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps({**json.loads(OF_42F48EE[name]), "format": 2}))
    if name == "identity.json":
        with pytest.raises(IdentityError, match="a newer agent wrote it"):
            READERS[name](tmp_path)
    else:
        assert READERS[name](tmp_path) != READ[name]
    (sentence,) = newer_records(tmp_path)
    assert name in sentence


def test_the_first_write_moves_a_newer_record_beside(tmp_path: Path) -> None:
    """A newer record is never destroyed: not by one write, nor by the same downgrade a second time."""
    for number in [1, 2]:
        (tmp_path / "gen.json").write_text(f'{{"format":5,"gen":{number}}}')
        write_record(RealDisk(), tmp_path / "gen.json", {"gen": 9})
        assert read_record(tmp_path / "gen.json") == {"gen": 9}
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["gen.json", "gen.json.newer-5", "gen.json.newer-5-2"]


@pytest.mark.parametrize("format_", ["0", "-1", "true", '"1"', "1.5"])
def test_a_format_that_is_no_number_is_damage(tmp_path: Path, format_: str) -> None:
    """Neither old nor newer: damaged, and no reason to keep it."""
    (tmp_path / "gen.json").write_text(f'{{"format":{format_},"gen":1}}')
    with pytest.raises(MessageError) as caught:
        read_record(tmp_path / "gen.json")
    assert not isinstance(caught.value, NewerFormatError)


def test_what_a_power_cut_left_half_written_is_removed(tmp_path: Path) -> None:
    """Only that: the records, and other files, stay."""
    for name in (".identity.json.new", "slots/.a.json.new", "tuf/.time_floor.json.new", "slots/a.json", "status.new"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{")
    remove_half_written(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.json", "status.new"]
