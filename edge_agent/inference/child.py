"""The inference child, ``python -m edge_agent.inference.child``: one thread infers and counts, frames on its pipes.

Sends ``ready``, ``beat``, ``window``, ``sample``, ``answers``, ``swapped``, ``fault``, ``shadow``, ``shadow_ended``,
``replay``; receives ``swap``, ``shadow``, ``samples``, ``drift``, ``written``, ``replayed``, ``stop``
(``docs/explanation/architecture.md``). A bad image is counted and reported, and never ends the child. Each image is
marked as in flight before it is decoded (``in_flight``): one that crashed the child is set aside at the next start. A
swap loads the new model beside the running one and replaces it between two inferences. The counts of a window are sent
in parts every ``checkpoint_s``, at its close, at a swap, and at an orderly end; the control process adds up the parts.
Windows start at UTC multiples of their length.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from edge_agent import front_ends, sources
from edge_agent.device import memory_limit
from edge_agent.device.clock import Clock, SystemClock
from edge_agent.errors import AgentError, ImageError, RuntimeSeamError, SampleRequestError, SinkError
from edge_agent.in_flight import ASKED, IN_SOURCE, KEPT, InFlight
from edge_agent.inference.answers import Answers, ToAgent, open_answers
from edge_agent.inference.batching import MAX_WAITING_BYTES, ResultBatcher
from edge_agent.inference.kept_inputs import KEPT_INPUTS, WRITES, KeptReleases
from edge_agent.inference.replay import Replay
from edge_agent.inference.reservoir import Reservoir, SampleRequest, media_type
from edge_agent.inference.served_model import Inference, ServedModel, load_model
from edge_agent.inference.shadow import Load, Room, Shadow
from edge_agent.local_api.settings import ApiConfig
from edge_agent.logs import log_to_ring, log_to_stderr
from edge_agent.pictures import sixteen_bits
from edge_agent.pipe_frames import MAX_SAMPLE_BYTES, SAMPLE_TYPES, Frame, FrameDecoder, encode_frame
from edge_agent.sinks import SinkSurroundings
from edge_agent.sources.push import PushSource
from edge_agent.streams.column_names import REORDERED
from edge_agent.streams.open_events import OpenEvents
from edge_agent.streams.recorded_inputs import RecordedInputs
from wire import leb128
from wire.codec import Json, encode, parse_json, to_document
from wire.errors import WireError
from wire.manifest import Manifest
from wire.settings import fields_from

Send = Callable[[Mapping[str, Json], bytes], None]

POLL_S = 0.03
ANSWER_WITHIN_S = 0.0045
"""How long an answer may wait for the next one: right after a model ran, the processor's caches hold its weights, and
what follows costs several times as much as once more."""
WOKEN_POLL_S = 0.25
"""With a source that wakes the loop: a window's end, a heartbeat or a lost message waits no longer."""
REPLAY_AGAIN_S = 60.0
"""Counts of a replay that the control process could not write yet are sent again so often."""
INPUT_CRASHED = "input_crashed"
INPUT_AGAIN = "input_tried_again"
OUT_OF_MEMORY = "out_of_memory"
_MAX_REQUESTS = 8
_PIPE_BYTES = 65536
STOP = Frame({"type": "stop"})
WAKE = Frame({"type": "wake"})
"""Makes an idle loop turn at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingSettings:
    """Settings of counting. ``context``: the reference's context to which its windows belong.

    ``checkpoint_s``: interval of sending counts: a child that crashes loses those not sent yet.
    """

    window_ms: int = 3_600_000
    beat_s: float = 1.0
    context: int = 0
    seed: int = 0
    checkpoint_s: float = 45.0


_DEFAULTS = CountingSettings()


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Result of a background load: a model, or an error."""

    bundle: str
    model: ServedModel | None
    error: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """An input that the model has run on, and that is not answered yet. Times: taken (UTC and monotonic), and run."""

    capture: sources.Capture
    outcome: Inference
    now_ms: int
    now_s: float
    run_s: float


Notices: TypeAlias = "queue.SimpleQueue[Frame | _Loaded]"
"""What the loop is told, from any thread."""


