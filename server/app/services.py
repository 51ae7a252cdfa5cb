"""Builds all services of one server and connects them; starts nothing. The lifecycle is in ``app.server``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from fastapi import FastAPI

from server.access.audit_log import AuditLog
from server.access.limits import LoginLimits
from server.access.logins import Logins
from server.access.passwords import Passwords
from server.access.sessions import SessionStore
from server.access.tokens import Tokens
from server.access.users import Users
from server.alerts import api as alerts_api
from server.alerts.delivery import Courier, couriers
from server.alerts.ledger import Alerts
from server.alerts.picture import EvidencePicture
from server.alerts.watch import AlertWatch
from server.api import describe, failures, health
from server.api import devices as devices_api
from server.api import enrol as enrol_api
from server.api import events as events_api
from server.api import evidence as evidence_api
from server.api import measurements as measurements_api
from server.api import releases as releases_api
from server.api import retraining as retraining_api
from server.api import rollouts as rollouts_api
from server.api.auth import FILE_ROLE, Auth
from server.api.labels import files as labels_files_api
from server.api.labels import review as labels_review_api
from server.api.people import accounts as accounts_api
from server.api.people import acts as acts_api
from server.app.answers import dress
from server.app.guard import Guard
from server.app.metrics import FleetFigures, TimedRequests, new_registry
from server.app.orphans import orphan_files
from server.app.retention import Housekeeping
from server.app.situation import Situation
from server.app.state_directory import StateDirectory
from server.app.vitals import Vitals
from server.clock import Clock
from server.config import ServerConfig
from server.drift.departures import Departures
from server.drift.service import DriftService
from server.fleet.assignments import Assignments
from server.fleet.chunks import ChunkServer
from server.fleet.enrolment import Enrolment
from server.fleet.fleet import Fleet, Outbox
from server.fleet.identity.certificates import Certificates
from server.fleet.liveness import Liveness
from server.fleet.measurements import Measurements
from server.fleet.mutes import DeviceMutes
from server.fleet.naming import DeviceNaming
from server.fleet.revocation import Revocations
from server.ingest.ingest import Ingest
from server.ingest.window_spans import WindowSpans
from server.ingest.windows import Windows
from server.lineage import api as lineage_api
from server.lineage.answers import LineageAnswers
from server.outages import Outages
from server.registry.blobs import Blobs
from server.registry.events import EventLog
from server.registry.lineage import Lineage
from server.registry.versions import Versions
from server.retraining.audit import SteadyAudit
from server.retraining.jobs import Jobs
from server.retraining.labels.exchange import LabelExchange
from server.retraining.labels.review import LabelReview
from server.retraining.ledger import Triggers
from server.retraining.new_places import NewPlaces
from server.retraining.samples import SampleStore
from server.retraining.service import RetrainingService
from server.retraining.suspects import SuspectReleases
from server.rollout.ledger import RolloutLedger
from server.rollout.regressions import Regressions, held_text
from server.rollout.service import RolloutService
from server.rollout.withdrawal import Withdrawal
from server.search import api as search_api
from server.search.find import Search
from server.software import api as software_api
from server.software.asking import SoftwareAsking
from server.software.ledger import SoftwareLedger
from server.store.database import Database, open_database
from server.telemetry.drift_map import DriftExplorer
from server.telemetry.histograms import WindowHistograms
from server.trust.authority import load_authority
from server.trust.expiry import ExpiryWatch
from server.trust.releases import register_releases
from server.trust.repository import TrustRepository
from server.trust.roots import SignedOrders
from wire import __version__
from wire.transport import Transport

_DAY_MS = 86_400_000
_MAP_S = 5.0  # how old a heat map of the fleet may be: it takes 0.1 to 0.2 s at 10,000 devices


class Service(Protocol):
    """Something whose ``turn`` is called about twice a second."""

    def turn(self, now_ms: int) -> object:
        """Do what is due at ``now_ms`` (UTC milliseconds) and return soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerParts:
    """The services of one server; ``turn`` of ``services`` is called in this order."""

    database: Database
    config: ServerConfig
    auth: Auth
    users: Users
    tokens: Tokens
    logins: Logins
    acts: AuditLog
    enrolment: Enrolment
    certificates: Certificates
    mutes: DeviceMutes
    revocations: Revocations
    withdrawal: Withdrawal
    events: EventLog
    outbox: Outbox
    fleet: Fleet
    lineage: Lineage
    origins: LineageAnswers
    software: SoftwareLedger
    windows: Windows
    spans: WindowSpans
    blobs: Blobs
    versions: Versions
    trust: TrustRepository
    drift: DriftService
    histograms: WindowHistograms
    explorer: DriftExplorer
    rollouts: RolloutService
    retraining: RetrainingService
    audit: SteadyAudit
    measurements: Measurements
    ingest: Ingest
    chunks: ChunkServer
    outages: Outages
    vitals: Vitals
    situation: Situation
    alerts: Alerts
    picture: EvidencePicture
    couriers: tuple[Courier, ...]
    clock: Clock
    services: tuple[Service, ...]


