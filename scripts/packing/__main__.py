"""The command line of `scripts/package`; exit codes: 0 built, 1 not, 2 wrong usage."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.packing import debian, resolve, trial, wheels

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; print each step to stderr and the wheels to stdout."""
    parser = argparse.ArgumentParser(prog="scripts/package", description="Builds packages of this checkout.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of what is built [dist]")
    parser.add_argument("--bundle", type=Path, help="a bundle of models/digits that passed its gates [a new one]")
    parser.add_argument("--check", action="store_true", help="resolve the device's packages for each platform")
    parser.add_argument(
        "--deb", choices=tuple(debian.ARCHITECTURES), help="also a Debian package for this architecture"
    )
    parser.add_argument("--wheel", type=Path, help="for --deb: this wheel of tinyfleet-agent instead of new ones")
    parser.add_argument("--runtime", choices=resolve.RUNTIMES, default="onnx", help="of the Debian package [onnx]")
    parser.add_argument("--python", choices=resolve.PYTHONS, default="3.11", help="of the device, for --deb [3.11]")
    given = parser.parse_args(arguments)
    if given.wheel is not None and (given.deb is None or given.bundle is not None):
        parser.error("expected --wheel with --deb and without --bundle")
    if given.deb is not None and shutil.which("dpkg-deb") is None:
        parser.error("expected dpkg-deb for --deb, got none: apt-get install dpkg")
    try:
        with tempfile.TemporaryDirectory(prefix="tinyfleet-package-") as folder:
            built = [given.wheel] if given.wheel is not None else _wheels(given.bundle, given.out, Path(folder))
            packages = []
            if given.deb is not None:
                target = debian.Target(architecture=given.deb, runtime=given.runtime, python=given.python)
                _say(f"building the Debian package for {given.deb}")
                packages.append(debian.build(ROOT, built[-1], target, given.out, Path(folder)))
        for path in [*built, *packages]:
            print(f"{path} {path.stat().st_size} bytes")
        if given.check:
            for line in resolve.resolved(built[-1]):
                _say(line)
    except (subprocess.CalledProcessError, ValueError, OSError) as error:
        _say(f"failed: {error}")
        return 1
    return 0


def _wheels(bundle: Path | None, out: Path, work: Path) -> list[Path]:
    files = work / "try"
    files.mkdir()
    if bundle is None:
        _say("training and gating models/digits")
        bundle = trial.digits_bundle(ROOT, work / "digits")
    shutil.copyfile(bundle, files / "digits.tfb")
    count = trial.write_pictures(files / "pictures.zip")
    _say(f"checking {count} pictures with edge-agent try")
    trial.check(files / "digits.tfb", files / "pictures.zip", count)
    _say("building the wheels")
    return wheels.build(ROOT, files, out, work)


def _say(text: str) -> None:
    print(f"package: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
