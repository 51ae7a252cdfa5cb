"""The steps and plug-ins that a recipe uses."""

from __future__ import annotations

from compressor import formats, steps, tasks
from compressor.closure import package, plugin
from compressor.recipe.model import FITTED, Recipe
from compressor.steps._settings import Settings as StepSettings
from compressor.steps.quantize import Settings as QuantizeRecipe


def network_steps(recipe: Recipe) -> tuple[StepSettings, ...]:
    """Return the steps before the export, in order."""
    return tuple(step for step in recipe.compress if steps.level(step) == steps.NETWORK)


def becomes_network(recipe: Recipe) -> bool:
    """Return whether the recipe needs the network in its imported file: for a step, or for another runtime."""
    given = formats.imported(recipe.model)
    if given is None or not given.becomes_network:
        return False
    return bool(network_steps(recipe)) or any(target.runtime != given.runtime for target in recipe.targets)


def artifact_steps(recipe: Recipe, target: str) -> tuple[QuantizeRecipe, ...]:
    """Return the steps of ``recipe`` after the export that apply to ``target``, in order."""
    found = (step for step in recipe.compress if isinstance(step, QuantizeRecipe))
    return tuple(step for step in found if step.on in {"", target})


def has_choices(recipe: Recipe) -> bool:
    """Return whether the recipe makes a choice that search rows must judge."""
    rescues = any(isinstance(step, QuantizeRecipe) and step.rescue for step in recipe.compress)
    return bool(network_steps(recipe) or recipe.train.early_stopping or rescues)


def fits_distance(recipe: Recipe) -> bool:
    """Return whether the score of an imported file is a distance from embeddings of train rows."""
    return bool(recipe.model.imported) and recipe.model.outputs in FITTED and tasks.of(recipe.data).scored


def learns(recipe: Recipe, *, retrained: bool = False) -> bool:
    """Return whether a run of ``recipe`` needs train rows: it trains, or a step learns or chooses by them.

    ``retrained``: from the samples of the fleet, which fine-tunes every network.
    """
    if fits_distance(recipe):
        return True
    if recipe.model.imported and not becomes_network(recipe):
        return False
    return retrained or has_choices(recipe) or not (recipe.model.imported or recipe.model.checkpoint)


def plugins_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the modules of all plug-ins that a run of the recipe loads by name: no import statement names them."""
    found = {plugin("compressor.networks", recipe.model.network), plugin("compressor.data", recipe.data.dataset)}
    runtimes = {formats.BASELINE, *(item.runtime for item in recipe.targets)}
    found |= {plugin(folder, name) for name in runtimes for folder in ("edge_agent.runtimes", "compressor.formats")}
    found |= {plugin("compressor.steps", step.step) for step in recipe.compress}
    quantizers = [step for step in recipe.compress if isinstance(step, QuantizeRecipe)]
    found |= {plugin("compressor.quantize", step.scheme) for step in quantizers}
    if any(step.rescue for step in quantizers):  # a rung may be any scheme
        found.update(package("compressor.quantize"))
    found |= {plugin("compressor.gates", gate.name) for gate in recipe.gates if ":" in gate.name}
    if recipe.data.front_end:
        found.add(plugin("edge_agent.front_ends", recipe.data.front_end))
    if recipe.smoothing.kind:
        found.add(plugin("edge_agent.smoothers", recipe.smoothing.kind))
    if recipe.decoder.kind:
        found.add(plugin("edge_agent.decoders", recipe.decoder.kind))
    return tuple(sorted(found))
