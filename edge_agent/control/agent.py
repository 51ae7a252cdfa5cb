"""The composition of the control process: one loop thread; transports, children and jobs only enqueue.

``turn`` reads the time once, handles the queue, then lets each part take one step. Decides only how facts get from
part to part: a crash of the child becomes health for the updater, a phase becomes an event and a new ``reported``. The
parts decide everything else.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.control.child_inbox import ChildInbox
from edge_agent.control.inbox import CommandStateFile, Inbox, expired
from edge_agent.control.renewal import RENEWAL, Renewal
from edge_agent.control.reported import EventLimiter, Reporter, running
from edge_agent.control.requests import RequestFile
from edge_agent.control.status_file import FILE as STATUS_FILE
from edge_agent.control.status_file import StatusFile
from edge_agent.control.supervisor import ChildEnded, ChildFrame, Fact, Launch, Supervisor
from edge_agent.device import last_end
from edge_agent.device.clock import Clock
from edge_agent.device.disk import DISK_FAILED, Disk, advice, trouble, write_error
from edge_agent.device.hardware import Hardware
from edge_agent.device.identity import Identity
from edge_agent.device.notify import Notifier, condition_of
from edge_agent.device.record_file import newer_records, read_record, remove_half_written
from edge_agent.device.sane_clock import ClockWatch
from edge_agent.errors import RequestRefusedError, SinkError, SpoolError
from edge_agent.measuring.coordinator import (
    GOOD_ENDS,
    DeviceCondition,
    MeasureDone,
    MeasurementCoordinator,
    Measurer,
    NoMeasurer,
    refusal,
)
from edge_agent.software.running import RunningSoftware
from edge_agent.telemetry.byte_meter import ByteMeter
from edge_agent.telemetry.rows import Numberer, Telemetry
from edge_agent.telemetry.spool import Spool
from edge_agent.telemetry.uplink import Uplink
from edge_agent.telemetry.usage import UsageLedger
from edge_agent.updater.ports import SUPERSEDED, JobDone, MemoryProber, Prober, ProbeResult, Refusal
from edge_agent.updater.states import UpdateRecord
from edge_agent.updater.storage.imported import FOLDER as IMPORT
from edge_agent.updater.storage.repair import TOKEN as REPAIR
from edge_agent.updater.storage.repair import Repair
from edge_agent.updater.storage.slots import SlotRelease, Slots, other
from edge_agent.updater.storage.time_floor import TimeFloor
from edge_agent.updater.transfer.chunk_pull import ChunkLink, ChunkWish
from edge_agent.updater.updater import RECALLED, UpdatePorts, Updater
from wire import __version__
from wire.codec import Json, from_document, to_document
from wire.errors import MessageError
from wire.messages import (
    ANSWERS_NOTHING,
    Command,
    DayUsage,
    Desired,
    DriftState,
    Reported,
    Response,
    Severity,
    Stream,
    UpdatePhase,
    Watermark,
)
from wire.shadow import ShadowCounts
from wire.software import SoftwareList
from wire.transport import Delivered, Incoming, Link, LinkChange, Transport

_LOG = logging.getLogger(__name__)
_BAD_ENDS = frozenset({UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED})
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}
_MAX_NOTICES = 500  # per turn, so that a flooded queue can't block the loop
_STATUS_S = 1.0
_ANSWERS_S = 10.0  # an answer reaches the server at most this late, even if few come
_REQUEST_S = 1.0
BENCHMARK = -1
"""Token of the benchmark's job; those of updates begin at 1, and repair's is 0."""
_DISK_RETRY_S = 5.0
_DRIFT_KEPT_S = 6 * 3600.0  # evidence comes by the hour; what the server said longer ago may be over
_IDENTITY_S = 3600.0  # an identity in use twice is reported once an hour, however often the two disconnect each other


@dataclass(slots=True, kw_only=True)
class _Due:
    """When each periodic task is due, in monotonic seconds."""

    commit_s: float = 0.0
    lazy_s: float = 0.0
    infer_s: float = 0.0
    answers_s: float = 0.0
    hw_s: float = 0.0
    status_s: float = 0.0
    request_s: float = 0.0
    disk_s: float = 0.0
    look_s: float = 0.0
    drift_s: float = float("inf")
    identity_s: float = float("-inf")
    refused_s: float = float("-inf")


class Agent:
    """One device. Used by one thread; only ``parts.notices`` is shared."""

    def __init__(self, identity: Identity, config: AgentConfig, state: Path, boot: str, parts: AgentParts) -> None:
        """Connect the parts; nothing runs before ``start``.

        Raises:
            SpoolError: If the spool can't be opened.
        """
        self.identity, self.config, self.state, self.parts = identity, config, state, parts
        self.spool = Spool(path=state / "spool.db", limit_bytes=config.spool.limit_bytes)
        self.telemetry = Telemetry(spool=self.spool, numberer=Numberer(boot), rows_a_batch=config.monitor.rows_a_batch)
        self.uplink = Uplink(
            transport=parts.transport,
            spool=self.spool,
            config=config.transport,
            site=identity.site,
            device=identity.device,
            boot=boot,
            agent_version=__version__,
        )
        self.supervisor = Supervisor(launch=parts.launch, put=parts.notices.put, config=config.child, state=state)
        self.updater = Updater(
            state=state,
            disk=parts.disk,
            ports=parts.ports,
            config=config.update,
            activate=self._activate,
            changed=self._phase_changed,
            compare=self._compare,
        )
        self._slots = Slots(state, parts.disk)
        self._hardware, self._usage = Hardware(state=state), UsageLedger(meter=parts.meter)
        self._limiter, self._due, self._status = EventLimiter(), _Due(), StatusFile(state)
        base = Reported(
            boot=boot, agent_version=__version__, hardware=parts.ports.hardware, runtimes=parts.ports.runtimes,
            attributes=config.device.attributes,
        )  # fmt: skip
        self._repair = Repair(
            updater=self.updater,
            period_s=config.update.repair_s,
            report=self._repair_event,
            served=self._served_digest,
            request_desired=self._request_desired,
        )
        self._disk_trouble, self._unwritten = "", False
        self._software = RunningSoftware(state=state, disk=parts.disk, base=parts.software)
        self._refused = ""  # why the broker refused this device, until it accepts it
        self._in_doubt = False  # that the release answers nothing was told
        self._unreached = ""  # why there is no connection to it, until there is one
        self._reporter = Reporter(
            base=base,
            slots=self._slots,
            updater=self.updater,
            supervisor=self.supervisor,
            repair=self._repair,
            disk=lambda: self._disk_trouble,
            clock_error_ms=lambda: self._watch.error_ms,
            unread=lambda: self._child_inbox.unread.current,
            software=self._software.installed,
        )
        self._measuring = MeasurementCoordinator(
            state=state,
            disk=parts.disk,
            measurer=parts.measurer,
            config=config.measure,
            condition=self._condition,
            put=parts.notices.put,
            answer=self.uplink.answer,
            report=lambda code, text: self._event(
                "measure", code, Severity.INFO if code in GOOD_ENDS else Severity.WARNING, text
            ),
        )
        self._inbox = Inbox(
            offer=self._desired,
            acked=self._acked,
            answer=self.uplink.answer,
            unreadable=self._count_unreadable,
            supervisor=self.supervisor,
            reporter=self._reporter,
            config=config.samples,
            ledger=CommandStateFile(state, parts.disk),
            measuring=self._measuring,
            benchmark=self._benchmark,
            server_time=self._server_time,
            drift=self._hear_of_drift,
            chunk=parts.chunks.receive,
            software=self._software.answer,
        )
        self._child_inbox = ChildInbox(
            telemetry=self.telemetry,
            supervisor=self.supervisor,
            updater=self.updater,
            unreadable=self._count_unreadable,
            fault=self._fault,
            steady=self._steady,
            sampled=self._sampled,
            corrected=self._corrected,
            compared=self._compared,
            challenger_ended=self._challenger_ended,
            replayed=self._replayed,
            doubted=self._doubted,
        )
        self._now_ms, self._now_s = parts.clock.now_ms(), parts.clock.monotonic_s()
        self._watch = ClockWatch().at_least(TimeFloor(state / "tuf" / "time_floor.json").read_ms())
        self._wish: Desired | None = None
        self._requests = RequestFile(state)
        self._benchmarked: tuple[str, SlotRelease] | None = None

    def start(self) -> None:
        """Continue interrupted work, serve the current release, connect."""
        remove_half_written(self.state)
        current = self._slots.current()
        _LOG.info("started version=%s release=%s", __version__, current.release if current is not None else "none")
        self._look_at_clock()
        with contextlib.suppress(OSError, MessageError):
            last = read_record(self.state / STATUS_FILE)
            usage = last.get("usage")
            self._usage.restore(usage if isinstance(usage, dict) else {})
            told = from_document(Reported, {key: last[key] for key in ("current", "unread") if key in last})
            if told.unread is not None and told.current is not None and current is not None:
                self._in_doubt = told.current.sha256 == current.sha256
                self._child_inbox.unread.restore(told.unread if self._in_doubt else None)
        self._due.infer_s = self._now_s + self.config.monitor.infer_s
        self._guard("spool", self.telemetry.take_up)
        ended = last_end.begin(self.state, self.parts.disk)
        started: dict[str, Json] = {"version": __version__, "ended": ended.name.lower()}
        if ended is not last_end.LastEnd.IN_ORDER and current is not None:  # what was counted since is in no report
            started["uncounted_s"] = self.config.monitor.checkpoint_s + self.config.spool.commit_s
        self.telemetry.event("agent", "started", at_ms=self._now_ms, data=started)
        self._activate(current)
        self._guard("updater", lambda: self.updater.resume(self._now_ms, self._now_s, ended))
        self._guard("measure", self._measuring.resume)
        if self.updater.damage:
            self._event("update", "record_damaged", Severity.WARNING, self.updater.damage)
        for sentence in newer_records(self.state):
            self._event("format", "record_newer", Severity.WARNING, sentence)
        self._guard("spool", self._withhold_samples)
        self._report()
        self.uplink.start(self.parts.notices.put, self._now_ms, self._now_s)

    def turn(self) -> bool:
        """Handle the queue and take one step of each part; return whether anything was queued."""
        self._look_at_clock()
        busy = self._drain()
        self._offer_wish()
        self._guard("updater", lambda: self.updater.turn(self._now_ms, self._now_s))
        if self._guarded("updater", self.updater.answered):
            self._report()
        self._guard("repair", lambda: self._repair.turn(self._now_s))
        self._supervise(self.supervisor.turn(self._now_s))
        if self._now_s >= self._due.drift_s:
            self._hear_of_drift(None)
        self._measuring.turn()
        if self.parts.renewal is not None and self._watch.fault is None:
            self.parts.renewal.turn(self._now_ms, self._now_s)
        self._add_rows()
        for code, text in self.spool.taken_aside():
            self._event("spool", code, Severity.ERROR, text)
        self._commit()
        self._look_at_disk()
        self._take_request()
        self.uplink.report_state(self._reporter.state(), self._now_ms, self._reporter.reason())
        self._guard("uplink", lambda: self.uplink.turn(self._now_s))
        self._write_status()
        return busy

    def wait(self, limit_s: float) -> None:
        """Wait until something is queued, at most ``limit_s``."""
        with contextlib.suppress(queue.Empty):
            self._handle(self.parts.notices.get(timeout=limit_s))

    def stop(self) -> None:
        """Stop the child, store its last report, try to send it, and disconnect in order."""
        self.parts.notifier.stopping()
        self._measuring.stop()
        self.supervisor.stop()
        self._drain()
        if self._guarded("updater", self.updater.stop):
            self._report()
        self._child_inbox.fold(self._now_ms)
        self.telemetry.flush()
        self._due.commit_s = self._due.lazy_s = 0.0
        self._commit()
        self._guard("uplink", lambda: self.uplink.turn(self._now_s))
        self.uplink.stop(self._now_ms)
        self.spool.close()

    def _look_at_clock(self) -> None:
        """Read both clocks. If the wall clock is not trusted, the server's time is used, if known."""
        now_ms, self._now_s = self.parts.clock.now_ms(), self.parts.clock.monotonic_s()
        before, error_ms, watch = self._watch.fault, self._watch.error_ms, self._watch.look(now_ms, self._now_s)
        self._watch = self.updater.watch = watch
        self._now_ms = watch.time_ms(now_ms, self._now_s)
        self.telemetry.turn(self._now_ms, self._now_s, known=watch.known)
        if watch.fault is not before:
            shown = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds")
            text = f"the clock shows {shown}" + (": updates wait until it is set" if watch.fault else "")
            code, severity = (watch.fault.value, Severity.WARNING) if watch.fault else ("clock_set", Severity.INFO)
            self._event("clock", code, severity, text)
        if watch.error_ms != error_ms:
            self._report()

    def _look_at_disk(self) -> None:
        """Check every few seconds whether the disk can be written; report a change."""
        if self._now_s < self._due.look_s:
            return
        self._due.look_s = self._now_s + _DISK_RETRY_S
        before, error = self._disk_trouble, write_error(self.state) if self._unwritten else None
        self._disk_trouble = trouble(self.state, error) or (DISK_FAILED if self._unwritten else "")
        if self._disk_trouble and self._disk_trouble != before:
            text = f"{advice(self.state, error)}; it is served on, and what is counted waits in memory"
            self._event("disk", self._disk_trouble, Severity.ERROR, text)
        elif before and not self._disk_trouble:
            self._event("disk", "disk_writable", Severity.INFO, f"{self.state} can be written again")
        if before != self._disk_trouble:
            self._report()

    def _hear_of_drift(self, state: DriftState | None) -> None:
        self._due.drift_s = self._now_s + _DRIFT_KEPT_S
        self.supervisor.inform(state.value if state is not None else "")

    def _server_time(self, server_ms: int) -> None:
        self._watch = self._watch.with_server_time(server_ms, self._now_s)

    def _guard(self, part: str, step: Callable[[], None]) -> bool:
        """Take a step as ``_guarded``; return whether it succeeded."""

        def done() -> bool:
            step()
            return True

        return self._guarded(part, done) is True

    def _guarded(self, part: str, step: Callable[[], bool]) -> bool | None:
        """Take a step and return its answer; a full or failing disk is reported and retried, not fatal, and is None."""
        try:
            return step()
        except (OSError, SpoolError) as error:
            _LOG.warning("disk failed part=%s error=%s", part, error)
            if part == "updater":
                self._due.disk_s = self._now_s + _DISK_RETRY_S
                self.updater.postpone(self._due.disk_s)
            if self._limiter.count(f"disk_{part}", self._now_ms):
                self._event("disk", "disk_failed", Severity.ERROR, f"{part}: {error}")
            return None

    def _drain(self) -> bool:
        for count in range(_MAX_NOTICES):
            try:
                notice = self.parts.notices.get_nowait()
            except queue.Empty:
                return count > 0
            self._handle(notice)
        return True

    def _handle(self, notice: Notice) -> None:
        if isinstance(notice, Incoming):
            self._inbox.take(notice, self._now_ms)
        elif isinstance(notice, LinkChange):
            self._link(notice)
        elif isinstance(notice, ChildFrame | ChildEnded):
            if isinstance(notice, ChildFrame) and notice.number == self.supervisor.starts:
                self._child_inbox.take(notice.frame, self._now_ms, self._now_s)
            self._supervise(self.supervisor.receive(notice, self._now_s))
        elif isinstance(notice, ChunkWish):
            self.uplink.ask_for_chunks(notice.payload)
        elif isinstance(notice, JobDone):
            self._take_result(notice)
        elif isinstance(notice, MeasureDone):
            self._guard("measure", lambda: self._measuring.finished(notice))

    def _take_result(self, job: JobDone) -> None:
        if job.token == REPAIR:
            if not self._guard("repair", lambda: self._repair.finished(job.result, self._now_s)):
                self._repair.soon()
            return
        if job.token == BENCHMARK:
            self._benchmark_done(job.result)
            return
        if job.token == RENEWAL and self.parts.renewal is not None:
            note = self.parts.renewal.finished(job.result, self._now_ms, self._now_s)
            if note is not None and self._limiter.count(note.code, self._now_ms):
                self._event("certificate", note.code, note.severity, note.text)
            return
        if isinstance(job.result, Refusal) and job.result.server_ms:
            self._server_time(job.result.server_ms)
        self._guard("updater", lambda: self.updater.finished(job.token, job.result, self._now_ms, self._now_s))

    def _repair_event(self, code: str, severity: Severity, text: str) -> None:
        self._event("repair", code, severity, text)
        self._report()

    def _served_digest(self) -> str:
        return self.supervisor.serving.name if self.supervisor.serving is not None else ""

    def _request_desired(self) -> None:
        self.uplink.request_desired(self._now_ms)

    def _condition(self) -> DeviceCondition:
        hardware, record = self._hardware, self.updater.record
        updating = record.in_flight and record.phase is not UpdatePhase.DEFERRED  # its window may be hours away
        return DeviceCondition(hardware.temperature_celsius(), hardware.battery_ratio(), updating)

    def _benchmark(self, command: Command) -> Response | None:
        """Begin to time the current release; return the response that refuses it, or None: then it follows later."""
        current, refused = self._slots.current(), refusal(self._condition(), self.config.measure)
        if self._benchmarked is not None:
            refused = Refusal("busy", "Expected no benchmark in progress, got one: wait for its end")
        elif current is None:
            refused = Refusal("no_release", "Expected an installed release, got none: assign one")
        elif refused is None:
            self._benchmarked = (command.id, current)
            prober, bundle = self.parts.benchmarker, self._slots.bundle(current.sha256)
            self.parts.ports.worker.run(BENCHMARK, lambda: prober.probe(bundle))
            return None
        return Response(id=command.id, ok=False, code=refused.code, text=refused.text)

    def _benchmark_done(self, result: object) -> None:
        command, release = self._benchmarked or ("", SlotRelease())
        self._benchmarked = None
        if not isinstance(result, ProbeResult) or not result.runs:
            code, text = (result.code, result.text) if isinstance(result, ProbeResult) else ("internal", repr(result))
            self.uplink.answer(Response(id=command, ok=False, code=code, text=text[:500]))
            return
        figures = replace(
            result.figures(release.release, shared=self.supervisor.serving is not None),
            sha256=release.sha256,
            temperature_celsius=self._hardware.temperature_celsius(),
        )
        self.uplink.answer(Response(id=command, ok=True, data=to_document(figures)))

    def _link(self, change: LinkChange) -> None:
        if change.link is Link.UNREACHABLE:
            if change.reason != self._unreached:
                _LOG.warning("broker not reached, it is tried again reason=%s", change.reason)
            self._unreached = change.reason
            return
        _LOG.info("link %s reason=%s", change.link, change.reason)
        if change.link is Link.UP:
            self._refused = self._unreached = ""
            if self.parts.renewal is not None:
                self.parts.renewal.accepted()
            self._guard("uplink", lambda: self.uplink.connected(self._now_ms, self._now_s))
            self._report()
        elif change.link is Link.TAKEN_OVER:
            self.uplink.disconnected(self._now_s)
            if self._now_s >= self._due.identity_s:  # the transport keeps trying, and inference continues
                self._due.identity_s = self._now_s + _IDENTITY_S
                text = (
                    f"identity in use twice: another client of {self.identity.device} took the connection over "
                    f"({change.reason}): end the other agent, or enrol this device again, which "
                    "makes what the other has invalid"
                )
                self._event("link", "identity_in_use_twice", Severity.ERROR, text)
        elif change.link is Link.REFUSED:  # a connection or a subscription
            self._refused = change.reason
            if self._now_s >= self._due.refused_s:
                self._due.refused_s = self._now_s + _IDENTITY_S
                text = f"the broker refused: {change.reason}; it is tried again"
                self._event("link", "link_refused", Severity.ERROR, text)
        elif change.link is Link.DOWN:
            self.uplink.disconnected(self._now_s)

    def _count_unreadable(self, kind: str, text: str) -> None:
        if self._limiter.count(kind, self._now_ms):
            count = self._limiter.counts.get(kind, 1)
            self.telemetry.event(
                "garbage", "garbage", at_ms=self._now_ms, severity=Severity.WARNING, text=text,
                data={"kind": kind, "count": count},
            )  # fmt: skip

    def _desired(self, desired: Desired) -> None:
        self._wish = desired
        self._repair.soon()
        self._offer_wish()

    def _offer_wish(self) -> None:
        wish = self._wish
        if wish is not None and self._now_s >= self._due.disk_s:
            self._guard("updater", lambda: self._offer(wish))

    def _offer(self, desired: Desired) -> None:
        if not self.updater.offer(desired, self._now_ms, self._now_s):
            self._report()  # the server may have missed the last one
        self._wish = None  # only now: a full disk must not lose it

    def _acked(self, watermarks: tuple[Watermark, ...]) -> None:
        self._guard("spool", lambda: self.uplink.acked(watermarks))

    def _steady(self) -> None:
        self.supervisor.healthy()
        if self.updater.record.phase is not UpdatePhase.PROBATION:
            self._guard("slots", lambda: self._slots.clear_starts(self._slots.current_name()))
        if self._repair.code == "slot_failed":
            self._repair.soon()  # it serves: the device must not stay degraded until the next look
        if self.supervisor.safe_mode:
            self.supervisor.safe_mode = False
            self._report()

    def _withhold_samples(self) -> None:
        """Delete inputs that still wait to be sent if the device's owner does not allow any more that they leave."""
        if self.config.samples.max_bytes_per_day:
            return
        withheld = self.spool.drop_stream(Stream.SAMPLE.value)
        if withheld:
            text = f"{withheld} samples that waited are deleted, not sent: max_bytes_per_day in [samples] is 0"
            self._event("samples", "samples_withheld", Severity.WARNING, text)

    def _sampled(self, request: str, length_bytes: int) -> bool:
        kept = self._guarded("samples", lambda: self._inbox.sampled(request, length_bytes, self._now_ms))
        if kept is False:
            text = "Expected samples within today's bytes, both of [samples] in agent.toml and of the server, got more"
            self._fault("sample_dropped", f"{text}: they are not sent")
        return kept is True

    def _corrected(self, length_bytes: int) -> bool:
        kept = self._guarded("samples", lambda: self._inbox.corrected(length_bytes, self._now_ms))
        if kept is False:
            limit = f"max_bytes_per_day in [samples], {self.config.samples.max_bytes_per_day} bytes"
            self._fault("correction_dropped", f"Expected a correction within {limit}, got more today: it is not sent")
        return kept is True

    def _fault(self, code: str, text: str) -> None:
        kind = f"fault_{code}"
        if code == SinkError.code:  # each sink reports once that it fails: one must not hide another
            kind = f"{kind}_{text.partition(':')[0]}"
        if self._limiter.count(kind, self._now_ms):
            self._event("child", code, Severity.WARNING, text)

    def _supervise(self, fact: Fact | None) -> None:
        if fact is Fact.SERVING:
            self._child_inbox.serving(self._now_s + self.config.child.healthy_s)
            self._inbox.serving(self._now_ms)
            return
        if fact is None:
            return
        crashed = fact is Fact.CRASHED
        self._event("child", f"child_{fact}", Severity.WARNING, self.supervisor.last_fault)
        if fact is Fact.CHALLENGER:
            self._challenger_ended(self.supervisor.challenger_code, self.supervisor.last_fault)
            return
        if fact in {Fact.INPUT, Fact.SOURCE}:
            if fact is Fact.SOURCE and self.updater.record.phase is UpdatePhase.PROBATION:
                self.updater.health = self.updater.health.without_source()
            return  # set aside by the next child, or away; counts against neither the slot nor a release in probation
        if self.updater.record.phase is UpdatePhase.PROBATION:
            health, fault = self.updater.health, self.supervisor.last_fault
            self.updater.health = health.crashed(fault) if crashed else health.hung(fault)
        else:
            self._repair.soon()
            self._guard("slots", self._count_bad_start)

    def _count_bad_start(self) -> None:
        """Outside probation: if a slot fails too often, the other becomes current; if both do, safe mode."""
        name, limit = self._slots.current_name(), self.config.update.max_boots
        if self._slots.count_start(name) <= limit or self.supervisor.safe_mode or self.updater.record.in_flight:
            return
        second = other(name)
        fallback = self._slots.read(second)
        floor = self.updater.floor()  # crashes must not downgrade; with an unknown floor, nothing counts as safe
        safe = (
            fallback is not None and floor is not None and fallback.security_floor >= floor
        )  # crashes don't downgrade
        if safe and self._slots.boots(second) <= limit:
            self._slots.switch(second)
            self._event(
                "slots", "slot_fallback", Severity.ERROR, f"slot {name} failed {limit + 1} times, slot {second} serves"
            )
            self._activate(self._slots.current())
        else:
            self.supervisor.safe_mode = True
            self._event("slots", "safe_mode", Severity.ERROR, "no release becomes healthy: send another one")
        self._report()

    def _activate(self, release: SlotRelease | None) -> None:
        self.supervisor.safe_mode = False
        self.supervisor.serve(self._slots.bundle(release.sha256) if release is not None else None, self._now_s)

    def _compare(self, release: SlotRelease | None) -> None:
        self.supervisor.compare(self._slots.bundle(release.sha256) if release is not None else None)

    def _doubted(self) -> None:
        """Report that the device answers none of its inputs, or does again; that there are more is no event."""
        found = self._child_inbox.unread.current
        if found is None:
            self._event("child", "answers_again", Severity.INFO, "inputs are answered again, or none are left unread")
        elif not self._in_doubt:
            step = f": {found.text}" if found.text else ""
            since = "none yet" if found.never else "none since the last one"
            text = f"Expected answers of the release, got {since}: it {found.words}{step}"
            self._event("child", ANSWERS_NOTHING, Severity.ERROR, text[:500])
        self._in_doubt = found is not None
        self._report()

    def _compared(self, counts: ShadowCounts) -> None:
        if self._guarded("updater", lambda: self.updater.compared(counts, self._now_s)):
            self._report()

    def _replayed(self, digest: str, counts: ShadowCounts) -> bool:
        """Keep the counts of a replay; return False if it has to be sent again: not written, or not yet a release."""
        record = self.updater.record
        if record.desired.sha256 != digest:
            return True
        if record.in_flight and record.phase is not UpdatePhase.PROBATION:
            return False  # a power cut came between the switch and the phase that follows it
        news = self._guarded("updater", lambda: self.updater.replayed(counts))
        if news:
            self._report()
        return news is not None

    def _challenger_ended(self, code: str, text: str) -> None:
        self._guard("updater", lambda: self.updater.challenger_ended(code, text, self._now_ms, self._now_s))

    def _phase_changed(self, record: UpdateRecord) -> None:
        phase = record.phase or UpdatePhase.IDLE
        bad = phase in _BAD_ENDS and record.code != SUPERSEDED.code  # the server wants another release: no fault
        severity = Severity.ERROR if bad else Severity.INFO
        wish = record.desired
        data = {"phase": phase.value, "gen": wish.gen, "release": wish.release, "sha256": wish.sha256}
        self.telemetry.event(
            "update", record.code or phase.value, at_ms=self._now_ms, severity=severity, text=record.text, data={**data}
        )
        if not record.in_flight:
            self._repair.soon()
            if record.imported:
                shutil.rmtree(self.state / IMPORT, ignore_errors=True)
        _LOG.info("update phase=%s gen=%s release=%s code=%s", phase, wish.gen, wish.release, record.code)
        self._report()

    def _event(self, kind: str, code: str, severity: Severity, text: str) -> None:
        _LOG.log(_LEVELS[severity], "event kind=%s code=%s text=%s", kind, code, text)
        self.telemetry.event(kind, code, at_ms=self._now_ms, severity=severity, text=text)

    def _report(self) -> None:
        self.uplink.send_reported(self._reporter.reported(self._now_ms))

    def _take_request(self) -> None:
        """Execute a request of the device's owner, once a second at most."""
        if self._now_s < self._due.request_s:
            return
        self._due.request_s = self._now_s + _REQUEST_S
        request = self._requests.take()
        if request is None or expired(request, self.parts.clock.now_ms()):  # both by the machine's own clock
            return
        _LOG.info("request verb=%s id=%s", request.verb, request.id)
        self._requests.answer(self._serve(request))

    def _serve(self, request: Command) -> Response:
        """Execute a request; an import only begins, and the same checks follow as for a release of the server."""
        try:
            if request.verb == "rollback":
                return Response(id=request.id, ok=True, data=self._recall(str(request.arguments.get("leaving", ""))))
            if request.verb == "import":
                self.updater.bring(from_document(Desired, request.arguments), self._now_ms, self._now_s)
                return Response(id=request.id, ok=True)
        except RequestRefusedError as error:
            return Response(id=request.id, ok=False, code=error.refused, text=str(error))
        except MessageError as error:
            return Response(id=request.id, ok=False, code=error.code, text=str(error))
        except OSError as error:
            text = f"Expected to write it, got: {error}: {advice(self.state, error)}"
            return Response(id=request.id, ok=False, code="disk_failed", text=text)
        text = f"Expected rollback or import, got {request.verb!r}: this agent is older; start it again"
        return Response(id=request.id, ok=False, code="unsupported", text=text)

    def _recall(self, leaving: str) -> dict[str, Json]:
        found = self.updater.recall(leaving, self._now_ms)
        if self.updater.record.code != RECALLED:  # otherwise the change of its phase is reported
            self._event("slots", RECALLED, Severity.WARNING, found.text)
            self._report()
        return {"left": found.left.release, "current": found.current.release}

    def _add_rows(self) -> None:
        if self._now_s >= self._due.infer_s:
            self._due.infer_s = self._now_s + self.config.monitor.infer_s
            self._child_inbox.fold(self._now_ms)
        if self._now_s >= self._due.answers_s:
            self._due.answers_s = self._now_s + _ANSWERS_S
            self.telemetry.send_so_far(Stream.ANSWER)
        if self._now_s >= self._due.hw_s:
            self._due.hw_s = self._now_s + self.config.monitor.hw_s
            pid = self.supervisor.child.pid if self.supervisor.child is not None else 0
            row = self._hardware.read(now_ms=self._now_ms, child_pid=pid, spool_bytes=self.spool.held_bytes)
            written = row["written_bytes"]
            used = self._usage.add(
                self._now_ms, self._now_s, written if isinstance(written, int) else 0, known=self._watch.known
            )
            if used is not None:
                self._guard("spool", lambda: row.update(usage=self._with_losses(used)))
            self.telemetry.row(Stream.HW, row)

    def _with_losses(self, used: DayUsage) -> Json:
        return to_document(replace(used, dropped=self.spool.dropped(), merged=self.spool.merged()))

    def _commit(self) -> None:
        if self._now_s >= (self._due.commit_s if self.spool.urgent else max(self._due.commit_s, self._due.lazy_s)):
            self._due.commit_s = self._now_s + self.config.spool.commit_s
            self._due.lazy_s = self._now_s + self.config.spool.lazy_commit_s
            self._unwritten = not self._guard("spool", self.spool.commit)
            if self._unwritten:
                self._due.commit_s = self._now_s + _DISK_RETRY_S
            else:
                self._child_inbox.written()

    def _write_status(self) -> None:
        if self._now_s < self._due.status_s:
            return
        self._due.status_s = self._now_s + _STATUS_S
        facts = {
            **self._reporter.status(connected=self.uplink.up),
            "refused": self._refused,
            "unreached": self._unreached,
        }
        if self.parts.renewal is not None:
            facts["certificate"] = self.parts.renewal.status()
        idle_s, keepalive_s = self.parts.transport.idle_s(), self.config.transport.keepalive_s
        self.parts.notifier.turn(condition_of(facts, idle_s=idle_s, keepalive_s=keepalive_s), self._now_s)
        try:
            figures = {**running(self.uplink, self.spool, self._limiter), "at_ms": self._now_ms}
            figures["answers"] = dict(self._child_inbox.sinks)
            figures["usage"] = self._usage.document()
            self._status.write(facts, figures, self._now_s)
        except (OSError, SpoolError) as error:
            _LOG.debug("status not written error=%s", error)


def run(agent: Agent, stopped: Callable[[], bool], pause_s: float = 0.1) -> None:
    """Run the loop until ``stopped``; the agent is stopped in any case.

    Raises:
        AgentError: If the agent can't continue.
    """
    agent.start()
    try:
        while not stopped():
            if not agent.turn():
                agent.wait(pause_s)
        last_end.end(agent.state, agent.parts.disk)
    finally:
        agent.stop()


Notice = Incoming | LinkChange | Delivered | ChildFrame | ChildEnded | JobDone | MeasureDone | ChunkWish

Notices = queue.SimpleQueue[Notice]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentParts:
    """The external dependencies of an agent, real or in memory."""

    clock: Clock
    transport: Transport
    launch: Launch
    disk: Disk
    ports: UpdatePorts
    notices: Notices
    chunks: ChunkLink = field(default_factory=lambda: ChunkLink(lambda _: None))
    measurer: Measurer = field(default_factory=NoMeasurer)
    notifier: Notifier = field(default_factory=Notifier)
    renewal: Renewal | None = None
    benchmarker: Prober = field(default_factory=MemoryProber)
    meter: ByteMeter = field(default_factory=ByteMeter)
    software: SoftwareList | None = None
