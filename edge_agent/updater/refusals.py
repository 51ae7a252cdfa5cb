"""Which refusals are final and which are temporary: one table from code to course of action. Pure.

A code that is not in the table is ``DOUBTFUL``: neither retried forever nor given up after one try.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from edge_agent.device.sane_clock import ClockFault


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
    # the device's properties
    "hardware_mismatch": _F,
    "runtime_missing": _F,
    "task_missing": _F,
    "golden_mismatch": _F,
    "memory_over_budget": _F,
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
