"""The Python interface of the device: open a bundle and get the answer that a device would give.

Uses the code of the inference child: the same decoding, front end, preprocessing, model and output values. Decides only
how an array is encoded as the bytes of a sensor's file. The control process never imports this module, which loads
numpy and a runtime.

    with open_bundle("build/digits-1-gateway.tfb") as model:
        print(model.answer("picture.png").label)

Every error is an ``AgentError`` or a ``WireError``. Nothing is printed.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent import front_ends
from edge_agent.errors import (
    AgentConfigError,
    ImageError,
    ModelClosedError,
    SensorError,
    SignatureRefusedError,
    SourceError,
    reason_of,
)
from edge_agent.inference.served_model import Inference, ServedModel, load_model
from edge_agent.streams.recordings import as_wav
from edge_agent.updater.children import ChildProber
from edge_agent.updater.ports import ProbeResult
from wire.bundle import parse_bundle
from wire.canonical import sha256_hex
from wire.codec import Json
from wire.errors import BundleError
from wire.manifest import Manifest
from wire.tuf_target import target_path

__all__ = ["Answer", "DeviceModel", "ProbeResult", "Trust", "open_bundle"]

_GREY, _COLOUR, _RGB = 2, 3, 3
_FULL_SCALE = 32_768


@dataclass(frozen=True, slots=True)
class Trust:
    """The metadata that a device trusts.

    ``root``: the root metadata that it enrolled with (``N.root.json``). ``metadata``: the folder with the signed
    metadata that the server publishes (``tuf`` in its state directory, or a copy on a USB stick).
    """

    root: Path | str
    metadata: Path | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one input.

    ``label``: the predicted class; empty for a regression, and if the outputs are not finite. ``confidence``: its
    probability, 0..1, with the calibrated temperature of the drift reference; NaN without a label. ``values``: for a
    regression, the predictions by name, in the targets' units; of a detection, the number of boxes by class; of several
    labels, each one's probability; empty for a classifier. ``boxes``: of a detection, as in an answer record
    (``docs/reference/answers.md``). ``anomalous`` and ``scores``: of an anomaly, whether the input is one, and its
    score with the threshold; ``labels`` and ``scores`` of several labels: those of the answer, with probabilities.
    ``boxes``, ``labels`` and ``scores`` are None where a task has none. ``outputs``: the first output of the runtime:
    logits, values, or what a decoder makes of it. ``streams``: the numbers that the drift counters would count.
    ``run_ms``: the time of the runtime's call alone.
    """

    label: str
    confidence: float
    values: Mapping[str, float]
    outputs: tuple[float, ...]
    streams: Mapping[str, float]
    run_ms: float
    boxes: tuple[Mapping[str, Json], ...] | None = None
    anomalous: bool | None = None
    labels: tuple[str, ...] | None = None
    scores: Mapping[str, float] | None = None


