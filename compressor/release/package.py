"""Builds a bundle from its parts: manifest, golden vectors, bill of materials, card. Same inputs, same bytes.

Decides what a release states about itself. Every number in the card and the bill comes from the certificate; nothing is
measured here.
"""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor import formats, plugins
from compressor.errors import PackageError
from compressor.gates.certificate import Certificate, for_bundle, write_certificate
from compressor.gates.metrics import SLICE
from compressor.tasks import Task
from edge_agent import declarations
from wire import __version__
from wire.bundle import BILL_OF_MATERIALS, CARD, CERTIFICATE, GOLDEN, MANIFEST, REFERENCE, Bundle, build_bundle
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import Json
from wire.errors import WireError
from wire.manifest import Manifest
from wire.reference import Reference, write_reference

GOLDEN_KEYS = ("inputs", "logits", "labels")
GOLDEN_MAX = 16
EXPECTED_FILES = (REFERENCE, GOLDEN, CERTIFICATE, BILL_OF_MATERIALS, CARD)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_NAMESPACE = uuid.UUID("6f1d8a52-6d0b-5f0e-9d0e-0d7f5b1c2a11")
_LIMITS = (
    "Latency and memory depend on the host: `compressor gate` and each device measure them again. "
    "Nothing is claimed for images unlike those of the gate split; drift is watched against `reference.bin`."
)


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Vectors that every device runs before it activates a model.

    ``inputs``: float32 (K, ...); ``logits``: float32 (K, classes), the artifact's outputs on the build host (for a
    regression in the values' unit); ``labels``: int64 (K,), or float32 (K, D).
    """

    inputs: NDArray[np.float32]
    logits: NDArray[np.float32]
    labels: NDArray[Any]


def write_golden(golden: Golden) -> bytes:
    """Return ``golden`` as an npz without timestamps and without pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in zip(GOLDEN_KEYS, (golden.inputs, golden.logits, golden.labels), strict=True):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(info, member.getvalue(), compresslevel=9)
    return buffer.getvalue()


