"""The software of a device as a CycloneDX 1.6 document in JSON. Pure; equal lists have equal documents.

Source: ECMA-424, CycloneDX 1.6: https://cyclonedx.org/docs/1.6/json/. Packages have a package URL
(https://github.com/package-url/purl-spec); the name in one is normalized as PEP 503 says.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from urllib.parse import quote

from wire.codec import Json
from wire.software import ComponentKind, SoftwareComponent, SoftwareList, software_digest

MEDIA_TYPE = "application/vnd.cyclonedx+json; version=1.6"
_TYPES = {
    ComponentKind.AGENT: "application",
    ComponentKind.PYTHON: "platform",
    ComponentKind.RUNTIME: "framework",
    ComponentKind.PACKAGE: "library",
    ComponentKind.OS: "operating-system",
    ComponentKind.KERNEL: "operating-system",
    ComponentKind.ARCHITECTURE: "platform",
    ComponentKind.BOARD: "device",
    ComponentKind.MODEL: "machine-learning-model",
}
_PYPI = frozenset({ComponentKind.AGENT, ComponentKind.RUNTIME, ComponentKind.PACKAGE})
_SERIAL = "urn:tinyfleet:software:"


def cyclonedx_document(software: SoftwareList, *, device: str = "", since_ms: int = 0) -> dict[str, Json]:
    """Return the document. ``device``: its name, in the metadata; ``since_ms``: its time stamp, 0 for none.

    The serial number follows from the digest and the device: the same software has the same number, whenever it is
    written.
    """
    digest = software_digest(software)
    metadata: dict[str, Json] = {"properties": [{"name": "tinyfleet:sha256", "value": digest}]}
    if since_ms:
        at = datetime.fromtimestamp(since_ms / 1000, UTC)
        metadata["timestamp"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if device:
        metadata["component"] = {"type": "device", "bom-ref": f"device:{device}", "name": device}
    if software.left_out:
        metadata["properties"] = [
            {"name": "tinyfleet:sha256", "value": digest},
            {"name": "tinyfleet:left_out", "value": str(software.left_out)},
        ]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{_SERIAL}{device}:{digest}')}",
        "version": 1,
        "metadata": metadata,
        "components": [_component(one) for one in software.components],
    }


def _component(one: SoftwareComponent) -> dict[str, Json]:
    component: dict[str, Json] = {
        "type": _TYPES[one.kind],
        "bom-ref": f"{one.kind.value}:{one.name}@{one.version}:{one.sha256[:16]}",
        "name": one.name,
        "properties": [{"name": "tinyfleet:kind", "value": one.kind.value}],
    }
    if one.version:
        component["version"] = one.version
    if one.kind in _PYPI:
        at = f"@{quote(one.version, safe='')}" if one.version else ""
        component["purl"] = f"pkg:pypi/{quote(one.key, safe='')}{at}"
    if one.sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": one.sha256}]
    return component
