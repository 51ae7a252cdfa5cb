"""The inventory of devices: kinds, paths, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.devices.inventory import EmulatedEntry, LocalEntry, ServerEntry, SshEntry, read_inventory
from compressor.devices.shell import shell_of
from compressor.errors import DeviceMeasureError, InventoryError


def read(folder: Path, text: str) -> dict:
    """Return the inventory of that text."""
    (folder / "lab.toml").write_text(text)
    return read_inventory(folder / "lab.toml")


def test_each_kind_is_read_with_its_own_keys(tmp_path: Path) -> None:
    """Paths are relative to the inventory, and the order stays."""
    found = read(
        tmp_path,
        """
[devices.bench]
kind = "local"
netns = "hil-1"
[devices.pi]
kind = "ssh"
host = "pi@board"
hardware = "pi4"
known_hosts = "known_hosts"
limits = {latency_p95_ms = 5}
[devices.arm]
kind = "emulated"
root = "arm64"
[devices.cam-1]
kind = "server"
server = "http://fleet"
token_file = "builder.token"
keys = "keys"
""",
    )
    assert list(found) == ["bench", "pi", "arm", "cam-1"]
    assert [type(entry) for entry in found.values()] == [LocalEntry, SshEntry, EmulatedEntry, ServerEntry]
    assert found["pi"].known_hosts == tmp_path / "known_hosts"
    assert found["pi"].limits.latency_p95_ms == 5.0
    assert [entry.timed for entry in found.values()] == [True, True, False, True]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "at least one table"),
        ("[device.a]\nkind = 'local'", "'device'"),
        ("[devices.a]\nkind = 'usb'", "local or ssh or emulated or server, got 'usb'"),
        ("[devices.a]\nkind = 'ssh'", "the key 'host'"),
        ("[devices.a]\nkind = 'ssh'\nhost = '-oProxyCommand=id'", "host as user@name, got '-oProxyCommand=id'"),
        ("[devices.a]\nkind = 'local'\nharware = 'pi4'", "did you mean 'hardware'"),
        ("[devices.a]\nkind = 'local'\npower_off = ['x']", "power_off and power_on together"),
        ("[devices.a]\nkind = 'local'\nlimits = {flip_ratio = 1.1}", "flip_ratio between 0 and 1"),
        ("[devices.'a b']\nkind = 'local'", "a b"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, named: str) -> None:
    """Unknown kinds and keys, missing ones, cuts without an end, values out of range."""
    with pytest.raises(InventoryError, match=named):
        read(tmp_path, text)


def test_an_unknown_host_key_is_never_accepted() -> None:
    """The ssh client is asked to refuse it, and to ask no questions."""
    shell = shell_of(SshEntry(host="pi@board", known_hosts=Path("/lab/known_hosts"), port=2222))
    assert "StrictHostKeyChecking=yes" in shell.prefix
    assert "BatchMode=yes" in shell.prefix
    assert "UserKnownHostsFile=/lab/known_hosts" in shell.prefix
    assert shell.prefix[-3:] == ("-p", "2222", "pi@board")


def test_a_command_that_fails_or_hangs_is_told_with_its_last_words() -> None:
    """Exit code, what it wrote, and the limit."""
    shell = shell_of(LocalEntry())
    assert shell.run("cat", b"abc") == b"abc"
    with pytest.raises(DeviceMeasureError, match="exit 3: no such board"):
        shell.run("echo no such board >&2; exit 3")
    with pytest.raises(DeviceMeasureError, match=r"within 0.2 s"):
        shell.run("exec sleep 60", None, limit_s=0.2)
