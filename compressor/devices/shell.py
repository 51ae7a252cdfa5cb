"""Devices with a shell: this host, one behind ssh, an emulated one. Measures with the agent's own measuring child.

Decides how a command reaches the device and how long it may take. The order that the child reads has no signature:
whoever has a shell on a device needs none. The report is checked as one that came over a server.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from compressor.devices.bench import DeviceAnswer, Subject, believed, make_order
from compressor.devices.inventory import EmulatedEntry, LocalEntry, ShellEntry, SshEntry
from compressor.errors import DeviceMeasureError, DeviceUnreachableError
from compressor.progress import Progress, Silent
from wire.canonical import sha256_hex
from wire.codec import encode

COMMAND_S = 60.0
_CHILD_S = 300.0
_INSTALL_S = 1800.0
_TAIL = 600
_MARK = b"tinyfleet-output\n"
"""Printed before a line's own output: some devices print a greeting at every login, also without a terminal."""
_ENVIRONMENT = "ORT_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1"
_IMPORTS = (
    "import importlib.util as u, json; from wire import __version__ as v; from edge_agent.device import hardware as h"
)
_FACTS = f"{_IMPORTS}; print(json.dumps([v, h.hardware_class(), list(h.runtimes())]))"
_ENTER = """\
mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
printf %s ':hil:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:'\
'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:'"$1:F" \
> /proc/sys/fs/binfmt_misc/register && exec chroot "$0" /bin/sh -c "$2"
"""
"""binfmt_misc in a user namespace of its own (Linux 6.7) runs each program of the root file system by the emulator.

``/sys`` is left out: both runtimes crash on the host's under an emulator. Source: Linux, admin-guide/binfmt-misc.rst.
"""


