"""The signed TUF target's ``custom`` data about a release, besides its length and digest.

``security_floor`` is separate from ``version``: a device refuses releases below the highest floor it has committed, so
that a legitimate rollback to an older, safe version stays possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wire.codec import OMIT_DEFAULT, Json

MAX_TARGET_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A patch that makes the target from the bundle ``base_sha256``; the other fields are the patch's own."""

    base_sha256: str = ""
    sha256: str = ""
    length_bytes: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCustom:
    """The custom data of one target. The target path is ``<release>/<target>.tfb``.

    ``certificate``: the gate's figures (accuracy and its bound, size, latency budget) for people.
    ``deltas``: patches (``wire.patch``) from earlier bundles; a device that has one of these fetches the patch, and
    checks the result against the target's own digest.
    """

    model: str = ""
    version: int = 0
    target: str = ""
    runtime: str = ""
    opset: int = 0
    hardware: tuple[str, ...] = ()
    security_floor: int = 0
    artifact_sha256: str = ""
    ref_id: str = ""
    certificate: Mapping[str, Json] = field(default_factory=dict)
    deltas: tuple[Delta, ...] = field(default=(), metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


def target_path(model: str, version: int, target: str) -> str:
    """Return the TUF path of a bundle."""
    return f"{model}-{version}/{target}.tfb"
