"""``edge-agent try``: the answers of a bundle to a source, in this process and without a server.

Nothing is deleted and nothing is reported: pictures stay where they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_agent import sources
from edge_agent.device.clock import SystemClock
from edge_agent.errors import ImageError, SourceError, reason_of
from edge_agent.exits import STOPS
from edge_agent.inference.answers import Answers
from edge_agent.inference.child import (
    STOP,
    WAKE,
    CountingSettings,
    InferenceLoop,
    Notices,
    open_api,
    protected_stdout,
    surroundings_of,
)
from edge_agent.inference.served_model import load_model
from edge_agent.local_api.settings import ApiConfig
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from edge_agent.sources import Capture, InStream, Source, Surroundings
from edge_agent.sources._misfits import kind_of, other_kind
from edge_agent.sources._stream import StreamSource
from edge_agent.sources.directory import MAX_FILE_BYTES, Settings, cut_of, place_of
from edge_agent.streams.recorded_inputs import RecordedInputs
from wire.answers import AnswerRecord, encode_answer
from wire.codec import Json
from wire.errors import SettingsError
from wire.settings import fields_from, nearest

FOLDER = "folder"
_NAME = "stdout"
_SHOWN = 5  # names of skipped files
_QUEUE = 100_000
_END_S = 60.0  # for a slow reader of what was answered
_REPLAY_S = 0.5
_ANSWERED = frozenset({"image_invalid", "image_too_large", "sensor_invalid", "runtime"})
"""Faults of an input, which its answer reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to try. ``source``: a document with ``kind``; ``once``: end when the files that are there are answered.

    ``count``: end after so many answers; 0: never. ``listen``: the address of the local interface; empty: none.
    """

    bundle: Path
    source: Mapping[str, Json]
    once: bool = False
    count: int = 0
    listen: str = ""


@dataclass(slots=True, kw_only=True)
class Listed:
    """A source of inputs by name, each once; nothing is deleted.

    ``read``: returns the bytes of one; ``place``: where it stands in a stream; ``prepare``: as in ``Capture``.
    ``skipped``: a line for people on the files that are there and are no inputs; empty: none.
    """

    left: deque[str]
    read: Callable[[str], bytes]
    place: Callable[[str], InStream] = lambda _: InStream()
    prepare: Callable[[bytes], bytes] | None = None
    skipped: str = ""

    def take(self) -> Capture | None:
        """Return the next input; the answer to one that can't be read has the reason."""
        if not self.left:
            return None
        name = self.left.popleft()
        try:
            return Capture(name, self.read(name), name, prepare=self.prepare, place=self.place(name))
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            why = reason_of(error) or type(error).__name__

            def refuse(_data: bytes) -> bytes:
                raise ImageError(f"Expected a file that can be read, got: {why}: check its rights, or write it again")

            return Capture(name, b"", name, prepare=refuse)

    @property
    def ended(self) -> bool:
        """Whether there is no other input."""
        return not self.left

    def done(self, capture: Capture) -> None:
        """Do nothing: files stay."""

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Do nothing: files stay, and are not returned again."""
        del capture, code, final
        return True

    def take_dropped(self) -> int:
        """Return 0: nothing is dropped."""
        return 0


class _Printed:
    """A sink that writes JSON lines to a stream, ``most`` of them (0: all), and then ends the loop."""

    def __init__(self, out: BinaryIO, most: int, loop: InferenceLoop) -> None:
        self._out, self._left, self._loop = out, most or sys.maxsize, loop
        self.answered = 0  # without an error

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Write answers; the end of the reader ends the loop too."""
        wanted = records[: self._left]
        try:
            rest = memoryview(b"".join(encode_answer(record) + b"\n" for record in wanted))
            while rest:  # unbuffered
                rest = rest[self._out.write(rest) :]
        except BrokenPipeError:
            wanted, self._left = [], 0
        self._left -= len(wanted)
        self.answered += sum(not record.error for record in wanted)
        if self._left <= 0:
            self._loop.notices.put(STOP)
        return len(wanted)

    def close(self) -> None:
        """Do nothing: the stream is not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a trial ended: after so many ``answers``, without those that are errors; whether a signal stopped it."""

    answers: int
    stopped: bool