class Api(Protocol):
    """The local interface, for the loop: its methods never wait."""

    def waiting(self) -> bool:
        """Note that the loop turns; return whether a request waits for the model."""

    def serve(self, model: ServedModel) -> None:
        """Serve one waiting request."""

    def dropped(self, count: int) -> None:
        """Note inputs that never reached the model."""

    def close(self) -> None:
        """Stop listening."""


class InferenceLoop:
    """State of the loop. All of it belongs to one thread; only ``notices`` is shared."""

    def __init__(
        self, model: ServedModel, source: sources.Source, send: Send, clock: Clock, settings: CountingSettings
    ) -> None:
        """Prepare to serve ``model``; inputs are marked as in flight once ``in_flight`` is set."""
        self.in_flight = InFlight(None)
        self.notices: Notices = queue.SimpleQueue()
        self.load: Load = load_model
        self.room: Room = lambda: sys.maxsize
        self._shadow: Shadow | None = None
        self._inputs = KeptReleases(None)
        self._replay: Replay | None = None
        self._bundle, self._replay_due_s = "", 0.0
        self._remarked = ""
        self.answers = Answers()
        self.to_agent = ToAgent(send)
        self.api: Api | None = None
        self._results = ResultBatcher(model)
        self._unanswered: list[_Served] = []
        self._ready_s = self._prepare_s = 0.0
        self.source, self._send, self._clock, self._settings = source, send, clock, settings
        self._window_ms = self._aligned(clock.now_ms())
        self._beat_due_s = clock.monotonic_s() + settings.beat_s
        self._checkpoint_due_s = clock.monotonic_s() + settings.checkpoint_s
        self._loading = False
        self._busy = True
        self._fault_counts: dict[str, int] = {}
        self._inputs.serve(model.manifest)

    def keep_inputs(self, state: Path, bundle: Path) -> None:
        """Keep inputs below ``state``, and answer those again that were kept there under the release before."""
        self._inputs = KeptReleases(state)
        self._begin_replay(str(bundle))

    def _begin_replay(self, bundle: str) -> None:
        """Note that the model serves from now on, and begin to answer what the release before it had served."""
        manifest, known = self.model.manifest, self._inputs.before
        self._inputs.serve(manifest)
        before = self._inputs.before
        if before is not None and before is not known:
            self._replay, self._bundle = Replay(before, manifest.artifact_sha256), bundle
            self._replay_due_s = 0.0
        elif before is None:  # what was left to answer was of another model
            self._replay = None

    def _aligned(self, now_ms: int) -> int:
        return now_ms - now_ms % self._settings.window_ms

    def _identity(self) -> dict[str, Json]:
        model = self._results.model
        release, artifact = model.manifest.release, model.manifest.artifact_sha256
        return {"release": release, "artifact": artifact, "ref_id": model.ref_id}

    def run(self) -> None:
        """Send ``ready``, serve until told to stop, send what was counted and the open window at the end."""
        self._send({"type": "ready", **self._identity()}, b"")
        found = self.in_flight
        if found.again:
            text = "the agent and its inference child had ended while they held this input: it is tried once more"
            self._fault(INPUT_AGAIN, f"{found.again}: {text}")
        if found.left:  # an earlier child crashed on it
            self.source.refuse(sources.Capture(found.left, b""), INPUT_CRASHED, final=True)
            self._results.error()
            text = f"{found.left}: the inference child ended while it held this input: set aside"
            self._fault(INPUT_CRASHED, text)
            at = (self._clock.now_ms(), self._clock.monotonic_s(), self._clock.monotonic_s())
            self.answers.failed(self.model, sources.Capture(found.left, b"", found.left_id), (INPUT_CRASHED, text), at)
            found.end(found.left, served=False)
        self.answers.end_left(self.model, self._clock.now_ms(), self._clock.monotonic_s())
        while self.step():
            pass
        self._send_heartbeat(last=True)
        self.end_streams()
        self._end_shadow()
        self._close_window()
        sources.close(self.source)
        if self.api is not None:
            self.api.close()
        self.answers.close()

    def step(self) -> bool:
        """Process received notices, then one turn; waits only if the last turn had no image."""
        woken = getattr(self.source, "wakes", False)
        pause_s = max(POLL_S, min(WOKEN_POLL_S, self._settings.beat_s / 2)) if woken else POLL_S
        if not self._process_notices(0.0 if self._busy else pause_s):
            return False
        self._busy = self.turn()
        return True

    def turn(self) -> bool:
        """Close what is due and serve at most one image; return whether there was one."""
        self.answers.settle()
        now_ms = self._clock.now_ms()
        if self._aligned(now_ms) != self._window_ms:
            self._close_window()
            self._window_ms = self._aligned(now_ms)
        now_s = self._clock.monotonic_s()
        if now_s >= self._beat_due_s:
            self._send_heartbeat()
        if now_s >= self._checkpoint_due_s:
            self._checkpoint_due_s = now_s + self._settings.checkpoint_s
            self._send_counts(closed=False)
        asked = self.api is not None and self._serve_asked(self.api)
        capture = self.source.take()
        if capture is None:
            self.answer_waiting()
            self._results.settle()
            self.answers.end_silent(self.model, now_ms, now_s)
            return self._replay_one() or asked
        if self._unanswered and len(capture.data) > 2 * len(self._unanswered[-1].capture.data):
            self.answer_waiting()  # decoding it may take longer than answers may wait
        self._ready_s = now_s
        self.in_flight.begin(capture.name, capture.id)
        self._serve(capture, now_ms, now_s)
        return True

    def _serve_asked(self, api: Api) -> bool:
        """Serve one request of the local interface, marked as in flight; return whether there was one."""
        if not api.waiting():
            return False
        self.answer_waiting()
        with self.in_flight.during(ASKED):
            api.serve(self._results.model)
        return True

    def _serve(self, capture: sources.Capture, now_ms: int, now_s: float) -> None:
        try:
            if capture.prepare is not None:
                capture = replace(capture, data=capture.prepare(capture.data), prepare=None)
            outcome = self._results.model.infer(
                capture.data, before_run=self._before_run if self.answers.wanted else None
            )
        except (ImageError, RuntimeSeamError) as error:
            self.answer_waiting()  # in their order
            if self.source.refuse(capture, error.code):
                self._results.error()
                self._fault(error.code, f"{capture.name}: {error}")
                times = (now_ms, now_s, self._clock.monotonic_s())
                self.answers.failed(self._results.model, capture, (error.code, str(error)), times)
            self.in_flight.end(capture.name, served=False)
            return
        run_s = self._clock.monotonic_s()
        if outcome.remark and outcome.remark != self._remarked:
            self._remarked = outcome.remark
            self._fault(REORDERED, f"{capture.name}: {outcome.remark}")
        self.answers.expect()
        self._unanswered.append(_Served(capture=capture, outcome=outcome, now_ms=now_ms, now_s=now_s, run_s=run_s))
        waited_s, took_s = run_s - self._unanswered[0].run_s, run_s - now_s
        # without a sink nobody waits; a large image is answered while it is marked as in flight
        if waited_s + took_s > ANSWER_WITHIN_S or not self.answers.wanted or outcome.image.nbytes > MAX_WAITING_BYTES:
            # a sink that is woken now competes with this thread, one that is woken when the model runs does not
            self.answer_waiting(held=waited_s + self._prepare_s <= ANSWER_WITHIN_S)
        self.in_flight.end(capture.name, served=True)
        self._inputs.kept.offer(capture.data, self._results.model, outcome)
        if self._shadow is not None:
            self._shadow.offer(capture.data, self._results.model, outcome)

    def _before_run(self) -> None:
        self._prepare_s = self._clock.monotonic_s() - self._ready_s
        self.answers.release()

    def answer_waiting(self, *, held: bool = False) -> None:
        """Answer and count the inputs that the model has run on; ``held``: sinks are woken at the next run."""
        served, self._unanswered = self._unanswered, []
        model, at_s = self.model, self._clock.monotonic_s()
        for item in served:
            outcome = model.with_row(item.outcome) if self.answers.wanted else item.outcome
            self.answers.answered(model, item.capture, outcome, (item.now_ms, item.now_s, at_s), held=held)
            self._results.add(outcome, item.capture.data, item.now_ms)
            self.answers.when_settled(partial(self.source.done, item.capture))
        if not held:
            self.answers.release()

    @property
    def model(self) -> ServedModel:
        """The model that is served now."""
        return self._results.model

    def _send_counts(self, *, closed: bool) -> None:
        """Send the counts since the last time; empty counts are sent only when the window closes."""
        self.answer_waiting()
        self._results.settle()
        counters = self._results.model.counter.take()
        if not counters.n and not closed:
            return
        shape = counters.shape
        header: dict[str, Json] = {
            "type": "window", "start_ms": self._window_ms, "len_ms": self._settings.window_ms,
            "context": self._settings.context, "n": counters.n, "streams": shape.streams, "classes": shape.classes,
            "confidence_bins": shape.confidence_bins, "closed": closed,
        }  # fmt: skip
        self._send({**header, **self._identity()}, leb128.encode(counters.values))

    def _close_window(self) -> None:
        self._send_counts(closed=True)
        taken: set[str] = set()
        # the uniform ones first: what they take teaches as well, and the others look elsewhere
        for reservoir in sorted(self._results.reservoirs, key=lambda one: one.request.lane != "audit"):
            if reservoir.request.lane != "audit":
                reservoir.leave_out(taken)
            taken |= self._send_samples(reservoir)
        self._results.reservoirs = [reservoir for reservoir in self._results.reservoirs if not reservoir.exhausted]

    def _send_samples(self, reservoir: Reservoir) -> set[str]:
        sent: set[str] = set()
        if reservoir.too_large:
            text = f"Expected inputs of at most {MAX_SAMPLE_BYTES} bytes, got {reservoir.too_large} larger ones"
            self._fault("sample_too_large", f"{text}: they can't be sent, and the samples are of the others alone")
        for chosen in reservoir.close_window():
            candidate = chosen.candidate
            if (kind := media_type(candidate.data)) not in SAMPLE_TYPES:
                text = f"Expected samples of {' or '.join(SAMPLE_TYPES)}, which alone a server takes, got {kind}"
                self._fault("sample_unsupported", f"{text}: they stay on the device")
                continue
            header: dict[str, Json] = {
                "type": "sample", "request": chosen.request.request, "lane": chosen.request.lane,
                "sha256": candidate.sha256, "media_type": kind, "at_ms": candidate.at_ms,
                "inclusion_ratio": chosen.inclusion_ratio, "predicted": candidate.predicted,
                "confidence": candidate.confidence, "artifact_sha256": self._results.model.manifest.artifact_sha256,
            }  # fmt: skip
            self._send(header, candidate.data)
            sent.add(candidate.sha256)
        return sent

    def _send_heartbeat(self, *, last: bool = False) -> None:
        self._beat_due_s = self._clock.monotonic_s() + self._settings.beat_s
        self._fault_counts.clear()
        self.answer_waiting()
        self.answers.keep_open(self.model)
        dropped = self.source.take_dropped()
        if self.api is not None:
            self.api.dropped(dropped)
        figures = self._results.take_heartbeat().figures(dropped)
        sinks = {"sinks": self.answers.figures} if self.answers.deliveries else {}
        unread = sources.left_alone(self.source)
        left: dict[str, Json] = {"left": to_document(unread)} if unread.total else {}
        self._send({"type": "beat", **figures, **sinks, **left, **self._identity()}, b"")
        self._send_shadow(last=last)
        self._inputs.kept.write(KEPT_INPUTS if last else WRITES)
        if not last:
            self._replay_one()

    def _replay_one(self) -> bool:
        """Let the model answer one input that the release before had served; return whether there was one.

        The counts are sent until the control process has them in its record, and then all of it is removed.
        """
        replay = self._replay
        if replay is None:
            return False
        if replay.counts is None:
            with self.in_flight.during(KEPT):
                counts = replay.step(self._results.model)
            if counts is None:
                return True
        now_s = self._clock.monotonic_s()
        if now_s >= self._replay_due_s and replay.counts is not None:
            self._replay_due_s = now_s + REPLAY_AGAIN_S
            self._send({"type": "replay", "bundle": self._bundle}, encode(replay.counts))
        return False

    def _end_replay(self, bundle: str) -> None:
        """Forget the inputs of the release before: the counts of ``bundle`` are in the record."""
        if self._replay is not None and self._replay.counts is not None and bundle == self._bundle:
            self._replay = None
            self._inputs.forget()

    def _send_shadow(self, *, last: bool = False) -> None:
        """Send what the challenger was found to do since the last time, or its end."""
        shadow = self._shadow
        if shadow is None:
            return
        if shadow.loaded:
            self._send({"type": "shadow", "bundle": str(shadow.bundle)}, encode(shadow.take(last=last)))
        if shadow.ended is not None:
            code, text = shadow.ended
            self._send({"type": "shadow_ended", "bundle": str(shadow.bundle), "code": code, "text": text[:500]}, b"")
            self._end_shadow()

    def _begin_shadow(self, bundle: str) -> None:
        """Let ``bundle`` be the challenger, "" for none, after the last counts of the one before."""
        self._send_shadow()
        self._end_shadow()
        self._shadow = Shadow(Path(bundle), self.load, self.room) if bundle else None

    def _end_shadow(self) -> None:
        if self._shadow is not None:
            self._shadow.close()
        self._shadow = None

    def _fault(self, code: str, text: str) -> None:
        """Report a fault, each code once between two heartbeats: the heartbeat has the number."""
        count = self._fault_counts.get(code, 0)
        self._fault_counts[code] = count + 1
        if not count:
            self._send({"type": "fault", "code": code, "text": text[:500]}, b"")

    def _process_notices(self, wait_s: float) -> bool:
        """Process all notices, waiting up to ``wait_s`` for the first; return False to stop."""
        with contextlib.suppress(queue.Empty):
            notice = self.notices.get(timeout=wait_s) if wait_s else self.notices.get_nowait()
            while notice is not STOP:
                if isinstance(notice, _Loaded):
                    self._swap(notice)
                elif notice.kind == "swap":
                    self._begin_swap(str(notice.header.get("bundle", "")))
                elif notice.kind == "shadow":
                    self._begin_shadow(str(notice.header.get("bundle", "")))
                elif notice.kind == "stop":
                    self.notices.put(STOP)
                elif notice is not WAKE and not self._take(notice):
                    self._fault(
                        "frame_unknown",
                        f"Expected swap, shadow, samples, drift, written, replayed or stop, got {notice.kind!r}",
                    )
                notice = self.notices.get_nowait()
            return False
        return True

    def _take(self, notice: Frame) -> bool:
        """Take what the control process asks for or tells beside releases; return whether it is known."""
        if notice.kind == "samples":
            self._grant(notice.header)
        elif notice.kind == "drift":
            self.answers.drift = str(notice.header.get("state", ""))[:32]
        elif notice.kind == "written":
            self.to_agent.written(notice.header.get("number"))
        elif notice.kind == "replayed":
            self._end_replay(str(notice.header.get("bundle", "")))
        else:
            return False
        return True

    def _begin_swap(self, bundle: str) -> None:
        if self._loading:
            text = "Expected one swap at a time, got another: wait for swapped or fault"
            self._send_failed(bundle, "swap_busy", text)
            return
        self._loading = True
        threading.Thread(target=self._load, args=(bundle,), name="swap", daemon=True).start()

    def _load(self, bundle: str) -> None:
        """Load a model beside the running one; the only method of this class on another thread."""
        try:
            self.notices.put(_Loaded(bundle, self.load(Path(bundle)), None))
        except Exception as error:  # noqa: BLE001 - the thread's outermost frame; ``_swap`` reports it
            self.notices.put(_Loaded(bundle, None, error))

    def _swap(self, loaded: _Loaded) -> None:
        self._loading = False
        if loaded.model is None:
            code = OUT_OF_MEMORY if isinstance(loaded.error, MemoryError) else "bundle_invalid"
            self._send_failed(loaded.bundle, getattr(loaded.error, "code", code), str(loaded.error) or code)
            return
        self._send_heartbeat()  # figures of the old model must not count for the new one
        self.end_streams()
        self._end_shadow()
        self._close_window()
        old, self._results = self._results, ResultBatcher(loaded.model)
        self._results.reservoirs = old.reservoirs
        self._begin_replay(loaded.bundle)
        for text in self.answers.misfits(loaded.model):
            self._fault(SinkError.code, text)
        old.model.runtime.close()
        self._send({"type": "swapped", "bundle": loaded.bundle, **self._identity()}, b"")

    def end_streams(self) -> None:
        """End the open events: the model serves no longer."""
        self.answers.interrupt(self.model, self._clock.now_ms(), self._clock.monotonic_s())
        self.answers.release()

    def _send_failed(self, bundle: str, code: str, text: str) -> None:
        self._send({"type": "fault", "code": code, "text": text[:500], "bundle": bundle}, b"")

    def _grant(self, header: Mapping[str, Json]) -> None:
        numbers = [header.get(key, 0) for key in ("count", "budget_bytes")]
        count, budget_bytes = (value if isinstance(value, int) else 0 for value in numbers)
        ratio = header.get("ratio", 0.0)
        request = SampleRequest(
            request=str(header.get("request", "")),
            count=count,
            budget_bytes=budget_bytes,
            lane=str(header.get("lane", "audit")),
            ratio=float(ratio) if isinstance(ratio, int | float) else -1.0,
        )
        try:
            reservoir = Reservoir(request, f"{self._settings.seed} {self._window_ms}")
        except SampleRequestError as error:
            self._fault(error.code, str(error))
            return
        kept = [other for other in self._results.reservoirs if other.request.request != request.request]
        for replaced in self._results.reservoirs:
            if replaced not in kept:
                self._send_samples(replaced)  # what it has drawn of this window so far
        self._results.reservoirs = [*kept, reservoir]
        while len(self._results.reservoirs) > _MAX_REQUESTS:
            self._send_samples(self._results.reservoirs.pop(0))


