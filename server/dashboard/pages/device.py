"""``/device/{id}``: drift evidence over time, the streams behind it, updates and health; what a person can decide.

That is: ask the device, accept its place, commission it again, and end it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from fastapi import Request, Response
from nicegui import ui

from server.access.roles import Need
from server.dashboard import evidence
from server.dashboard.commands import (
    BENCHMARK,
    LOGS,
    CommandView,
    certificate_text,
    command_view,
    commission_text,
)
from server.dashboard.learning import risk_text
from server.dashboard.progress import replay_text
from server.dashboard.services import Services
from server.dashboard.theme import (
    Column,
    and_more,
    ask_decision,
    ask_why,
    empty,
    heading,
    keep_fresh,
    live,
    live_apart,
    live_table,
    meter,
    pill,
)
from server.dashboard.views import (
    AnswerRow,
    Cut,
    Status,
    Tone,
    UsageRow,
    ago,
    answer_rows,
    clock_off,
    clock_time,
    event_row,
    evidence_status,
    losses_text,
    phase_status,
    state_status,
)
from server.dashboard.visit import Pages, Visit
from server.drift.places import NewPlace
from server.drift.rows import attributes_left_out, attributes_of
from server.errors import ServerError, UnknownDeviceError
from server.fleet.fleet import Device
from server.fleet.liveness import is_reachable
from server.fleet.naming import DeviceNaming
from server.retraining.harm import DEVICE
from server.store.monitoring.ingest import latest_batches
from server.store.monitoring.usage import device_days
from server.store.monitoring.windows import late_windows
from server.wording import in_bytes
from wire.codec import Json
from wire.enrolment import IdentityProof
from wire.errors import WireError
from wire.messages import Stream

_WINDOWS = 200
_EVENTS = 100
_HISTORY = 12
_ANSWERS = 10
_ANSWER_COLUMNS = (
    Column(name="at", label="Time (UTC)"),
    Column(name="answer", label="Answer"),
    Column(name="confidence", label="Confidence"),
    Column(name="supported", label="Like the training data", look="pill"),
    Column(name="id", label="Input", look="wrapped"),
    Column(name="release", label="Release"),
)
_DAYS = 7
_USAGE_COLUMNS = (
    Column(name="day", label="Day (UTC)"),
    Column(name="sent", label="Sent"),
    Column(name="received", label="Received"),
    Column(name="written", label="Written to its disk"),
)
_VERBS: Mapping[str, tuple[str, Mapping[str, Json], float]] = {  # its button, arguments, and how long it may wait
    LOGS: ("Read its log", {"lines": 100}, 60.0), BENCHMARK: ("Time its release", {}, 180.0),
}  # fmt: skip
_EVENT_COLUMNS = (
    Column(name="at", label="Time (UTC)"),
    Column(name="severity", label="Severity", look="pill"),
    Column(name="what", label="What"),
    Column(name="text", label="Text", look="wrapped", sortable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSummary:
    """The head of the page."""

    state: Status
    phase: Status
    drift: Status
    facts: tuple[tuple[str, str], ...]
    fault: str


def add_page(pages: Pages) -> None:
    """Add the page."""

    @ui.page("/device/{device}")
    def page(request: Request, device: str) -> Response | None:
        return pages.show(request, "/device", device[:63], partial(_build, device))


def _build(device: str, visit: Visit) -> None:
    try:
        visit.services.fleet.device(device)
    except UnknownDeviceError:
        visit.client.status_code = 404
        empty("No such device", "It may have been spelled differently; the overview lists every device.")
        return
    _page(visit.services, device)
    if visit.may(Need.OPERATE):
        Asking(visit, device).build()
        Accepting(visit, device).build()
        Recommissioning(visit, device).build()
        Calling(visit, device).build()
        Leaving(visit, device).build()


def _page(services: Services, device: str) -> None:
    heading(device, 1)
    live_apart(lambda _at_most_s: _summary(services, device), _head)
    with ui.element("div").classes("tf-wide"):
        with ui.element("section").classes("tf-card"):
            heading("Drift evidence over time")
            ui.label(
                "At 100 % the device is flagged: it moved further than its fleet ordinarily does, not: it is worse. "
                "Blue: against its own usual, which decides; grey: against training."
            ).classes("tf-muted tf-small")
            _chart(services, device)
        with ui.element("section").classes("tf-card"):
            heading("What holds the evidence")
            live(lambda: _newest(services, device), partial(_streams, services, device))
    with ui.element("section").classes("tf-card"):
        heading("Last answers")
        ui.label(
            f'The newest {_ANSWERS} that the device sent: it does if its agent.toml has a sink with kind = "fleet".'
        ).classes("tf-muted tf-small")
        live_table(_ANSWER_COLUMNS, "id", lambda: _answers(services, device), rows_per_page=_ANSWERS)
    with ui.element("section").classes("tf-card"):
        heading("Data and disk")
        live(lambda: _losses(services, device), _sentence)
        live_table(_USAGE_COLUMNS, "day", lambda: _usage(services, device), rows_per_page=_DAYS)
    with ui.element("section").classes("tf-card"):
        heading("Releases that ran here")
        live(lambda: _ran_here(services, device), lambda seen: _ran(*seen))
    heading("Events of this device")
    ui.label(f"The newest {_EVENTS}; more by GET /api/events?device={device}.").classes("tf-muted tf-small")
    live_table(
        _EVENT_COLUMNS,
        "id",
        lambda: tuple(event_row(event) for event in services.events.latest(_EVENTS, device=device)),
        rows_per_page=15,
    )


def _summary(services: Services, name: str) -> DeviceSummary:
    device, now_ms, newest = services.fleet.device(name), services.fleet.clock(), _newest(services, name)
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
        group for audit in services.retraining.audit.audits() for group in audit.groups
        if (group.attribute, group.value) == (DEVICE, device.device)
    ]  # fmt: skip
    commission = services.drift.commissions.of(device.device)
    replay = reported.update.replay if reported else None
    replayed = replay_text((replay,)) if replay is not None else ""
    return (
        *((("name", device.title),) if device.title else ()),
        *((("tags", " ".join(device.tags)),) if device.tags else ()),
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


def _newest(services: Services, device: str) -> evidence.ChartPoint | None:
    return next(iter(evidence.read(services.database, device, 1)), None)


def _streams(services: Services, device: str, newest: evidence.ChartPoint | None) -> None:
    if newest is None:
        ui.label("No window has arrived yet; the first comes at the end of the device's window.").classes("tf-muted")
        return
    nothing = "Nothing stands out." if newest.shown_ratio is not None else "Not judged yet."
    ui.label(newest.cause[:1].upper() + newest.cause[1:] if newest.cause else nothing).style("font-weight: 600")
    for share in newest.streams:
        with ui.element("div").classes("tf-stream"):
            with ui.element("div"):
                ui.label(share.words)
                ui.label(share.stream).classes("tf-muted tf-small tf-mono")
            meter(
                share.share_ratio, Tone.BAD if newest.flagged else Tone.CALM, f"Share of {share.stream} in the evidence"
            )
            ui.label(f"{100 * share.share_ratio:.0f} %").classes("tf-number tf-small")
    ui.label(f"{newest.n} inferences in the newest window").classes("tf-muted tf-small")
    config = services.drift.config
    commissioning = evidence.commissioning_text(newest, config.settings.stages, config.window_ms)
    if commissioning:
        ui.label(commissioning).classes("tf-small")
    if newest.least:
        ui.label(newest.least).classes("tf-muted tf-small")
    if unlike := evidence.unlike_text(newest, _contexts(services, device)):
        ui.label(unlike).classes("tf-small")


def _contexts(services: Services, device: str) -> int:
    """Return how many contexts the reference of the device's release has, 0 if that is not known."""
    try:
        running = services.fleet.device(device).release
        reference = services.versions.reference(services.versions.release(running).custom.ref_id) if running else None
    except (ServerError, WireError):  # such as a device, release or bundle that is gone
        return 0
    return 0 if reference is None else len(reference.contexts)


