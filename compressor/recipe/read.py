"""Reads a recipe, all inputs of a run, strictly from one TOML file, and checks its values and its tables together.

Decides which keys exist, their types, defaults and ranges, and which tables fit each other. A key that nothing would
read, because of other settings, is an error; one at its default value counts as not set. Reads no plug-in folder except
those of the steps and the formats: whether a data set or a network of that name exists, and whether a quantizing scheme
reads its keys, is checked before a run (``preflight``). What a gate means is up to ``gates``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from compressor import formats, steps, tasks
from compressor.errors import RecipeError
from compressor.gates.evidence import DEVICE_PREFIX, GateRecipe, device_in
from compressor.gates.kinds import KINDS, RENAMED, Place, holds_for, kind_of
from compressor.recipe.changes import TABLES, changed
from compressor.recipe.model import (
    DEFAULT_STEPS,
    OF_CLASSES,
    UNLABELLED,
    AcceptanceRecipe,
    AlarmRecipe,
    DataRecipe,
    DecoderRecipe,
    ModelRecipe,
    Recipe,
    SmoothingRecipe,
    TargetRecipe,
    TrainRecipe,
)
from compressor.steps._selection import becomes_network, learns, network_steps
from compressor.steps._settings import Settings as StepSettings
from compressor.steps.quantize import Settings as QuantizeRecipe
from edge_agent import decoders, smoothers
from edge_agent.errors import DecoderError, SmootherError
from wire.errors import NameRefusedError, PathError, SettingsError
from wire.manifest import BITS, DECODES, UNFILTERED
from wire.paths import without_tilde
from wire.settings import (
    Bound,
    OneOf,
    check,
    fields_from,
    is_given,
    names_of,
    nearest,
    parse_toml,
    plain_table,
    read_toml,
)
from wire.topics import check_name

_GIVEN = {"quantize": {"own": None}}  # not set by a table: a scheme's own keys are in the step's table
_ROUNDING = 1e-9
SHARE_NAMES = ("train", "calibration", "gate", "reference")
READ_BY_IMPORTS = frozenset({"seed"})
"""The only key of ``[train]`` that is read with an imported file: the seed of the splits."""
_OF_TRAINING = frozenset({"epochs", "learning_rate"})


def read_recipe(path: Path | str, changes: Sequence[str] = (), files: Mapping[str, Path] | None = None) -> Recipe:
    """Return the recipe in the file at ``path`` (or ``recipe.toml`` in the folder at ``path``).

    ``changes``: values to read instead, ``train.epochs=3`` and so on (``recipe.changes``). ``files``: the model's file
    by its key in ``[model]``, instead of the recipe's own; keys that nothing reads then are no error.

    Raises:
        RecipeError: If it can't be read, or has an unknown key, a wrong type or a value out of range.
        PluginError: If an external gate can't be imported.
    """
    try:
        file = Path(path) / "recipe.toml" if Path(path).is_dir() else Path(path)
    except (OSError, TypeError) as error:  # text or bytes of a recipe: too long for a path
        message = f"Expected the path of a recipe or its folder, got {str(path)[:60]!r}"
        raise RecipeError(f"{message}: for the text of a recipe there is parse_recipe") from error
    try:
        document = read_toml(file)
    except SettingsError as error:
        if file.is_file():
            raise RecipeError(str(error)) from error
        message = f"Expected a recipe at {file}, got none: give a recipe's TOML file, or its folder"
        raise RecipeError(message) from error
    document = changed(document, changes) if changes else document
    recipe = _named(_with_files(document, files) if files else document, str(file), strict=not files)
    model = recipe.model
    try:
        return replace(
            recipe,
            folder=file.parent,
            data=replace(recipe.data, path=without_tilde(recipe.data.path)),
            model=replace(
                model, checkpoint=without_tilde(model.checkpoint), onnx=without_tilde(model.onnx),
                tflite=without_tilde(model.tflite),
            ),
        )  # fmt: skip
    except PathError as error:
        message = f"{file}: {error}"
        raise RecipeError(message) from error


def _with_files(document: Mapping[str, object], files: Mapping[str, Path]) -> dict[str, object]:
    """Return ``document`` with ``files`` in place of its own model file."""
    own = document.get("model")
    if not isinstance(own, dict):
        return dict(document)
    kept = {key: value for key, value in own.items() if key not in {"checkpoint", *formats.model_keys()}}
    return {**document, "model": {**kept, **{key: str(path.resolve()) for key, path in files.items()}}}


def parse_recipe(data: bytes | str, name: str = "recipe") -> Recipe:
    """Return the recipe in ``data``, the content of its file; ``name`` is the file's, for messages.

    Raises:
        RecipeError: As in ``read_recipe``.
    """
    try:
        document = parse_toml(data.encode(errors="surrogatepass") if isinstance(data, str) else data, name)
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    return _named(document, name)


def _named(document: Mapping[str, object], name: str, *, strict: bool = True) -> Recipe:
    try:
        return recipe_of(document, strict=strict)
    except RecipeError as error:
        message = f"{name}: {error}"
        raise RecipeError(message) from error


def recipe_of(document: Mapping[str, object], *, strict: bool = True) -> Recipe:
    """Return the recipe in ``document``, the tables of a recipe's file as Python values.

    Raises:
        RecipeError: If there is an unknown key, a wrong type or a value out of range, or, if ``strict``, a key that
            nothing reads.
        PluginError: If an external gate can't be imported.
    """
    for key in document:
        if key not in TABLES:
            message = f"Expected one of the tables {', '.join(TABLES)}, got [{key}]{nearest(key, TABLES)}"
            raise RecipeError(message)
    model = document.get("model")
    given = model if isinstance(model, dict) else {}
    taken_as_they_are = (one.model_key for one in map(formats.named, formats.known()) if one.finished)
    finished = any(map(given.get, taken_as_they_are))  # nothing is left to compress
    try:
        targets = plain_table(document.get("targets", {"host": {}}), "[targets]")
        recipe = Recipe(
            model=fields_from(ModelRecipe, document.get("model", {}), "[model]"),
            data=_without_labels(fields_from(DataRecipe, document.get("data", {}), "[data]"), document.get("data", {})),
            train=fields_from(TrainRecipe, document.get("train", {}), "[train]"),
            compress=_steps(document.get("compress", [] if finished else DEFAULT_STEPS)),
            targets=tuple(
                fields_from(TargetRecipe, table, f"[targets.{name}]", given={"name": name})
                for name, table in targets.items()
            ),
            gates=_gates(plain_table(document.get("gates", {}), "[gates]")),
            acceptance=fields_from(AcceptanceRecipe, document.get("acceptance", {}), "[acceptance]"),
            smoothing=_smoothing(plain_table(document.get("smoothing", {}), "[smoothing]")),
            alarm=fields_from(AlarmRecipe, document.get("alarm", {}), "[alarm]"),
            decoder=_decoder(plain_table(document.get("decoder", {}), "[decoder]")),
            written=tuple(plain_table(document.get("data", {}), "[data]")),
        )
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    recipe = _on_one_grid(recipe, cast("list[Mapping[str, object]]", document.get("compress", [])))
    check_recipe(recipe)
    unused = next(unread(recipe), None)
    if strict and unused is not None:
        message = f"Expected no {unused.key} in {unused.table} {unused.why}, got one"
        raise RecipeError(f"{message}: nothing would read it; leave it out")
    return recipe


def _without_labels(data: DataRecipe, table: object) -> DataRecipe:
    """Return ``data`` with the data set of inputs without labels, if ``unlabelled`` stands without labelled rows.

    ``table``: ``[data]`` as written, which tells ``dataset = "digits"`` from the default.
    """
    if not data.unlabelled:
        return data
    given = [key for key in ("needs", "stand_in") if is_given(data, key)]
    given += ["dataset = 'unlabelled'"] * (not data.labelled)
    if given:
        message = f"Expected no {given[0]} in [data] beside unlabelled = {data.unlabelled!r}, got one"
        raise RecipeError(f"{message}: name labelled rows by dataset and path, or leave unlabelled out")
    if isinstance(table, dict) and {"dataset", "path"} & set(table):
        return data
    return replace(data, dataset=UNLABELLED, path=data.unlabelled, unlabelled="")


def _on_one_grid(recipe: Recipe, tables: Sequence[Mapping[str, object]]) -> Recipe:
    """Return ``recipe`` with the grid of the quantize steps also in network steps whose ``tables`` don't write it.

    If the quantize steps differ in a key, it stays as it is: ``check_recipe`` asks for one of them.
    """
    wanted: dict[str, set[bool]] = {}
    for step in recipe.compress:
        for key in _grid(step, recipe.targets):
            wanted.setdefault(key, set()).add(getattr(step, key))
    agreed = {key: values.pop() for key, values in wanted.items() if len(values) == 1}

    def followed(step: StepSettings, table: Mapping[str, object]) -> StepSettings:
        own = [key for key in agreed if hasattr(step, key) and key not in table and key not in steps.unread(step)]
        network = steps.level(step) == steps.NETWORK and own
        return replace(step, **{key: agreed[key] for key in own}) if network else step  # type: ignore[type-var]

    return replace(recipe, compress=tuple(map(followed, recipe.compress, tables)) if tables else recipe.compress)


def _grid(step: StepSettings, targets: Sequence[TargetRecipe]) -> tuple[str, ...]:
    """Return the keys of ``step`` that decide on which grid the weights of its targets lie; none if it makes none."""
    if not isinstance(step, QuantizeRecipe) or step.scheme != "static_int8":
        return ()
    runtimes = [target.runtime for target in targets if step.on in {"", target.name}]
    return tuple(dict.fromkeys(key for runtime in runtimes for key in formats.or_plain(runtime).grid))


def _steps(value: object) -> tuple[StepSettings, ...]:
    if not isinstance(value, list):
        message = (
            f"Expected [[compress]] as a list of tables, got {type(value).__name__}: write [[compress]], not [compress]"
        )
        raise RecipeError(message)
    found: list[StepSettings] = []
    for i, item in enumerate(value, start=1):
        where = f"[[compress]] number {i}"
        table = plain_table(item, where)
        step, known = table.get("step"), steps.names()
        if not isinstance(step, str) or step not in known:
            message = f"Expected in {where} a step of {', '.join(known)}, got {step!r}{nearest(str(step), known)}"
            raise RecipeError(message)
        settings = _quantize(table, where) if step == "quantize" else None
        settings = settings or fields_from(steps.module(step).Settings, table, where, given=_GIVEN.get(step))
        if found and steps.level(found[-1]) == steps.ARTIFACT and steps.level(settings) == steps.NETWORK:
            message = f"Expected {where}, {step!r}, before the export, got it after {found[-1].step!r}: move it up"
            raise RecipeError(message)
        found.append(settings)
    return tuple(found)


def _smoothing(table: Mapping[str, object]) -> SmoothingRecipe:
    """Return the table: ``kind`` and ``interval_ms``, and the smoother's own keys, all written out."""
    shared = {key: value for key, value in table.items() if key in names_of(SmoothingRecipe) - {"options"}}
    read = fields_from(SmoothingRecipe, shared, "[smoothing]", given={"options": {}})
    own = {key: value for key, value in table.items() if key not in shared}
    if not read.kind:
        if table:
            known = ", ".join(smoothers.names())
            raise RecipeError(f"Expected in [smoothing] kind as one of {known}, got none: add it, or remove the table")
        return read
    try:
        options = smoothers.complete(read.kind, cast("Mapping[str, float]", own))
    except SmootherError as error:
        raise RecipeError(f"[smoothing]: {error}") from error
    gap_ms = options.get("gap_ms", 0)
    if 0 < gap_ms < read.interval_ms:
        message = f"Expected [smoothing] gap_ms of at least interval_ms ({read.interval_ms}) or 0, got {gap_ms:g}"
        raise RecipeError(f"{message}: each input would begin a stream of its own, and nothing would be smoothed")
    return replace(read, options=options)


