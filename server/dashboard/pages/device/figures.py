"""Figures over time on a device's page: latency, inferences, memory, temperature, disk, and bytes by day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape

from nicegui import ui

from server.dashboard.drawing import charts
from server.dashboard.services import Services
from server.dashboard.theme import heading, live_apart
from server.dashboard.views import ago, clock_time
from server.store.monitoring.usage import device_days
from server.telemetry.figures import DeviceFigures, MeasuredFigure, MeasuredLine, TimeSpan, device_figures

_DAYS = 30
_MIB = 1024**2
_EVERY_S = 60
_USED = {"sent_bytes": "Sent by day", "received_bytes": "Received by day", "written_bytes": "Written to disk by day"}


class FiguresOverTime:
    """What one visitor looks at: how far back, and what was read a minute ago at most."""

    def __init__(self, services: Services, device: str) -> None:
        """Begin with one day."""
        self.services, self.device, self.span = services, device, TimeSpan.DAY
        self._read: tuple[TimeSpan, int] | None = None
        self._found = ""

    def build(self) -> None:
        """Show the figures, and how far back they go."""
        with ui.element("section").classes("tf-card"):
            heading("Over time")
            with ui.element("div").classes("tf-row"):
                choose = ui.select({one: one.value for one in TimeSpan}, value=self.span, label="The last")
                choose.props("dense outlined").style("min-width: 140px")
            again = live_apart(self._look, _show)

            async def chosen() -> None:
                self.span = TimeSpan(choose.value)
                await again()

            choose.on_value_change(chosen)

    def _look(self, _at_most_s: float) -> str:
        now_ms = self.services.fleet.clock()
        wanted = (self.span, now_ms // (1000 * _EVERY_S))
        if wanted != self._read:
            found = device_figures(self.services.database, self.device, self.span, now_ms)
            pictures = "".join(_picture(found, figure) for figure in found.figures)
            self._found = f'<div class="tf-pictures">{words(found, now_ms)}{pictures}{self._days(now_ms)}</div>'
            self._read = wanted
        return self._found

    def _days(self, now_ms: int) -> str:
        """Return the bytes of the last days; a day of which nothing arrived has no bar."""
        with self.services.database.begin() as connection:
            rows = {str(row["day"]): row for row in device_days(connection, self.device, _DAYS)}
        today = datetime.fromtimestamp(now_ms / 1000, UTC)
        names = [(today - timedelta(days=age)).strftime("%Y-%m-%d") for age in range(_DAYS - 1, -1, -1)]
        found = ""
        for key, title in _USED.items():
            values = [(name[5:], rows[name][key] / _MIB if name in rows else None) for name in names]
            known = [value for _, value in values if value is not None]
            if not known:
                found += _figure(title, "", f"Nothing was reported in the last {_DAYS} days.")
                continue
            figures = f"{_short(sum(known))} MiB together, at most {_short(max(known))}"
            told = f"{len(known)} of {_DAYS} days reported, {figures}"
            found += _figure(title, charts.days(values, "MiB", said=f"{title} in MiB: {told}"), f"MiB; {told}")
        return found


def _show(found: str) -> None:
    ui.html(found, sanitize=False).style("width: 100%")


def words(found: DeviceFigures, now_ms: int) -> str:
    """Return what is drawn of which time, as a paragraph that goes over the whole width."""
    told = f"From {clock_time(found.from_ms)} to {clock_time(found.until_ms)} UTC; a gap is a time without a report."
    if not found.batches:
        newest = f"the newest are from {ago(found.newest_ms, now_ms)}" if found.newest_ms else "none ever has"
        told += f" No measurements arrived in this time: {newest}."
    elif found.read < found.batches:
        told += f" Of {found.batches:,} batches {found.read:,} are read, spread evenly."
    return f'<p class="tf-muted tf-small tf-whole">{escape(told)}</p>'


def _picture(found: DeviceFigures, figure: MeasuredFigure) -> str:
    title = f"{figure.title}, {figure.unit}" if figure.unit else figure.title
    if not any(line.parts for line in figure.lines):
        absent = "The device does not report it." if figure.reports else "No report in this time."
        return _figure(title, "", absent)
    told = "; ".join(_in_words(line, dashed=place == 1) for place, line in enumerate(figure.lines))
    drawn = charts.lines(
        [line.parts for line in figure.lines], found.from_ms, found.until_ms, figure.unit, said=f"{title}: {told}"
    )
    return _figure(title, drawn, told)


def _in_words(line: MeasuredLine, *, dashed: bool) -> str:
    """Return a line's newest value and its range, or that there is none."""
    values = [value for _, value in line.points]
    if not values:
        return f"{line.name}: not reported"
    name = f"{line.name} (dashed)" if dashed else line.name
    return f"{name} {_short(values[-1])}, from {_short(min(values))} to {_short(max(values))}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def _figure(title: str, drawn: str, told: str) -> str:
    return (
        f'<figure class="tf-figure-card"><figcaption><b>{escape(title)}</b> <span>{escape(told)}</span></figcaption>'
        f"{drawn}</figure>"
    )
