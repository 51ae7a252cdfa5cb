"""Chunks over MQTT: the binary answer, and what is refused."""

import pytest

from wire.blob_chunks import CHUNK_BYTES, MAX_HEADER_BYTES, ByteRange, Chunk, ChunkRequest, read_chunk, write_chunk
from wire.codec import decode, encode
from wire.errors import MessageError

CHUNK = Chunk(sha256="a" * 64, start=CHUNK_BYTES)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES])
def test_a_chunk_comes_back_as_it_was_sent(size: int) -> None:
    """Header and data; the checksum is that of the data."""
    chunk, data = read_chunk(write_chunk(CHUNK, b"x" * size))
    assert (chunk.sha256, chunk.start, data) == (CHUNK.sha256, CHUNK_BYTES, b"x" * size)


def test_the_bytes_of_an_answer() -> None:
    """Magic, length of the header, header, data."""
    header = b'{"crc32":2363233923,"sha256":"ab","start":7}'
    assert write_chunk(Chunk(sha256="ab", start=7), b"x") == b"TFC1" + bytes([0, len(header)]) + header + b"x"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"TFC2" + write_chunk(CHUNK, b"x")[4:],
        write_chunk(CHUNK, b"x")[:-1],
        write_chunk(CHUNK, b"x") + b"y",
        write_chunk(CHUNK, b"x")[:-1] + b"y",
        write_chunk(CHUNK, bytes(CHUNK_BYTES + 1)),
        b"TFC1\xff\xff" + bytes(70_000),
        write_chunk(Chunk(text="t" * MAX_HEADER_BYTES)),
    ],
)  # fmt: skip
def test_refuses_damaged_and_oversize_answers(payload: bytes) -> None:
    """Other magic, cut off, changed, too long."""
    with pytest.raises(MessageError):
        read_chunk(payload)


def test_a_request_has_defaults_and_keeps_what_it_does_not_know() -> None:
    """Devices and servers age apart."""
    assert decode(ChunkRequest, b"{}") == ChunkRequest()
    request = ChunkRequest(sha256="a" * 64, ranges=(ByteRange(start=1, length=2),), credit=1)
    assert decode(ChunkRequest, encode(request)) == request
    assert decode(ChunkRequest, b'{"newer":1}').extra == {"newer": 1}