def _decoder(table: Mapping[str, object]) -> DecoderRecipe:
    """Return the table: ``kind``, and the decoder's own keys, all written out as numbers."""
    read = fields_from(DecoderRecipe, {"kind": table["kind"]} if "kind" in table else {}, "[decoder]")
    if not read.kind:
        if table:
            known = ", ".join(decoders.of_boxes())
            raise RecipeError(f"Expected in [decoder] kind as one of {known}, got none: add it, or remove the table")
        return read
    own = {key: value for key, value in table.items() if key != "kind"}
    try:
        return replace(read, options=decoders.complete(read.kind, cast("Mapping[str, float]", own)))
    except DecoderError as error:
        raise RecipeError(f"[decoder]: {error}") from error


def _check_decoder(recipe: Recipe) -> None:
    """Check that a file with boxes has a decoder, and nothing else has one."""
    kind, known, imported = recipe.decoder.kind, decoders.of_boxes(), bool(recipe.model.imported)
    boxes = tasks.of(recipe.data).decoder in known
    if kind and not (boxes and imported):
        missing = "an imported file" if boxes else "[data] task = 'detection'"
        raise RecipeError(f"Expected no [decoder] without {missing}, got kind = {kind!r}: leave the table out")
    steps_ = network_steps(recipe)
    if kind and kind != tasks.of(recipe.data).decoder and steps_:
        message = f"Expected no step {steps_[0].step!r} with [decoder] kind = {kind!r}, got one"
        raise RecipeError(f"{message}: there is no loss for such outputs; only quantize applies")
    if boxes and imported and kind not in known:
        message = f"Expected in [decoder] kind one of {', '.join(known)}, got {kind or 'none'}"
        raise RecipeError(f"{message}: name the form of the file's outputs (docs/how-to/import-a-detector.md)")


