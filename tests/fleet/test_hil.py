"""Hardware in the loop with a whole fleet: a device by its agent over the server, and the same one by its shell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compressor.devices.inventory import read_inventory
from compressor.devices.under_test import under_test
from edge_agent.device.lock import holder

if TYPE_CHECKING:
    from conftest import BadLine, Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def check(fleet: Fleet, inventory: str, *arguments: str) -> dict[str, dict]:
    """Run the standard checks; return hil.json's tests by device and name."""
    (fleet.root / "lab.toml").write_text(inventory)
    command = [str(ROOT / "scripts/hil/run"), str(fleet.root / "lab.toml"), "--out", str(fleet.root / "hil")]
    environment = {**os.environ, "TINYFLEET_VENV": str(Path(sys.executable).parents[1])}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environment)
    document = json.loads((fleet.root / "hil" / "hil.json").read_bytes())
    tests = {
        f"{row['device']} {row['test'].rpartition('::')[2].partition('[')[0]}": {**row, "code": done.returncode}
        for row in document["tests"]
    }
    assert tests, done.stdout + done.stderr
    return tests


def over_the_server(fleet: Fleet) -> str:
    """Return the inventory's table of cam-1 by its agent."""
    return (
        f'[devices.cam-1]\nkind = "server"\nserver = "{fleet.client.base_url}"\nkeys = "{fleet.keys}"\nwindow_s = 1\n'
        f'token_file = "{fleet.state}/builder.token"\noperator_token_file = "{fleet.state}/operator.token"\n'
    )


def by_its_shell(device: Device, netns: str = "") -> str:
    """Return the inventory's table of the same device as a process of this host."""
    return (
        f'[devices.bench]\nkind = "local"\npython = "{sys.executable}"\nfolder = "{device.state.parent}/device"\n'
        f'state = "{device.state}"\nconfig = "{device.state}/agent.toml"\nback_s = 60\n{netns}'
    )


@pytest.fixture
def served(fleet: Fleet) -> Iterator[Device]:
    """A device that serves a release; whatever agent runs on it at the end is killed."""
    device = fleet.add("cam-1")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    yield device
    pid = holder(device.state)
    if pid:
        os.kill(pid, signal.SIGKILL)


def test_a_new_healthy_device_passes_every_check_over_its_server(fleet: Fleet, served: Device) -> None:
    """Measured by a signed order; online, on its release, self-test passed, and no drift window is overdue."""
    tests = check(fleet, over_the_server(fleet), str(fleet.root / "tiny-1.tfb"))
    assert served.current() == "tiny-1"
    failed = {name: row["text"] for name, row in tests.items() if row["outcome"] == "failed"}
    assert failed == {}
    passed = {name for name, row in tests.items() if row["outcome"] == "passed"}
    assert passed >= {"cam-1 test_it_is_fit_for_a_rollout", "cam-1 test_golden_vectors_are_reproduced"}


def test_a_device_serves_again_after_a_power_cut(fleet: Fleet, served: Device, wait: Wait) -> None:
    """``kill -9`` of the agent and its child, another agent on the same state, the same release."""
    before = holder(served.state)
    tests = check(fleet, by_its_shell(served), "-k", "power")
    assert tests["bench test_it_serves_again_after_a_power_cut"]["outcome"] == "passed", tests
    assert served.program.process.wait(10) == -signal.SIGKILL
    assert holder(served.state) not in {0, before}
    wait(lambda: served.document()["state"] == "ready", "a device that is ready")


def test_a_cut_over_a_server_lasts_until_the_server_has_noticed_it(fleet: Fleet, wait: Wait) -> None:
    """Otherwise the state from before the cut would pass for the one after it; commands of the inventory do the cut."""
    device = fleet.enrol("cam-1", fleet.root / "cam-1")
    settings = device.state / "agent.toml"
    settings.write_text(settings.read_text().replace("[transport]", "[transport]\nwill_delay_s = 0"))
    device.program.start()
    wait(lambda: device.status().get("connected"), "a connection")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    log = fleet.root / "cuts"
    off = ["sh", "-c", f"kill -9 {device.program.process.pid}; echo off >>{log}"]
    agent = (
        f"{sys.executable} -c 'from edge_agent.cli import main; main()' run --state {device.state} --config {settings}"
    )
    on = ["sh", "-c", f"echo on >>{log}; setsid {agent} </dev/null >/dev/null 2>&1 &"]
    table = f"{over_the_server(fleet)}power_off = {json.dumps(off)}\npower_on = {json.dumps(on)}\nback_s = 60\n"
    tests = check(fleet, table, "-k", "power")
    os.kill(holder(device.state), signal.SIGKILL)
    assert tests["cam-1 test_it_serves_again_after_a_power_cut"]["outcome"] == "passed", tests
    assert log.read_text().split() == ["off", "on"]


