"""``/rollouts``: a form for a new rollout, the progress of each with the buttons that control it, and the releases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import quote

from fastapi import Request, Response
from nicegui import run, ui

from server.access.roles import Need
from server.dashboard.conditions import ConditionsForm
from server.dashboard.finding.addresses import page_of
from server.dashboard.listing import (
    CURSOR,
    FilterField,
    SharedLook,
    filter_form,
    page_ends,
    pager,
    refused,
    values_of,
)
from server.dashboard.progress import GroupView, MemberRow, MemberView, RolloutCard, member_row, rollout_card
from server.dashboard.services import Services
from server.dashboard.theme import (
    FIRST_S,
    FRESH_S,
    Column,
    Markup,
    and_more,
    ask_decision,
    ask_name,
    ask_why,
    choose,
    confirm,
    device_tag,
    empty,
    heading,
    keep_fresh,
    live_apart,
    live_table_apart,
    meter_tag,
    more_tag,
    pill,
    pill_tag,
    show_markup,
    tag,
)
from server.dashboard.views import Cut, Status, Tone, ago, clock_time
from server.dashboard.visit import Pages, Visit
from server.errors import RolloutRefusedError, ServerError, UnknownRolloutError
from server.fleet.fleet import Device
from server.registry.versions import Release
from server.rollout.create import RolloutOptions
from server.rollout.figures.members import RolloutFigures
from server.rollout.model import OPEN_PHASES, MemberStanding, Rollout, RolloutPhase
from server.rollout.regressions import holding
from server.rollout.resuming import Foresight, How
from server.rollout.scope import Scope
from server.rollout.selection import candidate_counts, running_model
from server.rollout.service import Kept
from server.rollout.thresholds import devices
from server.store.lists.paging import Page
from server.store.lists.rollouts import MemberFilter

_SHOWN, _OFFERS_COUNTED, _MAX_ID = 10, 12, 80
_QUESTIONS = {
    "approve": (
        "Approve {release}?",
        "The first group is assigned it at once; the next opens when the one before reaches its success ratio.",
    ),
    "pause": ("Pause {release}?", "No further device is assigned it; those under way continue."),
    "resume": ("Resume {release}?", ""),
    "abort": ("Abort {release}?", "Whoever has not committed goes back to what it ran before. This can't be undone."),
}
_WAYS = {
    How.RETRY: "Go on, and try again where it failed",
    How.REPLACE: "Let others try; the failures still count",
    How.TOLERATE: "Let the failures stand; they still count",
}
_DISMISSAL = (
    "It says that the release made devices worse. Dismissed, it holds no rollout any more; it is shown as long as "
    "devices show it. Your name and the reason are recorded, and a reason is needed."
)
_NEEDS = {"approve": Need.APPROVE, "resume": Need.APPROVE, "pause": Need.OPERATE, "abort": Need.OPERATE}
_LOOKS = {"approve": "unelevated", "resume": "unelevated", "pause": "outline", "abort": "outline color=negative"}


FIELDS = (
    FilterField(name="phase", label="Phase", choices={one.value: one.value.replace("_", " ") for one in RolloutPhase}),
    FilterField(name="release", label="Release"),
)
MEMBER_FIELDS = (
    FilterField(name="search", label="Device"),
    FilterField(
        name="standing", label="Only", choices={one.value: one.value.replace("_", " ") for one in MemberStanding}
    ),
)
MEMBER_COLUMNS = (
    Column(name="device", label="Device", look="device", sortable=False),
    Column(name="group", label="Group", sortable=False),
    Column(name="standing", label="State", look="pill", sortable=False),
    Column(name="fetched", label="Fetched", sortable=False),
    Column(name="settled", label="Settled (UTC)", sortable=False),
)
_MEMBERS_SHOWN = 100
Asked = tuple[tuple[str, str], ...]


def add_page(pages: Pages) -> None:
    """Add the pages: of all rollouts, and of the devices of one."""
    services = pages.services
    kept: Kept[RolloutCard] = {}
    cards: SharedLook[Asked, Page[RolloutCard]] = SharedLook(partial(rollout_cards, services, kept))
    offered: SharedLook[str, FormChoices] = SharedLook(lambda _: form_choices(services))
    released: SharedLook[str, Cut[ReleaseRow]] = SharedLook(
        lambda _: release_rows(services.versions.releases(), services.fleet.devices())
    )
    pages.add("/rollouts", "Rollouts", partial(_build, Looks(cards, offered, released)))
    members: SharedLook[tuple[str, Asked], Page[MemberRow]] = SharedLook(partial(_member_rows, services))

    @ui.page("/rollouts/{rollout}")
    def page(request: Request, rollout: str) -> Response | None:
        return pages.show(request, "/rollouts", "Rollout", partial(_build_members, members, rollout[:_MAX_ID]))


@dataclass(frozen=True, slots=True)
class Looks:
    """What all visitors share: the cards of each address, what the form offers, and the releases."""

    cards: SharedLook[Asked, Page[RolloutCard]]
    offered: SharedLook[str, FormChoices]
    released: SharedLook[str, Cut[ReleaseRow]]


def _build(looks: Looks, visit: Visit) -> None:
    if visit.may(Need.OPERATE):
        NewRollout(visit, looks.offered).build()
    values, wrong = values_of(visit.request.query_params, FIELDS)
    filter_form("/rollouts", FIELDS, values)
    asked = tuple(sorted(values.items()))
    look = partial(looks.cards.get, asked)
    if not (wrong := wrong or refused(look)):
        steering = Steering(visit, asked)
        visit.look = live_apart(look, steering.show)
        live_apart(page_ends(look), lambda found: pager("/rollouts", dict(asked), found, "rollouts"))
    else:
        empty("No such list", f"{wrong}. See all rollouts at the address /rollouts.")
    Releases(visit).build(looks.released)


def _build_members(looks: SharedLook[tuple[str, Asked], Page[MemberRow]], rollout: str, visit: Visit) -> None:
    try:
        known, _ = visit.services.rollouts.ledger.members(rollout, MemberFilter(), limit=1)
    except UnknownRolloutError as error:
        visit.client.status_code = 404
        empty("No such rollout", str(error))
        return
    heading(f"Devices of the rollout of {known.release}", 1)
    ui.link("All rollouts", "/rollouts").classes("tf-link tf-small")
    path = f"/rollouts/{quote(rollout, safe='')}"
    values, wrong = values_of(visit.request.query_params, MEMBER_FIELDS)
    filter_form(path, MEMBER_FIELDS, values)
    look = partial(looks.get, (rollout, tuple(sorted(values.items()))))
    if wrong := wrong or refused(look):
        empty("No such list", f"{wrong}. See all devices at the address {path}.")
        return

    def show(known: bool) -> None:  # noqa: FBT001 - what one look found
        if known:
            live_table_apart(MEMBER_COLUMNS, "device", lambda at_most_s: look(at_most_s).rows)
        else:
            empty("No device here", f"None is as the filters ask: see all devices at the address {path}.")

    live_apart(lambda at_most_s: bool(look(at_most_s).rows), show)
    live_apart(page_ends(look), lambda found: pager(path, values, found, "devices"))


def _member_rows(services: Services, asked: tuple[str, Asked]) -> Page[MemberRow]:
    rollout, values = asked[0], dict(asked[1])
    wanted = MemberFilter(search=values.get("search", ""), standing=values.get("standing", ""))
    known, found = services.rollouts.ledger.members(
        rollout, wanted, limit=_MEMBERS_SHOWN, cursor=values.get(CURSOR)
    )  # fmt: skip
    (shown,) = services.rollouts.up_to_date(known)
    rows = tuple(member_row(one, shown.groups[one.group].name) for one in shown.members)
    return Page(rows=rows, next=found.next, previous=found.previous, total=found.total)


@dataclass(frozen=True, slots=True)
class Steering:
    """The cards on one visitor's page, with the actions of their buttons."""

    visit: Visit
    asked: Asked = ()

    def show(self, found: Page[RolloutCard]) -> None:
        """Show the rollouts, open ones first."""
        if not found.rows and self.asked:
            empty("No rollout here", "None is as the filters ask: see all rollouts at the address /rollouts.")
        elif not found.rows:
            empty("No rollouts yet", "Publish a release with compressor publish; then make its rollout here.")
        for card in found.rows:
            with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{card.phase.tone}"):
                self._card(card)

    def _card(self, card: RolloutCard) -> None:
        with ui.element("div").classes("tf-row"):
            heading(card.release)
            pill(card.phase)
            ui.label(card.created).classes("tf-muted tf-small")
            if card.air:
                ui.label(card.air).classes("tf-muted tf-small")
            total = sum(group.total for group in card.groups)
            ui.link(f"all {devices(total)}", f"/rollouts/{card.id}").classes("tf-link tf-small")
            ui.link("the release", page_of("release", card.release)).classes("tf-link tf-small")
            ui.element("div").classes("tf-grow")
            for verdict in card.held_by if self.visit.may(Need.APPROVE) else ():
                button = ui.button(f"Dismiss verdict {verdict}", on_click=partial(self._dismiss, verdict))
                button.props("no-caps dense outline").style("padding: 4px 14px")
            for action in (one for one in card.actions if self.visit.may(_NEEDS[one])):
                button = ui.button(action.capitalize(), on_click=partial(self._ask, card, action))
                button.props(f"no-caps dense {_LOOKS[action]}").style("padding: 4px 14px")
        if card.reason:
            ui.label(card.reason).style("font-weight: 600")
        texts = (
            (card.scope, "tf-small"), (card.failing, "tf-muted tf-small"), (card.disagreeing, "tf-muted tf-small"),
            (card.shadow, "tf-small"), (card.shadow and card.shadow_means, "tf-muted tf-small"),
            (card.replay, "tf-small"), *((caution, "tf-small") for caution in card.cautions),
        )  # fmt: skip
        if any(text for text, _ in texts):
            show_markup(*(tag("div", text, look=look) for text, look in texts if text))
        for group in card.groups:
            may_skip = group.may_skip and self.visit.may(Need.APPROVE)
            show_group(group, partial(self._skip, card, group.name) if may_skip else None)

    async def _dismiss(self, verdict: int) -> None:
        said = await ask_decision(self.visit.client, f"Dismiss verdict {verdict}?", _DISMISSAL, "Dismiss")
        if said is not None:
            now_ms, (why, by) = self.visit.services.fleet.clock(), said
            dismiss = self.visit.services.drift.verdicts.dismiss
            await self.visit.do(partial(dismiss, verdict, why, now_ms, by=self.visit.by(by)), Need.APPROVE)

    async def _ask(self, card: RolloutCard, action: str) -> None:
        question, detail = _QUESTIONS[action]
        question = question.format(release=card.release)
        if action == "resume":
            await self._resume(card, question)
            return
        seen = await self.visit.ask(partial(self.visit.services.rollouts.foresee, card.id, action, by=self.visit.by()))
        if seen is not None and await confirm(
            self.visit.client, question, f"{seen.text}. {detail}", action.capitalize()
        ):  # fmt: skip
            await self.visit.do(partial(self._act(action), card.id), _NEEDS[action])

    async def _resume(self, card: RolloutCard, question: str) -> None:
        """Offer the ways to resume, each with the devices it assigns; not those that would pause again at once."""
        found = await self.visit.ask(partial(self._ways, card.id))
        if found is None:
            return
        choices = {how.value: f"{_WAYS[how]}: {seen.text}" for how, seen in found.items()}
        answer = await choose(self.visit.client, question, choices, "Resume")
        if answer is not None:
            how, by = How(answer[0]), answer[1]
            resume = self.visit.services.rollouts.resume
            only = found[how].assigns
            await self.visit.do(partial(resume, card.id, how, by=self.visit.by(by), only=only), Need.APPROVE)

    def _ways(self, rollout: str) -> dict[How, Foresight]:
        """Return the ways to resume that differ in what they do.

        Raises:
            ServerError: If every way is refused: the reason of the first.
        """
        found: dict[How, Foresight] = {}
        refusals: list[ServerError] = []
        for how in How:
            try:
                seen = self.visit.services.rollouts.foresee(rollout, "resume", how=how)
            except ServerError as error:
                refusals.append(error)
            else:
                if seen not in found.values():
                    found[how] = seen
        if not found:
            raise refusals[0]
        return found

    async def _skip(self, card: RolloutCard, group: str) -> None:
        seen = await self.visit.ask(partial(self.visit.services.rollouts.foresee, card.id, "skip", group=group))
        if seen is None:
            return
        detail = f"It has not reached its success, or answered no input. {seen.text}. Your name is recorded."
        name = await ask_name(self.visit.client, f"Skip {group} of {card.release}?", detail, "Skip group")
        if name is not None:
            skip = self.visit.services.rollouts.skip
            by = self.visit.by(name)
            await self.visit.do(partial(skip, card.id, group, by=by, only=seen.assigns), Need.APPROVE)

    def _act(self, action: str) -> Callable[[str], Rollout]:
        rollouts = self.visit.services.rollouts
        acts: dict[str, Callable[..., Rollout]] = {
            "approve": rollouts.approve, "pause": rollouts.pause, "abort": rollouts.abort,
        }  # fmt: skip
        return partial(acts[action], by=self.visit.by())


