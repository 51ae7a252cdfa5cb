"""The fields of a new rollout that say when devices switch, how fast, what they compare before, and when it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from nicegui import ui

from server.errors import RolloutRefusedError
from server.rollout.create import shadow_of, window_of
from wire.messages import DAYS, MaintenanceWindow
from wire.shadow import ShadowOrder

_HOUR_S, _MINUTE_S, _KILO, _WHOLE = 3600, 60, 1000, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What was filled in, as the fields have it: "" and None are left out and take the server's default.

    ``start`` and ``end``: HH:MM; ``deadline_h``, ``rate_kb_s``, ``shadow_min``, ``limit_percent``, ``probation_min``,
    ``success_percent`` and ``errors_percent``: in these units.
    """

    start: str = ""
    end: str = ""
    days: tuple[str, ...] = ()
    time_zone: str = ""
    deadline_h: float | None = None
    rate_kb_s: float | None = None
    shadow_min: float | None = None
    limit_percent: float | None = None
    required: bool = False
    probation_min: float | None = None
    success_percent: float | None = None
    errors_percent: float | None = None

    @property
    def window(self) -> MaintenanceWindow | None:
        """The maintenance window, None if no field of it is filled in.

        Raises:
            RolloutRefusedError: If a part of it is missing or impossible.
        """
        if not (self.start or self.end or self.days or self.time_zone):
            return None
        return window_of(self.start, self.end, self.days, self.time_zone)

    @property
    def deadline_s(self) -> float | None:
        """The deadline in seconds, None for the default."""
        return None if self.deadline_h is None else self.deadline_h * _HOUR_S

    @property
    def probation_s(self) -> float | None:
        """How long a device must stay healthy before it commits, None for the default."""
        return None if self.probation_min is None else self.probation_min * _MINUTE_S

    @property
    def success_ratio(self) -> float | None:
        """The share of a group that opens the next one, None for the default."""
        return _ratio(self.success_percent, "devices that must commit before the next group")

    @property
    def error_ratio(self) -> float | None:
        """The share of failures in a group above which the rollout pauses, None for the default."""
        return _ratio(self.errors_percent, "failures above which it pauses")

    @property
    def max_bytes_per_s(self) -> int:
        """The rate limit, 0 for none."""
        return round((self.rate_kb_s or 0) * _KILO)

    @property
    def shadow(self) -> ShadowOrder | None:
        """The comparison before the switch, None if it has no length.

        Raises:
            RolloutRefusedError: If it has a limit without a length, or a number is impossible.
        """
        if not self.shadow_min:
            if self.limit_percent is not None or self.required:
                raise RolloutRefusedError("Expected minutes of comparison beside its limit, got none")
            return None
        limit = 1.0 if self.limit_percent is None else self.limit_percent / 100
        return shadow_of(self.shadow_min * _MINUTE_S, limit, required=self.required)


def _ratio(percent: float | None, what: str) -> float | None:
    if percent is not None and not 0 <= percent <= _WHOLE:
        raise RolloutRefusedError(f"Expected from 0 to 100 percent of {what}, got {percent:g}")
    return None if percent is None else percent / _WHOLE


@dataclass(slots=True, kw_only=True)
class ConditionsForm:
    """The fields on one visitor's page."""

    start: ui.input
    end: ui.input
    days: ui.select
    time_zone: ui.input
    deadline: ui.number
    rate: ui.number
    shadow: ui.number
    limit: ui.number
    required: ui.checkbox
    probation: ui.number
    success: ui.number
    errors: ui.number

    @classmethod
    def build(cls) -> ConditionsForm:
        """Show the fields, folded away."""
        with ui.expansion("When, how fast, what is compared before, and when it goes on or pauses").classes("w-full"):
            with ui.element("div").classes("tf-row"):
                start, end = (
                    ui.input(label, placeholder="22:00").props("dense outlined").style("width: 130px")
                    for label in ("Switch from", "until")
                )
                days = ui.select(list(DAYS), label="On the days", multiple=True).props("dense outlined use-chips")
                days.style("min-width: 170px")
                time_zone = ui.input("Time zone", placeholder="each device's own").props("dense outlined")
            with ui.element("div").classes("tf-row"):
                deadline, rate, shadow, limit = (
                    ui.number(label, min=0).props("dense outlined clearable").style("width: 190px")
                    for label in (
                        "Deadline, hours",
                        "At most, kB/s",
                        "Compare before, minutes",
                        "Two labels, most %",
                    )
                )
                required = ui.checkbox("Refuse it where nothing can be compared")
            with ui.element("div").classes("tf-row"):
                probation, success, errors = (
                    ui.number(label, min=0, max=most, placeholder="as in server.toml")
                    .props("dense outlined clearable").style("width: 250px")
                    for label, most in (
                        ("Healthy before it commits, minutes", None),
                        ("Next group at, % committed", _WHOLE),
                        ("Pause above, % failed", _WHOLE),
                    )
                )  # fmt: skip
            ui.label(
                "Outside of the window devices download and test, but do not switch; the deadline counts from the "
                "assignment, so it has to reach beyond the next opening. A comparison runs the new release beside the "
                "one that serves."
            ).classes("tf-muted tf-small")
        return cls(
            start=start, end=end, days=days, time_zone=time_zone, deadline=deadline, rate=rate, shadow=shadow,
            limit=limit, required=required, probation=probation, success=success, errors=errors,
        )  # fmt: skip

    def filled_in(self) -> Conditions:
        """Return what is filled in."""
        return Conditions(
            start=(self.start.value or "").strip(), end=(self.end.value or "").strip(), days=tuple(self.days.value),
            time_zone=(self.time_zone.value or "").strip(), deadline_h=self.deadline.value, rate_kb_s=self.rate.value,
            shadow_min=self.shadow.value, limit_percent=self.limit.value, required=bool(self.required.value),
            probation_min=self.probation.value, success_percent=self.success.value, errors_percent=self.errors.value,
        )  # fmt: skip
