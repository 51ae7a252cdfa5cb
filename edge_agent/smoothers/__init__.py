"""Smoothers: what a model answers for an input of a stream, from its outputs for this input and those before it.

The folder is the registry, one smoother a file; a manifest names it. A smoother's module has ``Settings`` (a frozen
dataclass of numbers with a default and a range) and ``make(settings, classes) -> Smoother``. The compressor's gates
call the same functions on the rows of each source in their order, so that a release is judged by what a device will
answer. Drift, ``supported`` and samples are those of single inputs. Uses numpy and the standard library only.

A smoother whose answers are events has ``spotter(settings, threshold) -> Spotter`` as well.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, cast

from edge_agent.errors import SmootherError
from wire import plugins
from wire.errors import SettingsError
from wire.manifest import Manifest
from wire.settings import nearest, numbers_from, numbers_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Outputs: TypeAlias = "NDArray[np.float32]"


class Smoother(Protocol):
    """The state of one stream."""

    def add(self, outputs: Outputs, at_ms: int) -> tuple[Outputs, int]:
        """Return the outputs to answer with, and over how many inputs they are.

        Args:
            outputs: float32 (D,), of the newest input, finite: logits, or the values of a regression in their units.
            at_ms: When it was taken; only differences matter, and a clock that was set back begins anew.
        """


class Spotted(NamedTuple):
    """An event: its class, the first and the last of its inputs so far, the highest probability; or that it ended."""

    label: int
    start_ms: int
    end_ms: int
    confidence: float
    ended: bool = False


class Spotter(Protocol):
    """The events of one stream. ``gap_ms``: inputs further apart are of two streams; 0: any are of one."""

    gap_ms: int

    @property
    def event(self) -> Spotted | None:
        """The event that has begun and not ended."""

    def add(self, probabilities: Sequence[float], at_ms: int) -> tuple[Spotted, ...]:
        """Return the events that ended or began with the newest input.

        Args:
            probabilities: Of each class, as the smoother answered for this input.
            at_ms: When it was taken; only differences matter, and a clock that was set back begins anew.
        """

    def end(self) -> tuple[Spotted, ...]:
        """End the stream; return the event that ends with it."""


def broken(gone_ms: int, gap_ms: int) -> bool:
    """Return whether inputs ``gone_ms`` apart are of two streams; ``gap_ms`` 0: only if a clock was set back."""
    return gone_ms < 0 or bool(gap_ms and gone_ms > gap_ms)


def names() -> tuple[str, ...]:
    """Return the names of the smoothers in this folder."""
    return plugins.names(__name__)


def complete(name: str, options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` with all defaults of the smoother ``name`` filled in, as in a manifest.

    Raises:
        SmootherError: If the smoother is unknown, or an option is unknown or out of range.
    """
    return numbers_of(_settings(name, options))


def make(name: str, options: Mapping[str, float], classes: int) -> Smoother:
    """Return the smoother ``name`` at the beginning of a stream; ``classes``: how many outputs are classes, or 0.

    Raises:
        SmootherError: If it is unknown, or an option is unknown, out of range or not for this kind of output.
    """
    settings = _settings(name, options)
    try:
        return cast("Smoother", _module(name).make(settings, classes))
    except SettingsError as error:
        raise SmootherError(str(error)) from error


def of_manifest(manifest: Manifest) -> Smoother | None:
    """Return the smoother of a release at the beginning of a stream; None if it answers for single inputs.

    Raises:
        SmootherError: If it is unknown, or an option is unknown, out of range or not for this kind of output.
    """
    if not manifest.smoothing:
        return None
    return make(manifest.smoothing, manifest.smoothing_options, len(manifest.labels))


def spotter(name: str, options: Mapping[str, float], threshold: float) -> Spotter | None:
    """Return what finds the events of a stream smoothed by ``name``; None if its answers are no events.

    Raises:
        SmootherError: If the smoother is unknown, or an option is unknown or out of range.
    """
    made = getattr(_module(name), "spotter", None) if name else None
    return None if made is None else cast("Spotter", made(_settings(name, options), threshold))


def _settings(name: str, options: Mapping[str, float]) -> Any:  # noqa: ANN401 - the Settings of its module
    declared = _module(name).Settings
    try:
        return numbers_from(declared, options, f"smoother {name}")
    except SettingsError as error:
        raise SmootherError(str(error)) from error


def _module(name: str) -> Any:  # noqa: ANN401 - a module with Settings and make
    if name not in names():
        message = f"Expected a smoother of {', '.join(names())}, got {name!r}{nearest(name, names())}"
        raise SmootherError(f"{message}: update the agent")
    return importlib.import_module(f"{__name__}.{name}")
