"""Judges commands of the server: expired, repeated, unknown, within the sample budget. Pure.

Acknowledgements do not count as commands; ``agent`` handles them directly.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import read_record, write_record
from wire.codec import Json, from_document, to_document
from wire.errors import WireError
from wire.messages import Command, Response

DAY_MS = 86_400_000
KEPT_IDS = 64
KEPT_GRANTS = 8  # as many as a child serves at once
BUDGET_KEY = "sample_bytes_per_day"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleGrant:
    """The limits of one request for samples: a number of inputs, and their total bytes."""

    request: str
    count: int
    budget_bytes: int
    lane: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandState:
    """The state of commands that must survive a restart.

    ``granted_bytes`` of raw input on ``day`` (days since 1970); ``open``: the rest of each grant, newest last;
    ``seen``: recent command ids, for de-duplication, newest last.
    """

    day: int = 0
    granted_bytes: int = 0
    open: tuple[SampleGrant, ...] = ()
    seen: tuple[str, ...] = ()

    def left(self, allowed_bytes: int, now_ms: int) -> int:
        """Return how many bytes may still be granted today."""
        return max(0, allowed_bytes - (self.granted_bytes if self.day == now_ms // DAY_MS else 0))

    def granting(self, grant: SampleGrant, now_ms: int) -> CommandState:
        """Return the ledger after a grant; a second grant for the same request replaces the first."""
        day = now_ms // DAY_MS
        granted_bytes = grant.budget_bytes + (self.granted_bytes if self.day == day else 0)
        kept = [other for other in self.open if other.request != grant.request]
        return replace(self, day=day, granted_bytes=granted_bytes, open=(*kept, grant)[-KEPT_GRANTS:])

    def sampled(self, request: str, length_bytes: int) -> CommandState:
        """Return the ledger after the child sent one input for ``request``."""
        left = [
            replace(grant, count=grant.count - 1, budget_bytes=grant.budget_bytes - length_bytes)
            if grant.request == request
            else grant
            for grant in self.open
        ]
        return replace(self, open=tuple(grant for grant in left if grant.count > 0 and grant.budget_bytes > 0))

    def remember(self, command: Command) -> CommandState:
        """Return the ledger with this command among those seen."""
        return replace(self, seen=(*self.seen, command.id)[-KEPT_IDS:])


def allowed_bytes(config_bytes: int, desired: Json) -> int:
    """Return the daily budget: the server's setting, but at most the device owner's limit."""
    wanted = desired if isinstance(desired, int) and not isinstance(desired, bool) else 0
    return max(0, min(config_bytes, wanted))


def expired(command: Command, now_ms: int) -> bool:
    """Return whether a command has expired; one without an expiry never does."""
    return 0 < command.expires_ms < now_ms


def grant_samples(command: Command, left_bytes: int) -> SampleGrant | Response:
    """Return the grant, or the response that refuses the command."""
    arguments = command.arguments
    count, budget = arguments.get("count"), arguments.get("budget_bytes")
    lane, request = arguments.get("lane", "audit"), arguments.get("request", command.id)
    if not isinstance(count, int) or count < 1 or not isinstance(lane, str) or not isinstance(request, str):
        text = "Expected a count of at least 1, a lane and a request, got others"
        return Response(id=command.id, ok=False, code="arguments_invalid", text=text)
    if left_bytes <= 0:
        text = (
            "Expected a budget for samples left today, got none: both max_bytes_per_day in [samples] of agent.toml "
            f"(0: off) and {BUDGET_KEY} in the desired config have to allow it"
        )
        return Response(id=command.id, ok=False, code="budget_zero", text=text)
    asked = budget if isinstance(budget, int) and budget > 0 else left_bytes
    return SampleGrant(request=request, count=count, budget_bytes=min(asked, left_bytes), lane=lane)


@dataclass(frozen=True, slots=True)
class CommandStateFile:
    """The file ``samples.json`` below the state directory."""

    state: Path
    disk: Disk

    def read(self, now_ms: int) -> CommandState:
        """Return the ledger."""
        try:
            return from_document(CommandState, read_record(self.state / "samples.json"))
        except FileNotFoundError:
            return CommandState()
        except (OSError, WireError):
            return CommandState(day=now_ms // DAY_MS, granted_bytes=sys.maxsize)

    def write(self, ledger: CommandState) -> None:
        """Store the ledger.

        Raises:
            OSError: If it can't be written.
        """
        write_record(self.disk, self.state / "samples.json", to_document(ledger))
