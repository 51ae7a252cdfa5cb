"""Steps of ``[[compress]]``. The folder is the registry: a step is one file.

A step's module has ``LEVEL`` and ``Settings``, a frozen dataclass whose field ``step`` is the file's name; the types of
the other fields carry their ranges. Optional: ``check(settings)`` for a condition that a type can't express, and
``unread(settings)`` if some settings make others unused. A step of level ``network`` has
``apply(network, bench, settings) -> Applied``; the one of level ``artifact`` turns the exported file into a smaller
one. Importing a step loads neither torch nor a runtime.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Protocol, TypeVar, cast

from compressor import plugins
from compressor.errors import PluginError, RecipeError, StepDidNothingError
from compressor.steps._base import ARTIFACT, NETWORK, Applied, Bench, Network
from compressor.steps._settings import Settings
from wire.errors import SettingsError
from wire.settings import check as check_ranges
from wire.settings import default_of, nearest

__all__ = [
    "ARTIFACT",
    "NETWORK",
    "Settings",
    "apply",
    "check",
    "level",
    "module",
    "names",
    "plain",
    "train_reads",
    "unread",
]

T = TypeVar("T")


class NetworkStep(Protocol):
    """The functions of a step module of level ``network``."""

    def apply(self, network: Network, bench: Bench, settings: Settings) -> Applied:
        """Return the changed network; ``network`` itself may be modified."""


def names() -> tuple[str, ...]:
    """Return the names of the steps in this folder, without importing them."""
    return plugins.names(__name__)


def module(name: str) -> ModuleType:
    """Return the module of the step ``name``.

    Raises:
        PluginError: If there is no such step.
    """
    if name not in names():
        message = f"Expected a step of {', '.join(names())}, got {name!r}{nearest(name, names())}"
        raise PluginError(message)
    return importlib.import_module(f"{__name__}.{name}")


def level(settings: Settings) -> str:
    """Return whether the step works on the network or on the exported artifact."""
    return str(module(settings.step).LEVEL)


def check(settings: Settings) -> None:
    """Check every value of a step's settings against its range.

    Raises:
        RecipeError: If one is out of range.
    """
    try:
        check_ranges(settings, f"[[compress]] {settings.step}")
        getattr(module(settings.step), "check", lambda _settings: None)(settings)
    except SettingsError as error:
        raise RecipeError(str(error)) from error


def unread(settings: Settings) -> Mapping[str, str]:
    """Return the keys that other ``settings`` make unused, each with the reason as text."""
    found: Mapping[str, str] = getattr(module(settings.step), "unread", lambda _settings: {})(settings)
    return found


def train_reads(settings: Settings) -> frozenset[str] | None:
    """Return the keys of ``[train]`` that the step reads; None if it trains as the table says but for the length."""
    found: frozenset[str] | None = getattr(module(settings.step), "TRAIN_READS", None)
    return found


def plain(settings: T) -> T:
    """Return ``settings`` with every unused key at its default."""
    unused = unread(settings)  # type: ignore[arg-type]
    return dataclasses.replace(settings, **{key: default_of(settings, key) for key in unused})  # type: ignore[type-var]


def apply(network: Network, bench: Bench, settings: Settings) -> Applied:
    """Return the step's result for ``network``, checked against what every step promises.

    Raises:
        StepDidNothingError: If it changed nothing, and its settings don't allow that.
        PluginError: If the result has other modules than ``network`` had, or weights that are not finite.
        CompressorError: As raised by the step.
    """
    step = cast("NetworkStep", module(settings.step))
    names_before = set(network.state_dict())
    applied = step.apply(network, bench, settings)
    changed = sorted(names_before ^ set(applied.network.state_dict()))
    if changed:
        message = f"Expected the modules to stay as they were in step {settings.step!r}, got other {changed[0]!r}"
        raise PluginError(f"{message}: a step changes weights and widths only")
    if applied.nothing and not getattr(settings, "allow_unchanged", False):
        message = f"Expected step {settings.step!r} to change the network, got nothing changed: {applied.nothing}"
        raise StepDidNothingError(f"{message}; change its settings, leave it out, or set allow_unchanged = true")
    if not applied.finite():
        message = f"Expected finite weights after step {settings.step!r}, got others: lower its learning rate"
        raise PluginError(message)
    return applied
