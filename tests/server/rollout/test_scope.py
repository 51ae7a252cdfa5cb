"""Which devices a rollout is for: scope, models of devices, and the reasons of refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.dashboard.pages.rollouts import pairs, words
from server.dashboard.progress import rollout_card
from server.errors import RolloutRefusedError
from server.fleet.fleet import Device
from server.registry.versions import Release
from server.rollout.config import RolloutConfig
from server.rollout.create import RolloutOptions, draft
from server.rollout.model import Rollout
from server.rollout.scope import Scope
from wire.canonical import sha256_hex
from wire.messages import Desired, DeviceState, InstalledRelease, Reported, State
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from conftest import MemoryFleet


def release(model: str, version: int, *, hardware: tuple[str, ...] = (), withdrawn_ms: int = 0) -> Release:
    """Return a release with one bundle."""
    custom = TargetCustom(model=model, version=version, target="gateway", hardware=hardware, runtime="onnx")
    name = f"{model}-{version}"
    return Release(
        name=name, model=model, version=version, target="gateway", path=f"{name}/gateway.tfb", sha256="1" * 64,
        length_bytes=9, certificate={}, custom=custom, registered_ms=1, withdrawn_ms=withdrawn_ms,
    )  # fmt: skip


def device(name: str, site: str, runs: str = "", **changes: object) -> Device:
    """Return a connected device that runs a release, or none."""
    current = InstalledRelease(runs, "1" * 64) if runs else None
    reported = Reported(current=current, runtimes=("onnx",), hardware="aarch64")
    known = Device(
        device=name, site=site, attributes={"lens": "wide"} if name.endswith("1") else {}, state=DeviceState.READY,
        reported=reported, desired=Desired(gen=1, release=runs), desired_gen=1, desired_release=runs, last_seen_ms=5,
        enrolled_ms=1,
    )  # fmt: skip
    return replace(known, **changes)  # type: ignore[arg-type]


CAMERAS, TONES = [release("cam", 1), release("cam", 2)], [release("tones", 1)]
FLEET = [
    device("cam1", "kw", "cam-1"), device("cam2", "gate", "cam-1"), device("mic1", "kw", "tones-1"),
    device("new1", "kw"), device("new2", "barn"),
]  # fmt: skip


def make(
    name: str = "cam-2", scope: Scope | None = None, *, devices: list[Device] = FLEET,
    releases: list[Release] | None = None, **request: object,
) -> Rollout:  # fmt: skip
    """Return the rollout of a release to the fleet."""
    wanted = RolloutOptions(release=name, scope=scope or Scope(), **request)  # type: ignore[arg-type]
    known = CAMERAS + TONES if releases is None else releases
    return draft(wanted, RolloutConfig(), devices, known, identity="r1", now_ms=1)


def taken(rollout: Rollout) -> str:
    """Return its devices, by name."""
    return " ".join(sorted(member.device for member in rollout.members))


@pytest.mark.parametrize(
    ("scope", "devices"),
    [
        (Scope(), "cam1 cam2"),
        (Scope(sites=("kw",)), "cam1 new1"),
        (Scope(sites=("kw", "gate")), "cam1 cam2 new1"),
        (Scope(sites=("kw",), models=("cam",)), "cam1"),
        (Scope(attributes={"lens": "wide"}), "cam1 new1"),
        (Scope(devices=("cam2", "new2")), "cam2 new2"),
        (Scope(releases=("cam-1",)), "cam1 cam2"),
        (Scope(hardware=("aarch64",)), "cam1 cam2"),
        (Scope(sites=("kw",), move=True), "cam1 mic1 new1"),
        (Scope(models=("tones",), move=True), "mic1"),
        (Scope(devices=("mic1",), move=True), "mic1"),
    ],
)
def test_a_rollout_goes_to_its_scope_alone(scope: Scope, devices: str) -> None:
    """Blank devices join if the scope names them, devices of another model only if it moves them."""
    assert taken(make(scope=scope, canary=1)) == devices


def test_blank_devices_join_by_default_where_the_fleet_has_one_model() -> None:
    """A second model counts if it may be rolled out, or if a device is on it."""
    cameras = [one for one in FLEET if not one.device.startswith("mic")]
    assert taken(make(devices=cameras, releases=CAMERAS)) == "cam1 cam2 new1 new2"
    assert taken(make(devices=cameras)) == "cam1 cam2"
    withdrawn = [*CAMERAS, release("tones", 1, withdrawn_ms=5)]
    assert taken(make(devices=cameras, releases=withdrawn)) == "cam1 cam2 new1 new2"
    assert taken(make(releases=withdrawn)) == "cam1 cam2"


def test_a_release_from_a_stick_is_of_the_model_that_its_name_says() -> None:
    """The server does not know it, and must not take its device for one of any model."""
    assert taken(make(devices=[device("cam1", "kw", "cam-1"), device("usb", "kw", "tones-7")])) == "cam1"


def test_canaries_come_from_the_scope_and_not_from_the_groups() -> None:
    """Otherwise a device of a group could be drawn as canary, and the request would be refused by chance."""
    for seed in "abcdef":
        wanted = RolloutOptions(release="cam-2", groups=[["cam1"]])
        rollout = draft(wanted, RolloutConfig(), FLEET, CAMERAS + TONES, identity=seed, now_ms=1)
        assert [(one.device, one.group) for one in rollout.members] == [("cam2", 0), ("cam1", 1)]


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"canary": ["ghost"]}, "got 'ghost': it is no registered device"),
        ({"canary": ["cam1"], "groups": [["cam1"]]}, "each device in one group, got 'cam1' in 2 places"),
        ({"canary": ["mic1"]}, "'mic1': it is on tones-1, a release of tones, and moves to cam only by a scope with"),
        ({"scope": Scope(devices=("mic1", "cam1"))}, "'mic1': it is on tones-1, a release of tones, and moves"),
        ({"scope": Scope(sites=("kw",)), "canary": ["cam2"]}, "'cam2': its site is gate, and the scope is kw"),
        ({"scope": Scope(hardware=("armv7l",))}, r"got none: no device is in the scope \(hardware armv7l\)"),
        ({"scope": Scope(attributes={"lens": "tele"}), "canary": ["cam2"]}, "attribute lens is not set, and the scope"),
        ({"scope": Scope(move=True)}, "got move alone"),
        ({"scope": Scope(hardware=("aarch64",), move=True)}, "got move alone"),
        ({"canary": ["cam1"], "withheld": {"cam1": "it is worse there"}}, "got 'cam1': it is worse there"),
        ({"groups": [["cam1", "cam2"]]}, "go first with cam-2, got none: all are in the groups that follow"),
        ({"name": "cam-1", "canary": ["cam1"]}, "got 'cam1': it runs this release already"),
        ({"name": "cam-1"}, "got none: cam1: it runs this release already, cam2: it runs"),
        ({"name": "cam-1", "devices": FLEET[3:]}, "got none: new1: it runs no model yet and the fleet also has tones"),
        ({"devices": []}, "got none: the fleet has no device"),
        (
            {
                "name": "tones-1",
                "scope": Scope(models=("tones",)),
                "devices": [device("mic1", "kw", "tones-1", desired_release="cam-1")],
            },
            "got none: mic1: it is on cam-1, a release of cam, and moves",
        ),
    ],
)
def test_a_refusal_names_the_cause_that_holds(request_: dict[str, object], why: str) -> None:
    """Unknown, named twice, of another model, outside the scope, held back, already there, blank, nobody."""
    with pytest.raises(RolloutRefusedError, match=why):
        make(**request_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"attributes": {"target": "camera"}}, "its attribute target is camera, and the release has bundles for gatew"),
        (
            {"reported": Reported(runtimes=("litert",), hardware="aarch64")},
            "it has litert on aarch64, and .* needs onnx",
        ),
        ({"reported": Reported(hardware="x86_64")}, "no runtime on x86_64, and the release needs onnx on armv7l"),
    ],
)
def test_a_refusal_says_why_a_device_can_not_run_it(changes: dict[str, object], why: str) -> None:
    """Its target, its runtimes or its hardware."""
    known = [release("cam", 1), release("cam", 2, hardware=("armv7l",))]
    with pytest.raises(RolloutRefusedError, match=why):
        make(devices=[device("cam1", "kw", "cam-1", **changes)], releases=known, canary=["cam1"])


def test_a_device_that_never_reported_has_to_before_it_can_choose_among_bundles() -> None:
    """Nobody knows what it can run."""
    two = [*CAMERAS, replace(CAMERAS[1], target="pi", custom=replace(CAMERAS[1].custom, target="pi"))]
    with pytest.raises(RolloutRefusedError, match=r"has not reported what it can run, and .* for gateway, pi"):
        make(devices=[device("cam1", "kw", "cam-1", reported=None)], releases=two, canary=["cam1"])


def publish(fleet: MemoryFleet, model: str) -> None:
    """Register the first release of a model."""
    versions, data = fleet.app.parts.versions, model.encode()
    versions.blobs.put(sha256_hex(data), [data])
    custom, path = TargetCustom(model=model, version=1, target="g"), target_path(model, 1, "g")
    versions.register(path, custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=1)


@pytest.mark.parametrize(
    ("request_", "assigned"),
    [
        ({"canary": 2}, []),
        ({"canary": ["new1"]}, ["new1"]),
        ({"canary": ["new2"], "groups": [["new1"]]}, ["new2"]),
        ({"canary": 2, "scope": Scope(sites=("kw",))}, ["new1", "new2"]),
        ({"canary": 2, "scope": Scope(hardware=("aarch64",))}, []),
    ],
)
def test_a_second_model_keeps_blank_devices_that_nobody_named_out_of_a_rollout_that_waits(
    fleet: MemoryFleet, request_: dict[str, object], assigned: list[str]
) -> None:
    """They joined while the fleet had one model; the preview of the approval and the turn agree, and say so."""
    publish(fleet, "cam")
    for name in ("new1", "new2"):
        device = fleet.enrol(name, "kw")
        device.say("state", State(state=DeviceState.READY), retain=True)
        reported = Reported(gen=0, at_ms=fleet.clock(), boot="ab" * 8, hardware="aarch64", runtimes=("onnx",))
        device.say("reported", reported, retain=True)
    fleet.turn()
    service = fleet.app.parts.rollouts
    made = service.create(RolloutOptions(release="cam-1", **request_))  # type: ignore[arg-type]
    publish(fleet, "tones")
    assert sorted(service.foresee(made.id, "approve").assigns) == assigned
    service.approve(made.id, only=assigned)
    fleet.turn()
    assert [one.device for one in fleet.app.parts.fleet.devices() if one.desired_release] == assigned
    out = [one.device for one in service.get(made.id).members if one.code == "no_model"]
    said = [one.text for one in fleet.app.parts.events.latest() if one.code == "no_model"]
    named = len(request_.get("groups", ())) + len(assigned)  # type: ignore[arg-type]
    assert (len(out), len(said)) == (2 - named, int(named < 2))
    assert all(f"{len(out)} device" in text and "name them by device, site or attribute" in text for text in said)


def test_a_scope_is_kept_shown_and_holds_for_newcomers(fleet: MemoryFleet) -> None:
    """Through REST and the database; of the devices that enrol meanwhile only those of the scope join."""
    publish(fleet, "cam")
    publish(fleet, "tones")

    def enrol(name: str, site: str) -> None:
        fleet.enrol(name, site).say("state", State(state=DeviceState.READY), retain=True)
        fleet.turn()

    enrol("mic1", "barn")
    enrol("cam1", "kw")
    client, scope = fleet.client(), {"sites": ["kw"], "attributes": {"lens": "a"}}
    body = {"release": "cam-1", "scope": scope, "newcomers": True, "approved": True}
    made = client.post("/api/rollouts", json=body).json()
    empty: dict[str, object] = {name: [] for name in ("devices", "hardware", "releases", "models", "tags")}
    everything = {**empty, "move": False, **scope}
    assert (made["scope"], made["newcomers"]) == (everything, True)
    enrol("cam2", "kw")
    enrol("mic2", "barn")
    fleet.turn()
    kept = fleet.app.parts.rollouts.get(made["id"])
    assert taken(kept) == "cam1 cam2"
    assert kept.scope == Scope(sites=("kw",), attributes={"lens": "a"})
    shown = rollout_card(kept, fleet.clock()).scope
    assert shown == "only sites kw; attributes lens=a; devices that enrol meanwhile join"
    created = next(one for one in fleet.app.parts.events.latest() if one.code == "created")
    assert created.text == (
        "Rollout of cam-1 to 1 device (sites kw; attributes lens=a), and to devices of it that enrol meanwhile; "
        "1 of them runs no model yet: cam1"
    )


def test_the_fields_of_the_page_are_read() -> None:
    """Words by commas or blanks; attributes as KEY=VALUE."""
    assert words(" a, b c ,") == ["a", "b", "c"]
    assert (words(None), pairs(None)) == ([], {})
    assert pairs("lens=wide, floor = 2,") == {"lens": "wide", "floor": "2"}
    with pytest.raises(RolloutRefusedError, match="KEY=VALUE, separated by commas, got 'lens'"):
        pairs("lens")


class Counted(str):
    """A name that counts how often it was compared with another."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        """Count, and compare."""
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("of", ["devices", "sites"])
def test_a_scope_of_many_names_looks_each_device_up(of: str) -> None:
    """Each turn asks it of every device of the fleet: a search through the names would cost their square."""
    names = [f"n{number:03d}" for number in range(200)]
    scope = Scope(**{of: tuple(map(Counted, names))})  # type: ignore[arg-type]
    fleet = [device(name, name) for name in names]
    Counted.compared = 0
    assert [scope.mismatch(one, "m") for one in fleet] == [""] * 200
    assert scope.mismatch(device("n200", "n200"), "m").startswith("it")
    assert Counted.compared <= 4 * 200  # one a look-up, more where hashes collide; a search compares 20,000 times
