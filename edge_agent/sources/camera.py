"""Frames of a camera or video: V4L2 device, RTSP, MJPEG over HTTP, or a file, read by Debian's ``ffmpeg``.

The program decodes, crops, resizes and writes each frame as a picture to a pipe; its crash, hang or end costs one
reconnection (``_stream``), never this process. Only the newest frames are kept. Of a video file every frame is
answered, in order and at the model's speed, and its end is the end of the source.

``region`` and ``resize`` apply before anything else: the cropped picture is the input, also for drift and samples.

Source: ffmpeg(1); ffmpeg-formats(1), mpjpeg: each frame is a part with its length in a header.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.logs import masked
from edge_agent.on_site import read_password
from edge_agent.sources import Surroundings
from edge_agent.sources._process import check_program, output_of
from edge_agent.sources._region import check_region
from edge_agent.sources._stream import Pace, StreamSource
from wire.errors import SettingsError
from wire.settings import Bound, OneOf

MAX_FRAME_BYTES = 32 * 1024 * 1024
_LENGTH = re.compile(rb"content-length: *(\d{1,12})\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
_MAX_HEAD_BYTES = 4096
_ENCODERS = {"jpeg": ("-c:v", "mjpeg", "-q:v", "2"), "png": ("-c:v", "png"), "copy": ("-c:v", "copy")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of ``kind = "camera"``: a V4L2 device, RTSP, MJPEG over HTTP or a video file; needs ffmpeg."""

    path: str = "/dev/video0"  # a device, an address as rtsp://camera/stream, or a video file
    username: str = ""  # for an address with a password
    password_file: Path | None = None  # its first line is the password, which users of this machine can see in `ps`
    input_options: str = ""  # of ffmpeg, for the input, such as "-input_format mjpeg -video_size 640x480"
    rate_hz: Annotated[float, Bound(0, 1000)] = 0.0  # frames a second, taken evenly; 0: all
    region: tuple[float, ...] = ()  # x, y, width, height, as shares of the picture: [0.25, 0, 0.5, 1]
    resize: tuple[int, ...] = ()  # width and height in pixels, after the region
    picture: Annotated[str, OneOf(("jpeg", "png", "copy"))] = (
        "jpeg"  # jpeg: good quality; png: no loss, more work; copy: the camera's own JPEG, unchanged
    )
    backlog: Annotated[int, Bound(1, 1000)] = 1  # newest frames that wait for the model
    stall_s: Annotated[float, Bound(0.1, 3600)] = 10.0  # without a frame for this long the camera is opened again
    retry_s: Annotated[float, Bound(0.01, 3600)] = 1.0  # pause before it is opened again; doubled up to 30 s

    def __post_init__(self) -> None:
        """Reject what contradicts itself."""
        check_region(self.region, self.resize)
        if self.picture == "copy" and (self.region or self.resize or self.rate_hz):
            message = 'Expected picture = "copy" without region, resize and rate_hz, got one: use jpeg or png'
            raise SettingsError(message)
        if not self.path.startswith("/") and "://" not in self.path:
            message = f"Expected path as a whole path (/dev/video0) or an address (rtsp://camera/), got {self.path!r}"
            raise SettingsError(message)
        try:
            shlex.split(self.input_options)
        except ValueError as error:
            message = f"Expected input_options as on a command line, got {self.input_options!r}: {error}"
            raise SettingsError(message) from error


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> StreamSource:
    """Return the source; a camera that is away is waited for.

    Raises:
        SourceError: If ffmpeg is missing, the password can't be read, or a video file is missing.
    """
    check_program("ffmpeg", "ffmpeg")
    is_file = _is_file(settings.path)
    if is_file and not Path(settings.path).is_file():
        message = f"Expected a video file at {settings.path}, got none: correct path in [source]"
        raise SourceError(message)
    pace = Pace(backlog=settings.backlog, retry_s=settings.retry_s, waits=is_file)
    frames = partial(_frames, _command(settings), settings.stall_s)
    return StreamSource(masked(settings.path), frames, pace, clock, surroundings)


def _is_file(path: str) -> bool:
    return "://" not in path and not path.startswith("/dev/")


def _command(settings: Settings) -> list[str]:
    """Return the call of ffmpeg: one thread, no sound, each frame as a part with its length."""
    given = shlex.split(settings.input_options)
    if settings.path.startswith("/dev/"):
        given = ["-f", "v4l2", *given]
    elif settings.path.startswith("rtsp"):
        # lost packets of UDP are grey frames; a second tells the format, ffmpeg would take five
        given = ["-rtsp_transport", "tcp", "-analyzeduration", "1000000", *given]
    if not _is_file(settings.path):
        given = ["-fflags", "nobuffer", *given]  # of a file it would leave out the first frame
    filters = []
    if settings.rate_hz:
        filters.append(f"fps={settings.rate_hz}")
    if settings.region:
        x, y, width, height = settings.region
        filters.append(f"crop=w=iw*{width}:h=ih*{height}:x=iw*{x}:y=ih*{y}:exact=1")
    if settings.resize:
        filters.append(f"scale={settings.resize[0]}:{settings.resize[1]}")
    return [
        "ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1", "-filter_threads", "1",
        *given, "-i", _address(settings), "-an", "-sn",
        *(["-vf", ",".join(filters)] if filters else []), *_ENCODERS[settings.picture], "-threads", "1",
        "-fps_mode", "passthrough", "-flush_packets", "1", "-f", "mpjpeg", "pipe:1",
    ]  # fmt: skip


def _address(settings: Settings) -> str:
    if not settings.username and settings.password_file is None:
        return settings.path
    password = read_password(settings.password_file, SourceError) or ""
    scheme, _, rest = settings.path.partition("://")
    return f"{scheme}://{quote(settings.username, '')}:{quote(password, '')}@{rest}"


def _frames(command: list[str], stall_s: float, stop: threading.Event) -> Iterator[bytes]:
    """Yield the pictures of one run of ffmpeg."""
    held = bytearray()
    for chunk in output_of(command, stop, stall_s):
        held += chunk
        while (end := held.find(_END, 0, _MAX_HEAD_BYTES)) >= 0:
            found = _LENGTH.search(held, 0, end + len(_END))
            length = int(found[1]) if found else -1
            if not 0 <= length <= MAX_FRAME_BYTES:
                message = f"Expected frames of at most {MAX_FRAME_BYTES} bytes, got {bytes(held[:80])!r}"
                raise SourceError(message)
            start = end + len(_END)
            if len(held) < start + length:
                break
            yield bytes(held[start : start + length])
            del held[: start + length]