def suffixes_of(manifest: Manifest) -> frozenset[str]:
    """Return the suffixes of the files that a release reads.

    Raises:
        SensorError: If the front end is unknown.
    """
    told = manifest.preprocessing
    if told.front_end:
        return front_ends.suffixes(told.front_end)
    return sixteen_bits.SUFFIXES if told.deep else sources.IMAGE_SUFFIXES


def surroundings_of(
    served: Callable[[], Manifest],
    tell: Callable[[str, str], None],
    wake: Callable[[], None],
    state: Path | None = None,
) -> sources.Surroundings:
    """Return what a source may use of the process that serves the release that ``served`` returns."""
    return sources.Surroundings(
        state=state,
        suffixes=lambda: suffixes_of(served()),
        options=lambda: served().preprocessing.front_end_options,
        columns=lambda: served().preprocessing.front_end_columns,
        interval_ms=lambda: served().stream_interval_ms,
        tell=tell,
        wake=wake,
    )


def protected_stdout() -> BinaryIO:
    """Return the real stdout for frames; from now on all other output, also of C code, goes to stderr."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return out


def _frame_sender(out: BinaryIO) -> Send:
    alone = threading.Lock()  # sinks report from threads of their own

    def send(header: Mapping[str, Json], payload: bytes) -> None:
        rest = memoryview(encode_frame(header, payload))
        with alone:
            while rest:
                rest = rest[out.write(rest) or 0 :]

    return send


def _listen(child: InferenceLoop) -> None:
    """Put frames of the control process into the child's queue; the end of the pipe means stop."""
    decoder = FrameDecoder()
    with contextlib.suppress(AgentError, OSError):
        # os.read, not sys.stdin: a thread that waits inside a buffered reader aborts the interpreter's end
        while data := os.read(0, _PIPE_BYTES):
            for frame in decoder.feed(data):
                child.notices.put(frame)
    child.notices.put(STOP)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edge_agent.inference.child", description=main.__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--source", required=True, help='JSON, for example {"kind": "directory", "path": "inbox"}')
    parser.add_argument("--sinks", default="{}", help='JSON by name, for example {"log": {"kind": "jsonl"}}')
    parser.add_argument("--api", default="", help='JSON, for example {"listen": "127.0.0.1:8500"}; empty: none')
    parser.add_argument("--corrections", action="store_true", help="inputs that a user corrects may leave the device")
    parser.add_argument("--device", default="", help="the device's name, for answers")
    parser.add_argument("--site", default="", help="the device's site, for topics of answers")
    parser.add_argument("--window-ms", type=int, default=_DEFAULTS.window_ms)
    parser.add_argument("--beat-s", type=float, default=_DEFAULTS.beat_s)
    parser.add_argument("--checkpoint-s", type=float, default=_DEFAULTS.checkpoint_s)
    parser.add_argument("--context", type=int, default=_DEFAULTS.context)
    parser.add_argument("--seed", type=int, default=_DEFAULTS.seed)
    parser.add_argument("--state", type=Path, help="the agent's state directory: what is in flight is marked there")
    parser.add_argument("--run", default="", help="names the agent's start, to tell its end from the child's own")
    parser.add_argument("--memory-bytes", type=int, default=0, help="private memory; 0: what the machine allows")
    return parser.parse_args(arguments)


