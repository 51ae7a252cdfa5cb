"""Keys that a recipe sets but that nothing would read, because of its other settings. Pure.

Decides this for the tables of the recipe's reader; a quantizing scheme lists the keys that it reads itself (``READS``
in its file), which is checked before a run (``preflight``). A key at its default value counts as not set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from compressor import steps, tasks
from compressor.errors import RecipeError
from compressor.gates.kinds import kind_of
from compressor.steps._selection import network_steps
from edge_agent import declarations
from wire.settings import is_given

if TYPE_CHECKING:
    from compressor.recipe.model import Recipe

READ_BY_IMPORTS = frozenset({"seed"})
"""The only key of ``[train]`` that is read with an imported file: the seed of the splits."""
_OF_TRAINING = frozenset({"epochs", "learning_rate"})


@dataclasses.dataclass(frozen=True, slots=True)
class Unread:
    """A key of a table that is not read, and why."""

    table: str
    key: str
    why: str


def check_unread(recipe: Recipe) -> None:
    """Check that every key that ``recipe`` sets is read.

    Raises:
        RecipeError: If one is not; the message names the key, the table and the reason.
    """
    found = next(unread(recipe), None)
    if found is not None:
        message = f"Expected no {found.key} in {found.table} {found.why}, got one"
        raise RecipeError(f"{message}: nothing would read it; leave it out")


def unread(recipe: Recipe) -> Iterator[Unread]:
    """Yield the keys of ``recipe`` that nothing would read."""
    model = recipe.model
    if model.imported:
        why = f"with [model] {'onnx' if model.onnx else 'tflite'}"
        yield from (Unread("[model]", key, why) for key in ("network", "network_options") if is_given(model, key))
        yield from (
            Unread("[train]", key, f"{why}, which is not trained")
            for key in _names(recipe.train)
            if key not in READ_BY_IMPORTS and is_given(recipe.train, key)
        )
    elif model.checkpoint:
        read = [steps.train_reads(step) for step in network_steps(recipe)]
        used = (
            frozenset(_names(recipe.train)) - _OF_TRAINING if None in read else frozenset().union(*filter(None, read))
        )
        used |= READ_BY_IMPORTS | {"fine_tune_epochs", "fine_tune_learning_rate"}  # the latter: for a later retraining
        unused = frozenset(_names(recipe.train)) - used
        why = "with [model] checkpoint, whose weights are taken as they are"
        yield from (Unread("[train]", key, why) for key in sorted(unused) if is_given(recipe.train, key))
    for place, why in tasks.of(recipe.data).unread.items():
        table, _, key = place.rpartition(" ")
        if gives(recipe, place):
            yield Unread(table, key, why)
    yield from _of_steps(recipe)
    formats = {one.name: one.formats for one in declarations.runtimes()}
    for target in recipe.targets:
        if target.format and len(formats.get(target.runtime, ())) < 2:  # noqa: PLR2004 - no choice
            yield Unread(f"[targets.{target.name}]", "format", f"of runtime {target.runtime!r}")
    for gate in recipe.gates:
        kind = kind_of(gate.name)
        if kind is not None and not kind.bounded and is_given(gate, "confidence"):
            yield Unread(f"[gates] {gate.name}", "confidence", "of a gate that compares a figure with its limit")


def _of_steps(recipe: Recipe) -> Iterator[Unread]:
    for step in recipe.compress:
        for key, why in steps.unread(step).items():
            if is_given(step, key):
                yield Unread(f"[[compress]] {step.step}", key, why)


def gives(recipe: Recipe, place: str) -> bool:
    """Return whether ``recipe`` sets the key at ``place``, such as ``[train] loss`` or ``[[compress]] qat epochs``."""
    table, _, key = place.rpartition(" ")
    if not table.startswith("[["):
        return is_given(getattr(recipe, table.strip("[]")), key)
    name = table.partition("]] ")[2]
    return any(hasattr(step, key) and is_given(step, key) for step in recipe.compress if name in {"", step.step})


def _names(table: Any) -> tuple[str, ...]:  # noqa: ANN401 - any dataclass of a recipe
    return tuple(field.name for field in dataclasses.fields(table))
