"""Streams on a device: the events of a recording are those that the gates judge, and no other input is in them."""

from __future__ import annotations

import json
import os
import wave
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from compressor.data._event_windows import EventWindows, Recording, SoundEvent, tabled
from compressor.measurement.predictions import Candidate, predict, smoothed
from compressor.tasks.stream_events.evidence import heard
from edge_agent import smoothers, sources
from edge_agent.device.clock import Clock, FakeClock, SystemClock
from edge_agent.inference.answers import Answers
from edge_agent.inference.child import CountingSettings, InferenceLoop, surroundings_of
from edge_agent.inference.preprocess import to_tensor
from edge_agent.inference.served_model import load_model
from edge_agent.sources import Capture, InStream
from edge_agent.streams import stream_states
from edge_agent.streams.open_events import OpenEvents
from edge_agent.streams.recorded_inputs import RecordedInputs, unheard
from edge_agent.streams.stream_states import SILENCE_S, Streams
from tests.edge_agent.inference.tones import CLIP_S, HOP_S, OPTIONS, RATE, WORDS, recording, tones_bundle, wav, words
from tests.edge_agent.sinks.receiver import until
from wire.answers import AnswerRecord, encode_answer
from wire.bundle import read_bundle

CLIP_MS, HOP_MS = round(1000 * CLIP_S), round(1000 * HOP_S)


@dataclass
class Device:
    """A loop over a release, as the child builds it; ``told``: what its source reported."""

    loop: InferenceLoop
    inputs: RecordedInputs
    records: list[AnswerRecord] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)

    def hear(self, count: int) -> list[AnswerRecord]:
        """Serve until there are ``count`` records."""

        def turned() -> bool:
            self.loop.turn()
            self.loop.answer_waiting()
            return len(self.records) >= count

        until(turned)
        return self.records

    @property
    def events(self) -> list[dict]:
        """All events in the records."""
        return [event for record in self.records for event in record.events]


def device(bundle: Path, document: dict, state: Path | None = None, clock: Clock | None = None) -> Device:
    """Return a device with the source of ``document``."""
    model, clock = load_model(bundle), clock or SystemClock()
    records, told = [], []
    around = surroundings_of(lambda: model.manifest, lambda *said: told.append(said), lambda: None, state)
    inputs = RecordedInputs(sources.load(document, clock, around), lambda: model.manifest, clock, around.tell)
    loop = InferenceLoop(model, inputs, lambda *_: None, clock, CountingSettings())
    loop.answers = Answers(watch=lambda record, *_: records.append(record), open_events=OpenEvents(state))
    return Device(loop, inputs, records, told)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The release of two tones."""
    return tones_bundle(tmp_path / "tones.tfb")


def judged(bundle: Path, sound: np.ndarray) -> list[tuple[float, str]]:
    """Return the detections that the gates count in a recording: when, in seconds, and what."""
    read = read_bundle(bundle)
    truth = [SoundEvent(start_s, end_s, which) for start_s, end_s, which in WORDS]
    table = tabled([Recording(name="r", sound=sound, events=truth)], ("log_mel", OPTIONS), EventWindows(stride_s=HOP_S))
    rows = np.concatenate([to_tensor(image, read.manifest.preprocessing) for image in table.images])
    said = smoothed(predict(Candidate(read.manifest, read.artifact), rows), read.manifest, table.sources, HOP_MS)
    points = heard(replace(said, fitted=0.6), table.labels).points
    return [(at_s, read.manifest.labels[kind]) for at_s, kind in zip(points.at_s, points.labels, strict=True)]


def ways(way: str, data: bytes, folder: Path) -> dict:
    """Return the source through which the WAV ``data`` reaches a device."""
    path = folder / ("words.wav" if way != "pcm" else "words.pcm")
    if way == "fifo":
        os.mkfifo(path)
    elif way != "push":
        path.write_bytes(data if way != "pcm" else data[44:])
    if way == "push":
        return {"kind": "push"}
    if way == "directory":
        return {"kind": "directory", "path": str(folder), "keep": True, "settle_s": 0}
    return {"kind": "microphone", "path": str(path), "backlog": 1000}


@pytest.mark.parametrize("way", ["directory", "push", "wav", "pcm", "fifo"])
def test_a_recording_has_the_events_that_the_gates_judge(way: str, bundle: Path, tmp_path: Path) -> None:
    """The same list, at the same seconds of the recording, however fast it is read."""
    sound, folder = words(), tmp_path / "in"
    folder.mkdir()
    one = device(bundle, ways(way, wav(sound), folder))
    if way == "push":
        assert one.inputs.inner.offer("push-1", wav(sound))
    elif way == "fifo":
        with (folder / "words.wav").open("wb") as file:
            file.write(wav(sound))
    count = len(range(0, len(sound) - round(CLIP_S * RATE) + 1, round(HOP_S * RATE)))
    first_ms = one.hear(count)[0].at_ms
    assert len(one.records) == count
    begun = [event for event in one.events if event["state"] == "began"]
    wanted = judged(bundle, sound)
    assert len(wanted) == len(WORDS)
    assert [event["label"] for event in begun] == [label for _, label in wanted]
    close_s = 0.06 if way == "fifo" else 0.0015  # a live stream is drawn to the clock by a hundredth
    at_s = [(event["start_ms"] - first_ms) / 1000 + CLIP_S / 2 for event in begun]
    assert at_s == pytest.approx([at for at, _ in wanted], abs=close_s)
    assert [event["label"] for event in one.events if event["state"] == "ended"] == [label for _, label in wanted]
    sources.close(one.inputs)


def test_a_stereo_recording_is_mixed_as_the_gates_mix_it(bundle: Path, tmp_path: Path) -> None:
    """To the bit: the pictures are those of the mean of both channels."""
    folder = tmp_path / "in"
    folder.mkdir()
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.stack([words(1), words(2)], axis=1).tobytes())
    one = device(bundle, {"kind": "directory", "path": str(folder), "keep": True, "settle_s": 0})
    one.hear(59)
    mixed = np.stack([words(1), words(2)], axis=1).mean(axis=1).astype(np.int16)
    begun = [event["label"] for event in one.events if event["state"] == "began"]
    assert begun == [label for _, label in judged(bundle, mixed)]


def test_each_file_of_sound_is_a_stream_of_its_own(bundle: Path, tmp_path: Path) -> None:
    """A tone at the end of one is no tone of the next; its event ends with the file, at the time of its samples."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(wav(recording(1.0, (0.0, 1.0, "low"))))
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    one = device(bundle, {"kind": "directory", "path": str(folder), "keep": True, "settle_s": 0})
    records = one.hear(16)
    assert [record.inputs for record in records] == [1, *[2] * 7] * 2
    assert [record.stream for record in records] == ["a.wav"] * 8 + ["b.wav"] * 8
    ends_ms = 1_700_000_000_000 - 1000 + CLIP_MS
    events = [(event["state"], event["start_ms"] - ends_ms, event["end_ms"] - ends_ms) for event in one.events]
    assert events == [("began", 0, 0), ("ended", 0, 7 * HOP_MS)] * 2
    assert [len(record.events) for record in records] == [1, *[0] * 6, 1] * 2
    assert [record.id.partition("#")[2] for record in records[:8]] == [
        "0",
        "100",
        "200",
        "300",
        "400",
        "500",
        "600",
        "",
    ]


