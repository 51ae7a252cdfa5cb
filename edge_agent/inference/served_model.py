"""A served release: a checked bundle, its runtime, its reference and the open counters.

Loading does everything that can fail (digests, session, one warm-up run of all steps), so that a swap only replaces one
attribute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent import front_ends, runtimes, smoothers, tasks
from edge_agent.device.memory_limit import room_bytes
from edge_agent.errors import RuntimeLoadError
from edge_agent.inference import drift_counters
from edge_agent.inference.preprocess import decode_image, resize_pixels, to_tensor, upright_size
from edge_agent.inference.support import Support
from edge_agent.pictures.resizing import unframed
from edge_agent.sources import InStream
from edge_agent.streams.stream_states import Streams
from edge_agent.tasks import DeviceTask
from edge_agent.tasks._base import EACH_NAME, TaskAnswer, as_ratio
from wire.bundle import REFERENCE, read_bundle
from wire.codec import Json
from wire.errors import BundleError
from wire.manifest import LETTERBOX, Manifest
from wire.reference import Reference, read_reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One inference, not yet counted.

    ``image``: uint8 (H, W, 3), as decoded, or (H, W, 2) with 16 bits; ``logits``: (1, classes); ``embedding``: (1, D)
    or None; ``run_ms``: of the runtime call only. ``row``: (1, S), its stream values, where an answer needed them
    before it is counted. ``size``: width and height of the input in pixels, before any reduction; None: those of
    ``image``. ``remark``: what was done to read the input, a sentence for the operator; empty: nothing to say.
    """

    image: NDArray[np.uint8]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32] | None
    run_ms: float
    features: list[float] | None = None
    row: list[float] | None = None
    size: tuple[int, int] | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Everything an inference needs."""

    manifest: Manifest
    runtime: runtimes.Runtime
    reference: Reference
    ref_id: str
    projection: drift_counters.Projection
    counter: drift_counters.Counter
    embedding_index: int | None
    support: Support
    streams: Streams | None = None
    """Keeps the state of the streams that are answered; None: each input is answered alone."""
    max_memory_bytes: int = 0
    """Memory limit of this process; 0: unknown."""

    @property
    def task(self) -> DeviceTask:
        """The task of the outputs."""
        return self.projection.task

    def infer(self, data: bytes, *, before_run: Callable[[], None] | None = None) -> Inference:
        """Return the outputs for one encoded image, or for raw bytes that its front end reads.

        Nothing is counted yet. ``before_run``: called when the input is ready for the model, after the image features
        that an answer will need: after the run the processor's caches hold the model's weights, and they take longer.

        Raises:
            ImageError: If ``data`` is not an image, or the front end can't read it.
            RuntimeSeamError: If the runtime fails.
        """
        pre = self.manifest.preprocessing
        if pre.front_end:
            read = front_ends.decode_named(pre.front_end, data, pre.front_end_options, pre.front_end_columns)
            outcome = self._run(read[0], before_run)
            return replace(outcome, remark=read[1]) if read[1] else outcome
        room = (lambda: room_bytes(self.max_memory_bytes)) if self.max_memory_bytes else None
        outcome = self._run(decode_image(data, pre, room_bytes=room), before_run)
        return replace(outcome, size=upright_size(data, pre)) if self.manifest.decoder else outcome

    def _run(self, image: NDArray[np.uint8], before_run: Callable[[], None] | None = None) -> Inference:
        tensor = to_tensor(image, self.manifest.preprocessing)
        features = None
        if before_run is not None:
            features = self._features(image)
            before_run()
        start_s = time.perf_counter()
        outputs = self.runtime.run(tensor)
        run_ms = (time.perf_counter() - start_s) * 1000
        embedding = None if self.embedding_index is None else outputs[self.embedding_index]
        return Inference(image=image, logits=outputs[0], embedding=embedding, run_ms=run_ms, features=features)

    def _features(self, image: NDArray[np.uint8]) -> list[float]:
        return drift_counters.image_features(resize_pixels(image, self.manifest.preprocessing))

    def row(self, outcome: Inference) -> list[float]:
        """Return the stream values of one inference, each representable in float32.

        Raises:
            ReferenceStreamsError: If the embedding isn't as wide as the reference's projection.
        """
        if outcome.row is not None:
            return outcome.row
        features = self._features(outcome.image) if outcome.features is None else outcome.features
        embedding = None if outcome.embedding is None else outcome.embedding[0]
        return drift_counters.row_of(features, outcome.logits[0], embedding, self.projection)

    def with_row(self, outcome: Inference) -> Inference:
        """Return ``outcome`` with its stream values, so that answering and counting compute them once.

        Raises:
            ReferenceStreamsError: If the embedding isn't as wide as the reference's projection.
        """
        return replace(outcome, row=self.row(outcome))

    def values(self, outcomes: Sequence[Inference]) -> NDArray[np.float64]:
        """Return the stream values of N inferences (at least one), float64 (N, S).

        Raises:
            ReferenceStreamsError: If the embedding isn't as wide as the reference's projection.
        """
        return np.array([self.row(outcome) for outcome in outcomes])

    def answer(self, outcome: Inference) -> TaskAnswer:
        """Return the answer of one inference; a classifier's has no label and a regression's no value if not finite."""
        logits: list[float] = outcome.logits[0].tolist()
        names = self.manifest.labels or self.manifest.values
        if outcome.row is None:
            values = self.task.values(outcome.logits[0], self.projection.temperature)
        else:
            values = outcome.row[self.counter.first_output :]
        said = self.task.answer(logits, values, names)
        return said if all(map(math.isfinite, said.values.values())) else TaskAnswer()

    def boxes(self, outcome: Inference, said: TaskAnswer) -> tuple[Mapping[str, Json], ...] | None:
        """Return the boxes of an answer as records have them: edges in pixels of the input picture, to a tenth.

        None: the task finds no boxes.
        """
        if said.boxes is None:
            return None
        if not said.boxes:
            return ()
        high, wide = outcome.image.shape[:2]
        width, height = outcome.size or (wide, high)
        ratios = np.array([box.edges for box in said.boxes], np.float32)
        if self.manifest.preprocessing.resize == LETTERBOX:
            ratios = unframed(ratios, wide, high, self.manifest.preprocessing)
        found: list[Mapping[str, Json]] = []
        for box, own in zip(said.boxes, ratios.tolist(), strict=True):
            edges = (edge * side for edge, side in zip(own, (width, height, width, height), strict=True))
            x0, y0, x1, y1 = (round(edge, 1) for edge in edges)
            found.append({"label": box.label, "score": box.score, "x0": x0, "y0": y0, "x1": x1, "y1": y1})
        return tuple(found)

    def supported(self, outcome: Inference) -> bool | None:
        """Return whether the input is inside what the model was trained on; None if the reference can't tell."""
        if not self.support.limit:
            return None
        return self.support.distance(self.row(outcome)) <= self.support.limit

    def in_stream(self, outcome: Inference, place: InStream, at_ms: int) -> tuple[Inference, int]:
        """Return what to answer for the newest input of a stream, and over how many inputs it is; call once each."""
        count = 1
        if self.streams is not None and np.isfinite(outcome.logits).all():
            outputs, count = self.streams.add(place.name, outcome.logits[0], at_ms)
            outcome = replace(outcome, logits=outputs[None], row=None)
        if self.streams is not None and place.last:
            self.streams.end(place.name)
        return outcome, count

    def take_events(self) -> tuple[dict[str, Json], ...]:
        """Return the events that began or ended since the last call, as in records, each with its stream if named."""
        return () if self.streams is None else tuple(self._event(name, one) for name, one in self.streams.take())

    def open_events(self) -> tuple[dict[str, Json], ...]:
        """Return the events that have begun and not ended, as in records."""
        return () if self.streams is None else tuple(self._event(name, one) for name, one in self.streams.open())

    def _event(self, stream: str, one: smoothers.Spotted) -> dict[str, Json]:
        labels = self.manifest.labels
        named: dict[str, Json] = {"stream": stream} if stream else {}
        return named | {
            "state": "ended" if one.ended else "began",
            "label": labels[one.label] if one.label < len(labels) else str(one.label),
            "start_ms": one.start_ms,
            "end_ms": one.end_ms,
            "confidence": as_ratio(one.confidence),
        }

    @property
    def task_name(self) -> str:
        """The name of the task, for answers."""
        return tasks.name_of(self.manifest, self.reference)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """From which probability or score on each name is in an answer; empty: the task compares nothing."""
        found: Callable[[Sequence[str], float], Mapping[str, float]] | None = getattr(self.task, "thresholds", None)
        names = self.manifest.labels or self.manifest.values
        return {} if found is None else found(names, self.projection.temperature)

    @property
    def answer_outputs(self) -> Mapping[str, str]:
        """What the local interface gives for an encoded input, with its type; a task from outside may say none."""
        found: Mapping[str, str] = getattr(self.task, "answer_outputs", {})
        names = self.manifest.labels or self.manifest.values
        each = dict.fromkeys(names, found[EACH_NAME]) if EACH_NAME in found else {}
        told = {"supported": "BOOL"} if self.support_rate is not None else {}
        return {name: kind for name, kind in found.items() if name != EACH_NAME} | each | told

    @property
    def useless_filters(self) -> Mapping[str, str]:
        """The keys of sinks that do nothing for its answers, each with what to use; a task from outside names none."""
        found: Mapping[str, str] = getattr(self.task, "useless_filters", {})
        events = self.streams is not None and self.streams.finds_events
        return {key: advice for key, advice in found.items() if key != "events_only" or not events}

    @property
    def support_rate(self) -> float | None:
        """The share of inputs like the training data that are called unsupported; None if the reference can't tell."""
        return self.support.rate if self.support.limit else None

    def warm(self) -> None:
        """Run all steps once.

        Raises:
            AgentError: If model, manifest and reference are inconsistent.
        """
        pre = self.manifest.preprocessing
        self.values([self._run(np.full((pre.height, pre.width, 2 if pre.deep else 3), 127, np.uint8))])


