"""The head of a device's page: how it stands, and the facts about it."""

from __future__ import annotations

from dataclasses import dataclass

from nicegui import ui

from server.dashboard.commands import certificate_text, commission_text
from server.dashboard.learning import risk_text
from server.dashboard.pages.device.drift import newest_point
from server.dashboard.progress import replay_text
from server.dashboard.services import Services
from server.dashboard.theme import live_apart, pill
from server.dashboard.views import Status, Tone, ago, clock_off, clock_time, evidence_status, phase_status, state_status
from server.drift.rows import attributes_left_out, attributes_of
from server.fleet.fleet import Device
from server.fleet.liveness import is_reachable
from server.fleet.mutes import until_text
from server.retraining.harm import DEVICE
from wire.enrolment import IdentityProof


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSummary:
    """The head of the page."""

    state: Status
    phase: Status
    drift: Status
    facts: tuple[tuple[str, str], ...]
    fault: str


def show_head(services: Services, device: str) -> None:
    """Show how the device stands, and the facts about it."""
    live_apart(lambda _at_most_s: _summary(services, device), _head)


def _summary(services: Services, name: str) -> DeviceSummary:
    device, now_ms, newest = services.fleet.device(name), services.fleet.clock(), newest_point(services, name)
    if device.ended:
        facts = ((device.ended, clock_time(device.ended_ms)), ("why", device.ended_why or "no reason given"))
        ended = Status(device.ended, Tone.BAD)
        return DeviceSummary(
            state=ended,
            phase=Status("none"),
            drift=Status("none"),
            facts=(*facts, *_facts(services, device, now_ms)),
            fault="",
        )
    drift = evidence_status(newest.shown_ratio if newest else None, flagged=newest is not None and newest.flagged)
    if drift.tone is Tone.GOOD and not is_reachable(device, now_ms, services.situation.silent_s):
        drift = Status(f"{drift.text} at its last report", Tone.CALM)
    if newest is not None and not newest.judged and newest.shown_ratio is not None:
        drift = Status(f"learning its usual, {drift.text} from training", Tone.BUSY)
    commission = services.drift.commissions.of(name)
    if newest is not None and commission is not None and newest.start_ms < commission.from_ms:
        drift = Status("commissioned again", Tone.BUSY)
    phase = phase_status(device.reported.update if device.reported else None)
    return DeviceSummary(
        state=state_status(device, now_ms, services.situation.silent_s),
        phase=phase,
        drift=drift,
        facts=_facts(services, device, now_ms),
        fault=newest.fault if newest else "",
    )


def _facts(services: Services, device: Device, now_ms: int) -> tuple[tuple[str, str], ...]:
    reported, proof = device.reported, services.certificates.proof
    expires_ms = services.certificates.expires_ms(device.device) if proof is not IdentityProof.PASSWORD else None
    certificate = certificate_text(expires_ms, now_ms, required=proof is IdentityProof.CERTIFICATE)
    said = (("hardware", reported.hardware), ("agent", reported.agent_version)) if reported else ()
    documents = (device.attributes, reported.attributes if reported else {})
    attributes = attributes_of(device.site, *documents)
    left_out = attributes_left_out(attributes, *documents)
    wanted, place = device.desired_release, services.drift.places.of(device.device)
    audited = [
        group for audit in services.retraining.audit.latest() for group in audit.groups
        if (group.attribute, group.value) == (DEVICE, device.device)
    ]  # fmt: skip
    commission = services.drift.commissions.of(device.device)
    replay = reported.update.replay if reported else None
    replayed = replay_text((replay,)) if replay is not None else ""
    return (
        *((("name", device.title),) if device.title else ()),
        *((("tags", " ".join(device.tags)),) if device.tags else ()),
        *((("muted", mute_text(device)),) if device.is_muted(now_ms) else ()),
        ("site", attributes.pop("site")), ("release", device.release or "none"),
        *((("wanted", wanted),) if wanted and wanted != device.release else ()),
        *((("inputs", device.answers_nothing),) if device.answers_nothing else ()),
        *((("what to do", device.unread_step),) if device.unread_step else ()), *said, *attributes.items(),
        *((("attributes left out", f"{left_out}, too many or too long"),) if left_out else ()),
        *((("place", place.words),) if place is not None and place.site == device.site else ()),
        *((("commissioned again", commission_text(commission)),) if commission is not None else ()),
        *(("audit", risk_text(group)) for group in audited),
        ("last seen", ago(device.last_seen_ms, now_ms)),
        *((("certificate", certificate),) if proof is not IdentityProof.PASSWORD and not device.ended else ()),
        *((("replay", replayed),) if replayed else ()),
        *((("clock", clock_off(device.clock_off_ms)),) if device.clock_off_ms else ()),
    )  # fmt: skip


def mute_text(device: Device) -> str:
    """Return until when, by whom and why the device is muted, in words."""
    why = f": {device.muted_why}" if device.muted_why else ""
    return f"{until_text(device.muted_until_ms)}, by {device.muted_by}{why}"


def _head(summary: DeviceSummary) -> None:
    with ui.element("div").classes("tf-row"):
        pill(summary.state)
        pill(Status(f"update: {summary.phase.text}", summary.phase.tone))
        pill(Status(f"drift: {summary.drift.text}" if summary.drift.tone is not Tone.BAD else summary.drift.text,
                    summary.drift.tone))  # fmt: skip
        if summary.fault:
            pill(Status(f"fault: {summary.fault.replace('_', ' ')}", Tone.BAD))
    with ui.element("div").classes("tf-row").style("gap: 4px 22px"):
        for name, value in summary.facts:
            with ui.element("div").classes("tf-row tf-small").style("gap: 6px"):
                ui.label(name).classes("tf-muted")
                ui.label(value)
