"""Which planted faults the exploration finds, and how it shows them."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from compressor.cache import Cache
from compressor.data._split import split
from compressor.data._table import Table, make_table
from compressor.errors import SplitError
from compressor.exploration import duplicates, label_noise, report
from compressor.exploration.duplicates import with_near_sources
from compressor.exploration.explore import Exploration, explore
from compressor.exploration.schema import Schema, validate
from compressor.progress import Silent, StageProgress
from edge_agent.pictures.sixteen_bits import to_bytes

ROWS = 240


def table(rows: int = ROWS) -> Table:
    """Return two classes of noisy pictures: dark on the left, dark on the right."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 24)
    images = []
    for row in range(rows):
        light = ramp if row % 2 else ramp[::-1]
        grey = np.clip(light + rng.normal(0, 25, (24, 24)), 0, 255).astype(np.uint8)
        images.append(np.repeat(grey[:, :, None], 3, axis=2))
    return make_table(images, [str(row % 2) for row in range(rows)], slices=["all"] * rows)


@pytest.fixture(scope="module")
def planted() -> tuple[Table, Exploration]:
    """Return a table with a wrong label, an odd picture, near and exact duplicates, and its exploration."""
    clean = table()
    images, names = [*clean.images], [clean.class_names[i] for i in clean.labels]
    names[10] = "1"  # drawn as 0
    images[20] = np.full((24, 24, 3), 255, np.uint8)
    images[20][::2] = 0
    for row in range(30, 50):
        copy = images[row].copy()
        copy[0, 0] = 255 - copy[0, 0]
        images.append(copy)
        names.append(names[row])
    images.append(images[60])
    names.append("1")  # its content is labelled 0
    made = make_table(images, names, slices=["all"] * len(names))
    return made, explore(made, Silent())


def test_a_wrong_label_is_the_first_suspect(planted: tuple[Table, Exploration]) -> None:
    """The row whose label was changed leads, with the class it looks like."""
    found = {item.row.row: item.looks_like for item in planted[1].label_suspects}
    assert found[10] == "0"
    assert len(found) <= 4


def test_an_odd_picture_is_an_outlier(planted: tuple[Table, Exploration]) -> None:
    """Stripes among ramps are far from all others."""
    assert [item.row.row for item in planted[1].outliers][:1] == [20]


def test_near_duplicates_across_splits_are_found_and_no_others(planted: tuple[Table, Exploration]) -> None:
    """Copies with one pixel changed are found where their splits differ."""
    _, found = planted
    pairs = {(pair.first.row, pair.second.row) for pair in found.near}
    assert pairs
    assert pairs <= {(30 + i, ROWS + i) for i in range(20)}
    assert all(pair.first.split != pair.second.split for pair in found.near)


def test_equal_content_with_two_labels_is_a_conflict(planted: tuple[Table, Exploration]) -> None:
    """Exact duplicates share a split, so there is no leak, but their labels contradict each other."""
    found = planted[1]
    assert [(pair.first.row, pair.second.row) for pair in found.conflicts] == [(60, ROWS + 20)]
    assert found.counts["exact_duplicates"] == 1
    assert found.counts["leaks"] == 0


def test_clean_data_has_no_findings() -> None:
    """Nothing planted, nothing found but chance; the same twice."""
    first, second = explore(table(), Silent()), explore(table(), Silent())
    assert first == second
    assert sum(first.counts[name] for name in ("label_conflicts", "leaks", "near_duplicates_across_splits")) == 0


def test_content_in_a_slice_not_trained_on_is_a_leak() -> None:
    """The same picture at a site held out flatters the figures there."""
    made = table()
    slices = np.array(["home"] * ROWS)
    slices[:60] = "away"
    images = made.images.copy()
    images[0] = images[ROWS - 2]
    again = make_table(list(images), [made.class_names[i] for i in made.labels], slices=slices.tolist())
    found = explore(again, Silent(), slices=["home"])
    assert [(pair.first.row, pair.second.row) for pair in found.leaks] == [(0, ROWS - 2)]