def build_parts(state: StateDirectory, config: ServerConfig, transport: Transport, clock: Clock) -> ServerParts:
    """Return every service on the state directory, with ``transport`` to reach devices."""
    database = open_database(config.store.url or state.database_url, str(state.path), may_be_new=not state.has_served())
    events, outbox = EventLog(database), Outbox(transport)
    fleet = Fleet(database=database, outbox=outbox, clock=clock)
    certificates = Certificates(
        database=database,
        clock=clock,
        authority=load_authority(config.certificates) if config.certificates.enabled else None,
        life_s=config.certificates.life_days * 86_400,
        required=config.certificates.required,
    )
    enrolment = Enrolment(
        database=database, clock=clock, claim_ttl_s=config.enrolment.claim_ttl_s, certificates=certificates
    )
    blobs = Blobs(state.blobs)
    blobs.sweep()
    versions, trust = Versions(database, blobs), TrustRepository(state.path, clock)
    register_releases(trust.targets(), versions, now_ms=clock())
    windows = Windows(database)
    spans = WindowSpans(
        database=database,
        hourly_ms=max(int(config.retention.hourly_days * _DAY_MS), config.drift.horizon_ms + _DAY_MS),
        daily_ms=int(config.retention.daily_days * _DAY_MS),
        monthly_ms=int(config.retention.monthly_days * _DAY_MS),
    )
    triggers = Triggers(database)
    drift = DriftService(
        database=database,
        windows=windows,
        fleet=fleet,
        references=versions,
        events=events,
        config=config.drift,
        made_for=triggers.made_for,
        has_pictures=versions.has_pictures,
        not_asked=versions.not_asked,
    )
    rollouts = RolloutService(
        ledger=RolloutLedger(database),
        fleet=fleet,
        versions=versions,
        events=events,
        config=config.rollout,
        clock=clock,
        silent_s=config.fleet.silent_s,
        regressed=partial(held_text, drift.verdicts),
    )
    samples = SampleStore(
        database=database,
        folder=state.samples,
        config=config.retraining,
        form_of=versions.label_form,
        model_of=versions.model_of,
    )
    samples.settle(clock())
    audit = SteadyAudit(
        database=database,
        fleet=fleet,
        versions=versions,
        samples=samples,
        config=config.audit,
        retraining=config.retraining,
    )
    jobs = Jobs(database, state.jobs, config.retraining)
    jobs.settle()
    retraining = RetrainingService(
        triggers=triggers,
        verdicts=drift.verdicts,
        samples=samples,
        jobs=jobs,
        fleet=fleet,
        versions=versions,
        rollouts=rollouts,
        events=events,
        config=config.retraining,
        audit=audit,
    )
    new_places = NewPlaces(
        places=drift.places, audit=audit, samples=samples, versions=versions, config=config.retraining
    )
    suspects = SuspectReleases(
        suspects=drift.suspects, audit=audit, samples=samples, versions=versions, config=config.retraining
    )
    mutes = DeviceMutes(fleet=fleet, clock=clock)
    withdrawal = Withdrawal(versions=versions, fleet=fleet, rollouts=rollouts, clock=clock)
    measurements = Measurements(
        folder=state.measurements,
        fleet=fleet,
        clock=clock,
        check=SignedOrders(state.path),
        certificates=certificates,
    )
    outages = Outages()
    ingest = Ingest(
        database=database, fleet=fleet, outbox=outbox, config=config.ingest, keep_sample=samples.accept,
        outages=outages, drift_state=drift.states.of,
    )  # fmt: skip
    vitals = Vitals(
        database=database, events=events, ingest=ingest, transport=transport, folder=state.path, config=config.health
    )
    alerts, picture = Alerts(database=database, config=config.alerts, clock=clock), EvidencePicture(database)
    alerts.base_url = partial(_public_url, state, config)
    posts = couriers(database, config.alerts, picture)
    alerts.wake = partial(_wake, posts)
    users, acts = build_users(database, config, clock), AuditLog(database)
    tokens = Tokens(database=database, users=users, clock=clock)
    return ServerParts(
        database=database,
        config=config,
        users=users,
        tokens=tokens,
        acts=acts,
        logins=Logins(
            users=users,
            sessions=SessionStore(
                users=users,
                clock=clock,
                file_role=FILE_ROLE,
                idle_ms=int(1_000 * config.access.session_idle_s),
                life_ms=int(1_000 * config.access.session_s),
            ),
            limits=LoginLimits(clock=clock),
            log=acts,
            operator_token=state.token("operator"),
            clock=clock,
        ),
        auth=Auth(
            operator_token=state.token("operator"),
            builder_token=state.token("builder"),
            tokens=tokens,
            enrolment=enrolment,
            certificates=certificates,
        ),
        enrolment=enrolment,
        certificates=certificates,
        mutes=mutes,
        revocations=Revocations(fleet=fleet, outbox=outbox, clock=clock),
        withdrawal=withdrawal,
        events=events,
        outbox=outbox,
        fleet=fleet,
        lineage=Lineage(database),
        origins=LineageAnswers(database, versions),
        software=SoftwareLedger(database),
        windows=windows,
        spans=spans,
        drift=drift,
        histograms=WindowHistograms(database=database, registry=versions, has_pictures=versions.has_pictures),
        explorer=DriftExplorer(database=database, versions=versions, window_ms=config.drift.window_ms, kept_s=_MAP_S),
        rollouts=rollouts,
        retraining=retraining,
        audit=audit,
        measurements=measurements,
        blobs=blobs,
        versions=versions,
        trust=trust,
        clock=clock,
        ingest=ingest,
        chunks=ChunkServer(blobs=blobs, assignments=Assignments(database), transport=transport),
        outages=outages,
        vitals=vitals,
        alerts=alerts,
        picture=picture,
        couriers=posts,
        situation=Situation(
            fleet=fleet,
            verdicts=drift.verdicts,
            rollouts=rollouts.ledger,
            versions=versions,
            trust=trust,
            vitals=vitals,
            clock=clock,
            silent_s=config.fleet.silent_s,
            harmed=audit.harmed,
            settings=audit.idle_keys,
            undelivered=alerts.failing,
            evidence_ms=int(max(2_000 * config.fleet.silent_s, 3 * config.drift.window_ms)),
        ),
        services=(
            trust,
            ExpiryWatch(trust=trust, events=events),
            fleet,
            drift,
            Regressions(drift.verdicts, rollouts),
            withdrawal,
            rollouts,
            new_places,
            suspects,
            retraining,
            audit,
            measurements,
            Liveness(fleet=fleet, events=events, config=config.fleet),
            mutes,
            Departures(verdicts=drift.verdicts, fleet=fleet),
            SoftwareAsking(database=database, fleet=fleet, events=events),
            Housekeeping(
                database=database,
                retention_days=config.ingest.retention_days,
                measurements_days=config.retention.measurements_days,
                governance_days=config.retention.governance_days,
            ),
            spans,
            orphan_files(
                database,
                samples=state.samples,
                jobs=state.jobs,
                blobs=state.blobs,
                retention_days=config.ingest.retention_days,
            ),
            vitals,
            AlertWatch(
                alerts=alerts,
                fleet=fleet,
                verdicts=drift.verdicts,
                rollouts=rollouts.ledger,
                trust=trust,
                vitals=vitals,
                silent_s=config.fleet.silent_s,
                harmed=audit.harmed,
            ),
        ),
    )


