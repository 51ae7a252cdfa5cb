"""Which devices take part in a rollout."""

import itertools
from dataclasses import replace

import pytest

from server.fleet.fleet import Device
from server.registry.versions import Release
from server.rollout.scope import Scope
from server.rollout.selection import Eligibility, candidate_counts, candidates, choose_bundle, pick_canaries
from wire.messages import Desired, DeviceState, InstalledRelease, Reported
from wire.tuf_target import TargetCustom

RELEASE = Release(
    name="m-1", model="m", version=1, target="gateway", path="m-1/gateway.tfb", sha256="1" * 64, length_bytes=9,
    certificate={}, custom=TargetCustom(model="m", version=1, target="gateway"), registered_ms=1,
)  # fmt: skip


def device(name: str, state: DeviceState, *, last_seen_ms: int = 5, safe_mode: bool = False) -> Device:
    """Return a device that was assigned the release and runs it."""
    reported = Reported(current=InstalledRelease("m-1", "1" * 64), safe_mode=safe_mode)
    return Device(
        device=name,
        site="s",
        attributes={},
        state=state,
        reported=reported,
        desired=Desired(gen=1, release="m-1"),
        desired_gen=1,
        desired_release="m-1",
        last_seen_ms=last_seen_ms,
        enrolled_ms=1,
    )


@pytest.mark.parametrize(
    ("state", "safe_mode", "takes_part"),
    [
        (DeviceState.READY, False, False),
        (DeviceState.UPDATING, False, False),
        (DeviceState.DEGRADED, False, True),
        (DeviceState.READY, True, True),
    ],
)
def test_a_device_whose_release_does_not_run_may_be_sent_it_again(
    state: DeviceState, *, safe_mode: bool, takes_part: bool
) -> None:
    """Having it is not enough to be left out: it has to run."""
    found = candidates([device("a", state, safe_mode=safe_mode)], [RELEASE], "m-1")
    assert [one.device for one in found] == (["a"] if takes_part else [])


def test_a_canary_is_one_that_was_heard_with_or_without_a_release() -> None:
    """``init`` is the state of a device that never reported, and of one that waits for its first release."""
    never = [device(f"never-{number}", DeviceState.INIT, last_seen_ms=0) for number in range(8)]
    here = [device("new", DeviceState.INIT), device("old", DeviceState.READY)]
    lost = [device("lost", DeviceState.LOST)]
    assert set(pick_canaries([*never, *here, *lost], 2, "seed")) == {"new", "old"}


def test_another_seed_picks_other_canaries() -> None:
    """Not always the same devices suffer: among equals a hash decides, not the name."""
    devices = [replace(device(f"d{number}", DeviceState.READY), site=f"s{number}") for number in range(20)]
    picked = [pick_canaries(devices, 2, str(seed)) for seed in range(5)]
    assert len({name for names in picked for name in names}) > 4
    assert pick_canaries(devices[::-1], 2, "0") == picked[0]


OTHER = replace(RELEASE, target="camera", custom=replace(RELEASE.custom, target="camera", hardware=("armv7l",)))


@pytest.mark.parametrize(
    ("attributes", "hardware", "releases", "target"),
    [
        ({"target": "camera"}, "x86_64", [RELEASE, OTHER], "camera"),
        ({"target": "none"}, "x86_64", [RELEASE, OTHER], None),
        ({}, "x86_64", [OTHER, RELEASE], "gateway"),
        ({}, "armv7l", [OTHER, RELEASE], "camera"),
        ({}, None, [RELEASE], "gateway"),
        ({}, None, [RELEASE, OTHER], None),
        ({}, None, [], None),
    ],
)
def test_a_device_gets_the_bundle_it_can_run(
    attributes: dict[str, str], hardware: str | None, releases: list[Release], target: str | None
) -> None:
    """Its attribute decides, else its report; a device that never reported gets the only bundle, or none."""
    reported = None if hardware is None else Reported(hardware=hardware)
    found = choose_bundle(
        releases, "m-1", replace(device("a", DeviceState.READY), attributes=attributes, reported=reported)
    )
    assert (found.target if found else None) == target


@pytest.mark.parametrize(("runtimes", "runs"), [(("onnx",), False), (("onnx", "litert"), True), ((), True)])
def test_a_device_gets_no_bundle_for_a_runtime_that_it_lacks(runtimes: tuple[str, ...], *, runs: bool) -> None:
    """One that names no runtime, as the first agents did, may have it."""
    bundle = replace(RELEASE, custom=replace(RELEASE.custom, runtime="litert"))
    one = replace(device("a", DeviceState.READY), reported=Reported(runtimes=runtimes))
    assert (choose_bundle([bundle], "m-1", one) is not None) is runs


def test_devices_that_are_alike_are_counted_as_if_each_was_looked_at() -> None:
    """Every mixture of what decides it, and one device alone."""
    fits = TargetCustom(model="m", version=2, target="h", runtime="tflite", hardware=("armv7l",))
    other = replace(RELEASE, name="other-1", model="other", target="h")
    releases = [RELEASE, replace(RELEASE, name="m-2", target="h", custom=fits), other]
    plain = device("a", DeviceState.READY)
    made = itertools.product(
        ("", "m-1", "m-2", "on-site-3"), ("", "m-1"), ({}, {"target": "gateway"}, {"target": "h"}),
        (None, Reported(), Reported(runtimes=("tflite",), hardware="armv7l"), Reported(safe_mode=True)),
    )  # fmt: skip
    fleet = []
    for index, (desired, running, attributes, reported) in enumerate(made):
        if reported is not None and running:
            reported = replace(reported, current=InstalledRelease(running, "0" * 64))  # noqa: PLW2901 - completed
        fleet += [
            replace(plain, device=f"d{index}-{twin}", desired_release=desired, attributes=attributes, reported=reported)
            for twin in range(2)
        ]
    names = ["m-1", "m-2", "other-1", "none-1"]
    for devices in (fleet, fleet[:1], fleet[7:8], []):
        counted = candidate_counts(devices, releases, names)
        assert counted == {name: len(candidates(devices, releases, name)) for name in names}
    assert candidate_counts(fleet, releases, names)["m-1"] > 0


def test_a_thousand_devices_of_one_kind_are_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each release, however many there are."""
    looked, refusal = [], Eligibility.refusal

    def counted(rules: Eligibility, one: Device, scope: Scope) -> str:
        looked.append(one.device)
        return refusal(rules, one, scope)

    monkeypatch.setattr(Eligibility, "refusal", counted)
    plain = device("a", DeviceState.DEGRADED)
    fleet = [replace(plain, device=f"d{index}", site=f"s{index % 9}", last_seen_ms=index) for index in range(1_000)]
    assert candidate_counts(fleet, [RELEASE], ["m-1"]) == {"m-1": 1_000}
    assert looked == ["d0"]
