"""Whether the device's installation resolves on each platform from wheels alone, and its sources parse there.

pip downloads for a platform that is not this one; only wheels count, because a device has no compiler. The sources are
parsed by the grammar of this interpreter with ``feature_version`` for older ones: a newer grammar accepts what an older
one does, so the oldest decides.
"""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("aarch64", "x86_64")
RUNTIMES = ("onnx", "litert")
_GLIBCS = (17, 27, 28, 34, 35)
"""manylinux tags up to Debian 12's glibc 2.36; pip accepts each that is named."""


def resolved(wheel: Path) -> Iterator[str]:
    """Return a line for each interpreter, machine and runtime: the packages and their size.

    Raises:
        ValueError: If one does not resolve, or a source file is not Python 3.11.
    """
    yield f"{parsed(wheel)} source files parse as Python {PYTHONS[0]}"
    for runtime, machine, python in itertools.product(RUNTIMES, MACHINES, PYTHONS):
        with tempfile.TemporaryDirectory(prefix="tinyfleet-resolve-") as folder:
            run_pip("download", wheel, runtime, machine, python, ["--dest", folder])
            files = [path for path in Path(folder).iterdir() if path.name != wheel.name]
            size = sum(path.stat().st_size for path in files) / 1e6
            yield f"{machine} {python} {runtime}: {len(files)} wheels, {size:.0f} MB"


def parsed(wheel: Path) -> int:
    """Return how many source files there are in ``wheel``, all of which parse as the oldest Python.

    Raises:
        ValueError: If one does not.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py")]
        oldest = (3, int(PYTHONS[0].partition(".")[2]))
        for name in names:
            try:
                ast.parse(archive.read(name), name, feature_version=oldest)
            except SyntaxError as error:
                message = f"Expected Python {PYTHONS[0]} in {wheel.name}, got {name}:{error.lineno}: {error.msg}"
                raise ValueError(message) from error
    return len(names)


def run_pip(command: str, wheel: Path, runtime: str, machine: str, python: str, options: Sequence[str]) -> None:
    """Download or install ``wheel`` and what it needs, from wheels for a device.

    Args:
        command: ``download`` or ``install``.
        wheel: The slim wheel.
        runtime: Its extra.
        machine: The device's processor, as `uname -m` prints it.
        python: The device's Python, as ``3.11``.
        options: Of the command.

    Raises:
        ValueError: If there are none for it.
    """
    tags = [f"manylinux_2_{glibc}_{machine}" for glibc in _GLIBCS] + [f"manylinux2014_{machine}", f"linux_{machine}"]
    platforms = [part for tag in tags for part in ("--platform", tag)]
    line = [
        sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--only-binary", ":all:",
        "--python-version", python, "--implementation", "cp", *platforms, *options, f"{wheel.resolve()}[{runtime}]",
    ]  # fmt: skip
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode:  # otherwise pip prints nothing of use: it compares with packages of this machine
        message = f"Expected {wheel.name}[{runtime}] from wheels for {machine}, Python {python}"
        raise ValueError(f"{message}, got: {done.stderr.strip()[-600:]}")
