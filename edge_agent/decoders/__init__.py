"""Decoders: boxes or scores from the outputs of a network. Needs numpy and the standard library only.

The folder is the registry, one decoder a file; a manifest names it with its options. A decoder's module has
``Settings`` (a frozen dataclass of numbers with a default and a range), ``make(settings, shape)``, which returns a
``Decoder`` or a ``Scorer``, and ``output_shape(classes)``; one that gives no boxes also names its ``OUTPUT`` and its
``WIDTH``, and has ``ends_float(settings)`` if 8 bits may be too few for its output. One for imported files also has
``read(settings, shape, outputs)``, which settles from the file's outputs what a recipe leaves open, and
``tried(settings, shape, outputs)``, which does so from the outputs of some inputs; both return an ``OutputReading``.
``parts(settings, shape, outputs)`` names what an output joins, to compare the noise of each; None if two forms of a
model give them in different orders. Only the build host calls these.

The runtime of a model with a decoder returns boxes or scores instead of its first output, on the device and on the
build host alike: gates, golden vectors and drift references are about these.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, cast

from edge_agent.errors import DecoderError
from wire import plugins
from wire.errors import SettingsError
from wire.manifest import Manifest, TensorSpec
from wire.settings import nearest, numbers_from, numbers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
VALUES = 6
"""Numbers of a box: class, score (0..1), x0, y0, x1, y1 as ratios of the input's width and height."""
BOX_ROWS = "box_rows"
"""The name of that output: ``boxes`` are those of an answer, with names, in pixels and above the threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What a decoder may need to know of a model: its classes, and the input's size in pixels and its layout."""

    classes: int
    width: int
    height: int
    layout: str = "NCHW"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReading:
    """How the outputs of a file are read: the decoder's ``options``, as a manifest has them, and why.

    ``places``: of the outputs that the decoder gets, in its order; ``remarks``: a line on each thing that the recipe
    left open.
    """

    options: Mapping[str, float]
    places: tuple[int, ...] = (0,)
    remarks: tuple[str, ...] = ()


class Decoder(Protocol):
    """Makes boxes of a model's outputs."""

    def boxes(self, outputs: Sequence[Array]) -> Array:
        """Return the boxes of N inputs, float32 (N, 6 * K), the surest first; empty places have class -1 and zeros.

        Args:
            outputs: The model's outputs as real numbers, in the manifest's order. NaN and infinity give a row of NaN.

        Raises:
            DecoderError: If the outputs have another shape than the decoder reads.
        """


class Scorer(Protocol):
    """Compares a model's outputs with its input; in the place of a ``Decoder``, for callers of ``decoded``."""

    def scores(self, inputs: Array, outputs: Sequence[Array]) -> Array:
        """Return the scores of N inputs, float32 (N, D).

        Args:
            inputs: What the model got, as real numbers.
            outputs: As in ``Decoder``. NaN and infinity give a row of NaN or infinity.

        Raises:
            DecoderError: If input or outputs have another shape than it reads.
        """


def is_scorer(decoder: Decoder | Scorer) -> TypeGuard[Scorer]:
    """Return whether ``decoder`` compares outputs with the input, instead of finding boxes."""
    return callable(getattr(decoder, "scores", None))


def decoded(decoder: Decoder | Scorer, inputs: Array, outputs: Sequence[Array]) -> Array:
    """Return what ``decoder`` makes of ``outputs``: boxes, or scores against ``inputs``.

    Raises:
        DecoderError: If the shapes don't fit the decoder.
    """
    return decoder.scores(inputs, outputs) if is_scorer(decoder) else cast("Decoder", decoder).boxes(outputs)


def names() -> tuple[str, ...]:
    """Return the names of the decoders in this folder."""
    return plugins.names(__name__)


def of_boxes() -> tuple[str, ...]:
    """Return the names of the decoders that find boxes."""
    return tuple(name for name in names() if not hasattr(_module(name), "OUTPUT"))


def ends_float(name: str, options: Mapping[str, float]) -> bool:
    """Return whether the last layers of a model stay float for the decoder ``name`` with ``options``; "" for none.

    Raises:
        DecoderError: If the decoder is unknown, or an option is unknown or out of range.
    """
    asked = getattr(_module(name), "ends_float", None) if name else None
    return asked is not None and bool(asked(settings_from(name, options)))


def settings_of(name: str) -> type:
    """Return the ``Settings`` of the decoder ``name``.

    Raises:
        DecoderError: If it is unknown.
    """
    return cast("type", _module(name).Settings)


