"""Files that devices rely on are never replaced silently."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.app.server import Overrides, ServerApp
from server.app.state_backup import check_backup, restore_state
from server.app.state_directory import RunAddress, ServerPorts, StateDirectory, open_state
from server.cli import main
from server.errors import DatabaseLostError, StateDirectoryError, TrustStoreError
from server.store.database import open_database
from server.trust.online_keys import init_online_keys, load_online_key
from server.trust.repository import TrustRepository
from tests.conftest import flip
from tests.server.conftest import MemoryFleet, publish_bytes
from wire.canonical import sha256_hex
from wire.memory_broker import MemoryBroker, MemoryTransport


def _ran(state: StateDirectory) -> ServerPorts:
    """Run a server once, enrol a device, and return the ports that the device received."""
    app = ServerApp.open(state.path, pages=False)
    app.start()
    enrolment = app.parts.enrolment
    enrolment.enrol(enrolment.claim("berlin", "cam-1", {}))
    app.stop()
    found = state.read_ports()
    assert found is not None
    return found


@pytest.mark.broker
def test_ports_stay_without_anything_that_is_scratch(state: StateDirectory) -> None:
    """Broker files and the last address are created again; the ports that devices know stay."""
    told = _ran(state)
    state.address.unlink()
    app = ServerApp.open(state.path, pages=False)
    assert (app.web.listener.getsockname()[1], app.address.mqtt_port) == (told.http, told.broker)
    app.stop()


@pytest.mark.broker
def test_lost_ports_are_not_drawn_anew_while_devices_know_them(state: StateDirectory) -> None:
    """The server names where to find them; with ports in server.toml or on the command line it starts."""
    told = _ran(state)
    state.ports.unlink()
    state.address.unlink()
    with pytest.raises(StateDirectoryError, match=r"the ports that 1 devices were given in .*ports\.json, got no such"):
        ServerApp.open(state.path, pages=False)
    app = ServerApp.open(state.path, pages=False, overrides=Overrides(told.http, told.broker))
    app.stop()


@pytest.mark.broker
def test_a_directory_of_42f48ee_keeps_its_ports(state: StateDirectory) -> None:
    """It had them only beside the address of the last run."""
    told = _ran(state)
    state.ports.unlink()
    assert state.read_ports() == told


@pytest.mark.parametrize("text", [
    "", "{", "[]", '{"http": 0, "broker": 1}', '{"http": "a", "broker": 1}', '{"http": 1}',
    '{"http": 1, "broker": 65536}', '{"http": true, "broker": 1}',
])  # fmt: skip
def test_damaged_ports_are_named_and_left_alone(state: StateDirectory, text: str) -> None:
    """Even where an older file has others."""
    state.ports.write_text(text)
    state.write_address(RunAddress(http_url="http://127.0.0.1:9", mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    with pytest.raises(StateDirectoryError, match=r'Expected \{"http": PORT, "broker": PORT\} in .*: restore it'):
        state.read_ports()
    assert state.ports.read_text() == text


def _missing(database: Path) -> None:
    database.unlink()


def _emptied(database: Path) -> None:
    database.write_bytes(b"")


@pytest.mark.parametrize("lose", [_missing, _emptied])
@pytest.mark.parametrize("command", [["run"], ["devices"], ["claim", "--site", "a", "--device", "b"]])
def test_a_lost_database_is_not_made_anew(
    state: StateDirectory, lose: Callable[[Path], None], command: list[str]
) -> None:
    """All devices would be unknown, without an error."""
    open_database(state.database_url).close()
    state.keep_ports(ServerPorts(1, 2))
    lose(state.path / "fleet.db")
    done = CliRunner().invoke(main, [command[0], str(state.path), *command[1:]])
    assert (done.exit_code, done.stderr.split(":")[0]) == (1, "error [database_lost]")
    assert str(state.path) in done.stderr


def test_an_empty_database_is_refused_where_a_server_ran(state: StateDirectory) -> None:
    """Also that of another machine, by URL."""
    with pytest.raises(DatabaseLostError, match="restore it from the backup"):
        open_database(f"sqlite:///{state.path / 'other.db'}", may_be_new=False)


def test_lost_metadata_does_not_begin_again_at_version_one(state: StateDirectory) -> None:
    """Devices that saw later versions would refuse that as an attack."""
    (state.tuf / "2.snapshot.json").write_text("{}")
    with pytest.raises(TrustStoreError, match=r"Expected timestamp\.json in .*: restore it from the backup"):
        TrustRepository(state.path).current_targets()
    (state.tuf / "2.snapshot.json").rename(state.tuf / "1.snapshot.json")
    assert TrustRepository(state.path).current_targets() is None


@pytest.mark.parametrize(
    ("lost", "published"),
    [
        ("tuf/1.root.json", True),
        ("keys/snapshot.key", False),
        ("keys/timestamp.key", True),
        ("tuf/timestamp.json", True),
    ],
)
def test_a_server_does_not_start_without_what_devices_believe(
    state: StateDirectory, lost: str, *, published: bool
) -> None:
    """It would fail days later when it signs again, or restart its version numbers; the file is named."""
    (state.path / lost).unlink(missing_ok=True)
    trust = TrustRepository(state.path)
    with pytest.raises(TrustStoreError, match=rf"{Path(lost).name}.*restore it from the backup"):
        trust.refuse_losses(published=published)


def test_a_lost_key_stops_the_start_and_a_new_server_has_nothing_to_lose(state: StateDirectory) -> None:
    """Before the first root there is nothing that devices could know."""
    ServerApp.open(state.path, pages=False).stop()
    (state.keys / "snapshot.key").unlink()
    with pytest.raises(TrustStoreError, match=r"snapshot\.key"):
        ServerApp.open(state.path, pages=False)
    (state.tuf / "1.root.json").unlink()
    ServerApp.open(state.path, pages=False).stop()


def test_the_keys_of_another_server_stop_the_start(state: StateDirectory, tmp_path: Path) -> None:
    """No device trusts their signatures; both key ids and the next step are named."""
    init_online_keys(tmp_path / "other")
    ours, key = (load_online_key(path, "timestamp").public_key.keyid[:12] for path in (state.path, tmp_path / "other"))
    shutil.copy(tmp_path / "other" / "keys" / "timestamp.key", state.keys / "timestamp.key")
    with pytest.raises(TrustStoreError, match=rf"timestamp key {ours}… .*got {key}….*restore keys/ from the backup"):
        ServerApp.open(state.path, pages=False)
    (state.tuf / "1.root.json").write_text("{}")
    with pytest.raises(TrustStoreError, match=r"1\.root\.json: restore it from the backup"):
        ServerApp.open(state.path, pages=False)


def test_lost_settings_are_restored_not_begun_anew(state: StateDirectory) -> None:
    """The error does not suggest to create a new directory."""
    state.config.unlink()
    with pytest.raises(StateDirectoryError, match="fleet-server init"):
        open_state(state.path)
    state.keep_ports(ServerPorts(1, 2))
    with pytest.raises(StateDirectoryError, match=r"server\.toml of a server that ran before.*restore it"):
        open_state(state.path)


def test_a_backup_has_everything_but_scratch_and_is_private(state: StateDirectory, tmp_path: Path) -> None:
    """Files that are added to the directory later are included without a list."""
    open_database(state.database_url).close()
    state.keep_ports(ServerPorts(1, 2))
    (state.path / "new-one-day").write_text("x")
    (state.broker / "passwords").write_text("x")
    done = CliRunner().invoke(main, ["backup", str(state.path), str(tmp_path / "copy")])
    assert (done.exit_code, done.stderr) == (0, "")
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    missing = {path.name for path in state.path.iterdir()} - names
    assert missing - {"fleet.db-wal", "fleet.db-shm"} == {"broker", "run"}
    assert {stat.S_IMODE((tmp_path / "copy" / name).stat().st_mode) for name in ("", "keys")} == {0o700}
    assert stat.S_IMODE((tmp_path / "copy" / "operator.token").stat().st_mode) == 0o600
    assert json.loads((tmp_path / "copy" / "ports.json").read_bytes()) == {"http": 1, "broker": 2}


@pytest.mark.parametrize("target", ["there", "state/inside"])
def test_a_backup_goes_to_a_new_place_outside(state: StateDirectory, tmp_path: Path, target: str) -> None:
    """Nothing is overwritten, and the next backup does not contain this one."""
    (tmp_path / "there").mkdir()
    done = CliRunner().invoke(main, ["backup", str(state.path), str(tmp_path / target)])
    assert (done.exit_code, done.stderr.split(":")[0]) == (1, "error [state_directory]")


@pytest.fixture
def copy(fleet: MemoryFleet, tmp_path: Path) -> Path:
    """A copy of a server with a device, ports, a bundle and its tokens; the server runs meanwhile."""
    fleet.enrol("cam-1")
    publish_bytes(fleet.app.parts.versions, "digits")
    fleet.state.keep_ports(ServerPorts(1234, 5678))
    done = CliRunner().invoke(main, ["backup", str(fleet.state.path), str(tmp_path / "copy")])
    assert (done.exit_code, done.stderr) == (0, "")
    return tmp_path / "copy"


def test_a_restored_directory_is_the_server_that_devices_know(fleet: MemoryFleet, copy: Path, tmp_path: Path) -> None:
    """Ports, tokens, keys, bundles and devices are the same, private as before; the list of the copy is left out."""
    before = {name: (fleet.state.path / name).read_bytes() for name in ("ports.json", "operator.token")}
    done = CliRunner().invoke(main, ["restore", str(tmp_path / "again"), str(copy)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "files are whole" in done.stdout
    assert "compressor publish" in done.stdout
    again = open_state(tmp_path / "again")
    assert {name: (again.path / name).read_bytes() for name in before} == before
    assert stat.S_IMODE(again.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in (again.path / "operator.token", *again.keys.glob("*.key"))} == {
        0o600
    }
    assert not (again.path / "backup.json").exists()
    app = ServerApp.open(again.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"), pages=False)
    assert [device.device for device in app.parts.fleet.devices()] == ["cam-1"]
    assert app.parts.blobs.path(sha256_hex(b"digits")).read_bytes() == b"digits"
    app.stop()


def _flip_a_bundle(copy: Path) -> str:
    blob = next(one for one in (copy / "blobs").rglob("*") if one.is_file())
    flip(blob)
    return blob.name


def _lose_a_key(copy: Path) -> str:
    (copy / "keys" / "timestamp.key").unlink()
    return "timestamp.key"


def _flip_the_database(copy: Path) -> str:
    flip(copy / "fleet.db")
    return "fleet.db"


def _change_a_setting(copy: Path) -> str:
    (copy / "server.toml").write_text("[http]\nport = 1\n")
    return "server.toml"


@pytest.mark.parametrize(
    ("damage", "digests"),
    [
        (_flip_a_bundle, True), (_lose_a_key, True), (_flip_the_database, True), (_change_a_setting, True),
        (_flip_a_bundle, False),
    ],
)  # fmt: skip
def test_a_damaged_copy_is_named_and_nothing_is_restored(
    copy: Path, tmp_path: Path, damage: Callable[[Path], str], *, digests: bool
) -> None:
    """Also one of an older version, as far as its bundles show it."""
    name = damage(copy)
    if not digests:
        (copy / "backup.json").unlink()
    done = CliRunner().invoke(main, ["restore", str(tmp_path / "again"), str(copy)])
    assert (done.exit_code, (tmp_path / "again").exists(), name in done.stderr) == (1, False, True)
    assert CliRunner().invoke(main, ["restore", str(tmp_path / "again"), str(copy), "--check"]).exit_code == 1


def test_a_copy_of_an_older_version_is_restored_with_a_word(copy: Path, tmp_path: Path) -> None:
    """It has no digests to compare with."""
    (copy / "backup.json").unlink()
    done = CliRunner().invoke(main, ["restore", str(tmp_path / "again"), str(copy)])
    assert (done.exit_code, "without digests" in done.stdout) == (0, True)


def test_a_copy_that_was_not_finished_is_refused(copy: Path, tmp_path: Path) -> None:
    """The settings come last: without them the copy ended early."""
    (copy / "server.toml").unlink()
    done = CliRunner().invoke(main, ["restore", str(tmp_path / "again"), str(copy)])
    assert (done.exit_code, done.stderr.split(":")[0]) == (1, "error [state_directory]")
    assert "finished" in done.stderr


def test_nothing_is_replaced(copy: Path, fleet: MemoryFleet) -> None:
    """A directory in use is not overwritten by an older one."""
    before = (fleet.state.path / "server.toml").read_bytes()
    done = CliRunner().invoke(main, ["restore", str(fleet.state.path), str(copy)])
    assert (done.exit_code, done.stderr.split(":")[0]) == (1, "error [state_directory]")
    assert (fleet.state.path / "server.toml").read_bytes() == before


def test_a_restore_that_was_killed_leaves_no_directory_and_can_be_repeated(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server never runs on a part."""

    def killed(_folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("server.app.state_backup.sync_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        restore_state(check_backup(copy), tmp_path / "again")
    assert [one.name for one in tmp_path.iterdir() if "again" in one.name] == []
    monkeypatch.undo()
    (tmp_path / ".again.restoring" / "keys").mkdir(parents=True)  # as after kill -9
    restore_state(check_backup(copy), tmp_path / "again")
    assert open_state(tmp_path / "again").path == tmp_path / "again"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"files": 1}', '{"files": {"../x": "y"}}', '{"files": {"/etc/x": "y"}}']
)
def test_a_list_that_is_none_is_refused(copy: Path, tmp_path: Path, text: str) -> None:
    """No path outside the copy is ever read."""
    (copy / "backup.json").write_text(text)
    done = CliRunner().invoke(main, ["restore", str(tmp_path / "again"), str(copy)])
    assert (done.exit_code, "backup.json" in done.stderr) == (1, True)
