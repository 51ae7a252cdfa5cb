"""Tasks: what a model predicts, and everything that depends on it. The folder is the registry: each has ``TASK``.

Decides the task of a recipe. Code outside this folder never compares with a task's name: it uses the task's functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from compressor import plugins
from compressor.errors import PluginError, RecipeError
from compressor.tasks._compared import Compared
from compressor.tasks._task import Judging, Reporting, Targets, Task, Training
from wire.settings import nearest

if TYPE_CHECKING:
    from compressor.recipe.model import DataRecipe

__all__ = [
    "Compared", "Judging", "Reporting", "Targets", "Task", "Training", "check", "known", "named", "of",
    "of_labels", "of_rows",
]  # fmt: skip

_OF_LABEL = {"number": "regression"}
"""The task of a ``[data] label``; any other is for classes."""
_CLASSES = "classification"


def known() -> tuple[str, ...]:
    """Return the names of the tasks in this folder."""
    return plugins.names(__name__)


def of(data: DataRecipe) -> Task:
    """Return the task of a recipe with this ``[data]``.

    Raises:
        PluginError: If ``[data] task`` names none.
    """
    return named(data.task or _OF_LABEL.get(data.label, _CLASSES))


def check(data: DataRecipe) -> None:
    """Check that ``[data] task`` names a task, and that it allows ``[data] label``.

    Raises:
        RecipeError: If it does not; the known tasks are named.
    """
    if not data.task:
        return
    if ":" not in data.task and data.task not in known():
        message = f"Expected [data] task to be {' or '.join(known())}, or 'module:attribute', got {data.task!r}"
        raise RecipeError(message + nearest(data.task, known()))
    said = _OF_LABEL.get(data.label, data.task)
    if said != data.task:
        message = f"Expected [data] label = 'exact' or 'floor' with task = {data.task!r}, got {data.label!r}"
        raise RecipeError(f"{message}, which is of {said}: leave one of the two out")
    try:
        named(data.task)
    except PluginError as error:
        message = f"[data] task: {error}"
        raise RecipeError(message) from error


def of_labels(labels: NDArray[Any], name: str = "") -> Task:
    """Return the task ``name``; without a name that of the labels' shape: class indices (N,), numbers (N, D).

    Raises:
        PluginError: If the task is unknown.
    """
    return named(name or (_CLASSES if labels.ndim == 1 else _OF_LABEL["number"]))


class _Labelled(Protocol):
    """Rows with labels, and the name of their task, if it is not that of such labels."""

    @property
    def labels(self) -> NDArray[Any]: ...

    @property
    def task(self) -> str: ...


def of_rows(rows: _Labelled) -> Task:
    """Return the task of labelled rows.

    Raises:
        PluginError: If there is no such task.
    """
    return of_labels(rows.labels, rows.task)


def named(name: str) -> Task:
    """Return the task ``name``: a folder beside this file, or ``module:attribute`` from outside.

    Raises:
        PluginError: If the task is unknown, a package it needs is missing, or the object is not a ``Task``.
    """
    if ":" not in name and name not in known():
        message = f"Expected a task of {', '.join(known())} or 'package.module:attribute', got {name!r}"
        raise PluginError(message + nearest(name, known()))
    found = plugins.attribute(name if ":" in name else f"{__name__}.{name}:TASK")
    if not isinstance(found, Task):
        message = f"Expected a compressor.tasks.Task as {name!r}, got {type(found).__name__}"
        raise PluginError(message)
    return found
