"""Wheel and sdist: built from the tree, complete, installable, with three commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from wire import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = ("wire", "compressor", "edge_agent", "server")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with wheel and sdist of the tracked files."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def wheel(built: Path) -> Path:
    """Return the wheel in the folder."""
    return next(built.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_has_every_module_and_data_file_of_the_tree(built: Path) -> None:
    """Every file that is imported or read at run time is in the wheel."""
    names = set(zipfile.ZipFile(wheel(built)).namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for pattern in ("*.py", "*.css", "py.typed")
        for path in (ROOT / package).rglob(pattern)
    }
    assert wanted <= names


@pytest.mark.slow
def test_the_sdist_has_the_sources_and_the_readme(built: Path) -> None:
    """The sdist contains the sources of the wheel."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "wire/bundle.py", "server/app/server.py"} <= names


@pytest.mark.slow
def test_the_wheel_says_under_which_licence_it_may_be_used(built: Path) -> None:
    """Without a licence in the package nobody may use it."""
    with zipfile.ZipFile(wheel(built)) as archive:
        folder = next(name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name)
        metadata = archive.read(f"{folder}/METADATA").decode()
        text = archive.read(f"{folder}/licenses/LICENSE").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


@pytest.mark.slow
def test_the_installed_wheel_runs_without_the_tree(built: Path, tmp_path: Path) -> None:
    """An installed wheel has three commands that answer --help."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path)]
    subprocess.run([*install, str(wheel(built))], check=True, capture_output=True)
    for module in ("compressor.cli", "edge_agent.cli", "server.cli"):
        start = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = ['--help']"
        code = f"{start}; import {module} as cli; cli.main()"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
    assert {path.name for path in (tmp_path / "bin").iterdir()} == {"compressor", "edge-agent", "fleet-server"}


@pytest.mark.slow
def test_the_wheel_has_the_version_that_the_programs_print(built: Path) -> None:
    """The version has one source; the metadata is complete, without placeholders."""
    with zipfile.ZipFile(wheel(built)) as archive:
        metadata = archive.read(f"tinyfleet-{__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nAuthor: The tinyfleet developers\n" in metadata
    assert "Classifier: Operating System :: POSIX :: Linux" in metadata
    assert "Project-URL" not in metadata


@pytest.mark.parametrize("module", ["compressor.cli", "edge_agent.cli", "server.cli"])
def test_every_program_prints_the_version(module: str) -> None:
    """Also from a checkout whose installed metadata is older."""
    code = f"import sys; sys.argv[1:] = ['--version']; import {module} as cli; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.split()[-1]) == (0, __version__), done.stderr


def test_the_changelog_has_the_version_as_its_newest_release() -> None:
    """The user of a version can read its changes; later changes are above it."""
    found = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [name for name, _ in found[:2]] == ["Unreleased", __version__]
    assert re.fullmatch(r" - \d{4}-\d\d-\d\d", found[1][1])
