"""``/jobs``: what build hosts train and devices measure: waiting, running, done, failed; ``/jobs/{id}``: one of them.

A measurement is kept for a day only, with its order; training jobs are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fastapi import Request, Response
from nicegui import ui

from server.access.roles import Need
from server.dashboard.finding.addresses import page_of
from server.dashboard.listing import CURSOR, AddressFilters, FilterField, ListedPage, SharedLook
from server.dashboard.services import Services
from server.dashboard.theme import Column, ask_name, empty, heading, live_apart, live_table_apart, pill
from server.dashboard.views import PageLink, Status, Tone, ago, clock_time
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownJobError, UnknownTriggerError
from server.fleet.measurements import Measurement, MeasurementPhase
from server.retraining.jobs import TrainingJob
from server.retraining.policy import OVER, Trigger
from server.store.lists.paging import Page
from server.wording import duration

_SHOWN, _MEASUREMENTS_SHOWN = 50, 20
_QUEUED, _LEASED, _DONE, _FAILED = "queued", "leased", "done", "failed"
_STATES = {_QUEUED: "waiting", _LEASED: "running", _DONE: "done", _FAILED: "failed"}
_LONG_MS = 600_000
"""A job that waits longer than this has no worker that looks for one: they ask every few seconds."""
COLUMNS = (
    Column(name="job", label="Job", look="link", sortable=False),
    Column(name="model", label="Model", sortable=False),
    Column(name="state", label="State", look="pill", sortable=False),
    Column(name="worker", label="Worker", sortable=False),
    Column(name="since", label="Since (UTC)", sortable=False),
    Column(name="result", label="Result", look="link", sortable=False),
    Column(name="reason", label="Reason", look="wrapped", sortable=False),
)
FIELDS = (
    FilterField(name="state", label="State", choices=_STATES), FilterField(name="model", label="Model"),
)  # fmt: skip
LIST = ListedPage(
    path="/jobs", what="training jobs", fields=FIELDS, columns=COLUMNS, key="key",
    none="A retraining makes one once it has enough labels; compressor worker on a build host takes it.",
)  # fmt: skip
MEASUREMENT_COLUMNS = (
    Column(name="device", label="Device", look="device", sortable=False),
    Column(name="state", label="State", look="pill", sortable=False),
    Column(name="ordered", label="Ordered (UTC)", sortable=False),
    Column(name="until", label="Until (UTC)", sortable=False),
    Column(name="reason", label="Reason", look="wrapped", sortable=False),
)
_PHASES = {
    MeasurementPhase.SENT: Status("waiting for the device", Tone.BUSY),
    MeasurementPhase.RUNNING: Status("running", Tone.BUSY),
    MeasurementPhase.DONE: Status("done", Tone.GOOD),
    MeasurementPhase.FAILED: Status("failed", Tone.BAD),
    MeasurementPhase.EXPIRED: Status("no answer in time", Tone.WARN),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One training job in the list."""

    key: str
    job: PageLink
    model: str
    state: Status
    worker: str
    since: str
    result: PageLink
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementRow:
    """One measurement in the list."""

    key: str
    device: str
    state: Status
    ordered: str
    until: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The content of one job's page: its facts in words, the next step, and what it belongs to."""

    state: Status
    facts: tuple[str, ...]
    text: str
    step: str
    links: tuple[PageLink, ...]
    withdrawable: bool


def add_page(pages: Pages) -> None:
    """Add both pages."""
    services = pages.services
    looks: SharedLook[AddressFilters, Page[JobRow]] = SharedLook(partial(job_rows, services))
    measured: SharedLook[str, tuple[MeasurementRow, ...]] = SharedLook(lambda _: measurement_rows(services))
    pages.add("/jobs", "Jobs", partial(_build, looks, measured), text="Training jobs")

    @ui.page("/jobs/{job}")
    def page(request: Request, job: str) -> Response | None:
        return pages.show(request, "/jobs", "Job", partial(_build_one, job))


