"""Checks that need neither data nor training: that plug-ins exist, and that a command may write to its output folder.

A command overwrites its own files in the folder that a person named and no others.
Decides nothing about data; checks only the module of a plug-in with a dotted path, and of a model file what
``imported_model`` can check without data.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from compressor import formats, plugins, quantize, tasks
from compressor.closure import located
from compressor.data import check_read
from compressor.errors import PackageError, PluginError, RecipeError
from compressor.recipe.model import Recipe, TargetRecipe
from compressor.steps.quantize import Settings as QuantizeRecipe
from edge_agent import tasks as device_tasks
from wire.settings import nearest

RESULTS = ("float.pt", "report.html", "gate.json", "search.json", "search.html", "chosen.toml")
CACHE = "cache"


def check(recipe: Recipe, out: Path) -> None:
    """Check that every plug-in of ``recipe`` exists and ``out`` is writable.

    Raises:
        DataError: If ``[data]`` sets a key that its data set does not read.
        PluginError: If a data set, network, scheme or runtime does not exist; the nearest one is named.
        RecipeError: If a scheme does not apply to a runtime, or a key is set that it reads for none of its targets.
        PackageError: If ``out`` is not a folder, can't be created or written, or holds foreign files with a result's
            name.
        CheckpointError: If a checkpoint or model file does not exist, is too large, or holds no weights.
        MeasureError: If an ONNX or TFLite file does not fit the recipe, or the runtime rejects it.
    """
    _require("compressor.data", recipe.data.dataset, "[data] dataset")
    check_read(recipe.data, plugins.names("compressor.data"))
    _require("compressor.networks", recipe.model.network, "[model] network")
    half = tasks.of(recipe.data).device
    if not device_tasks.is_installed(half):
        message = (
            f"Expected the device half {half!r} of [data] task to be installed here, where its drift reference is made"
        )
        raise PluginError(f"{message}, got none: install the package that declares it")
    if recipe.data.stand_in:
        _require("compressor.stand_ins", recipe.data.stand_in, "[data] stand_in")
    for step in recipe.compress:
        if isinstance(step, QuantizeRecipe):
            _require("compressor.quantize", step.scheme, "[[compress]] scheme")
            quantize.resolve(step.scheme)  # before anything is trained
    known = [one.name for one in formats.runtimes() if one.offered]
    for target in recipe.targets:
        if target.runtime not in known:
            said = f"Expected in [targets.{target.name}] a runtime of {', '.join(known)}, got {target.runtime!r}"
            raise PluginError(said + nearest(target.runtime, known))
        formats.named(target.runtime)  # a runtime may lack its part for the build host
        _installed(target)
    for step in recipe.compress:
        if isinstance(step, QuantizeRecipe):
            _check_scheme(step, recipe)
    _writable(out)
    check_run_folder(out, RESULTS)
    if recipe.model.imported or recipe.model.checkpoint or recipe.model.teacher:
        from compressor.run import imported_model  # noqa: PLC0415 - it needs data sets, which need this module

        imported_model.check(recipe)


def missing(target: TargetRecipe) -> list[str]:
    """Return the missing packages that building for ``target`` needs."""
    return [name for name in formats.or_plain(target.runtime).modules if not _there(name)]


def _check_scheme(step: QuantizeRecipe, recipe: Recipe) -> None:
    """Reject a scheme that does not apply to one of the step's targets, and settings that it reads for none of them."""
    runtimes = {target.runtime for target in recipe.targets if step.on in {"", target.name}}
    for runtime in sorted(runtimes):
        if not (there := formats.named(runtime)).takes(step.scheme):
            message = f"Expected as [[compress]] scheme for runtime {runtime!r} one of {', '.join(there.schemes())}"
            able = [name for name in formats.known() if formats.named(name).takes(step.scheme)]
            remedy = (
                f"{' and '.join(able)} has it: set on = a target of that runtime in this step"
                if able
                else "take one of these"
            )
            raise RecipeError(f"{message}, got {step.scheme!r}: {remedy}")
    found = formats.unread(step, sorted(runtimes))
    if found:
        on = " and ".join(sorted(runtimes))
        message = f"Expected no {found[0]} in [[compress]] 'quantize' of scheme {step.scheme!r} on {on}, got one"
        raise RecipeError(f"{message}: nothing would read it; leave it out, or take the scheme that has it")


def _installed(target: TargetRecipe) -> None:
    lacking = missing(target)
    if lacking:
        message = f"Expected {', '.join(lacking)} for [targets.{target.name}] runtime {target.runtime!r}, got none"
        raise PluginError(f"{message}: {formats.named(target.runtime).install}")


def _require(package: str, name: str, where: str) -> None:
    known = plugins.names(package)
    module = name.partition(":")[0]
    if ":" in name and not _there(module):
        message = f"Expected as {where} a module {module!r}, got none: put its folder on PYTHONPATH or install it"
        raise PluginError(message)
    if ":" not in name and name not in known:
        message = f"Expected as {where} one of {', '.join(known)} or 'package.module:function', got {name!r}"
        raise PluginError(message + nearest(name, known))


def _there(module: str) -> bool:
    return located(module) is not None  # imports no parent packages, which may need a plug-in's packages


def _writable(out: Path) -> None:
    above = next(path for path in [out, *out.resolve().parents] if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        what = "a file" if not above.is_dir() else "a folder that this user may not write"
        message = f"Expected a folder for results at {out}, got {what} at {above}: choose another --out"
        raise PackageError(message)
    try:  # a file system may claim to be writable and still refuse: /proc, a full or read-only disk
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"1")
    except OSError as error:
        message = f"Expected a folder for results at {out}, got: {error.strerror or error}"
        raise PackageError(f"{message}: choose another --out") from error


def check_run_folder(out: Path, names: Iterable[str]) -> None:
    """Check that files of ``names`` in ``out`` come from an earlier run, whose cache or certificate is beside them.

    Raises:
        PackageError: If one does not.
    """
    if not (out / CACHE).is_dir() and not _has_keys(out / "gate.json", {"verdict", "gates"}):
        _refuse(out, names)


def check_report_folder(out: Path, names: Iterable[str], keys: frozenset[str]) -> None:
    """Check that files of ``names`` in ``out`` were written by this command: the first is JSON with ``keys``.

    Raises:
        PackageError: If one was not.
    """
    names = tuple(names)
    if not _has_keys(out / names[0], keys):
        _refuse(out, names)


def _refuse(out: Path, names: Iterable[str]) -> None:
    foreign = next((name for name in names if (out / name).exists()), "")
    if foreign:
        message = (
            f"Expected --out to be new or the folder of an earlier run, got {out} with a {foreign} of other origin"
        )
        raise PackageError(f"{message}, which would be overwritten: choose another --out, or move the file away")


def _has_keys(path: Path, keys: set[str] | frozenset[str]) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and keys <= set(found)