def _serve(options: argparse.Namespace, send: Send) -> None:
    clock = SystemClock()
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when a file is opened on which the source holds a lease
    ceiling = memory_limit.ceiling_bytes(options.memory_bytes)
    memory_limit.go_first()
    memory_limit.keep_below(ceiling)
    load: Load = partial(load_model, max_memory_bytes=ceiling)
    settings = CountingSettings(
        window_ms=max(1, options.window_ms),
        beat_s=options.beat_s,
        context=options.context,
        seed=options.seed,
        checkpoint_s=options.checkpoint_s,
    )
    first = load(options.bundle)
    child: InferenceLoop | None = None

    def tell(code: str, text: str) -> None:
        send({"type": "fault", "code": code, "text": text[:500]}, b"")

    def served() -> Manifest:
        return (first if child is None else child.model).manifest

    def wake() -> None:
        if child is not None:
            child.notices.put(WAKE)

    surroundings = surroundings_of(served, tell, wake, options.state)
    in_flight = InFlight(options.state, options.run)
    outside = partial(in_flight.during, IN_SOURCE)
    source = sources.load(parse_json(options.source.encode()), clock, surroundings, outside)
    inputs = RecordedInputs(source, served, clock, tell)
    child = InferenceLoop(first, inputs, send, clock, settings)
    child.load, child.in_flight = load, in_flight
    child.room = partial(memory_limit.free_bytes, ceiling)
    if options.state is not None:
        child.keep_inputs(options.state, options.bundle)
    around = SinkSurroundings(
        state=options.state, device=options.device, site=options.site, tell=tell, to_agent=child.to_agent.send
    )
    child.answers = open_answers(parse_json(options.sinks.encode()), around, first)
    child.answers.open_events = OpenEvents(options.state)
    if options.api:
        try:
            open_api(
                fields_from(ApiConfig, parse_json(options.api.encode()), "[api]"),
                child,
                send if options.corrections else None,
            )
        except AgentError as error:  # inference goes on without it
            tell("api_failed", str(error))
    signal.signal(signal.SIGTERM, lambda *_, notices=child.notices: notices.put(STOP))
    threading.Thread(target=_listen, args=(child,), name="listen", daemon=True).start()
    child.run()


