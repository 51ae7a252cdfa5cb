"""The camera: real ffmpeg, real streams on loopback; a camera that fails costs a reconnection and nothing else."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent import sources
from edge_agent.device.clock import SystemClock
from edge_agent.errors import SourceError
from edge_agent.sources._stream import StreamSource
from edge_agent.sources.camera import Settings
from tests.edge_agent.conftest import free_port
from tests.edge_agent.sinks.receiver import until
from tests.edge_agent.sources.camera_server import CameraServer
from tests.edge_agent.sources.prepared import Told, ffmpeg, jpeg, next_input, video
from wire.errors import SettingsError

FAST: dict[str, object] = {"retry_s": 0.01}


@pytest.fixture
def camera(stream: Callable[..., StreamSource]) -> Callable[..., StreamSource]:
    """Open a camera; what it reports is in ``told``."""

    def start(path: str, told: Told | None = None, **settings: object) -> StreamSource:
        return stream("camera", told=told, path=path, **settings)

    return start


def _own_processes() -> list[str]:
    found: list[str] = []
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            found += path.read_text().split()
    return found


def test_every_frame_of_a_video_file_comes_once_and_in_order(camera: Callable, tmp_path: Path) -> None:
    """However slow the model is; then the source has ended, and ffmpeg with it."""
    source = camera(str(video(tmp_path / "video.mp4", 6)))
    names = [next_input(source).name for _ in range(6)]
    until(lambda: source.ended)
    assert [name.rsplit(" ", 1)[1] for name in names] == ["1", "2", "3", "4", "5", "6"]
    assert source.take_dropped() == 0


def test_a_stream_of_ffmpeg_is_read_and_only_the_newest_frame_waits(camera: Callable) -> None:
    """MJPEG over HTTP at 50 frames a second; those that nobody took are counted."""
    ffmpeg("-version")
    address = f"http://127.0.0.1:{free_port()}/"
    options = "-nostdin -loglevel quiet -re -f lavfi -i testsrc=size=64x48:rate=50 -c:v mjpeg -f mpjpeg -listen 1"
    server = subprocess.Popen(["ffmpeg", *options.split(), address])
    try:
        source = camera(address, **FAST)
        first, dropped = next_input(source), [0]
        until(lambda: dropped.append(source.take_dropped()) or sum(dropped) >= 3)
        second = next_input(source)
    finally:
        server.kill()
        server.wait()
    assert Image.open(io.BytesIO(second.data)).size == (64, 48)
    assert int(second.name.rsplit(" ", 1)[1]) >= int(first.name.rsplit(" ", 1)[1]) + 4
    assert first.id == ""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_an_rtsp_stream_is_read(camera: Callable) -> None:
    """H.264 over RTP, from the server of Debian's package rtsp-server-perl, which speaks UDP only."""
    if shutil.which("rtsp-server-perl") is None:
        pytest.skip("rtsp-server-perl is not installed (apt-get install rtsp-server-perl)")
    ffmpeg("-version")
    served, pushed = free_port(), free_port()
    listen = ["--client_listen_address", "127.0.0.1", "--source_listen_address", "127.0.0.1", "--loglevel", "0"]
    options = "-nostdin -loglevel quiet -re -f lavfi -i testsrc=size=64x48:rate=10 -c:v libx264 -g 10 -f rtsp"
    push = ["ffmpeg", *options.split(), f"rtsp://127.0.0.1:{pushed}/cam"]
    server = subprocess.Popen(["rtsp-server-perl", "-c", str(served), "-s", str(pushed), *listen])
    pusher = None
    try:
        until(lambda: _listens(pushed))
        pusher = subprocess.Popen(push)
        source = camera(f"rtsp://127.0.0.1:{served}/cam", input_options="-rtsp_transport udp", retry_s=0.2)
        assert Image.open(io.BytesIO(next_input(source).data)).size == (64, 48)
    finally:
        for process in (server, pusher):
            if process is not None:
                process.kill()
                process.wait()


def test_a_camera_that_stalls_is_opened_again(camera: Callable) -> None:
    """It sends nothing on an open connection; ffmpeg alone would wait for ever."""
    before = set(_own_processes())  # other tests of this process may have left some, such as a resource tracker
    server = CameraServer(jpeg(), stalls=True)
    source = camera(server.address, stall_s=0.5, **FAST)
    next_input(source)
    until(lambda: server.connections >= 3, 30)
    assert next_input(source).data
    assert len(set(_own_processes()) - before) <= 1
    server.close()


def test_a_camera_that_is_away_is_reported_once_without_its_password(camera: Callable, tmp_path: Path) -> None:
    """Nobody listens; it is tried again, silently."""
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "password").chmod(0o600)
    port, told = free_port(), []
    address = f"http://127.0.0.1:{port}/video"
    source = camera(address, told, username="me", password_file=str(tmp_path / "password"), **FAST)
    until(lambda: told, 30)
    time_s = time.monotonic()
    until(lambda: time.monotonic() > time_s + 1.0)
    assert [code for code, _ in told] == ["source_missing"]
    assert "Connection refused" in told[0][1]
    assert "s3cret" not in told[0][1]
    assert source.take() is None


def test_the_region_of_a_frame_is_cut_out_before_anything_else(camera: Callable, tmp_path: Path) -> None:
    """The right lower quarter of a picture whose quarters differ, resized, without loss."""
    quarters = np.zeros((48, 64, 3), np.uint8)
    quarters[24:, 32:] = (200, 100, 50)
    Image.fromarray(quarters).save(tmp_path / "still.png")
    source = camera(str(tmp_path / "still.png"), region=[0.5, 0.5, 0.5, 0.5], resize=[16, 12], picture="png")
    found = np.asarray(Image.open(io.BytesIO(next_input(source).data)).convert("RGB"))
    assert found.shape == (12, 16, 3)
    assert np.abs(found.astype(int) - (200, 100, 50)).max() <= 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"region": (0.5, 0, 0.6, 1)}, "within 0 to 1"),
        ({"region": (0, 0, 0, 1)}, "within 0 to 1"),
        ({"region": (0, 0, 1)}, "within 0 to 1"),
        ({"resize": (0, 8)}, "of 1 to 8192 pixels"),
        ({"picture": "copy", "rate_hz": 1.0}, "without region"),
        ({"path": "video.mp4"}, "a whole path"),
        ({"input_options": "-f 'v4l2"}, "as on a command line"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict, words: str) -> None:
    """Before anything is started; the bound itself is valid."""
    with pytest.raises(SettingsError, match=words):
        Settings(**settings)
    Settings(region=(0.7, 0, 0.3, 1), resize=(1, 8192), picture="png")


def test_a_missing_video_file_is_named(tmp_path: Path) -> None:
    """It isn't waited for, as a camera is."""
    ffmpeg("-version")
    with pytest.raises(SourceError, match=r"Expected a video file at .*none.mp4, got none"):
        sources.load({"kind": "camera", "path": str(tmp_path / "none.mp4")}, SystemClock())
