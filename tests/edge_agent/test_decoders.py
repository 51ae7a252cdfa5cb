"""Decoders: boxes by hand, suppression, numbers that are none, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent import decoders
from edge_agent.decoders import VALUES, ModelShape
from edge_agent.decoders._suppression import chosen
from edge_agent.errors import DecoderError
from wire.manifest import Manifest, Preprocessing, TensorSpec

SHAPE = ModelShape(classes=2, width=64, height=32)


def grid(*peaks: tuple[int, int, int, float]) -> np.ndarray:
    """Return a grid of 4 x 8 cells with nothing but ``peaks``: class, row, column, logit; each is 2 cells wide."""
    made = np.full((1, 6, 4, 8), -9, np.float32)
    made[0, 2], made[0, 3], made[0, 4], made[0, 5] = 2 * np.log2(2), 0, 2, 2  # width 2, height 1, at half a cell
    for kind, row, column, logit in peaks:
        made[0, kind, row, column] = logit
    return made


def boxes(values: np.ndarray, **options: float) -> np.ndarray:
    """Return the boxes of one input, (K, 6)."""
    found = decoders.make("centres", options, SHAPE).boxes([values])
    return found.reshape(-1, VALUES)


def test_a_peak_is_a_box_at_its_place() -> None:
    """Size and place in cells become ratios of the input, the logit a score."""
    found = boxes(grid((1, 1, 2, 0.0)))
    assert found.shape == (100, 6)
    assert found[0] == pytest.approx([1, 0.5, (2.5 - 1) / 8, (1.5 - 0.5) / 4, (2.5 + 1) / 8, (1.5 + 0.5) / 4])
    assert (found[1:, 0] == -1).all()
    assert not found[1:, 1:].any()


def test_the_surest_is_first_and_what_reaches_outside_is_cut() -> None:
    """At the left edge half of the box is outside."""
    found = boxes(grid((0, 2, 0, 1.0), (0, 0, 6, 3.0)))
    assert found[:2, 1] == pytest.approx(1 / (1 + np.exp([-3.0, -1.0])))
    assert found[1, 2] == 0


def test_a_neighbour_that_is_less_sure_is_no_peak_an_equal_one_is_suppressed() -> None:
    """Quantized scores have plateaus: the second box overlaps the first."""
    assert (boxes(grid((0, 1, 2, 2.0), (0, 1, 3, 1.0)))[:, 0] >= 0).sum() == 1
    values = grid((0, 1, 2, 2.0), (0, 1, 3, 2.0))
    values[0, 4, 1, 3] = -1  # the same place, said by the cell beside it
    assert (boxes(values)[:, 0] >= 0).sum() == 1
    assert (boxes(values, overlap=1.0)[:, 0] >= 0).sum() == 2


def test_boxes_of_two_classes_on_one_place_both_remain() -> None:
    """Suppression is class by class."""
    assert boxes(grid((0, 1, 2, 2.0), (1, 1, 2, 1.0)))[:2, 0].tolist() == [0, 1]


def test_the_least_score_and_the_most_boxes_are_bounds() -> None:
    """A score of exactly the least is a box."""
    values = grid((0, 0, 0, 1.0), (0, 0, 4, 0.0), (0, 3, 2, -1.0))
    assert (boxes(values, least=0.5)[:, 0] >= 0).sum() == 2
    assert boxes(values, most=1).shape == (1, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_give_none(bad: float) -> None:
    """A row of NaN, which counts as invalid; other inputs of the batch stay."""
    values = np.concatenate([grid((0, 1, 1, 1.0))] * 2)
    values[0, 5, 3, 7] = bad
    found = decoders.make("centres", {}, SHAPE).boxes([values])
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_absurd_sizes_stay_inside_the_picture() -> None:
    """No overflow, whatever a broken model says."""
    values = grid((0, 1, 1, 1.0))
    values[0, 2:] = 3e38
    with np.errstate(all="raise"):
        found = boxes(np.clip(values, -1e30, 1e30))
    assert ((found[:, 2:] >= 0) & (found[:, 2:] <= 1)).all()


def test_suppression_keeps_what_overlaps_as_much_as_allowed() -> None:
    """Above the bound a box goes, at it it stays; the suppressed one suppresses nothing."""
    corners = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.25], [0, 0.125, 0.5, 0.25]], np.float32)
    scores, kinds = np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3)
    for overlap, wanted in ((0.5, [0.9, 0.8, 0.7]), (0.49, [0.9, 0.7]), (0.2, [0.9])):
        kept = chosen(kinds, scores, corners, overlap=overlap, most=5).reshape(-1, 6)
        assert kept[kept[:, 0] >= 0, 1] == pytest.approx(wanted), overlap


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("centre", {}, "decoder of .*centres.*got 'centre'"), ("centres", {"leest": 1}, "leest"),
        ("centres", {"overlap": 2}, "overlap"), ("centres", {"most": 0}, "most"),
    ],
)  # fmt: skip
def test_what_a_manifest_cannot_mean_is_refused(name: str, options: dict[str, float], said: str) -> None:
    """By name, with the known ones."""
    with pytest.raises(DecoderError, match=said):
        decoders.make(name, options, SHAPE)


def test_outputs_of_another_shape_are_refused() -> None:
    """A model of other classes."""
    with pytest.raises(DecoderError, match=r"\(N, 6, h, w\), got \(1, 7, 4, 8\)"):
        boxes(np.zeros((1, 7, 4, 8), np.float32))


def test_a_manifest_with_a_decoder_has_the_schema_that_older_agents_refuse() -> None:
    """They would answer with raw outputs."""
    manifest = Manifest(task="detection", decoder="centres", labels=("a", "b"), preprocessing=Preprocessing(width=64))
    assert manifest.needed_schema == 6
    assert decoders.of_manifest(manifest) is not None
    assert decoders.of_manifest(Manifest()) is None


def scores(inputs: np.ndarray, outputs: np.ndarray, layout: str = "NCHW") -> np.ndarray:
    """Return the residual scores, (N, 1)."""
    shape = ModelShape(classes=2, width=3, height=2, layout=layout)
    return decoders.decoded(decoders.make("residual", {}, shape), inputs, [outputs])


def test_a_score_is_the_root_mean_square_of_the_residual() -> None:
    """Of a reconstruction, in channels, rows and columns, whatever the input's layout."""
    given = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
    said = given.reshape(2, 12).copy()
    said[1, :3] += (3.0, 0.0, 4.0)
    wanted = [[0.0], [np.sqrt(25 / 12)]]
    assert scores(given, said) == pytest.approx(np.array(wanted))
    assert scores(given.transpose(0, 2, 3, 1), said, "NHWC") == pytest.approx(np.array(wanted))


