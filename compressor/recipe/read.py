"""A recipe: everything a run is made from, read strictly from one TOML file.

Decides which keys exist, their types, defaults and ranges. Does not decide whether a data set or
a network of that name exists (their folders do), nor what a gate means (``gates.py`` does).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from compressor import plugins as registry
from compressor import steps
from compressor.closure import package, plugin
from compressor.errors import DataError, PluginError, RecipeError
from compressor.gates import GATE_NAMES, RENAMED, limits_of
from compressor.gates.rule import GateRecipe
from compressor.recipe.checks import check_recipe
from compressor.recipe.toml_fields import fields_from, nearest, plain_table
from compressor.recipe.unread import check_unread
from compressor.steps._settings import Settings as StepSettings
from compressor.steps.quantize import Settings as QuantizeRecipe
from wire.errors import PathError
from wire.manifest import DECODES, ORIENTATIONS, Preprocessing
from wire.paths import without_tilde

MAX_RECIPE_BYTES = 256 * 1024
NUMBER = "number"
"""``[data] label`` of a regression."""


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """``[model]``: what is built. ``network_options`` go to the network's ``build`` by name.

    A model of one's own comes in by one of three: ``checkpoint`` (a state dict for ``network``: training is left out),
    ``onnx`` (the steps after training, gates and bundle) or ``tflite`` (gates and bundle), each a path beside the
    recipe.

    ``allow_constant``: why the model need not be better than one answer to everything, nor its labels be in the order
    that fits best; empty: it must.

    ``security_floor``: a device that committed this release refuses every release with a lower floor from then on.
    Raise it only when the releases before are not safe to run; a roll-back to an equal floor stays possible.
    """

    name: str
    network: str = "resnet8"
    version: int = 1
    security_floor: int = 0
    labels: tuple[str, ...] = ()
    network_options: Mapping[str, int | float] = field(default_factory=dict)
    checkpoint: str = ""
    onnx: str = ""
    tflite: str = ""
    allow_constant: str = ""

    @property
    def architecture(self) -> str:
        """What the model is, in a few words: its network, or the kind of file that it came as."""
        return "model from an ONNX file" if self.onnx else "model from a TFLite file" if self.tflite else self.network

    @property
    def imported(self) -> str:
        """The exported file that takes the place of a network, or nothing."""
        return self.onnx or self.tflite


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """``[data]``: what is learnt from, and how an image becomes an input.

    ``slices``: the CSV column of per-slice gates. ``split``: the CSV column that tells each row's split (``train``,
    ``calibration``, ``gate``, ``reference``, or nothing: drawn). ``train_slices``: the only slices that are trained,
    calibrated, gated and referenced on (none: all). ``label``: ``exact`` (each label is a class),
    ``floor`` (3.7 is class 3) or ``number`` (3.7 is a value to predict: a regression). ``allow_corrupt``: how many
    broken images may be left out.
    ``mean`` and ``std``: of the input after scaling to 0..1, per channel. ``target_mean`` and ``target_std``: of a
    regression's values, in their unit: the network gives deviations, the device turns them back (none: those of the
    train rows; of an imported model 0 and 1). ``shares``: of the sources in each split,
    ``{train, calibration, gate, reference}``, sum 1 (none: what the data set recommends). ``front_end``: what makes an
    image of raw sensor bytes (``log_mel``, ``mfcc``, ``window``); ``options``: its numbers, and the data set's own.
    ``orientation`` (``exif``: images are turned upright as their tag says; ``stored``: the tag is ignored) and
    ``decode`` (``reduced``: large ones are decoded at a fraction of their size; ``full``) go into the manifest, so that
    the device decodes as the build host did; sensor bytes have neither.
    ``needs``: of a recipe without a path, one sentence that says what to pass with ``--data`` and where it comes from;
    ``stand_in``: a file of ``compressor/stand_ins`` that generates data in its place for ``--quick``. Neither is a part
    of what a model is made from.
    """

    dataset: str = "digits"
    path: str = ""
    slices: str = ""
    split: str = ""
    train_slices: tuple[str, ...] = ()
    label: str = "exact"
    width: int = 32
    height: int = 32
    colour: str = "rgb"
    orientation: str = "exif"
    decode: str = "reduced"
    allow_corrupt: int = 0
    mean: float = 0.5
    std: float = 0.25
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    shares: Mapping[str, int | float] = field(default_factory=dict)
    front_end: str = ""
    options: Mapping[str, int | float] = field(default_factory=dict)
    needs: str = field(default="", repr=False)
    stand_in: str = field(default="", repr=False)

    @property
    def generated(self) -> bool:
        """Whether the data is the stand-in, generated in the place of what the recipe needs."""
        return bool(self.stand_in and self.path)

    @property
    def channels(self) -> int:
        """The channels of the input tensor."""
        return 3 if self.colour == "rgb" else 1

    def preprocessing(self, layout: str = "NCHW") -> Preprocessing:
        """Return how an image becomes the input tensor in ``layout``, as the manifest carries it.

        Raises:
            DataError: If the data set knows no such front end, or an option is unknown or out of range.
        """
        channels = self.channels
        return Preprocessing(
            width=self.width,
            height=self.height,
            colour=self.colour,
            mean=(self.mean,) * channels,
            std=(self.std,) * channels,
            layout=layout,
            orientation=ORIENTATIONS[0] if self.front_end else self.orientation,
            decode=DECODES[0] if self.front_end else self.decode,
            front_end=self.front_end,
            front_end_options=self._front_end_options() if self.front_end else {},
        )

    def _front_end_options(self) -> dict[str, float]:
        """Return every option of the front end, written out: a later default then alters no old bundle."""
        from compressor.data import _front_end, datasets  # noqa: PLC0415 - data sets read recipes

        name = f"{self.dataset.partition(':')[0]}:front_end" if ":" in self.dataset else self.dataset
        try:
            asked = registry.resolve("compressor.data", name, "front_end", known=datasets())
            options = cast("tuple[str, dict[str, float]]", asked(self))[1]
        except PluginError:  # the data set doesn't say: what the front end lacks (numbered or not) is the data set's
            known, given = _front_end.completed(self.front_end, {}), _front_end.options_of(self)
            own = {key: value for key, value in given.items() if key in known or key.rstrip("0123456789_") in known}
            options = _front_end.completed(self.front_end, own)
        return {key: float(options[key]) for key in sorted(options)}


@dataclass(frozen=True, slots=True)
class TrainRecipe:
    """``[train]``. ``fine_tune_*`` hold when training starts from a checkpoint.

    ``augment``: strength of the random geometry and light, 0 (none) to 2; 1 is a mild default.
    ``schedule``: of the learning rate: ``one_cycle``, ``cosine``, ``step`` (a tenth from 1/2 and 3/4 on) or
    ``constant``. ``warm_up_epochs``: in which the rate rises to its peak (0: none; ``one_cycle`` then keeps its own
    quarter). ``early_stopping``: epochs without improvement on the search rows after which training ends with its
    best weights, 0 off. ``ema``: decay of the averaged weights that are kept, 0 off. ``mixup`` and ``cutmix``: alpha
    of the Beta distribution that mixes pairs of inputs, 0 off. ``class_weights``: ``none`` or ``balanced``.
    ``processes``: that share each batch on this host. ``loss``: of a regression, on errors in standard deviations of
    the targets: ``huber`` (the default, quadratic up to 1) or ``mse``; ``label_smoothing`` and ``class_weights`` are
    for classes alone.
    """

    epochs: int = 12
    seed: int = 0
    batch: int = 64
    learning_rate: float = 0.005
    augment: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    fine_tune_epochs: int = 5
    fine_tune_learning_rate: float = 0.002
    schedule: str = "one_cycle"
    warm_up_epochs: int = 0
    early_stopping: int = 0
    ema: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weights: str = "none"
    processes: int = 1
    loss: str = ""

    def for_fine_tuning(self) -> TrainRecipe:
        """Return the settings of a training that starts from a checkpoint."""
        return replace(self, epochs=self.fine_tune_epochs, learning_rate=self.fine_tune_learning_rate)


@dataclass(frozen=True, slots=True)
class TargetRecipe:
    """``[targets.NAME]``: where the artifact runs.

    ``format``: ``ort`` gives an ONNX target onnxruntime's own format, which small devices load without its parser.
    """

    name: str
    runtime: str = "onnx"
    cpu: str = "x86_64"
    threads: int = 1
    format: str = ""


@dataclass(frozen=True, slots=True)
class AcceptanceRecipe:
    """``[acceptance]``: what a device must confirm of a release before it keeps it; the budgets of the manifest.

    ``golden_tolerance``: how far a device's answers to the golden inputs may be from this host's, as a share of the
    largest logit (of a regression: of the values' range). int8 kernels of other processors round differently.
    ``latency_slack``: how many times slower than the gate ``latency_p95_ms`` (or than measured here) a device may be:
    it does other work too. ``min_latency_budget_ms``: a tighter budget would measure how busy a device is.
    """

    golden_tolerance: float = 0.05
    latency_slack: float = 4.0
    min_latency_budget_ms: float = 50.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """The whole recipe. ``folder`` is where it was read from: relative paths start there.

    ``acceptance`` stands in no ``repr``: the digest of a recipe that leaves it out is what it was before there was
    such a table (``bundling.lineage_of`` adds it where it differs).
    """

    model: ModelRecipe
    data: DataRecipe
    train: TrainRecipe
    compress: tuple[StepSettings, ...]
    targets: tuple[TargetRecipe, ...]
    gates: tuple[GateRecipe, ...]
    folder: Path = Path()
    acceptance: AcceptanceRecipe = field(default_factory=AcceptanceRecipe, repr=False)

    @property
    def regression(self) -> bool:
        """Whether numbers are predicted, not classes."""
        return self.data.label == NUMBER

    @property
    def network_steps(self) -> tuple[StepSettings, ...]:
        """The steps before the export, in order."""
        return tuple(step for step in self.compress if steps.level(step) == steps.NETWORK)

    @property
    def chooses(self) -> bool:
        """Whether anything in the recipe makes a choice that search rows must judge."""
        rescues = any(isinstance(step, QuantizeRecipe) and step.rescue for step in self.compress)
        return bool(self.network_steps or self.train.early_stopping or rescues)

    @property
    def plugins(self) -> tuple[str, ...]:
        """The modules of all plug-ins that a run of the recipe loads by name: no import statement shows them."""
        found = {plugin("compressor.networks", self.model.network), plugin("compressor.data", self.data.dataset)}
        found |= {plugin("edge_agent.runtimes", name) for name in ("onnx", *(item.runtime for item in self.targets))}
        found |= {plugin("compressor.steps", step.step) for step in self.compress}
        quantizers = [step for step in self.compress if isinstance(step, QuantizeRecipe)]
        found |= {plugin("compressor.quantize", step.scheme) for step in quantizers}
        if any(step.rescue for step in quantizers):  # a rung may be any scheme
            found.update(package("compressor.quantize"))
        if self.data.front_end:
            found.add(plugin("edge_agent.front_ends", self.data.front_end))
        return tuple(sorted(found))

    def with_data(self, path: Path | None) -> Recipe:
        """Return the recipe with the data at ``path`` in the place of its own, or as it is where none is given.

        Raises:
            DataError: If nothing is there.
        """
        if path is None:
            return self
        if not path.exists():
            message = f"Expected data at {path}, got nothing there: give --data the zip or folder"
            raise DataError(message)
        return replace(self, data=replace(self.data, path=str(path.resolve()), stand_in=""))

    def artifact_steps(self, target: str) -> tuple[QuantizeRecipe, ...]:
        """Return the steps after the export that hold for ``target``, in order."""
        found = (step for step in self.compress if isinstance(step, QuantizeRecipe))
        return tuple(step for step in found if step.on in {"", target})


DEFAULT_STEPS = [{"step": "quantize"}]
_TABLES = ("model", "data", "train", "compress", "targets", "gates", "acceptance")


def read_recipe(path: Path | str) -> Recipe:
    """Return the recipe in the file at ``path`` (or ``recipe.toml`` in the folder at ``path``).

    Raises:
        RecipeError: If it can't be read, or has an unknown key, a wrong type or a value out of range.
    """
    file = Path(path) / "recipe.toml" if Path(path).is_dir() else Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        message = f"Expected a recipe at {file}, got: {error.strerror}"
        raise RecipeError(message) from error
    recipe = parse_recipe(data, str(file))
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


def parse_recipe(data: bytes, name: str = "recipe") -> Recipe:
    """Return the recipe in ``data``; ``name`` is the file's, for messages.

    Raises:
        RecipeError: As ``read_recipe``.
    """
    if len(data) > MAX_RECIPE_BYTES:
        message = f"{name}: Expected at most {MAX_RECIPE_BYTES} bytes, got {len(data)}"
        raise RecipeError(message)
    try:
        return recipe_of(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{name}: Expected TOML, got: {error}"
        raise RecipeError(message) from error
    except RecipeError as error:
        message = f"{name}: {error}"
        raise RecipeError(message) from error


def recipe_of(document: Mapping[str, object]) -> Recipe:
    """Return the recipe in ``document``, the tables of a recipe's file as Python values.

    Raises:
        RecipeError: If there is an unknown key, a wrong type or a value out of range.
    """
    for key in document:
        if key not in _TABLES:
            message = f"Expected one of the tables {', '.join(_TABLES)}, got [{key}]{nearest(key, _TABLES)}"
            raise RecipeError(message)
    targets = plain_table(document.get("targets", {"host": {}}), "[targets]")
    recipe = Recipe(
        model=fields_from(ModelRecipe, document.get("model", {}), "[model]"),
        data=fields_from(DataRecipe, document.get("data", {}), "[data]"),
        train=fields_from(TrainRecipe, document.get("train", {}), "[train]"),
        compress=_steps(document.get("compress", DEFAULT_STEPS if not _finished(document) else [])),
        targets=tuple(
            fields_from(TargetRecipe, table, f"[targets.{name}]", given={"name": name})
            for name, table in targets.items()
        ),
        gates=_gates(plain_table(document.get("gates", {}), "[gates]")),
        acceptance=fields_from(AcceptanceRecipe, document.get("acceptance", {}), "[acceptance]"),
    )
    check_recipe(recipe)
    check_unread(recipe)
    return recipe


def _finished(document: Mapping[str, object]) -> bool:
    """Return whether the recipe brings a TFLite file: nothing is left to compress."""
    model = document.get("model")
    return isinstance(model, dict) and bool(model.get("tflite"))


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
        settings: StepSettings = fields_from(steps.module(step).Settings, table, where)
        if found and steps.level(found[-1]) == steps.ARTIFACT and steps.level(settings) == steps.NETWORK:
            message = f"Expected {where}, {step!r}, before the export, got it after {found[-1].step!r}: move it up"
            raise RecipeError(message)
        found.append(settings)
    return tuple(found)


def _gates(table: Mapping[str, object]) -> tuple[GateRecipe, ...]:
    gates = []
    for name, limits in table.items():
        if name in RENAMED:
            message = f"Expected in [gates] {RENAMED[name]}, as this gate is called now, got {name!r}: rename the key"
            raise RecipeError(message)
        if name not in GATE_NAMES:
            message = f"Expected in [gates] one of {', '.join(GATE_NAMES)}, got {name!r}{nearest(name, GATE_NAMES)}"
            raise RecipeError(message)
        gate = fields_from(GateRecipe, limits, f"[gates] {name}", given={"name": name})
        given, wanted = [limit for limit in ("max", "min") if getattr(gate, limit) is not None], limits_of(name)
        if len(given) != 1 or given[0] not in wanted:
            got = dict(plain_table(limits, name))
            message = f"Expected in [gates] {name} {' or '.join(wanted)}, as {{{wanted[0]} = 0.01}}, got {got}"
            raise RecipeError(message)
        if not math.isfinite(limit := cast("float", getattr(gate, given[0]))):
            message = f"Expected in [gates] {name} {given[0]} a finite number, got {limit}"
            raise RecipeError(message)
        gates.append(gate)
    return tuple(gates)
