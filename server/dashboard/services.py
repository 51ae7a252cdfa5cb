"""The services that the pages use; ``server.app.services.Parts`` implements the protocol."""

from __future__ import annotations

from typing import Protocol

from server.access.audit_log import AuditLog
from server.access.logins import Logins
from server.access.tokens import Tokens
from server.access.users import Users
from server.alerts.ledger import Alerts
from server.alerts.picture import EvidencePicture
from server.app.situation import Situation
from server.config import ServerConfig
from server.drift.service import DriftService
from server.fleet.fleet import Fleet
from server.fleet.identity.certificates import Certificates
from server.fleet.measurements import Measurements
from server.fleet.mutes import DeviceMutes
from server.fleet.revocation import Revocations
from server.lineage.answers import LineageAnswers
from server.registry.events import EventLog
from server.registry.lineage import Lineage
from server.registry.versions import Versions
from server.retraining.service import RetrainingService
from server.rollout.service import RolloutService
from server.rollout.withdrawal import Withdrawal
from server.software.ledger import SoftwareLedger
from server.store.database import Database
from server.telemetry.drift_map import DriftExplorer
from server.telemetry.histograms import WindowHistograms


class Services(Protocol):
    """The services that the pages read and that the buttons call."""

    @property
    def database(self) -> Database:
        """The database, for the evidence."""

    @property
    def config(self) -> ServerConfig:
        """The settings that the server started with."""

    @property
    def logins(self) -> Logins:
        """Logs people in and out."""

    @property
    def users(self) -> Users:
        """People with names."""

    @property
    def tokens(self) -> Tokens:
        """Tokens of programs."""

    @property
    def acts(self) -> AuditLog:
        """Who did what."""

    @property
    def fleet(self) -> Fleet:
        """Devices."""

    @property
    def software(self) -> SoftwareLedger:
        """What devices run."""

    @property
    def events(self) -> EventLog:
        """The event log."""

    @property
    def lineage(self) -> Lineage:
        """Which release ran where."""

    @property
    def origins(self) -> LineageAnswers:
        """Where releases, samples and jobs come from."""

    @property
    def certificates(self) -> Certificates:
        """Certificates of devices."""

    @property
    def mutes(self) -> DeviceMutes:
        """Mutes devices."""

    @property
    def revocations(self) -> Revocations:
        """Ends devices."""

    @property
    def withdrawal(self) -> Withdrawal:
        """Withdraws releases."""

    @property
    def measurements(self) -> Measurements:
        """Measurements on devices."""

    @property
    def drift(self) -> DriftService:
        """Evidence and verdicts."""

    @property
    def histograms(self) -> WindowHistograms:
        """Windows of devices beside their references."""

    @property
    def explorer(self) -> DriftExplorer:
        """Heat maps of windows."""

    @property
    def rollouts(self) -> RolloutService:
        """Rollouts."""

    @property
    def versions(self) -> Versions:
        """Releases and their class names."""

    @property
    def situation(self) -> Situation:
        """The overall status of fleet and server."""

    @property
    def alerts(self) -> Alerts:
        """What needs a person."""

    @property
    def picture(self) -> EvidencePicture:
        """Draws the evidence of verdicts."""

    @property
    def retraining(self) -> RetrainingService:
        """Samples, triggers and jobs."""