def test_a_forecast_is_compared_with_the_last_rows() -> None:
    """As many as the output covers; the rows before do not count."""
    given = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    assert scores(given, np.array([[3, 4, 5, 9, 10, 11]], np.float32)).tolist() == [[0.0]]
    assert scores(given, np.array([[3, 4, 5, 9, 10, 13]], np.float32))[0, 0] == pytest.approx(np.sqrt(4 / 6))


def test_a_residual_that_is_no_number_is_no_score() -> None:
    """NaN stays in its row."""
    given = np.zeros((2, 1, 2, 3), np.float32)
    said = np.zeros((2, 6), np.float32)
    said[0, 3] = np.nan
    assert np.isnan(scores(given, said)).tolist() == [[True], [False]]


@pytest.mark.parametrize("width", [0, 5, 18])
def test_an_output_that_is_no_part_of_the_input_is_refused(width: int) -> None:
    """No row, half a row, more rows than there are."""
    with pytest.raises(DecoderError, match="1 to 2 rows of 2 x 3 numbers, got"):
        scores(np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, width), np.float32))


def of_one(name: str, outputs: list[list[float]], **options: float) -> np.ndarray:
    """Return what the decoder ``name`` makes of ``outputs``, (N, D); it does not look at the inputs."""
    given = np.zeros((len(outputs), 1, 2, 3), np.float32)
    return decoders.decoded(decoders.make(name, options, SHAPE), given, [np.array(outputs, np.float32)])


def test_a_distance_is_that_of_the_nearest_centre() -> None:
    """The root mean square of two deviations of three numbers each, the less; a row of NaN stays one."""
    rows = [[3.0, 0, 0, 0, 0, 6], [2, 2, 2, 1, 1, 1], [np.nan] * 6]
    found = of_one("distance", rows, centres=2)
    assert found.dtype == np.float32
    assert found[:2] == pytest.approx(np.array([[np.sqrt(3)], [1.0]]))
    assert np.isnan(found[2, 0])
    assert of_one("distance", rows[1:2]) == pytest.approx(np.array([[np.sqrt(2.5)]]))


@pytest.mark.parametrize(("rows", "centres"), [([[1.0, 2, 3]], 2), ([[]], 1)])
def test_deviations_of_half_a_centre_are_refused(rows: list[list[float]], centres: int) -> None:
    """Three numbers for two centres, and none."""
    with pytest.raises(DecoderError, match=rf"Expected an output \(1, {centres} x D\), got"):
        of_one("distance", rows, centres=centres)


def test_a_score_of_the_file_is_passed_on() -> None:
    """Also one below 0; two numbers an input are none."""
    assert of_one("score", [[-2.5], [3.0]]).tolist() == [[-2.5], [3.0]]
    with pytest.raises(DecoderError, match="Expected one number for each of 1 inputs"):
        of_one("score", [[1.0, 2.0]])


def test_a_score_of_the_file_and_deviations_from_few_centres_need_layers_in_float() -> None:
    """8 bits would cut them at normal rows; far centres have deviations from each other, pictures a range of pixels."""
    assert [name for name in decoders.names() if decoders.ends_float(name, {})] == ["distance", "score"]
    assert [decoders.ends_float("distance", {"centres": count}) for count in (4, 5)] == [True, False]
    assert not decoders.ends_float("", {})


@pytest.mark.parametrize("name", [name for name in decoders.names() if name not in decoders.of_boxes()])
def test_a_manifest_with_scores_names_them_as_its_output(name: str) -> None:
    """As an answer does, in the place of the network's own output."""
    manifest = Manifest(task="anomaly", decoder=name, outputs=(TensorSpec(name="logits", shape=(-1, 6)),))
    assert [(one.name, one.shape) for one in decoders.outputs_of(manifest)] == [("anomaly", (-1, 1))]


@pytest.mark.parametrize("name", decoders.names())
def test_every_decoder_completes_its_options_and_says_its_shape(name: str) -> None:
    """As a manifest has them."""
    options = decoders.complete(name, {})
    assert decoders.complete(name, options) == options
    assert decoders.output_shape(name, 3)[0] == -1
