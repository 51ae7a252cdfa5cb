"""Many reports at once are decoded, or refused, exactly as one by one."""

from __future__ import annotations

import random
from array import array
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from server.ingest.drift_batches import decode_many
from wire.drift_report import DriftReport, decode_report, encode_report, open_report
from wire.errors import MessageError, WireError
from wire.histogram import BINS, Counters, Shape

GOLDEN = sorted((Path(__file__).parents[1] / "wire/golden").glob("drift_report*.bin"))


def _report(seed: int) -> DriftReport:
    """Return a report whose shape, size and counts follow from ``seed``."""
    dice = random.Random(seed)  # noqa: S311 - made-up counts
    shape, n = Shape(dice.randint(0, 5), dice.randint(0, 3)), dice.choice([0, 1, 60, 4_000, 2**33, 2**50])
    bins, invalid = [], []
    for _ in range(shape.streams):
        cuts = sorted(dice.randint(0, n) for _ in range(BINS))
        bins += [high - low for low, high in zip([0, *cuts], cuts, strict=False)]
        invalid.append(n - cuts[-1])
    table = [dice.randint(0, n) for _ in range(shape.classes * shape.confidence_bins)]
    counters = Counters(shape, n, (*bins, *invalid, *table))
    return DriftReport(
        boot="ab" * 8,
        seq=seed,
        oldest_seq=0,
        window_start_ms=10**12,
        window_len_ms=3_600_000,
        context=0,
        artifact="cd" * 16,
        ref_id="ef" * 16,
        counters=counters,
        late=dice.random() < 0.5,
    )


def _read(payload: bytes) -> object:
    """Return the result of the wire decoder for ``payload``, as the server stores it."""
    try:
        values = decode_report(payload).counters.values
    except WireError as error:
        return str(error)
    return open_report(payload), None if max(values, default=0) >= 2**32 else array("I", values).tobytes()


def _at_once(payloads: list[bytes]) -> list[object]:
    return [str(one) if isinstance(one, WireError) else (one.head, one.words) for one in decode_many(payloads)]


def _one_by_one(payloads: list[bytes]) -> list[object]:
    return [_read(payload) for payload in payloads]


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_any_batch_is_decoded_as_one_by_one(seeds: list[int]) -> None:
    """Shapes, codings and sizes may be mixed."""
    payloads = [encode_report(_report(seed)) for seed in seeds]
    assert _at_once(payloads) == _one_by_one(payloads)


def test_a_table_is_unpacked_right_where_no_sum_checks_it() -> None:
    """All counts of the stream are in its last bin, which is not sent: only the table has long values."""
    shape = Shape(1, 20)
    table = tuple(range(2, 2 + shape.classes * shape.confidence_bins))
    counters = Counters(shape, 4000, ((0,) * (BINS - 1) + (4000,) + (0,) + table))
    payload = encode_report(replace(_report(1), counters=counters))
    assert _at_once([payload]) == _one_by_one([payload])


@given(st.integers(0, 500), st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read_as_one_by_one(seed: int, place: int, value: int) -> None:
    """An invalid report gives the error of the wire decoder, and the other reports are still read."""
    sound = encode_report(_report(seed + 1))
    data = bytearray(encode_report(_report(seed)))
    data[place % len(data)] = value
    payloads = [sound, bytes(data), sound]
    assert _at_once(payloads) == _one_by_one(payloads)


def test_golden_reports_are_read_as_ever() -> None:
    """The pinned reports of the wire, in one batch."""
    payloads = [path.read_bytes() for path in GOLDEN]
    assert len(payloads) == 3
    assert _at_once(payloads) == _one_by_one(payloads)


def test_an_n_that_is_too_small_for_its_bins_is_refused() -> None:
    """The last bin is the rest of n; a negative rest is an error, for that report only."""
    values = [4] * (BINS - 1) + [0, 0]
    good = encode_report(
        DriftReport(
            boot="ab" * 8,
            seq=1,
            oldest_seq=0,
            window_start_ms=1,
            window_len_ms=2,
            context=0,
            artifact="cd" * 16,
            ref_id="ef" * 16,
            counters=Counters(Shape(1, 0), 60, tuple(values)),
        )
    )
    head = bytes([1, 0, 1, 2])  # seq, oldest_seq, window_start_ms, window_len_ms; then n
    wrong = good.replace(head + bytes([60]), head + bytes([59]))
    first, second, third = decode_many([good, wrong, good])
    assert (type(second), first) == (MessageError, third)
    assert _at_once([good]) == _one_by_one([good])
