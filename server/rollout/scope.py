"""The scope of a rollout: which devices it is for, as a person named them. Pure; knows neither releases nor bundles.

Each filter that is set has to hold, by any of its values: ``sites=("a", "b"), hardware=("armv7l",)`` are the armv7l
devices of both sites. A scope without a filter is every device of the release's model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from server.fleet.fleet import Device
from server.wording import listed

_NAMED = 6


@dataclass(frozen=True, kw_only=True)  # without slots: the sets are made once, when the first device is asked for
class Scope:
    """Filters on devices, and whether they may change their model.

    ``devices``: ids. ``sites``: names. ``attributes``: the value that each of these keys must have. ``hardware``: as
    the device reports it, such as ``aarch64``. ``releases`` and ``models``: what the device runs now, or is assigned if
    it has reported none. ``tags``: that people gave it. ``move``: devices that run another model get the release too.
    """

    devices: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    hardware: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    move: bool = False

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Scope:
        """Return the scope in a document of its fields, with lists as in JSON."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
        }
        return cls(**values)

    @property
    def names_devices(self) -> bool:
        """Whether it says by device, site, attribute or tag which devices it is for, so that blank ones may join."""
        return bool(self.devices or self.sites or self.attributes or self.tags)

    @property
    def names_models(self) -> bool:
        """Whether it says precisely enough which devices may be moved to another model."""
        return self.names_devices or bool(self.releases or self.models)

    @cached_property
    def _devices(self) -> frozenset[str]:
        return frozenset(self.devices)  # a scope may name thousands, and each device of the fleet is looked up

    @cached_property
    def _filters(self) -> tuple[tuple[str, tuple[str, ...], frozenset[str]], ...]:
        """Return each filter by one value of a device: what it is of, its values in order, and as a set."""
        filters = (
            ("site", self.sites), ("hardware", self.hardware), ("release", self.releases), ("model", self.models),
        )  # fmt: skip
        return tuple((what, values, frozenset(values)) for what, values in filters if values)

    @property
    def text(self) -> str:
        """The scope in words, "" without a filter."""
        parts = [
            f"{what} {listed(values, _NAMED)}"
            for what, values in (
                ("devices", self.devices), ("sites", self.sites), ("tagged", self.tags),
                ("attributes", [f"{key}={value}" for key, value in self.attributes.items()]),
                ("hardware", self.hardware), ("running", self.releases), ("of the models", self.models),
            )
            if values
        ]  # fmt: skip
        return "; ".join([*parts, *(["moves devices of other models"] if self.move else [])])

    def mismatch(self, device: Device, model: str) -> str:
        """Return why ``device``, which runs ``model`` ("" for none), is outside, in words; "" if it is inside."""
        if self._devices and device.device not in self._devices:
            return "it is not in the scope's list of devices"
        found = {
            "site": device.site,
            "hardware": device.reported.hardware if device.reported else "",
            "release": device.release or device.desired_release,
            "model": model,
        }
        for what, named, allowed in self._filters:
            if (value := found[what]) not in allowed:
                return f"its {what} is {value or 'not known'}, and the scope is {listed(named, _NAMED)}"
        if self.tags and not {*self.tags} & {*device.tags}:
            return f"its tags are {listed(device.tags, _NAMED) or 'none'}, and the scope is {listed(self.tags, _NAMED)}"
        for key, wanted in self.attributes.items():
            value = device.attributes.get(key, "")
            if value != wanted:
                return f"its attribute {key} is {value or 'not set'}, and the scope is {wanted}"
        return ""
