"""The contents of a bundle: golden vectors, bill of materials, card, certificate."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from compressor import tasks
from compressor.errors import PackageError
from compressor.gates.certificate import Certificate, Line, for_bundle
from compressor.measurement.predictions import Predictions
from compressor.release.package import Golden, Parts, bill_of_materials, card, read_golden, write_golden
from compressor.tasks.classification.evidence import golden_rows
from edge_agent.errors import GoldenError
from edge_agent.inference import probe
from wire.bundle import Bundle
from wire.manifest import Manifest, TensorSpec
from wire.reference import Reference


def _golden() -> Golden:
    rng = np.random.default_rng(0)
    return Golden(rng.normal(size=(4, 1, 2, 2)).astype(np.float32), np.eye(4, dtype=np.float32), np.arange(4))


def _parts() -> Parts:
    manifest = Manifest(
        model="m",
        version=3,
        target="t",
        inputs=(TensorSpec(name="input", shape=(-1, 1, 2, 2)),),
        labels=("a", "b"),
        lineage={"data": "1"},
    )
    line = Line(
        name="latency_p95_ms", verdict="pass", value=1.25, bound=1.25, limit=5.0, n=0, text="1.25, allowed at most 5"
    )
    figures = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "latency_p95_ms": 1.25}
    certificate = Certificate(
        verdict="pass", model="m", version=3, gates=(line,), figures=figures, counts={"slice:x": (1, 0, 10)}
    )
    return Parts(
        manifest=manifest,
        artifact=b"model",
        reference=Reference(),
        golden=_golden(),
        certificate=certificate,
        network="net",
        dataset="data",
        task=tasks.named("classification"),
    )


def test_golden_vectors_have_no_clock_in_them() -> None:
    """Equal vectors have equal bytes, and are read unchanged."""
    data = write_golden(_golden())
    assert data == write_golden(_golden())
    assert np.array_equal(read_golden(data).inputs, _golden().inputs)


def test_foreign_bytes_are_no_golden_vectors() -> None:
    """Garbage is a coded error."""
    with pytest.raises(PackageError, match=r"golden\.npz"):
        read_golden(b"PK garbage")


@pytest.mark.parametrize("header", [b"{'descr': '<f4', 'shape': (3,", b"(((((" * 90, b"{'descr': 7}", b"\xff\xfe"])
def test_an_array_whose_header_is_damaged_is_a_coded_error(header: bytes) -> None:
    """NumPy parses it as Python text, whose errors are no errors of values: on this host and on a device."""
    text = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in ("inputs", "logits", "labels"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(PackageError, match=r"golden\.npz"):
        read_golden(data.getvalue())
    files = {"golden.npz": data.getvalue()}
    with pytest.raises(GoldenError, match="Expected the arrays inputs and logits"):
        probe.read_golden(Bundle(manifest=Manifest(), files=files))


def test_golden_rows_are_right_and_cover_the_classes() -> None:
    """Only right and confident rows are selected, each class in turn."""
    labels = np.arange(60) % 3
    logits = np.eye(3, dtype=np.float32)[labels]
    logits[0] = logits[0][::-1]
    rows = golden_rows(labels, Predictions(logits, np.zeros((60, 0), np.float32)), 16)
    assert 0 not in rows
    assert set(labels[rows].tolist()) == {0, 1, 2}


def test_a_model_that_gets_nothing_right_has_golden_rows_all_the_same() -> None:
    """A device must repeat answers, right or wrong; without any the bundle could not be made."""
    labels = np.arange(60) % 3
    logits = np.eye(3, dtype=np.float32)[(labels + 1) % 3]
    assert len(golden_rows(labels, Predictions(logits, np.zeros((60, 0), np.float32)), 16)) == 16


def test_weights_from_elsewhere_claim_no_training_data() -> None:
    """The data that judged a model are not those it was trained on, and its architecture is not known."""
    parts = replace(_parts(), network="model from an ONNX file", elsewhere=True)
    said = card(parts, parts.certificate)
    assert "A model from an ONNX file that sorts" in said
    assert "Trained elsewhere, calibrated and judged on data." in said
    document = json.loads(bill_of_materials(parts, parts.certificate))
    model = next(item for item in document["components"] if item["type"] == "machine-learning-model")
    assert {"datasets", "architectureFamily"}.isdisjoint(model["modelCard"]["modelParameters"])


def test_the_bill_of_materials_is_cyclonedx() -> None:
    """Every required field of an ML-BOM is there and every reference resolves."""
    document = json.loads(bill_of_materials(_parts(), _parts().certificate))
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    components = {item["bom-ref"]: item for item in document["components"]}
    assert len(components) == len(document["components"])
    model = next(item for item in components.values() if item["type"] == "machine-learning-model")
    assert model["modelCard"]["modelParameters"]["datasets"][0]["ref"] in components
    known = {*components, document["metadata"]["component"]["bom-ref"]}
    assert all({item["ref"], *item["dependsOn"]} <= known for item in document["dependencies"])


def test_the_bill_of_materials_keeps_to_the_official_schema() -> None:
    """CycloneDX 1.6, strict; the schema is that of the reference library and detects a missing type."""
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    document = json.loads(bill_of_materials(_parts(), _parts().certificate))
    assert validator.validate_str(json.dumps(document)) is None
    del document["components"][0]["type"]
    assert validator.validate_str(json.dumps(document)) is not None


def test_what_was_timed_stays_on_the_build_host() -> None:
    """The bundle's certificate keeps verdict and limit of a latency gate, not its value."""
    kept = for_bundle(_parts().certificate)
    assert "latency_p95_ms" not in kept.figures
    assert (kept.gates[0].verdict, kept.gates[0].limit, kept.gates[0].value) == ("pass", 5.0, None)


def test_the_card_has_measured_numbers_only() -> None:
    """Accuracy and slices come from the certificate."""
    text = card(_parts(), for_bundle(_parts().certificate))
    assert "| accuracy | 0.9 |" in text
    assert "| x | 10 | +10.00 points |" in text
    assert "1.25" not in text
