"""Decides whether a release may run on this device, from ``desired``, signed metadata and the device's facts. Pure.

Nothing in ``desired`` is trusted: digest and length come from signed metadata and must equal it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.updater.ports import Refusal, TargetInfo
from wire.messages import Desired
from wire.tuf_target import MAX_TARGET_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """Facts of the device; ``free_bytes`` excludes the reserve, ``security_floor`` is None when it is lost."""

    hardware: str
    runtimes: tuple[str, ...]
    security_floor: int | None
    free_bytes: int


def admit(  # noqa: PLR0911 - one return a rule, in order
    desired: Desired, target: TargetInfo, device: DeviceFacts
) -> Refusal | None:
    """Return why the release may not run here, or None."""
    custom = target.custom
    if target.length_bytes > MAX_TARGET_BYTES:
        return Refusal("too_large", f"Expected at most {MAX_TARGET_BYTES} bytes, got {target.length_bytes}")
    if target.sha256 != desired.sha256 or (desired.length_bytes and desired.length_bytes != target.length_bytes):
        text = f"Expected what was signed, {target.sha256[:12]}… of {target.length_bytes} bytes, got "
        return Refusal("target_mismatch", f"{text}{desired.sha256[:12]}… of {desired.length_bytes}")
    if device.security_floor is None:
        text = "Expected the security floor in floor.json, its copy or a slot, got none that is whole"
        return Refusal("floor_lost", f"{text}: what serves goes on; enrol this device again in a new --state")
    if custom.security_floor < device.security_floor:
        text = f"Expected a security floor of at least {device.security_floor}, got {custom.security_floor}"
        return Refusal("below_security_floor", text)
    if custom.hardware and device.hardware not in custom.hardware:
        return Refusal("hardware_mismatch", f"Expected one of {', '.join(custom.hardware)}, got {device.hardware}")
    if custom.runtime and custom.runtime not in device.runtimes:
        text = f"Expected the runtime {custom.runtime!r}, got {', '.join(device.runtimes) or 'none'}"
        return Refusal("runtime_missing", f"{text}: install tinyfleet[{custom.runtime}]")
    return None


def space(length_bytes: int, present_bytes: int, free_bytes: int) -> Refusal | None:
    """Return a refusal if the rest of a download does not fit on the disk."""
    missing_bytes = length_bytes - present_bytes
    if missing_bytes > free_bytes:
        return Refusal("no_space", f"Expected {missing_bytes} bytes free beside the reserve, got {free_bytes}")
    return None
