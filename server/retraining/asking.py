"""Asks one device for labels until they decide: about thirty uniform samples, a few times, by the audit's mechanism.

Decides when a device is asked (again); what its labels decide is up to whoever follows it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from server.drift.ledger import AskedDevice
from server.errors import AuditOffError, DeviceEndedError, UnknownDeviceError
from server.retraining.audit import SteadyAudit
from server.retraining.samples import SampleStore

SAMPLES = 30
"""Asked of a device: none wrong shows a risk below 14 %, twelve wrong one above 17 %."""
ASKS = 4
"""How often at most: again a day later, if what was asked for is labelled and does not decide."""
_SENT_NONE = "it was asked and sent no samples: it is away, or its owner does not allow it ([samples] in agent.toml)"
_LEFT = "it left the fleet and sends no samples"
_LABELLED = 0.8  # of the samples
_DAY_MS = 86_400_000
_AGAIN_MS = 3_600_000  # a server that may not ask yet
_Asked = TypeVar("_Asked", bound=AskedDevice)


def follow(audit: SteadyAudit, samples: SampleStore, known: _Asked, labelled: int, now_ms: int) -> _Asked:
    """Ask an undecided device, of which ``labelled`` uniform samples are, if it is time to; return what is known then.

    A device that sent nothing is asked again once a day, and that does not count: it was away, or refused. One that
    was revoked or removed is looked for again as rarely: it may be enrolled again.
    """
    if known.asked_ms and now_ms - known.asked_ms < (_DAY_MS if known.asks else _AGAIN_MS):
        return known
    if labelled >= _LABELLED * SAMPLES * known.asks:
        return _ask(audit, known, now_ms) if known.asks < ASKS else known
    if samples.received(known.device, known.request):
        return replace(known, text="")
    asked = _ask(audit, known, now_ms)
    return replace(asked, asks=known.asks, text=asked.text or _SENT_NONE)


def _ask(audit: SteadyAudit, known: _Asked, now_ms: int) -> _Asked:
    try:
        request = audit.ask_once(known.device, SAMPLES)
    except AuditOffError as error:
        return replace(known, asked_ms=now_ms, text=str(error))
    except (UnknownDeviceError, DeviceEndedError):
        return replace(known, asked_ms=now_ms, text=_LEFT)
    return replace(known, asked_ms=now_ms, asks=known.asks + 1, request=request, text="")
