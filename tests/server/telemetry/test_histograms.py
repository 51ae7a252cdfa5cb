"""Windows of devices beside their references."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from server.errors import UnknownBlobError
from server.ingest.packed_counts import pack
from server.registry.versions import Release
from server.store.database import Database, open_database
from server.store.monitoring.checkpoints import add_baselines
from server.store.monitoring.windows import insert_windows
from server.telemetry.histograms import ReferenceKind, WindowHistograms
from wire.histogram import BINS
from wire.reference import Context, Reference, StreamSpec
from wire.tuf_target import TargetCustom

HOUR_MS = 3_600_000
REF, OTHER = "a" * 32, "b" * 32
FLAT, LOW, HIGH = [4] * BINS, [32, 32, *[0] * 14], [*[0] * 14, 32, 32]
HOSTILE = "<script>alert(1)</script>"


@dataclass
class Shelf:
    """A registry of one release; ``gone``: its bundle is not here any more."""

    contexts: int = 1
    gone: bool = False

    def reference(self, ref_id: str) -> Reference | None:
        """Return two streams, one with a hostile name."""
        if self.gone:
            raise UnknownBlobError(ref_id)
        if ref_id != REF:
            return None
        streams = (StreamSpec(name="luma_mean"), StreamSpec(name=HOSTILE))
        contexts = tuple(Context(name=str(i), n=1600, counts=(100,) * 2 * BINS) for i in range(self.contexts))
        return Reference(streams=streams, contexts=contexts, edges=(tuple(range(15)),) * 2)

    def releases(self) -> tuple[Release, ...]:
        """Return the release."""
        custom = TargetCustom(ref_id=REF * 2)
        return (
            Release(name="model-1", model="model", version=1, target="pi", path="p", sha256="0" * 64, length_bytes=1,
                    certificate={}, custom=custom, registered_ms=0),
        )  # fmt: skip


@pytest.fixture
def database(store_url: str) -> Database:
    """Return an empty store of each kind."""
    return open_database(store_url)


def window(database: Database, hour: int, *streams: Sequence[int], ref_id: str = REF, context: int = 0) -> None:
    """Store a window of device d."""
    values = [count for stream in streams for count in stream] + [0] * len(streams) + [64]
    row = {"device": "d", "site": "s", "start_ms": hour * HOUR_MS, "len_ms": HOUR_MS, "context": context,
           "artifact": "c" * 32, "ref_id": ref_id, "streams": len(streams), "classes": 1, "confidence_bins": 1, "n": 64,
           "reports": 1, "received_ms": 0, "values": pack(np.array(values, np.uint32).tobytes())}  # fmt: skip
    with database.begin() as connection:
        insert_windows(connection, [row])


def baseline(database: Database, counts: Sequence[int], *, since_ms: int = 0, provisional: bool = False) -> None:
    """Store a baseline of both streams of device d."""
    packed = np.array([counts, counts], "<i8").tobytes()
    row = {"ref_id": REF, "artifact": "c" * 32, "device": "d", "context": 0, "since_ms": since_ms, "completed_ms": 0,
           "windows": 20, "counts": packed, "squares": b"", "movement": None, "provisional": provisional}  # fmt: skip
    with database.begin() as connection:
        add_baselines(connection, [row])


def test_a_device_without_windows_has_nothing_to_show(database: Database) -> None:
    """There is no reference without a window, and nothing beside it."""
    found = WindowHistograms(database=database, registry=Shelf()).compare("d")
    assert (found.start_ms, found.streams, found.later_ms) == (None, (), None)


def test_one_window_is_compared_with_training_until_there_is_a_baseline(database: Database) -> None:
    """It says what moved, which way, and that nothing else did."""
    window(database, 5, LOW, FLAT)
    found = WindowHistograms(database=database, registry=Shelf()).compare("d")
    assert (found.against, found.choices, found.release) == (
        ReferenceKind.TRAINING,
        (ReferenceKind.TRAINING,),
        "model-1",
    )
    first, second = found.streams
    assert (first.name, first.words, first.differs, second.differs) == ("luma_mean", "darker", True, False)
    assert first.shift_sd is not None
    assert first.shift_sd < -1
    assert second.shift_sd == 0.0
    assert (first.n, first.reference_n, sum(first.window), second.words) == (64, 1600, 1.0, "")


def test_a_device_is_compared_with_its_own_usual_first(database: Database) -> None:
    """A dark place that always was dark does not differ from itself, but from training."""
    window(database, 5, LOW, FLAT)
    baseline(database, [count * 20 + 1 for count in LOW])
    histograms = WindowHistograms(database=database, registry=Shelf())
    own, training = histograms.compare("d"), histograms.compare("d", against=ReferenceKind.TRAINING)
    assert (own.against, training.against) == (ReferenceKind.OWN, ReferenceKind.TRAINING)
    assert {one.name: one.differs for one in own.streams}["luma_mean"] is False
    assert {one.name: one.differs for one in training.streams}["luma_mean"] is True
    assert "its own usual, of 20 windows (complete)" in own.reference_words


def test_a_window_is_compared_with_the_baseline_of_its_time(database: Database) -> None:
    """Another baseline, since a commission in hour 8, is that of the windows from then on."""
    for hour in (5, 9):
        window(database, hour, LOW, LOW)
    baseline(database, LOW)
    baseline(database, HIGH, since_ms=8 * HOUR_MS, provisional=True)
    histograms = WindowHistograms(database=database, registry=Shelf())
    before, after = histograms.compare("d", 5 * HOUR_MS), histograms.compare("d", 9 * HOUR_MS)
    assert [one.differs for one in (*before.streams, *after.streams)] == [False, False, True, True]
    assert "provisional" in after.reference_words


def test_windows_beside_it_lead_on(database: Database) -> None:
    """The first has none before it, the last none after it; a time without a window leads to the one before."""
    for hour in (3, 5, 9):
        window(database, hour, FLAT, FLAT)
    compare = WindowHistograms(database=database, registry=Shelf()).compare
    beside = [(one.start_ms, one.earlier_ms, one.later_ms) for one in (compare("d", h * HOUR_MS) for h in (3, 6, 9))]
    assert beside == [
        (3 * HOUR_MS, None, 5 * HOUR_MS), (5 * HOUR_MS, 3 * HOUR_MS, 9 * HOUR_MS), (9 * HOUR_MS, 5 * HOUR_MS, None),
    ]  # fmt: skip
    assert (compare("d", HOUR_MS).start_ms, compare("d", HOUR_MS).later_ms) == (None, 3 * HOUR_MS)


def test_counts_of_two_references_are_never_added_up(database: Database) -> None:
    """A window in which the release changed shows the newer one, and says so; contexts of one are added up."""
    window(database, 5, LOW, FLAT, ref_id=OTHER)
    window(database, 5, FLAT, FLAT)
    window(database, 5, FLAT, FLAT, context=1)
    found = WindowHistograms(database=database, registry=Shelf(contexts=2)).compare("d")
    assert (found.n, found.release) == (128, "model-1")
    assert "Another release sent counts in this window too" in found.note
    assert not any(one.differs for one in found.streams)
    assert "2 contexts together" in found.reference_words


@pytest.mark.parametrize("gone", [False, True])
def test_a_reference_that_is_not_here_is_said(database: Database, *, gone: bool) -> None:
    """Counts are shown, under numbers, and there is nothing to compare them with."""
    window(database, 5, LOW, FLAT, ref_id=REF if gone else OTHER)
    found = WindowHistograms(database=database, registry=Shelf(gone=gone)).compare("d")
    assert (found.against, [one.name for one in found.streams]) == (None, ["stream 0", "stream 1"])
    assert (found.streams[0].differs, found.streams[0].reference, found.streams[0].shift_sd) == (False, (), None)
    assert "nothing to compare with yet" in found.note


def test_a_stream_without_a_valid_value_does_not_differ(database: Database) -> None:
    """Nothing was counted, which is not the same as no difference in words."""
    window(database, 5, [0] * BINS, FLAT)
    found = WindowHistograms(database=database, registry=Shelf()).compare("d")
    empty = next(one for one in found.streams if one.name == "luma_mean")
    assert (empty.n, empty.differs, empty.window, empty.shift_sd) == (0, False, (), None)


def test_a_wish_that_cannot_be_met_is_said(database: Database) -> None:
    """A device without a baseline is shown beside training, in words."""
    window(database, 5, FLAT, FLAT)
    found = WindowHistograms(database=database, registry=Shelf()).compare("d", against=ReferenceKind.OWN)
    assert found.against is ReferenceKind.TRAINING
    assert "no baseline under this release yet" in found.note
