"""A window of the device beside a reference, stream by stream, in pictures and words, on its page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from html import escape

from nicegui import events, ui

from server.dashboard.drawing import charts
from server.dashboard.services import Services
from server.dashboard.theme import heading, live_apart
from server.dashboard.views import clock_time
from server.telemetry.histograms import ERRORS, ReferenceKind, StreamHistogram, WindowComparison
from server.wording import duration
from wire.errors import HistogramError

_PICTURES, _LISTED = 12, 64
_LONGEST = 60
_CHOICES = {ReferenceKind.OWN: "its own usual", ReferenceKind.TRAINING: "the release's training data"}


@dataclass(slots=True, kw_only=True)
class ChosenWindow:
    """Which window one visitor looks at (None: the newest), and beside what; ``again`` shows it."""

    services: Services
    device: str
    start_ms: int | None = None
    against: ReferenceKind | None = None
    again: Callable[[], Awaitable[None]] | None = None
    _seen: tuple[object, ...] = ()
    _found: WindowComparison | str = field(default_factory=lambda: WindowComparison(start_ms=None))

    async def choose(self, start_ms: int | None) -> None:
        """Show another window."""
        self.start_ms = start_ms
        if self.again is not None:
            await self.again()

    async def clicked(self, event: events.EChartPointClickEventArguments) -> None:
        """Show the window of a point of the evidence chart."""
        if isinstance(event.value, list) and event.value and isinstance(event.value[0], int | float):
            await self.choose(int(event.value[0]))

    async def compare_with(self, against: ReferenceKind) -> None:
        """Show the window beside another reference."""
        self.against = against
        if self.again is not None:
            await self.again()

    def look(self, _at_most_s: float) -> WindowComparison | str:
        """Return the window beside its reference; it is read again only if another is wanted or has arrived."""
        newest = self.services.histograms.newest(self.device)
        wanted = newest, self.start_ms, self.against
        if wanted != self._seen:
            try:
                self._found = self.services.histograms.compare(self.device, self.start_ms, self.against)
            except HistogramError as error:
                self._found = str(error)
            self._seen = wanted
        return self._found


def show_histograms(chosen: ChosenWindow) -> None:
    """Show the window that is chosen, and what leads to others."""
    with ui.element("section").classes("tf-card").props('id="window"'):
        heading("One window beside its reference")
        ui.label(
            "Bars: the window. Line: the reference. Choose a window by a click on the chart above, or here. This is a "
            "look at one window; an alarm adds up many, and counts only what moves more than the fleet ordinarily does."
        ).classes("tf-muted tf-small")
        chosen.again = live_apart(chosen.look, partial(_show, chosen))


def _show(chosen: ChosenWindow, found: WindowComparison | str) -> None:
    if isinstance(found, str):
        ui.label(found)
        return
    if found.start_ms is None:
        if chosen.start_ms is not None:
            ui.label("That window is merged into its day by now, or never arrived.").classes("tf-muted")
            _button("Newest window", partial(chosen.choose, None))
        else:
            ui.label("No window has arrived yet, or they are merged into days by now.").classes("tf-muted")
        return
    with ui.element("div").classes("tf-row"):
        _button("Earlier", partial(chosen.choose, found.earlier_ms), possible=found.earlier_ms is not None)
        _button("Later", partial(chosen.choose, found.later_ms), possible=found.later_ms is not None)
        _button("Newest", partial(chosen.choose, None), possible=found.later_ms is not None)
        for one in found.choices:
            if one is not found.against:
                _button(f"Beside {_CHOICES[one]}", partial(chosen.compare_with, one))
    ui.label(_summary(found)).style("font-weight: 600")
    ui.label(_sizes(found)).classes("tf-small")
    if found.note:
        ui.label(found.note).classes("tf-small")
    shown = found.streams[:_PICTURES]
    pictures = "".join(_picture(one) for one in shown)
    ui.html(f'<div class="tf-pictures">{pictures}</div>', sanitize=False).style("width: 100%")
    ui.html(_table(found.streams), sanitize=False).style("width: 100%")


def _button(label: str, on_click: Callable[[], Awaitable[None]], *, possible: bool = True) -> None:
    button = ui.button(label, on_click=on_click).props("no-caps dense outline").style("padding: 4px 14px")
    button.set_enabled(possible)


def _summary(found: WindowComparison) -> str:
    """Return which streams differ, in words."""
    if found.against is None:
        return "Nothing to compare with yet."
    differ = [one for one in found.streams if one.differs]
    if not differ:
        return f"No stream of {len(found.streams)} differs by more than {ERRORS:.0f} standard errors."
    names = ", ".join(f"{one.name} ({_difference(one)})" for one in differ[:6])
    more = f" and {len(differ) - 6} more" if len(differ) > 6 else ""  # noqa: PLR2004 - as many as are named
    return f"{len(differ)} of {len(found.streams)} streams differ: {names}{more}."


def _sizes(found: WindowComparison) -> str:
    start_ms = found.start_ms or 0
    text = f"Window from {clock_time(start_ms)} UTC, {duration(found.len_ms)}, {found.n:,} inferences"
    text += f", {found.release}" if found.release else ", of a release that the registry does not know"
    if found.against is None:
        return f"{text}."
    n = max((one.reference_n for one in found.streams), default=0)
    return f"{text}. Reference: {found.reference_words}, {n:,} samples."


def _difference(one: StreamHistogram) -> str:
    if one.shift_sd is None or not one.differs:
        return one.words or "as usual"
    return f"{one.words}, by {abs(one.shift_sd):.1f} sd" if abs(one.shift_sd) >= 0.05 else one.words  # noqa: PLR2004


def _picture(one: StreamHistogram) -> str:
    told = _difference(one) if one.differs else _nothing(one)
    said = f"{one.name}: {told}; {one.n:,} values in the window, {one.reference_n:,} in the reference"
    drawn = charts.histogram(one.window, one.reference, one.edges, said=said, classes=one.categorical)
    name = escape(one.name)
    strong = " tf-differs" if one.differs else ""
    return (
        f'<figure class="tf-figure-card{strong}"><figcaption><span class="tf-mono tf-cut" title="{name}">{name}</span> '
        f"<span>{escape(told)}</span></figcaption>{drawn}</figure>"
    )


def _nothing(one: StreamHistogram) -> str:
    if not one.n:
        return "no valid value in this window"
    return "no difference that stands out" if one.reference_n else "nothing to compare with"


def _table(streams: tuple[StreamHistogram, ...]) -> str:
    heads = ("Stream", "Difference", "Shift, sd", "Jensen-Shannon", "Kolmogorov-Smirnov", "PSI", "n", "n reference",
             "Invalid")  # fmt: skip
    rows = "".join(
        f'<tr><th scope="row" title="{escape(one.name)}">{escape(one.name[:_LONGEST])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in _cells(one)) + "</tr>"
        for one in streams[:_LISTED]
    )  # fmt: skip
    more = len(streams) - _LISTED
    rest = f'<p class="tf-muted tf-small">and {more} more streams, which differ less</p>' if more > 0 else ""
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    return (
        f"<details><summary>Numbers of all streams</summary>"
        f'<div class="tf-scroll" tabindex="0" role="region" aria-label="Numbers of all streams, scrolls sideways">'
        f'<table class="tf-numbers"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{rest}</details>'
    )


def _cells(one: StreamHistogram) -> tuple[str, ...]:
    if not one.reference_n:
        return ("nothing to compare with", "", "", "", "", f"{one.n:,}", "0", f"{one.invalid:,}")
    told = _difference(one) if one.differs else _nothing(one)
    shift = "" if one.shift_sd is None else f"{one.shift_sd:+.2f}"
    measures = (f"{one.js:.3f}", f"{one.ks:.3f}", f"{one.psi:.3f}") if one.n else ("", "", "")
    return (told, shift, *measures, f"{one.n:,}", f"{one.reference_n:,}", f"{one.invalid:,}")