def show_group(group: GroupView, skip: Callable[[], Awaitable[None]] | None = None) -> None:
    """Show one group: its bar, figures and devices, and a button if a person may ``skip`` it."""
    bar = meter_tag(
        group.committed_ratio, Tone.BAD if group.failed or group.stuck else Tone.GOOD, f"Committed in {group.name}"
    )
    figures = (
        tag("div", group.name, style="font-weight: 600; min-width: 90px"),
        tag("div", bar, style="flex: 1; min-width: 120px"),
        tag("div", f"{group.committed} of {group.total} committed", look="tf-number tf-small"),
        *map(pill_tag, group.states),
    )
    rest = (
        tag("div", *map(_member_tag, group.members.rows), more_tag(group.members.more), look="tf-row tf-small"),
        tag("div", "; ".join(filter(None, (group.needs, group.air))), look="tf-muted tf-small"),
    )
    if skip is None:
        show_markup(tag("div", *figures, look="tf-row"), *rest, look="tf-group")
        return
    with ui.element("div").classes("tf-group"):
        with ui.element("div").classes("tf-row"):
            show_markup(*figures, look="tf-row tf-grow")
            ui.button("Skip group", on_click=skip).props("no-caps dense outline").style("padding: 2px 10px")
        show_markup(*rest)


