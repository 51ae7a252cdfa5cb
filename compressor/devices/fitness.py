"""Whether a device is fit for a rollout, as its server sees it: online, on its release, last update, self-test, drift.

Decides what counts as fit. Needs the operator token: a self-test is a command.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressor.devices.connection import Connection
from compressor.errors import DeviceMeasureError

_ONLINE = frozenset({"init", "ready", "degraded", "updating"})
_BAD_ENDS = frozenset({"rolled_back", "refused"})
_MISSED_WINDOWS, GRACE_S = 3, 30.0
_POLL_S = 0.5
_ANSWER_S = 60.0
_FIRST_ERROR = 400


@dataclass(frozen=True, slots=True)
class FitnessCheck:
    """One check and its result."""

    name: str
    ok: bool
    text: str


class FitnessClient(Connection):
    """Asks the server about a device, with the operator token."""

    def checks(self, device: str, *, release: str = "", window_s: float = 3600.0) -> tuple[FitnessCheck, ...]:
        """Return every check of ``device``; ``release``: that it must run, "": the one that the server desires.

        ``window_s``: the length of its drift windows.

        Raises:
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If it refuses, or knows no such device.
        """
        known = self._ask("GET", f"/api/devices/{device}")
        wanted = release or known["desired_release"]
        update = (known["reported"] or {}).get("update") or {}
        phase, code = update.get("phase", "idle"), update.get("code", "")
        now_s = time.time()
        began_ms = known["enrolled_ms"]
        if known["release"]:
            began_ms = self._ask("GET", f"/api/devices/{device}/ran?at_ms={int(now_s * 1000)}")["from_ms"]
        rows = self._ask("GET", f"/api/evidence?device={device}&limit=1")["evidence"]
        return (
            FitnessCheck("online", known["last_seen_ms"] > 0 and known["state"] in _ONLINE, known["state"]),
            FitnessCheck(
                "release",
                known["release"] == wanted,
                f"runs {known['release'] or 'nothing'}, wanted {wanted or 'none'}",
            ),
            FitnessCheck("last update", phase not in _BAD_ENDS, f"{phase} {code}".strip()),
            self._selftest(device),
            drift_window(rows[0] if rows else None, now_s, began_s=began_ms / 1000, window_s=window_s),
        )

    def _selftest(self, device: str) -> FitnessCheck:
        path = f"/api/devices/{device}/commands"
        sent = self._ask("POST", path, {"verb": "selftest", "ttl_s": _ANSWER_S})
        deadline_s = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline_s:
            answer = self._ask("GET", f"{path}/{sent['id']}")
            if answer["answered_ms"]:
                return FitnessCheck("self-test", answer["ok"], answer["text"] or json.dumps(answer["data"]))
            time.sleep(_POLL_S)
        return FitnessCheck("self-test", ok=False, text=f"no answer within {_ANSWER_S:g} s")

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - whatever JSON the server answers
        answer = self._send(method, path, json=body)
        if answer.status_code >= _FIRST_ERROR:
            message = f"Expected {path} to be answered, got HTTP {answer.status_code}: {answer.text[:300]}"
            raise DeviceMeasureError(message)
        return answer.json()


def drift_window(newest: Mapping[str, Any] | None, now_s: float, *, began_s: float, window_s: float) -> FitnessCheck:
    """Return the check of the newest drift window, which is overdue after three windows without one.

    ``began_s``: when the device began to run its release: one that is new has no window before its first has ended.
    A window with a fault of the sensor or the clock fails.
    """
    allowed_s = _MISSED_WINDOWS * window_s + GRACE_S
    if newest is None:
        age_s = now_s - began_s
        text = f"none yet: it has run for {age_s:.0f} s, the first is due by {allowed_s:.0f} s"
        return FitnessCheck("drift window", age_s < allowed_s, text)
    age_s = now_s - newest["start_ms"] / 1000
    fault = f", {newest['fault']}" if newest["fault"] else ""
    text = f"newest began {age_s:.0f} s ago, {newest['n']} inferences, {newest['phase']}{fault}"
    return FitnessCheck("drift window", age_s < allowed_s and not fault, text)
