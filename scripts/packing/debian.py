"""The Debian package of the agent: a virtual environment of wheels for the device's processor, put together unrun.

Only ``dpkg-deb`` and pip are needed. Modules are compiled on the device, by ``debian/postinst``, so that the package
has the same bytes each time. Packages have the versions of ``constraints.txt``, with which the tests ran.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from scripts.packing import resolve, wheels
from wire import __version__

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
NAME = "tinyfleet-agent"
_SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
_CONSTRAINTS = {"onnx": "constraints.txt", "litert": "constraints-tflite.txt"}
_HOME = Path("opt") / NAME / "current"  # as of scripts/install-agent, so that unit and documentation are the same
_SETTINGS = Path("etc/tinyfleet/agent.toml")
_PROGRAM = f"""#!/{_HOME}/bin/python
from edge_agent.cli import main

main()
"""
_COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: tinyfleet

Files: *
Copyright: 2026 The tinyfleet developers
License: Apache-2.0
 On Debian systems, the full text is in /usr/share/common-licenses/Apache-2.0.
Comment: The licence of each other package is in its .dist-info folder below /{site}.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The device: Debian's name of its ``architecture``, the ``runtime``, and its ``python``, as ``3.11``."""

    architecture: str
    runtime: str
    python: str

    @property
    def version(self) -> str:
        """Return the version of the package: without a suffix it is ONNX Runtime on Debian 12's Python."""
        suffixes = [self.runtime] * (self.runtime != "onnx") + [f"py{self.python}"] * (self.python != "3.11")
        return "+".join([__version__, *suffixes])


def build(root: Path, wheel: Path, target: Target, out: Path, work: Path) -> Path:
    """Return the package in ``out``, put together in ``work`` from the slim ``wheel``.

    Raises:
        ValueError: If pip finds no wheels for the device.
        CalledProcessError: If dpkg-deb fails.
    """
    tree = work / "deb"
    site = _HOME / "lib" / f"python{target.python}" / "site-packages"
    _install(root, wheel, target, tree / site)
    _environment(tree / _HOME, target.python)
    package = tree / site / "edge_agent" / "device"
    _write(tree / _SETTINGS, (package / "agent.toml").read_bytes())
    unit = (package / f"{NAME}.service").read_text(encoding="utf-8").replace("@PREFIX@", "")
    _write(tree / "usr/lib/systemd/system" / f"{NAME}.service", unit.encode())
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/edge-agent").symlink_to(f"/{_HOME}/bin/edge-agent")
    made_s = wheels.committed_s(root)
    documents = tree / "usr/share/doc" / NAME
    _write(documents / "copyright", _COPYRIGHT.format(site=site).encode())
    _write(documents / "changelog.gz", gzip.compress(_changelog(target, made_s).encode(), 9, mtime=0))
    here = Path(__file__).parent / "debian"
    _write(tree / "usr/share/lintian/overrides" / NAME, (here / "lintian-overrides").read_bytes())
    _set_modes(tree)
    control = tree / "DEBIAN"
    _write(control / "md5sums", _digests(tree).encode())
    _write(control / "control", _control(tree, target).encode())
    _write(control / "conffiles", f"/{_SETTINGS}\n".encode())
    for name in _SCRIPTS:
        shutil.copyfile(here / name, control / name)
        (control / name).chmod(0o755)
    control.chmod(0o755)
    out.mkdir(parents=True, exist_ok=True)
    package = out.resolve() / f"{NAME}_{target.version}_{target.architecture}.deb"
    # one thread: the compressor's output depends on how many there are
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(made_s), "DPKG_DEB_THREADS_MAX": "1"}
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z6", "--build", str(tree), str(package)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return package


def _install(root: Path, wheel: Path, target: Target, site: Path) -> None:
    """Unpack the wheels for the device into ``site``, and remove what it does not use.

    Raises:
        ValueError: If there are none for it.
    """
    options = ["--no-compile", "--constraint", str(root / _CONSTRAINTS[target.runtime]), "--target", str(site)]
    resolve.run_pip("install", wheel, target.runtime, ARCHITECTURES[target.architecture], target.python, options)
    shutil.rmtree(site / "bin", ignore_errors=True)  # programs with the path of this machine's Python
    subprocess.run(["sh", str(root / "scripts" / "install-agent"), "--trim", str(site)], check=True)


def _environment(home: Path, python: str) -> None:
    """Make the virtual environment around the packages.

    Source: Python's documentation of ``site``, "pyvenv.cfg".
    """
    _write(home / "pyvenv.cfg", b"home = /usr/bin\ninclude-system-site-packages = false\n")
    _write(home / "bin" / "edge-agent", _PROGRAM.encode())
    (home / "bin" / "python").symlink_to(f"/usr/bin/python{python}")


def _changelog(target: Target, made_s: int) -> str:
    date = formatdate(made_s)
    return (
        f"{NAME} ({target.version}) unstable; urgency=medium\n\n  * See CHANGELOG.md of tinyfleet {__version__}.\n\n"
        f" -- The tinyfleet developers <tinyfleet@localhost>  {date}\n"
    )


def _control(tree: Path, target: Target) -> str:
    """Return the control file; the libc is the newest one that a library of ``tree`` names a symbol of."""
    libraries = [path for path in tree.rglob("*.so*") if path.is_file()]
    symbols = {int(found) for path in libraries for found in re.findall(rb"GLIBC_2\.(\d+)\0", path.read_bytes())}
    size_kib = sum((path.lstat().st_size + 1023) // 1024 for path in tree.rglob("*") if not path.is_dir())
    depends = [
        f"libc6 (>= 2.{max(symbols)})",
        "libstdc++6",
        "libgcc-s1",
        f"python{target.python}",
        "openssl",
        "adduser",
    ]
    runtime = {"onnx": "ONNX Runtime", "litert": "LiteRT"}[target.runtime]
    return (
        f"Package: {NAME}\nVersion: {target.version}\nArchitecture: {target.architecture}\n"
        "Maintainer: The tinyfleet developers <tinyfleet@localhost>\n"
        f"Installed-Size: {size_kib}\nPre-Depends: init-system-helpers (>= 1.54)\nDepends: {', '.join(depends)}\n"
        "Recommends: ca-certificates\nSuggests: ffmpeg, alsa-utils\nSection: misc\nPriority: optional\n"
        f"Description: agent of a fleet of small models, with {runtime}\n"
        " Runs a small model on this device, sends its answers to applications, watches\n"
        " for drift, and updates the model safely from the fleet's server.\n"
    )


def _digests(tree: Path) -> str:
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    return "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in files
        if path != tree / _SETTINGS
    )


def _set_modes(tree: Path) -> None:
    """Give each file and folder the mode of an installed one, whatever wheels and umask left."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            program = path.parent == tree / _HOME / "bin"
            path.chmod(0o755 if stat.S_ISDIR(path.stat().st_mode) or program else 0o644)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