def _member_tag(member: MemberView) -> Markup:
    return tag("span", device_tag(member.device), pill_tag(member.standing), look="tf-row", style="gap: 6px")


def rollout_cards(services: Services, kept: Kept[RolloutCard], asked: Asked) -> Page[RolloutCard]:
    """Return the page of rollouts at an address, those that are not over first; ``kept``: what was described before.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    now_ms, verdicts, values = services.fleet.clock(), services.drift.verdicts, dict(asked)
    found = services.rollouts.ledger.page(
        phase=values.get("phase", ""), release=values.get("release", ""), limit=_SHOWN, cursor=values.get(CURSOR),
        open_first=True,
    )  # fmt: skip
    held = {one.release: holding(verdicts, one.release) for one in found.rows if one.phase in OPEN_PHASES}

    def card(rollout: Rollout, figures: RolloutFigures) -> RolloutCard:
        return rollout_card(rollout, now_ms, [verdict.id for verdict in held.get(rollout.release, ())], figures)

    made = {one.id: f"made {ago(one.created_ms, now_ms)}" for one in found.rows}
    cards = services.rollouts.described(found.rows, card, kept)
    rows = tuple(replace(one, created=made[one.id]) for one in cards)
    return Page(rows=rows, next=found.next, previous=found.previous, total=found.total)


@dataclass(frozen=True, slots=True)
class ReleaseOffer:
    """A release that can be rolled out, and the number of devices for it, None if they were not counted."""

    release: str
    devices: int | None

    @property
    def text(self) -> str:
        """The entry in the list."""
        if self.devices is None:
            return self.release
        can = f"{devices(self.devices)} can take it" if self.devices else "no device needs it"
        return f"{self.release}: {can}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormChoices:
    """What the form for a new rollout offers: releases with a text each, and values of the filters of its scope."""

    releases: dict[str, str]
    sites: tuple[str, ...]
    models: tuple[str, ...]
    running: tuple[str, ...]
    hardware: tuple[str, ...]
    tags: tuple[str, ...]


def form_choices(services: Services) -> FormChoices:
    """Return what there is now."""
    releases, devices = services.versions.releases(), services.fleet.devices()
    known = {release.name: release.model for release in releases}
    return FormChoices(
        releases={one.release: one.text for one in offers(releases, devices, most=_OFFERS_COUNTED)},
        sites=_sorted(device.site for device in devices),
        models=_sorted(running_model(device, known) for device in devices),
        running=_sorted(device.release or device.desired_release for device in devices),
        hardware=_sorted(device.reported.hardware for device in devices if device.reported),
        tags=_sorted(tag for device in devices for tag in device.tags),
    )


def _sorted(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*values} - {""}))


def offers(
    releases: Sequence[Release], devices: Sequence[Device], most: int | None = None
) -> tuple[ReleaseOffer, ...]:  # fmt: skip
    """Return the releases that may be rolled out, newest first, with how many devices can run each and don't.

    Devices are counted for the newest ``most`` releases, by default for all.
    """
    names = list(dict.fromkeys(
        release.name
        for release in sorted(releases, key=lambda one: (-one.registered_ms, -one.version))
        if not release.withdrawn_ms
    ))  # fmt: skip
    counts = candidate_counts(devices, releases, names[:most])
    return tuple(ReleaseOffer(name, counts.get(name)) for name in names)


@dataclass(slots=True, kw_only=True)
class ScopeForm:
    """The fields that say which devices a new rollout is for; empty ones limit nothing."""

    sites: ui.select
    models: ui.select
    releases: ui.select
    hardware: ui.select
    tags: ui.select
    attributes: ui.input
    devices: ui.input
    move: ui.checkbox
    newcomers: ui.checkbox

    @classmethod
    def build(cls) -> ScopeForm:
        """Show the fields, folded away."""
        with ui.expansion("Only some devices").classes("w-full"):
            with ui.element("div").classes("tf-row"):
                sites, models, releases, hardware, tags = (
                    ui.select([], label=label, multiple=True)
                    .props("dense outlined use-chips")
                    .style("min-width: 190px")
                    for label in ("Sites", "Run the model", "Run the release", "Hardware", "Tags")
                )
                attributes = ui.input("Attributes", placeholder="lens=wide, floor=2").props("dense outlined")
                devices = ui.input("Devices", placeholder="cam-1, cam-2").props("dense outlined")
            with ui.element("div").classes("tf-row"):
                move = ui.checkbox("Move devices of another model to this one")
                newcomers = ui.checkbox("Devices that enrol meanwhile join")
            ui.label(
                "A device has to fit all that is filled in. One that runs no model yet joins if a site, an attribute, "
                "a tag or the list of devices names it, or if the fleet has one model only."
            ).classes("tf-muted tf-small")
        return cls(
            sites=sites, models=models, releases=releases, hardware=hardware, tags=tags, attributes=attributes,
            devices=devices, move=move, newcomers=newcomers,
        )  # fmt: skip

    def offer(self, found: FormChoices) -> None:
        """Offer the sites, models, hardware and tags that there are."""
        for chosen, values in (
            (self.sites, found.sites), (self.models, found.models), (self.releases, found.running),
            (self.hardware, found.hardware), (self.tags, found.tags),
        ):  # fmt: skip
            if list(values) != chosen.options:
                chosen.set_options(list(values), value=[value for value in chosen.value or [] if value in values])

    def scope(self) -> Scope:
        """Return what is filled in.

        Raises:
            RolloutRefusedError: If an attribute is not KEY=VALUE.
        """
        return Scope(
            devices=tuple(words(self.devices.value)), sites=tuple(self.sites.value),
            attributes=pairs(self.attributes.value), hardware=tuple(self.hardware.value),
            models=tuple(self.models.value), releases=tuple(self.releases.value), tags=tuple(self.tags.value),
            move=bool(self.move.value),
        )  # fmt: skip


def words(text: str | None) -> list[str]:
    """Return the words of a field that are separated by commas or blanks."""
    return (text or "").replace(",", " ").split()


def pairs(text: str | None) -> dict[str, str]:
    """Return the attributes of a field: KEY=VALUE, separated by commas.

    Raises:
        RolloutRefusedError: If one is something else.
    """
    found = {}
    for part in filter(None, map(str.strip, (text or "").split(","))):
        key, sign, value = map(str.strip, part.partition("="))
        if not (key and sign and value):
            raise RolloutRefusedError(f"Expected attributes as KEY=VALUE, separated by commas, got {part[:80]!r}")
        found[key] = value
    return found


@dataclass(slots=True)
class NewRollout:
    """The form on one visitor's page."""

    visit: Visit
    offered: SharedLook[str, FormChoices]

    def build(self) -> None:
        """Show the form once there is a release."""
        card = ui.element("div").classes("tf-card")
        with card:
            heading("New rollout")
            with ui.element("div").classes("tf-row"):
                release = ui.select({}, label="Release").props("dense outlined").style("min-width: 300px")
                canary = ui.number("Devices that go first", value=1, min=1, step=1, precision=0)
                canary.props("dense outlined").style("width: 180px")
                make = ui.button("Make rollout").props("unelevated")
            form, terms = ScopeForm.build(), ConditionsForm.build()
            ui.label("Nothing is sent before its approval. The others follow when the first have committed.").classes(
                "tf-muted tf-small"
            )
        make.on_click(lambda: self._make(release.value, canary.value, form, terms))

        def offer(found: FormChoices) -> None:
            card.set_visibility(bool(found.releases))
            if found.releases != release.options:
                chosen = release.value if release.value in found.releases else next(iter(found.releases), None)
                release.set_options(found.releases, value=chosen)
            form.offer(found)

        async def again() -> None:
            found = await run.io_bound(self.offered.get, "", FRESH_S)
            if found is not None:  # None: the server stops
                offer(found)

        offer(self.offered.get("", FIRST_S))
        keep_fresh(again)

    async def _make(
        self, release: str | None, canary: float | None, form: ScopeForm, terms: ConditionsForm
    ) -> None:  # fmt: skip
        first = None if canary is None else int(canary)

        def create() -> Rollout:
            told = terms.filled_in()
            wanted = RolloutOptions(
                release=release or "", canary=first, scope=form.scope(), newcomers=bool(form.newcomers.value),
                window=told.window, deadline_s=told.deadline_s, max_bytes_per_s=told.max_bytes_per_s,
                shadow=told.shadow, probation_s=told.probation_s, success_ratio=told.success_ratio,
                error_ratio=told.error_ratio,
            )  # fmt: skip
            return self.visit.services.rollouts.create(wanted, by=self.visit.by())

        made = await self.visit.do(create)
        if made is not None:
            with self.visit.client:
                ui.notify(f"Rollout of {made.release} to {devices(len(made.members))} made: approve it to begin")


