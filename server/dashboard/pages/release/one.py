"""``/release/{name}``: gates with bounds, slices, sizes, card, where it runs, its rollouts and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from fastapi import Request, Response
from nicegui import run, ui

from server.access.roles import Need
from server.dashboard.drawing.gates import change_bar, gate_bar
from server.dashboard.listing import SharedLook
from server.dashboard.pages.rollouts import Releases
from server.dashboard.release.views import ReleaseView, ShownGate, ShownSlice, TargetView, release_view
from server.dashboard.theme import (
    FIRST_S,
    Markup,
    and_more,
    empty,
    heading,
    keep_fresh,
    meter_tag,
    more_tag,
    pill,
    pill_tag,
    show_markup,
    tag,
)
from server.dashboard.views import PageLink, Status, Tone, clock_time
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownReleaseError
from server.lineage.graph import LineageNode
from server.rollout.create import RolloutOptions
from server.rollout.model import Rollout
from server.rollout.thresholds import devices

_LOOK_S = FIRST_S
_MAX_NAME = 200
_ROLLOUTS = "/rollouts"
_QUIET = "tf-muted tf-small"
_MOST_SHOWN = 40  # characters of an id: a digest has 64


def add_page(pages: Pages) -> None:
    """Add the page."""
    looks: SharedLook[str, ReleaseView] = SharedLook(partial(release_view, pages.services))

    @ui.page("/release/{name}")
    def page(request: Request, name: str) -> Response | None:
        return pages.show(request, "/releases", name[:_MAX_NAME], partial(_build, looks, name[:_MAX_NAME]))


def _build(looks: SharedLook[str, ReleaseView], name: str, visit: Visit) -> None:
    heading(name, 1)
    try:
        release = visit.services.versions.release(name)
    except UnknownReleaseError:
        visit.client.status_code = 404
        empty("No such release", "It may have been spelled differently; the page Releases lists every one.")
        return
    if visit.may(Need.OPERATE) and not release.withdrawn_ms:
        Starting(visit, name).build()
    _later(partial(looks.get, name), show)


def _later(look: Callable[[float], ReleaseView], show: Callable[[ReleaseView], None]) -> None:
    """Show what ``look`` finds in a thread, and again when it differs: bundles and counts hold up no other visitor."""
    seen: ReleaseView | None = None

    @ui.refreshable
    def part() -> None:
        if seen is None:
            ui.label("Reading the bundle and counting devices.").classes("tf-muted").props("role=status")
        else:
            show(seen)

    async def again() -> None:
        nonlocal seen
        fresh = await run.io_bound(look, _LOOK_S)
        if fresh is not None and fresh != seen:  # None: the server stops
            seen = fresh
            part.refresh()

    part()
    keep_fresh(again)


def show(view: ReleaseView) -> None:
    """Show one release."""
    _head(view)
    for target in view.targets.rows:
        _target(target)
    and_more(view.targets.more, f"fleet-server lineage release DIR {view.name} names every target")
    with ui.element("div").classes("tf-wide"):
        _where(view)
        _rollouts(view)
    _lineage(view)


def _head(view: ReleaseView) -> None:
    with ui.element("section").classes("tf-card"):
        with ui.element("div").classes("tf-row"):
            if view.withdrawn:
                pill(Status("withdrawn", Tone.BAD))
            pill(Status("signs against it", Tone.BAD) if view.signs else Status("no sign against it", Tone.GOOD))
            ui.label(f"Model {view.model}, published {view.published} UTC").classes("tf-muted")
        if view.withdrawn:
            ui.label(f"It was {view.withdrawn}. It is offered to no device any more.")
        for sign in view.signs:
            ui.label(sign).classes("tf-plain-bad")
        if not view.signs:
            ui.label(
                "No open regression and no label that shows harm. Devices that report nothing, and images that nobody "
                "labels, show nothing either."
            ).classes("tf-muted tf-small")


def _target(target: TargetView) -> None:
    with ui.element("section").classes("tf-card"):
        with ui.element("div").classes("tf-row"):
            heading(f"Gates for {target.target}")
            if target.verdict is not None:
                pill(target.verdict)
                ui.label(f"against {target.baseline or 'nothing'}").classes("tf-muted tf-small")
        if target.problem:
            ui.label(f"What it states is not known: its bundle can't be read here: {target.problem}")
        if target.missing:
            ui.label(f"Its bundle lacks {', '.join(target.missing)}: what these state is not known.")
        for remark in target.remarks:
            ui.label(remark).classes("tf-plain-warn")
        for gate in target.gates.rows:
            _gate(gate)
        and_more(target.gates.more, "in gate.json of the bundle")
        if target.gates.rows:
            ui.label("Dot: measured. Whisker: its bound, on the unfavourable side. Upright line: the limit.").classes(
                _QUIET
            )
        _slices(target)
        _facts(target)


def _gate(gate: ShownGate) -> None:
    parts = [tag("b", gate.title), pill_tag(gate.verdict), tag("span", gate.figures, look=_QUIET + " tf-number")]
    shown = [tag("div", *parts, look="tf-row")]
    if gate.value is not None and (gate.bound is not None or gate.limit is not None):
        passed, said = gate.verdict.tone is Tone.GOOD, f"{gate.title}: {gate.figures}"
        shown.append(Markup(gate_bar(gate.value, gate.bound, gate.limit, passed=passed, said=said)))
    shown += [tag("div", gate.text, look="tf-small")] if gate.text else []
    show_markup(*shown, look="tf-gate-row")


def _slices(target: TargetView) -> None:
    if not target.slices.rows:
        return
    heading("Slices, against the baseline")
    most = max(abs(row.change) for row in target.slices.rows)
    show_markup(*(_slice(row, most) for row in target.slices.rows), look="tf-steps")
    and_more(target.slices.more, "in gate.json of the bundle")
    ui.label("To the right: worse. Counts have no bound of their own here; the gates above have.").classes(_QUIET)


def _slice(row: ShownSlice, most: float) -> Markup:
    bar = Markup(change_bar(row.change, most, said=f"{row.name}: {row.text}"))
    name, text = tag("span", row.name, look="tf-cut", title=row.name), tag("span", row.text, look="tf-small tf-number")
    return tag("div", name, bar, text, look="tf-slice")


def _facts(target: TargetView) -> None:
    heading("Sizes and limits")
    show_markup(_pairs(target.facts))
    if target.figures.rows:
        shown = [_pairs(target.figures.rows), more_tag(target.figures.more)]
        show_markup(tag("details", tag("summary", "Every figure of the certificate"), *shown))
    if target.card:
        card = tag("div", target.card, look="tf-mono tf-lines", tabindex="0", role="region", aria_label="Model card")
        show_markup(tag("details", tag("summary", "Model card"), card))


def _pairs(rows: Sequence[tuple[str, str]]) -> Markup:
    return tag("dl", *(part for name, value in rows for part in (tag("dt", name), tag("dd", value))), look="tf-facts")


def _where(view: ReleaseView) -> None:
    with ui.element("section").classes("tf-card"):
        heading("Where it runs")
        now = PageLink.to(f"{devices(view.now)} now, by what they report", "/", release=view.name)
        rows = [
            tag("div", _link(link), meter_tag(count / max(view.now, 1), Tone.BUSY, f"Share of {link.text}"),
                tag("span", f"{count:,}", look="tf-small tf-number"), look="tf-slice")
            for link, count in view.sites.rows
        ]  # fmt: skip
        show_markup(_link(now), tag("div", f"{devices(view.ever)} ever did.", look=_QUIET), *rows, look="tf-steps")
        and_more(view.sites.more, "sites, by the filter of the overview")


def _rollouts(view: ReleaseView) -> None:
    with ui.element("section").classes("tf-card"):
        heading("Rollouts of it")
        if not view.rollouts:
            ui.label("None was made.").classes("tf-muted")
        rows = [
            tag("div", _link(PageLink(f"rollout {one.id}", one.link)), " ",
                tag("span", f"{clock_time(one.at_ms)} UTC: {one.words}", look="tf-small"))
            for one in view.rollouts
        ]  # fmt: skip
        every = _link(PageLink.to("All, with their groups", _ROLLOUTS, release=view.name))
        show_markup(*rows, more_tag(view.left_out.get("rollouts", 0)), every, look="tf-steps")


def _lineage(view: ReleaseView) -> None:
    with ui.element("section").classes("tf-card"):
        heading("Where it comes from")
        looks = {Tone.GOOD: " tf-good", Tone.WARN: " tf-warn"}
        stages = [
            tag("li", f"{name}: {status.text}", look=f"tf-stage{looks.get(status.tone, '')}")
            for name, status in view.steps
        ]
        show_markup(tag("ol", *stages, look="tf-stages"), *(tag("div", line) for line in view.answers), look="tf-steps")
        steps = tag("div", *(_node(node, witness) for node, witness in view.nodes.rows), look="tf-steps")
        summary = tag("summary", "Every step, with who did what and where it is known from")
        show_markup(tag("details", summary, steps, more_tag(view.nodes.more)))


def _node(node: LineageNode, witness: str) -> Markup:
    name = node.id if len(node.id) <= _MOST_SHOWN else f"{node.id[:_MOST_SHOWN]}…"
    has_page = node.link and not node.link.startswith("/api/")
    head = [tag("b", node.kind.replace("_", " "))]
    head.append(_link(PageLink(name, node.link)) if has_page else tag("span", name, look="tf-mono"))
    head += [] if node.known else [pill_tag(Status("not known", Tone.WARN))]
    at = clock_time(node.at_ms)
    head += [tag("span", f"{at} UTC", look=_QUIET)] if at else []
    lines = [f"{act.act} by {act.by}, {clock_time(act.at_ms)} UTC" + (f": {act.why}" if act.why else "")
             for act in node.acts]  # fmt: skip
    quiet = (tag("div", line, look=_QUIET) for line in [*lines, witness] if line)
    return tag("div", tag("div", *head, look="tf-row"), tag("div", node.words, look="tf-small"), *quiet,
               look="tf-gate-row")  # fmt: skip


def _link(link: PageLink) -> Markup:
    return tag("a", link.text, look="tf-link tf-small", href=link.href)


@dataclass(slots=True)
class Starting:
    """The buttons that start a rollout of the release, or withdraw it."""

    visit: Visit
    name: str

    def build(self) -> None:
        """Show the form."""
        with ui.element("section").classes("tf-card"):
            heading("Roll it out, or withdraw it")
            with ui.element("div").classes("tf-row"):
                canary = ui.number("Devices that go first", value=1, min=1, step=1, precision=0)
                canary.props("dense outlined").style("width: 180px")
                ui.button("Make rollout", on_click=lambda: self._make(canary.value)).props("unelevated no-caps")
                ui.element("div").classes("tf-grow")
                button = ui.button("Withdraw", on_click=partial(Releases(self.visit).withdraw, self.name))
                button.props("no-caps dense outline color=negative").style("padding: 4px 14px")
            ui.label("Nothing is sent before somebody approves it. The page Rollouts has every other choice.").classes(
                "tf-muted tf-small"
            )

    async def _make(self, canary: float | None) -> None:
        def create() -> Rollout:
            wanted = RolloutOptions(release=self.name, canary=1 if canary is None else int(canary))
            return self.visit.services.rollouts.create(wanted, by=self.visit.by())

        made = await self.visit.do(create)
        if made is not None:
            with self.visit.client:
                ui.notify(f"Rollout of {made.release} to {devices(len(made.members))} made: approve it on Rollouts")