def _quantize(table: Mapping[str, object], where: str) -> StepSettings | None:
    """Return the step if ``table`` sets keys that the scheme's own file declares, else None."""
    shared = names_of(QuantizeRecipe) - {"own"}
    own = {key: value for key, value in table.items() if key not in shared}
    scheme = table.get("scheme", QuantizeRecipe().scheme)
    if not own or not isinstance(scheme, str):
        return None
    from compressor.quantize import own_settings  # noqa: PLC0415 - a scheme needs onnx, and few have keys of their own

    declared = own_settings(scheme)
    if declared is None:
        return None
    known = sorted(shared | names_of(declared))
    for key in own:
        if key not in known:
            message = f"Expected in {where} one of {', '.join(known)}, got {key!r}{nearest(key, known)}"
            raise RecipeError(message)
    plain = {key: value for key, value in table.items() if key in shared}
    return fields_from(QuantizeRecipe, plain, where, given={"own": fields_from(declared, own, where)})


def _gates(table: Mapping[str, object]) -> tuple[GateRecipe, ...]:
    gates = []
    for name, limits in table.items():
        if name in RENAMED:
            message = f"Expected in [gates] {RENAMED[name]}, as this gate is called now, got {name!r}: rename the key"
            raise RecipeError(message)
        kind = kind_of(name)
        if kind is None:
            message = f"Expected in [gates] one of {', '.join(KINDS)} or 'package.module:ATTRIBUTE', got {name!r}"
            raise RecipeError(message + nearest(name, KINDS))
        gate = fields_from(GateRecipe, limits, f"[gates] {name}", given={"name": name})
        given, wanted = [limit for limit in ("max", "min") if getattr(gate, limit) is not None], kind.limits
        if len(given) != 1 or given[0] not in wanted:
            got = dict(plain_table(limits, name))
            message = f"Expected in [gates] {name} {' or '.join(wanted)}, as {{{wanted[0]} = 0.01}}, got {got}"
            raise RecipeError(message)
        if not math.isfinite(limit := cast("float", getattr(gate, given[0]))):
            message = f"Expected in [gates] {name} {given[0]} a finite number, got {limit}"
            raise RecipeError(message)
        gates.append(gate)
    return tuple(gates)