def test_a_file_whose_name_is_no_utf_8_names_a_stream_that_a_record_can_carry(bundle: Path, tmp_path: Path) -> None:
    """As its id does: neither a sink nor the file of open events takes a lone surrogate."""
    folder, state = tmp_path / "in", tmp_path / "state"
    folder.mkdir()
    state.mkdir()
    (folder / os.fsdecode(b"h\xf6rt.wav")).write_bytes(wav(recording(CLIP_S + HOP_S, (0.0, CLIP_S + HOP_S, "low"))))
    one = device(bundle, {"kind": "directory", "path": str(folder), "keep": True, "settle_s": 0}, state)
    began, ended = one.hear(2)
    assert began.stream == r"h\xf6rt.wav"
    assert [json.loads(encode_answer(record))["events"][0]["state"] for record in (began, ended)] == ["began", "ended"]


@pytest.mark.parametrize(("stream", "counts"), [("auto", [1, 1, 1]), ("file", [1, 1, 1]), ("folder", [1, 2, 2])])
def test_clips_of_a_folder_are_averaged_only_on_request(stream: str, counts: list[int], tmp_path: Path) -> None:
    """With any smoother; a recorder that writes one stream in pieces says so."""
    folder, bundle = tmp_path / "in", tones_bundle(tmp_path / "tones.tfb", "mean", 0)
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.wav").write_bytes(wav(recording(CLIP_S)))
    keys = {"path": str(folder), "keep": True, "settle_s": 0, "stream": stream}
    assert [record.inputs for record in device(bundle, {"kind": "directory", **keys}).hear(3)] == counts