def run(trial: Trial, note: Callable[[str], None]) -> Ended:
    """Write an answer a line to standard output until SIGINT, SIGTERM, the end of the files, or ``count``.

    ``note`` gets lines for people. What else is written to standard output, as by a plug-in, goes to
    standard error from now on.

    Raises:
        WireError: If the bundle is invalid.
        AgentError: If the runtime is missing, the source or the local interface can't be opened, or a file of frames or
            sound can't be read to its end; what came before is answered.
        OSError: If the bundle can't be read.
    """
    out = protected_stdout()
    model = load_model(trial.bundle)
    note(f"{model.manifest.release} for {model.manifest.target} on {model.manifest.runtime}")

    def say(header: Mapping[str, Json], _payload: bytes) -> None:
        if header["type"] == "fault" and header["code"] not in _ANSWERED:
            note(f"{header['code']}: {header['text']}")

    signal.signal(signal.SIGIO, signal.SIG_IGN)
    notices: Notices = queue.SimpleQueue()
    around = surroundings_of(
        lambda: model.manifest, lambda code, text: note(f"{code}: {text}"), lambda: notices.put(WAKE)
    )
    source = _opened(trial, around)
    inputs = RecordedInputs(source, lambda: model.manifest, SystemClock(), around.tell)
    loop = InferenceLoop(model, inputs, say, SystemClock(), CountingSettings())
    loop.notices = notices
    account = open_accounts(None, [_NAME])[_NAME]
    sink = _Printed(out, trial.count, loop)
    printed = Delivery(_NAME, sink, SinkSettings(queue=_QUEUE), account, lambda *_: None)
    loop.answers = Answers(deliveries=[printed])
    if trial.listen:
        open_api(ApiConfig(listen=trial.listen), loop)
        note(f"page: http://{trial.listen}/")
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(number)
        loop.notices.put(STOP)

    for number in STOPS:
        signal.signal(number, stop)
    while loop.step() and not (isinstance(source, Listed | StreamSource) and source.ended and not inputs.waiting):
        pass
    loop.answer_waiting()
    loop.end_streams()
    if loop.api is not None:
        loop.api.close()
    sources.close(source)
    printed.close(_END_S)
    if isinstance(source, Listed) and source.skipped:
        note(source.skipped)
    if isinstance(source, StreamSource) and source.failure:
        raise SourceError(source.failure)
    return Ended(answers=sink.answered, stopped=bool(stopped))


def _opened(trial: Trial, around: Surroundings) -> Source:
    suffixes = around.suffixes()
    kind, path = trial.source["kind"], Path(str(trial.source.get("path", "")))
    folder = kind == sources.SourceConfig().kind
    archive = path.suffix.lower() == ".zip"
    if folder and path.is_file() and (not archive or trial.once):
        if not archive:
            return _listed(trial, around, (deque([str(path)]), ""), lambda name: _read(Path(name)), Path())
        try:
            with zipfile.ZipFile(path) as zipped:
                entries = [item for item in zipped.infolist() if not item.is_dir()]
        except (zipfile.BadZipFile, OSError) as error:
            raise SourceError(f"Expected an intact zip at {path}, got: {error}: check --path") from error
        found = _found({item.filename: item.file_size <= MAX_FILE_BYTES for item in entries}, path, suffixes)
        return _listed(trial, around, found, lambda name: zipfile.ZipFile(path).read(name), None)
    if folder and trial.once:
        found = _found({item.name: True for item in path.glob("*")}, path, suffixes)
        return _listed(trial, around, found, lambda name: _read(path / name), path)
    if kind == "push" and not trial.listen:
        raise SourceError("Expected --listen beside --source push, where inputs are sent to, got none: give --listen")
    document = dict(trial.source)
    if archive:
        document |= {"kind": "synthetic", "interval_s": _REPLAY_S}
        document.pop("keep", None)
    return sources.load(document, SystemClock(), around)


