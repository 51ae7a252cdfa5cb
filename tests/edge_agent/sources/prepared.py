"""What a source of the folder needs to give inputs: made here, real, and small."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent import sources
from edge_agent.device.clock import FakeClock
from edge_agent.sources._stream import StreamSource
from tests.edge_agent.sinks.receiver import until

Told = list[tuple[str, str]]
"""What a source reported: codes and texts."""


def ffmpeg(*arguments: str) -> bytes:
    """Return what ffmpeg writes; skips where Debian's package is missing."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (apt-get install ffmpeg)")
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def video(path: Path, frames: int = 6) -> Path:
    """Write a video of ``frames`` frames, 64 x 48: a moving test picture."""
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10", "-frames:v", str(frames), "-c:v", "mpeg4", str(path))
    return path


def jpeg() -> bytes:
    """Return one real JPEG, 64 x 48."""
    return ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48", "-frames:v", "1", "-c:v", "mjpeg", "-f", "mjpeg", "pipe:1")


def _camera(folder: Path) -> dict[str, object]:
    return {"path": str(video(folder / "video.mp4"))}


def _lines(folder: Path) -> dict[str, object]:
    (folder / "log.csv").write_text("".join(f"{n}\n" for n in range(1, 13)))  # a followed file has no end to wait for
    return {"path": str(folder / "log.csv"), "whole": True, "steps": 2}


def _microphone(folder: Path) -> dict[str, object]:
    (folder / "sound.pcm").write_bytes(bytes(16_000))
    return {"path": str(folder / "sound.pcm"), "rate_hz": 8000, "clip_s": 0.1}


def publish(port: int, topic: str, *payloads: bytes) -> None:
    """Publish retained messages: they reach a source that subscribes later."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for payload in payloads:
        client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def _folder(folder: Path) -> dict[str, object]:
    for name in ("b.png", "a.png", "c.png"):
        (folder / name).write_bytes(name.encode())
    return {"path": str(folder)}


_OWN: dict[str, Callable[[Path], dict[str, object]]] = {
    "camera": _camera,
    "lines": _lines,
    "microphone": _microphone,
    "mqtt": lambda _: {"topic": "conformance/+"},
    "push": lambda _: {},
}


def prepared(kind: str, folder: Path) -> dict[str, object]:
    """Return the document of a source of ``kind``, which has at least three inputs; by default files of a folder."""
    folder.mkdir(exist_ok=True)
    return {"kind": kind, **_OWN.get(kind, _folder)(folder)}


def next_input(source: sources.Source) -> sources.Capture:
    """Return the next input, which comes within 30 s."""
    found: list[sources.Capture] = []
    until(lambda: found or ((capture := source.take()) and found.append(capture)), 30)
    return found[0]


def taken(source: sources.Source, clock: FakeClock, count: int, limit_s: float = 20.0) -> list[sources.Capture]:
    """Return the inputs that arrive within a minute of the clock, or of a stream in ``limit_s``; at most ``count``."""
    found: list[sources.Capture] = []
    end_s, turns = time.monotonic() + limit_s, 300
    while len(found) < count and turns and time.monotonic() < end_s:
        found += [capture] if (capture := source.take()) is not None else []
        clock.advance(0.2)
        if isinstance(source, StreamSource) and not source.ended:
            time.sleep(0.002)
        else:
            turns -= 1
    return found