class DeviceModel:
    """An open bundle, as ``open_bundle`` returns it. For one thread at a time; close it, or use ``with``."""

    def __init__(self, path: Path, served: ServedModel, *, signed: bool) -> None:
        """Wrap the bundle that was read from ``path``; ``signed``: whether its signature was checked."""
        self._path, self._served, self._signed = path, served, signed
        self._closed = False

    def __repr__(self) -> str:
        """Return the release, its target and whether its signature was checked."""
        said = "signature checked" if self._signed else "signature not checked: no trust was given"
        return f"<{self.manifest.release} for {self.manifest.target!r} on {self.manifest.runtime}, {said}>"

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest: inputs, outputs, preprocessing, labels, runtime."""
        return self._served.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; for a regression, the names of its values."""
        return self.manifest.labels or self.manifest.values

    @property
    def signed(self) -> bool:
        """Whether the bundle was verified against signed metadata; False if ``open_bundle`` got no ``trust``."""
        return self._signed

    def answer(self, given: Path | str | bytes | NDArray[Any]) -> Answer:
        """Return the answer that a device would give to one input.

        Args:
            given: The path of a file, its bytes, or an array: an image, uint8 (H, W) or (H, W, 3), RGB, or with 16 bits
                uint16 (H, W); for a sound front end, mono samples (N,), int16 or float -1..1, at its sample rate; for a
                front end of windows or strokes, numbers (steps, channels) or (points, 2).

        Raises:
            SourceError: If the file can't be read.
            ImageError: If the input is not an image, sound or window that the bundle's front end reads.
            RuntimeSeamError: If the runtime fails.
            ModelClosedError: If the model was closed.
        """
        if self._closed:
            raise ModelClosedError(f"Expected an open bundle, got {self.manifest.release} closed: open it again")
        return self._answer(self._served.infer(_data_of(given, self.manifest)))

    def _answer(self, outcome: Inference) -> Answer:
        served, logits = self._served, [float(value) for value in outcome.logits[0]]
        names = [spec.name for spec in served.reference.streams]
        row = served.row(outcome)
        said = served.task.answer(logits, row[served.counter.first_output :], self.labels)
        return Answer(
            label=said.label,
            confidence=said.confidence,
            values=said.values,
            outputs=tuple(logits),
            streams=dict(zip(names, row, strict=True)),
            run_ms=outcome.run_ms,
            boxes=served.boxes(outcome, said),
            anomalous=said.anomalous,
            labels=said.labels,
            scores=said.scores,
        )

    def probe(self, *, limit_s: float = 300.0) -> ProbeResult:
        """Run the probe of a device before it activates a release (golden vectors, latency, memory); return its result.

        Runs in a process of its own, as on a device, for at most ``limit_s``. The budgets are those of the target's
        hardware, so a slower host may exceed the latency budget.
        """
        return ChildProber(limit_s).probe(self._path)

    def close(self) -> None:
        """Release the model's memory; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._served.runtime.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def open_bundle(path: Path | str, *, trust: Trust | None = None, threads: int | None = None) -> DeviceModel:
    """Return the bundle at ``path``, checked as the inference child checks it and warmed up.

    Digests, the reference and the signature of input and outputs are always checked. The bundle's origin is checked
    only with ``trust``; ``DeviceModel.signed`` tells whether it was.

    Args:
        path: A file ``MODEL-VERSION-TARGET.tfb``.
        trust: The root of trust and the signed metadata; without it, the metadata's signature is not checked.
        threads: Threads of the runtime, instead of the manifest's number.

    Raises:
        WireError: If the bundle or its reference is invalid.
        AgentError: If the runtime is missing, or parts of the bundle don't fit each other.
        SignatureRefusedError: If signed metadata does not vouch for the bundle.
    """
    if not isinstance(path, str | os.PathLike):
        raise BundleError(f"Expected the path of a bundle, got {type(path).__name__}: give the .tfb file of a run")
    if not (trust is None or isinstance(trust, Trust)):
        raise AgentConfigError(f"Expected trust=Trust(root=…, metadata=…), got {type(trust).__name__}: make one")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise AgentConfigError(f"Expected threads as a whole number from 1 on, got {threads!r}: leave it out")
    place = Path(path)
    try:
        served = load_model(place, threads=threads)
        if trust is not None:
            _check_signature(place.read_bytes(), served.manifest, trust)
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        message = f"Expected a bundle at {place}, got: {reason_of(error)}: give the .tfb file of a run"
        raise BundleError(message) from error
    return DeviceModel(place, served, signed=trust is not None)


def _check_signature(data: bytes, manifest: Manifest, trust: Trust) -> None:
    """Verify as a newly enrolled device does: the root of the enrolment, then all signed metadata in order.

    ``manifest`` is the loaded model's: it names the digest of every entry.
    """
    from edge_agent.updater.verification import run  # noqa: PLC0415 - tuf is loaded only where a signature is checked

    if parse_bundle(data).manifest != manifest:  # replaced since it was loaded
        text = f"Expected the bundle of {manifest.release} that was loaded, got another in its place: open it again"
        raise SignatureRefusedError("target_mismatch", text)
    name = target_path(manifest.model, manifest.version, manifest.target)
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        (Path(folder) / "root.json").write_bytes(_read(Path(trust.root)))
        verdict = run(Path(folder), name, Path(trust.metadata), int(time.time() * 1000))
    if verdict.code == "root_lost":  # the text names the folder above
        text = f"Expected root metadata signed by its own keys in {trust.root}, got other bytes: give N.root.json"
        raise SignatureRefusedError("root_invalid", text)
    if not verdict.ok:
        raise SignatureRefusedError(verdict.code, verdict.text)
    if (verdict.sha256, verdict.length_bytes) != (sha256_hex(data), len(data)):
        text = f"Expected the bytes that were signed as {name}, {verdict.sha256[:12]}…, got {sha256_hex(data)[:12]}…"
        raise SignatureRefusedError("target_mismatch", f"{text}: take the bundle that was published")


def _data_of(given: object, manifest: Manifest) -> bytes:
    """Return the bytes of an input; callers without a type checker give anything."""
    if isinstance(given, np.ndarray):
        return _encoded(given, manifest)
    if isinstance(given, str | os.PathLike):
        return _read(Path(given))
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    message = f"Expected a path, a file's bytes or an array, got {type(given).__name__}: numpy.asarray makes one"
    raise ImageError(message)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        raise SourceError(f"Expected a readable file at {path}, got: {reason_of(error)}: check the path") from error


def _encoded(values: NDArray[Any], manifest: Manifest) -> bytes:
    """Encode ``values`` as the bytes of a file that the bundle's front end, or the image decoder, reads.

    An image becomes a PNG, sound a 16-bit WAV, a window float32 or JSON, as the front end's options require.

    Raises:
        ImageError: If the array has another type or shape than an image.
        SensorError: If it has another type or shape than the front end's input, or the front end reads none of these.
    """
    pre = manifest.preprocessing
    if not pre.front_end:
        return _deep_png(values) if pre.deep else _png(values)
    options = front_ends.complete(pre.front_end, pre.front_end_options)
    suffixes = front_ends.suffixes(pre.front_end)
    if ".wav" in suffixes:
        return _wav(values, round(options["sample_rate_hz"]))
    if values.dtype.kind not in "iuf":
        raise SensorError(f"Expected an array of numbers for {pre.front_end!r}, got {values.dtype}: convert it")
    if options.get("binary"):
        return values.astype("<f4").tobytes()
    if ".json" in suffixes:
        return json.dumps(values.tolist()).encode()
    raise SensorError(f"Expected bytes for the front end {pre.front_end!r}, got an array: give its file's bytes")


def _png(values: NDArray[Any]) -> bytes:
    colour = values.ndim == _COLOUR and values.shape[2] == _RGB
    if values.dtype != np.uint8 or not (colour or values.ndim == _GREY) or not values.size:
        message = f"Expected a picture as uint8 (H, W) or (H, W, 3), range 0 to 255, got {values.dtype} {values.shape}"
        raise ImageError(f"{message}: scale it to 0..255 and make it uint8")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _deep_png(values: NDArray[Any]) -> bytes:
    if values.dtype != np.uint16 or values.ndim != _GREY or not values.size:
        message = f"Expected a picture of 16 bits as uint16 (H, W), got {values.dtype} {values.shape}"
        raise ImageError(f"{message}: give the camera's levels as they are")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _wav(values: NDArray[Any], rate_hz: int) -> bytes:
    whole = values.dtype == np.int16
    if values.ndim != 1 or not (whole or values.dtype.kind == "f") or not np.isfinite(values).all():
        message = f"Expected mono sound (N,) as int16 or finite floats -1..1 at {rate_hz} Hz, got {values.dtype}"
        raise SensorError(f"{message} {values.shape}: take one channel and convert it")
    levels = values if whole else np.clip(np.rint(values * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    return as_wav(levels, rate_hz)