def check_recipe(recipe: Recipe) -> None:
    """Check value ranges and consistency between tables.

    Raises:
        RecipeError: If a check fails.
        PluginError: If there is no such task or gate.
    """
    _check_names(recipe)
    _check_ranges(recipe)
    _check_shares(recipe)
    _check_preprocessing(recipe.data)
    check_task(recipe)
    _check_gates(recipe)
    _check_unlabelled(recipe)
    _check_import(recipe)
    _check_decoder(recipe)
    _check_steps(recipe)


def _check_shares(recipe: Recipe) -> None:
    """Check that the shares of all splits are positive and sum to 1; that of train is 0 if nothing is trained."""
    shares = recipe.data.shares
    if not shares:
        return
    message = f"Expected in [data] shares positive {', '.join(SHARE_NAMES)} that sum to 1, got {dict(shares)}"
    if set(shares) != set(SHARE_NAMES) or not abs(sum(shares.values()) - 1) <= _ROUNDING:
        raise RecipeError(message)
    low = [name for name, share in shares.items() if not share > 0]
    if low == ["train"] and shares["train"] == 0:
        if not learns(recipe):
            return
        message += ": train = 0 is for an imported model, or a checkpoint, without steps that train"
    if low:
        raise RecipeError(message)


def _check_preprocessing(data: DataRecipe) -> None:
    """Check that the keys that make an image the input fit each other."""
    for key in ("mean", "std"):
        values = data.per_channel(key)
        if len(values) != data.channels:
            wanted = "one number" + (f" or {data.channels}, one a channel," if data.channels > 1 else "")
            message = f"Expected in [data] {key} {wanted} with colour = {data.colour!r}, got {list(values)}"
            raise RecipeError(f"{message}: write one for each channel in the order of the input's")
    least = max(data.width, data.height)
    if data.resize == "centre_crop" and 0 < data.resize_to < least:
        message = f"Expected in [data] resize_to at least {least}, the input's longer side, or 0, got {data.resize_to}"
        raise RecipeError(f"{message}: a smaller picture has no middle of that size")
    if data.bits not in BITS:
        message = f"Expected in [data] bits {' or '.join(map(str, BITS))}, those of a pixel's value, got {data.bits}"
        raise RecipeError(f"{message}: a camera of 10 to 14 bits writes files of 16")
    if data.bits != BITS[0] and (data.colour != "grey" or data.front_end):
        got = f"the front end {data.front_end!r}" if data.front_end else f"colour = {data.colour!r}"
        raise RecipeError(f"Expected with [data] bits = {data.bits} colour = 'grey' and no front end, got {got}")
    if data.fill > data.most:
        raise RecipeError(f"Expected in [data] fill 0 to {data.most}, a level of the image, got {data.fill}")
    aliasing = "resample = 'nearest'" if data.resample == "nearest" else "" if data.antialias else "antialias = false"
    if not data.antialias and data.resample != UNFILTERED:
        message = f"Expected in [data] antialias = false only with resample = {UNFILTERED!r}, got {data.resample!r}"
        raise RecipeError(f"{message}: leave antialias out")
    if aliasing and data.decode != DECODES[0] and not data.front_end:
        message = f"Expected in [data] decode = {DECODES[0]!r} with {aliasing}, got {data.decode!r}"
        raise RecipeError(f"{message}: an image that is reduced while it is decoded is filtered; write decode = 'full'")


