"""A fleet of several models: each has verdicts of its own, and a device that changes model begins anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from tests.server.drift.conftest import NEW, Shelf

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld

DARKER = {"luma_mean": -2.0}
NOISIER = {"noise": 2.0}


@pytest.fixture
def mixed(world: FleetWorld) -> FleetWorld:
    """Three devices run one model, at the north, and three another, at the south; all have their baselines."""
    shelf = cast("Shelf", world.service.references)
    shelf.model = "other"
    world.keys = dict.fromkeys(("d3", "d4", "d5"), NEW)
    world.live(15)
    return world


def _open(world: FleetWorld) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return kind, devices and cause of the open verdicts by their model."""
    found = world.service.verdicts.open()
    assert len({one.model for one in found}) == len(found)
    return {one.model: (one.kind.value, one.devices, one.cause) for one in found}


def test_two_models_that_drift_at_once_have_two_verdicts(mixed: FleetWorld) -> None:
    """Of all devices of each, with the cause of its own, in every window; they end each for itself."""
    mixed.shifts = {f"d{i}": DARKER if i < 3 else NOISIER for i in range(6)}
    for _ in range(4):
        mixed.live(1)
        found = _open(mixed)
        assert found["model"] == ("site", ("d0", "d1", "d2"), "darker")
        assert found["other"] == ("site", ("d3", "d4", "d5"), "noisier")
    mixed.shifts = dict.fromkeys(("d0", "d1", "d2"), DARKER)
    mixed.live(40)
    assert _open(mixed) == {"model": ("site", ("d0", "d1", "d2"), "darker")}


def test_devices_at_one_site_are_judged_among_those_of_their_model(mixed: FleetWorld) -> None:
    """Two of the north and one of the south, as one site they would be one verdict."""
    mixed.shifts = {"d0": DARKER, "d1": DARKER, "d4": NOISIER}
    mixed.live(4)
    found = _open(mixed)
    assert found == {"model": ("site", ("d0", "d1"), "darker"), "other": ("device_local", ("d4",), "noisier")}


def test_one_device_of_a_model_is_found(world: FleetWorld) -> None:
    """Alone of its kind beside five others, all of which drift too."""
    cast("Shelf", world.service.references).model = "other"
    world.keys = {"d5": NEW}
    world.live(15)
    world.shifts = {device: NOISIER if device == "d5" else DARKER for device in world.devices}
    world.live(4)
    found = _open(world)
    assert found["other"] == ("device_local", ("d5",), "noisier")
    assert found["model"][:2] == ("fleet", ("d0", "d1", "d2", "d3", "d4"))


def test_a_device_that_gets_another_model_is_not_judged_by_the_one_before(mixed: FleetWorld) -> None:
    """Other inputs are no drift to it and its answers no regression: it collects a baseline of its own."""
    mixed.keys["d0"], mixed.shifts = NEW, {"d0": {"noise": 1.5}}
    mixed.live(30)
    assert mixed.service.verdicts.latest() == ()
    assert "d0" in mixed.service._outcome.log_values


def test_a_device_that_returns_to_a_release_goes_on_with_its_baseline_there(mixed: FleetWorld) -> None:
    """Also after another model that it only tried: it is judged in the first window, and what has changed is drift."""
    mixed.keys["d0"] = NEW
    mixed.live(3)
    assert "d0" not in mixed.service._outcome.log_values
    del mixed.keys["d0"]
    mixed.shifts = {"d0": NOISIER}
    mixed.live(1)
    assert "d0" in mixed.service._outcome.log_values
    mixed.live(3)
    assert _open(mixed) == {"model": ("device_local", ("d0",), "noisier")}