@pytest.mark.nightly
def test_a_device_behind_a_bad_network_updates_and_survives_both_cuts(
    fleet: Fleet, bad_line: Callable[..., BadLine], wait: Wait
) -> None:
    """It enrols, installs a release over a slow and lossy line, is measured, and comes back from each cut."""
    device = fleet.enrol("cam-1", fleet.root / "cam-1")
    http_port = fleet.client.base_url.port
    line = bad_line([http_port, fleet.mqtt_port], "--delay-ms", "30", "--loss", "0.02", "--rate-bit-s", "4000000")
    device.redirect(mqtt_host=line.host, http_url=f"http://{line.host}:{http_port}")
    table = by_its_shell(device, f'netns = "{line.netns}"\nlink = "{line.link}"\n')
    (fleet.root / "lab.toml").write_text(table)
    here = under_test("bench", read_inventory(fleet.root / "lab.toml")["bench"])
    here.start()
    try:
        wait(lambda: device.status().get("connected"), "a connection")
        fleet.roll_out(fleet.release(1, pad_bytes=400_000))
        device.reaches("committed", "tiny-1")
        tests = check(fleet, over_the_server(fleet) + table, str(fleet.root / "tiny-1.tfb"))
    finally:
        os.kill(holder(device.state), signal.SIGKILL)
    failed = {name: row["text"] for name, row in tests.items() if row["outcome"] == "failed"}
    assert failed == {}
    passed = {name for name, row in tests.items() if row["outcome"] == "passed"}
    assert passed >= {
        "cam-1 test_golden_vectors_are_reproduced", "cam-1 test_it_is_fit_for_a_rollout",
        "bench test_it_serves_again_after_a_power_cut", "bench test_it_goes_on_through_a_network_cut",
    }  # fmt: skip


@pytest.fixture(scope="module")
def arm64() -> Path:
    """The root file system of the emulated arm64 device; skips where it can't be made."""
    done = subprocess.run([ROOT / "scripts/hil/arm64"], capture_output=True, text=True, check=False, timeout=550)
    if done.returncode:
        pytest.skip(f"no emulated arm64 device: {done.stderr.strip().splitlines()[-1]}")
    return Path(done.stdout.strip())


@pytest.mark.nightly
def test_an_emulated_arm64_device_updates_and_passes_the_checks(fleet: Fleet, arm64: Path, wait: Wait) -> None:
    """The whole agent on real aarch64 wheels connects, installs a release, is measured, and survives a power cut."""
    state = arm64 / "var" / f"hil-{os.getpid()}"
    device = fleet.enrol("arm-1", state)
    inside = f"/{state.relative_to(arm64)}"
    table = (
        f'[devices.arm-1]\nkind = "emulated"\nhardware = "arm64"\nroot = "{arm64}"\nstate = "{inside}"\n'
        f'config = "{inside}/agent.toml"\nback_s = 120\n'
    )
    (fleet.root / "lab.toml").write_text(table)
    try:
        under_test("arm-1", read_inventory(fleet.root / "lab.toml")["arm-1"]).start()
        wait(lambda: device.document()["reported"], "a first report")
        assert device.document()["reported"]["hardware"] == "aarch64"
        fleet.roll_out(fleet.release(1))
        device.reaches("committed", "tiny-1")
        tests = check(fleet, table, str(fleet.root / "tiny-1.tfb"))
    finally:
        os.kill(holder(state), signal.SIGKILL)
        shutil.rmtree(state)
    outcomes = {name.partition(" ")[2]: row["outcome"] for name, row in tests.items()}
    assert "failed" not in outcomes.values(), tests
    assert outcomes["test_golden_vectors_are_reproduced"] == "passed"
    assert outcomes["test_it_serves_again_after_a_power_cut"] == "passed"
    assert "emulated" in tests["arm-1 test_latency_is_within_its_limits"]["text"]
