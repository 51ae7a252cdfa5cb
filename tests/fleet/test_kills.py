"""kill -9 of agent, broker and server at the worst moments: the fleet ends committed on the right release."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from edge_agent.in_flight import read_held
from wire.canonical import sha256_file

if TYPE_CHECKING:
    from conftest import Device, Fleet, Relay, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
UPDATED = ["offered", "downloading", "verifying", "staged", "probation", "committed"]
SLOWLY = "max_bytes_per_s = 400000"


def slots(device: Device) -> list[dict]:
    """Return the releases of the slots, current first; each bundle is complete and valid."""
    current = (device.state / "slots" / "current").read_text()
    paths = sorted((device.state / "slots").glob("[ab].json"), key=lambda path: path.stem != current)
    found = [slot for path in paths if (slot := json.loads(path.read_bytes()))["sha256"]]  # an empty one has none
    for slot in found:
        assert sha256_file(device.state / "blobs" / "sha256" / slot["sha256"]) == slot["sha256"]
    return found


def test_agent_killed_in_the_middle_of_a_download_resumes_it(fleet: Fleet, relay: Relay, wait: Wait) -> None:
    """After kill -9 only the rest of the bundle is requested, and the release is committed."""
    device = fleet.add("dev", SLOWLY, http_port=relay.port)
    release = fleet.release(1, pad_bytes=1_200_000)
    fleet.roll_out(release)
    wait(lambda: device.held_bytes() > 300_000, "a part")
    device.program.kill()
    held_bytes = device.held_bytes()
    assert held_bytes < 1_200_000
    (device.state / "agent.toml").write_text((device.state / "agent.toml").read_text().replace(SLOWLY, ""))
    device.program.start()
    device.reaches("committed", release)
    assert relay.ranges() == [0, held_bytes]
    assert slots(device)[0]["release"] == release


def test_agent_killed_at_each_phase_of_the_switch_ends_on_the_new_release(fleet: Fleet, wait: Wait) -> None:
    """After each kill -9 exactly one of {old, new} is current and complete; in the end the new one is committed."""
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    for version, phase in enumerate(["verifying", "staged", "probation"], 2):
        fleet.roll_out(fleet.release(version), probation_s=1.0)
        wait(lambda phase=phase: device.recorded(phase), phase, pause_s=0.0)
        device.program.kill()
        assert slots(device)[0]["release"] in {f"tiny-{version - 1}", f"tiny-{version}"}
        device.program.start()
        device.reaches("committed", f"tiny-{version}")
        assert slots(device)[0]["release"] == f"tiny-{version}"


def test_broker_killed_during_telemetry_loses_and_doubles_nothing(fleet: Fleet, wait: Wait, images: list) -> None:
    """Every image taken is in exactly one stored window and one stored row, over two kills of the broker."""
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    for round_number in range(3):
        device.see(images, f"{round_number}-")
        wait(lambda least=40 * round_number: fleet.counted() > least, "counts")
        if round_number < 2:
            fleet.kill_broker()
    wait(lambda: device.unseen() == 0 and fleet.counted() >= 3 * len(images), "all images counted")
    wait(lambda: fleet.rows("select 1 from progress where stream = 'drift' and ahead = ''"), "no gap")
    windows = fleet.rows("select n, reports, start_ms from windows")
    through = fleet.rows("select through_seq from progress where stream = 'drift'")
    assert sum(n for n, *_ in windows) == 3 * len(images)
    assert {reports for _, reports, _ in windows} == {1}
    assert through == [(len(windows),)]
    wait(lambda: fleet.inferences() >= 3 * len(images), "all rows")
    assert fleet.inferences() == 3 * len(images)


def test_server_killed_in_the_middle_of_a_rollout_finishes_it(fleet: Fleet, wait: Wait, images: list[bytes]) -> None:
    """After kill -9 and a start the canary's success opens the rest; each device was assigned and committed once."""
    first, second = fleet.add("dev-1"), fleet.add("dev-2")
    first.see(images[:2])  # a canary that answers nothing opens no group
    release = fleet.release(1)
    rollout = fleet.roll_out(release, probation_s=2.0, canary=["dev-1"])
    first.reaches("probation", release)
    fleet.server.kill()
    fleet.start()
    assert second.reaches("committed", release)["gen"] == 1
    wait(lambda: fleet.get(f"/api/rollouts/{rollout}")["phase"] == "succeeded", "the end of the rollout")
    assert fleet.get(f"/api/rollouts/{rollout}")["committed"] == 2
    for device in (first, second):
        assert device.document()["desired_gen"] == 1
        wait(lambda device=device: set(UPDATED) <= set(device.codes()), "every event, those sent again too")
        assert device.codes() == UPDATED


def test_a_release_that_ends_the_agent_each_time_is_rolled_back(fleet: Fleet, wait: Wait) -> None:
    """Killed in probation again and again, the device returns to the previous release and reports the reason."""
    device = fleet.add("dev", "max_boots = 1")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    fleet.roll_out(fleet.release(2), probation_s=300.0)
    for starts in range(2):
        wait(lambda starts=starts: device.recorded("probation") and device.boots() == starts, "probation")
        device.program.kill()
        device.program.start()
    assert device.reaches("rolled_back", "tiny-2")["code"] == "child_crashed"
    assert slots(device)[0]["release"] == "tiny-1"


def test_agent_and_child_killed_together_serve_the_picture_that_was_in_flight(
    fleet: Fleet, wait: Wait, large_image: bytes
) -> None:
    """As by a power cut: the picture is no suspect before its second try, and an event reports that try."""
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    device.see([large_image])
    wait(lambda: (held := read_held(device.state)) and held.item == "0000.png", "a picture in flight", pause_s=0.001)
    os.killpg(device.program.process.pid, signal.SIGKILL)
    device.program.process.wait(10)
    device.program.start()
    wait(lambda: device.unseen() == 0 and fleet.counted() == 1, "the picture counted")
    assert not (device.state / "bad").exists()
    wait(lambda: "input_tried_again" in {event["code"] for event in fleet.events(device="dev")}, "the event")
