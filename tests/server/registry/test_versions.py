"""Releases that may be rolled out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.errors import UnknownBlobError, UnknownReleaseError
from server.registry.versions import Versions
from wire.canonical import sha256_hex
from wire.tuf_target import TargetCustom

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet


def _register(versions: Versions, version: int, target: str = "gateway") -> None:
    data = f"{version}{target}".encode()
    versions.blobs.put(sha256_hex(data), [data])
    custom = TargetCustom(model="m", version=version, target=target, certificate={"accuracy": 0.9})
    versions.register(
        f"m-{version}/{target}.tfb", custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=version
    )


def test_finds_a_release_by_name_and_target(fleet: MemoryFleet) -> None:
    """One release may have a bundle for each target class."""
    versions = fleet.app.parts.versions
    for version, target in ((1, "gateway"), (1, "pi"), (2, "gateway")):
        _register(versions, version, target)
    assert [release.path for release in versions.releases()] == ["m-1/gateway.tfb", "m-1/pi.tfb", "m-2/gateway.tfb"]
    assert versions.release("m-1", "pi").target == "pi"
    assert versions.release("m-2").certificate == {"accuracy": 0.9}
    with pytest.raises(UnknownReleaseError, match="Expected a target of m-1, gateway or pi, got 'esp'"):
        versions.release("m-1", "esp")


def test_registering_again_keeps_the_time(fleet: MemoryFleet) -> None:
    """Every start registers the published releases again."""
    versions = fleet.app.parts.versions
    _register(versions, 1)
    first = versions.release("m-1")
    versions.register(first.path, first.custom, sha256=first.sha256, length_bytes=first.length_bytes, now_ms=99)
    assert versions.releases() == (first,)


def test_refuses_a_release_without_its_bundle(fleet: MemoryFleet) -> None:
    """Devices could not fetch it."""
    with pytest.raises(UnknownBlobError):
        fleet.app.parts.versions.register("p", TargetCustom(), sha256="0" * 64, length_bytes=1, now_ms=1)
    with pytest.raises(UnknownReleaseError, match="compressor publish"):
        fleet.app.parts.versions.release("m-9")
