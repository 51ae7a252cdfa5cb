"""Which inputs go out when the server asks."""

import collections

import pytest

from edge_agent.errors import SampleRequestError
from edge_agent.inference.reservoir import Reservoir, SampleRequest, media_type
from edge_agent.pipe_frames import MAX_SAMPLE_BYTES


def _offer(reservoir: Reservoir, count: int, *, size: int = 100, margin: float = 0.5, start: int = 0) -> None:
    for index in range(start, start + count):
        data = index.to_bytes(4, "big").ljust(size, b".")
        reservoir.offer(data, at_ms=index, predicted=index % 3, confidence=0.5, margin=margin)


def _numbers(reservoir: Reservoir) -> list[int]:
    return [int.from_bytes(chosen.candidate.data[:4], "big") for chosen in reservoir.close_window()]


def test_takes_everything_when_there_is_less_than_was_granted() -> None:
    """Five of a granted ten: all, in order of time, each with probability 1; the rest stays granted."""
    reservoir = Reservoir(SampleRequest(request="r", count=10, budget_bytes=10_000), "0")
    _offer(reservoir, 5)
    chosen = list(reservoir.close_window())
    assert [c.candidate.at_ms for c in chosen] == list(range(5))
    assert {c.inclusion_ratio for c in chosen} == {1.0}
    assert not reservoir.exhausted
    _offer(reservoir, 20, start=100)
    assert len(_numbers(reservoir)) == 5
    assert reservoir.exhausted


def test_never_sends_more_bytes_than_granted() -> None:
    """Over many windows and sizes the sum stays within the budget."""
    for size in (1, 90, 101, 333, 1000, 1001):
        reservoir = Reservoir(SampleRequest(request="r", count=50, budget_bytes=1000), "0")
        sent = 0
        for window in range(5):
            _offer(reservoir, 40, size=max(4, size), start=window * 100)
            sent += sum(len(chosen.candidate.data) for chosen in reservoir.close_window())
        assert sent <= 1000


def test_inputs_too_large_to_be_sent_are_counted_and_take_no_place() -> None:
    """A camera whose pictures are above what a sample may have uses up neither count nor bytes, and it shows."""
    reservoir = Reservoir(SampleRequest(request="r", count=3, budget_bytes=1 << 20), "0")
    _offer(reservoir, 4, size=MAX_SAMPLE_BYTES + 1)
    _offer(reservoir, 1, size=MAX_SAMPLE_BYTES, start=9)
    assert (reservoir.too_large, _numbers(reservoir), reservoir.too_large) == (4, [9], 0)


def test_the_audit_lane_is_uniform() -> None:
    """Over 3,000 windows each of 20 inputs is chosen about 5 times in 20; the ratio matches."""
    hits: collections.Counter[int] = collections.Counter()
    for seed in range(3000):
        reservoir = Reservoir(SampleRequest(request="r", count=5, budget_bytes=1 << 20), str(seed))
        _offer(reservoir, 20)
        chosen = list(reservoir.close_window())
        assert {c.inclusion_ratio for c in chosen} == {0.25}
        hits.update(c.candidate.at_ms for c in chosen)
    assert all(abs(hits[index] - 750) < 120 for index in range(20))  # 5 standard deviations


def test_a_ratio_takes_every_input_alike_on_busy_and_on_quiet_devices() -> None:
    """Of 2,000 and of 200 inputs about a twentieth each, recorded with that probability."""
    counts = []
    for offered in (2000, 200):
        request = SampleRequest(request="audit", count=1000, budget_bytes=1 << 20, ratio=0.05)
        reservoir = Reservoir(request, str(offered))
        _offer(reservoir, offered)
        chosen = list(reservoir.close_window())
        assert {c.inclusion_ratio for c in chosen} == {0.05}
        counts.append(len(chosen))
    assert abs(counts[0] - 100) < 50
    assert 1 <= counts[1] <= 26


def test_a_ratio_that_meets_its_limit_records_the_smaller_probability() -> None:
    """Two of about twenty that were drawn: a twentieth times the share that was kept."""
    reservoir = Reservoir(SampleRequest(request="audit", count=2, budget_bytes=1 << 20, ratio=0.1), "0")
    _offer(reservoir, 200)
    chosen = list(reservoir.close_window())
    assert len(chosen) == 2
    assert 0.1 * 2 / 40 < chosen[0].inclusion_ratio < 0.1 * 2 / 8


def test_the_drift_lane_prefers_what_the_model_was_unsure_of() -> None:
    """Ten unsure among a hundred sure ones make up most of ten samples; their probability is not claimed."""
    reservoir = Reservoir(SampleRequest(request="r", count=10, budget_bytes=1 << 20, lane="drift"), "0")
    _offer(reservoir, 100, margin=1.0)
    _offer(reservoir, 10, margin=0.0, start=1000)
    chosen = list(reservoir.close_window())
    assert sum(c.candidate.at_ms >= 1000 for c in chosen) >= 5
    assert {c.inclusion_ratio for c in chosen} == {0.0}


def test_the_same_bytes_are_looked_at_once() -> None:
    """A repeated input is not a second sample, in this window or later."""
    reservoir = Reservoir(SampleRequest(request="r", count=10, budget_bytes=10_000), "0")
    for _ in range(3):
        _offer(reservoir, 2)
    assert len(_numbers(reservoir)) == 2
    _offer(reservoir, 2)
    assert _numbers(reservoir) == []


@pytest.mark.parametrize(
    "request_",
    [
        SampleRequest(request="r", count=0, budget_bytes=1),
        SampleRequest(request="r", count=1, budget_bytes=0),
        SampleRequest(request="r", count=1, budget_bytes=1, lane="x"),
        SampleRequest(request="r", count=10**6, budget_bytes=1),
        SampleRequest(request="r", count=1, budget_bytes=1, ratio=1.1),
        SampleRequest(request="r", count=1, budget_bytes=1, ratio=float("nan")),
        SampleRequest(request="r", count=1, budget_bytes=1, lane="drift", ratio=0.1),
    ],
)
def test_refuses_requests_that_can_not_be_served(request_: SampleRequest) -> None:
    """No count, no budget, an unknown lane or an absurd number has a coded error."""
    with pytest.raises(SampleRequestError, match="Expected") as raised:
        Reservoir(request_, "0")
    assert raised.value.code == "sample_request_invalid"


def test_media_types_are_told_by_the_first_bytes() -> None:
    """PNG, JPEG and other bytes."""
    assert [media_type(data) for data in (b"\x89PNG\r\n", b"\xff\xd8\xff", b"??")] == [
        "image/png",
        "image/jpeg",
        "application/octet-stream",
    ]


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\0\0\0\0AVI ", "application/octet-stream"),
        (b"\x89PNG\r\n", "image/png"),
    ],
)
def test_what_is_uploaded_is_named_by_its_own_first_bytes(start: bytes, kind: str) -> None:
    """A sound is not called an image because both come in RIFF."""
    assert media_type(start) == kind
