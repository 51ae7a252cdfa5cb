"""The frame codec of the pipes."""

import io
import random
import struct

import pytest

from edge_agent.errors import FrameError
from edge_agent.pipe_frames import MAX_PAYLOAD_BYTES, Frame, FrameDecoder, encode_frame, read_frame

FRAMES = [
    ({"type": "beat", "n": 3}, b""),
    ({"type": "sample", "text": "ü"}, bytes(range(256)) * 40),
    ({"type": "stop"}, b"x"),
]


def test_frames_come_back_as_they_were_written() -> None:
    """Reading returns the same headers and payloads, then None at the end."""
    pipe = io.BytesIO(b"".join(encode_frame(header, payload) for header, payload in FRAMES))
    assert [read_frame(pipe) for _ in FRAMES] == [Frame(header, payload) for header, payload in FRAMES]
    assert read_frame(pipe) is None


def test_the_decoder_takes_bytes_cut_anywhere() -> None:
    """However the bytes arrive, the same frames come out."""
    data = b"".join(encode_frame(header, payload) for header, payload in FRAMES)
    rng = random.Random(1)  # noqa: S311 - where to cut, not a secret
    for _ in range(20):
        decoder, found, rest = FrameDecoder(), [], data
        while rest:
            size = rng.choice([1, 3, 7, 5000])
            found += decoder.feed(rest[:size])
            rest = rest[size:]
        assert found == [Frame(header, payload) for header, payload in FRAMES]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", 0, 0), struct.pack(">II", 1 << 20, 0), struct.pack(">II", 2, MAX_PAYLOAD_BYTES + 1),
        struct.pack(">II", 4, 0) + b"nope", struct.pack(">II", 2, 0) + b"{}", struct.pack(">II", 10, 0) + b'{"type":1}',
    ],
)  # fmt: skip
def test_refuses_what_is_no_frame(data: bytes) -> None:
    """Lengths over the limit are refused before anything is read; headers need a type."""
    for read in (lambda: read_frame(io.BytesIO(data)), lambda: FrameDecoder().feed(data)):
        with pytest.raises(FrameError, match="Expected"):
            read()


@pytest.mark.parametrize("cut", [1, 7, 9, 30])
def test_a_pipe_that_ends_inside_a_frame_is_said(cut: int) -> None:
    """Half a frame is an error, not an end."""
    data = encode_frame({"type": "sample", "request": "r"}, b"12345")
    with pytest.raises(FrameError, match="the other side ended"):
        read_frame(io.BytesIO(data[:cut]))


def test_refuses_to_write_what_the_other_side_would_refuse() -> None:
    """No type, NaN, or too much payload is the writer's error."""
    for header, payload in (
        ({"n": 1}, b""),
        ({"type": "x", "n": float("nan")}, b""),
        ({"type": "x"}, bytes(MAX_PAYLOAD_BYTES + 1)),
    ):
        with pytest.raises(FrameError):
            encode_frame(header, payload)
