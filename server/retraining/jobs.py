"""Training jobs: leased to one worker at a time; the lease ends without the worker's heartbeats.

Each job is a look at the gate split of its base release: another chance for a model that is worse to pass. All jobs on
one split share the risk of the gates, so each has a number, and its certificate must state that look or a later one.
"""

from __future__ import annotations

import csv
import io
import logging
import secrets
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import sqlalchemy as sa

from server.access.audit_log import Also, act_of, nothing_else, record_act
from server.errors import GateSplitUsedError, LeaseLostError, LookMissingError, UnknownJobError
from server.ingest.faults import shortened
from server.people import SERVER_ACTOR, By
from server.retraining.config import RetrainingConfig
from server.retraining.policy import JobFacts
from server.retraining.samples import LABELS, WATCHED, StoredSample
from server.store import retraining as store
from server.store.database import Database
from server.store.lists.learning import job_page
from server.store.lists.paging import Page
from wire.canonical import sha256_hex
from wire.codec import Json
from wire.durable import write_atomically

_LOG = logging.getLogger(__name__)
RELEASED = "released"
"""The code with which a worker returns a job to the queue."""
_MAX_TEXT = 4_000
_MAX_DEVICE = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One job. ``state``: queued, leased, done or failed. ``release``: its result.

    ``look``: the number of its look at the gate split, from 1; 0: made before looks were counted. ``gate_split``: the
    digest of the split's rows, "" if the certificate of the base release has none.
    """

    id: str
    retraining: int
    model: str
    base_release: str
    base_sha256: str
    cause: str
    labelled: int
    samples_sha256: str
    state: str
    worker: str
    attempts: int
    lease_until_ms: int
    created_ms: int
    ended_ms: int
    release: str
    code: str
    text: str
    certificate: Mapping[str, Json]
    gate_split: str
    look: int

    @property
    def facts(self) -> JobFacts:
        """The job as the policy sees it."""
        text = f"{self.code}: {self.text}" if self.code else self.text
        return JobFacts(state=self.state, release=self.release, text=text, look=self.look)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrder:
    """The request for a new job."""

    retraining: int
    model: str
    base_release: str
    base_sha256: str
    cause: str
    labelled: int
    gate_split: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSample:
    """An image that a job was given, with its label then; its worker trains on some and judges by the others.

    ``watched``: of a device that did not drift.
    """

    sample: int
    device: str
    sha256: str
    lane: str
    label: str
    label_by: str
    labelled_ms: int
    watched: bool

    @classmethod
    def of(cls, sample: StoredSample, *, watched: bool) -> GivenSample:
        """Return what a job is given of ``sample``."""
        return cls(
            sample=sample.id, device=sample.device, sha256=sample.sha256, lane=sample.lane, label=sample.label,
            label_by=sample.label_by, labelled_ms=sample.labelled_ms, watched=watched,
        )  # fmt: skip


def listed_in(archive: Path) -> list[GivenSample]:
    """Return what the archive of a job lists, [] if it can't be read; devices only where scenes are named by them."""
    found: dict[int, GivenSample] = {}
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in (LABELS, WATCHED):
                if name not in opened.namelist():
                    continue
                for row in csv.DictReader(io.StringIO(opened.read(name).decode())):
                    device, slash, _ = row["source"].partition("/")
                    found.setdefault(int(row["sample"]), GivenSample(
                        sample=int(row["sample"]), device=device[:_MAX_DEVICE] if slash else "",
                        sha256=Path(row["path"]).stem[:64], lane=row["lane"][:16], label=row["label"][:127],
                        label_by="", labelled_ms=0, watched=name == WATCHED,
                    ))  # fmt: skip
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, csv.Error) as error:
        _LOG.warning("The samples of a job can't be listed. archive=%s error=%s", archive.name, error)
        return []
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Jobs:
    """All jobs; ``folder`` holds ``<id>.zip``, each job's samples. Safe to share between threads."""

    database: Database
    folder: Path
    config: RetrainingConfig = field(default_factory=RetrainingConfig)

    def looks(self, model: str, gate_split: str) -> int:
        """Return how many looks the jobs of ``model`` have had at its gate split."""
        with self.database.begin() as connection:
            return store.looks_at(connection, model, gate_split)

    def next_look(self, model: str, gate_split: str) -> int:
        """Return the number of the look that the next job of ``model`` has at its gate split.

        Raises:
            GateSplitUsedError: If there may be no more: with the risk that is left nothing would pass.
        """
        look = self.looks(model, gate_split) + 1
        if look > self.config.max_looks:
            message = (
                f"Expected at most {self.config.max_looks} retrainings of {model} judged on one gate split "
                f"({gate_split[:12] or 'unknown'}), got another: it is used up"
            )
            raise GateSplitUsedError(
                f"{message}; publish a release that `compressor run` has judged on rows nobody has looked at"
            )
        return look

    def create(
        self, order: JobOrder, samples: bytes, now_ms: int, given: Sequence[GivenSample] = ()
    ) -> TrainingJob:  # fmt: skip
        """Add a job that waits for a worker; ``given``: what is in ``samples``, its archive.

        Raises:
            GateSplitUsedError: If its gate split is used up.
        """
        job, look = secrets.token_hex(8), self.next_look(order.model, order.gate_split)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.folder / f"{job}.zip", samples)
        row: dict[str, Json] = {
            "id": job, "retraining": order.retraining, "model": order.model, "base_release": order.base_release,
            "base_sha256": order.base_sha256, "cause": order.cause, "labelled": order.labelled,
            "samples_sha256": sha256_hex(samples), "state": "queued", "worker": "", "attempts": 0,
            "lease_until_ms": 0, "created_ms": now_ms, "ended_ms": 0, "release": "", "code": "", "text": "",
            "certificate": {}, "gate_split": order.gate_split, "look": look,
        }  # fmt: skip
        data = {
            name: row[name] for name in ("retraining", "model", "base_release", "labelled", "samples_sha256", "look")
        }
        with self.database.begin() as connection:
            store.insert_job(connection, row)
            store.insert_job_samples(connection, [{"job": job, **asdict(one)} for one in given])
            record_act(connection, SERVER_ACTOR, "job.create", job, now_ms, data=data)
        return self.job(job)

    def settle(self) -> int:
        """List the samples of jobs that were made before jobs listed them, from their archives; return of how many.

        Archives that are gone or damaged stay unlisted. Who gave the labels is not in them.
        """
        with self.database.begin() as connection:
            unlisted, settled = store.jobs_unlisted(connection), 0
        for job in unlisted:
            given = listed_in(self.folder / f"{job}.zip")
            if given:
                with self.database.begin() as connection:
                    store.insert_job_samples(connection, [{"job": job, **asdict(one)} for one in given])
                settled += 1
        return settled

    def job(self, job: str) -> TrainingJob:
        """Return one job.

        Raises:
            UnknownJobError: If there is none of that id.
        """
        missing = UnknownJobError(f"Expected the id of a job, got {job[:80]!r}: see GET /api/retraining")
        return _job(self.database.row(lambda connection: store.one_job(connection, job), missing))

    def page(
        self, *, model: str = "", state: str = "", limit: int = 100, cursor: str | None = None
    ) -> Page[TrainingJob]:  # fmt: skip
        """Return a page of jobs, newest first; "" for any.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            return job_page(connection, model=model, state=state, limit=limit, cursor=cursor).of(_job)

    def lease(self, worker: str, now_ms: int, *, by: By = "") -> TrainingJob | None:
        """Lease a job to ``worker``: its own if it has one (it was restarted), else the oldest that is not leased.

        A job that its worker resumes counts as another attempt: the job may have crashed the worker. ``by``: the
        account that asks.
        """
        with self.database.begin() as connection:
            while (row := store.free_job(connection, worker, now_ms)) is not None:
                was = {name: row[name] for name in ("state", "worker", "lease_until_ms")}
                attempts = row["attempts"] + 1
                if attempts > self.config.attempts:
                    text = f"tried {row['attempts']} times, and no worker came to an end"
                    ended: dict[str, object] = {"state": "failed", "code": "abandoned", "text": text}
                    if store.change_job(connection, row["id"], was, {**ended, "ended_ms": now_ms}):
                        data: dict[str, Json] = {"code": "abandoned", "worker": str(row["worker"])}
                        record_act(connection, SERVER_ACTOR, "job.fail", str(row["id"]), now_ms, data=data)
                    continue
                values: dict[str, object] = {
                    "state": "leased", "worker": worker, "lease_until_ms": self._until_ms(now_ms), "attempts": attempts,
                }  # fmt: skip
                if store.change_job(connection, row["id"], was, values):
                    data = {"worker": worker, "attempt": attempts}
                    record_act(connection, by, "job.lease", str(row["id"]), now_ms, data=data)
                    return _job({**row, **values})
        return None

    def heartbeat(self, job: str, worker: str, now_ms: int) -> TrainingJob:
        """Extend a lease.

        Raises:
            UnknownJobError: If there is no such job.
            LeaseLostError: If this worker no longer holds it.
        """
        return self._change(job, worker, {"lease_until_ms": self._until_ms(now_ms)})

    def done(
        self, job: str, worker: str, release: str, certificate: Mapping[str, Json], now_ms: int, *, by: By = ""
    ) -> TrainingJob:
        """Finish a job with the result ``release``, which ``by`` hands in; repeating the call changes nothing.

        Raises:
            UnknownJobError: If there is no such job.
            LeaseLostError: If this worker no longer holds it.
            LookMissingError: If the certificate is of an earlier look at the gate split than the job's.
        """
        known = self.job(job)
        if (known.state, known.worker, known.release) == ("done", worker, release):
            return known
        look = certificate.get("look", 0)
        if known.look > 1 and not (isinstance(look, int) and look >= known.look):
            message = f"Expected a certificate of look {known.look} at the gate split or a later one, got {look!r}"
            raise LookMissingError(f"{message}: a worker of this version keeps to the look of its job")
        split = certificate.get("gate_split")
        values = {
            "state": "done", "release": release, "certificate": dict(certificate), "ended_ms": now_ms,
            "look": max(known.look, look if isinstance(look, int) else 0),
            "gate_split": split[:64] if isinstance(split, str) and split else known.gate_split,
        }  # fmt: skip
        data: dict[str, Json] = {"worker": worker, "release": release, "look": int(str(values["look"]))}
        return self._change(job, worker, values, act_of(by, "job.done", job, now_ms, data))

    def failed(self, job: str, worker: str, code: str, text: str, now_ms: int, *, by: By = "") -> TrainingJob:
        """Finish a job as failed, as ``by`` says; the code ``released`` only returns it to the queue.

        Raises:
            UnknownJobError: If there is no such job.
            LeaseLostError: If this worker no longer holds it.
        """
        if code == RELEASED:
            attempts = max(self.job(job).attempts - 1, 0)
            returned = act_of(by, "job.return", job, now_ms, {"worker": worker})
            return self._change(job, worker, {"state": "queued", "worker": "", "attempts": attempts}, returned)
        values = {"state": "failed", "code": code[:64], "text": shortened(text, _MAX_TEXT), "ended_ms": now_ms}
        data: dict[str, Json] = {"worker": worker, "code": code[:64]}
        return self._change(job, worker, values, act_of(by, "job.fail", job, now_ms, data))

    def withdraw(self, job: str, now_ms: int) -> None:
        """End a job that is no longer needed, unless it is over; its worker loses the lease at the next heartbeat."""
        values = {"state": "failed", "code": "withdrawn", "text": "an operator withdrew it", "ended_ms": now_ms}
        with self.database.begin() as connection:
            for state in ("queued", "leased"):
                store.change_job(connection, job, {"state": state}, values)

    def samples(self, job: str) -> Path:
        """Return the path of the job's ``samples.zip``.

        Raises:
            UnknownJobError: If there is no such job.
        """
        path = self.folder / f"{self.job(job).id}.zip"
        if not path.is_file():
            message = f"Expected the samples of job {job}, they are gone"
            raise UnknownJobError(message)
        return path

    def _until_ms(self, now_ms: int) -> int:
        return now_ms + int(self.config.lease_s * 1000)

    def _change(
        self, job: str, worker: str, values: Mapping[str, object], also: Also = nothing_else
    ) -> TrainingJob:  # fmt: skip
        with self.database.begin() as connection:
            changed = store.change_job(connection, job, {"state": "leased", "worker": worker}, values)
            if changed:
                also(connection)
        if not changed:
            message = f"Expected job {job} leased to {worker[:60]!r}, it is {self.job(job).state}: drop it"
            raise LeaseLostError(message)
        return self.job(job)


def _job(row: sa.RowMapping | Mapping[str, object]) -> TrainingJob:
    return TrainingJob(**{name: row[name] for name in TrainingJob.__dataclass_fields__})  # type: ignore[arg-type]
