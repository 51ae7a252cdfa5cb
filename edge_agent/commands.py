"""What the server may ask of a device, judged: expired, repeated, unknown, within the sample budget. Pure.

Acknowledgements are no commands in this sense; ``agent`` takes them at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.codec import Json
from wire.messages import Command, Response

DAY_MS = 86_400_000
KEPT_IDS = 64
BUDGET_KEY = "sample_bytes_per_day"


@dataclass(frozen=True, slots=True)
class SampleBudget:
    """Bytes of raw input granted on ``day`` (days since 1970)."""

    day: int = 0
    granted_bytes: int = 0

    def left(self, allowed_bytes: int, now_ms: int) -> int:
        """Return what may still be granted today."""
        return max(0, allowed_bytes - (self.granted_bytes if self.day == now_ms // DAY_MS else 0))

    def grant(self, granted_bytes: int, now_ms: int) -> SampleBudget:
        """Return the budget after a grant."""
        day = now_ms // DAY_MS
        return SampleBudget(day, granted_bytes + (self.granted_bytes if self.day == day else 0))


@dataclass(frozen=True, slots=True)
class Desk:
    """What judging commands needs to remember."""

    seen: tuple[str, ...] = ()

    def remember(self, command: Command) -> Desk:
        """Return the desk that knows this command."""
        return Desk((*self.seen, command.id)[-KEPT_IDS:])


@dataclass(frozen=True, slots=True)
class SampleGrant:
    """What the child may send."""

    request: str
    count: int
    budget_bytes: int
    lane: str


def allowed_bytes(config_bytes: int, desired: Json) -> int:
    """Return the daily budget: what the server desires, never above what the device's owner allows."""
    wanted = desired if isinstance(desired, int) and not isinstance(desired, bool) else 0
    return max(0, min(config_bytes, wanted))


def expired(command: Command, now_ms: int) -> bool:
    """Say whether a command came too late; one without an expiry never does."""
    return 0 < command.expires_ms < now_ms


def grant_samples(command: Command, left_bytes: int) -> SampleGrant | Response:
    """Return what is granted, or the answer that refuses."""
    arguments = command.arguments
    count, budget = arguments.get("count"), arguments.get("budget_bytes")
    lane, request = arguments.get("lane", "audit"), arguments.get("request", command.id)
    if not isinstance(count, int) or count < 1 or not isinstance(lane, str) or not isinstance(request, str):
        text = "Expected a count of at least 1, a lane and a request, got others"
        return Response(command.id, ok=False, code="arguments_invalid", text=text)
    if left_bytes <= 0:
        text = (
            "Expected a budget for samples left today, got none: both max_bytes_per_day in [samples] of agent.toml "
            f"(0: off) and {BUDGET_KEY} in the desired config have to allow it"
        )
        return Response(command.id, ok=False, code="budget_zero", text=text)
    asked = budget if isinstance(budget, int) and budget > 0 else left_bytes
    return SampleGrant(request, count, min(asked, left_bytes), lane)
