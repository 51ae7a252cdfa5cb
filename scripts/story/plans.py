"""The two demos: what each device sees before and after the world changes.

A plan is data: devices with their images, and the images that judge the model at the end. Images that devices see are
never trained on unless the server requests them; images that judge a drifted site are never shown to a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.data import load
from compressor.data._split import Splits, split
from compressor.data._table import Integers, Table
from compressor.data.digits import DRIFTED, LENS_A, LENS_B, render, source_number
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe

MODELS = Path("models")
CAMERAS_NORTH = 3
TECHEM = "watermeter/Techem/V_DR"
STABLE = ("gasmeter/GMT/iotson", "powermeter/unknown/iotson")


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One device: its site, what it sees, and what it sees after the change (None: the same)."""

    device: str
    site: str
    sees: str
    before: Table
    after: Table | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Labelled images that judge the model for one site; ``drifted``: the site that changed."""

    name: str
    table: Table
    drifted: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One demo. The drifted site's accuracy must be below ``before_max``, then at least ``after_min``.

    ``samples`` are requested from each drifted device; ``labels`` start a retraining.
    """

    recipe: Path
    data: Path | None
    change: str
    devices: tuple[DevicePlan, ...]
    judges: tuple[Judge, ...]
    before_max: float
    after_min: float
    attributes: Mapping[str, Mapping[str, str]]
    samples: int
    labels: int

    @property
    def drifted(self) -> frozenset[str]:
        """The devices whose world changes."""
        return frozenset(device.device for device in self.devices if device.after is not None)


def digits_plan(seed: int = 0) -> Plan:
    """Return the built-in demo: three of six cameras are knocked out of focus; ``seed``: of the frames that are taken.

    Devices see digits of the calibration and reference splits, judges those of the gate split. A knocked camera sees
    each of its digits once, so that no digit is both trained on and judged when the server requests samples.
    """
    path = MODELS / "digits" / "recipe.toml"
    recipe = read_recipe(path)
    table = load(recipe.data)
    splits = _split(table, recipe)
    world = _sources(table, np.concatenate([splits.calibration, splits.reference]))
    held_out = _sources(table, splits.gate)
    views = {"lens-a": LENS_A, "lens-b": LENS_B}
    seen = {name: render(world, camera, name, views=3, seed=11 + 100 * seed) for name, camera in views.items()}
    knocked = [render(world[i::CAMERAS_NORTH], DRIFTED, "knocked", seed=12 + 100 * seed) for i in range(CAMERAS_NORTH)]
    devices = tuple(
        DevicePlan(
            f"cam-{number}", "north" if number <= CAMERAS_NORTH else "south", lens, seen[lens],
            None if number <= CAMERAS_NORTH else knocked[number - CAMERAS_NORTH - 1],
        )
        for number, lens in enumerate(["lens-a", "lens-b", "lens-a", "lens-b", "lens-a", "lens-b"], start=1)
    )  # fmt: skip
    judges = (
        *(Judge(name, render(held_out, camera, name, seed=13 + 100 * seed)) for name, camera in views.items()),
        Judge("knocked cameras", render(held_out, DRIFTED, "knocked", seed=14 + 100 * seed), drifted=True),
    )
    return Plan(
        path, None, "a lorry hits the south wall: its three cameras are out of focus, dark and turned",
        devices, judges, 0.75, 0.85, {device.device: {"camera": device.sees} for device in devices}, 150, 250,
    )  # fmt: skip


def meter_plan(data: Path, seed: int = 0) -> Plan:
    """Return the demo with real utility meters: two devices are moved to a make the model has never seen.

    ``seed``: which of the images of that make either device sees, and which judge the model.
    """
    path = MODELS / "meter_digits" / "recipe.toml"
    recipe = read_recipe(path).with_data(data)
    table = load(recipe.data)
    splits = _split(table, recipe)
    unseen = np.concatenate([splits.gate, splits.reference])
    source = {name: unseen[table.slices[unseen] == name] for name in recipe.data.train_slices}
    stable = {name: _rows_of(table, name) for name in STABLE}
    left, right, held_out = _thirds(_rows_of(table, TECHEM), seed)
    looks = [*source.items(), *stable.items(), next(iter(source.items()))]
    moved = {"meter-1": left, "meter-6": right}
    devices = tuple(
        DevicePlan(
            f"meter-{number}", "west" if f"meter-{number}" in moved else "east", name, table.take(rows),
            table.take(moved[f"meter-{number}"]) if f"meter-{number}" in moved else None,
        )
        for number, (name, rows) in enumerate(looks, start=1)
    )  # fmt: skip
    gate = {name: splits.gate[table.slices[splits.gate] == name] for name in source}
    judges = (
        *(Judge(name, table.take(rows)) for name, rows in {**gate, **stable}.items()),
        Judge(TECHEM, table.take(held_out), drifted=True),
    )
    return Plan(
        path, data.resolve(), f"site west's two devices are moved to another maker's meters ({TECHEM})",
        devices, judges, 0.60, 0.85, {device.device: _attributes(device) for device in devices}, 225, 300,
    )  # fmt: skip


def _attributes(device: DevicePlan) -> dict[str, str]:
    """Return a meter's attributes; one that is not trained on has its make, by which a retraining judges it."""
    return {"site_kind": device.site, **({"make": device.sees} if device.sees in STABLE else {})}


def _split(table: Table, recipe: Recipe) -> Splits:
    return split(table, recipe.train.seed, slices=recipe.data.train_slices)


def _rows_of(table: Table, name: str) -> Integers:
    return np.flatnonzero(table.slices == name)


def _thirds(rows: Integers, seed: int) -> list[Integers]:
    return [np.sort(part) for part in np.array_split(np.random.default_rng(3 + seed).permutation(rows), 3)]


def _sources(table: Table, rows: Integers) -> list[int]:
    numbers = sorted({source_number(source) for source in table.sources[rows].tolist()})
    return [int(number) for number in np.random.default_rng(3).permutation(numbers)]