def check_task(recipe: Recipe) -> None:
    """Check that the settings of ``recipe`` fit its task.

    Raises:
        RecipeError: If one belongs to another task, or mean and deviation of the values are inconsistent.
        PluginError: If there is no such task.
    """
    tasks.check(recipe.data)
    task, data = tasks.of(recipe.data), recipe.data
    wrong = next((place for place in task.foreign if gives(recipe, place)), None)
    if wrong is not None:
        message = f"Expected {wrong} in {task.foreign[wrong]} alone, got it in a recipe {task.recipes}: leave it out"
        raise RecipeError(message)
    for other in map(tasks.named, tasks.known()):
        place = next((one for one in other.own if one not in task.own and gives(recipe, one)), None)
        if place is not None:
            message = f"Expected {place} in a recipe {other.recipes} alone, got it in one {task.recipes}"
            raise RecipeError(f"{message}: leave it out")
    smoother, kind = task.smoother, recipe.smoothing.kind
    if smoother and kind != smoother:
        message = f"Expected [smoothing] kind = {smoother!r} in a recipe {task.recipes}, got {kind or 'none'!r}"
        raise RecipeError(f"{message}: its answers are events of a stream; write it, with interval_ms between windows")
    if kind and kind != smoother and smoothers.spotter(kind, recipe.smoothing.options, 1.0) is not None:
        message = f"Expected another [smoothing] kind in a recipe {task.recipes}, got {kind!r}"
        raise RecipeError(f"{message}: it makes events of answers; write kind = 'mean', or another [data] task")
    if len(data.target_mean) != len(data.target_std) or any(not spread > 0 for spread in data.target_std):
        message = "Expected in [data] target_mean and target_std one number a value, each std above 0"
        raise RecipeError(f"{message}, got {list(data.target_mean)} and {list(data.target_std)}")


def _check_names(recipe: Recipe) -> None:
    """Check what no range expresses: at least one target, unique labels, valid names and paths."""
    model = recipe.model
    if not recipe.targets:
        message = "Expected a table [targets.NAME], got none: write [targets.host], or leave [targets] out"
        raise RecipeError(message)
    if any(not target.cpu.strip() for target in recipe.targets):
        message = "Expected in [targets] cpu the device's processor, as its `uname -m` prints it, got nothing"
        raise RecipeError(f"{message}: write x86_64, aarch64 or its own, or leave cpu out")
    twice = [name for name in model.labels if model.labels.count(name) > 1]
    if twice:
        message = f"Expected in [model] labels each name once, got {twice[0]!r} {model.labels.count(twice[0])} times"
        raise RecipeError(message)
    if recipe.data.generated:
        message = f"Expected in [data] path or stand_in, got both ({recipe.data.path}, {recipe.data.stand_in})"
        raise RecipeError(f"{message}: a stand-in is for a recipe without data of its own")
    given = (getattr(model, key) for key in formats.model_keys())
    if any("\0" in path for path in (recipe.data.path, model.checkpoint, model.teacher, *given)):
        message = "Expected paths without a NUL character in [data] and [model], got one: write it without"
        raise RecipeError(message)
    try:
        check_name(model.name, "[model] name")
        for target in recipe.targets:
            check_name(target.name, "a target's name")
    except NameRefusedError as error:
        raise RecipeError(str(error)) from error


