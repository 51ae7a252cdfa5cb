"""The steady audit from end to end: a model that goes wrong silently is found by labels, and by nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fleet.conftest import tiny_models

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]

CLASSES = ("a", "b", "c")
AUDIT_TOML = """\
[audit]
enabled = true
samples_per_day = 100000.0
[retraining]
source_block_s = 0.0
"""
"""Many samples a day make days of an audit seconds; every image is drawn at random, so it is a scene of its own."""


def show(device: Device, count: int, seed: int) -> None:
    """Put random images, all different, before the camera."""
    chance = np.random.default_rng(seed)
    images = [chance.integers(0, 256, (10, 9, 3), dtype=np.uint8) for _ in range(count)]
    device.see([tiny_models().png(image) for image in images], f"s{seed}-")


def label_all(fleet: Fleet, truth: Mapping[str, str]) -> int:
    """Label what waits, an image of the class ``predicted`` as ``truth[predicted]``; return how many there were."""
    waiting = fleet.get("/api/samples", unlabelled=True, limit=1000)["samples"]
    for sample in waiting:
        body = {"label": truth[CLASSES[sample["predicted"]]], "by": "Ada"}
        assert fleet.client.put(f"/api/samples/{sample['id']}/label", json=body).is_success
    return len(waiting)


def labelled(fleet: Fleet, wait: Wait, truth: Mapping[str, str], count: int) -> None:
    """Wait until ``count`` samples have come, and label each."""
    done = 0

    def enough() -> bool:
        nonlocal done
        done += label_all(fleet, truth)
        return done >= count

    wait(enough, f"{count} samples")


def harm(fleet: Fleet) -> dict[str, bool]:
    """Return the groups that are audited, and whether labels show harm to each."""
    (audit,) = fleet.get("/api/audit")["audits"]
    return {f"{group['attribute']} {group['value']}".strip(): group["harmful"] for group in audit["groups"]}


def restart(fleet: Fleet, settings: str = "") -> None:
    """Restart the server, with more settings."""
    fleet.server.stop()
    config = fleet.state / "server.toml"
    config.write_text(config.read_text() + settings)
    fleet.start()


def test_labels_find_what_no_counter_shows(fleet: Fleet, wait: Wait) -> None:
    """The inputs stay as they are, one class has another right answer: labels show harm, of all and of the device."""
    device = fleet.add("cam", "[samples]\nmax_bytes_per_day = 10000000")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    show(device, 30, seed=1)
    wait(lambda: fleet.counted() >= 30, "windows of what the device saw")
    restart(fleet, AUDIT_TOML)
    wait(lambda: fleet.rows("select 1 from commands where verb = 'samples' and ok"), "the device to be asked")
    right = {name: name for name in CLASSES}
    show(device, 60, seed=2)
    labelled(fleet, wait, right, 60)
    assert harm(fleet) == {"": False, "device cam": False}
    usual = Counter(one["label"] for one in fleet.get("/api/samples", limit=60)["samples"]).most_common(1)[0][0]
    show(device, 60, seed=3)
    labelled(fleet, wait, right | {usual: CLASSES[CLASSES.index(usual) - 1]}, 60)
    wait(lambda: harm(fleet) == {"": True, "device cam": True}, "harm")
    overall = fleet.get("/api/overall")
    (concern,) = [one for one in overall["concerns"] if one["signal"] == "harmed"]
    assert (overall["level"], concern["names"][0].split(" (")[0]) == ("alarm", "tiny-1 on all devices")
    assert fleet.get("/api/verdicts")["verdicts"] == []
    restart(fleet)  # which looks at once; else once a minute
    (trigger,) = wait(lambda: fleet.get("/api/retraining")["retraining"], "a retraining")
    assert (trigger["phase"], trigger["devices"]) == ("harmful", ["cam"])