def open_api(config: ApiConfig, loop: InferenceLoop, correct: Send | None = None) -> None:
    """Open the local interface of ``loop``, whose sinks are opened; ``correct`` sends corrected inputs, if allowed.

    Raises:
        AgentError: If it can't listen as configured.
    """
    from edge_agent.local_api.api import ApiSurroundings, LocalApi  # noqa: PLC0415 - most devices need no HTTP server

    answers = loop.answers
    source = loop.source.inner if isinstance(loop.source, RecordedInputs) else loop.source
    around = ApiSurroundings(
        model=lambda: loop.model,
        wake=lambda: loop.notices.put(WAKE),
        sinks=lambda: answers.figures,
        push=source if isinstance(source, PushSource) else None,
        correct=correct,
    )
    loop.api = api = LocalApi(config, around)
    answers.watch = api.answered


def main(arguments: list[str] | None = None) -> int:
    """Serve one release; return the exit code: 0 after a stop, 1 if it can't start."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the control process decides
    options = _options(arguments)
    log_to_stderr()
    if options.state is not None:
        log_to_ring(options.state)
    send = _frame_sender(protected_stdout())
    try:
        _serve(options, send)
    except BrokenPipeError:  # the control process is gone: nobody to report to
        return 0
    except (AgentError, WireError, OSError, MemoryError) as error:
        code = getattr(error, "code", OUT_OF_MEMORY if isinstance(error, MemoryError) else "bundle_invalid")
        send({"type": "fault", "code": code, "text": str(error)[:500] or code, "fatal": True}, b"")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