def test_a_sender_names_its_stream_or_stands_alone(bundle: Path) -> None:
    """Streams that alternate keep their own means and events; a time that is given counts."""
    one = device(bundle, {"kind": "push"})
    tone, none = wav(recording(CLIP_S, (0, CLIP_S, "low"))), wav(recording(CLIP_S))
    for number in range(3):
        one.inputs.inner.offer(f"k{number}", tone, InStream(name="kitchen", at_ms=1000 + 100 * number))
        one.inputs.inner.offer(f"h{number}", none, InStream(name="hall", at_ms=1000 + 100 * number))
        one.inputs.inner.offer(f"x{number}", tone)
    records = one.hear(9)
    assert [(record.stream, record.inputs) for record in records[3:6]] == [("kitchen", 2), ("hall", 2), ("", 1)]
    assert [record.at_ms for record in records if record.stream] == [1000, 1000, 1100, 1100, 1200, 1200]
    assert [event["state"] for event in one.events if "stream" not in event] == ["began", *["began", "ended"] * 3]
    one.inputs.inner.offer("k3", none, InStream(name="kitchen", at_ms=1300))
    one.inputs.inner.offer("k4", none, InStream(name="kitchen", at_ms=1400))
    assert one.hear(11)[-1].events[0] == {
        "state": "ended", "label": "low", "start_ms": 1000, "end_ms": 1300, "confidence": pytest.approx(1, abs=0.01)
    }  # fmt: skip


def test_what_a_clip_classifier_does_not_hear_is_reported_once(tmp_path: Path) -> None:
    """It hears the middle, as in training; a recording of nearly a clip is nothing to report."""
    one = device(tones_bundle(tmp_path / "tones.tfb", "mean", 0), {"kind": "push"})
    middle = recording(2.0, (0.8, 1.2, "high"))
    for name, sound in (("a", recording(1.5 * CLIP_S)), ("b", middle), ("c", middle)):
        one.inputs.inner.offer(name, wav(sound))
    assert [record.label for record in one.hear(3)] == ["background", "high", "high"]
    assert [code for code, _ in one.told] == ["source_unheard"]
    assert "Expected sounds of 0.25 s, as long as an input of the release, got 2 s in b" in one.told[0][1]


def test_an_old_release_for_events_is_told_to_be_built_again(tmp_path: Path) -> None:
    """Its manifest has no interval, so a recording is not cut; a classifier of clips gets no such step."""
    for smoothing, step in (("events", "rebuild the release"), ("mean", "cut it, or use")):
        one = device(tones_bundle(tmp_path / f"{smoothing}.tfb", smoothing, 0), {"kind": "push"})
        one.inputs.inner.offer("a", wav(recording(2.0)))
        one.hear(1)
        assert step in one.told[0][1]


def test_what_is_not_heard_of_a_sound_that_is_asked_for_is_said(tmp_path: Path, bundle: Path) -> None:
    """Its length and what to do; nothing of a clip, a shorter one, or of what is no sound."""
    clips = load_model(tones_bundle(tmp_path / "clips.tfb", "mean", 0)).manifest
    assert unheard(clips, wav(recording(2.0))).startswith("only the middle 0.25 s of 2 s were heard: send a sound")
    assert "POST /v1/inputs" in unheard(load_model(bundle).manifest, wav(recording(2.0)))
    assert [unheard(clips, data) for data in (wav(recording(CLIP_S)), wav(recording(0.1)), b"RIFF", b"")] == [""] * 4


@pytest.mark.parametrize("name", ["", "kitchen"])
def test_a_sound_shorter_than_a_window_is_refused_and_no_event(name: str, bundle: Path) -> None:
    """The gates judged whole windows; the stream goes on as if it had not come."""
    one = device(bundle, {"kind": "push"})
    frames = round(CLIP_S * RATE)
    for key, sound in (("a", recording(CLIP_S, (0, CLIP_S, "low"))[: frames - 1]), ("b", recording(0.0)), ("c", None)):
        data = wav(recording(CLIP_S, (0, CLIP_S, "low")) if sound is None else sound)
        one.inputs.inner.offer(key, data, InStream(name=name, at_ms=1000, last=not name))
    short, empty, whole = one.hear(3)
    assert (short.error, short.events, empty.error, empty.events) == ("sensor_invalid", (), "sensor_invalid", ())
    assert "Expected 0.25 s of sound or more, a window of the release, got 0.249875 s" in short.text
    assert [event["state"] for event in whole.events] == (["began"] if name else ["began", "ended"])


