"""A release that serves: a checked bundle, its runtime, its reference and the open counters.

Loading does everything that can fail (digests, session, one warm-up run through all of it), so that
a swap is the replacement of one attribute.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent import monitor, runtimes
from edge_agent.errors import RuntimeLoadError
from edge_agent.preprocess import decode_image, resize_pixels, to_tensor
from wire.bundle import REFERENCE, read_bundle
from wire.errors import BundleError
from wire.manifest import Manifest
from wire.reference import Reference, read_reference


@dataclass(frozen=True, slots=True)
class Outcome:
    """One inference. ``rows``: float64 (1, S), the stream values; ``run_ms``: the bare runtime call."""

    predicted: int
    confidence: float
    margin: float
    run_ms: float
    rows: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Everything an inference needs."""

    manifest: Manifest
    runtime: runtimes.Runtime
    reference: Reference
    ref_id: str
    projection: monitor.Projection
    counter: monitor.Counter
    embedding_index: int | None

    def infer(self, data: bytes) -> Outcome:
        """Return what the model says of one encoded image; nothing is counted yet.

        Raises:
            ImageError: If ``data`` is no image.
            RuntimeSeamError: If the runtime fails.
        """
        image = decode_image(data)
        pre = self.manifest.preprocessing
        return self._outcome(resize_pixels(image, pre), to_tensor(image, pre))

    def _outcome(self, pixels: NDArray[np.uint8], tensor: NDArray[np.float32]) -> Outcome:
        start_s = time.perf_counter()
        outputs = self.runtime.run(tensor)
        run_ms = (time.perf_counter() - start_s) * 1000
        embedding = None if self.embedding_index is None else outputs[self.embedding_index]
        rows = monitor.values([pixels], outputs[0], embedding, self.projection)
        confidence, _, margin, predicted = rows[0, -len(monitor.STREAMS_OUTPUT) :].tolist()
        return Outcome(-1 if math.isnan(predicted) else int(predicted), confidence, margin, run_ms, rows)

    def warm(self) -> None:
        """Run once through all of it.

        Raises:
            AgentError: If model, manifest and reference don't fit each other.
        """
        pre = self.manifest.preprocessing
        pixels = np.full((pre.height, pre.width, 3), 127, np.uint8)
        self._outcome(pixels, to_tensor(pixels, pre))


def load_model(path: Path, *, threads: int | None = None) -> ServedModel:
    """Return the release in the bundle at ``path``, warmed up.

    Raises:
        WireError: If the bundle or its reference may not be believed.
        AgentError: If the runtime is missing or its parts don't fit each other.
        OSError: If the file can't be read.
    """
    bundle = read_bundle(path)
    if REFERENCE not in bundle.files:
        message = f"Expected {REFERENCE} in the bundle, got {sorted(bundle.files)}: rebuild it"
        raise BundleError(message)
    reference = read_reference(bundle.files[REFERENCE])
    reference.check_artifact(bundle.manifest.artifact_sha256)
    model = ServedModel(
        bundle.manifest,
        runtimes.load(bundle.manifest, bundle.artifact, threads=threads),
        reference,
        reference.ref_id,
        monitor.projection_of(reference),
        monitor.Counter(reference),
        _embedding_index(bundle.manifest, reference),
    )
    model.warm()
    return model


def _embedding_index(manifest: Manifest, reference: Reference) -> int | None:
    if not reference.projection_mean:
        return None
    names = [output.name for output in manifest.outputs]
    if "embedding" not in names:
        message = f"Expected an output 'embedding', which the reference projects, got {names}: rebuild the bundle"
        raise RuntimeLoadError(message)
    return names.index("embedding")
