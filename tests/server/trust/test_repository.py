"""What the server signs, in which order, and what it refuses."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile, Targets

from compressor.release.keys import init_keys
from server.errors import (
    MetadataRefusedError,
    RootMissingError,
    StateDirectoryError,
    TargetsVersionError,
    TrustStoreError,
)
from server.trust.online_keys import init_online_keys
from server.trust.repository import TIMESTAMP_DAYS, TrustRepository, mark_copy
from server.trust.roots import install_root, newest_version

DAY_MS = 86_400_000
START_MS = int(datetime.now(UTC).timestamp() * 1000)


class Host:
    """A build host's keys and a server's repository."""

    def __init__(self, folder: Path) -> None:
        """Make both."""
        self.folder, self.state = folder, folder / "state"
        self.root = init_keys(folder / "keys", init_online_keys(self.state))
        self.repository = TrustRepository(self.state, lambda: START_MS)

    def signed(self, version: int, *names: str, days: int = 9, sha256: str = "a" * 64) -> bytes:
        """Return targets signed by the release key."""
        custom = {"custom": {"model": "m", "target": "t"}}
        files = [
            TargetFile(1, {"sha256": sha256}, f"m-{name}/t.tfb", {"custom": {**custom["custom"], "version": int(name)}})
            for name in names
        ]
        expires = datetime.now(UTC) + timedelta(days=days)
        metadata = Metadata(Targets(version=version, expires=expires, targets={file.path: file for file in files}))
        metadata.sign(self.signer("targets"))
        return metadata.to_bytes()

    def signer(self, role: str) -> CryptoSigner:
        """Return one of the build host's signers."""
        return CryptoSigner(load_pem_private_key((self.folder / "keys" / f"{role}.key").read_bytes(), None))

    def publish(self, data: bytes, **options: object) -> list[str]:
        """Publish and return the paths listed."""
        return [target.path for target in self.repository.publish_targets(data, lambda _: True, **options)]  # type: ignore[arg-type]

    def version(self, name: str) -> int:
        """Return the version of a published file."""
        return int(Metadata.from_bytes(self.repository.metadata_file(name) or b"").signed.version)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A build host and a server with its root."""
    made = Host(tmp_path)
    install_root(made.state, made.root)
    return made


def test_keys_are_private_and_never_overwritten(host: Host) -> None:
    """0600, and a second init is refused."""
    for role in ("snapshot", "timestamp"):
        assert stat.S_IMODE((host.state / "keys" / f"{role}.key").stat().st_mode) == 0o600
    with pytest.raises(StateDirectoryError):
        init_online_keys(host.state)


def test_publishes_targets_snapshot_and_timestamp(host: Host) -> None:
    """Each publication raises snapshot and timestamp by one; the same bytes again raise nothing."""
    assert host.publish(host.signed(1, "1")) == ["m-1/t.tfb"]
    data = host.signed(2, "1", "2")
    host.publish(data)
    host.publish(data)
    assert (host.version("2.snapshot.json"), host.version("timestamp.json")) == (2, 2)
    assert host.repository.current_targets() == data


def test_dying_before_the_timestamp_leaves_the_old_state_whole(host: Host) -> None:
    """Files that no timestamp names don't count, and the next publication writes them again."""
    first = host.signed(1, "1")
    host.publish(first)
    (host.state / "tuf" / "2.targets.json").write_bytes(host.signed(2, "1", "2"))
    (host.state / "tuf" / "2.snapshot.json").write_bytes(b"half")
    again = TrustRepository(host.state, lambda: START_MS)
    assert again.current_targets() == first
    host.repository = again
    assert host.publish(host.signed(2, "1", "3")) == ["m-1/t.tfb", "m-3/t.tfb"]