def settings_from(name: str, options: Mapping[str, float]) -> Any:  # noqa: ANN401 - the Settings of its module
    """Return the ``Settings`` of the decoder ``name`` with ``options``, as of a recipe or a manifest.

    Raises:
        DecoderError: If the decoder is unknown, or an option is unknown or out of range.
    """
    try:
        return numbers_from(settings_of(name), options, f"decoder {name}")
    except SettingsError as error:
        raise DecoderError(str(error)) from error


def complete(name: str, options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` with all defaults of the decoder ``name`` filled in, as in a manifest.

    Raises:
        DecoderError: If the decoder is unknown, or an option is unknown or out of range.
    """
    return numbers_of(settings_from(name, options))


def make(name: str, options: Mapping[str, float], shape: ModelShape) -> Decoder:
    """Return the decoder ``name`` for a model of ``shape``.

    Raises:
        DecoderError: If it is unknown, or an option is unknown or out of range.
    """
    return cast("Decoder", _module(name).make(settings_from(name, options), shape))


def of_manifest(manifest: Manifest) -> Decoder | None:
    """Return the decoder of a release; None if it has none.

    Raises:
        DecoderError: If it is unknown, or an option is unknown or out of range.
    """
    if not manifest.decoder:
        return None
    return make(manifest.decoder, manifest.decoder_options, shape_of(manifest))


def shape_of(manifest: Manifest) -> ModelShape:
    """Return the classes and the input's size of a release."""
    sizes = manifest.preprocessing
    return ModelShape(classes=len(manifest.labels), width=sizes.width, height=sizes.height, layout=sizes.layout)


def output_shape(name: str, classes: int) -> tuple[int, ...]:
    """Return the shape of a model's first output, with -1 for the batch and what is open.

    Raises:
        DecoderError: If the decoder is unknown.
    """
    return cast("tuple[int, ...]", _module(name).output_shape(classes))


def read(name: str, options: Mapping[str, float], shape: ModelShape, outputs: Sequence[TensorSpec]) -> OutputReading:
    """Return how the decoder ``name`` reads a file with these ``outputs``; -1 stands for an open size.

    Raises:
        DecoderError: If it can't, or is unknown, or an option is unknown or out of range.
    """
    module, settings = _module(name), settings_from(name, options)
    if hasattr(module, "read"):
        return cast("OutputReading", module.read(settings, shape, outputs))
    wanted = output_shape(name, shape.classes)
    for place, one in enumerate(outputs):
        known = len(one.shape) == len(wanted)
        if known and all(-1 in pair or len(set(pair)) == 1 for pair in zip(one.shape, wanted, strict=True)):
            return OutputReading(options=numbers_of(settings), places=(place,))
    got = ", ".join(f"{one.name} {one.shape}" for one in outputs)
    raise DecoderError(f"Expected for the decoder {name!r} an output {wanted}, got {got}: check [model] labels")


def tried(name: str, options: Mapping[str, float], shape: ModelShape, outputs: Sequence[Array]) -> OutputReading:
    """Return how the decoder ``name`` reads ``outputs``, those of some inputs, checked: are these boxes?

    Raises:
        DecoderError: If they are none, or the decoder or an option is unknown.
    """
    module, settings = _module(name), settings_from(name, options)
    if hasattr(module, "tried"):
        return cast("OutputReading", module.tried(settings, shape, outputs))
    return OutputReading(options=numbers_of(settings))


def parts(
    name: str, options: Mapping[str, float], shape: ModelShape, outputs: Sequence[Array]
) -> Mapping[str, Array] | None:
    """Return what the outputs of some inputs join, by name; empty if each output is one thing.

    None if the order of boxes differs between forms of one model, so that their numbers can't be compared, or if the
    decoder does not say.

    Raises:
        DecoderError: If the outputs don't fit the decoder, or the decoder or an option is unknown.
    """
    module, settings = _module(name), settings_from(name, options)
    if not hasattr(module, "parts"):
        return None
    return cast("Mapping[str, Array] | None", module.parts(settings, shape, outputs))


def outputs_of(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """Return the outputs that a caller of the runtime gets: with a decoder, the first are ``BOX_ROWS`` or its own."""
    if not manifest.decoder:
        return manifest.outputs
    module = _module(manifest.decoder)
    first = TensorSpec(name=getattr(module, "OUTPUT", BOX_ROWS), shape=(-1, getattr(module, "WIDTH", -1)))
    return (first, *manifest.outputs[1:])


def _module(name: str) -> Any:  # noqa: ANN401 - a module with Settings, make and output_shape
    if name not in names():
        message = f"Expected a decoder of {', '.join(names())}, got {name!r}{nearest(name, names())}"
        raise DecoderError(f"{message}: update the agent")
    return importlib.import_module(f"{__name__}.{name}")