def _listed(
    trial: Trial,
    around: Surroundings,
    found: tuple[deque[str], str],
    read: Callable[[str], bytes],
    folder: Path | None,
) -> Listed:
    """Return the files that were ``found`` as ``sources.directory`` gives them; ``folder``: of them, None: in a zip."""
    settings = fields_from(Settings, {key: item for key, item in trial.source.items() if key != "kind"}, "--set")
    sound = "clip_s" in around.options()
    cut = cut_of(settings)
    if cut is not None and around.options():
        text = "Expected pictures for region and resize, got a release for another sensor's files"
        around.tell("source_region", text)
        cut = None

    def place(name: str) -> InStream:
        changed_ms = None
        if folder is not None:
            with contextlib.suppress(OSError):  # reading it says why
                changed_ms = (folder / name).stat().st_mtime_ns // 1_000_000
        return place_of(settings, name, sound=sound, changed_ms=changed_ms)

    return Listed(left=found[0], read=read, place=place, prepare=cut, skipped=found[1])


def _found(names: Mapping[str, bool], path: Path, suffixes: frozenset[str]) -> tuple[deque[str], str]:
    """Return the inputs among ``names`` in order, and a line on the others; hidden ones count as neither.

    The value of a name is whether the file is small enough.

    Raises:
        SourceError: If there is no input.
    """
    shown = sorted(name for name in names if Path(name).name[0] != ".")
    found = [name for name in shown if names[name] and Path(name).suffix.lower() in suffixes]
    others = [name for name in shown if name not in set(found)]
    listed = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
    if not found:
        got = f"{len(others)} others: {listed}: {_advice(others, suffixes)}" if others else "none: check --path"
        raise SourceError(f"Expected files ending in {' '.join(sorted(suffixes))} in {path}, got {got}")
    return deque(
        found
    ), f"skipped {len(others)} of {len(shown)} files: {listed}: {_advice(others, suffixes)}" if others else ""


def _advice(names: Sequence[str], suffixes: frozenset[str]) -> str:
    held, read = next((two for name in names if (two := other_kind(name, suffixes))[0]), ("", ""))
    if held and not any(kind_of(Path(name).suffix.lower()) in read for name in names):
        return f"they hold {held} and this release reads {read}: try another BUNDLE, or another --path"
    gifs = any(name.lower().endswith(".gif") for name in names)
    return (
        "save the frames of a GIF as PNG"
        if gifs
        else "this release reads no such files, nor folders inside of a folder, nor larger files"
    )


def _read(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a FIFO must not wait
        return file.read(MAX_FILE_BYTES + 1) or b""  # one byte more than allowed, so that decoding reports "too large"


def packaged() -> tuple[Path, Path]:
    """Return the bundle and the pictures that a wheel carries.

    Raises:
        SourceError: If this installation has none, as a clone.
    """
    folder = Path(__file__).parent.parent / "try"
    bundles, pictures = sorted(folder.glob("*.tfb")), folder / "pictures.zip"
    if not bundles or not pictures.exists():
        message = f"Expected the bundle that a wheel carries in {folder}, got none: this is a clone; name a bundle"
        raise SourceError(f"{message} (./scripts/setup, then: compressor run models/digits)")
    return bundles[0], pictures


def document_of(kind: str, path: str | None, keys: Sequence[str]) -> dict[str, Json]:
    """Return the document of a source; ``folder`` is ``directory``, whose files stay.

    Raises:
        SourceError: If the kind is unknown, a key has no value, or the source rejects it.
    """
    known = (FOLDER, *sources.names())
    if kind not in known and ":" not in kind:
        message = f"Expected --source as one of {', '.join(known)} or 'package.module:function', got {kind!r}"
        raise SourceError(message + nearest(kind, known))
    kind = sources.SourceConfig().kind if kind == FOLDER else kind
    table: dict[str, object] = {"kind": kind}
    for text in keys:
        key, equals, value = text.partition("=")
        if not equals:
            raise SourceError(f"Expected --set KEY=VALUE, got {text!r}: write KEY=VALUE")
        try:
            table[key] = json.loads(value)
        except ValueError:
            table[key] = value
    if path is not None:
        there = "://" not in path and Path(path).exists()  # otherwise an address, or the name of a device
        table["path"] = str(Path(path).absolute()) if there else path
    if kind == sources.SourceConfig().kind:
        table["keep"] = True
        if path is None:
            raise SourceError("Expected --path with the folder, the zip or the file to answer, got none: give --path")
        if not Path(path).exists():
            raise SourceError(f"Expected a folder, a zip or a file at {path}, got nothing there: check --path")
    try:
        return sources.SourceConfig.from_table(table, "--set", Path.cwd()).document
    except SettingsError as error:
        raise SourceError(str(error)) from error
