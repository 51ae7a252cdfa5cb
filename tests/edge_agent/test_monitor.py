"""Stream values and the counters of a window."""

import dataclasses
import math

import numpy as np
import pytest

from edge_agent import tasks
from edge_agent.errors import ReferenceStreamsError
from edge_agent.inference import drift_counters
from edge_agent.tasks._base import equal_runs
from edge_agent.tasks.classification import Classification
from edge_agent.tasks.regression import Regression
from wire.drift_report import DriftReport, decode_report, encode_report
from wire.reference import Context, Reference

D = 12
CLASSES = Classification(10)
NAMES = [spec.name for spec in drift_counters.stream_specs(CLASSES, has_embedding=True)]
RNG = np.random.default_rng(0)
ROWS = np.linalg.qr(RNG.normal(size=(D, 8)))[0].T
PROJECTION = drift_counters.Projection(
    task=CLASSES, mean=np.full(D, 0.5), rows=ROWS, scale=np.full(8, 2.0), residual_scale=4.0
)


def _reference(edges: np.ndarray, classes: int = 10, *, embedding: bool = True) -> Reference:
    specs = drift_counters.stream_specs(CLASSES, has_embedding=embedding)
    width = D if embedding else 0
    return Reference(
        artifact_sha256="a" * 64,
        streams=specs,
        contexts=(Context(counts=(0,) * 16 * len(specs)),),
        classes=classes,
        confidence_bins=10,
        table_right=(0,) * classes * 10,
        table_seen=(0,) * classes * 10,
        edges=tuple(tuple(float(x) for x in row) for row in edges),
        projection_mean=(0.5,) * width,
        projection=tuple(map(tuple, ROWS.tolist())) if embedding else (),
        projection_scale=(2.0,) * 8 if embedding else (),
        residual_scale=4.0,
    )


def _counter(reference: Reference) -> drift_counters.Counter:
    return drift_counters.Counter(reference, tasks.of_reference(reference))


def _rows(count: int, *, embedding: bool = True) -> np.ndarray:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, 9, 11, 3), dtype=np.uint8)
    vectors = rng.normal(size=(count, D)).astype(np.float32) if embedding else None
    return drift_counters.values(images, rng.normal(size=(count, 10)).astype(np.float32) * 3, vectors, PROJECTION)


def _value(image: np.ndarray, name: str) -> float:
    rows = drift_counters.values([image], np.zeros((1, 10)), None, drift_counters.no_projection(CLASSES))
    return float(rows[0, [spec.name for spec in drift_counters.stream_specs(CLASSES, has_embedding=False)].index(name)])


def test_there_are_23_streams_and_14_without_an_embedding() -> None:
    """Names are unique, kinds are known, and the values have one column each."""
    assert len(set(NAMES)) == len(NAMES) == _rows(2).shape[1] == 23
    assert len(drift_counters.stream_specs(CLASSES, has_embedding=False)) == _rows(2, embedding=False).shape[1] == 14
    assert {spec.kind for spec in drift_counters.stream_specs(CLASSES, has_embedding=True)} == {
        "input",
        "embedding",
        "output",
    }


def test_image_features_match_their_definitions() -> None:
    """Against plain formulas in float64, on a random image."""
    image = np.random.default_rng(5).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    luma = image @ np.array([77.0, 150.0, 29.0]) / (256 * 255)
    lap = luma[1:-1, :-2] + luma[1:-1, 2:] + luma[:-2, 1:-1] + luma[2:, 1:-1] - 4 * luma[1:-1, 1:-1]
    twist = np.diff(np.diff(luma, 2, axis=0), 2, axis=1)
    red, green, blue = (image[:, :, i].mean() / 255 for i in range(3))
    expected = {
        "luma_mean": luma.mean(), "luma_sd": luma.std(), "dark_ratio": (luma < 0.1).mean(),
        "clipped_ratio": (luma > 0.98).mean(), "laplacian_log": np.log1p((lap**2).mean() * 255**2),
        "noise": np.abs(twist).mean() * math.sqrt(math.pi / 2) / 6, "red_green": red - green,
        "blue_yellow": blue - (red + green) / 2, "gradient_x": (np.diff(luma, axis=1) ** 2).mean(),
        "gradient_y": (np.diff(luma, axis=0) ** 2).mean(),
    }  # fmt: skip
    assert all(_value(image, name) == pytest.approx(value, rel=1e-5, abs=1e-7) for name, value in expected.items())