def load_model(path: Path, *, threads: int | None = None, max_memory_bytes: int = 0) -> ServedModel:
    """Return the release in the bundle at ``path``, warmed up; ``max_memory_bytes``: memory limit of this process.

    Raises:
        WireError: If the bundle or its reference is invalid.
        AgentError: If the runtime is missing or the parts are inconsistent.
        OSError: If the file can't be read.
    """
    bundle = read_bundle(path)
    if REFERENCE not in bundle.files:
        message = f"Expected {REFERENCE} in the bundle, got {sorted(bundle.files)}: rebuild it"
        raise BundleError(message)
    reference = read_reference(bundle.files[REFERENCE])
    reference.check_artifact(bundle.manifest.artifact_sha256)
    task = tasks.of(bundle.manifest, reference)
    names = [output.name for output in bundle.manifest.outputs]
    projected = bool(reference.projection_mean)
    if projected and "embedding" not in names:
        message = f"Expected an output 'embedding', which the reference projects, got {names}: rebuild the bundle"
        raise RuntimeLoadError(message)
    model = ServedModel(
        manifest=bundle.manifest,
        runtime=runtimes.load(bundle.manifest, bundle.artifact, threads=threads),
        reference=reference,
        ref_id=reference.ref_id,
        projection=drift_counters.projection_of(reference, task),
        counter=drift_counters.Counter(reference, task),
        embedding_index=names.index("embedding") if projected else None,
        support=Support.of(reference),
        streams=_streams_of(bundle.manifest, reference),
        max_memory_bytes=max_memory_bytes,
    )
    model.warm()
    return model


def _streams_of(manifest: Manifest, reference: Reference) -> Streams | None:
    """Return the state of the streams of a release; None if it answers single inputs.

    Raises:
        SmootherError: If its smoother is unknown, or an option is unknown, out of range or not for this kind of output.
    """
    first = smoothers.of_manifest(manifest)
    if first is None:
        return None
    name, options = manifest.smoothing, manifest.smoothing_options
    return Streams(
        lambda: smoothers.make(name, options, len(manifest.labels)),
        lambda: smoothers.spotter(name, options, reference.temperature),
    )
