"""One window of counters in under 800 bytes; nothing else is accepted as one."""

import random
import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import leb128
from wire.drift_report import MAX_REPORT_BYTES, DriftReport, decode_report, encode_report
from wire.errors import MessageError, WireError
from wire.histogram import BINS, Counters, Shape

SHAPE = Shape(streams=23, classes=10)
HEAD_BYTES = 45


def window(n: int, *, seed: int = 0, skew: float = 0.4) -> Counters:
    """Return counters of ``n`` inferences whose bins are off the reference by up to ``skew``."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    values: list[int] = []
    for _ in range(SHAPE.streams):
        drawn = rng.choices(range(BINS), [1 + rng.uniform(-skew, skew) for _ in range(BINS)], k=n)
        values += [drawn.count(i) for i in range(BINS)]
    table = [0] * 100
    for _ in range(n):
        table[rng.randrange(10) * 10 + min(9, int(10 * (1 - 0.6 * rng.random() ** 4)))] += 1
    return Counters(SHAPE, n, (*values, *(0,) * SHAPE.streams, *table))


def report(counters: Counters) -> DriftReport:
    """Return a report with every other field set."""
    rng = random.Random(1)  # noqa: S311 - a simulation
    return DriftReport(
        boot=rng.randbytes(8).hex(),
        seq=70_000,
        oldest_seq=69_990,
        window_start_ms=1_795_000_000_000,
        window_len_ms=3_600_000,
        context=1,
        artifact=rng.randbytes(16).hex(),
        ref_id=rng.randbytes(16).hex(),
        counters=counters,
        late=True,
    )


SMALL = report(window(60))


@pytest.mark.parametrize("n", [0, 1, 60, 600, 3_600, 20_000, 86_400])
@pytest.mark.parametrize("skew", [0.0, 0.4, 0.9])
def test_an_hour_and_a_day_fit_in_800_bytes(n: int, skew: float) -> None:
    """23 streams and 10 classes stay within the budget, also when the bins are far from equal."""
    original = report(window(n, skew=skew))
    data = encode_report(original)
    assert decode_report(data) == original
    assert len(data) <= 800


@given(st.data())
def test_reports_of_any_shape_and_counts_are_exact(data: st.DataObject) -> None:
    """Also counters whose streams don't add up to n come back as they were."""
    shape = Shape(data.draw(st.integers(1, 3)), data.draw(st.integers(0, 3)), data.draw(st.integers(0, 4)))
    count = st.integers(0, 2**40)
    values = data.draw(st.lists(count, min_size=shape.total, max_size=shape.total))
    original = report(Counters(shape, data.draw(count), tuple(values)))
    assert decode_report(encode_report(original)) == original


def test_every_truncation_is_refused() -> None:
    """No prefix of a report is a report."""
    data = encode_report(SMALL)
    for length in range(len(data)):
        with pytest.raises(MessageError):
            decode_report(data[:length])


def test_appended_bytes_are_refused() -> None:
    """Nothing hides behind a report."""
    with pytest.raises(MessageError):
        decode_report(encode_report(SMALL) + b"\0")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_a_coded_error(data: bytes) -> None:
    """Garbage behind the magic never raises anything else."""
    try:
        decode_report(b"TFD1" + data)
    except WireError as error:
        assert error.code == "message_invalid"  # noqa: PT017 - either outcome is right


def test_flipped_bits_give_a_report_or_a_coded_error() -> None:
    """Corruption raises no other error; undetected changes are prevented by TLS and the broker."""
    data = encode_report(SMALL)
    for position in range(len(data)):
        corrupt = data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]
        try:
            decode_report(corrupt)
        except WireError as error:
            assert error.code in {"message_invalid", "histogram_mismatch"}  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("flags", [1, 4])
def test_a_bomb_in_the_body_is_refused(flags: int) -> None:
    """The body is decompressed only up to the size that the shape allows."""
    bomb = zlib.compress(bytes(5_000_000), 9)
    head = struct.pack("<4sB40s", b"TFD1", flags, bytes(40)) + leb128.encode([1, 1, 0, 0, 0, 0, 23, 10, 10])
    body = bomb if flags == 1 else leb128.encode([len(bomb) - 6]) + bomb[2:-4]
    with pytest.raises(MessageError):
        decode_report(head + body[: MAX_REPORT_BYTES - len(head)])


@pytest.mark.parametrize("shape", [(257, 10, 10), (23, 1025, 10), (23, 10, 65), (2**60, 2**60, 2**60)])
def test_an_oversize_shape_is_refused_before_anything_is_made_of_it(shape: tuple[int, int, int]) -> None:
    """The shape costs no memory before it is checked."""
    head = struct.pack("<4sB40s", b"TFD1", 0, bytes(40)) + leb128.encode([1, 1, 0, 0, 0, 0, *shape])
    with pytest.raises(MessageError, match="at most"):
        decode_report(head + b"\0")


def test_an_oversize_report_is_refused() -> None:
    """The limit is checked before anything is parsed."""
    with pytest.raises(MessageError, match="at most"):
        decode_report(b"TFD1" + bytes(MAX_REPORT_BYTES))


def test_a_report_without_streams_is_refused() -> None:
    """There is nothing that could be compared with a reference."""
    with pytest.raises(MessageError, match=r"1 to 256 streams, .*got 0"):
        decode_report(encode_report(report(Counters(Shape(0, 1, 1), 60, (60,)))))


def test_an_unknown_coding_is_refused() -> None:
    """For a coding of a newer version the error suggests an update."""
    data = bytearray(encode_report(SMALL))
    data[4] = 0x40
    with pytest.raises(MessageError, match="update the server"):
        decode_report(bytes(data))


def test_packed_streams_may_not_count_more_than_n() -> None:
    """The bin left out can't be negative."""
    counters = Counters(Shape(1, 0), 60, (4,) * 15 + (0, 0))
    data = bytearray(encode_report(report(counters)))
    assert data[4] & 4
    position = HEAD_BYTES + len(leb128.encode([70_000, 69_990, 1_795_000_000_000, 3_600_000]))
    data[position] = 7
    with pytest.raises(MessageError, match="at most 7"):
        decode_report(bytes(data))


@pytest.mark.parametrize(
    "changes",
    [
        {"boot": "xyz"},
        {"boot": "00"},
        {"artifact": "ab" * 32},
        {"ref_id": "AB" * 16},
        {"ref_id": " " * 32},
        {"seq": -1},
    ],
)
def test_refuses_to_write_what_would_not_come_back(changes: dict[str, object]) -> None:
    """Digests of the wrong length are not cut silently."""
    with pytest.raises(MessageError):
        encode_report(replace(SMALL, **changes))
