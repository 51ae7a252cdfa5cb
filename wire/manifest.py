"""The manifest of a bundle: the model, its input and output tensors, and how to run it.

A manifest contains no timestamps: the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wire.codec import OMIT_DEFAULT, Json, from_document, parse_json
from wire.errors import ManifestError, MessageError

MAX_MANIFEST_BYTES = 256 * 1024
MAX_IMAGE_SIDE = 4096
ORIENTATIONS = ("stored", "exif")
DECODES = ("full", "reduced")
LETTERBOX = "letterbox"
RESIZES = ("stretch", "centre_crop", LETTERBOX)
BITS = (8, 16)
"""The first of each is the default of a manifest that does not name one."""
COLOURS = {"rgb": 3, "bgr": 3, "grey": 1}
"""The channels of each."""
RESAMPLES = ("nearest", "bilinear", "bicubic", "box", "lanczos")
UNFILTERED = "bilinear"
"""The one that ``antialias`` false is about; ``nearest`` never filters."""
SCHEMA_PLAIN, SCHEMA_DECODING, SCHEMA_TASK, SCHEMA_SMOOTHING, SCHEMA_RESIZING, SCHEMA_BOXES = 1, 2, 3, 4, 5, 6
_OLD_COLOURS, _OLD_RESAMPLES = ("rgb", "grey"), ("nearest", "bilinear")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output. ``shape`` has -1 for the batch; ``scale``/``zero_point`` are 0 for float tensors.

    A numeric output has ``mean`` and ``spread``, one of each per value: the value in its own unit is
    ``value * spread + mean``, after ``scale`` and ``zero_point``; both are empty if it needs no conversion. ``meaning``
    is ``probability`` if an output holds class probabilities instead of logits, ``sigmoid`` if each of its values is
    the probability of a label of its own.
    """

    name: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    layout: str = ""
    scale: float = 0.0
    zero_point: int = 0
    mean: tuple[float, ...] = field(default=(), metadata=OMIT_DEFAULT)
    spread: tuple[float, ...] = field(default=(), metadata=OMIT_DEFAULT)
    meaning: str = field(default="", metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From a decoded image, uint8 (H, W, 3), or uint16 (H, W, 1) with 16 ``bits``, to the input tensor.

    Convert to ``colour`` (a key of ``COLOURS``), resize to ``width`` x ``height`` pixels, multiply by ``scale``, then
    subtract ``mean`` and divide by ``std`` per channel; lay out as ``layout``. Both are in the order of the input's
    channels.

    ``resize``: ``stretch`` to both sides; ``centre_crop``: scale until the shorter side has ``resize_to`` pixels (0:
    until the image just covers the input) and take the middle; ``letterbox``: scale until the image just fits, and
    fill the rest, half on either side, with pixels of value ``fill``. ``resample``: one of ``RESAMPLES``, as PIL
    computes it, filtered against aliasing where it reduces; ``antialias`` false: bilinear between the four nearest
    pixels. ``bits``: of a pixel's value. A manifest with a value of one of these five that a reader of schema 4 does
    not know has schema 5.

    Before that: ``front_end`` is the file of ``edge_agent/front_ends`` that makes the image from raw sensor bytes, with
    its options by name; empty: the bytes are an encoded image. ``front_end_columns``: the names of the columns of
    numbers that it reads, in the order of the training data, if that named them: a table with a header is read by
    these names. ``orientation``: ``exif`` rotates an image according to
    its Exif orientation, ``stored`` ignores the tag. ``decode``: ``reduced`` decodes at an eighth, a quarter or half of
    the size, but no less than twice that of the resized image, and rejects transparent pixels and animations; ``full``
    decodes at full size, drops an alpha channel and takes the first frame of an animation. A manifest with a
    non-default value of one of these two has at least schema 2.
    """

    width: int = 0
    height: int = 0
    colour: str = "rgb"
    resample: str = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str = "NCHW"
    orientation: str = field(default=ORIENTATIONS[0], metadata=OMIT_DEFAULT)
    decode: str = field(default=DECODES[0], metadata=OMIT_DEFAULT)
    front_end: str = field(default="", metadata=OMIT_DEFAULT)
    front_end_options: Mapping[str, float] = field(default_factory=dict, metadata=OMIT_DEFAULT)
    front_end_columns: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)
    resize: str = field(default=RESIZES[0], metadata=OMIT_DEFAULT)
    resize_to: int = field(default=0, metadata=OMIT_DEFAULT)
    fill: int = field(default=0, metadata=OMIT_DEFAULT)
    antialias: bool = field(default=True, metadata=OMIT_DEFAULT)
    bits: int = field(default=BITS[0], metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """The channels of the input; 3 of a colour that is not known."""
        return COLOURS.get(self.colour, 3)

    @property
    def deep(self) -> bool:
        """Whether the images have 16 bits."""
        return self.bits != BITS[0]

    @property
    def schema(self) -> int:
        """The schema of a manifest with this preprocessing.

        A reader of schema 1 ignores ``orientation`` and ``decode``, so it must reject a model that was gated with them;
        so must one of schema 4 with what it would compute otherwise.
        """
        later = (self.resize, self.resize_to, self.fill, self.antialias, self.bits) != (RESIZES[0], 0, 0, True, BITS[0])
        if later or self.colour not in _OLD_COLOURS or self.resample not in _OLD_RESAMPLES:
            return SCHEMA_RESIZING
        told = (self.orientation, self.decode) != (ORIENTATIONS[0], DECODES[0])
        return SCHEMA_DECODING if told else SCHEMA_PLAIN

    def problem(self) -> str:
        """Return why no reader can compute an input as described, as a sentence; empty if one can."""
        chosen = (("orientation", ORIENTATIONS), ("decode", DECODES), ("colour", tuple(COLOURS)),
                  ("resample", RESAMPLES), ("resize", RESIZES), ("bits", BITS))  # fmt: skip
        for name, known in chosen:
            value = getattr(self, name)
            if value not in known:
                wanted = f"a preprocessing with {name} of {', '.join(map(str, known))}"
                return f"Expected {wanted}, got {value!r}: update the agent"
        if not (0 < self.width <= MAX_IMAGE_SIDE and 0 < self.height <= MAX_IMAGE_SIDE):
            return f"Expected an image of 1 to {MAX_IMAGE_SIDE} pixels a side, got {self.width}x{self.height}"
        least = max(self.width, self.height)
        if self.resize_to and (self.resize != "centre_crop" or not least <= self.resize_to <= MAX_IMAGE_SIDE):
            wanted = f"resize_to of {least} to {MAX_IMAGE_SIDE} pixels with resize = 'centre_crop'"
            return f"Expected {wanted}, got {self.resize_to} with {self.resize!r}"
        most = 2**self.bits - 1 if self.resize == "letterbox" else 0
        if not 0 <= self.fill <= most:
            return f"Expected a fill of 0 to {most} with resize = {self.resize!r}, got {self.fill}"
        if not self.antialias and self.resample != UNFILTERED:
            return f"Expected antialias = false only with resample = {UNFILTERED!r}, got {self.resample!r}"
        return self._problem_of_numbers()

    def _problem_of_numbers(self) -> str:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in {0, 1, self.channels}:
                return f"Expected a {name} of 0, 1 or {self.channels} values per channel, got {len(values)}"
        if not all(value > 0 for value in self.std):
            return f"Expected standard deviations above 0, got {list(self.std)}"
        if not self.scale > 0:
            return f"Expected a scale above 0, got {self.scale}"
        if self.deep and (self.colour != "grey" or self.front_end):
            got = f"{self.colour!r} {self.front_end!r}".replace(" ''", "")
            return f"Expected images of {self.bits} bits in grey and without a front end, got {got}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Limits that the device's own probe must confirm; 0 means no limit."""

    latency_p95_ms: float = 0.0
    peak_memory_bytes: int = 0
    golden_max_abs: float = 1e-3
    golden_max_flips: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole manifest. ``files`` maps all other entries of the bundle to their SHA-256.

    ``outputs[0]`` holds the logits, (N, classes), or for a regression the values, (N, D), named in ``values``
    (``labels`` is then empty); an output named ``embedding`` feeds the projections.
    ``task``: a task other than these two, which the device must have installed. A manifest that names one has at least
    schema 3, so that an agent without tasks rejects it.
    ``smoothing``: the file of ``edge_agent/smoothers`` that makes the answers of a stream from the outputs of several
    inputs, with its options by name; empty: each input is answered alone. A manifest that names one has at least
    schema 4. ``stream_interval_ms``: the time between neighbouring inputs of a stream for which it was judged, where
    the inputs are windows cut of a stream; 0: not stated.
    ``decoder``: the file of ``edge_agent/decoders`` that makes boxes of the outputs, with its options by name; empty:
    the outputs are used as they are. A manifest that names one has at least schema 6.
    ``thresholds``: of a task whose outputs are labels of their own, the probability from which each is in the answer.
    ``session_options`` are runtime settings as text (onnxruntime: config entries by their own name).
    """

    schema: int = 1
    model: str = ""
    version: int = 0
    target: str = ""
    runtime: str = "onnx"
    artifact: str = "model.onnx"
    artifact_sha256: str = ""
    opset: int = 0
    threads: int = 1
    session_options: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: tuple[str, ...] = ()
    hardware: tuple[str, ...] = ()
    security_floor: int = 0
    budgets: Budgets = field(default_factory=Budgets)
    lineage: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    values: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)
    task: str = field(default="", metadata=OMIT_DEFAULT)
    smoothing: str = field(default="", metadata=OMIT_DEFAULT)
    smoothing_options: Mapping[str, float] = field(default_factory=dict, metadata=OMIT_DEFAULT)
    stream_interval_ms: int = field(default=0, metadata=OMIT_DEFAULT)
    decoder: str = field(default="", metadata=OMIT_DEFAULT)
    decoder_options: Mapping[str, float] = field(default_factory=dict, metadata=OMIT_DEFAULT)
    thresholds: tuple[float, ...] = field(default=(), metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """The release's name, ``<model>-<version>``; ``model_in`` takes it apart."""
        return f"{self.model}-{self.version}"

    @property
    def needed_schema(self) -> int:
        """The lowest schema whose readers understand all fields in use."""
        schemas = (
            [SCHEMA_BOXES]
            if self.decoder
            else [SCHEMA_SMOOTHING]
            if self.smoothing
            else [SCHEMA_TASK]
            if self.task
            else []
        )
        return max([*schemas, self.preprocessing.schema])


def model_in(release: str) -> str:
    """Return the model in a release's name; "" if it is none."""
    return release.rpartition("-")[0]


def read_manifest(data: bytes) -> Manifest:
    """Return the manifest in ``data``, checked for what all readers rely on.

    Raises:
        ManifestError: If it can't be decoded or contradicts itself.
    """
    try:
        manifest = from_document(Manifest, parse_json(data, limit_bytes=MAX_MANIFEST_BYTES))
    except MessageError as error:
        message = f"Expected a manifest, got: {error}"
        raise ManifestError(message) from error
    problem = _problem(manifest)
    if problem:
        raise ManifestError(problem)
    return manifest


def _problem(manifest: Manifest) -> str:
    pre, schema = manifest.preprocessing, manifest.needed_schema
    if manifest.schema != schema:
        return f"Expected manifest schema {schema}, got {manifest.schema}: update the agent, or rebuild the bundle"
    if not manifest.model or manifest.version < 1:
        return f"Expected a model name and a version of at least 1, got {manifest.model!r} {manifest.version}"
    if not manifest.inputs or not manifest.outputs:
        return "Expected at least one input and one output, got none"
    if manifest.files.get(manifest.artifact) != manifest.artifact_sha256:
        return f"Expected artifact_sha256 to be that of {manifest.artifact}, got {manifest.artifact_sha256[:12]!r}"
    if manifest.thresholds and (
        len(manifest.thresholds) != len(manifest.labels) or not all(0 < one < 1 for one in manifest.thresholds)
    ):
        return f"Expected a threshold above 0 and below 1 for each of {len(manifest.labels)} labels, got " + (
            ", ".join(f"{one:g}" for one in manifest.thresholds[:10])
        )
    return pre.problem()
