"""The forecast of a rollout's bytes against what real agents fetch: real broker, real server, real bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from compressor.release.publish import publish

if TYPE_CHECKING:
    from conftest import Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
_WITHIN = 0.10


def test_each_group_fetches_what_was_forecast_before_the_start(fleet: Fleet, wait: Wait) -> None:
    """By patch, in full over HTTP, in full over the broker; before approval, and after commit beside it."""
    base = fleet.build(1, pad_bytes=300_000)
    fleet.release(1, pad_bytes=300_000)
    patched = fleet.add("a")
    fleet.roll_out("tiny-1")
    patched.reaches("committed", "tiny-1")
    fleet.settled()
    fleet.add("b")
    fleet.add("c", 'carriers = ["mqtt", "http"]')
    new, url = fleet.build(2, pad_bytes=300_000), str(fleet.client.base_url)
    publish([new], keys=fleet.keys, server_url=url, token=fleet.builder_token, bases=[base])
    wait(lambda: all(one.document()["reported"] for one in fleet.devices), "reports")
    groups = {"canary": ["a"], "groups": [["b"], ["c"]]}
    made = fleet.post("/api/rollouts", {"release": "tiny-2", "probation_s": 0.5, **groups})
    before = [group["forecast_bytes"] for group in made["groups"]]
    whole = new.stat().st_size
    assert before[0] < 0.02 * whole
    assert before[1:] == [whole, whole, 0]
    assert [group["forecast_upper"] for group in made["groups"]] == [0, 0, 0, 0]
    path = f"/api/rollouts/{made['id']}"
    assert fleet.get(f"{path}/foresight", act="approve")["forecast"]["air_bytes"] == before[0]
    fleet.post(f"{path}/approve", {"by": "ada"})
    # each group opens with the first answer of the one before: no device of this test sees anything
    for device, name in zip(fleet.devices, ("canary", "group 2", ""), strict=True):
        device.reaches("committed", "tiny-2")
        if name:
            wait(lambda: fleet.get(path)["code"] == "unproven", "a group that waits for an answer")
            fleet.post(f"{path}/skip", {"group": name, "by": "ada"})
    wait(lambda: fleet.get(path)["phase"] == "succeeded", "the end")
    after = fleet.get(path)["groups"]
    assert [group["forecast_bytes"] for group in after] == before
    for group in after[:3]:
        assert abs(group["air_bytes"] - group["forecast_bytes"]) <= _WITHIN * group["forecast_bytes"], group