def _check_ranges(recipe: Recipe) -> None:
    """Check every value that has a range or a list of choices."""
    train = recipe.train
    tables = [
        ("[model]", recipe.model), ("[data]", recipe.data), ("[train]", train), ("[acceptance]", recipe.acceptance),
        ("[smoothing]", recipe.smoothing), ("[alarm]", recipe.alarm),
        *((f"[targets.{target.name}]", target) for target in recipe.targets),
    ]  # fmt: skip
    endings = {one.name: tuple(one.formats) for one in formats.runtimes()}
    try:
        for where, table in tables:
            check(table, where)
        Bound(0, max(0, train.epochs - 1)).check("[train] warm_up_epochs", train.warm_up_epochs)
        OneOf(("huber", "mse")).check("[train] loss", train.loss or "huber")
        for gate in recipe.gates:  # points or per cent by mistake are rejected
            Bound(0.5, 0.9999).check(f"[gates] {gate.name} confidence", gate.confidence)
            kind, limit = kind_of(gate.name), "min" if gate.max is None else "max"
            allowed = kind.unit.range_of(maximum=limit == "max") if kind is not None else None
            if kind is not None and allowed is not None:
                Bound(*allowed).check(f"[gates] {gate.name} {limit}{kind.unit.hint}", gate.limit or 0.0)
        for item in recipe.targets:  # of one format, the key has no use; of none, preflight names the nearest runtime
            if len(known := endings.get(item.runtime, ())) > 1:
                OneOf(known).check(f"[targets.{item.name}] format", item.format)
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    for step in recipe.compress:
        steps.check(step)


def _check_gates(recipe: Recipe) -> None:
    """Check that every gate belongs to the recipe's task, and its target or device can give evidence for it."""
    names, task = [target.name for target in recipe.targets], tasks.of(recipe.data)
    foreign = []
    for gate in recipe.gates:
        kind, where = kind_of(gate.name), f"[gates] {gate.name}"
        place = Place.BOTH if kind is None else kind.place
        judges = kind is None or holds_for(kind, *task.gates)
        if not recipe.data.labelled and kind is not None and not kind.tasks and kind.measure is not None:
            judges = False  # a gate from outside reads labels, unless it is for this task
        foreign += [] if judges or kind is None else [kind]
        device, on = device_in(gate.on)
        if device and place is Place.HOST:
            message = f"Expected in {where} on = a target, got {gate.on!r}: a device has no evidence for this gate"
            raise RecipeError(message)
        if not device and (place is Place.DEVICE or DEVICE_PREFIX in gate.on):
            message = f'Expected in {where} on = "device:ID" or "TARGET@device:ID", got {gate.on!r}'
            raise RecipeError(message)
        try:
            check_name(device or "none", f"the device in {where}")
        except NameRefusedError as error:
            raise RecipeError(str(error)) from error
        _check_target(on if device else gate.on, names, where)
    if foreign:
        own = ", ".join(sorted(name for name, kind in KINDS.items() if kind.tasks and holds_for(kind, *task.gates)))
        got = ", ".join(kind.name for kind in foreign)
        message = f"Expected in [gates] what a recipe {task.recipes} has, got {got}"
        if not recipe.data.labelled:
            remedy = f"without labels the answers are compared with those of the original: use {own}"
            raise RecipeError(f"{message}: {remedy}, or give labelled rows ([data] dataset and path)")
        whose = " or ".join(tasks.named(of).recipes for of in foreign[0].tasks if of not in tasks.UNLABELLED)
        raise RecipeError(f"{message}: that is for one {whose}; use {own or 'those of every recipe'}")


def _check_unlabelled(recipe: Recipe) -> None:
    """Check that inputs without labels meet a file whose answers take their place, or a teacher's."""
    model = recipe.model
    if recipe.data.labelled:
        task = tasks.of(recipe.data)
        if recipe.data.unlabelled and task.name not in tasks.CAN_DO_WITHOUT:
            message = f"Expected no [data] unlabelled beside the rows of a recipe {task.recipes}, got one"
            raise RecipeError(f"{message}: only {' and '.join(tasks.CAN_DO_WITHOUT)} learn from a teacher's answers")
        return
    if not model.imported:
        message = f"Expected {' or '.join(formats.model_keys())} in [model] with [data] unlabelled, got none"
        raise RecipeError(f"{message}: nothing can be learnt without labels but the answers of a file")
    if not model.labels and tasks.of(recipe.data).names_are == "labels":
        message = "Expected [model] labels with [data] unlabelled, got none"
        raise RecipeError(f"{message}: the names of the file's classes, in the order of its outputs")


