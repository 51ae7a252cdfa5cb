"""The package of `scripts/package --deb`: the same bytes each time; installed, upgraded, removed, purged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.packing.debian import NAME, Target
from wire import __version__

ROOT = Path(__file__).parents[2]
STATE = f"var/lib/{NAME}"
AS_USER = f"cd / && exec setpriv --reuid={NAME} --regid={NAME} --init-groups"
IDENTITY = {"site": "lab", "device": "cam-1", "password": "-", "mqtt_host": "127.0.0.1", "mqtt_port": 9}


@pytest.mark.parametrize(
    ("runtime", "python", "suffix"),
    [
        ("onnx", "3.11", ""),
        ("litert", "3.11", "+litert"),
        ("onnx", "3.13", "+py3.13"),
        ("litert", "3.12", "+litert+py3.12"),
    ],
)
def test_the_version_names_what_differs_from_the_usual_package(runtime: str, python: str, suffix: str) -> None:
    """One package name, so that a change of the runtime is an upgrade and keeps the identity."""
    assert Target(architecture="arm64", runtime=runtime, python=python).version == __version__ + suffix


def package(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Return a run of `scripts/package`, without its setup."""
    command = [sys.executable, "-m", "scripts.packing", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_wheel_without_a_debian_package_is_a_wrong_call() -> None:
    """`--wheel` replaces the wheels that a package is made of."""
    done = package("--wheel", "a.whl")
    assert (done.returncode, "expected --wheel with --deb" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm"])
def test_a_script_of_the_package_is_shell(name: str) -> None:
    """`sh -n` reads each; a mistake would leave a device with a package that is half installed."""
    subprocess.run(["sh", "-n", ROOT / "scripts" / "packing" / "debian" / name], check=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels and the package for this processor, built now."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb: apt-get install dpkg")
    out = tmp_path_factory.mktemp("dist")
    done = package("--out", out, "--deb", "amd64")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, dist: Path) -> Iterator[Path]:
    """The root of a Debian 12 in which the package is installed."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("needs root and debootstrap: apt-get install debootstrap")
    root = tmp_path_factory.mktemp("debian") / "root"
    parts = "--include=python3,adduser,openssl"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", parts, "bookworm", root], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"debootstrap found no mirror of Debian: {made.stdout[-200:]!r}")
    shutil.copy(deb(dist), root / "agent.deb")
    in_root(root, "dpkg -i /agent.deb")
    yield root
    shutil.rmtree(root)


def deb(dist: Path) -> Path:
    """Return the package in the folder."""
    return next(dist.glob("*_amd64.deb"))


def in_root(root: Path, command: str, code: int = 0) -> str:
    """Return what ``command`` prints there; its processes end with it."""
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root / 'proc'}"]
    done = subprocess.run(
        [*apart, "chroot", root, "sh", "-ec", command], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.nightly
def test_the_package_has_the_same_bytes_each_time(dist: Path, tmp_path: Path) -> None:
    """From one wheel, in another folder and under another umask."""
    wheel = next(dist.glob("tinyfleet_agent*.whl"))
    old = os.umask(0o077)
    try:
        done = package("--out", tmp_path, "--deb", "amd64", "--wheel", wheel)
    finally:
        os.umask(old)
    assert done.returncode == 0, done.stderr
    assert deb(tmp_path).read_bytes() == deb(dist).read_bytes()


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("lintian") is None, reason="apt-get install lintian")
def test_lintian_finds_nothing_that_has_no_reason(dist: Path) -> None:
    """What is left out stands in `lintian-overrides`, each with its reason."""
    done = subprocess.run(["lintian", "--allow-root", deb(dist)], capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith(("E:", "W:"))]
    assert found == []


@pytest.mark.nightly
def test_the_package_for_another_processor_is_made_here(dist: Path, tmp_path: Path) -> None:
    """Every library of the package for arm64 is one of that processor (ELF header, e_machine 183)."""
    wheel = next(dist.glob("tinyfleet_agent*.whl"))
    done = package("--out", tmp_path, "--deb", "arm64", "--wheel", wheel)
    assert done.returncode == 0, done.stderr
    subprocess.run(["dpkg-deb", "-x", next(tmp_path.glob("*_arm64.deb")), tmp_path / "x"], check=True)
    libraries = [path for path in (tmp_path / "x").rglob("*.so*") if path.is_file()]
    machines = {int.from_bytes(path.read_bytes()[18:20], "little") for path in libraries}
    assert (len(libraries) > 20, machines) == (True, {183})


@pytest.mark.nightly
def test_the_installed_package_answers_as_its_user(debian: Path) -> None:
    """The user, in the groups of cameras and sound; a state directory of its own; `edge-agent try` without a server."""
    groups = in_root(debian, f"id -nG {NAME}").split()
    assert {NAME, "video", "audio", "dialout"} <= set(groups)
    assert in_root(debian, f"stat -c '%U %a' /{STATE}").split() == [NAME, "700"]
    printed = in_root(debian, f"{AS_USER} edge-agent try --once")
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert sum(answer["supported"] for answer in answers) >= 18
    assert (debian / "etc/systemd/system/multi-user.target.wants" / f"{NAME}.service").is_symlink()
    asked = "import edge_agent.control.agent as agent; print(agent.__doc__)"
    assert in_root(debian, f"/opt/{NAME}/current/bin/python -P -c '{asked}'").split() == ["None"]  # lean byte code


@pytest.mark.nightly
def test_the_installed_agent_runs_and_has_a_status(debian: Path) -> None:
    """With an identity whose broker does not answer: it waits for its first release."""
    (debian / STATE / "identity.json").write_text(json.dumps(IDENTITY))
    in_root(debian, f"chown {NAME}: /{STATE}/identity.json")
    run = f"{AS_USER} edge-agent run --state /{STATE} --config /etc/tinyfleet/agent.toml"
    wait = f"for i in $(seq 300); do [ ! -e /{STATE}/status.json ] || break; sleep 0.1; done"
    printed = in_root(debian, f"({run}) & {wait}; {AS_USER} edge-agent status --state /{STATE}", code=8)
    assert "waiting for a first release" in printed


@pytest.mark.nightly
def test_beside_runtime_and_numpy_there_are_at_most_15_megabytes(debian: Path) -> None:
    """As installed, with compiled modules: what the agent adds to a device that runs such models anyway."""
    site = debian / f"opt/{NAME}/current/lib/python3.11/site-packages"
    of_runtime = ("numpy", "onnxruntime", "flatbuffers", "google", "packaging", "protobuf")
    parts = [path for path in (debian / f"opt/{NAME}/current", site) for path in path.iterdir()]
    rest = [str(path) for path in parts if not path.name.startswith((*of_runtime, "lib"))]
    kib = sum(int(line.split()[0]) for line in subprocess.check_output(["du", "-sk", *rest], text=True).splitlines())
    assert kib * 1024 < 15_000_000


@pytest.mark.nightly
def test_an_upgrade_and_a_removal_keep_identity_and_settings_and_a_purge_does_not(debian: Path, tmp_path: Path) -> None:
    """The rule of `docs/how-to/install-agent.md`; settings of the device's owner are not overwritten."""
    (debian / STATE / "identity.json").write_text(json.dumps(IDENTITY))
    (settings := debian / "etc/tinyfleet/agent.toml").write_text("# mine\n")
    subprocess.run(["dpkg-deb", "-R", debian / "agent.deb", tmp_path / "new"], check=True)
    control = tmp_path / "new/DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {__version__}\n", f"Version: {__version__}+1\n"))
    (tmp_path / "new/etc/tinyfleet/agent.toml").write_text("# newer\n")
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "-b", tmp_path / "new", debian / "new.deb"], check=True)
    in_root(debian, "dpkg --force-confold -i /new.deb && edge-agent --version")
    kept = ("# mine\n", IDENTITY)
    assert (settings.read_text(), json.loads((debian / STATE / "identity.json").read_text())) == kept
    in_root(debian, f"dpkg -r {NAME}")
    assert (settings.read_text(), json.loads((debian / STATE / "identity.json").read_text())) == kept
    assert not (debian / "opt" / NAME).exists()
    in_root(debian, f"dpkg -P {NAME} && ! id {NAME}")
    assert [path for path in (debian / STATE, debian / "etc/tinyfleet") if path.exists()] == []


@pytest.mark.nightly
def test_an_installation_by_the_script_is_not_overwritten(debian: Path) -> None:
    """Its files are unknown to dpkg; the message says how to change over."""
    (current := debian / "opt" / NAME / "current").parent.mkdir(parents=True, exist_ok=True)
    current.symlink_to("0123")
    assert "run install-agent --uninstall" in in_root(debian, "dpkg -i /agent.deb", code=1)
