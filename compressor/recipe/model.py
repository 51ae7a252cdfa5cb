"""A recipe: all inputs of a run. Data only; ``read`` decides what a file may contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, TypeAlias

from compressor.errors import DataError
from compressor.gates.evidence import GateRecipe
from compressor.steps._settings import Settings as StepSettings
from wire.manifest import BITS, COLOURS, DECODES, MAX_IMAGE_SIDE, ORIENTATIONS, RESAMPLES, RESIZES
from wire.settings import Bound, OneOf, is_given

UNLABELLED = "unlabelled"
"""The data set whose rows have no labels."""
LOGITS, PROBABILITIES = "logits", "probabilities"
RECONSTRUCTION, FORECAST, EMBEDDING, SCORE = "reconstruction", "forecast", "embedding", "score"
OF_CLASSES = (LOGITS, PROBABILITIES)
FITTED = (EMBEDDING, *OF_CLASSES)
"""Outputs of a file for anomalies of which normal rows are learned: where their embeddings lie."""
SEPARATOR = "|"
"""Between the labels of a row, if a recipe names none."""
_LARGE = 2**31
DEFAULT_STEPS = [{"step": "quantize"}]
"""``[[compress]]`` of a recipe that does not write it."""

_LATER: Mapping[str, bool] = {"later": True}
"""Of a field that an older recipe does not have: it is in the ``repr``, and so in digests, only where it is given."""

Mean: TypeAlias = Annotated[float, Bound(-1e5, 1e5)]
Spread: TypeAlias = Annotated[float, Bound(1e-6, 1e5)]
Side: TypeAlias = Annotated[int, Bound(1, MAX_IMAGE_SIDE)]
Epochs: TypeAlias = Annotated[int, Bound(1, 10_000)]
Rate: TypeAlias = Annotated[float, Bound(1e-8, 10)]
Strength: TypeAlias = Annotated[float, Bound(0, 10)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe:
    """``[model]``: the model to build. ``network_options`` are passed to the network's ``build`` by name.

    A person's own model is given in one of three ways: ``checkpoint`` (weights for ``network``; skips training),
    ``onnx`` (steps after training, gates and bundle) or ``tflite`` (gates and bundle), each a path relative to the
    recipe.

    ``teacher``: an ONNX file that ``distill`` and ``qat`` learn from, instead of the network as it was trained.

    ``outputs``: what an imported file's outputs are, if they don't tell: ``logits``, or ``probabilities`` that need not
    sum to 1 (a sigmoid). In a recipe of anomalies a ``reconstruction`` of the input, a ``forecast`` of its last rows, a
    ``score``, or an ``embedding`` whose distance from normal ones is the score; of ``logits`` or ``probabilities`` it
    is the input of the last layer. Not in the ``repr`` either.

    ``constants``: values of the further inputs of an ``onnx`` file, by name: a number fills the input, a list has one
    number a value. Not in the ``repr``, like ``Recipe.acceptance``: code that digests a recipe adds it if it is given.

    ``allow_constant``: the reason why the model need not beat a constant answer, nor its labels be in the best-fitting
    order; empty: it must.

    ``security_floor``: a device that committed this release refuses releases with a lower floor from then on. Raise it
    only if earlier releases are not safe to run; a rollback to an equal floor stays possible.
    """

    name: str
    network: str = "resnet8"
    version: Annotated[int, Bound(1, _LARGE)] = 1
    security_floor: Annotated[int, Bound(0, _LARGE)] = 0
    labels: tuple[str, ...] = ()
    network_options: Mapping[str, int | float] = field(default_factory=dict)
    checkpoint: str = ""
    onnx: str = ""
    tflite: str = ""
    constants: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict, repr=False)
    allow_constant: str = ""
    teacher: str = field(default="", repr=False)
    outputs: Annotated[str, OneOf(("", *OF_CLASSES, RECONSTRUCTION, FORECAST, EMBEDDING, SCORE))] = field(
        default="", repr=False
    )

    @property
    def architecture(self) -> str:
        """The model in a few words: its network, or the kind of its file."""
        return "model from an ONNX file" if self.onnx else "model from a TFLite file" if self.tflite else self.network

    @property
    def imported(self) -> str:
        """The exported file that replaces a network, or empty."""
        return self.onnx or self.tflite


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """``[data]``: the data to learn from, and how an image becomes an input.

    ``slices``: the CSV column for per-slice gates. ``split``: the CSV column with each row's split (``train``,
    ``calibration``, ``gate``, ``reference``, or empty: drawn). ``train_slices``: the only slices used for training,
    calibration, gate and reference (empty: all). Slices that one of both names are contexts of the drift reference.
    ``label``: ``exact`` (each label is a class), ``floor`` (3.7 is class 3) or ``number`` (3.7 is a value to predict: a
    regression). ``allow_corrupt``: how many broken images may be left out. ``scale``: a pixel's value is multiplied by
    it (None: its largest value becomes 1). ``mean`` and ``std``: of the result, one number or one for each channel in
    the order of ``colour``. ``resize``, ``resize_to``, ``resample``, ``antialias``, ``fill`` and ``bits``: as in the
    manifest's ``Preprocessing``. ``target_mean`` and ``target_std``: of a
    regression's values, in their unit: the network outputs deviations, the device converts them back (empty: those of
    the train rows; for an imported model 0 and 1). ``shares``: of the sources in each split,
    ``{train, calibration, gate, reference}``, sum 1 (empty: the data set's recommendation). ``front_end``: converts raw
    sensor bytes to an image (``log_mel``, ``mfcc``, ``window``); ``options``: its numbers, and the data set's own.
    ``orientation`` (``exif``: images are rotated according to their tag; ``stored``: the tag is ignored) and ``decode``
    (``reduced``: large images are decoded at a fraction of their size; ``full``) are stored in the manifest, so that
    the device decodes like the build host; they do not apply to sensor bytes.
    ``task``: what is predicted, a name for ``compressor.tasks``, or ``module:attribute`` (empty: determined by
    ``label``). ``needs``: for a recipe without a path, one sentence that says what to pass with ``--data`` and where it
    comes from; ``stand_in``: a file of ``compressor/stand_ins`` that generates replacement data for ``--quick``.
    Neither is an input of the model; a ``task`` is, and code that digests a recipe adds it if there is one.
    ``columns``: the names that a table has for the columns that the data set wants, such as ``{path = "file"}``; like
    ``task``, digested if it is given.
    ``normal``: of anomalies, the labels of normal rows.
    ``separator``: what stands between the labels of a row, of a recipe of several labels (empty: ``|``).
    ``label_columns``: of several labels, the columns of a table that are labels, with 0 or 1 in each row (empty: the
    column ``label`` has them as text).
    ``ignore``: columns of a table of features that are not read, such as an id.
    ``missing``: what becomes of a row of features without one of its numbers: ``error``, or ``drop``: it is left out.
    ``calibration``: the path of an array (``.npy``) whose inputs set the ranges of a quantization, instead of the
    calibration split.
    ``near_copies``: pictures that look alike and have no source count as one source (``one_source``), also over the
    splits that the data set tells, which is an error; ``as_told``: in two told splits they stay apart.
    ``unlabelled``: the path of inputs without labels. Alone, reading a recipe replaces it by the data set
    ``unlabelled`` with this path; beside labelled rows, step ``distill`` learns from them too.
    """

    dataset: str = "digits"
    path: str = ""
    slices: str = ""
    split: str = ""
    train_slices: tuple[str, ...] = ()
    label: Annotated[str, OneOf(("exact", "floor", "number"))] = "exact"
    width: Side = 32
    height: Side = 32
    colour: Annotated[str, OneOf(tuple(COLOURS))] = "rgb"
    orientation: Annotated[str, OneOf(ORIENTATIONS)] = "exif"
    decode: Annotated[str, OneOf(DECODES)] = "reduced"
    allow_corrupt: Annotated[int, Bound(0, _LARGE)] = 0
    mean: Mean | tuple[Mean, ...] = 0.5
    std: Spread | tuple[Spread, ...] = 0.25
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    shares: Mapping[str, int | float] = field(default_factory=dict)
    front_end: str = ""
    options: Mapping[str, int | float] = field(default_factory=dict)
    task: str = field(default="", repr=False)
    needs: str = field(default="", repr=False)
    stand_in: str = field(default="", repr=False)
    columns: Mapping[str, str] = field(default_factory=dict, repr=False)
    scale: Annotated[float, Bound(0, 1e3, above=True)] | None = field(default=None, metadata=_LATER)
    resize: Annotated[str, OneOf(RESIZES)] = field(default=RESIZES[0], metadata=_LATER)
    resize_to: Annotated[int, Bound(0, MAX_IMAGE_SIDE)] = field(default=0, metadata=_LATER)
    resample: Annotated[str, OneOf(RESAMPLES)] = field(default="bilinear", metadata=_LATER)
    antialias: bool = field(default=True, metadata=_LATER)
    fill: Annotated[int, Bound(0, 65_535)] = field(default=0, metadata=_LATER)
    normal: tuple[str, ...] = field(default=("normal",), metadata=_LATER)
    unlabelled: str = field(default="", repr=False)
    bits: int = field(default=BITS[0], metadata=_LATER)
    separator: str = field(default="", metadata=_LATER)
    calibration: str = field(default="", metadata=_LATER)
    label_columns: tuple[str, ...] = field(default=(), metadata=_LATER)
    ignore: tuple[str, ...] = field(default=(), metadata=_LATER)
    missing: Annotated[str, OneOf(("error", "drop"))] = field(default="error", metadata=_LATER)
    near_copies: Annotated[str, OneOf(("one_source", "as_told"))] = field(default="one_source", metadata=_LATER)

    def __repr__(self) -> str:
        """Return all fields by name; later ones only where they are given, so that older recipes keep their digests."""
        shown = [
            one.name for one in fields(self) if one.repr and (not one.metadata.get("later") or is_given(self, one.name))
        ]
        return f"DataRecipe({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def labelled(self) -> bool:
        """Whether the rows have labels."""
        return self.dataset != UNLABELLED

    @property
    def generated(self) -> bool:
        """Whether the data is the stand-in, generated instead of the data that the recipe needs."""
        return bool(self.stand_in and self.path)

    @property
    def channels(self) -> int:
        """The channels of the input tensor."""
        return COLOURS.get(self.colour, 3)

    @property
    def pixel_scale(self) -> float:
        """The factor of a pixel's value."""
        return 1 / self.most if self.scale is None else self.scale

    @property
    def most(self) -> int:
        """The largest value of a pixel."""
        return int(2**self.bits - 1)

    def per_channel(self, name: str) -> tuple[float, ...]:
        """Return ``mean`` or ``std`` as one number for each channel; a list is returned as it is."""
        value: float | tuple[float, ...] = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """``[train]``. ``fine_tune_*`` apply when training starts from a checkpoint.

    ``augment``: strength of random geometry and brightness, 0 (none) to 2; 1 is a mild default. ``schedule``: of the
    learning rate: ``one_cycle``, ``cosine``, ``step`` (a tenth from 1/2 and 3/4 on) or ``constant``.
    ``warm_up_epochs``: during which the rate rises to its peak (0: none; ``one_cycle`` then uses its own quarter).
    ``early_stopping``: epochs without improvement on the search rows after which training ends with its best weights, 0
    off. ``ema``: decay of the averaged weights, 0 off. ``mixup`` and ``cutmix``: alpha of the Beta distribution that
    mixes pairs of inputs, 0 off. ``class_weights``: ``none`` or ``balanced``. ``processes``: number that share each
    batch on this host. ``loss``: for a regression, on errors in standard deviations of the targets: ``huber`` (the
    default, quadratic up to 1) or ``mse``; ``label_smoothing`` and ``class_weights`` are only for classes.
    ``fine_tune_layers``: which layers a fine-tuning changes: ``all``, or the ``head`` alone, those after the embedding.
    The body then stays as it is, and so do its scales, because calibration sees no drifted samples: a patch from the
    release before is a few percent of the bundle. ``flips``: of a detection, which mirrored pictures are learnt from,
    too: ``none``, ``horizontal``, or ``both`` (vertical ones as well), where a mirrored object is still one. These two
    are not in the ``repr``, like ``Recipe.acceptance``: code that digests them adds them if they are not the default.
    """

    epochs: Epochs = 12
    seed: Annotated[int, Bound(0, _LARGE)] = 0
    batch: Annotated[int, Bound(2, 65_536)] = 64
    learning_rate: Rate = 0.005
    augment: Annotated[float, Bound(0, 2)] = 1.0
    optimizer: Annotated[str, OneOf(("adamw", "sgd"))] = "adamw"
    weight_decay: Strength = 0.01
    label_smoothing: Annotated[float, Bound(0, 0.99)] = 0.05
    fine_tune_epochs: Epochs = 5
    fine_tune_learning_rate: Rate = 0.002
    schedule: Annotated[str, OneOf(("one_cycle", "cosine", "step", "constant"))] = "one_cycle"
    warm_up_epochs: int = 0
    early_stopping: Annotated[int, Bound(0, 10_000)] = 0
    ema: Annotated[float, Bound(0, 0.99999)] = 0.0
    mixup: Strength = 0.0
    cutmix: Strength = 0.0
    class_weights: Annotated[str, OneOf(("none", "balanced"))] = "none"
    processes: Annotated[int, Bound(1, 256)] = 1
    loss: str = ""
    fine_tune_layers: Annotated[str, OneOf(("all", "head"))] = field(default="all", repr=False)
    flips: Annotated[str, OneOf(("none", "horizontal", "both"))] = field(default="none", repr=False)

    def for_fine_tuning(self) -> TrainRecipe:
        """Return the settings of a training that starts from a checkpoint."""
        return replace(self, epochs=self.fine_tune_epochs, learning_rate=self.fine_tune_learning_rate)

    @property
    def keeps_body(self) -> bool:
        """Whether a fine-tuning changes only the head."""
        return self.fine_tune_layers == "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRecipe:
    """``[targets.NAME]``: where the artifact runs.

    ``format``: ``ort`` gives an ONNX target onnxruntime's own format, which small devices load without its parser.
    """

    name: str
    runtime: str = "onnx"
    cpu: str = "x86_64"
    threads: Annotated[int, Bound(1, 256)] = 1
    format: str = ""


@dataclass(frozen=True, slots=True)
class AcceptanceRecipe:
    """``[acceptance]``: what a device must confirm before it keeps a release; the budgets of the manifest.

    ``golden_tolerance``: how far a device's answers to the golden inputs may differ from this host's, as a share of the
    largest logit (for a regression: of the values' range); int8 kernels of other processors round differently.
    ``latency_slack``: how many times slower than the gate ``latency_p95_ms`` (or than measured here) a device may be:
    it also does other work. ``min_latency_budget_ms``: a smaller budget would measure how busy a device is.
    """

    golden_tolerance: Annotated[float, Bound(0, 1)] = 0.05
    latency_slack: Annotated[float, Bound(1, 1000)] = 4.0
    min_latency_budget_ms: Annotated[float, Bound(1, 60_000)] = 50.0


@dataclass(frozen=True, slots=True)
class SmoothingRecipe:
    """``[smoothing]``: answers of a stream are made from several inputs, on the device and in the gates alike.

    ``kind``: a file of ``edge_agent/smoothers``; empty: each input is answered alone. The other keys are its own
    (``options``). ``interval_ms``: of the gates only: the time between neighbouring rows of a source (a recording).
    """

    kind: str = ""
    interval_ms: Annotated[int, Bound(0, 86_400_000)] = 1000
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DecoderRecipe:
    """``[decoder]``: how the outputs of an imported detector become boxes, on the device and in the gates alike.

    ``kind``: a file of ``edge_agent/decoders``; empty: a network of this project, which names its own. The other keys
    are the decoder's own (``options``).
    """

    kind: str = ""
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRecipe:
    """``[alarm]``: of anomalies, how many false alarms are allowed; the threshold follows from normal calibration rows.

    ``false_alarms_per_day``: at most so many events a day. ``interval_s``: the time between neighbouring rows of a
    source, and between two inputs of a device. ``gap_s``: alarms at most so far apart are one event (neighbours are
    always). ``confidence``: with which the threshold holds its rate, over the draw of the calibration rows.
    """

    false_alarms_per_day: Annotated[float, Bound(0, 86_400, above=True)] = 1.0
    interval_s: Annotated[float, Bound(0.001, 86_400)] = 60.0
    gap_s: Annotated[float, Bound(0, 86_400)] = 0.0
    confidence: Annotated[float, Bound(0.5, 0.9999)] = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The whole recipe. ``folder`` is where it was read from, the base of relative paths.

    ``acceptance``, ``smoothing``, ``alarm`` and ``decoder`` are not in the ``repr``, so that the digest of a recipe
    without these tables is the same as before they existed (``run.bundles.lineage_of`` adds what differs from the
    default). ``written``: the keys of ``[data]`` that the recipe's text has, also those at their defaults; it changes
    nothing that is made.
    """

    model: ModelRecipe
    data: DataRecipe
    train: TrainRecipe
    compress: tuple[StepSettings, ...]
    targets: tuple[TargetRecipe, ...]
    gates: tuple[GateRecipe, ...]
    folder: Path = Path()
    acceptance: AcceptanceRecipe = field(default_factory=AcceptanceRecipe, repr=False)
    smoothing: SmoothingRecipe = field(default_factory=SmoothingRecipe, repr=False)
    alarm: AlarmRecipe = field(default_factory=AlarmRecipe, repr=False)
    decoder: DecoderRecipe = field(default_factory=DecoderRecipe, repr=False)
    written: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def states(self, key: str) -> bool:
        """Return whether somebody has written ``key`` of ``[data]``, be it at its default."""
        return key in self.written or is_given(self.data, key)

    def with_data(self, path: Path | None) -> Recipe:
        """Return the recipe with the data at ``path`` instead of its own, or unchanged if ``path`` is None.

        Raises:
            DataError: If ``path`` does not exist.
        """
        if path is None:
            return self
        if not path.exists():
            message = f"Expected data at {path}, got nothing there: give --data the zip or folder"
            raise DataError(message)
        return replace(self, data=replace(self.data, path=str(path.resolve()), stand_in=""))
