"""The ledger of suspects: devices whose new release answers otherwise, and whether labels show that it is worse.

Counters and a replay show that answers are others; a release that cures a device looks the same. Only labels tell. A
suspect is decided once, for the release that they judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

import sqlalchemy as sa

from server.drift.ledger import AskedDevice, Verdicts
from server.registry.events import event_row
from server.store import suspects as store
from server.store.commissions import all_commissions
from server.store.events import insert_events
from wire.codec import Json
from wire.messages import Severity


class SuspectState(StrEnum):
    """What labels show of a release on one device."""

    OPEN = "open"  # labels are missing, or show neither
    WORSE = "worse"  # surely more errors than under the release before
    HARMLESS = "harmless"  # surely not much more


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectDevice(AskedDevice):
    """One device whose release answers otherwise; up to ``allowed_risk`` it counts as under the release before."""

    state: SuspectState = SuspectState.OPEN
    allowed_risk: float = 0.0

    @property
    def words(self) -> str:
        """What is known, for people."""
        if not self.audited:
            return f"{self.device}: " + (self.text or "whether they are worse its labels will tell, none yet")
        told = {SuspectState.WORSE: "worse", SuspectState.HARMLESS: "not worse"}.get(self.state, "not decided")
        return f"{self.device}: {told}, {self.shown}, up to {self.allowed_risk:.0%} is as before"


@dataclass(frozen=True, slots=True)
class Suspects:
    """All suspects of one server. Safe to share between threads."""

    verdicts: Verdicts

    def all(self) -> tuple[SuspectDevice, ...]:
        """Return every suspect, those of the newest verdict first."""
        with self.verdicts.database.begin() as connection:
            return tuple(_suspect(row) for row in store.all_suspects(connection))

    def since_ms(self, device: str) -> int:
        """Return since when (UTC ms) labels of ``device`` count: it was commissioned again then; 0 if it never was."""
        with self.verdicts.database.begin() as connection:
            return max((int(row["from_ms"]) for row in all_commissions(connection, device)), default=0)

    def put(self, suspect: SuspectDevice, now_ms: int, *, told: bool) -> None:
        """Store what is known of ``suspect``; ``told``: as an event, because its state is new."""
        with self.verdicts.database.begin() as connection:
            store.put_suspect(connection, asdict(suspect))
            if told:
                insert_events(connection, [_event(suspect, now_ms)])


def _event(suspect: SuspectDevice, now_ms: int) -> dict[str, object]:
    worse = suspect.state is SuspectState.WORSE
    text = f"{suspect.release} on {suspect.words}"
    if suspect.state is SuspectState.HARMLESS:
        text += ": its verdict ends; resume the rollout if it was paused for it"
    severity, data = Severity.WARNING if worse else Severity.INFO, dict[str, Json](verdict=suspect.verdict)
    return event_row(now_ms, "drift", f"release_{suspect.state}", severity, text, device=suspect.device, data=data)


def _suspect(row: sa.RowMapping | Mapping[str, object]) -> SuspectDevice:
    values = {str(key): value for key, value in row.items()}
    return SuspectDevice(**{**values, "state": SuspectState(str(values["state"]))})  # type: ignore[arg-type]
