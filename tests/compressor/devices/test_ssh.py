"""A device behind a real ssh server on loopback: the host key is checked, files arrive, the child measures."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from compressor.devices.inventory import SshEntry
from compressor.devices.shell import ShellBench, shell_of
from compressor.devices.under_test import read_bundle_under_test
from compressor.errors import DeviceMeasureError

pytestmark = pytest.mark.slow
LIMIT_S = 20.0


def key(path: Path) -> str:
    """Make a key pair; return its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshEntry]:
    """An sshd of its own keys on a free port of loopback, as a board that knows our key."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None or not shutil.which("ssh") or os.geteuid() != 0:
        pytest.skip("ssh and sshd are not here, or need root (Debian: apt-get install openssh-client openssh-server)")
    Path("/run/sshd").mkdir(exist_ok=True)
    folder = tmp_path_factory.mktemp("ssh")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    host_key = key(folder / "host")
    (folder / "authorized").write_text(key(folder / "mine"))
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'authorized'}\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    deadline_s = time.monotonic() + LIMIT_S
    while b"listening" not in (folder / "log").read_bytes() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    yield SshEntry(
        host="root@127.0.0.1", port=port, identity=folder / "mine", known_hosts=folder / "known",
        python=sys.executable, folder=str(folder / "device with a blank"),
    )  # fmt: skip
    process.terminate()
    process.wait(LIMIT_S)


def test_a_board_behind_ssh_measures_a_bundle(board: SshEntry, tiny_bundle: Path) -> None:
    """The order and the bundle go there, the report comes back, and no file is left."""
    bench = ShellBench(name="pi", entry=board, shell=shell_of(board))
    subject = read_bundle_under_test(tiny_bundle, None, most=0).subject
    report = bench.measure(subject, "pi").report
    assert (report.device, report.golden_rows, report.golden_flips) == ("pi", 4, 0)
    assert not Path(board.folder).exists()


def test_a_board_with_another_key_is_refused(board: SshEntry, tmp_path: Path) -> None:
    """A man in the middle gets neither bundle nor rows."""
    (tmp_path / "known").write_text((board.known_hosts or tmp_path).read_text().split()[0] + " " + key(tmp_path / "x"))
    entry = replace(board, known_hosts=tmp_path / "known")
    with pytest.raises(DeviceMeasureError, match="Host key verification failed"):
        ShellBench(name="pi", entry=entry, shell=shell_of(entry)).facts()


def test_a_missing_agent_without_a_wheel_that_is_there_is_named(board: SshEntry, tmp_path: Path) -> None:
    """Nothing is installed, and the error names what to do."""
    bare = Path(sys.base_prefix) / "bin" / "python3"
    entry = replace(board, python=str(bare), wheel=tmp_path / "none.whl")
    with pytest.raises(DeviceMeasureError, match="name python, or a wheel that is there"):
        ShellBench(name="pi", entry=entry, shell=shell_of(entry)).facts()
