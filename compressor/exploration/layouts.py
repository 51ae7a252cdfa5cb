"""Recognises which data set reads a zip, a folder or a file, from its names and the head of one table.

Decides on the data set and on what its files say without being read whole: names of columns, sizes, sample rates. Reads
no labels and judges nothing; a layout that none of ours reads is an error that lists them.
"""

from __future__ import annotations

import io
import json
import statistics
import wave
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image

from compressor.data._archive import Names, opened
from compressor.data._delimited import lines_of
from compressor.data._front_end import Values
from compressor.data._layout import is_hidden
from compressor.data._npy import check_header, read_npy, samples_of
from compressor.data._window_table import Columns, parquet_columns, read
from compressor.data.class_folders import IMAGES
from compressor.data.labelled_images import MAX_CSV_BYTES
from compressor.errors import CompressorError, DataError
from edge_agent.front_ends.log_mel import MAX_WAV_BYTES
from edge_agent.front_ends.window import MAX_WINDOW_BYTES
from edge_agent.inference.preprocess import MAX_IMAGE_BYTES

T = TypeVar("T")
_SAMPLED = 40  # files that are opened to see what they are like
_GREY_LEVELS = 2.0  # difference of the channels of a grey picture after JPEG
_JSON_BYTES = 256 * 1024 * 1024
_TABLES = (".csv", ".tsv", ".parquet")
_PARTS_OF_SPOKEN = 3
_MEANINGS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path", "datei"),
    "label": ("label", "class", "category", "target", "class_name", "y", "klasse"),
    "source": ("source", "video", "recording", "scene", "sequence", "session", "subject", "patient", "group"),
}  # fmt: skip
"""Names that columns of a list of files have, in lower case; the first that is there counts."""
_SLICES = ("site", "camera", "domain", "location", "device")
_TIMES = ("timestamp", "time", "t")
_SPLITS = ("split", "subset", "part")
_OURS = frozenset({"train", "calibration", "gate", "reference", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a recipe with its value and the reason for it."""

    name: str
    value: object
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the files of a data set say.

    ``keys``: of ``[data]``, ``options`` as one key. ``kind``: ``image``, ``sound``, ``window`` or ``stroke``. ``size``:
    width and height of the input. ``range``: of windows, the least and the largest number that was seen.
    """

    dataset: str
    why: str
    kind: str
    size: tuple[int, int]
    size_why: str
    keys: tuple[Key, ...] = ()
    range: tuple[float, float] = (-1.0, 1.0)


def recognised(path: Path) -> Layout:
    """Return the layout of the data at ``path``.

    Raises:
        ArchiveError: If it can't be opened, has unsafe paths, or too many or too large entries.
        DataError: If no data set reads its layout, or a file that tells its form is damaged.
    """
    with opened(path) as store:
        names = [name for name in store.names() if not is_hidden(name)]
        dataset = dataset_of(path, names, lambda name: store.read(name, MAX_CSV_BYTES))
        if dataset == "spoken" or (dataset == "class_folders" and _of(names, (".wav", ".wave"))):
            return _sounds(store, dataset, _of(names, (".wav", ".wave")))
        if dataset == "class_folders" and not _of(names, IMAGES):
            return _arrays(store, _of(names, (".npy",)))
        if dataset == "windows":
            return _windows(store, names)
        if dataset in {"recordings", "features"}:
            return _recordings(store, names) if dataset == "recordings" else _features(store, names)
    if dataset == "arrays":
        return _stack(path)
    with opened(path) as store:
        return _images(store, dataset, names)


def dataset_of(path: Path, names: Sequence[str], content: Callable[[str], bytes]) -> str:
    """Return the data set that reads files of these ``names``; ``content`` returns one.

    Raises:
        DataError: If none does.
    """
    found = ""
    if any("-idx3-ubyte" in name for name in names):
        found = "idx"
    elif path.suffix.lower() == ".npz":
        found = "arrays"
    elif _of(names, IMAGES):
        found = _listed_by([name for name in names if "/" not in name])
    elif wavs := _of(names, (".wav", ".wave")):
        flat = all(len(PurePosixPath(name).stem.split("_")) >= _PARTS_OF_SPOKEN for name in wavs)
        found = "spoken" if flat and not any("/" in name for name in wavs) else "class_folders"
    elif _of(names, (".npy",)):
        found = "class_folders"
    elif tables := _of(names, _TABLES):
        series = any(name.endswith("combined_windows.json") for name in names)
        found = "windows" if series else _kind_of_table(tables, content)
    elif _of(names, (".json",)):
        found = "windows"
    if found:
        return found
    message = f"Expected images, sounds, arrays or tables in {path}, got {', '.join(names[:5])[:200] or 'no files'}"
    raise DataError(f"{message}: docs/reference/data-sets.md shows the layouts that are read")


def _listed_by(top: Sequence[str]) -> str:
    """Return the data set of images whose labels are in one of the files ``top``, or in their folders."""
    if any(name.lower().endswith(".xml") for name in top):
        return "cvat"
    if _of(top, (".csv", ".tsv")):
        return "labelled_images"
    return "label_studio" if _of(top, (".json",)) else "class_folders"


def _kind_of_table(names: Sequence[str], content: Callable[[str], bytes]) -> str:
    """Return the data set of tables: by a column of windows, of times, or of labels of single lines."""
    name = names[0]
    if name.lower().endswith(".parquet"):
        head = parquet_columns(content(name), name)
    else:
        head = lines_of(content(name), name, ("window", "label"), {}).head
    found = {column.casefold() for column in head}
    if "window" in found:
        return "windows"
    labels = [name for name in names if name in {"labels.csv", "labels.tsv"}]
    return "features" if "label" in found and not found & set(_TIMES) and not labels else "recordings"


def images_of(names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that are images, by their suffix."""
    return _of(names, IMAGES)


def _of(names: Iterable[str], suffixes: Iterable[str]) -> list[str]:
    wanted = tuple(suffixes)
    return [name for name in names if name.lower().endswith(wanted)]


def _spread(names: Sequence[T]) -> list[T]:
    """Return at most ``_SAMPLED`` of ``names``, evenly spread."""
    step = max(1, len(names) // _SAMPLED)
    return list(names[::step][:_SAMPLED])


def _images(store: Names, dataset: str, names: Sequence[str]) -> Layout:
    keys: list[Key] = []
    if dataset == "labelled_images":
        keys += _columns(store, [name for name in names if "/" not in name])
    if dataset == "idx":
        size, grey, seen, deep = (28, 28), True, "idx files, like those of MNIST,", False
    else:
        size, grey, seen, deep = _pictures(store, _spread(_of(names, IMAGES)))
    if deep:
        keys.append(Key(name="bits", value=16, why=f"{seen} have 16 bits, which 8 would cut off"))
    if grey:
        keys.append(Key(name="colour", value="grey", why=f"{seen} are grey: a third of the input"))
    width, height = _input_size(*size)
    why = f"{seen} have a median of {size[0]} x {size[1]} pixels"
    return Layout(
        dataset=dataset, why=_WHY[dataset], kind="image", size=(width, height), size_why=why, keys=tuple(keys)
    )


_WHY = {
    "idx": "files named like those of MNIST",
    "arrays": "arrays in a .npz",
    "labelled_images": "images and a table at the top that lists them",
    "label_studio": "images and a JSON file at the top: an export of Label Studio",
    "cvat": "images and an XML file at the top: an export of CVAT",
    "class_folders": "images in folders, one a class",
}


def _stack(path: Path) -> Layout:
    """Return the layout of arrays in one file: images if they are bytes, features otherwise."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("x.npy") as file:
            shape, _, dtype = check_header(file, archive.getinfo("x.npy").file_size, f"{path}, x")
            images = dtype == np.uint8 and len(shape) > 2  # noqa: PLR2004 - (N, H, W)
            values = np.zeros(1)
            if not images:
                with archive.open("x.npy") as whole:
                    values = np.lib.format.read_array(whole, allow_pickle=False)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        message = f"Expected a file of arrays (.npz) with x at {path}, got: {str(error)[:120]}"
        raise DataError(message) from error
    why = _WHY["arrays"]
    if images:
        width, height = _input_size(shape[2], shape[1])
        grey = len(shape) == 3 or shape[3] == 1  # noqa: PLR2004 - (N, H, W)
        keys = (Key(name="colour", value="grey", why="x has one channel"),) if grey else ()
        size_why = f"x has images of {shape[2]} x {shape[1]} pixels"
        return Layout(dataset="arrays", why=why, kind="image", size=(width, height), size_why=size_why, keys=keys)
    if len(shape) < 2 or values.dtype.kind not in "fiu" or not values.size:  # noqa: PLR2004 - (N, T)
        message = f"Expected x as images or numbers (N, T) or (N, T, C) in {path}, got {dtype} {shape}"
        raise DataError(message)
    options = {"steps": shape[1], "channels": shape[2] if len(shape) > 2 else 1}  # noqa: PLR2004 - (N, T, C)
    return _windowed("arrays", why, options, f"x is {dtype} {shape}", [values[np.isfinite(values)]])


def _pictures(store: Names, names: Sequence[str]) -> tuple[tuple[int, int], bool, str, bool]:
    """Return the median (width, height) of these images, whether all are grey, what was seen, whether all are deep."""
    sizes, coloured, deep = [], False, True
    for name in names:
        try:
            with Image.open(io.BytesIO(store.read(name, MAX_IMAGE_BYTES))) as image:
                sizes.append(image.size)
                deep = deep and image.mode.startswith("I")
                image.draft("RGB", (64, 64))
                small = np.asarray(image.convert("RGB").resize((16, 16)), dtype=np.float64)
        except (OSError, ValueError, SyntaxError, CompressorError, Image.DecompressionBombError):
            continue  # counted as corrupt when all of them are read
        coloured = coloured or float(np.ptp(small, axis=2).mean()) > _GREY_LEVELS
    if not sizes:
        message = f"Expected images that can be decoded, got none among {', '.join(names[:3])[:200]}"
        raise DataError(message)
    median = statistics.median_low(width for width, _ in sizes), statistics.median_low(height for _, height in sizes)
    return median, not coloured, f"{len(sizes)} images that were looked at", deep


def _input_size(width: int, height: int) -> tuple[int, int]:
    """Return an input size for pictures of this size: 96 pixels are enough for the shorter side of most photos."""
    short, long = sorted((width, height))
    side = next((one for one in (96, 64, 48, 32) if one <= short), max(4, short // 4 * 4))
    ratio = min(4.0, long / short)
    other = side if ratio <= 1.34 else round(side * ratio / 8) * 8  # noqa: PLR2004 - 4:3 is stretched to a square
    return (other, side) if width >= height else (side, other)


def _columns(store: Names, top: Sequence[str]) -> list[Key]:
    """Return the keys for the columns of the list of images, as their names suggest."""
    lists = _of(top, (".csv", ".tsv"))
    name = "labels.csv" if "labels.csv" in lists else lists[0]
    lines = lines_of(store.read(name, MAX_CSV_BYTES), name, [one for names in _MEANINGS.values() for one in names], {})
    found = {own.strip().casefold(): own for own in reversed(lines.head)}
    meant = {
        wanted: next((found[one] for one in names if one in found), "") for wanted, names in _MEANINGS.items()
    }  # fmt: skip
    missing = next((wanted for wanted in ("path", "label") if not meant[wanted]), "")
    if missing:
        message = f"Expected a column for the {missing} in {name}, got {', '.join(lines.head)[:200] or 'none'}"
        raise DataError(f"{message}: rename it to {missing!r}")
    other = {wanted: own for wanted, own in meant.items() if own and own != wanted}
    keys = [Key(name="columns", value=other, why=f"what {name} calls them")] if other else []
    part = next((found[one] for one in _SLICES if one in found), "")
    if part:
        keys.append(Key(name="slices", value=part, why="by its name, the place: gates look at each one too"))
    told = next((found[one] for one in _SPLITS if one in found), "")
    place = lines.head.index(told) if told else 0
    if told and {line[place] for line in lines.cells if len(line) > place} <= _OURS:
        keys.append(Key(name="split", value=told, why="it tells the split of each row"))
    return keys


def _sounds(store: Names, dataset: str, names: Sequence[str]) -> Layout:
    rates, lengths = Counter[int](), []
    for name in _spread(names):
        try:
            with wave.open(io.BytesIO(store.read(name, MAX_WAV_BYTES))) as sound:
                rates[sound.getframerate()] += 1
                lengths.append(sound.getnframes() / max(1, sound.getframerate()))
        except (wave.Error, EOFError, CompressorError):
            continue  # counted as corrupt when all of them are read
    if len(rates) != 1:
        got = ", ".join(f"{rate} Hz ({count} files)" for rate, count in rates.most_common(3)) or "none that can be read"
        message = f"Expected WAV files of one sample rate, got {got}"
        raise DataError(f"{message}: resample them; a device has one microphone with one rate")
    rate = next(iter(rates))
    clip_s = min(10.0, max(0.25, round(statistics.median(lengths), 2)))
    window, hop = round(0.032 * rate), round(0.016 * rate)
    options = {"sample_rate_hz": rate, "clip_s": clip_s, "window_ms": 32, "hop_ms": 16, "mels": 32}
    seen = f"{len(lengths)} files that were looked at: {rate} Hz, a median of {clip_s:g} s"
    keys = (
        Key(name="front_end", value="log_mel", why="sounds: the device computes the same spectrogram"),
        Key(name="options", value=options, why=seen),
        Key(name="colour", value="grey", why="a spectrogram has one channel"),
    )
    frames = 1 + max(0, round(clip_s * rate) - window) // hop
    size_why = f"32 mel bands x {frames} frames of 32 ms, every 16 ms"
    why = "WAV files in folders, one a class" if dataset == "class_folders" else "WAV files label_speaker_index.wav"
    return Layout(dataset=dataset, why=why, kind="sound", size=(32, max(4, frames)), size_why=size_why, keys=keys)


def _window_keys(options: Mapping[str, float], seen: str) -> tuple[Key, ...]:
    return (
        Key(name="front_end", value="window", why="numbers over time: the device reads them alike"),
        Key(name="options", value=dict(options), why=seen),
        Key(name="colour", value="grey", why="numbers have one channel"),
    )


def _windowed(dataset: str, why: str, options: Mapping[str, float], seen: str, values: Sequence[Values] = ()) -> Layout:
    size = max(4, int(options["channels"])), max(4, int(options["steps"]))
    size_why = "a column a channel, a row a step, at least 4"
    keys = _window_keys(options, seen)
    low, high = (float(min(map(np.min, values))), float(max(map(np.max, values)))) if values else (-1.0, 1.0)
    reach = (low, high if high > low else low + 1)
    return Layout(dataset=dataset, why=why, kind="window", size=size, size_why=size_why, keys=keys, range=reach)


def _arrays(store: Names, names: Sequence[str]) -> Layout:
    values = [samples_of(read_npy(store.read(name, MAX_WINDOW_BYTES), name), name) for name in _spread(names)]
    lengths = [len(one) for one in values]
    options = {"steps": max(2, statistics.median_low(lengths)), "channels": values[0].shape[1]}
    options |= {"resample": 1} if len(set(lengths)) > 1 else {}
    seen = f"{len(values)} arrays that were looked at have {min(lengths)} to {max(lengths)} steps"
    return _windowed("class_folders", "arrays (.npy) in folders, one a class", options, seen, values)


def _windows(store: Names, names: Sequence[str]) -> Layout:
    if not _of(names, _TABLES) or any(name.endswith("combined_windows.json") for name in names):
        document = next(name for name in names if name.lower().endswith(".json"))
        if document.endswith("combined_windows.json"):
            values = _numbers(read(store, _of(names, (".csv",))[0]), {"timestamp"})
            options: dict[str, float] = {"steps": 32, "channels": values.shape[1]}
            seen = "32 steps: change it to the time in which an anomaly shows"
            return _windowed("windows", "series with labelled spans", options, seen, [values])
        if not _is_strokes(store, document):
            message = f"Expected strokes or tables, got {document}: a list of labels lies beside the files it names"
            raise DataError(message)
        keys = (
            Key(name="front_end", value="stroke", why="points of strokes: the device draws them alike"),
            Key(name="options", value={"side": 32, "line_px": 2.5, "margin_px": 3}, why="32 x 32 pixels"),
            Key(name="colour", value="grey", why="a stroke has one channel"),
        )
        return Layout(dataset="windows", why="JSON with strokes", kind="stroke", size=(32, 32),
                      size_why="the side of a stroke's picture", keys=keys)  # fmt: skip
    table = read(store, _of(names, _TABLES)[0])
    lengths = list(Counter(table.required("window")).values())
    told = {"window", "label", "source"} | {name for name in table.columns if name.startswith("target")}
    values = _numbers(table, told)
    options = {"steps": max(2, statistics.median_low(lengths)), "channels": values.shape[1]}
    options |= {"resample": 1} if len(set(lengths)) > 1 else {}
    seen = f"windows of {min(lengths)} to {max(lengths)} steps in {table.name}"
    return _windowed("windows", "a table with a line for each step of a window", options, seen, [values])


def _is_strokes(store: Names, name: str) -> bool:
    try:
        document = json.loads(store.read(name, _JSON_BYTES))
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "strokes" in document


def _recordings(store: Names, names: Sequence[str]) -> Layout:
    files = [name for name in _of(names, _TABLES) if name not in {"labels.csv", "labels.tsv"}]
    if not files:
        message = f"Expected recordings beside the list of labels, got {', '.join(names[:5])[:200]}"
        raise DataError(message)
    tables = [read(store, name) for name in _spread(files)[:5]]
    told = {"label", "source", *_TIMES}
    values = [_numbers(table, told) for table in tables]
    shortest = min(map(len, values))
    steps = next((one for one in (128, 64, 32, 16, 8) if 4 * one <= shortest), max(2, shortest // 4))
    options = {"steps": steps, "stride": max(1, steps // 2), "channels": values[0].shape[1]}
    seen = f"recordings of {shortest} steps or more; windows overlap by half: rows to learn from, of the same sources"
    return _windowed("recordings", "a table for each recording", options, seen, values)


def _features(store: Names, names: Sequence[str]) -> Layout:
    table = read(store, _of(names, _TABLES)[0])
    told = {"label", "source"}
    lists = [name for name, column in table.columns.items() if column and isinstance(column[0], list)]
    flat = [np.array(table.columns[name], dtype=np.float64).reshape(len(table.columns[name]), -1) for name in lists]
    plain = Columns(table.name, {name: column for name, column in table.columns.items() if name not in lists})
    if not flat or set(plain.columns) - told:
        flat.append(_numbers(plain, told))
    values = np.concatenate(flat, axis=1)
    options = {"steps": values.shape[1], "channels": 1}
    seen = f"{values.shape[1]} numbers in each line; channels, if several belong to one step"
    return _windowed("features", "a table with a label in each line", options, seen, [values])


def _numbers(table: Columns, told: Iterable[str]) -> Values:
    """Return the channels of ``table``, (T, C): columns of numbers, and none of those in ``told`` (in lower case)."""
    skipped, found = set(told), []
    for name in table.columns:
        if name.casefold() in skipped:
            continue
        try:
            found.append(table.numbers(name))
        except DataError:  # texts: the data set says so when it reads them
            continue
    if not found or not len(found[0]):
        message = f"Expected columns of numbers in {table.name}, got {', '.join(table.columns)[:200] or 'none'}"
        raise DataError(message)
    return np.stack(found, axis=1)