def job_rows(services: Services, asked: AddressFilters) -> Page[JobRow]:
    """Return the page of training jobs at an address.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values, now_ms = dict(asked), services.fleet.clock()
    found = services.retraining.jobs.page(
        model=values.get("model", ""), state=values.get("state", ""), limit=_SHOWN, cursor=values.get(CURSOR)
    )  # fmt: skip
    return found.of(lambda job: _row(job, now_ms))


def _row(job: TrainingJob, now_ms: int) -> JobRow:
    release = PageLink(job.release, page_of("release", job.release)) if job.release else PageLink("")
    return JobRow(
        key=job.id, job=PageLink(job.id, page_of("job", job.id)), model=job.model, state=job_status(job, now_ms),
        worker=job.worker, since=clock_time(job.ended_ms or job.created_ms), result=release, reason=_reason(job),
    )  # fmt: skip


def job_status(job: TrainingJob, now_ms: int) -> Status:
    """Return how a job stands; one whose worker is silent longer than its lease is not running."""
    if job.state == _LEASED:
        return (
            Status("running", Tone.BUSY) if now_ms < job.lease_until_ms else Status("its worker is silent", Tone.WARN)
        )
    tones = {_QUEUED: Tone.BUSY, _DONE: Tone.GOOD, _FAILED: Tone.BAD}
    if job.code == "withdrawn":
        return Status("withdrawn", Tone.CALM)
    return Status(_STATES.get(job.state, job.state), tones.get(job.state, Tone.CALM))


def _reason(job: TrainingJob) -> str:
    return ": ".join(part for part in (job.code.replace("_", " "), job.text[:300]) if part)


def next_step(job: TrainingJob, now_ms: int) -> str:
    """Return what a person does about a job now, "" for nothing."""
    if job.state == _QUEUED:
        waits = now_ms - job.created_ms > _LONG_MS
        return "No worker has taken it: run compressor worker on a build host, with builder.token." if waits else ""
    if job.state == _LEASED:
        silent = now_ms >= job.lease_until_ms
        return f"Look whether compressor worker runs on {job.worker}; another worker takes it over." if silent else ""
    if job.state != _FAILED or job.code == "withdrawn":
        return ""
    if job.code == "gate_fail":
        return (
            "The new model is not better by the gates, and nothing was rolled out: label more samples that show what "
            "changed, or change the recipe; a new verdict begins another retraining after the cooldown."
        )
    if job.code == "abandoned":
        return "Each worker ended during it: look into their logs for memory or disk that ran out, and mend that first."
    host = f" on {job.worker}" if job.worker else ""
    return f"The reason is the worker's{host}: mend it there; its log has the whole. Then approve the retraining again."


def measurement_rows(services: Services) -> tuple[MeasurementRow, ...]:
    """Return the newest measurements, the newest first."""
    return tuple(map(_measured, services.measurements.newest(_MEASUREMENTS_SHOWN)))


def _measured(one: Measurement) -> MeasurementRow:
    return MeasurementRow(
        key=one.order.order, device=one.order.device, state=_PHASES[one.phase],
        ordered=clock_time(one.order.issued_ms), until=clock_time(one.order.expires_ms),
        reason=": ".join(part for part in (one.code.replace("_", " "), one.text[:300]) if part),
    )  # fmt: skip


def _build(
    looks: SharedLook[AddressFilters, Page[JobRow]], measured: SharedLook[str, tuple[MeasurementRow, ...]], visit: Visit
) -> None:
    LIST.build(visit.request.query_params, looks)
    heading("Measurements on devices")

    def show(known: bool) -> None:  # noqa: FBT001 - what one look found
        if known:
            live_table_apart(MEASUREMENT_COLUMNS, "key", partial(measured.get, ""))
            ui.label(f"The newest {_MEASUREMENTS_SHOWN} at most; each is kept for a day.").classes("tf-muted tf-small")
        else:
            empty(
                "No measurement",
                "A build host orders one with compressor gate BUNDLE --on device:ID; each is kept for a day.",
            )

    live_apart(lambda at_most_s: bool(measured.get("", at_most_s)), show)


def _build_one(job: str, visit: Visit) -> None:
    heading(f"Job {job[:32]}", 1)
    ui.link("All jobs", "/jobs").classes("tf-link tf-small")
    try:
        visit.services.retraining.jobs.job(job)
    except UnknownJobError as error:
        visit.client.status_code = 404
        empty("No such job", str(error))
        return
    admin = visit.may(Need.ADMINISTER)
    visit.look = live_apart(lambda _: job_view(visit.services, job, admin=admin), JobWithdrawal(visit, job).show)


def job_view(services: Services, job: str, *, admin: bool) -> JobView:
    """Return what the page of one job shows."""
    known, now_ms = services.retraining.jobs.job(job), services.fleet.clock()
    trigger = _trigger(services, known)
    links = [PageLink(f"Retraining {known.retraining}", page_of("retraining", str(known.retraining)))]
    links += [PageLink("Samples of its model", "/samples")] if known.labelled else []
    links.append(PageLink(f"Base release {known.base_release}", page_of("release", known.base_release)))
    if known.release:
        links.append(PageLink(f"New release {known.release}", page_of("release", known.release)))
    if trigger is not None and trigger.rollout:
        links.append(PageLink("Its rollout", page_of("rollout", trigger.rollout)))
    links += [PageLink.to("Who did what to it", "/acts", subject=known.id)] if admin else []
    open_job = known.state in {_QUEUED, _LEASED}
    return JobView(
        state=job_status(known, now_ms), facts=_facts(known, now_ms), text=_reason(known),
        step=next_step(known, now_ms), links=tuple(links),
        withdrawable=open_job and trigger is not None and trigger.phase not in OVER,
    )  # fmt: skip


def _trigger(services: Services, job: TrainingJob) -> Trigger | None:
    try:
        return services.retraining.triggers.trigger(job.retraining)
    except UnknownTriggerError:  # older than what is kept
        return None


def _facts(job: TrainingJob, now_ms: int) -> tuple[str, ...]:
    found = [f"Model {job.model}, {job.labelled} labelled samples, because of {job.cause}."]
    ended = f", ended {clock_time(job.ended_ms)} UTC" if job.ended_ms else ""
    found.append(f"Made {clock_time(job.created_ms)} UTC{ended}.")
    if job.worker:
        found.append(f"Worker {job.worker}, attempt {job.attempts}.")
    if job.state == _LEASED:
        left_ms = job.lease_until_ms - now_ms
        lease = f"ends {ago(job.lease_until_ms, now_ms)}" if left_ms <= 0 else f"holds for {duration(left_ms)}"
        found.append(f"Its lease {lease} unless the worker is heard again.")
    if job.look:
        found.append(f"Look {job.look} at the gate split of its base release.")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class JobWithdrawal:
    """One job on one visitor's page, and the button that ends it."""

    visit: Visit
    job: str

    def show(self, view: JobView) -> None:
        """Show how the job stands, what to do, and what it belongs to."""
        with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{view.state.tone}"):
            pill(view.state)
            for text in view.facts:
                ui.label(text)
            if view.text:
                ui.label(f"Reason: {view.text}").style("overflow-wrap: anywhere")
            if view.step:
                ui.label(f"What to do: {view.step}").style("font-weight: 600")
            with ui.element("div").classes("tf-row tf-small"):
                for link in view.links:
                    ui.link(link.text, link.href).classes("tf-link")
            if view.withdrawable and self.visit.may(Need.OPERATE):
                button = ui.button("Withdraw", on_click=self._withdraw).props("no-caps dense outline color=negative")
                button.style("padding: 4px 14px; width: fit-content")

    async def _withdraw(self) -> None:
        detail = "The retraining ends with it: its devices send no more samples, and the same verdict starts no other."
        found = await ask_name(self.visit.client, f"Withdraw job {self.job}?", detail, "Withdraw")
        if not found:
            return

        def withdraw() -> Trigger:
            retraining = self.visit.services.retraining
            trigger = retraining.jobs.job(self.job).retraining
            return retraining.withdraw(trigger, self.visit.services.fleet.clock(), by=self.visit.by(found))

        await self.visit.do(withdraw, Need.OPERATE)
