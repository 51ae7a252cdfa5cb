"""``edge-agent tuf`` on a repository over HTTP, as a judge from outside runs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from edge_agent.cli import main

SIGNER = CryptoSigner.generate_ed25519()
TARGET = b"a target"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def _publish(folder: Path, version: int, signer: CryptoSigner = SIGNER) -> None:
    """Write a repository whose every role but root has this version."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    root = Root(expires=until)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(SIGNER.public_key, role)
    targets = Targets(version, expires=until, targets={"a/b": TargetFile.from_data("a/b", TARGET)})
    snapshot, timestamp = Snapshot(version, expires=until), Timestamp(version, expires=until)
    snapshot.meta["targets.json"].version = timestamp.snapshot_meta.version = version
    names = {"1.root": root, f"{version}.targets": targets, f"{version}.snapshot": snapshot, "timestamp": timestamp}
    (folder / "a").mkdir(parents=True, exist_ok=True)
    for name, signed in names.items():
        made = Metadata(signed)
        made.sign(signer)
        (folder / f"{name}.json").write_bytes(made.to_bytes())
    (folder / "a" / f"{sha256(TARGET).hexdigest()}.b").write_bytes(TARGET)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return the folder of a repository of version 2."""
    _publish(tmp_path / "repository", 2)
    return tmp_path / "repository"


@pytest.fixture
def url(repository: Path) -> Iterator[str]:
    """Return its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(repository)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def _tuf(folder: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["tuf", "--metadata-dir", str(folder), *map(str, arguments)])


def test_a_target_is_downloaded_once(repository: Path, url: str, tmp_path: Path) -> None:
    """From the first root to the file; the second download asks for no target."""
    folder, places = tmp_path / "metadata", ("--target-base-url", url, "--target-dir", tmp_path / "targets")
    assert _tuf(folder, "init", repository / "1.root.json").exit_code == 0
    assert _tuf(folder, "--metadata-url", url, "refresh").exit_code == 0
    wanted = ("--metadata-url", url, "--target-name", "a/b", *places, "download")
    assert _tuf(folder, *wanted).exit_code == 0
    (repository / "a" / f"{sha256(TARGET).hexdigest()}.b").unlink()
    assert _tuf(folder, *wanted).exit_code == 0
    assert [path.read_bytes() for path in (tmp_path / "targets").iterdir()] == [TARGET]
    assert {path.name for path in folder.glob("*.json")} == {
        "root.json", "timestamp.json", "snapshot.json", "targets.json",
    }  # fmt: skip


def test_older_and_foreign_metadata_and_other_bytes_are_refused(repository: Path, url: str, tmp_path: Path) -> None:
    """Exit code 1, and what is trusted stays."""
    folder, places = tmp_path / "metadata", ("--target-base-url", url, "--target-dir", tmp_path / "targets")
    _tuf(folder, "init", repository / "1.root.json")
    (repository / "a" / f"{sha256(TARGET).hexdigest()}.b").write_bytes(TARGET[::-1])
    refused = _tuf(folder, "--metadata-url", url, "--target-name", "a/b", *places, "download")
    assert (refused.exit_code, list((tmp_path / "targets").iterdir())) == (1, [])
    trusted = (folder / "timestamp.json").read_bytes()
    for version, signer in ((1, SIGNER), (3, CryptoSigner.generate_ed25519())):
        _publish(repository, version, signer)
        assert _tuf(folder, "--metadata-url", url, "refresh").exit_code == 1
        assert (folder / "timestamp.json").read_bytes() == trusted
