"""The local interface: what each address answers, and the seam to the inference loop.

Decides what a request gets. A request that needs the model waits in a bounded queue for the loop, which serves at most
one between two inputs: the model is run by one thread, and a slow client never holds it up. Such requests are not
counted for drift, and their answers go to no sink. ``docs/how-to/local-api.md`` lists the addresses.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import stat
import threading
import time
import urllib.parse
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent import decoders
from edge_agent.errors import AgentError, ApiError
from edge_agent.inference.reservoir import media_type
from edge_agent.inference.served_model import ServedModel
from edge_agent.local_api import metrics, open_inference
from edge_agent.local_api.http_server import ApiServer, Limits, Reply, Request, json_reply
from edge_agent.local_api.open_inference import InferRequest
from edge_agent.local_api.recent import MAX_ANSWERS, KeptInput, Recent
from edge_agent.local_api.settings import ApiConfig, address_of, is_loopback
from edge_agent.pipe_frames import CORRECTION, MAX_SAMPLE_BYTES
from edge_agent.sinks.unix import listen
from edge_agent.sources import InStream
from edge_agent.sources.push import PushSource
from edge_agent.streams.recorded_inputs import unheard
from wire import __version__
from wire.answers import AnswerRecord, encode_answer
from wire.canonical import sha256_hex
from wire.codec import Json, parse_json, to_document
from wire.errors import MessageError
from wire.manifest import Manifest
from wire.settings import nearest

_LOG = logging.getLogger(__name__)
_RETRY_S = 1
_READY_S = 20.0  # without a turn of the loop for this long, the model is not ready
_PARAMETERS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("GET", "/v1/answers"): ("n",),
    ("GET", "/v1/inputs"): ("id",),
    ("POST", "/v1/inputs"): ("wait", "stream", "at_ms"),
    ("POST", "/v1/correct"): (),
}
"""Names in the query of a request, for the paths where another one is a mistake."""
_STREAM_S = 10.0  # between two signs of life of a stream without answers
_TOKEN_LENGTHS = range(16, 4097)
_OTHERS_BITS = 0o077
_CORRECTED = frozenset({"image/png", "image/jpeg"})  # what a server stores
_CORRECTION_BYTES = 16 * 1024
_MAX_LABEL = 100
_MAX_STREAM = 100
_LAST_MS = 253_402_300_799_999  # the end of the year 9999: readers of records have no later dates
_MAX_DIGITS = 15
_SECONDS = range(
    1_500_000_000, 4_100_000_000
)  # 2017 to 2099 in seconds; in milliseconds 18 January to 17 February 1970
_LABELS_NAMED = 20
_INSTEAD = "label such inputs elsewhere, such as in Label Studio, and add them to the data of its recipe"
_NO_CLASS = "none of these"  # what the server's page offers for a picture that shows no class
_KINDS: Mapping[type, str] = {
    str: "as text", bool: "as true or false", list: "as a list", dict: "as an object", type(None): "missing",
}  # fmt: skip
_PAGE = Path(__file__).with_name("page.html")
_HTML = "text/html; charset=utf-8"
_PAGE_RULES = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
}


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """A request for the loop's thread."""

    work: Callable[[ServedModel], Any]
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSurroundings:
    """What the interface uses of the loop.

    ``wake``: makes an idle loop turn at once. ``sinks``: counts by name. ``push``: the source, if it takes inputs from
    here. ``correct``: sends a frame with a corrected input to the control process; None: inputs don't leave the device.
    """

    model: Callable[[], ServedModel]
    wake: Callable[[], None] = lambda: None
    sinks: Callable[[], Mapping[str, Json]] = dict
    push: PushSource | None = None
    correct: Callable[[Mapping[str, Json], bytes], None] | None = None