class Files:
    """A source of one recording; notes what becomes of it."""

    def __init__(self, data: bytes) -> None:
        """Return it once."""
        self.left, self.noted = [Capture("a.wav", data, "a.wav@1")], []

    def take(self) -> Capture | None:
        """Return the recording."""
        return self.left.pop() if self.left else None

    def done(self, capture: Capture) -> None:
        """Note it."""
        self.noted.append(("done", capture.id))

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Note it."""
        self.noted.append((code, capture.id, final))
        return True

    def take_dropped(self) -> int:
        """Return none."""
        return 0


def test_a_recording_is_done_with_its_last_window_and_refused_with_any(bundle: Path) -> None:
    """Its source knows of no windows; what is left of a refused one is not served."""
    manifest = read_bundle(bundle).manifest
    for refused in (False, True):
        files = Files(wav(recording(CLIP_S + 3 * HOP_S)))
        inputs = RecordedInputs(files, lambda: manifest, SystemClock(), lambda *_: None)
        found = [inputs.take() for _ in range(2)]
        assert inputs.waiting
        inputs.done(found[0])
        if refused:
            assert inputs.refuse(found[1], "runtime")
            assert (inputs.take(), inputs.waiting, files.noted) == (None, False, [("runtime", "a.wav@1", False)])
            continue
        found += [inputs.take() for _ in range(2)]
        for capture in found[1:]:
            assert not files.noted
            inputs.done(capture)
        assert (files.noted, inputs.take()) == ([("done", "a.wav@1")], None)


def _ended(one: Device, clock: FakeClock, silent_s: float) -> list[tuple[str, int]]:
    """Return the streams and ends of the events that ended once nothing was sent for so long."""
    one.loop.turn()
    clock.advance(silent_s)
    one.loop.turn()
    return [(event["stream"], event["end_ms"]) for event in one.events if event["state"] == "ended"]


def test_an_event_ends_when_its_sender_stops(bundle: Path, tmp_path: Path) -> None:
    """After a minute, with its last input, in a record of its own; another stream's input does not keep it open."""
    clock, state = FakeClock(), tmp_path / "state"
    state.mkdir()
    one = device(bundle, {"kind": "push"}, state, clock)
    tone, none = wav(recording(CLIP_S, (0, CLIP_S, "low"))), wav(recording(CLIP_S))
    for number in range(3):
        one.inputs.inner.offer(f"k{number}", tone, InStream(name="kitchen", at_ms=1000 + 100 * number))
    one.hear(3)
    assert _ended(one, clock, SILENCE_S) == []
    one.inputs.inner.offer("h", none, InStream(name="hall", at_ms=1000))
    one.hear(4)
    assert _ended(one, clock, 0.5) == [("kitchen", 1200)]
    assert (one.records[-1].label, "interrupted" in one.events[-1], len(one.records)) == ("", False, 5)
    assert OpenEvents(state).left == []
    assert len(_ended(one, clock, 1000)) == 1
    one.inputs.inner.offer("k9", tone, InStream(name="kitchen", at_ms=99_000))
    one.hear(6)
    assert [event["state"] for event in one.events] == ["began", "ended", "began"]


def test_a_sender_of_long_pieces_has_not_stopped_between_two(bundle: Path) -> None:
    """Two minutes come at once every two minutes: the event goes on in the next piece."""
    clock = FakeClock()
    one = device(bundle, {"kind": "push"}, None, clock)
    tone = wav(recording(CLIP_S, (0, CLIP_S, "low")))
    for number in range(101):
        one.inputs.inner.offer(f"k{number}", tone, InStream(name="kitchen", at_ms=1000 + 1200 * number))
        one.loop.turn()
    assert _ended(one, clock, 239) == []
    assert _ended(one, clock, 2) == [("kitchen", 121_000)]


@pytest.mark.parametrize(("gap_ms", "silent_s"), [(2000, SILENCE_S), (50_000, 100.0), (0, 0.0)])
def test_silence_is_at_least_twice_the_gap_of_the_release(gap_ms: int, silent_s: float) -> None:
    """A release whose streams have no gap leaves its events open for any time."""
    options = {"gap_ms": gap_ms, "window": 1}
    streams = Streams(lambda: smoothers.make("events", options, 2), lambda: smoothers.spotter("events", options, 0.5))
    streams.add("", np.array([0.0, 9.0], np.float32), 1000)
    assert not streams.end_silent(5.0)
    assert not streams.end_silent(5.0 + silent_s)
    assert streams.end_silent(5.1 + silent_s) is bool(silent_s)
    assert not streams.end_silent(1e9)


def test_the_stream_that_was_silent_longest_ends(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit; its event names it."""
    monkeypatch.setattr(stream_states, "MOST", 2)
    model = load_model(bundle)
    assert isinstance(model.streams, Streams)
    tone = model.infer(wav(recording(CLIP_S, (0, CLIP_S, "low"))))
    for name in ("a", "b", "a", "c"):
        model.in_stream(tone, InStream(name=name), 0)
    assert [(event["stream"], event["state"]) for event in model.take_events()] == [
        ("a", "began"), ("b", "began"), ("b", "ended"), ("c", "began")
    ]  # fmt: skip
    assert [event["stream"] for event in model.open_events()] == ["a", "c"]