def _answers(services: Services, device: str) -> tuple[AnswerRow, ...]:
    with services.database.begin() as connection:
        batches = latest_batches(connection, device, Stream.ANSWER.value, _ANSWERS)
    return answer_rows([batch["rows"] for batch in batches], _ANSWERS)


def _usage(services: Services, device: str) -> tuple[UsageRow, ...]:
    with services.database.begin() as connection:
        days = device_days(connection, device, _DAYS)
    return tuple(
        UsageRow(
            day=day["day"],
            sent=in_bytes(day["sent_bytes"]) or "0 B",
            received=in_bytes(day["received_bytes"]) or "0 B",
            written=in_bytes(day["written_bytes"]) or "0 B",
        )
        for day in days
    )


def _sentence(text: str) -> None:
    ui.label(text).classes("tf-muted tf-small")


def _losses(services: Services, device: str) -> str:
    """Return what came late and what was lost for want of room, in words."""
    with services.database.begin() as connection:
        days, late = device_days(connection, device, 1), late_windows(connection, device)
    return losses_text(dict(days[0]) if days else {}, dict(late))


def _ran_here(services: Services, device: str) -> tuple[Cut[tuple[str, str]], bool]:
    there = is_reachable(services.fleet.device(device), services.fleet.clock(), services.situation.silent_s)
    found = Cut.of(services.lineage.history(device)[::-1], _HISTORY)
    return Cut(tuple((clock_time(ran.from_ms), ran.release or "nothing") for ran in found.rows), found.more), there