def _check_target(on: str, names: Sequence[str], where: str) -> None:
    if on and on not in names:
        message = f"Expected in {where} on = one of {', '.join(names)}, got {on!r}"
        raise RecipeError(message + nearest(on, names))


def _check_import(recipe: Recipe) -> None:
    """Reject what an imported file does not allow.

    That is, for a file that can't become a network, steps that change one and another runtime's file.
    """
    model = recipe.model
    given = [name for name in ("checkpoint", *formats.model_keys()) if getattr(model, name)]
    if len(given) > 1:
        message = f"Expected in [model] one of checkpoint, {', '.join(formats.model_keys())}, got {', '.join(given)}"
        raise RecipeError(message)
    file_format, task = formats.imported(model), tasks.of(recipe.data)
    if model.outputs not in {"", *OF_CLASSES} and file_format is not None and not task.scored:
        message = (
            f"Expected [model] outputs {' or '.join(OF_CLASSES)} in a recipe {task.recipes}, got {model.outputs!r}"
        )
        raise RecipeError(f"{message}: leave it out, or write [data] task = 'anomaly'")
    if model.constants and (file_format is None or not file_format.cleaned_with):
        raise RecipeError("Expected no constants in [model] without an ONNX file in onnx, got some: leave them out")
    if file_format is None:
        return
    if file_format.becomes_network:
        if becomes_network(recipe) and recipe.train.processes > 1:
            message = f"Expected [train] processes = 1 with [model] {given[0]}, got {recipe.train.processes}"
            raise RecipeError(f"{message}: a network from a file is trained by one process")
        return
    runtime = file_format.runtime
    wrong = [target.name for target in recipe.targets if target.runtime != runtime]
    if wrong:
        message = f"Expected targets of runtime {runtime!r} for [model] {given[0]}, got another in {', '.join(wrong)}"
        raise RecipeError(f"{message}: only a network is exported to both formats")
    kept = [step.step for step in recipe.compress if file_format.finished or steps.level(step) == steps.NETWORK]
    if kept:
        message = f"Expected no step {kept[0]!r} with [model] {given[0]}, got one"
        remedy = "write compress = []" if kept[0] == "quantize" else "give checkpoint and network"
        raise RecipeError(f"{message}: {remedy}")


def _check_steps(recipe: Recipe) -> None:
    """Check that steps name known targets and fit each other.

    A target is quantized once: a second scheme would work on the file of the first. QAT and quantization use the same
    grid: otherwise the training is lost. Rescue is used only for ONNX targets: its result would not apply to a TFLite
    file of the same step.
    """
    names, trained = [target.name for target in recipe.targets], network_steps(recipe)
    if trained and recipe.train.keeps_body:
        message = f"Expected no step {trained[0].step!r} with [train] fine_tune_layers = 'head', got one"
        raise RecipeError(f"{message}: it would change the body again; leave it out, or fine-tune all layers")
    quantizers = [step for step in recipe.compress if isinstance(step, QuantizeRecipe)]
    for target in recipe.targets:
        own = [step for step in quantizers if step.on in {"", target.name}]
        if len(own) > 1:
            schemes = ", ".join(step.scheme for step in own)
            message = f"Expected one [[compress]] 'quantize' for target {target.name!r}, got {len(own)} ({schemes})"
            raise RecipeError(f"{message}: give each an on = a target of its own, or remove all but one")
    for step in quantizers:
        _check_target(step.on, names, "[[compress]]")
        for qat, key in ((qat, key) for qat in trained if qat.step == "qat" for key in _grid(step, recipe.targets)):
            if getattr(qat, key) != getattr(step, key):
                said = f"{key} = {str(getattr(qat, key)).lower()} in both steps"
                message = f"Expected [[compress]] 'qat' and 'quantize' with the same {key}, got two: set {said}"
                raise RecipeError(message)
        others = [
            item.name
            for item in recipe.targets
            if not formats.or_plain(item.runtime).rescues and step.on in {"", item.name}
        ]
        imported = bool(recipe.model.imported) and not becomes_network(recipe)
        if step.rescue and (others or imported):
            got = f"target {others[0]!r}" if others else "an imported file"
            message = f"Expected rescue for ONNX targets of a trained network alone, got {got}"
            raise RecipeError(f"{message}: set on = the ONNX target in this step, and another step for the others")


@dataclasses.dataclass(frozen=True, slots=True)
class Unread:
    """A key of a table that is not read, and why."""

    table: str
    key: str
    why: str


