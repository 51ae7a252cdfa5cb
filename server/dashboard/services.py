"""What the pages need of the server; ``server.app.services.Parts`` has it all."""

from __future__ import annotations

from typing import Protocol

from server.api.auth import Auth
from server.app.situation import Situation
from server.drift.service import DriftService
from server.fleet.fleet import Fleet
from server.fleet.revocation import Revocations
from server.registry.events import EventLog
from server.registry.lineage import Lineage
from server.registry.versions import Versions
from server.retraining.service import RetrainingService
from server.rollout.service import RolloutService
from server.rollout.withdrawal import Withdrawal
from server.store.database import Database


class Services(Protocol):
    """The services that the pages read and that the buttons call."""

    @property
    def database(self) -> Database:
        """The database, for the evidence."""

    @property
    def auth(self) -> Auth:
        """Who is the operator."""

    @property
    def fleet(self) -> Fleet:
        """Devices."""

    @property
    def events(self) -> EventLog:
        """The log."""

    @property
    def lineage(self) -> Lineage:
        """What ran where."""

    @property
    def revocations(self) -> Revocations:
        """Ends devices."""

    @property
    def withdrawal(self) -> Withdrawal:
        """Withdraws releases."""

    @property
    def drift(self) -> DriftService:
        """Evidence and verdicts."""

    @property
    def rollouts(self) -> RolloutService:
        """Rollouts."""

    @property
    def versions(self) -> Versions:
        """Releases, for the names of their classes."""

    @property
    def situation(self) -> Situation:
        """What is the matter with fleet and server."""

    @property
    def retraining(self) -> RetrainingService:
        """Samples, triggers and jobs."""
