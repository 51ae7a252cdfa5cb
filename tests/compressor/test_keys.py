"""Keys of the build host: made once, private, bound to the server's."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from tuf.api.metadata import Metadata

from compressor.errors import KeysExistError, TrustError
from compressor.release.keys import init_keys, keys, load_signer, read_root, show_keys
from server.trust.online_keys import init_online_keys


@pytest.fixture
def online(tmp_path: Path) -> Path:
    """Public keys of a server."""
    return init_online_keys(tmp_path / "server")


def test_makes_private_keys_a_root_and_empty_targets(tmp_path: Path, online: Path) -> None:
    """Folder 0700, keys 0600, root for over a year with consistent snapshots and four different keys."""
    root = init_keys(tmp_path / "keys", online)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("keys", "keys/root.key", "keys/targets.key")]
    assert modes == [0o700, 0o600, 0o600]
    signed = Metadata.from_file(str(root)).signed
    assert signed.consistent_snapshot
    assert 365 < (signed.expires - datetime.now(UTC)).days < 730
    assert len(signed.keys) == 4
    assert Metadata.from_file(str(root.parent / "targets.json")).signed.version == 1


def test_never_overwrites_keys(tmp_path: Path, online: Path) -> None:
    """A second init changes nothing."""
    folder = tmp_path / "keys"
    init_keys(folder, online)
    before = (folder / "targets.key").read_bytes()
    with pytest.raises(KeysExistError):
        init_keys(folder, online)
    assert (folder / "targets.key").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{}", '{"snapshot": 1, "timestamp": 2}', "[]"])
def test_damaged_online_keys_leave_nothing_behind(tmp_path: Path, content: str) -> None:
    """A wrong file is named, and no half-made folder stays."""
    path = tmp_path / "online.pub.json"
    path.write_text(content)
    with pytest.raises(TrustError, match=r"online\.pub\.json"):
        init_keys(tmp_path / "keys", path)
    assert [item.name for item in tmp_path.iterdir()] == ["online.pub.json"]


def test_refuses_a_key_that_others_can_read_or_that_is_another(tmp_path: Path, online: Path) -> None:
    """A release key in the open, or one that the root does not name, signs nothing."""
    folder = tmp_path / "keys"
    init_keys(folder, online)
    (folder / "targets.key").chmod(0o644)
    with pytest.raises(TrustError, match="chmod 600"):
        load_signer(folder, "targets", read_root(folder))
    (folder / "targets.key").chmod(0o600)
    (folder / "targets.key").write_bytes((folder / "root.key").read_bytes())
    with pytest.raises(TrustError, match="root names"):
        load_signer(folder, "targets", read_root(folder))


def test_shows_who_signs_what(tmp_path: Path, online: Path) -> None:
    """Root and targets are here, snapshot and timestamp on the server."""
    runner = CliRunner()
    made = runner.invoke(keys, ["init", str(tmp_path / "keys"), "--online", str(online)])
    assert made.exit_code == 0, made.output
    assert [(row.role, row.here) for row in show_keys(tmp_path / "keys")] == [
        ("root", True), ("targets", True), ("snapshot", False), ("timestamp", False)
    ]  # fmt: skip
    assert "elsewhere" in runner.invoke(keys, ["show", str(tmp_path / "keys")]).output