def _ran(history: Cut[tuple[str, str]], there: bool) -> None:  # noqa: FBT001 - what one look found
    if not history.rows:
        ui.label("Nothing yet: start a rollout.").classes("tf-muted")
        return
    with ui.element("div").classes("tf-timeline"):
        for index, (since, release) in enumerate(history.rows):
            ui.label(since).classes("tf-muted tf-number")
            with ui.element("div").classes("tf-row"):
                ui.label(release)
                if index == 0:
                    pill(Status("running now", Tone.GOOD) if there else Status("running at its last report", Tone.CALM))
    and_more(history.more)


def _chart(services: Services, device: str) -> None:
    lines = evidence.series(evidence.read(services.database, device, _WINDOWS))
    chart = ui.echart(_options(lines)).style("height: 320px").classes("tf-chart")

    def again() -> None:
        nonlocal lines
        fresh = evidence.series(evidence.read(services.database, device, _WINDOWS))
        if fresh != lines:
            lines = fresh
            for drawn, name in zip(chart.options["series"], ("evidence", "training"), strict=True):
                drawn["data"] = fresh[name]
            chart.update()

    keep_fresh(again)


def _options(lines: dict[str, list[list[float | int | None]]]) -> dict[str, object]:
    grey = "#8a93a2"
    threshold = {
        "silent": True, "symbol": "none", "lineStyle": {"color": "#d0463b", "type": "dashed", "width": 1.5},
        "label": {"formatter": "threshold", "color": "#d0463b", "position": "insideStartTop"}, "data": [{"yAxis": 100}],
    }  # fmt: skip
    line = {"type": "line", "symbol": "circle", "symbolSize": 4, "connectNulls": False}
    axis = {
        "axisLabel": {"color": grey},
        "axisLine": {"lineStyle": {"color": grey}},
        "nameTextStyle": {"color": grey, "align": "left", "padding": [0, 0, 6, -40]},
    }
    return {
        "animation": False,
        "textStyle": {"fontFamily": "inherit"},
        "grid": {"left": 52, "right": 18, "top": 44, "bottom": 30},
        "legend": {"top": 0, "right": 8, "textStyle": {"color": grey}},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {"type": "time", **axis, "splitLine": {"show": False}},
        "yAxis": {
            "type": "value", "min": 0, ":max": "v => Math.max(120, Math.ceil(v.max / 20) * 20)", **axis,
            "name": "% of threshold", "splitLine": {"lineStyle": {"color": "rgba(138,147,162,.22)"}},
        },
        "series": [
            {**line, "name": "evidence", "data": lines["evidence"], "color": "#3b7dd8", "markLine": threshold},
            {**line, "name": "against training", "data": lines["training"], "color": grey,
             "lineStyle": {"type": "dotted"}},
        ],
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asking:
    """What a person can ask the device now, on one visitor's page, with its last answers."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the buttons and the answers, if the device can still be asked."""
        if self.visit.services.fleet.device(self.device).ended:
            return
        with ui.element("section").classes("tf-card"):
            heading("Ask this device")
            for verb, (label, arguments, ttl_s) in _VERBS.items():
                with ui.element("div").classes("tf-row"):
                    button = ui.button(label, on_click=partial(self._ask, verb, arguments, ttl_s))
                    button.props("no-caps dense outline").style("padding: 4px 14px")
                    live(partial(self._last, verb), self._show)

    def _last(self, verb: str) -> CommandView | None:
        fleet = self.visit.services.fleet
        sent = fleet.last_command(self.device, verb)
        return command_view(sent, fleet.clock()) if sent is not None else None

    def _show(self, found: CommandView | None) -> None:
        if found is None:
            return
        pill(found.status)
        if found.note:
            ui.label(found.note).classes("tf-muted tf-small")
        if found.lines:
            ui.label("\n".join(found.lines)).classes("tf-mono tf-lines")

    async def _ask(self, verb: str, arguments: Mapping[str, Json], ttl_s: float) -> None:
        send = self.visit.services.fleet.send_command
        await self.visit.do(partial(send, self.device, verb, arguments, ttl_s, by=self.visit.by()))


_QUESTIONS = {
    "revoke": "Its credentials are refused from now on; it comes back only by a new claim. Its history stays.",
    "remove": "It is revoked, and what it was to run is forgotten: for hardware that is gone. Its history stays.",
}


@dataclass(frozen=True, slots=True)
class Accepting:
    """The button by which a visitor accepts a place that training does not know, or takes that back."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the button if the device has an open verdict on its place, or a person accepted that."""
        services = self.visit.services
        place = services.drift.places.of(self.device)
        accepted = services.drift.places.accepted(self.device)
        alarms = {one.id for one in services.drift.verdicts.open()}
        if place is not None and not place.decided_ms and place.verdict in alarms:
            risk = place.risk[:1].upper() + place.risk[1:]
            text = f"The training data has nothing like what this device sees. {risk}."
            self._card(text, "Accept this place", self._accept)
        elif accepted is not None and accepted.site == services.fleet.device(self.device).site:
            text = f"The training data has nothing like what this device sees; {accepted.decided_by} accepted it."
            self._card(text, "Take that back", self._withdraw)

    def _card(self, text: str, label: str, on_click: Callable[[], Awaitable[None]]) -> None:
        with ui.element("section").classes("tf-card"):
            heading("New place")
            ui.label(text)
            with ui.element("div").classes("tf-row"):
                ui.button(label, on_click=on_click).props("no-caps dense outline").style("padding: 4px 14px")

    async def _accept(self) -> None:
        question, text = f"Accept the place of {self.device}?", "The verdict ends, and what it sees there is its usual."
        said = await ask_decision(self.visit.client, question, text, "Accept")
        if said is not None:
            await self._decide(self.visit.services.drift.places.accept, *said)

    async def _withdraw(self) -> None:
        question = f"Take the acceptance of {self.device} back?"
        text = "With its next window its place is new again, and it is asked for labels."
        said = await ask_decision(self.visit.client, question, text, "Take back")
        if said is not None:
            await self._decide(self.visit.services.drift.places.withdraw, *said)

    async def _decide(self, decide: Callable[..., NewPlace], why: str, by: str) -> None:
        now_ms = self.visit.services.fleet.clock()
        decided = partial(decide, self.device, why, now_ms=now_ms, by=self.visit.by(by))
        if await self.visit.ask(decided, Need.OPERATE) is not None:
            with self.visit.client:
                ui.navigate.reload()


@dataclass(frozen=True, slots=True)
class Recommissioning:
    """The button by which a visitor says that what stands before the device is another world now."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the button of a device of the fleet."""
        if self.visit.services.fleet.device(self.device).ended:
            return
        with ui.element("section").classes("tf-card"):
            heading("Commission again")
            ui.label(
                "After a repair, or another camera, lens or sensor, or a moved one: its alarms end, and its usual is "
                "learned anew from its next window on, as at an installation. What it saw before no longer counts."
            ).classes("tf-muted tf-small")
            with ui.element("div").classes("tf-row"):
                button = ui.button("Commission again", on_click=self._ask)
                button.props("no-caps dense outline").style("padding: 4px 14px")

    async def _ask(self) -> None:
        question, text = f"Commission {self.device} again?", "Say what changed before it; the reason is kept."
        said = await ask_decision(self.visit.client, question, text, "Commission again")
        if said is None:
            return
        services, (why, name) = self.visit.services, said
        now_ms, by = services.fleet.clock(), self.visit.by(name)
        begin = partial(services.drift.commissions.begin, self.device, why, now_ms=now_ms, by=by)
        if await self.visit.ask(begin, Need.OPERATE) is not None:
            with self.visit.client:
                ui.navigate.reload()


@dataclass(frozen=True, slots=True)
class Calling:
    """The name and the tags of a device, as one visitor may change them."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the fields, for a device of the fleet."""
        try:
            known = self.visit.services.fleet.device(self.device)
        except UnknownDeviceError:
            return
        if known.ended:
            return
        with ui.element("section").classes("tf-card"):
            heading("Name and tags")
            ui.label("The id stays. Rollouts and lists choose devices by tags.").classes("tf-muted tf-small")
            with ui.element("div").classes("tf-row"):
                title = ui.input("Name", value=known.title).props("dense outlined")
                tags = ui.input("Tags", value=" ".join(known.tags), placeholder="night indoor").props("dense outlined")
                save = partial(self._save, title, tags)
                ui.button("Save", on_click=save).props("no-caps dense outline").style("padding: 4px 14px")

    async def _save(self, title: ui.input, tags: ui.input) -> None:
        if await self.visit.ask(partial(self._note, title.value or "", tags.value or ""), Need.OPERATE) is not None:
            with self.visit.client:
                ui.navigate.reload()

    def _note(self, title: str, tags: str) -> Device:
        services, by = self.visit.services, self.visit.by()
        naming = DeviceNaming(fleet=services.fleet, clock=services.fleet.clock)
        wanted, known = set(tags.replace(",", " ").split()), set(services.fleet.device(self.device).tags)
        naming.tag(self.device, wanted - known, known - wanted, by=by)
        return naming.rename(self.device, title, by=by)


@dataclass(frozen=True, slots=True)
class Leaving:
    """The two buttons on one visitor's page."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the buttons of the actions that are still possible."""
        try:
            ended = self.visit.services.fleet.device(self.device).ended
        except UnknownDeviceError:
            return
        actions = {"": ("revoke", "remove"), "revoked": ("remove",)}.get(ended, ())
        if not actions:
            return
        with ui.element("section").classes("tf-card"):
            heading("Leave the fleet")
            with ui.element("div").classes("tf-row"):
                for action in actions:
                    button = ui.button(f"{action.capitalize()} this device", on_click=partial(self._ask, action))
                    button.props("no-caps dense outline color=negative").style("padding: 4px 14px")

    async def _ask(self, action: str) -> None:
        question = f"{action.capitalize()} {self.device}?"
        why = await ask_why(self.visit.client, question, _QUESTIONS[action], action.capitalize())
        if why is None:
            return
        revocations = self.visit.services.revocations
        end: dict[str, Callable[..., Device]] = {"revoke": revocations.revoke, "remove": revocations.remove}
        ended = partial(end[action], self.device, why, by=self.visit.by())
        if await self.visit.ask(ended, Need.OPERATE) is not None:
            with self.visit.client:
                ui.navigate.reload()
