"""When a release is refused on this device, and what follows from a refusal. Pure.

``admit`` decides from ``desired``, signed metadata and the device's facts whether a release may run here. Nothing in
``desired`` is trusted: digest and length come from signed metadata and must equal it. ``COURSES`` is one table from the
code of a refusal to the course of action: final, or temporary. A code that is not in the table is ``DOUBTFUL``: neither
retried forever nor given up after one try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.device.sane_clock import ClockFault
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
        return Refusal("runtime_missing", f"{text}: install the extra {custom.runtime} of tinyfleet or tinyfleet-agent")
    return None


def space(length_bytes: int, present_bytes: int, free_bytes: int) -> Refusal | None:
    """Return a refusal if the rest of a download does not fit on the disk."""
    missing_bytes = length_bytes - present_bytes
    if missing_bytes > free_bytes:
        return Refusal("no_space", f"Expected {missing_bytes} bytes free beside the reserve, got {free_bytes}")
    return None


class Course(StrEnum):
    """The course of action after a refusal."""

    FINAL = "final"  # this release will be refused here again: a person must act
    PASSING = "passing"  # a temporary condition: deferred, and retried until the attempt's deadline
    DOUBTFUL = "doubtful"  # may be either: deferred a few times, then final


_F, _P, _D = Course.FINAL, Course.PASSING, Course.DOUBTFUL
COURSES: Mapping[str, Course] = {
    # signatures and signed contents
    "signature_invalid": _F,
    "metadata_rollback": _F,
    "unknown_target": _F,
    "too_large": _F,
    "target_mismatch": _F,  # desired names another digest or length than the signed one
    "below_security_floor": _F,
    "floor_lost": _F,
    "root_lost": _F,
    "bundle_invalid": _F,
    "import_lost": _F,  # what a person brought is no longer there
    # the device's properties
    "hardware_mismatch": _F,
    "runtime_missing": _F,
    "task_missing": _F,
    "golden_mismatch": _F,
    "memory_over_budget": _F,
    # the shadow
    "shadow_disagreement": _F,
    "shadow_errors": _F,
    "shadow_too_few": _F,
    "shadow_no_room": _F,
    "challenger_crashed": _F,
    "challenger_hung": _F,
    "challenger_out_of_memory": _F,
    # the end of an attempt
    "deadline_passed": _F,
    "superseded": _F,
    # the clock: expired metadata means a clock that runs ahead, or a server that will sign again
    ClockFault.BEHIND.value: _P,
    ClockFault.AHEAD.value: _P,
    "metadata_expired": _P,
    # network and disk
    "metadata_unreachable": _P,
    "download_failed": _P,
    "no_space": _P,
    "disk_failed": _P,
    "launch_failed": _P,  # no process could be started: memory or process table is full
    # the application, or the program that is asked for it
    "application_busy": _P,
    "hook_failed": _P,
    "hook_hung": _P,
    # another program may have held the processor or the memory; a cable or a proxy may have changed the bytes
    "digest_mismatch": _D,
    "latency_over_budget": _D,
    "child_crashed": _D,
    "out_of_memory": _D,
    "stuck": _D,
    "internal": _D,
}
DOUBTFUL_TRIES = 3
_HTTP = "http_"
_REDIRECTS, _CLIENT_ERRORS = range(300, 400), range(400, 500)


def course(code: str) -> Course:
    """Return the course of action for an attempt that was refused with ``code``."""
    status = code.removeprefix(_HTTP)
    if code.startswith(_HTTP) and status.isdecimal():
        if int(status) in _CLIENT_ERRORS:
            return Course.FINAL
        return Course.PASSING if int(status) in _REDIRECTS else Course.DOUBTFUL  # a captive portal redirects
    return COURSES.get(code, Course.DOUBTFUL)