def test_other_light_is_no_other_picture_and_other_pictures_are() -> None:
    """A darker copy is a near duplicate; other noise is not, and a flat picture is one only of a flat one as bright."""
    rng = np.random.default_rng(5)
    noise = rng.uniform(40, 200, (2, 16, 16))
    flat = np.full((3, 16, 16), [[[50]], [[51]], [[200]]])
    thumbs = np.concatenate([noise, noise * 0.6 + 10, flat]).astype(np.float32)
    hashes = np.zeros(7, np.uint64)
    with Silent().stage("x", duplicates.BANDS, "band") as stage:
        found = duplicates.near_pairs(thumbs, hashes, np.arange(7), stage)
    assert sorted(map(tuple, found.tolist())) == [(0, 2), (1, 3), (4, 5)]


def test_banded_search_finds_every_pair_within_three_bits() -> None:
    """Banding misses nothing that comparing all with all finds."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    bits = [rng.choice(64, count, replace=False).tolist() for count in rng.integers(0, 10, 40).tolist()]
    flips = np.array([sum(1 << bit for bit in some) for some in bits], dtype=np.uint64)
    hashes = np.concatenate([base, base ^ flips])
    parts = np.repeat([0, 1], 40)
    with Silent().stage("x", duplicates.BANDS, "band") as stage:
        found = duplicates.near_pairs(np.zeros((80, 16, 16), np.float32), hashes, parts, stage)
    near = np.argwhere(np.bitwise_count(hashes[:40, None] ^ hashes[None, 40:]) <= duplicates.MAX_BITS)
    assert {tuple(pair) for pair in found.tolist()} == {(i, j + 40) for i, j in near.tolist()}


def test_noise_and_suspects_follow_from_scores_that_are_too_sure() -> None:
    """Of 1,000 labels 5 % are flipped: their share is estimated, they are found, and merely beaten labels are not."""
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, 1000)
    scores = 60 * (np.eye(3)[true] + rng.normal(0, 0.2, (1000, 3)))
    labels = true.copy()
    labels[:50] = (labels[:50] + 1) % 3
    found = label_noise.doubted(scores, labels)
    assert found.wrong_ratio == pytest.approx(0.05, abs=0.01)
    assert np.isin(np.arange(50), found.rows).mean() > 0.95
    assert (found.rows < 50).mean() > 0.95
    assert (found.looks_like == true[found.rows]).mean() > 0.95
    assert (np.diff(found.doubts) <= 0).all()
    assert found.doubts.min() >= label_noise.MIN_DOUBT


def test_clean_labels_of_a_model_that_errs_have_few_suspects() -> None:
    """Errors of the model near the border between classes are not errors of the labels."""
    rng = np.random.default_rng(4)
    true = rng.integers(0, 2, 1000)
    scores = 30 * (np.eye(2)[true] + rng.normal(0, 0.45, (1000, 2)))
    found = label_noise.doubted(scores, true)
    assert found.accuracy < 0.96
    assert len(found.rows) <= 3


def test_labels_of_noise_are_not_judged() -> None:
    """If the simple model learns nothing, no label is called wrong, and the note gives the reason."""
    made = table()
    labels = np.random.default_rng(2).integers(0, 2, ROWS)
    found = explore(replace(made, labels=labels), Silent())
    assert found.label_suspects == ()
    assert any("labels not judged" in note for note in found.notes)


def test_data_too_small_to_split_is_still_explored() -> None:
    """Six rows result in a profile and a note."""
    found = explore(table(6), Silent())
    assert found.rows == 6
    assert any("not split" in note for note in found.notes)


def test_the_report_opens_offline_and_escapes_names(planted: tuple[Table, Exploration]) -> None:
    """The page makes no network requests; the JSON file has the same findings."""
    page = report.render("<b>mine</b>", planted[1], planted[0])
    assert "&lt;b&gt;mine&lt;/b&gt;" in page
    assert "default-src 'none'" in page
    assert "<script src" not in page
    assert json.loads(json.dumps(asdict(planted[1])))["counts"]["outliers"] >= 1


def coarse_pictures(count: int) -> list[np.ndarray]:
    """Return ``count`` different pictures of 8 by 8 grey squares, uint8 (32, 32, 3)."""
    coarse = np.random.default_rng(0).integers(0, 255, (count, 8, 8, 1)).astype(np.uint8)
    return [np.repeat(np.kron(one, np.ones((4, 4, 1), np.uint8)), 3, axis=2) for one in coarse]


def test_a_picture_that_moved_by_a_pixel_shares_its_source() -> None:
    """In every direction, and over several steps; other pictures keep their own source."""
    pictures = coarse_pictures(3)
    moved = [np.roll(pictures[0], (down, right), (0, 1)) for down, right in ((1, 0), (-1, 1), (0, -1), (1, -2))]
    table = with_near_sources(make_table([*pictures, *moved], ["a"] * 7, slices=["s"] * 7), Silent())
    assert len(set(table.sources[[0, 3, 4, 5, 6]].tolist())) == 1
    assert len(set(table.sources.tolist())) == 3


def test_splits_of_a_benchmark_may_have_near_copies_of_each_other(tmp_path: Path) -> None:
    """By default they are an error, which names the way out; told to, they stay apart, and others are still joined."""
    pictures = coarse_pictures(6)
    moved = [np.roll(pictures[0], 1, 0), np.roll(pictures[1], 1, 0)]
    table = make_table([*pictures, *moved], ["a"] * 8, slices=["s"] * 8)
    parts = ["train", "train", "calibration", "gate", "reference", "train", "gate", "train"]
    table = replace(table, told=np.array(parts))
    with pytest.raises(SplitError, match="near_copies = 'as_told'"):
        split(with_near_sources(table, Silent()), 0)
    cache = Cache(tmp_path)
    with_near_sources(table, Silent(), cache=cache)
    apart = with_near_sources(table, Silent(), cache=cache, as_told=True)
    assert apart.sources[0] != apart.sources[6]
    assert apart.sources[1] == apart.sources[7]
    assert split(apart, 0).gate.tolist() == [3, 6]


def test_a_row_without_a_told_split_goes_with_the_one_that_it_looks_like() -> None:
    """Else the draw could put it into another; one that looks like two goes with the first, and joins them not."""
    pictures = coarse_pictures(5)
    moved = [np.roll(pictures[0], 1, 0), np.roll(pictures[1], 1, 0), np.roll(pictures[1], -1, 0)]
    table = make_table([*pictures, *moved], ["a"] * 8, slices=["s"] * 8)
    for middle in ("", "reference"):
        parts = ["train", middle, "calibration", "gate", "reference", "", "train", "gate"]
        found = with_near_sources(replace(table, told=np.array(parts)), Silent(), as_told=True)
        assert found.sources[0] == found.sources[5]
        assert found.sources[6] != found.sources[7]
        assert (found.sources[1] in found.sources[6:].tolist()) == (not middle)
        assert 5 in split(found, 0).train.tolist()


def test_the_same_picture_in_two_splits_stays_an_error() -> None:
    """A copy to the last pixel is no opinion on what looks alike."""
    pictures = coarse_pictures(4)
    table = make_table([*pictures, pictures[0]], ["a"] * 5, slices=["s"] * 5)
    table = replace(table, told=np.array(["train", "calibration", "gate", "reference", "gate"]))
    with pytest.raises(SplitError, match="same content or source twice"):
        split(with_near_sources(table, Silent(), as_told=True), 0)


def deep(image: np.ndarray) -> np.ndarray:
    """Return a grey picture as one of 16 bits around level 30,000, uint8 (H, W, 2)."""
    return to_bytes(30_000 + image[..., 0].astype(np.uint16))


def test_pictures_of_16_bits_are_explored_and_compared_in_the_range_of_their_set() -> None:
    """Of a few hundred levels around 30,000: values in levels, near copies, outliers and faces as of 8 bits."""
    plain = table(60)
    names = [plain.class_names[label] for label in plain.labels]
    odd = np.full((24, 24, 3), 255, np.uint8)
    odd[::2] = 0
    images = [*(deep(image) for image in plain.images), deep(odd)]
    made = make_table(images, [*names, "1"], slices=["all"] * 61)
    found = explore(made, Silent())
    assert 30_000 <= found.values["min"] < found.values["max"] <= 30_255
    assert [item.row.row for item in found.outliers] == [60]
    assert found.levels[7] == 61 * 24 * 24  # 28,672 to 32,767
    assert "data:image/png" in report.render("thermal", found, made)
    expected = Schema(value_range=(30_000.0, 30_255.0), max_clipped_ratio=0.0)
    assert [one.holds for one in validate(made, expected)] == [True, True]


def test_a_picture_of_16_bits_that_moved_shares_its_source() -> None:
    """Near copies are found in the range of the data: as bytes they would be noise."""
    pictures = [deep(one) for one in coarse_pictures(3)]
    moved = [np.roll(pictures[0], (1, 0), (0, 1)), np.roll(pictures[0], (0, -1), (0, 1))]
    table = with_near_sources(make_table([*pictures, *moved], ["a"] * 5, slices=["s"] * 5), Silent())
    assert len(set(table.sources[[0, 3, 4]].tolist())) == 1
    assert len(set(table.sources.tolist())) == 3


class Searches(Silent):
    """Counts the searches."""

    searches = 0

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[StageProgress]:
        """Count one more if it begins to compare."""
        self.searches += name == "moved pictures"
        return super().stage(name, total, unit)


def test_near_copies_are_searched_once_for_the_same_pictures(tmp_path: Path) -> None:
    """A search again gives the same; another picture, source or open row, and a broken result, is searched again."""
    pictures = [np.roll(one, step, 1) for one in coarse_pictures(2) for step in (0, 1)]
    table = make_table(pictures, ["a", "b"] * 2, slices=["s"] * 4)
    cache, heard = Cache(tmp_path), Searches()
    found = [with_near_sources(table, heard, cache=cache).sources.tolist() for _ in range(2)]
    assert (found[0], heard.searches) == (with_near_sources(table, Silent()).sources.tolist(), 1)
    assert found[0] == found[1]
    other = [*pictures[:3], pictures[3] ^ np.uint8(1)]
    sources = table.sources.copy()
    sources[0] = "x"
    with_near_sources(make_table(other, ["a"] * 4, slices=["s"] * 4), heard, cache=cache)
    with_near_sources(replace(table, sources=sources), heard, cache=cache)
    assert with_near_sources(table, heard, np.zeros(4, bool), cache).sources.tolist() == table.sources.tolist()
    assert heard.searches == 4
    for path in cache.results.iterdir():
        assert path.stat().st_size == 64 + 8 * 4  # a digest, and a row for each row
        path.write_bytes(path.read_bytes()[:-8])
    assert with_near_sources(table, heard, cache=cache).sources.tolist() == found[0]
    assert heard.searches == 5


def test_of_near_copies_with_and_without_a_source_only_named_pairs_stay_apart() -> None:
    """One row with a source must not make the copies among the others independent rows."""
    pictures = [np.roll(one, step, 1) for one in coarse_pictures(2) for step in (0, 1)]
    table = make_table(pictures, ["a"] * 4, slices=["s"] * 4, sources=["x", "y", "", ""])
    named = with_near_sources(table, Silent(), table.sources == table.hashes).sources.tolist()
    assert named[:2] == ["x", "y"]
    assert named[2] == named[3]
