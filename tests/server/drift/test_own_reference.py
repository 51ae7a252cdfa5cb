"""An artifact against its own reference raises no alarm; a reference that another artifact made is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.drift.detection.detector_bank import DetectorSettings, Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.reference import proportions, training_profile
from server.drift.detection.slot_update import FoldState, fold_slot
from server.registry.versions import Versions
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.errors import ReferenceProfileError
from wire.histogram import BINS
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.reference import Context, Reference, StreamSpec, write_reference
from wire.tuf_target import TargetCustom

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet
    from tests.server.drift.conftest import FleetWorld

STREAMS, DEVICES, WINDOWS, SAMPLES = 23, 12, 250, 60
KEY = ("ef" * 16, "cd" * 16)
ARTIFACT = b"int8 model"
SETTINGS = DetectorSettings(
    baseline_windows=12, z=4.0, epsilon=0.0, log_alpha=float(np.log(0.05 / 24)), window_ms=3_600_000
)


def _reference(artifact_sha256: str = "cd" * 32) -> Reference:
    """Return a profile of 2,000 samples; some streams have equal masses, others are almost in one bin."""
    dice = np.random.default_rng(3)
    shapes = [dice.dirichlet(np.full(BINS, weight)) for weight in np.geomspace(0.2, 50, STREAMS)]
    counts = np.concatenate([dice.multinomial(2000, p) for p in shapes])
    return Reference(
        artifact_sha256=artifact_sha256,
        streams=tuple(StreamSpec(name=f"s{i}", kind="input") for i in range(STREAMS)),
        contexts=(Context(name="default", n=2000, n_effective=2000, counts=tuple(int(n) for n in counts)),),
        classes=1,
        confidence_bins=1,
        table_right=(1,),
        table_seen=(1,),
        edges=(tuple(float(i) for i in range(BINS - 1)),) * STREAMS,
    )


def _windows(reference: Reference) -> Sequence[Mapping[tuple[str, str], list[Observation]]]:
    """Return windows whose counts are drawn from the reference's own."""
    dice, counts = np.random.default_rng(4), np.array(reference.contexts[0].counts).reshape(STREAMS, BINS)
    p = counts / counts.sum(axis=1, keepdims=True)
    drawn = dice.multinomial(SAMPLES, p, size=(WINDOWS, DEVICES, STREAMS))
    return [{KEY: [Observation(f"d{i}", row) for i, row in enumerate(window)]} for window in drawn]


def test_windows_of_the_reference_itself_raise_no_alarm() -> None:
    """Neither against training, nor against the own baseline, nor in any pool, over 3,000 device windows."""
    reference = _reference()
    state, sites = FoldState(), {f"d{i}": {"site": f"site-{i % 3}"} for i in range(DEVICES)}
    state.open_bank(KEY, ScoreColumns(STREAMS), training_profile(reference))
    limit = np.log(DEVICES) - SETTINGS.log_alpha
    for slot, window in enumerate(_windows(reference)):
        outcome = fold_slot(state, slot, window, sites, SETTINGS)
        assert not outcome.flagged
        assert not outcome.pool_alarms
        assert state.banks[KEY].training_values().max() < limit


def test_windows_of_another_artifact_do_alarm() -> None:
    """The same fleet under the float model's reference: the case that the digest check prevents."""
    reference = _reference()
    state = FoldState()
    other = proportions(np.roll(np.array(reference.contexts[0].counts).reshape(STREAMS, BINS), 2, axis=1)) * 2000
    moved = replace(
        reference,
        contexts=(Context(name="default", n=2000, n_effective=2000, counts=tuple(int(n) for n in other.reshape(-1))),),
    )
    state.open_bank(KEY, ScoreColumns(STREAMS), training_profile(moved))
    for slot, window in enumerate(_windows(reference)[:3]):
        fold_slot(state, slot, window, {}, SETTINGS)
    assert state.banks[KEY].training_values().min() > np.log(DEVICES) + np.log(24 / 0.05)


def _register(versions: Versions, *, signed_for: str) -> str:
    """Register a bundle whose release is signed for the artifact ``signed_for``; return its reference's id."""
    reference = _reference(sha256_hex(ARTIFACT))
    manifest = Manifest(
        model="m", version=1, target="pi", inputs=(TensorSpec(name="x"),), outputs=(TensorSpec(name="logits"),),
        preprocessing=Preprocessing(width=8, height=8), labels=("0",),
    )  # fmt: skip
    data = build_bundle(manifest, {"model.onnx": ARTIFACT, "reference.bin": write_reference(reference)})
    versions.blobs.put(sha256_hex(data), [data])
    custom = TargetCustom(
        model="m", version=1, target="pi", runtime="onnx", artifact_sha256=signed_for, ref_id=reference.ref_id
    )
    versions.register("m-1/pi.tfb", custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=1)
    return reference.ref_id


def test_a_reference_of_another_artifact_than_the_signed_one_is_refused(fleet: MemoryFleet) -> None:
    """By digest, where the server reads it; the release's own is given."""
    versions = fleet.app.parts.versions
    ref_id = _register(versions, signed_for=sha256_hex(b"float model"))
    with pytest.raises(ReferenceProfileError, match="running the exported artifact itself"):
        versions.reference(ref_id)
    _register(versions, signed_for=sha256_hex(ARTIFACT))
    assert versions.reference(ref_id[:32]) is not None


def test_windows_of_an_artifact_that_did_not_make_the_reference_are_not_compared_with_it(world: FleetWorld) -> None:
    """The operator sees the reason, once, as a fault of the device; nothing is judged by it."""
    world.keys = {"d1": ("a1" * 16, "b9" * 16)}
    world.live(15)
    banks = world.service._moment.state.banks
    assert set(banks) == {("a1" * 16, "b1" * 16)}
    (verdict,) = world.service.verdicts.latest()
    assert (verdict.devices, verdict.detail) == (("d1",), "reference_invalid")
    assert "made by" in verdict.cause