def _public_url(state: StateDirectory, config: ServerConfig) -> str:
    """Return the address at which people reach the pages, "" before the server has one."""
    if config.http.public_url:
        return config.http.public_url.rstrip("/")
    address = state.read_address()
    return address.http_url if address is not None else ""


def _wake(posts: tuple[Courier, ...]) -> None:
    for post in posts:
        post.wake()


def build_users(database: Database, config: ServerConfig, clock: Clock) -> Users:
    """Return the users, with the cost of passwords of the settings; also for commands beside a server."""
    cost = Passwords(memory_kib=config.access.password_memory_kib, passes=config.access.password_passes)
    return Users(database=database, passwords=cost, clock=clock)


def build_api(parts: ServerParts, reception: enrol_api.Reception) -> FastAPI:
    """Return the web application with every router."""
    api = FastAPI(
        title="tinyfleet",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    failures.install(api)
    auth = parts.auth
    registry = new_registry(
        FleetFigures(situation=parts.situation, ingest=parts.ingest, database=parts.database, alerts=parts.alerts)
    )
    sessions = parts.logins.sessions
    dress(api)
    api.add_middleware(TimedRequests, registry=registry)  # outside of those: it sees what is sent
    api.add_middleware(
        Guard, is_open=lambda cookie: sessions.principal(cookie) is not None,
        public_url=lambda: reception.address().http_url,
    )  # fmt: skip
    for routes in (
        health.router(parts.vitals, parts.clock),
        health.overall_router(auth, parts.situation),
        enrol_api.router(auth, parts.enrolment, parts.certificates, parts.fleet, reception),
        devices_api.router(auth, parts.fleet, parts.lineage, parts.situation.listing, parts.situation.presence),
        devices_api.mutes_router(auth, parts.mutes),
        devices_api.revocations_router(auth, parts.revocations),
        devices_api.naming_router(auth, DeviceNaming(fleet=parts.fleet, clock=parts.clock)),
        devices_api.telemetry_router(auth, parts.fleet, parts.database, parts.spans),
        releases_api.blobs_router(auth, parts.blobs, Assignments(parts.database)),
        releases_api.router(auth, parts.versions, parts.withdrawal),
        releases_api.metadata_router(auth, parts.trust, parts.versions, parts.clock),
        events_api.router(auth, parts.events),
        health.metrics_router(auth, registry),
        rollouts_api.router(auth, parts.rollouts),
        retraining_api.samples_router(auth, parts.retraining.samples, parts.clock),
        labels_files_api.router(
            auth, LabelExchange(database=parts.database, samples=parts.retraining.samples), parts.clock
        ),
        labels_review_api.router(
            auth, LabelReview(database=parts.database, samples=parts.retraining.samples), parts.clock
        ),
        retraining_api.audit_router(auth, parts.audit),
        measurements_api.router(auth, parts.measurements, parts.fleet),
        retraining_api.jobs_list_router(auth, parts.retraining.jobs),
        retraining_api.jobs_router(auth, parts.retraining.jobs, parts.versions, parts.clock),
        retraining_api.router(auth, parts.retraining, parts.clock),
        evidence_api.router(auth, parts.database, parts.drift.verdicts, parts.drift.alarms, parts.clock),
        evidence_api.map_router(auth, parts.explorer),
        evidence_api.places_router(auth, parts.drift.places, parts.clock),
        evidence_api.commissions_router(auth, parts.drift.commissions, parts.clock),
        alerts_api.router(auth, parts.alerts, parts.picture),
        lineage_api.router(auth, parts.origins, parts.clock),
        software_api.router(auth, parts.software, parts.clock),
        accounts_api.me_router(auth),
        accounts_api.users_router(auth, parts.users),
        accounts_api.tokens_router(auth, parts.tokens),
        acts_api.router(auth, parts.acts),
        search_api.router(auth, Search(parts.database)),
        describe.router(api),
        failures.unknown_path(),
    ):
        api.include_router(routes)
    describe.complete(api)
    return api