def test_signs_the_timestamp_again_before_it_expires(host: Host) -> None:
    """At half its time; the snapshot follows at half of its own."""
    host.publish(host.signed(1, "1"))
    host.repository.turn(START_MS + DAY_MS)
    assert host.version("timestamp.json") == 1
    host.repository.turn(START_MS + DAY_MS * TIMESTAMP_DAYS // 2 + 60_000)
    assert (host.version("timestamp.json"), host.version("1.snapshot.json")) == (2, 1)
    host.repository.turn(START_MS + 16 * DAY_MS)
    assert (host.version("timestamp.json"), host.version("2.snapshot.json")) == (3, 2)


@pytest.mark.parametrize(("version", "base"), [(1, None), (3, None), (2, 0), (1, 1)])
def test_refuses_targets_with_another_base(host: Host, version: int, base: int | None) -> None:
    """Two build hosts can't overwrite each other."""
    host.publish(host.signed(1, "1"))
    with pytest.raises(TargetsVersionError):
        host.publish(host.signed(version, "1", "2"), base=base)


def test_refuses_what_the_release_key_did_not_sign(host: Host) -> None:
    """Garbage, a root, an unsigned list, one signed by the root key, an expired one."""
    unsigned = Metadata(Targets(expires=datetime.now(UTC) + timedelta(days=1)))
    rooted = Metadata(unsigned.signed)
    rooted.sign(host.signer("root"))
    bad = [b"", b"{}", host.root.read_bytes(), unsigned.to_bytes(), rooted.to_bytes(), host.signed(1, "1", days=-1)]
    for data in bad:
        with pytest.raises(MetadataRefusedError):
            host.publish(data)
    assert host.repository.current_targets() is None


def test_refuses_missing_bundles_and_changed_bytes(host: Host) -> None:
    """Listed bundles must be present and unchanged."""
    with pytest.raises(MetadataRefusedError, match="upload"):
        host.repository.publish_targets(host.signed(1, "1"), lambda _: False)
    host.publish(host.signed(1, "1"))
    with pytest.raises(MetadataRefusedError, match="stay"):
        host.publish(host.signed(2, "1", sha256="b" * 64))


@pytest.mark.parametrize("name", ["../keys/snapshot.key", "x.json", "0.root.json", "timestamp.json/", "01.root.json"])
def test_serves_nothing_but_metadata(host: Host, name: str) -> None:
    """No other file of the folder is served."""
    assert host.repository.metadata_file(name) is None


def test_without_a_root_nothing_is_published(tmp_path: Path) -> None:
    """The error tells the operator to install a root."""
    host = Host(tmp_path)
    with pytest.raises(RootMissingError, match="fleet-server trust"):
        host.publish(host.signed(1, "1"))


def test_a_root_that_names_other_online_keys_is_refused(tmp_path: Path) -> None:
    """A root made for another server would make every device refuse ours."""
    host = Host(tmp_path)
    other = init_keys(tmp_path / "other", init_online_keys(tmp_path / "elsewhere"))
    with pytest.raises(MetadataRefusedError, match=r"online\.pub\.json"):
        install_root(host.state, other)
    assert newest_version(host.state) == 0


def test_a_root_is_followed_never_replaced(host: Host) -> None:
    """The next version, signed by the one before; the same one again changes nothing."""
    assert install_root(host.state, host.root) == 1
    metadata = Metadata.from_bytes(host.root.read_bytes())
    metadata.signed.version = 2
    path = host.folder / "2.root.json"
    path.write_bytes(metadata.to_bytes())
    with pytest.raises(MetadataRefusedError, match="signed"):
        install_root(host.state, path)
    metadata.sign(host.signer("root"))
    path.write_bytes(metadata.to_bytes())
    assert install_root(host.state, path) == 2
    foreign = init_keys(host.folder / "foreign", host.state / "online.pub.json")
    with pytest.raises(MetadataRefusedError, match="never replaced"):
        install_root(host.state, foreign)


def test_a_copy_signs_above_what_devices_saw_since_it_was_made(host: Host) -> None:
    """Once, by at least as many versions as seconds have passed; targets stay those of the copy."""
    host.publish(host.signed(1, "1"))
    assert not host.repository.leap(START_MS)
    mark_copy(host.state, START_MS)
    assert host.repository.leap(START_MS + 3600 * 1000)
    snapshot = host.version("timestamp.json")
    assert snapshot >= 3600
    assert host.version(f"{snapshot}.snapshot.json") == snapshot
    assert [target.path for target in host.repository.targets()] == ["m-1/t.tfb"]
    assert not host.repository.leap(START_MS + 7200 * 1000)
    assert host.version("timestamp.json") == snapshot


def test_a_copy_leaps_though_the_clock_went_back(host: Host) -> None:
    """A thousand versions at least; a mark that can't be read is named."""
    host.publish(host.signed(1, "1"))
    mark_copy(host.state, START_MS)
    assert host.repository.leap(START_MS - DAY_MS)
    assert host.version("timestamp.json") > 1000
    (host.state / "tuf" / "copied_ms").write_text("yesterday")
    with pytest.raises(TrustStoreError, match=r"Expected the time of a copy, UTC ms, in .*copied_ms, got"):
        host.repository.leap(START_MS)
