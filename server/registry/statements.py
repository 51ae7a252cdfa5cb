"""What a signed bundle states about its release: the digests it was made of, its gates, its card, its sizes.

Nothing here is the server's own knowledge. A bundle that lacks a part states nothing of it, and that is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from server.registry.blobs import Blobs
from wire.bundle import BILL_OF_MATERIALS, CARD, CERTIFICATE, GOLDEN, REFERENCE, parse_bundle
from wire.codec import Json, from_document, parse_json
from wire.errors import MessageError
from wire.manifest import Manifest

_PARTS = (REFERENCE, GOLDEN, CERTIFICATE, BILL_OF_MATERIALS, CARD)
_MAX_CERTIFICATE_BYTES = 1024 * 1024
_MAX_CARD = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedGate:
    """One gate of a certificate, as ``gate.json`` has it. ``on``: the device on which it was judged, "" for none."""

    name: str = ""
    verdict: str = ""
    value: float | None = None
    bound: float | None = None
    limit: float | None = None
    n: int = 0
    text: str = ""
    on: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name, with the device."""
        return f"{self.name} on {self.on}" if self.on else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedMetric:
    """A metric with its bounds. ``drop``: how much worse the candidate is than the baseline; ``n``: samples."""

    drop: float = 0.0
    lower: float = 0.0
    upper: float = 0.0
    n: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedCertificate:
    """The part of ``gate.json`` that people ask for.

    ``counts``: by ``accuracy``, ``slice:<name>``, ``class:<name>``: how many the candidate answers wrong that the
    baseline answers right, the reverse, and of how many.
    """

    verdict: str = ""
    baseline: str = ""
    gates: tuple[StatedGate, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    metrics: Mapping[str, StatedMetric] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    look: int = 0
    gate_split: str = ""
    gate_labels: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What one bundle states. ``certificate`` is None and ``card`` "" where it lacks them; ``missing``: these parts.

    ``sizes``: the bytes of each entry.
    """

    manifest: Manifest
    certificate: StatedCertificate | None
    card: str
    sizes: Mapping[str, int]
    missing: tuple[str, ...]

    @property
    def inputs(self) -> Mapping[str, str]:
        """The digests of what it was made of, by name, from the manifest."""
        return self.manifest.lineage


@lru_cache(maxsize=32)
def stated(blobs: Blobs, sha256: str) -> Stated:
    """Return what the bundle states; cached, because a digest always names the same bytes.

    Raises:
        UnknownBlobError: If it is not here.
        BundleError: If it is invalid.
    """
    bundle = parse_bundle(blobs.read(sha256))
    card = bundle.files.get(CARD, b"").decode("utf-8", "replace")
    certificate = _certificate(bundle.files.get(CERTIFICATE))
    missing = [name for name in _PARTS if name not in bundle.files]
    if certificate is None and CERTIFICATE in bundle.files:
        missing.append(f"{CERTIFICATE} that can be read")
    if len(card) > _MAX_CARD:
        card = card[:_MAX_CARD] + "\n\n(cut here: the rest is in the bundle)"
    return Stated(
        manifest=bundle.manifest, certificate=certificate, card=card,
        sizes={name: len(data) for name, data in sorted(bundle.files.items())}, missing=tuple(missing),
    )  # fmt: skip


def _certificate(data: bytes | None) -> StatedCertificate | None:
    if data is None:
        return None
    try:
        return from_document(StatedCertificate, parse_json(data, limit_bytes=_MAX_CERTIFICATE_BYTES))
    except MessageError:
        return None