def _unread_of_files(recipe: Recipe) -> Iterator[Unread]:
    """Yield the teacher of a recipe in which nothing learns from one, and what is said of the outputs of no file."""
    if recipe.model.outputs and not recipe.model.imported:
        yield Unread("[model]", "outputs", "without an imported file")
    taught = any(step.step == "distill" or (step.step == "qat" and step.distill) for step in network_steps(recipe))  # type: ignore[attr-defined]
    if recipe.model.teacher and not taught:
        yield Unread("[model]", "teacher", "without a step distill, or qat with distill above 0")


def _unread_of_data(recipe: Recipe) -> Iterator[Unread]:
    """Yield the keys that belong to another way to resize, and inputs to calibrate with if nothing is quantized."""
    data = recipe.data
    if data.unlabelled and not any(step.step == "distill" for step in network_steps(recipe)):
        yield Unread(
            "[data]",
            "unlabelled",
            "beside labelled rows without a step 'distill', which learns from both "
            "(qat, with its share of the teacher too, learns from labelled rows alone)",
        )
    if data.calibration and not any(isinstance(step, QuantizeRecipe) for step in recipe.compress):
        yield Unread("[data]", "calibration", "without a step 'quantize'")
    for key, resize in (("resize_to", "centre_crop"), ("fill", "letterbox")):
        if is_given(data, key) and data.resize != resize:
            yield Unread("[data]", key, f"with resize = {data.resize!r}, but only with {resize!r}")


def unread(recipe: Recipe) -> Iterator[Unread]:
    """Yield the keys of ``recipe`` that nothing would read."""
    model = recipe.model
    file_format = formats.imported(model)
    yield from _unread_of_files(recipe)
    yield from _unread_of_data(recipe)
    if file_format is not None:
        why = f"with [model] {file_format.model_key}"
        yield from (Unread("[model]", key, why) for key in ("network", "network_options") if is_given(model, key))
    if file_format is not None and not becomes_network(recipe):
        yield from (
            Unread("[train]", key, f"{why}, which is not trained")
            for key in _names(recipe.train)
            if key not in READ_BY_IMPORTS and is_given(recipe.train, key)
        )
    elif file_format is not None or model.checkpoint:
        read = [steps.train_reads(step) for step in network_steps(recipe)]
        used = (
            frozenset(_names(recipe.train)) - _OF_TRAINING if None in read else frozenset().union(*filter(None, read))
        )
        used |= READ_BY_IMPORTS | {
            "fine_tune_epochs",
            "fine_tune_learning_rate",
            "fine_tune_layers",
        }  # the latter: for a later retraining
        unused = frozenset(_names(recipe.train)) - used
        key = file_format.model_key if file_format is not None else "checkpoint"
        why = f"with [model] {key}, whose weights are taken as they are"
        yield from (Unread("[train]", key, why) for key in sorted(unused) if is_given(recipe.train, key))
    for place, why in tasks.of(recipe.data).unread.items():
        table, _, key = place.rpartition(" ")
        if gives(recipe, place):
            yield Unread(table, key, why)
    yield from (
        Unread(f"[[compress]] {step.step}", key, why)
        for step in recipe.compress
        for key, why in steps.unread(step).items()
        if is_given(step, key)
    )
    endings = {one.name: one.formats for one in formats.runtimes()}
    for target in recipe.targets:
        if target.format and len(endings.get(target.runtime, ())) < 2:  # noqa: PLR2004 - no choice
            yield Unread(f"[targets.{target.name}]", "format", f"of runtime {target.runtime!r}")
    for gate in recipe.gates:
        kind = kind_of(gate.name)
        if kind is not None and not kind.bounded and is_given(gate, "confidence"):
            yield Unread(f"[gates] {gate.name}", "confidence", "of a gate that compares a figure with its limit")


def gives(recipe: Recipe, place: str) -> bool:
    """Return whether ``recipe`` sets the key at ``place``, such as ``[train] loss`` or ``[[compress]] qat epochs``.

    ``[data] resize = 'centre_crop'`` is the key with this value alone.
    """
    place, _, value = place.partition(" = ")
    table, _, key = place.rpartition(" ")
    if value:
        return repr(getattr(getattr(recipe, table.strip("[]")), key)) == value
    if not table.startswith("[["):
        return is_given(getattr(recipe, table.strip("[]")), key)
    name = table.partition("]] ")[2]
    return any(hasattr(step, key) and is_given(step, key) for step in recipe.compress if name in {"", step.step})


def _names(table: Any) -> tuple[str, ...]:  # noqa: ANN401 - any dataclass of a recipe
    return tuple(field.name for field in dataclasses.fields(table))
