"""The inference child with a model of numbers: windows, heartbeat, swaps from and to classes, no samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge_agent.inference import drift_counters
from edge_agent.tasks.regression import Regression
from wire import leb128
from wire.canonical import sha256_hex
from wire.reference import Context, Reference, write_reference

STREAMS = 22
"""The 23 of a classifier with an embedding, less its four outputs, and three values."""


def _of_values(tiny: dict, version: int = 1) -> bytes:
    """Return a reference of the tiny model whose three outputs are values."""
    artifact = tiny["onnx"](version)
    specs = drift_counters.stream_specs(Regression(3), has_embedding=True)
    edges = tuple(float(np.float32(value)) for value in np.linspace(0, 1, 15))
    of_classes: Reference = tiny["reference"](artifact)
    counts = (0,) * 16 * len(specs)
    return write_reference(
        replace(
            of_classes, artifact_sha256=sha256_hex(artifact), streams=specs, classes=0, table_right=(), table_seen=(),
            contexts=(Context(n=1, n_effective=1, counts=counts),), edges=(edges,) * len(specs),
        )
    )  # fmt: skip


def _images(tiny: dict, count: int) -> dict[str, bytes]:
    return {f"{index:04}.png": tiny["png"](image) for index, image in enumerate(tiny["images"](count))}


def test_values_are_counted_in_windows_without_classes(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """Every inference is in a window with one stream per output; the heartbeat states that the outputs were numbers."""
    drop(_images(tiny, 12))
    running = child(bundle(reference_bin=_of_values(tiny)), window_ms=60_000)
    beat = running.until("beat", lambda frame: frame.header["n"] > 0).header
    assert beat["classes"] == [beat["n"]]
    assert running.end() == 0
    window = next(frame for frame in running.heard if frame.kind == "window")
    assert (window.header["streams"], window.header["classes"]) == (STREAMS, 0)
    counters, _ = leb128.decode(window.payload, STREAMS * 17)
    assert sum(counters[: STREAMS * 16]) + sum(counters[STREAMS * 16 :]) == STREAMS * window.header["n"]


def test_no_input_of_a_regression_becomes_a_sample(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """The server has no labels for numbers, so requested samples are not sent."""
    running = child(bundle(reference_bin=_of_values(tiny)), window_ms=60_000)
    running.tell(type="samples", request="r", count=3, budget_bytes=1 << 20, lane="audit")
    running.until("beat")
    drop(_images(tiny, 6))
    running.until("beat", lambda frame: frame.header["n"] > 0)
    assert running.end() == 0
    assert not [frame for frame in running.heard if frame.kind in {"sample", "fault"}]


def test_swaps_from_classes_to_values(bundle: Callable, child: Callable, tiny: dict) -> None:
    """A release of another task replaces the running one; windows carry the shape of their own."""
    first, second = bundle(), bundle(version=2, reference_bin=_of_values(tiny, 2))
    running = child(first, window_ms=60_000)
    running.until("beat")
    running.tell(type="swap", bundle=str(second))
    running.until("swapped")
    assert running.end() == 0
    shapes = [frame.header["classes"] for frame in running.heard if frame.kind == "window"]
    assert shapes == [3, 0]
