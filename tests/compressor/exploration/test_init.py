"""``compressor init``: what it recognises, what it writes, that the recipe runs, and what it refuses."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.cli import main
from compressor.errors import CompressorError, CorruptImageError, PackageError
from compressor.exploration.draft import draft, name_of, shares_for
from compressor.exploration.layouts import recognised
from compressor.progress import Silent
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe
from compressor.statistics.power import samples_for
from compressor.tasks._drafting import DISCORDANCE, MARGINS, margin_for
from tests.compressor.data.test_annotation_tools import chosen, task
from tests.compressor.data.test_class_folders import write
from tests.compressor.data.test_idx import _write
from tests.compressor.data.test_spoken import wav

COUNT = 60


def picture(seed: int, *, bright: bool = False, size: tuple[int, int] = (12, 10), colour: bool = False) -> bytes:
    """Return a noisy picture, with a bright square or without."""
    noise = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3))
    noise = noise if colour else np.repeat(noise[:, :, :1], 3, axis=2)
    noise[2:8, 3:9] += 150 * bright
    buffer = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def shapes(folder: Path, count: int = COUNT) -> Path:
    """Write folders of two classes."""
    return write(folder, {f"{('dark', 'bright')[n % 2]}/{n}.png": picture(n, bright=n % 2 == 1) for n in range(count)})


def listed(folder: Path) -> Path:
    """Write a list with columns of other names."""
    lines = [f"p\\{n}.png;{'ab'[n % 2]};film-{n};{'north' if n % 3 else 'south'};" for n in range(COUNT)]
    text = "Filename;Class;video;site;split\n" + "\n".join(lines)
    return write(folder, {"list.csv": text.encode(), **{f"p/{n}.png": picture(n, colour=True) for n in range(COUNT)}})


def studio(folder: Path) -> Path:
    """Write an export of Label Studio."""
    tasks = [task(f"{n}.png", chosen("ab"[n % 2])) for n in range(COUNT)]
    return write(folder, {"e.json": json.dumps(tasks).encode(), **{f"i/{n}.png": picture(n) for n in range(COUNT)}})


def cvat(folder: Path) -> Path:
    """Write an export of CVAT."""
    tags = "".join(f'<image name="{n}.png"><tag label="{"ab"[n % 2]}"/></image>' for n in range(COUNT))
    text = f"<annotations>{tags}</annotations>"
    return write(folder, {"annotations.xml": text.encode(), **{f"images/{n}.png": picture(n) for n in range(COUNT)}})


def words(folder: Path) -> Path:
    """Write sounds in folders."""
    return write(folder, {f"{('no', 'yes')[n % 2]}/{n}.wav": wav(n) for n in range(COUNT)})


def spoken(folder: Path) -> Path:
    """Write sounds with their labels in their names."""
    return write(folder, {f"{n % 2}_ann_{n}.wav": wav(n) for n in range(COUNT)})


def arrays(folder: Path) -> Path:
    """Write arrays in folders, of two lengths."""
    for n in range(COUNT):
        (folder / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(n).normal(n % 2, 1, (16 + n % 3, 2))
        np.save(folder / "ab"[n % 2] / f"{n}.npy", values)
    return folder


def recordings(folder: Path) -> Path:
    """Write recordings in folders."""
    rng = np.random.default_rng(0)
    rows = "".join
    return write(folder, {
        f"{'ab'[n % 2]}/{n}.csv": f"time,x\n{rows(f'{t},{rng.normal(n % 2):.3f}{chr(10)}' for t in range(40))}".encode()
        for n in range(COUNT)
    })  # fmt: skip


def table(folder: Path) -> Path:
    """Write a table of windows."""
    rng = np.random.default_rng(0)
    lines = [f"{n},{'ab'[n % 2]},{rng.normal(n % 2):.3f},{rng.normal():.3f}" for n in range(COUNT) for _ in range(12)]
    return write(folder, {"t.csv": "\n".join(["window,label,x,y", *lines]).encode()}) / "t.csv"


def npz(folder: Path) -> Path:
    """Write images in one file."""
    folder.mkdir(parents=True)
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 24, 20), np.uint8)
    np.savez(folder / "a.npz", x=x, y=np.arange(COUNT) % 2, class_names=np.array(["a", "b"]))
    return folder / "a.npz"


def lines(folder: Path) -> Path:
    """Write a table with a label in each line."""
    rng = np.random.default_rng(0)
    rows = [f"{'ab'[n % 2]}," + ",".join(f"{rng.normal(n % 2):.3f}" for _ in range(8)) for n in range(COUNT)]
    return write(folder, {"f.csv": "\n".join(["label,a,b,c,d,e,f,g,h", *rows]).encode()})


def stack(folder: Path) -> Path:
    """Write features in one file."""
    folder.mkdir(parents=True)
    x = np.random.default_rng(0).normal(size=(COUNT, 9, 5))
    np.savez(folder / "a.npz", x=x, y=np.arange(COUNT) % 2, class_names=np.array(["a", "b"]))
    return folder / "a.npz"


def mnist(folder: Path) -> Path:
    """Write idx files."""
    folder.mkdir(parents=True)
    _write(folder, "train", COUNT, COUNT)
    return folder


def drafted(path: Path, *labels: str) -> tuple[Recipe, str]:
    """Return the recipe that is drafted for ``path`` with the columns ``labels``, and its text."""
    text = draft(path, path.parent, Silent(), labels=labels).text
    (path.parent / "made.toml").write_text(text)
    return read_recipe(path.parent / "made.toml"), text


def run_drafted(data: str) -> None:
    """Draft a recipe for ``data``, a path in the working directory, and run it, with two commands, to a verdict."""
    with pytest.raises(SystemExit) as stop:
        main(["init", data])
    assert stop.value.code == 0
    run_quickly(f"{Path(data).stem}.toml")


def run_quickly(recipe: str) -> None:
    """Run ``recipe`` in the working directory to a verdict."""
    with pytest.raises(SystemExit) as stop:
        main(["run", recipe, "--out", "out", "--quick"])
    assert stop.value.code in {0, 2, 3}
    assert Path("out", "gate.json").is_file()


@pytest.mark.parametrize(
    ("make", "dataset", "wanted"),
    [
        (shapes, "class_folders", {"colour": "grey", "width": 8, "height": 8}),
        (listed, "labelled_images", {
            "columns": {"path": "Filename", "label": "Class", "source": "video"}, "slices": "site", "split": "split",
            "colour": "rgb",
        }),
        (studio, "label_studio", {}),
        (cvat, "cvat", {}),
        (words, "class_folders", {"front_end": "log_mel", "width": 32}),
        (spoken, "spoken", {"front_end": "log_mel"}),
        (arrays, "class_folders", {"front_end": "window", "height": 17, "width": 4}),
        (recordings, "recordings", {"front_end": "window", "height": 8}),
        (table, "windows", {"front_end": "window", "height": 12}),
        (npz, "arrays", {"colour": "grey", "width": 20, "height": 20}),
        (lines, "features", {"front_end": "window", "height": 1, "width": 8}),
        (stack, "arrays", {"front_end": "window", "height": 9, "width": 5}),
        (mnist, "idx", {"colour": "grey", "width": 28}),
    ],
)  # fmt: skip
def test_a_layout_is_recognised_and_described(
    tmp_path: Path, make: Callable[[Path], Path], dataset: str, wanted: dict[str, object]
) -> None:
    """Data set, columns, front end and sizes; every key has a reason."""
    recipe, text = drafted(make(tmp_path / "my Data 1"))
    assert recipe.data.dataset == dataset
    assert {name: getattr(recipe.data, name) for name in wanted} == wanted
    assert recipe.data.path in {"my Data 1", "t.csv", "a.npz"}
    assert recipe.gates[0].name == "accuracy_drop"
    lines = text.splitlines()
    bare = [line for above, line in itertools.pairwise(lines)
            if " = " in line and "#" not in line and not above.startswith("#")]  # fmt: skip
    assert {line.partition(" ")[0] for line in bare} <= {"name", "height"}


def test_ranges_are_fitted_and_options_known(tmp_path: Path) -> None:
    """Two lengths are stretched, each channel has its range, the provisional one is gone."""
    options = drafted(arrays(tmp_path / "a"))[0].data.options
    assert set(options) == {"steps", "channels", "resample", "low_0", "low_1", "high_0", "high_1"}
    assert -4 < options["low_0"] < -1 < 2 < options["high_0"] < 5


def test_a_channel_that_never_changes_has_a_range(tmp_path: Path) -> None:
    """Its high is above its low."""
    lines = [f"{n},{'ab'[n % 2]},{n + step},5" for n in range(COUNT) for step in range(4)]
    place = write(tmp_path / "t", {"t.csv": "\n".join(["window,label,x,y", *lines]).encode()})
    options = drafted(place)[0].data.options
    assert (options["low_1"], options["high_1"]) == (5.0, 6.0)


def test_numbers_are_predicted(tmp_path: Path) -> None:
    """Labels that are all numbers and nearly all different; few numbers are classes."""
    files = {f"{n}.png": picture(n) for n in range(COUNT)}
    text = "path,label\n" + "\n".join(f"{n}.png,{n / 7:.3f}" for n in range(COUNT))
    recipe, _ = drafted(write(tmp_path / "n", {**files, "labels.csv": text.encode()}))
    assert (recipe.data.label, recipe.gates[0].name) == ("number", "error_increase")
    text = "path,label\n" + "\n".join(f"{n}.png,{n % 5}" for n in range(COUNT))
    recipe, _ = drafted(write(tmp_path / "c", {**files, "labels.csv": text.encode()}))
    assert recipe.model.labels == ("0", "1", "2", "3", "4")


def test_splits_that_folders_tell_are_kept(tmp_path: Path) -> None:
    """Only what they leave open is drawn."""
    files = {f"{part}/{'ab'[n % 2]}/{part}{n}.png": picture(n + 500 * (part == "val"))
             for part in ("train", "val") for n in range(COUNT)}  # fmt: skip
    recipe, text = drafted(write(tmp_path / "s", files))
    assert "of what the folders or the table leave open" in text
    assert f"{COUNT} sources judge" in text
    assert recipe.data.shares


def test_near_copies_judge_once(tmp_path: Path) -> None:
    """Pictures that are saved again in another quality are no further evidence."""
    place = shapes(tmp_path / "s")
    before = drafted(place)[1]
    for file in sorted(place.rglob("*.png")):
        with Image.open(file) as image:
            image.save(file.with_suffix(".jpg"), quality=95)
    assert f"{COUNT} rows of {COUNT} sources" in before
    assert f"{2 * COUNT} rows of {COUNT} sources" in drafted(place)[1]


def test_margins_are_what_so_many_sources_show() -> None:
    """The smallest that reaches 80 % power on the first look; none: the reason says how many are missing."""
    for count in (60, 700, 3000):
        margin, _ = margin_for(count)
        assert samples_for(margin, DISCORDANCE, confidence=0.955) <= count
        below = [one for one in MARGINS if one < margin]
        assert not below or samples_for(below[-1], DISCORDANCE, confidence=0.955) > count
    assert margin_for(5)[0] == MARGINS[-1]
    assert "expect INCONCLUSIVE" in margin_for(5)[1]


def test_a_gate_that_so_few_sources_cannot_pass_is_said(tmp_path: Path) -> None:
    """Beside the comment in the recipe; with enough of them nothing is said."""
    few = draft(shapes(tmp_path / "few", 32), tmp_path, Silent())
    said = [remark for remark in few.remarks if remark.startswith("gate accuracy_drop: ")]
    assert len(said) == 1
    assert "23 would show this: expect INCONCLUSIVE, label more" in said[0]
    enough = draft(shapes(tmp_path / "enough", 120), tmp_path, Silent())
    assert not [remark for remark in enough.remarks if "INCONCLUSIVE" in remark]


@pytest.mark.parametrize("count", [5, 60, 500, 3_999, 4_000, 100_000])
def test_shares_sum_to_one(count: int) -> None:
    """And none is empty."""
    shares = shares_for(count)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0.02


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/My Photos (2).zip", "my-photos-2"), ("x", "x"), ("___", "model"), ("é", "model"), ("a" * 99, "a" * 63)],
)
def test_a_model_is_called_after_its_data(path: str, name: str) -> None:
    """In the letters of a topic."""
    assert name_of(path) == name


def test_the_recipe_runs_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder to a verdict with two commands; init says where the recipe is and never overwrites it."""
    shapes(tmp_path / "shapes", 160)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["init", "shapes"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == "shapes.toml\n"
    before = (tmp_path / "shapes.toml").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["init", "shapes"])
    assert stop.value.code == 4
    assert "error [package_invalid]: Expected a new file for the recipe, got shapes.toml" in capsys.readouterr().err
    assert (tmp_path / "shapes.toml").read_bytes() == before
    run_quickly("shapes.toml")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.txt": b"x"}, "Expected images, sounds, arrays or tables"),
        ({"a/1.png": b"broken"}, "Expected images that can be decoded"),
        ({"l.csv": b"name,kind\n", "1.png": picture(1)}, "Expected a column for the path in l.csv, got name, kind"),
        (
            {"a/1.wav": b"RIFF", "b/2.wav": b"RIFF"},
            "WAV files of 8- or 16-bit PCM, got none in 2 that were looked at, a/1",
        ),
        (
            {f"{kind}/{n}.wav": wav(n).replace(b"\x01\x00", b"\x03\x00", 1) for kind in "ab" for n in range(2)},
            "a/0.wav: unknown format: 3: mend or convert them (ffmpeg",
        ),
        ({"a/1.wav": wav(1), "b/2.wav": b"RIFF"}, "Expected at most 0 files that can't be read"),
        ({"a/1.png": picture(1), "b/2.png": picture(2, bright=True)}, "Expected enough sources for train, calibration"),
        ({"x.json": b"[]"}, "Expected strokes or tables, got x.json"),
        ({"labels.csv": b"path,label\n"}, "recordings"),
        ({"a.npz": b"PK"}, "images, sounds"),
    ],
)
def test_data_without_a_recipe_are_named(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    """Nothing is written."""
    with pytest.raises(CompressorError) as found:
        draft(write(tmp_path / "d", files), tmp_path, Silent())
    assert said in str(found.value)


def test_broken_files_are_left_out_if_you_say_so(tmp_path: Path) -> None:
    """The recipe allows as many as there are, and names them; too many are named with the option."""
    folder = write(shapes(tmp_path / "s"), {'dark/a"b.png': b"broken", "dark/c.png": b""})
    with pytest.raises(CorruptImageError, match=r"at most 1 corrupt images .* got 2: dark/a\"b.*--allow-corrupt N"):
        draft(folder, tmp_path, Silent(), allow_corrupt=1)
    drafted = draft(folder, tmp_path, Silent(), allow_corrupt=9)
    (tmp_path / "r.toml").write_text(drafted.text)
    assert read_recipe(tmp_path / "r.toml").data.allow_corrupt == 2
    assert (drafted.remarks[0], '"dark/c.png"' in drafted.text) == (
        'broken and left out: 2, such as dark/a"b.png',
        True,
    )


def test_pictures_of_sixteen_bits_are_read_so(tmp_path: Path) -> None:
    """If one has eight, all have: a set is of one kind."""
    for n in range(COUNT):
        (tmp_path / "t" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        levels = np.random.default_rng(n).integers(0, 60_000, (12, 12)).astype(np.uint16)
        Image.fromarray(levels).save(tmp_path / "t" / "ab"[n % 2] / f"{n}.png")
    (tmp_path / "r.toml").write_text(draft(tmp_path / "t", tmp_path, Silent()).text)
    assert (found := read_recipe(tmp_path / "r.toml").data).bits == 16
    assert found.colour == "grey"
    (tmp_path / "t" / "a" / "0.png").write_bytes(picture(0))
    assert "bits" not in {key.name for key in recognised(tmp_path / "t").keys}


def test_no_data_and_no_place_for_the_recipe_are_named(tmp_path: Path) -> None:
    """Before anything is read, or without a trace."""
    with pytest.raises(CompressorError, match="Expected a zip, a folder or a file"):
        recognised(tmp_path / "none")
    shapes(tmp_path / "s", 160)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SystemExit) as stop:
        main(["init", str(tmp_path / "s"), "--out", str(tmp_path / "file" / "r.toml")])
    assert stop.value.code == 4
    assert (tmp_path / "file").read_text() == "x"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a part of the recipe nor an empty file."""
    from compressor.cli import init  # noqa: PLC0415 - only here

    def full(path: Path, data: bytes) -> None:
        message = f"Expected to write {len(data)} bytes to {path}"
        raise PackageError(message)

    monkeypatch.setattr(init, "write_atomically", full)
    with pytest.raises(PackageError):
        init._write_new(tmp_path / "r.toml", "x")
    assert list(tmp_path.iterdir()) == []
