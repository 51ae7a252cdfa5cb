"""The interface of a format: how the model files of one runtime are made, read and run on the build host.

A file in this folder has a class ``Format``, a subclass of ``ModelFormat``, and states what differs from the defaults.
The defaults are those of a format that has a plain float file alone: it can be neither quantized nor imported, and its
multiplications are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from compressor.clean.given import Given
from compressor.errors import ExportError, MeasureError, QuantizeError
from compressor.steps.quantize import Settings
from edge_agent import declarations
from wire.manifest import TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from compressor.measurement.onnx_graph import GraphFigures

Floats: TypeAlias = npt.NDArray[np.float32]
Batches: TypeAlias = Callable[[], Iterable[Floats]]
"""Restarts the calibration data."""
Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""(low, high) by the name of a tensor."""
Tensors: TypeAlias = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
Weight: TypeAlias = tuple[str, int, bool]
Layers: TypeAlias = tuple[list[tuple[str, Floats]], dict[str, Floats]]
WEIGHT_AXES = 2
"""The fewest axes of a constant that counts as a weight: biases and scales have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWords:
    """What a model's file says of itself; empty: nothing.

    ``labels``: the names of its classes, in the order of the output. ``mean`` and ``std``: its input is
    ``(pixel - mean) / std`` for pixels of 0 to 255, one value for all channels or one for each. ``stride``: the sides
    of its input are multiples of it; 0: nothing is said. ``task``: what it was made for, in its exporter's word.
    """

    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    stride: int = 0
    task: str = ""


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """The model files of ``runtime``.

    ``title``: of the format, in texts. ``modules``: what must be installed to build for it; ``install``: how, in the
    error that names a missing one. ``exported_with``, ``cleaned_with``, ``quantized_with``: the distributions whose
    versions decide the file (no ``cleaned_with``: files are taken as they are); ``made_with``: those that the bill
    of materials names beside the runtime's own. ``opset``: in the manifest of our exports. ``model_key``: of
    ``[model]``, that names a person's file of this format; "": none can be given. ``becomes_network``: such a file
    has the network steps and the formats that a network of ours has. ``finished``: such a file is gated and
    packaged as it is. ``grid``: keys of a ``quantize`` step that decide where its values lie, which quantization-
    aware training must share. ``own_schemes``: a person's own scheme quantizes it. ``rescues``: the remedies of a
    rescue apply to it. ``compares_layers``: the report compares float and compressed file, layer by layer.
    ``instead``: of a scheme whose file is not smaller than the float file, the scheme that is taken if its file is.
    """

    runtime: str

    title: ClassVar[str] = ""
    modules: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = "install it"
    exported_with: ClassVar[tuple[str, ...]] = ("torch",)
    cleaned_with: ClassVar[tuple[str, ...]] = ()
    quantized_with: ClassVar[tuple[str, ...]] = ("numpy",)
    made_with: ClassVar[tuple[str, ...]] = ("torch",)
    opset: ClassVar[int] = 0
    model_key: ClassVar[str] = ""
    becomes_network: ClassVar[bool] = False
    finished: ClassVar[bool] = False
    grid: ClassVar[tuple[str, ...]] = ("per_channel", "reduce_range")
    own_schemes: ClassVar[bool] = False
    rescues: ClassVar[bool] = False
    compares_layers: ClassVar[bool] = False
    instead: ClassVar[Mapping[str, str]] = {}

    @property
    def float_name(self) -> str:
        """The name of the float file in texts and in the table of parities."""
        return f"{self.title or self.runtime} float"

    @property
    def layout(self) -> str:
        """The layout of the images that its models take, as the device's half declares it."""
        return declarations.runtime(self.runtime).layout

    # To make a file.

    def export(self, network: nn.Module, channels: int, height: int, width: int) -> bytes:
        """Return ``network`` as a float file; its outputs are ``logits`` and ``embedding``.

        Raises:
            ExportError: If the network can't be exported.
            PluginError: If a package is not installed.
        """
        del network, channels, height, width
        raise ExportError(f"Expected a format with an exporter, got {self.runtime!r}: write its export()")

    def saved_as(self, model: bytes, kind: str) -> bytes:
        """Return ``model`` in the form ``kind`` of ``[targets.NAME] format``, which is not the plain one.

        Raises:
            ExportError: If it can't be converted.
        """
        del model
        raise ExportError(f"Expected a form of {self.runtime!r} that can be written, got {kind!r}: leave format out")

    def stated(self, model: bytes) -> Tensors | None:
        """Return the tensors that the manifest must state; None if they are ``input``, ``logits`` and ``embedding``.

        Raises:
            MeasureError: If the file can't be read.
        """
        del model
        return None

    # To quantize it.

    def schemes(self) -> tuple[str, ...]:
        """Return the schemes of ``compressor.quantize`` that apply to it, ``none`` among them."""
        return ("none",)

    def takes(self, scheme: str) -> bool:
        """Return whether ``scheme``, one of ``compressor.quantize`` or a person's own, applies to it."""
        return scheme in self.schemes()

    def coarser(self, model: bytes, settings: Settings) -> tuple[str, ...]:
        """Return the layers of the float ``model`` that one scale quantizes though ``settings`` ask for one a channel.

        Raises:
            QuantizeError: If the file can't be read.
        """
        del model, settings
        return ()

    def reads(self, scheme: str) -> frozenset[str] | None:
        """Return the keys of a ``quantize`` step that ``scheme`` reads here; None if it may read all.

        Raises:
            PluginError: If a package that the scheme needs is missing.
        """
        del scheme
        return None

    def quantize(self, model: bytes, batches: Batches, settings: Settings, ranges: Ranges | None) -> bytes:
        """Return the float ``model`` quantized; ``batches()`` restarts the calibration data, in this layout.

        ``ranges``: learned (low, high) by tensor name, instead of the calibrated ones.

        Raises:
            QuantizeError: If it can't be quantized so.
            PluginError: If the scheme or a package is missing.
        """
        del batches, ranges
        if settings.scheme in self.schemes():
            return model
        raise QuantizeError(
            f"Expected a scheme of {', '.join(self.schemes())} on {self.runtime!r}, got {settings.scheme!r}"
        )

    def activations(self, model: bytes, rows: Floats) -> Mapping[str, Floats]:
        """Return the values of the input and every float tensor for ``rows``, to find where learned ranges belong.

        Raises:
            QuantizeError: If the file can't be run so.
        """
        del model, rows
        message = f"Expected a format that takes learned ranges, got {self.runtime!r}: leave the step 'qat' out"
        raise QuantizeError(message)

    def last_layers(self, model: bytes) -> tuple[str, ...]:
        """Return the layers, by names for ``float_layers``, that make the outputs of the float file but the embedding.

        Raises:
            QuantizeError: If it can't be read.
        """
        del model
        return ()

    def weights(self, model: bytes) -> Iterable[Weight] | None:
        """Return name, size and whether it is float32 of each weight; None if that is not known.

        Raises:
            QuantizeError: If the file can't be read.
        """
        del model
        return None

    def behind_layers(self, model: bytes) -> tuple[str, ...]:
        """Return the nodes behind the last layers with weights, as ``float_layers`` names them.

        In a detector they make boxes and scores of the layers' outputs. In one tensor these would share a scale.

        Raises:
            QuantizeError: If the file can't be read.
        """
        del model
        return ()

    def end_layers(self, model: bytes) -> tuple[str, ...]:
        """Return the last layers and all behind them, as ``float_layers`` names them.

        Raises:
            QuantizeError: If it can't be read.
        """
        return (*self.last_layers(model), *self.behind_layers(model))

    # To run and measure it.

    def run(self, model: bytes, rows: Floats) -> None:
        """Open ``model`` and run ``rows``, one by one, with the bare library: in a child that it may end."""

    def figures(self, model: bytes, options: Mapping[str, str], threads: int) -> GraphFigures:
        """Return the multiplications of ``model`` and the share of them that runs in integers.

        Raises:
            MeasureError: If the file can't be read.
        """
        from compressor.measurement.onnx_graph import GraphFigures  # noqa: PLC0415 - loads onnx

        del model, options, threads
        unknown = f"Expected a format whose multiplications are counted, got {self.runtime!r}"
        return GraphFigures(macs=None, int8_macs_ratio=None, operators={}, unknown=unknown)

    def layers(self, reference: bytes, other: bytes, rows: Floats) -> Layers:
        """Return the paired tensors of two files, for ``measurement.layers``; only asked if ``compares_layers``.

        Raises:
            MeasureError: If a file does not run, or they have no name in common.
        """
        del reference, other, rows
        raise MeasureError(f"Expected a format that compares layers, got {self.runtime!r}")

    # To import a person's file.

    def with_external(self, model: bytes, path: Path) -> bytes:
        """Return ``model``, read from ``path``, with the weights inside that it has in files beside it.

        Raises:
            ExternalDataError: If they can't be read.
        """
        del path
        return model

    def cleaned(self, model: bytes, given: Given) -> tuple[bytes, dict[str, str]]:
        """Return ``model`` mended, and a line on each mend by its name; only asked if ``cleaned_with``.

        Raises:
            ModelSignatureError: If the constants of ``given`` are not inputs of the file.
        """
        del given
        return model, {}

    def tensors(self, model: bytes) -> Tensors:
        """Return (inputs, outputs) of a person's file, in the order of its graph; shapes begin with -1, the batch.

        Raises:
            MeasureError: If it can't be read, or has what a device lacks.
        """
        del model
        raise MeasureError(f"Expected a format that can be imported, got {self.runtime!r}: give a network")

    def words(self, model: bytes) -> FileWords:
        """Return what the metadata of a person's file say of its classes and its input.

        Raises:
            MeasureError: If it can't be read.
        """
        del model
        return FileWords()

    def with_first(self, model: bytes, output: str) -> bytes:
        """Return ``model`` with ``output`` as its first output."""
        del output
        return model

    def opset_of(self, model: bytes) -> int:
        """Return the opset of ``model``, 0 if the format has none."""
        del model
        return 0

    def fixed_batch(self, model: bytes) -> int:
        """Return the fixed batch size of ``model``, 0 if it accepts any.

        Raises:
            MeasureError: If it can't be read, or has no input.
        """
        del model
        return 0
