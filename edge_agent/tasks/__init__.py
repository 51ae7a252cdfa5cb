"""The device halves of tasks: the folder is the registry, and installed packages may add to it.

A task is a file with ``make(outputs) -> DeviceTask``, or ``make(outputs, thresholds)`` if each output has a threshold.
An external task is such a function, declared by an installed package as an entry point of the group
``edge_agent.tasks``: a manifest names the task, but never a module to import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge_agent.errors import TaskMissingError
from edge_agent.tasks._base import DeviceTask, FoundBox, Outputs, OutputStream, Seen, TaskAnswer
from wire import plugins
from wire.manifest import Manifest
from wire.reference import Reference

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "DeviceTask",
    "FoundBox",
    "OutputStream",
    "Outputs",
    "Seen",
    "TaskAnswer",
    "is_installed",
    "make",
    "name_of",
    "names",
    "of",
    "of_manifest",
    "of_reference",
]

GROUP = "edge_agent.tasks"
_OF_REFERENCE = ("classification", "regression")


def names() -> tuple[str, ...]:
    """Return the names of the tasks in this folder."""
    return plugins.names(__name__)


def is_installed(name: str) -> bool:
    """Return whether this folder or an installed package has the task ``name``; nothing is imported."""
    return name in names() or name in _external()


def make(name: str, outputs: int, thresholds: Sequence[float] = ()) -> DeviceTask:
    """Return the task ``name`` for a model with ``outputs`` outputs; ``thresholds``: of each of them, of some tasks.

    Raises:
        TaskMissingError: If neither this folder nor an installed package has it, two packages do, or creating it fails.
    """
    if name in names():
        return _made(importlib.import_module(f"{__name__}.{name}").make, outputs, thresholds)
    found = _external()
    if name not in found:
        known = ", ".join(dict.fromkeys((*names(), *found)))
        raise TaskMissingError(f"Expected a task of {known}, got {name!r}: install the package that has it")
    points = found[name]
    if len({point.value for point in points}) > 1:  # which one is found first differs from device to device
        whose = " and ".join(sorted(f"{point.value!r} of {point.dist.name if point.dist else '?'}" for point in points))
        raise TaskMissingError(f"Expected one task {name!r}, got {whose}: uninstall one of the packages")
    try:
        return _made(points[0].load(), outputs, thresholds)
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        message = f"Expected the task {name!r} of {points[0].value!r}, got {type(error).__name__}: {error}"
        raise TaskMissingError(message) from error


def _made(make: Callable[..., DeviceTask], outputs: int, thresholds: Sequence[float]) -> DeviceTask:
    """Return the task; only a manifest of a task with thresholds has some."""
    return make(outputs, thresholds) if thresholds else make(outputs)


def _external() -> dict[str, list[EntryPoint]]:
    from importlib import metadata  # noqa: PLC0415 - 1.4 MB that only a task from outside needs

    found: dict[str, list[EntryPoint]] = {}
    for point in metadata.entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def of(manifest: Manifest, reference: Reference) -> DeviceTask:
    """Return the task of a model: the one that its manifest names, or else that of its reference.

    Raises:
        TaskMissingError: If the manifest's task is not installed.
    """
    if not manifest.task:
        return of_reference(reference)
    made = make(manifest.task, outputs_of(manifest), manifest.thresholds)
    fitted: Callable[[float], DeviceTask] | None = getattr(made, "fitted", None)
    return made if fitted is None else fitted(reference.temperature)


def is_told(name: str) -> bool:
    """Return whether a manifest must name the task ``name``; two follow from the reference."""
    return name not in _OF_REFERENCE


def name_of(manifest: Manifest, reference: Reference) -> str:
    """Return the name of the task that ``of`` returns."""
    return manifest.task or ("classification" if reference.classes else "regression")


def of_reference(reference: Reference) -> DeviceTask:
    """Return the task of a reference whose manifest names none: classes, or as many values as output streams."""
    if reference.classes:
        return make("classification", reference.classes)
    return make("regression", sum(spec.kind == "output" for spec in reference.streams))


def of_manifest(manifest: Manifest) -> DeviceTask:
    """Return the task of a model without its reference.

    Raises:
        TaskMissingError: If the manifest's task is not installed.
    """
    name = manifest.task or ("regression" if manifest.values else "classification")
    return make(name, outputs_of(manifest), manifest.thresholds)


def outputs_of(manifest: Manifest) -> int:
    """Return the number of outputs of a model: from its names, or else from its output's shape."""
    named = len(manifest.labels or manifest.values)
    return named or max(0, manifest.outputs[0].shape[-1] if manifest.outputs and manifest.outputs[0].shape else 0)