@dataclass(frozen=True, slots=True)
class Shell:
    """A device's shell: ``prefix`` is the command on this host that runs its last argument there, a line of sh."""

    prefix: tuple[str, ...]

    def run(self, line: str, data: bytes | None = b"", *, limit_s: float = COMMAND_S) -> bytes:
        """Return the output of ``line``, which reads ``data``; None: its input stays open until it ends.

        Raises:
            DeviceUnreachableError: If its shell can't be reached.
            DeviceMeasureError: If it fails or takes longer; its last words are in the message.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            try:
                command = [*self.prefix, f"echo {_MARK.decode().strip()}; {line}"]
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=errors)
            except OSError as error:
                message = f"Expected to start {self.prefix[0]}, got: {error.strerror}: install it on this host"
                raise DeviceUnreachableError(message) from error
            with process:
                late = False
                try:
                    if data is None:
                        process.wait(limit_s)
                    else:
                        process.communicate(data, limit_s)
                except subprocess.TimeoutExpired:
                    process.kill()
                    late = True
            output.seek(0)
            greeting, mark, said = output.read().partition(_MARK)
            errors.seek(0)
            if not mark:
                last = (errors.read() + greeting[-_TAIL:]).decode(errors="replace").strip()[-_TAIL:]
                got = f"no answer within {limit_s:g} s" if late else f"exit {process.returncode}"
                message = f"Expected a shell by {shlex.join(self.prefix)[:200]!r}, got {got}: {last or 'no word'}"
                raise DeviceUnreachableError(f"{message}; try that command by hand")
            if late:
                raise DeviceMeasureError(f"Expected {line[:80]!r} to end within {limit_s:g} s, got no end")
            if process.returncode:
                last = (errors.read() + said[-_TAIL:]).decode(errors="replace").strip()[-_TAIL:]
                message = f"Expected {line[:80]!r} to succeed, got exit {process.returncode}: {last or 'no word'}"
                raise DeviceMeasureError(message)
            return said

    def write(self, path: str, data: bytes) -> None:
        """Write ``data`` to ``path`` on the device, aside and then renamed.

        Raises:
            DeviceMeasureError: If it can't be written.
        """
        name = shlex.quote(path)
        self.run(f"cat > {name}.new && mv {name}.new {name}", data, limit_s=_CHILD_S)


def shell_of(entry: ShellEntry) -> Shell:
    """Return the shell of a device.

    Raises:
        DeviceMeasureError: If there is no way to it from here.
    """
    if isinstance(entry, SshEntry):
        keys = ("-i", str(entry.identity)) if entry.identity else ()
        known = ("-o", f"UserKnownHostsFile={entry.known_hosts}") if entry.known_hosts else ()
        options = (
            "-T",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "ConnectTimeout=15",
            *known,
            *keys,
        )
        return Shell((*entry.command, *options, "-p", str(entry.port), entry.host))
    if isinstance(entry, EmulatedEntry):
        if not (entry.root / "usr/bin").is_dir() or not entry.emulator.exists():
            message = f"Expected a root file system in {entry.root} and {entry.emulator}, got none"
            raise DeviceMeasureError(f"{message}: scripts/hil/arm64 makes them")
        inner = ("sh", "-c", _ENTER, str(entry.root), str(entry.emulator))
        return Shell(("unshare", "--user", "--map-root-user", "--mount", *inner))
    netns = entry.netns if isinstance(entry, LocalEntry) else ""
    return Shell((*(("ip", "netns", "exec", netns) if netns else ()), "/bin/sh", "-c"))


@dataclass(slots=True, kw_only=True)
class ShellBench:
    """Measures on the device ``name`` through its shell."""

    name: str
    entry: ShellEntry
    shell: Shell
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000)
    _python: str = ""

    def facts(self) -> tuple[str, str, tuple[str, ...]]:
        """Return the agent's version, the device's hardware class and its runtimes.

        Raises:
            DeviceMeasureError: If the agent is not there.
        """
        version, hardware, runtimes = json.loads(self.shell.run(f"{self.python()} -c {shlex.quote(_FACTS)}"))
        return str(version), str(hardware), tuple(runtimes)

    def python(self) -> str:
        """Return the command of the interpreter that has the agent; installs the agent first where it is missing.

        Raises:
            DeviceMeasureError: If it is missing and no wheel is named, or can't be installed.
        """
        entry, run = self.entry, self.shell.run
        wheel = entry.wheel.read_bytes() if entry.wheel is not None and entry.wheel.is_file() else b""
        venv = f"{entry.folder}/agent-{sha256_hex(wheel)[:12]}"  # another wheel is another environment
        for python in () if self._python else (entry.python, f"{venv}/bin/python"):
            try:
                run(f"{shlex.quote(python)} -P -c 'import edge_agent, wire'")
                self._python = shlex.quote(python)
                break
            except DeviceUnreachableError:
                raise
            except DeviceMeasureError as error:
                if not wheel:
                    message = f"Expected the agent in the environment of {python} on {self.name}, got: {error}"
                    raise DeviceMeasureError(f"{message}; name python, or a wheel that is there") from error
        if entry.wheel is not None and not self._python:
            place, new = f"{entry.folder}/{entry.wheel.name}", shlex.quote(f"{venv}/bin/python")
            run(f"mkdir -p {shlex.quote(entry.folder)}")
            self.shell.write(place, wheel)
            pip = f"{new} -m pip install --quiet --disable-pip-version-check --only-binary :all:"
            wanted = shlex.quote(f"{place}[{entry.runtime}]")
            made = f"{shlex.quote(entry.python)} -m venv {shlex.quote(venv)} && {pip} {wanted}"
            run(f"{made} || {{ rm -rf {shlex.quote(venv)}; exit 1; }}", limit_s=_INSTALL_S)
            self._python = new
        return f"{_ENVIRONMENT} {self._python} -P"

    def check(self, device: str) -> None:
        """Check that the device answers and has the agent; ``device`` is its name.

        Raises:
            DeviceMeasureError: If it does not.
        """
        del device
        self.facts()

    def measure(self, subject: Subject, device: str, progress: Progress | None = None) -> DeviceAnswer:
        """Return the measurement of ``subject``; all files of it are deleted on the device afterwards.

        Raises:
            DeviceMeasureError: If the device fails, refuses, takes too long, or its report is not accepted.
        """
        progress, run = progress or Silent(), self.shell.run
        runtimes = self.facts()[2] if subject.runtime else ()
        if subject.runtime and subject.runtime not in runtimes:
            message = f"Expected {device} with the runtime {subject.runtime}, got {', '.join(runtimes) or 'none'}"
            raise DeviceMeasureError(f"{message}: install it there (pip install tinyfleet-agent[{subject.runtime}])")
        order = make_order(subject, device, now_ms=self.now_ms(), holds_s=self.entry.limit_s)
        folder = f"{self.entry.folder}/{order.order}"
        place = shlex.quote(folder)
        run(f"mkdir -p {place} && chmod 700 {place}")
        try:
            with progress.stage(f"upload for {device}", 2, "file"):
                self.shell.write(f"{folder}/order.json", encode(order))
                self.shell.write(f"{folder}/bundle.tfb", subject.bundle)
                if subject.n:
                    self.shell.write(f"{folder}/rows.npy", subject.rows)
            rows = f"--rows {place}/rows.npy" if subject.n else ""
            energy = f"--energy {shlex.quote(self.entry.energy)}" if self.entry.energy else ""
            child = f"{self.python()} -m edge_agent.measuring.child --order {place}/order.json"
            run(
                f"{child} --bundle {place}/bundle.tfb {rows} {energy} --out {place}/report",
                None,  # its input's end would tell the child that this process is gone
                limit_s=self.entry.limit_s,
            )
            return believed(order, run(f"cat {place}/report"))
        finally:
            run(f"rm -rf {place}; rmdir {shlex.quote(self.entry.folder)} 2>/dev/null || true")


def this_host() -> ShellBench:
    """Return the bench of this host and this interpreter, with which devices are compared."""
    entry = LocalEntry(python=sys.executable, folder=f"{tempfile.gettempdir()}/tinyfleet-hil-host-{os.getpid()}")
    return ShellBench(name="host", entry=entry, shell=shell_of(entry))
