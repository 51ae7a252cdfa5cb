"""What a device sent, used and ran, and its events, as its page lists them."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from server.dashboard.services import Services
from server.dashboard.theme import Column, and_more, heading, live, live_table, pill
from server.dashboard.views import (
    AnswerRow,
    Cut,
    Status,
    Tone,
    UsageRow,
    answer_rows,
    clock_time,
    event_row,
    losses_text,
)
from server.errors import UnknownSoftwareError
from server.fleet.liveness import is_reachable
from server.store.monitoring.ingest import latest_batches
from server.store.monitoring.usage import device_days
from server.store.monitoring.windows import late_windows
from server.wording import in_bytes
from wire.messages import Stream
from wire.software import ComponentKind

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
_COMPONENTS = 12
_NAMED_COMPONENTS = {
    ComponentKind.AGENT, ComponentKind.PYTHON, ComponentKind.RUNTIME, ComponentKind.OS, ComponentKind.KERNEL,
    ComponentKind.BOARD,
}  # fmt: skip
_USAGE_COLUMNS = (
    Column(name="day", label="Day (UTC)"),
    Column(name="sent", label="Sent"),
    Column(name="received", label="Received"),
    Column(name="written", label="Written to its disk"),
)
_EVENT_COLUMNS = (
    Column(name="at", label="Time (UTC)"),
    Column(name="severity", label="Severity", look="pill"),
    Column(name="what", label="What"),
    Column(name="text", label="Text", look="wrapped", sortable=False),
)


def show_answers(services: Services, device: str) -> None:
    """Show the newest answers that the device sent."""
    with ui.element("section").classes("tf-card"):
        heading("Last answers")
        ui.label(
            f'The newest {_ANSWERS} that the device sent: it does if its agent.toml has a sink with kind = "fleet".'
        ).classes("tf-muted tf-small")
        live_table(_ANSWER_COLUMNS, "id", lambda: _answers(services, device), rows_per_page=_ANSWERS)


def show_usage(services: Services, device: str) -> None:
    """Show what the device used by day, and what it lost."""
    with ui.element("section").classes("tf-card"):
        heading("Data and disk")
        live(lambda: _losses(services, device), _sentence)
        live_table(_USAGE_COLUMNS, "day", lambda: _usage(services, device), rows_per_page=_DAYS)


def show_software(services: Services, device: str) -> None:
    """Show what else runs on the device, in short, and lead to the whole list."""
    with ui.element("section").classes("tf-card"):
        heading("Software")
        live(lambda: _software(services, device), lambda found: _listed(device, *found))


def show_releases(services: Services, device: str) -> None:
    """Show the releases that ran on the device, the newest first."""
    with ui.element("section").classes("tf-card"):
        heading("Releases that ran here")
        live(lambda: _ran_here(services, device), lambda seen: _ran(*seen))


def show_events(services: Services, device: str) -> None:
    """Show the newest events of the device."""
    heading("Events of this device")
    ui.label(f"The newest {_EVENTS}; more by GET /api/events?device={device}.").classes("tf-muted tf-small")
    live_table(
        _EVENT_COLUMNS,
        "id",
        lambda: tuple(event_row(event) for event in services.events.latest(_EVENTS, device=device)),
        rows_per_page=15,
    )


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


def _software(services: Services, device: str) -> tuple[str, bool]:
    """Return what the device runs by its last report, and whether its list is here."""
    try:
        found = services.software.of_device(device, services.fleet.clock())
    except UnknownSoftwareError:
        return "It reported none: an older agent does not, nor one that never connected.", False
    since = f"since {clock_time(found.run.from_ms)} UTC"
    if found.software is None:
        return f"Only the digest {found.run.list[:16]} is known, {since}; the list is asked for.", False
    shown = [
        f"{one.name} {one.version}".strip() for one in found.software.components if one.kind in _NAMED_COMPONENTS
    ]  # fmt: skip
    number = len(found.software.components) + found.software.left_out
    return f"{number} components {since}: {', '.join(shown[:_COMPONENTS])} and others.", True


def _listed(device: str, text: str, known: bool) -> None:  # noqa: FBT001 - what one look found
    ui.label(text).classes("tf-muted tf-small")
    if known:
        address = f"/device/{quote(device, safe='')}/software.cdx.json"
        ui.link("Download the list (CycloneDX)", address).classes("tf-link tf-small")
    ui.link("What the fleet runs", "/software").classes("tf-link tf-small")


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
