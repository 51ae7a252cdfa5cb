"""Reads what is wrong, every few seconds, and lets the alerts follow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from server.alerts.causes import Observed, causes_of, held_back
from server.alerts.ledger import Alerts
from server.alerts.model import AlertCause
from server.app.vitals import Vitals
from server.drift.ledger import Verdicts
from server.errors import TrustStoreError
from server.fleet.fleet import Fleet
from server.fleet.liveness import BACK_MS
from server.fleet.mutes import muted_names
from server.rollout.ledger import RolloutLedger
from server.store.monitoring.evidence import parts_of_verdicts
from server.trust.expiry import ending
from server.trust.repository import Expiry, TrustRepository

LOOK_EVERY_MS = 15_000
_METADATA_EVERY_MS = 300_000  # it is read from files, and changes within days


@dataclass(slots=True, kw_only=True)
class AlertWatch:
    """Looks every 15 s. ``harmed``: returns a text for each release that is wrong too often.

    After a start devices have 15 minutes to connect again: before, a device that is silent opens no alert.

    How long a cause that flickers has lasted is kept in memory: a restart begins to count anew, so an alert comes
    later by that, never not at all.
    """

    alerts: Alerts
    fleet: Fleet
    verdicts: Verdicts
    rollouts: RolloutLedger
    trust: TrustRepository
    vitals: Vitals
    silent_s: float
    harmed: Callable[[], tuple[str, ...]] = tuple
    _looked_ms: int = -LOOK_EVERY_MS
    _started_ms: int = 0
    _since_ms: dict[str, int] = field(default_factory=dict)
    _metadata_ms: int = -_METADATA_EVERY_MS
    _ending: tuple[tuple[Expiry, float, str], ...] = ()
    _untrusted: str = ""

    def turn(self, now_ms: int) -> None:
        """Look, if it is time; a clock that was set back is no reason to wait."""
        if 0 <= now_ms - self._looked_ms < LOOK_EVERY_MS:
            return
        self._looked_ms, self._started_ms = now_ms, self._started_ms or now_ms
        open_keys = self.alerts.open_keys()
        seen, at_once = self._observed(now_ms), self.alerts.config.site_devices
        found, held = causes_of(seen, open_keys, at_once), held_back(seen, open_keys, at_once)
        self.alerts.settle(self._lasting(found, open_keys, now_ms), now_ms, held)

    def _lasting(self, found: tuple[AlertCause, ...], open_keys: frozenset[str], now_ms: int) -> tuple[AlertCause, ...]:
        """Return the causes that have an alert or have lasted long enough for one."""
        self._since_ms = {one.key: self._since_ms.get(one.key, now_ms) for one in found if one.flickers}
        after_ms, settled = 1000 * self.alerts.config.after_s, now_ms - self._started_ms >= BACK_MS
        return tuple(
            one for one in found
            if not one.flickers
            or open_keys & {one.key, *one.continues}
            or (now_ms - self._since_ms[one.key] >= after_ms and (settled or not one.patient))
        )  # fmt: skip

    def _observed(self, now_ms: int) -> Observed:
        verdicts, devices = self.verdicts.open(), self.fleet.devices()
        with self.verdicts.database.begin() as connection:
            parts = parts_of_verdicts(connection, [one.id for one in verdicts])
        if not 0 <= now_ms - self._metadata_ms < _METADATA_EVERY_MS:
            self._metadata_ms = now_ms
            try:
                self._ending, self._untrusted = ending(self.trust.expiries(), now_ms), ""
            except TrustStoreError as error:
                self._ending, self._untrusted = (), str(error)
        return Observed(
            now_ms=now_ms,
            silent_s=self.silent_s,
            devices=devices,
            muted=muted_names(devices, now_ms),
            verdicts=verdicts,
            parts=parts,
            rollouts=self.rollouts.open(),
            newest=self.rollouts.newest(),
            signs=self.vitals.signs(now_ms),
            ending=self._ending,
            untrusted=self._untrusted,
            harmed=self.harmed(),
        )
