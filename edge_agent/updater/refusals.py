"""Which refusals are final and which pass: one table from code to what the updater does. Pure.

A code that the table does not name is ``DOUBTFUL``: neither tried for ever nor given up after one try.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from edge_agent.device.sane_clock import ClockFault


class Course(StrEnum):
    """What becomes of a refused attempt."""

    FINAL = "final"  # this release will be refused here again: a person must act
    PASSING = "passing"  # a condition of the moment: deferred, tried again for as long as the attempt may last
    DOUBTFUL = "doubtful"  # may be either: deferred a few times, then final


_F, _P, _D = Course.FINAL, Course.PASSING, Course.DOUBTFUL
COURSES: Mapping[str, Course] = {
    # what was signed, and by whom
    "signature_invalid": _F,
    "metadata_rollback": _F,
    "unknown_target": _F,
    "too_large": _F,
    "target_mismatch": _F,  # desired names another digest or length than was signed
    "below_security_floor": _F,
    "floor_lost": _F,
    "root_lost": _F,
    "bundle_invalid": _F,
    # what the device is
    "hardware_mismatch": _F,
    "runtime_missing": _F,
    "task_missing": _F,
    "golden_mismatch": _F,
    "memory_over_budget": _F,
    # the end of an attempt
    "deadline_passed": _F,
    "superseded": _F,
    # the clock: expired metadata is a clock that runs ahead, or a server that will sign anew
    ClockFault.BEHIND.value: _P,
    ClockFault.AHEAD.value: _P,
    "metadata_expired": _P,
    # network and disk
    "metadata_unreachable": _P,
    "download_failed": _P,
    "no_space": _P,
    "disk_failed": _P,
    "launch_failed": _P,  # no process could be started: memory or process table are full
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
    """Return what becomes of an attempt that was refused with ``code``."""
    status = code.removeprefix(_HTTP)
    if code.startswith(_HTTP) and status.isdecimal():
        if int(status) in _CLIENT_ERRORS:
            return Course.FINAL
        return Course.PASSING if int(status) in _REDIRECTS else Course.DOUBTFUL  # a captive portal redirects
    return COURSES.get(code, Course.DOUBTFUL)
