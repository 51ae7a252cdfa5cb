"""The drift of a device on its page: its evidence over time, and the streams that hold the newest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nicegui import ui

from server.dashboard import evidence
from server.dashboard.pages.device.histograms import ChosenWindow
from server.dashboard.services import Services
from server.dashboard.theme import heading, keep_fresh, live, meter
from server.dashboard.views import Tone
from server.errors import ServerError
from wire.errors import WireError

_WINDOWS = 200
_RELEASES, _LABEL = 12, 24


def show_evidence(services: Services, device: str, chosen: ChosenWindow) -> None:
    """Show the device's evidence over time; a click on a point chooses its window."""
    with ui.element("section").classes("tf-card"):
        heading("Drift evidence over time")
        ui.label(
            "At 100 % the device is flagged: it moved further than its fleet ordinarily does, not: it is worse. "
            "Blue: against its own usual, which decides; grey: against training. Upright lines: another release began."
        ).classes("tf-muted tf-small")
        _chart(services, device, chosen)


def show_streams(services: Services, device: str) -> None:
    """Show which streams hold the newest evidence."""
    with ui.element("section").classes("tf-card"):
        heading("What holds the evidence")
        live(lambda: newest_point(services, device), partial(_streams, services, device))


def newest_point(services: Services, device: str) -> evidence.ChartPoint | None:
    """Return the newest window of the device, None before any."""
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


def _chart(services: Services, device: str, chosen: ChosenWindow) -> None:
    lines = evidence.series(evidence.read(services.database, device, _WINDOWS))
    ran = [(one.from_ms, one.release) for one in services.lineage.history(device)[-_RELEASES:]]
    options = _options(lines, ran)
    chart = ui.echart(options, on_point_click=chosen.clicked).style("height: 320px").classes("tf-chart")

    def again() -> None:
        nonlocal lines
        fresh = evidence.series(evidence.read(services.database, device, _WINDOWS))
        if fresh != lines:
            lines = fresh
            for drawn, name in zip(chart.options["series"], ("evidence", "training"), strict=True):
                drawn["data"] = fresh[name]
            chart.update()

    keep_fresh(again)


def _options(lines: dict[str, list[list[float | int | None]]], ran: Sequence[tuple[int, str]]) -> dict[str, object]:
    grey = "#8a93a2"
    threshold = {
        "silent": True, "symbol": "none", "lineStyle": {"color": "#d0463b", "type": "dashed", "width": 1.5},
        "label": {"formatter": "threshold", "color": "#d0463b", "position": "insideStartTop"}, "data": [{"yAxis": 100}],
    }  # fmt: skip
    first_ms = min((at_ms for at_ms, _ in lines["evidence"] if at_ms is not None), default=0)
    changes = {
        "silent": True, "symbol": "none", "lineStyle": {"color": grey, "type": "solid", "width": 1},
        "label": {"formatter": "{b}", "color": grey, "position": "insideEndTop"},
        "data": [{"xAxis": from_ms, "name": release[:_LABEL]} for from_ms, release in ran if from_ms > first_ms],
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
             "lineStyle": {"type": "dotted"}, "markLine": changes},
        ],
    }  # fmt: skip