def test_features_move_as_the_camera_does() -> None:
    """Darker, blurrier, noisier and bluer are seen by the stream that is named so."""
    rng = np.random.default_rng(6)
    image = rng.integers(60, 200, (32, 32, 3)).astype(np.uint8)
    smooth = (image.astype(int) + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, -1, 0)) // 4
    assert _value(image // 8, "dark_ratio") > _value(image, "dark_ratio") == 0
    assert _value(smooth.astype(np.uint8), "laplacian_log") < _value(image, "laplacian_log")
    noisy = np.clip(smooth + rng.normal(0, 40, image.shape), 0, 255).astype(np.uint8)
    assert _value(noisy, "noise") > _value(smooth.astype(np.uint8), "noise")
    assert _value(image // np.array([2, 2, 1], np.uint8), "blue_yellow") > _value(image, "blue_yellow") + 0.1


def test_a_grey_image_has_exactly_no_colour() -> None:
    """Sums are whole numbers, so equal channels differ by exactly 0 at any size."""
    grey = np.repeat(np.random.default_rng(1).integers(0, 256, (300, 701, 1), dtype=np.uint8), 3, axis=2)
    assert _value(grey, "red_green") == _value(grey, "blue_yellow") == 0.0


def test_output_streams_are_confidence_entropy_margin_and_class() -> None:
    """Of a softmax of logarithms: the probabilities themselves."""
    logits = np.log(np.array([[0.1, 0.7, 0.2]]))
    row = drift_counters.values([np.zeros((4, 4, 3), np.uint8)], logits, None, drift_counters.no_projection(CLASSES))[
        0, -4:
    ]
    entropy = -(0.1 * math.log(0.1) + 0.7 * math.log(0.7) + 0.2 * math.log(0.2))
    assert row == pytest.approx([0.7, entropy, 0.5, 1], rel=1e-6)


def test_projections_and_residual_split_the_embedding() -> None:
    """The squares of projections and residual add up to the embedding's own."""
    vector = np.random.default_rng(2).normal(size=(1, D))
    row = drift_counters.values([np.zeros((4, 4, 3), np.uint8)], np.zeros((1, 3)), vector, PROJECTION)[0]
    assert row[10:18] * 2 == pytest.approx(ROWS @ (vector[0] - 0.5), rel=1e-5)
    assert ((row[10:18] * 2) ** 2).sum() + (row[18] * 4) ** 2 == pytest.approx(((vector - 0.5) ** 2).sum(), rel=1e-5)


def test_one_by_one_is_the_same_as_a_batch() -> None:
    """Single images on the device have exactly the bits of the compressor's batch."""
    rng = np.random.default_rng(8)
    images, logits = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8), rng.normal(size=(20, 10))
    vectors = rng.normal(size=(20, D))
    rows = [drift_counters.values([images[i]], logits[i : i + 1], vectors[i : i + 1], PROJECTION) for i in range(20)]
    assert np.array_equal(np.concatenate(rows), drift_counters.values(images, logits, vectors, PROJECTION))


def test_counts_are_those_of_searchsorted_on_float32_edges() -> None:
    """Each value lands in the bin that ``searchsorted(edges, x, side="right")`` names."""
    rows = _rows(300)
    edges = np.quantile(rows, np.linspace(0, 1, 17)[1:-1], axis=0).T.astype(np.float32)
    counter = _counter(_reference(edges))
    counter.count(rows)
    counters = counter.take()
    for stream in range(rows.shape[1]):
        bins = np.searchsorted(edges[stream], rows[:, stream].astype(np.float32), side="right")
        assert counters.bins(stream) == tuple(np.bincount(bins, minlength=16))
    assert (counters.n, sum(counters.table), set(counters.invalid)) == (300, 300, {0})


def test_a_value_on_an_edge_belongs_to_the_upper_bin() -> None:
    """At the first edge: bin 1; at the last: bin 15; just below the first: bin 0."""
    edges = np.tile(np.linspace(0.1, 0.9, 15, dtype=np.float32), (14, 1))
    counter = _counter(_reference(edges, embedding=False))
    rows = np.full((3, 14), 0.5)
    rows[:, 0] = [edges[0, 0], edges[0, 14], np.nextafter(edges[0, 0], np.float32(0))]
    counter.count(rows)
    bins = counter.take().bins(0)
    assert (bins[0], bins[1], bins[15]) == (1, 1, 1)


def test_nan_infinity_and_impossible_values_are_counted_as_invalid() -> None:
    """They are in no bin; the inference counts, and the table counts only those with a class and a confidence."""
    edges = np.tile(np.linspace(0.1, 0.9, 15), (14, 1))
    counter = _counter(_reference(edges, embedding=False))
    for bad in (math.nan, math.inf, -math.inf, 1.5):
        row = np.full((1, 14), 0.5)
        row[0, 0] = row[0, 10] = bad
        counter.count(row)
    counters = counter.take()
    assert (counters.invalid[0], counters.invalid[10], counters.invalid[1]) == (4, 4, 0)
    assert (sum(counters.bins(0)), sum(counters.bins(1)), sum(counters.table), counters.n) == (0, 4, 0, 4)


def test_logits_that_are_no_numbers_give_invalid_outputs_only() -> None:
    """NaN, infinity and overflow in logits and embeddings never raise."""
    image = np.full((4, 4, 3), 9, np.uint8)
    for bad in (math.nan, math.inf, -math.inf):
        with np.errstate(over="ignore"):
            row = drift_counters.values([image], np.array([[1.0, bad, 0.0]]), np.full((1, D), 1e300), PROJECTION)[0]
        assert np.isfinite(row[:10]).all()
        assert not np.isfinite(row[10:19]).any()
        assert np.isnan(row[-4:]).all() == (bad != -math.inf)


def test_taking_starts_again_from_zero() -> None:
    """Two windows add up to the counts of one."""
    rows = _rows(40)
    reference = _reference(np.tile(np.linspace(0, 1, 15), (23, 1)))
    one, two = _counter(reference), _counter(reference)
    one.count(rows)
    two.count(rows[:15])
    first = two.take()
    two.count(rows[15:])
    second = two.take()
    assert first.n + second.n == 40
    assert tuple(a + b for a, b in zip(first.values, second.values, strict=True)) == one.take().values


def test_refuses_a_reference_of_other_streams_or_unsorted_edges() -> None:
    """A reference of another agent version never counts silently."""
    good = _reference(np.tile(np.linspace(0, 1, 15), (23, 1)))
    other = dataclasses.replace(good, streams=good.streams[::-1])
    unsorted = dataclasses.replace(good, edges=(good.edges[0][::-1], *good.edges[1:]))
    for reference in (other, unsorted):
        with pytest.raises(ReferenceStreamsError, match="rebuild the bundle"):
            _counter(reference)


def test_class_edges_give_each_class_its_bin_up_to_sixteen() -> None:
    """Ten classes: bins 0 to 9; forty classes: runs of three."""
    assert list(np.searchsorted(equal_runs(10), range(10), side="right")) == list(range(10))
    assert list(np.searchsorted(equal_runs(40), [0, 2, 3, 39], side="right")) == [0, 0, 1, 13]


@pytest.mark.parametrize("n", [60, 3600, 86400])
def test_a_report_stays_under_800_bytes(n: int) -> None:
    """Equal-mass bins of a window of a minute to a day's images, 23 streams, 10 classes."""
    rng = np.random.default_rng(n)
    counter = _counter(_reference(np.tile(np.linspace(0, 1, 15), (23, 1))))
    counter.n = n
    bins = rng.multinomial(n, [1 / 16] * 16, size=23)
    counter._reached = np.hstack([np.cumsum(bins[:, ::-1], axis=1)[:, ::-1], np.zeros((23, 1), np.int64)])
    counter._table = rng.multinomial(n, rng.dirichlet([0.2] * 100)).tolist()
    digest = "ab" * 16
    report = DriftReport(
        boot="ab" * 8,
        seq=1,
        oldest_seq=1,
        window_start_ms=1_700_000_000_000,
        window_len_ms=3_600_000,
        context=0,
        artifact=digest,
        ref_id=digest,
        counters=counter.take(),
    )
    assert len(encode_report(report)) <= 800


def _values_reference() -> Reference:
    """Return the reference of a regression of two values, without an embedding."""
    specs = drift_counters.stream_specs(Regression(2), has_embedding=False)
    edges = tuple(float(value) for value in np.linspace(290, 310, 15))
    return Reference(
        artifact_sha256="a" * 64,
        streams=specs,
        contexts=(Context(counts=(0,) * 16 * len(specs)),),
        edges=(edges,) * len(specs),
    )


def test_a_regression_has_a_stream_for_each_of_its_first_values() -> None:
    """In the place of confidence and class; more than four would hide a change among many."""
    names = [spec.name for spec in drift_counters.stream_specs(Regression(6), has_embedding=True)]
    assert names[-4:] == ["value_0", "value_1", "value_2", "value_3"]
    assert "confidence" not in names
    assert len(tasks.of_reference(_values_reference()).streams) == 2


def test_values_of_a_regression_are_counted_as_they_are() -> None:
    """Outputs are counted in their bins, NaN as invalid, and there is no table of classes."""
    reference = _values_reference()
    images = np.zeros((3, 4, 4, 3), np.uint8)
    said = np.array([[289, 400], [300.5, 311], [np.nan, 290]], np.float32)
    rows = drift_counters.values(
        images, said, None, drift_counters.projection_of(reference, tasks.of_reference(reference))
    )
    counter = _counter(reference)
    counter.count(rows)
    counters, last = counter.take(), len(reference.streams) - 1
    assert counters.table == ()
    assert counters.bins(last) == (0, 1, *(0,) * 13, 2)
    assert (counters.invalid[last - 1], counters.invalid[last]) == (1, 0)


def test_a_drift_report_of_a_regression_goes_over_the_wire() -> None:
    """Zero classes are a shape like any other."""
    counter = _counter(_values_reference())
    report = DriftReport(
        boot="ab" * 8,
        seq=1,
        oldest_seq=1,
        window_start_ms=1_700_000_000_000,
        window_len_ms=3_600_000,
        context=0,
        artifact="ab" * 16,
        ref_id="cd" * 16,
        counters=counter.take(),
    )
    assert decode_report(encode_report(report)) == report


@pytest.mark.parametrize("shape", [(1, 9, 3), (9, 1, 3), (1, 1, 3), (2, 5, 3)])
def test_a_row_of_features_has_finite_image_features(shape: tuple[int, int, int]) -> None:
    """Its mean and spread are those of its numbers; lines of it count as repeated."""
    pixels = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    pixels[..., 1:] = pixels[..., :1]
    found = dict(zip(drift_counters.NAMES, drift_counters.image_features(pixels), strict=True))
    assert all(map(math.isfinite, found.values()))
    assert found["luma_mean"] == pytest.approx(pixels.mean() / 255, abs=1e-6)
    assert found["luma_sd"] == pytest.approx(pixels[..., 0].std() / 255, abs=1e-6)
    assert all(map(math.isnan, drift_counters.image_features(np.zeros((0, 4, 3), np.uint8))))