class LocalApi:
    """The interface. ``waiting``, ``serve``, ``answered`` and ``dropped`` are for the loop's thread, and never wait."""

    def __init__(self, config: ApiConfig, around: ApiSurroundings) -> None:
        """Listen and serve.

        Raises:
            ApiError: If an address can't be listened at, or the token can't be used.
            SinkError: If the unix socket can't be made.
        """
        self._config, self._around = config, around
        self._recent = Recent(config.keep_bytes)
        self._jobs: deque[_Job] = deque()
        self._alone = threading.Lock()
        self._turned_s = time.monotonic()
        self._start_s = time.time()
        self._streams = threading.BoundedSemaphore(max(1, config.connections // 2))
        self._servers: list[ApiServer] = []
        try:
            for listener, limits in _listeners(config):
                self._servers.append(ApiServer(listener, limits, self.answer))
        except AgentError:  # of the second address: nobody must wait at the first
            for server in self._servers:
                server.server_close()
            raise
        for server in self._servers:
            server.start()

    @property
    def address(self) -> tuple[str, int]:
        """Address and port of the TCP listener."""
        found: tuple[str, int] = self._servers[0].socket.getsockname()[:2]
        return found

    def waiting(self) -> bool:
        """Note that the loop turns; return whether a request waits for the model."""
        self._turned_s = time.monotonic()
        return bool(self._jobs)

    def serve(self, model: ServedModel) -> None:
        """Serve one waiting request."""
        with self._alone:
            if not self._jobs:  # the last one has given up
                return
            job = self._jobs.popleft()
        try:
            job.result = job.work(model)
        except AgentError as error:
            job.error = error
        except Exception as error:  # a request must not end inference  # noqa: BLE001
            _LOG.exception("A request of the local interface failed.")
            job.error = error
        job.done.set()

    def answered(self, record: AnswerRecord, data: bytes, model: ServedModel) -> None:
        """Note an answer and its input."""
        labels = model.manifest.labels
        predicted = labels.index(record.label) if record.label in labels else -1
        sha256 = model.manifest.artifact_sha256
        self._recent.add(KeptInput(record=record, data=data, artifact_sha256=sha256, predicted=predicted))

    def dropped(self, count: int) -> None:
        """Note inputs that never reached the model."""
        if count:
            self._recent.dropped(count)

    def close(self) -> None:
        """Stop listening and end all streams."""
        self._recent.close()
        for server in self._servers:
            server.stop()
        if self._config.unix is not None:
            self._config.unix.unlink(missing_ok=True)

    def _on_loop(self, work: Callable[[ServedModel], Any]) -> Any:  # noqa: ANN401 - what ``work`` returns
        """Return what ``work`` returns on the loop's thread.

        Raises:
            ApiError: If too many wait, it took too long, or it failed.
        """
        job = _Job(work=work)
        with self._alone:
            if len(self._jobs) >= self._config.queue:
                raise ApiError(
                    503, f"Expected at most {self._config.queue} requests to wait, got more", retry_s=_RETRY_S
                )
            self._jobs.append(job)
        self._around.wake()
        if not job.done.wait(self._config.wait_s):
            with self._alone, contextlib.suppress(ValueError):  # it has been taken meanwhile
                self._jobs.remove(job)
            raise ApiError(
                503, f"Expected the model's turn within {self._config.wait_s:g} s, got none", retry_s=_RETRY_S
            )
        if isinstance(job.error, AgentError):
            raise ApiError(400, str(job.error)) from job.error
        if job.error is not None:
            raise ApiError(500, f"Expected an answer, got {type(job.error).__name__}: see the log") from job.error
        return job.result

    def answer(self, request: Request) -> Reply:
        """Return the reply to a request; called from a thread of its own.

        Raises:
            ApiError: If there is none.
        """
        path = request.path.rstrip("/") or "/"
        if path.startswith("/v2/models/"):
            return self._model(request, path.removeprefix("/v2/models/"))
        routes: Mapping[tuple[str, str], Callable[[Request], Reply]] = {
            ("GET", "/"): lambda _: Reply(body=_PAGE.read_bytes(), content_type=_HTML, headers=_PAGE_RULES),
            ("GET", "/v2"): self._server_metadata,
            ("GET", "/v2/health/live"): lambda _: Reply(),
            ("GET", "/v2/health/ready"): lambda _: self._ready(),
            ("POST", "/v2/repository/index"): lambda _: self._index(),
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/answers"): self._answers,
            ("GET", "/v1/answers/stream"): lambda _: self._stream(),
            ("GET", "/v1/inputs"): self._input,
            ("POST", "/v1/inputs"): self._push,
            ("POST", "/v1/correct"): self._correct,
        }
        handle = routes.get((request.method, path))
        if handle is not None:
            _check_query(request, path)
            return handle(request)
        others = [method for method, known in routes if known == path]
        if others:
            raise ApiError(405, f"Expected {others[0]} for {path}, got {request.method}")
        known_paths = ", ".join(dict.fromkeys(known for _, known in routes))
        raise ApiError(404, f"Expected one of {known_paths}, got {path[:80]!r}")

    def _model(self, request: Request, rest: str) -> Reply:
        """Answer ``/v2/models/NAME[/versions/VERSION][/ready|/infer]``."""
        served = self._around.model()
        parts = [urllib.parse.unquote(part) for part in rest.split("/")]
        name, leaves = parts[0], parts[1:]
        if leaves[:1] == ["versions"]:
            version, leaves = "".join(leaves[1:2]), leaves[2:]
        else:
            version = str(served.manifest.version)
        if (name, version) != (served.manifest.model, str(served.manifest.version)):
            got = f"{name[:80]!r}, version {version[:20]}"
            raise ApiError(
                404, f"Expected the model {served.manifest.model}, version {served.manifest.version}, got {got}"
            )
        wanted = {(): "GET", ("ready",): "GET", ("infer",): "POST"}.get(tuple(leaves))
        if wanted is None:
            raise ApiError(404, f"Expected ready or infer behind the model, got {'/'.join(leaves)[:80]!r}")
        if request.method != wanted:
            raise ApiError(405, f"Expected {wanted}, got {request.method}")
        if not leaves:
            described = served.task_name, served.thresholds, served.answer_outputs
            return json_reply(open_inference.metadata(served.manifest, *described))
        return self._ready() if leaves == ["ready"] else self._infer(request, served)

    def _server_metadata(self, _request: Request) -> Reply:
        return json_reply({"name": "tinyfleet", "version": __version__, "extensions": ["binary_tensor_data"]})

    def _ready(self) -> Reply:
        if time.monotonic() - self._turned_s > _READY_S:
            raise ApiError(503, "Expected the model to answer, got none for long: see the log", retry_s=_RETRY_S)
        return Reply()

    def _index(self) -> Reply:
        manifest = self._around.model().manifest
        found = {"name": manifest.model, "version": str(manifest.version), "state": "READY", "reason": ""}
        return json_reply([found])

    def _infer(self, request: Request, served: ServedModel) -> Reply:
        length = request.headers.get(open_inference.JSON_LENGTH.lower())
        if length is not None and not (length.isascii() and length.isdigit()):
            raise ApiError(400, f"Expected {open_inference.JSON_LENGTH} as a number, got {length[:20]!r}")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ApiError(415, "Expected a body that is not compressed, got Content-Encoding: send it as it is")
        asked = open_inference.read_request(request.body, None if length is None else int(length), served.manifest)
        manifest, outputs = self._on_loop(lambda model: (model.manifest, _outputs(model, asked)))
        remark = unheard(manifest, asked.image) if asked.tensor is None else ""
        body, json_length = open_inference.write_response(manifest, asked, outputs, remark)
        if json_length is None:
            return Reply(body=body)
        headers = {open_inference.JSON_LENGTH: str(json_length)}
        return Reply(body=body, content_type="application/octet-stream", headers=headers)

    def _metrics(self, _request: Request) -> Reply:
        model = self._around.model()
        manifest, statuses = model.manifest, Counter[int]()
        for server in self._servers:
            statuses.update(dict(server.statuses))
        release = {
            "release": manifest.release, "model": manifest.model, "version": str(manifest.version),
            "target": manifest.target, "runtime": manifest.runtime, "task": model.task_name,
        }  # fmt: skip
        measured = metrics.ServedFigures(
            totals=self._recent.totals,
            release=release,
            sinks=self._around.sinks(),
            requests=statuses,
            start_s=self._start_s,
        )
        return Reply(body=metrics.text_of(measured).encode(), content_type=metrics.CONTENT_TYPE)

    def _answers(self, request: Request) -> Reply:
        count = request.query.get("n", "10")
        if not (count.isascii() and count.isdigit() and len(count) < 4 and 1 <= int(count) <= MAX_ANSWERS):  # noqa: PLR2004 - digits
            raise ApiError(400, f"Expected n of 1 to {MAX_ANSWERS}, got {count[:20]!r}")
        return json_reply([to_document(record) for record in self._recent.last(int(count))])

    def _input(self, request: Request) -> Reply:
        kept = self._kept(request.query.get("id", ""))
        return Reply(body=kept.data, content_type=media_type(kept.data))

    def _push(self, request: Request) -> Reply:
        source = self._around.push
        if source is None:
            raise ApiError(404, 'Expected kind = "push" in [source] for inputs by HTTP, got another source: set it')
        wait = request.query.get("wait", "0")
        if wait not in {"0", "1"} or not request.body:
            raise ApiError(
                400, f"Expected an encoded input as the body, and wait=0 or 1, got {len(request.body)} bytes"
            )
        if request.headers.get("content-type", "").startswith("multipart/"):
            advice = "curl --data-binary @FILE, not -F"
            raise ApiError(415, f"Expected the bytes of one input as the body, got a form of several parts: {advice}")
        place = _place(request)
        name = source.new_id()
        if wait == "1":
            self._recent.expect(name)
        if not source.offer(name, request.body, place):
            if wait == "1":
                self._recent.awaited(name, 0.0)
            raise ApiError(429, "Expected room for one more input, got none: send it again later", retry_s=_RETRY_S)
        self._around.wake()
        if wait == "0":
            return json_reply({"id": name}, 202)
        record = self._recent.awaited(name, self._config.wait_s)
        if record is None:
            raise ApiError(
                504, f"Expected the answer to {name} within {self._config.wait_s:g} s, got none: it may come"
            )
        return json_reply(to_document(record))

    def _correct(self, request: Request) -> Reply:
        """Send an input whose answer is wrong, with the label that the user gives, to the control process."""
        if self._around.correct is None:
            advice = "set max_bytes_per_day in [samples], so that inputs may leave the device"
            raise ApiError(403, f"Expected a device that sends corrections, got one that does not: {advice}")
        try:
            document = parse_json(request.body, limit_bytes=_CORRECTION_BYTES)
        except MessageError as error:
            raise ApiError(400, f"Expected a JSON object with id and label, got: {error}") from error
        name, label = document.get("id"), document.get("label")
        if isinstance(label, int | float) and not isinstance(label, bool):  # of a model of numbers
            label = str(label)
        if not isinstance(name, str) or not isinstance(label, str):
            got = f"id {_kind(name)} and label {_kind(label)}"
            advice = 'send {"id": "…", "label": "…"}, several numbers in one text with spaces'
            raise ApiError(400, f"Expected id as text and label as text or a number, got {got}: {advice}")
        if not 0 < len(label.strip()) <= _MAX_LABEL or not label.isprintable():
            raise ApiError(400, f"Expected a label of 1 to {_MAX_LABEL} printable characters, got {label[:40]!r}")
        kept = self._kept(name)
        kind = media_type(kept.data)
        if kind not in _CORRECTED or len(kept.data) > MAX_SAMPLE_BYTES:
            got = f"{kind} of {len(kept.data)} bytes"
            advice = f"send smaller pictures, or {_INSTEAD}" if kind in _CORRECTED else _INSTEAD
            message = f"Expected a PNG or JPEG of at most {MAX_SAMPLE_BYTES} bytes to correct, got {got}: {advice}"
            raise ApiError(415, message)
        manifest = self._around.model().manifest
        if kept.artifact_sha256 == manifest.artifact_sha256:  # else its labels are not known here
            check_label(manifest, label.strip())
        header: dict[str, Json] = {
            "type": "sample", "lane": CORRECTION, "label": label.strip(), "sha256": sha256_hex(kept.data),
            "media_type": kind, "at_ms": kept.record.at_ms, "predicted": kept.predicted,
            "confidence": kept.record.confidence or 0.0, "artifact_sha256": kept.artifact_sha256,
        }  # fmt: skip
        self._around.correct(header, kept.data)
        return json_reply({"id": name, "label": label.strip()}, 202)

    def _kept(self, name: str) -> KeptInput:
        kept = self._recent.input(name)
        if kept is None:
            advice = f"it is unknown, or older than the last {self._config.keep_bytes} bytes (keep_bytes in [api])"
            raise ApiError(404, f"Expected the id of a kept input, got {name[:80]!r}: {advice}")
        return kept

    def _stream(self) -> Reply:
        if not self._streams.acquire(blocking=False):
            raise ApiError(503, "Expected fewer streams at once, got more: raise [api] connections", retry_s=_RETRY_S)
        events = self._events()
        first = next(events)  # begun, so that it frees its place even if the client has gone before a byte is sent
        return Reply(content_type="text/event-stream", stream=chain([first], events))

    def _events(self) -> Iterator[bytes]:
        """Yield server-sent events; a comment now and then, so that a client that has gone is noticed."""
        try:
            with self._recent.following() as follower:
                yield b": answers from now on\n\n"
                while (found := self._recent.next(follower, _STREAM_S)) is not None:
                    records, lost = found
                    events = [b"event: lost\ndata: %d\n\n" % lost] if lost else []
                    events += [b"event: answer\ndata: " + encode_answer(record) + b"\n\n" for record in records]
                    yield b"".join(events) or b": none\n\n"
        finally:
            self._streams.release()


def _check_query(request: Request, path: str) -> None:
    """Check the names of a request's parameters: a misspelt one would do nothing.

    Raises:
        ApiError: If one is unknown.
    """
    known = _PARAMETERS.get((request.method, path))
    if known is not None and (unknown := sorted(request.query.keys() - set(known))):
        some = f"one of {', '.join(known)}" if known else "none"
        got = f"{unknown[0][:40]!r}{nearest(unknown[0], known)}"
        raise ApiError(400, f"Expected of the parameters of {request.method} {path} {some}, got {got}")


def _place(request: Request) -> InStream:
    """Return where a pushed input stands: in the stream that its sender names, at the time that it says.

    Raises:
        ApiError: If the name or the time is none.
    """
    stream, at = request.query.get("stream", ""), request.query.get("at_ms", "")
    if len(stream) > _MAX_STREAM or not stream.isprintable():
        message = f"Expected a name of a stream of at most {_MAX_STREAM} printable characters, got {stream[:40]!r}"
        raise ApiError(400, message)
    if at and not (at.isascii() and at.isdigit() and len(at) <= _MAX_DIGITS and int(at) <= _LAST_MS):
        raise ApiError(400, f"Expected at_ms as milliseconds since 1970 (UTC), got {at[:40]!r}")
    if at and int(at) in _SECONDS:
        advice = f"if these are seconds, send {at}000"
        raise ApiError(400, f"Expected at_ms as milliseconds since 1970 (UTC), got {at}, a day of early 1970: {advice}")
    return InStream(name=stream, at_ms=int(at) if at else None, last=not stream)


def _outputs(model: ServedModel, asked: InferRequest) -> dict[str, Any]:
    """Return the outputs by name: the model's own of its tensor, or the task's answer of an encoded input."""
    if asked.tensor is not None:
        outputs = model.runtime.run(asked.tensor)
        return {spec.name: value for spec, value in zip(decoders.outputs_of(model.manifest), outputs, strict=True)}
    outcome = model.infer(asked.image)
    said, supported = model.answer(outcome), model.supported(outcome)
    found: dict[str, Any] = {}
    if said.label:
        found = {"label": said.label.encode()}
        found |= {"confidence": np.array([said.confidence], np.float32)} if math.isfinite(said.confidence) else {}
        if said.anomalous is not None:
            found |= {"anomalous": np.array([said.anomalous])}
            found |= {name: np.array([value], np.float32) for name, value in (said.scores or {}).items()}
    elif said.values and all(map(math.isfinite, said.values.values())):
        found = {name: np.array([value], np.float32) for name, value in said.values.items()}
    boxes = model.boxes(outcome, said)
    for name, listed in (("boxes", boxes), ("labels", said.labels)):
        if listed is not None:
            found[name] = json.dumps([dict(one) if isinstance(one, Mapping) else one for one in listed]).encode()
    if not found:
        raise ApiError(500, "Expected numbers from the model, got NaN or infinity")
    return found | ({} if supported is None else {"supported": np.array([supported])})


def _listeners(config: ApiConfig) -> Iterator[tuple[socket.socket, Limits]]:
    token = b"" if config.token_file is None else _token(config.token_file)
    if config.listen:
        host, port = address_of(config.listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=config.connections)
        except OSError as error:
            message = f"Expected an address to listen at, {config.listen}, got: {error.strerror}: set another"
            raise ApiError(500, message) from error
        _LOG.info("local interface listens address=%s port=%s", *listener.getsockname()[:2])
        yield listener, _limits(config, token, local=is_loopback(host))
    if config.unix is not None:
        listener = listen(config.unix, config.connections)
        listener.setblocking(True)
        yield listener, _limits(config, b"", local=False)


def _limits(config: ApiConfig, token: bytes, *, local: bool) -> Limits:
    return Limits(
        body_bytes=config.body_bytes,
        connections=config.connections,
        wait_s=config.wait_s,
        token=token,
        local=local,
    )


def _token(path: Path) -> bytes:
    """Return the token in ``path``.

    Raises:
        ApiError: If it can't be read, others may read it, or it is too short.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(_TOKEN_LENGTHS.stop).strip()
    except OSError as error:
        raise ApiError(500, f"Expected a token in {path}, got: {error.strerror}: write one of 16 characters") from error
    if stat.S_IMODE(mode) & _OTHERS_BITS:
        raise ApiError(500, f"Expected {path} to be readable by its owner only, got {stat.S_IMODE(mode):o}: chmod 600")
    if len(token) not in _TOKEN_LENGTHS or not token.isascii() or len(token.split()) != 1:
        raise ApiError(500, f"Expected a token of 16 characters or more without blanks in {path}, got {len(token)}")
    return token


def check_label(manifest: Manifest, label: str) -> None:
    """Check that ``label`` can be the right answer of the model in ``manifest``.

    Raises:
        ApiError: If its task has other answers than a class or numbers, or it has no such class.
    """
    if manifest.task:
        got = f"one of {manifest.release}, whose task is {manifest.task!r}"
        raise ApiError(409, f"Expected an answer that one label can correct, got {got}: {_INSTEAD}")
    if manifest.labels and label not in {*manifest.labels, _NO_CLASS}:
        more = len(manifest.labels) - _LABELS_NAMED
        named = ", ".join(manifest.labels[:_LABELS_NAMED]) + (f" and {more} more" if more > 0 else "")
        raise ApiError(400, f"Expected a label of {manifest.release}, {named}, or {_NO_CLASS!r}, got {label[:40]!r}")
    if manifest.values and not manifest.labels and not _are_numbers(label.split(), len(manifest.values)):
        named = ", ".join(manifest.values)
        raise ApiError(400, f"Expected a number for each of {named}, separated by spaces, got {label[:40]!r}")


def _kind(value: Json) -> str:
    """Return the kind of a JSON value, for an error."""
    return _KINDS.get(type(value), "as a number")


def _are_numbers(texts: Sequence[str], count: int) -> bool:
    try:
        return len(texts) == count and all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False