_RELEASES_SHOWN = 25
_NAMED = 12
_WITHDRAWAL = (
    "No device is offered it any more, and its rollouts are aborted. Devices that run it go on. This can't be undone."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """One release, over all target classes. ``devices``: some of those that run it."""

    name: str
    published: str
    withdrawn: str
    by: str
    why: str
    running: int
    devices: tuple[str, ...]


def release_rows(releases: Sequence[Release], devices: Sequence[Device]) -> Cut[ReleaseRow]:
    """Return the releases, withdrawn ones that still run first, with the devices that run them, then newest first."""
    running = Counter(device.release for device in devices)
    newest_first = sorted(releases, key=lambda one: (-one.registered_ms, -one.version, one.path))
    by_name = {release.name: release for release in reversed(newest_first)}
    out_there = [one for one in newest_first if one.withdrawn_ms and running[one.name]]  # shown until none runs it
    shown = Cut.of(tuple(dict.fromkeys(release.name for release in [*out_there, *newest_first])), _RELEASES_SHOWN)
    rows = tuple(
        ReleaseRow(
            name=name,
            published=clock_time(by_name[name].registered_ms),
            withdrawn=clock_time(by_name[name].withdrawn_ms),
            by=by_name[name].withdrawn_by,
            why=by_name[name].withdrawn_why,
            running=running[name],
            devices=tuple(one.device for one in devices if one.release == name)[:_NAMED]
            if by_name[name].withdrawn_ms
            else (),
        )
        for name in shown.rows
    )
    return Cut(rows, shown.more)


@dataclass(slots=True)
class Releases:
    """The list on one visitor's page."""

    visit: Visit

    def build(self, released: SharedLook[str, Cut[ReleaseRow]]) -> None:
        """Show the list; it is empty before the first release."""
        live_apart(partial(released.get, ""), self._show)

    def _show(self, found: Cut[ReleaseRow]) -> None:
        if found.rows:
            heading("Releases")
        for row in found.rows:
            with ui.element("div").classes("tf-card"), ui.element("div").classes("tf-row"):
                runs = f"still runs on {row.running}" if row.withdrawn and row.running else f"runs on {row.running}"
                by = (f" by {row.by}" if row.by else "") + (f": {row.why}" if row.why else "")
                show_markup(
                    tag("a", row.name, look="tf-link", href=page_of("release", row.name)),
                    tag("div", f"published {row.published}", look="tf-muted tf-small"),
                    tag("div", runs, look="tf-small"),
                    pill_tag(Status(f"withdrawn {row.withdrawn}{by}", Tone.BAD)) if row.withdrawn else Markup(),
                    *map(device_tag, row.devices),
                    more_tag(row.running - len(row.devices) if row.devices else 0),
                    look="tf-row tf-grow",
                )
                if not row.withdrawn and self.visit.may(Need.OPERATE):
                    button = ui.button("Withdraw", on_click=partial(self.withdraw, row.name))
                    button.props("no-caps dense outline color=negative").style("padding: 4px 14px")
        and_more(found.more, "see fleet-server releases list")

    async def withdraw(self, release: str) -> None:
        """Ask why, and withdraw a release."""
        why = await ask_why(self.visit.client, f"Withdraw {release}?", _WITHDRAWAL, "Withdraw")
        if why is None:
            return
        withdraw = partial(self.visit.services.withdrawal.withdraw, release, why, by=self.visit.by())
        running = await self.visit.ask(withdraw, Need.OPERATE)
        if running is not None:
            with self.visit.client:
                ui.notify(f"{release} withdrawn; it still runs on {devices(len(running))}")