def read_golden(data: bytes) -> Golden:
    """Return the vectors in ``data``.

    Raises:
        PackageError: If it is not an npz of the three arrays.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Golden(*(arrays[name] for name in GOLDEN_KEYS))
    except Exception as error:  # NumPy parses a header as Python text, and a zip is what it is: both may raise anything
        message = f"Expected {GOLDEN} with {', '.join(GOLDEN_KEYS)}, got: {error}"
        raise PackageError(message) from error


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Parts:
    """The parts of a bundle of ``task``. ``network`` and ``dataset`` name the architecture and the data.

    ``elsewhere``: the weights were trained elsewhere, so that the data are only those of the gates.
    """

    manifest: Manifest
    artifact: bytes
    reference: Reference
    golden: Golden
    certificate: Certificate
    network: str
    dataset: str
    task: Task
    elsewhere: bool = False


def make_bundle(parts: Parts) -> bytes:
    """Return the bytes of the bundle.

    Raises:
        PackageError: If the parts are inconsistent.
    """
    certificate = for_bundle(parts.certificate)
    try:
        return build_bundle(
            parts.manifest,
            {
                parts.manifest.artifact: parts.artifact,
                REFERENCE: write_reference(parts.reference),
                GOLDEN: write_golden(parts.golden),
                CERTIFICATE: write_certificate(certificate),
                BILL_OF_MATERIALS: bill_of_materials(parts, certificate),
                CARD: card(parts, certificate).encode(),
            },
        )
    except WireError as error:
        message = f"Expected parts that make a bundle, got: {error}"
        raise PackageError(message) from error


def bill_of_materials(parts: Parts, certificate: Certificate) -> bytes:
    """Return a CycloneDX ML-BOM as JSON.

    Source: CycloneDX 1.6 (ECMA-424), ``bom-1.6.schema.json``: component type ``machine-learning-model``, modelCard.
    """
    manifest, digest = parts.manifest, sha256_hex(parts.artifact)
    run_with = declarations.runtime(manifest.runtime).distribution
    names = (*formats.named(manifest.runtime).made_with, run_with, "numpy")
    libraries: list[Json] = [_library(name) for name in names if name]
    model_ref, data_ref = f"model:{manifest.release}", f"data:{parts.dataset}"
    serial = uuid.uuid5(_NAMESPACE, f"{manifest.release}/{manifest.target}/{digest}")
    model: dict[str, Json] = {
        "type": "machine-learning-model",
        "bom-ref": model_ref,
        "name": manifest.model,
        "version": str(manifest.version),
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "modelCard": _model_card(parts, certificate, data_ref),
        "properties": [{"name": f"tinyfleet:{name}", "value": text} for name, text in sorted(manifest.lineage.items())],
    }
    data: dict[str, Json] = {
        "type": "data",
        "bom-ref": data_ref,
        "name": parts.dataset,
        "data": [{"type": "dataset", "name": parts.dataset}],
    }
    document: dict[str, Json] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "tinyfleet", "version": __version__}]},
            "component": {"type": "application", "bom-ref": f"bundle:{manifest.release}", "name": manifest.release},
        },
        "components": [model, data, *libraries],
        "dependencies": [
            {"ref": f"bundle:{manifest.release}", "dependsOn": [model_ref]},
            {"ref": model_ref, "dependsOn": [data_ref, *(f"pkg:{name}" for name in names)]},
        ],
    }
    return canonical_bytes(document)


def _model_card(parts: Parts, certificate: Certificate, data_ref: str) -> dict[str, Json]:
    task, ours = parts.task, parts.network in plugins.names("compressor.networks")
    metrics = [_measured(certificate, task.score_name, task.headline[0])]
    metrics += [
        {"type": "accuracy drop", "value": f"{(lost - won) / n:.6f}", "slice": name.removeprefix("slice:")}
        for name, (lost, won, n) in _slices(certificate).items()
    ]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": f"{_sense(parts.manifest)} {task.name}",
            **({"architectureFamily": "convolutional neural network"} if ours else {}),
            "modelArchitecture": parts.network,
            **({} if parts.elsewhere else {"datasets": [{"ref": data_ref}]}),  # what it was trained on, nothing else
            "inputs": [{"format": _sense(parts.manifest)}],
            "outputs": [{"format": task.outputs}],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
    }


def _measured(certificate: Certificate, said: str, name: str) -> Json:
    """Return the figure ``name`` with its bounds for the bill; a missing one has the widest bounds."""
    figures = certificate.figures
    low, high = figures.get(f"{name}_low", 0.0), figures.get(f"{name}_high", 1.0)
    bounds: dict[str, Json] = {"lowerBound": f"{low:.6f}", "upperBound": f"{high:.6f}"}
    value = f"{figures.get(name, 0):.6f}"
    return {"type": said, "value": value, "slice": "gate split", "confidenceInterval": bounds}


def _sense(manifest: Manifest) -> str:
    """Return the kind of input that a device gives to the model, as one word."""
    front_end = manifest.preprocessing.front_end
    return {"": "image", "log_mel": "sound", "mfcc": "sound"}.get(front_end, "sensor window")


def _slices(certificate: Certificate) -> dict[str, tuple[int, ...]]:
    return {
        name: counts for name, counts in sorted(certificate.counts.items()) if name.startswith("slice:") and counts[2]
    }


def _library(name: str) -> dict[str, Json]:
    version = _version(name)
    return {
        "type": "library",
        "bom-ref": f"pkg:{name}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "0"


def card(parts: Parts, certificate: Certificate) -> str:
    """Return the model card in Markdown: what the model is, what was measured, what was not."""
    manifest, figures = parts.manifest, certificate.figures
    shape = " x ".join(str(size) for size in manifest.inputs[0].shape[1:])
    rows = [f"| {line.title} | {line.verdict} | {line.text} |" for line in certificate.gates]
    slices = _slice_rows(certificate)
    numbers = [f"| {name} | {value:.6g} |" for name, value in sorted(figures.items())]
    does = parts.task.reporting.purpose(manifest, _sense(manifest))
    trained = "Trained elsewhere, calibrated and judged" if parts.elsewhere else "Trained"
    what = (
        f"A {parts.network} that {does}, "
        f"{len(parts.artifact):,} bytes for {manifest.runtime}, input {shape}. {trained} on {parts.dataset}."
    )
    return "\n".join(
        [
            f"# {manifest.release} for {manifest.target}",
            "",
            what,
            "",
            f"Verdict: **{certificate.verdict}** against {certificate.baseline}.",
            *(certificate.remarks),
            "",
            "| gate | verdict | why |",
            "|---|---|---|",
            *rows,
            "",
            f"| slice | samples | {parts.task.change} |",
            "|---|---|---|",
            *slices,
            "",
            "| figure | measured |",
            "|---|---|",
            *numbers,
            "",
            _LIMITS,
            "",
        ]
    )


def _slice_rows(certificate: Certificate) -> list[str]:
    """Return the rows of the table of slices: drops of accuracy, or increases of a regression's error."""
    rows = [
        f"| {name.removeprefix(SLICE)} | {n} | {100 * (lost - won) / n:+.2f} points |"
        for name, (lost, won, n) in _slices(certificate).items()
    ]
    grown = {name: found for name, found in sorted(certificate.metrics.items()) if name.startswith(SLICE)}
    return rows + [f"| {name.removeprefix(SLICE)} | {one.n} | {one.drop:+.4g} |" for name, one in grown.items()]


def missing_entries(bundle: Bundle) -> tuple[str, ...]:
    """Return the entries of a complete bundle that this one lacks."""
    return tuple(name for name in EXPECTED_FILES if name not in bundle.files)


def derived_digests(bundle: Bundle) -> Mapping[str, str]:
    """Return the recomputed SHA-256 of every entry except the manifest."""
    return {name: sha256_hex(data) for name, data in sorted(bundle.files.items()) if name != MANIFEST}
