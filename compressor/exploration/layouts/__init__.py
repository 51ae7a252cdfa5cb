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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np
from PIL import Image

from compressor.data._archive import Names, opened
from compressor.data._delimited import Lines, flag, lines_of
from compressor.data._layout import IMAGES, is_hidden
from compressor.data._npy import check_header, read_npy, samples_of
from compressor.data._window_table import columns_of, read
from compressor.data.labelled_images import MAX_CSV_BYTES, with_labels
from compressor.data.sound_events import MAX_RECORDING_BYTES
from compressor.errors import CompressorError, DataError
from compressor.exploration.layouts import annotated, tabular
from compressor.exploration.layouts.form import (
    MEANINGS,
    OUR_SPLITS,
    SLICES,
    SPLITS,
    TABLES,
    Layout,
    ending,
    named,
    place_keys,
    spread,
    windowed,
)
from compressor.tasks._drafting import Key
from edge_agent.front_ends.log_mel import MAX_WAV_BYTES
from edge_agent.front_ends.window import MAX_WINDOW_BYTES
from edge_agent.inference.preprocess import MAX_IMAGE_BYTES
from edge_agent.streams.wav_header import plain_wav

_GREY_LEVELS = 2.0  # difference of the channels of a grey picture after JPEG
_JSON_BYTES = 256 * 1024 * 1024
_PARTS_OF_SPOKEN = 3
_IDX = "-idx3-ubyte"
_SOUNDS = (".wav", ".wave")
_KNOWN = frozenset({
    "sex", "gender", "male", "female", "is_male", "is_female", "smoker", "pregnant", "married", "adult", "child",
    "train", "is_train", "valid", "is_valid", "validation", "test", "is_test", "val", "is_val", "fold", "left", "right",
    "day", "night", "indoor", "outdoor", "flash",
})  # fmt: skip
"""Names of columns that say whom or what a picture is of, where and how it was taken, or its split."""
_LEAST_BOX = 12  # pixels of the shorter side of the median box: one and a half cells of the grid
TASKS = {"boxes": "detection", "sound_events": "stream_events"}
"""The task of data sets whose rows are of one kind."""
_EVENT_COLUMNS = {
    "path": MEANINGS["path"],
    "start_s": ("start_s", "start", "onset", "begin", "start_time", "from"),
    "end_s": ("end_s", "end", "offset", "stop", "end_time", "to"),
    "label": ("label", "event_label", "event", "class", "word", "annotation"),
}


def recognised(path: Path, labels: Sequence[str] = ()) -> Layout:
    """Return the layout of the data at ``path``; ``labels``: the columns of a table that a person named as labels.

    Raises:
        ArchiveError: If it can't be opened, has unsafe paths, or too many or too large entries.
        DataError: If no data set reads its layout, or a file that tells its form is damaged.
    """
    with opened(path) as store:
        names = _with_labels(store, labels)
        dataset, why = dataset_of(path, store, labels)
        if labels and dataset not in {"features", "labelled_images", "recordings"}:
            message = f"Expected --label for a table, or a list of images, got it for {why} ({dataset})"
            raise DataError(f"{message}: leave it out")
        sounds = ending(names, _SOUNDS)
        kind = dataset
        if dataset == "class_folders":
            kind = "sounds" if sounds else "images" if ending(names, IMAGES) else "windows of arrays"
        makers: dict[str, Callable[[], Layout]] = {
            "boxes": lambda: _boxes(store, why),
            "sound_events": lambda: _events(store, sounds, why),
            "spoken": lambda: _sounds(store, dataset, sounds),
            "sounds": lambda: _sounds(store, dataset, sounds),
            "windows of arrays": lambda: _arrays(store, ending(names, (".npy",))),
            "windows": lambda: _windows(store, names),
            "recordings": lambda: tabular.recordings(store, names, why, labels),
            "features": lambda: tabular.features(store, names, why, labels),
            "arrays": lambda: _stack(path),
        }
        make = makers.get(kind)
        return make() if make else _images(store, dataset, names, labels)


def dataset_of(path: Path, store: Names, labels: Sequence[str] = ()) -> tuple[str, str]:
    """Return the data set that reads the files of ``store``, opened at ``path``, and why; ``labels``: as above.

    Raises:
        DataError: If none does.
    """
    names = _with_labels(store, labels)
    if any(_IDX in name for name in names):
        found = "idx"
    elif ending(names, IMAGES):
        if why := annotated.form_of(store):
            return "boxes", why
        found = _listed_by([name for name in names if "/" not in name])
    elif path.suffix.lower() == ".npz" or {"x.npy", "y.npy"} <= set(names):
        found = "arrays"
    elif wavs := ending(names, _SOUNDS):
        return _of_sounds(store, names, wavs)
    else:
        return _of_numbers(path, store, names, labels)
    return found, _WHY[found]


def _with_labels(store: Names, labels: Sequence[str]) -> list[str]:
    """Return the files of ``store`` that are read; without ``labels`` those are told by their names, or unknown."""

    def told(head: Sequence[str]) -> Sequence[str]:
        own = named(head, MEANINGS["label"])
        return labels or ([own] if own else head)

    names = [name for name in store.names() if not is_hidden(name)]
    return with_labels(names, store.read, told, partial(columns_of, store))[0]


def _of_sounds(store: Names, names: Sequence[str], wavs: Sequence[str]) -> tuple[str, str]:
    if why := _lists_events(store, names, wavs):
        return "sound_events", why
    flat = all(len(PurePosixPath(name).stem.split("_")) >= _PARTS_OF_SPOKEN for name in wavs)
    if flat and not any("/" in name for name in wavs):
        return "spoken", "WAV files label_speaker_index.wav"
    return "class_folders", "WAV files in folders, one a class"


def _of_numbers(path: Path, store: Names, names: Sequence[str], labels: Sequence[str]) -> tuple[str, str]:
    if ending(names, (".npy",)):
        return "class_folders", "arrays (.npy) in folders, one a class"
    tables = ending(names, TABLES)
    if tables and not any(name.endswith("combined_windows.json") for name in names):
        return tabular.kind_of_table(store, tables, labels)
    if tables or ending(names, (".json",)):
        return "windows", "series with labelled spans, or strokes"
    message = f"Expected images, sounds, arrays or tables in {path}, got {', '.join(names[:5])[:200] or 'no files'}"
    raise DataError(f"{message}: docs/reference/data-sets.md shows the layouts that are read")


def _listed_by(top: Sequence[str]) -> str:
    """Return the data set of images whose labels are in one of the files ``top``, or in their folders."""
    if any(name.lower().endswith(".xml") for name in top):
        return "cvat"
    if ending(top, (".csv", ".tsv")):
        return "labelled_images"
    return "label_studio" if ending(top, (".json",)) else "class_folders"


def images_of(names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that are images, by their suffix."""
    return ending(names, IMAGES)


def _images(store: Names, dataset: str, names: Sequence[str], labels: Sequence[str] = ()) -> Layout:
    keys: list[Key] = []
    texts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    if dataset == "labelled_images":
        keys, texts, remarks = _columns(store, names, labels)
    if dataset == "idx":
        size, seen = (28, 28), "idx files, like those of MNIST,"
        keys += _levels(seen, deep=False, grey=True)
    else:
        size, seen, levels = _pictures(store, spread(ending(names, IMAGES)))
        keys += levels
    width, height = _input_size(*size)
    why = f"{seen} have a median of {size[0]} x {size[1]} pixels"
    return Layout(
        dataset=dataset, why=_WHY[dataset], kind="image", size=(width, height), size_why=why, keys=tuple(keys),
        texts=texts, remarks=remarks,
    )  # fmt: skip


_WHY = {
    "idx": "files named like those of MNIST",
    "arrays": "arrays in a .npz",
    "labelled_images": "images and a table at the top that lists them",
    "label_studio": "images and a JSON file at the top: an export of Label Studio",
    "cvat": "images and an XML file at the top: an export of CVAT",
    "class_folders": "images in folders, one a class",
}


def _stack(path: Path) -> Layout:
    """Return the layout of arrays in one file or folder: images if they are bytes, else rows of features or windows."""
    try:
        x, y = _members(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        message = f"Expected a file of arrays (.npz) with x and y at {path}, got: {str(error)[:120]}"
        raise DataError(message) from error
    why, shape = _WHY["arrays"], x.shape
    keys = _labels_of(y)
    if x.dtype == np.uint8 and len(shape) > 2:  # noqa: PLR2004 - (N, H, W)
        width, height = _input_size(shape[2], shape[1])
        if len(shape) == 3 or shape[3] == 1:  # noqa: PLR2004 - (N, H, W)
            keys.append(Key(name="colour", value="grey", why="x has one channel"))
        return Layout(dataset="arrays", why=why, kind="image", size=(width, height),
                      size_why=f"x has images of {shape[2]} x {shape[1]} pixels", keys=tuple(keys))  # fmt: skip
    if len(shape) < 2 or x.dtype.kind not in "fiu" or not x.size:  # noqa: PLR2004 - (N, T)
        message = f"Expected x as images or numbers (N, T) or (N, T, C) in {path}, got {x.dtype} {shape}"
        raise DataError(message)
    if len(shape) == 2:  # noqa: PLR2004 - (N, F)
        why = f"{why}: x is {x.dtype} {shape}, rows of features; give a series a third axis, (N, T, 1)"
        return tabular.rows_of("arrays", why, x.astype(np.float64), keys, where=str(path))
    options = {"steps": shape[1], "channels": shape[2]}
    found = windowed("arrays", why, options, f"x is {x.dtype} {shape}", [x[np.isfinite(x)]])
    return replace(found, keys=(*keys, *found.keys))


def _members(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return x and y of the arrays at ``path``; of images only the shape is read."""

    def read_whole(file: IO[bytes], size_bytes: int, name: str) -> np.ndarray[Any, Any]:
        shape, _, dtype = check_header(file, size_bytes, f"{path}, {name}")
        if dtype == np.uint8 and len(shape) > 2:  # noqa: PLR2004 - (N, H, W)
            return np.broadcast_to(np.zeros(1, np.uint8), shape)
        file.seek(0)
        return cast("np.ndarray[Any, Any]", np.lib.format.read_array(file, allow_pickle=False))

    if path.is_dir():
        found = []
        for name in ("x", "y"):
            with (path / f"{name}.npy").open("rb") as opened_file:
                found.append(read_whole(opened_file, (path / f"{name}.npy").stat().st_size, name))
        return found[0], found[1]
    with zipfile.ZipFile(path) as archive:
        found = []
        for name in ("x", "y"):
            with archive.open(f"{name}.npy") as entry:
                found.append(read_whole(entry, archive.getinfo(f"{name}.npy").file_size, name))
    return found[0], found[1]


def _labels_of(y: np.ndarray[Any, Any]) -> list[Key]:
    """Return the keys that labels of this shape and type need: several labels, numbers, or none for classes."""
    if y.ndim == 2:  # noqa: PLR2004 - (N, L)
        return [Key(name="task", value="multi_label", why=f"y is {y.shape}: {y.shape[1]} labels, each 0 or 1 in a row")]
    if y.dtype.kind == "f":
        return [Key(name="label", value="number", why=f"y is {y.dtype}: numbers to predict")]
    return []


def _boxes(store: Names, why: str) -> Layout:
    """Return the layout of pictures with boxes: splits that the files tell, and a size in which boxes can be seen."""
    split, box, images = annotated.told(store)
    size, seen, levels = _pictures(store, spread(images))
    longest = next((one for one in (224, 320) if box * one >= _LEAST_BOX), 320)
    scale = min(1.0, longest / max(size))
    width, height = (max(32, round(side * scale / 16) * 16) for side in size)
    keys = [Key(name="task", value=TASKS["boxes"], why="boxes around objects"), *split, *levels]
    size_why = (
        f"{seen} have a median of {size[0]} x {size[1]} pixels, half of the boxes at least {100 * box:.2g} % of a "
        "side; multiples of 16"
    )
    return Layout(dataset="boxes", why=why, kind="image", size=(width, height), size_why=size_why, keys=tuple(keys))


def _pictures(store: Names, names: Sequence[str]) -> tuple[tuple[int, int], str, list[Key]]:
    """Return the median (width, height) of these images, what was seen, and the keys for bits and colour."""
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
    seen = f"{len(sizes)} images that were looked at"
    return median, seen, _levels(seen, deep=deep, grey=not coloured)


def _levels(seen: str, *, deep: bool, grey: bool) -> list[Key]:
    """Return the keys of images, ``seen``, that all have 16 bits (``deep``), or are all ``grey``."""
    keys = []
    if deep:
        keys.append(Key(name="bits", value=16, why=f"{seen} have 16 bits, which 8 would cut off"))
    if grey:
        keys.append(Key(name="colour", value="grey", why=f"{seen} are grey: a third of the input"))
    return keys


def _input_size(width: int, height: int) -> tuple[int, int]:
    """Return an input size for pictures of this size: 96 pixels are enough for the shorter side of most photos."""
    short, long = sorted((width, height))
    side = next((one for one in (96, 64, 48, 32) if one <= short), max(4, short // 4 * 4))
    ratio = min(4.0, long / short)
    other = side if ratio <= 1.34 else round(side * ratio / 8) * 8  # noqa: PLR2004 - 4:3 is stretched to a square
    return (other, side) if width >= height else (side, other)


def _columns(
    store: Names, names: Sequence[str], labels: Sequence[str]
) -> tuple[list[Key], tuple[str, ...], tuple[str, ...]]:
    """Return the keys for the columns of the list of images, as their names suggest; each row's label; remarks."""
    lists = ending([name for name in names if "/" not in name], (".csv", ".tsv"))
    if len(lists) > 1 and "labels.csv" not in lists:
        message = f"Expected one CSV file at the top, or labels.csv, got {', '.join(lists)[:200]}"
        raise DataError(f"{message}: call the one with path and label labels.csv, or put the others elsewhere")
    name = "labels.csv" if "labels.csv" in lists else lists[0]
    wanted = [*labels, *(one for names in MEANINGS.values() for one in names)]
    lines = lines_of(store.read(name, MAX_CSV_BYTES), name, wanted, {})
    others = [one for one in lines.head if one not in labels]
    meant = {meaning: named(others, words) for meaning, words in MEANINGS.items()}
    meant["path"] = meant["path"] or _names_files(lines, names)
    if len(labels) == 1:
        meant["label"] = labels[0] if labels[0] in lines.head else ""
    by = "named by --label" if labels else "columns of 0 and 1 alone, and none is called label"
    several, left_out = list(labels) if len(labels) > 1 else [], ""
    if not several and not meant["label"]:
        several, left_out = _flags(lines, meant.values())
    if len(several) == 1:
        meant["label"], several = several[0], []
    lost = next((one for one in labels if one not in lines.head), "")
    missing = lost or next(
        (one for one in ("path", "label") if not meant[one] and not (one == "label" and several)), ""
    )
    if missing:
        message = f"Expected a column for the {missing} in {name}, got {', '.join(lines.head)[:200] or 'none'}"
        remedy = (
            "name it, compressor init … --label COLUMN (once for each of several labels of 0 and 1)"
            if missing == "label"
            else f"rename it to {missing!r}"
        )
        raise DataError(f'{message}: {remedy}, or write a recipe with columns = {{{missing} = "…"}} in [data]')
    other = {meaning: own for meaning, own in meant.items() if own and own != meaning and own not in several}
    keys = tabular.label_columns(several, by) if several else []
    if several:
        other.pop("label", None)
    keys += [Key(name="columns", value=other, why=f"what {name} calls them")] if other else []
    left = [own for own in lines.head if own not in several]
    told = named(left, SPLITS)
    ours = told and set(lines.column(told)) <= OUR_SPLITS
    keys += place_keys(named(left, SLICES), told if ours else "")
    if several:
        return keys, (), (_said_of_labels(lines, several) + left_out,)
    only = f"the label is {meant['label']!r}, the only other column of 0 and 1{left_out}" if left_out else ""
    return keys, tuple(lines.column(meant["label"])), tuple(filter(None, [only]))


def _names_files(lines: Lines, names: Sequence[str]) -> str:
    """Return the first column most of whose cells are names or stems of the images among ``names``; "" if none is."""
    images = [PurePosixPath(name) for name in images_of(names)]
    known = {text for image in images for text in (str(image), image.name, image.stem)}
    for column in filter(None, lines.head):
        cells = lines.column(column)
        if 2 * sum(cell in known for cell in cells) > len(cells) and len(set(cells)) == len(cells):
            return column
    return ""


def _flags(lines: Lines, taken: Iterable[str]) -> tuple[list[str], str]:
    """Return the columns with a flag in every line, 0 and 1, besides those ``taken``, if there are two or more.

    Flags are also written ``0.0`` and ``1.0``, or ``false`` and ``true``. A column that is, by its name, known of each
    picture, such as whom it is of or its split, is none of several, as long as there are others; the words say so.
    """
    others = [name for name in lines.head if name and name not in set(taken)]
    found = [name for name in others if _flag_values(lines, name) == {0.0, 1.0}]
    known = [name for name in found if name.strip().casefold() in _KNOWN]
    if len(found) < 2 or len(known) == len(found):  # noqa: PLR2004 - one alone may be anything
        return (found, "") if len(found) > 1 else ([], "")
    if not known:
        return found, ""
    words = f"; not taken: {', '.join(known)}, by its name known of a picture beforehand (if not, --label names all)"
    return [name for name in found if name not in known], words


def _flag_values(lines: Lines, name: str) -> set[float]:
    """Return which of 0 and 1 the column has; nothing if a cell is something else."""
    try:
        return {flag(cell, name) for cell in set(lines.column(name))}
    except DataError:
        return set()


def _said_of_labels(lines: Lines, labels: Sequence[str]) -> str:
    """Return which columns were taken for labels, and whether each line has exactly one: then they may be classes."""
    said = f"labels, a column of 0 and 1 each: {', '.join(labels)}; --label NAME for each of them chooses others"
    if not all(_flag_values(lines, name) for name in labels):
        return said  # the data set says what is wrong
    rows = zip(*([flag(cell, name) for cell in lines.column(name)] for name in labels), strict=True)
    if not all(sum(row) == 1 for row in rows):
        return said
    return (
        f"{said}. Each line has exactly one of them: if no picture can have two, they are classes; write the name of "
        "the column with the 1 into one column, label, and leave label_columns and task out"
    )


def _sounds(store: Names, dataset: str, names: Sequence[str]) -> Layout:
    rate, lengths = _heard(store, spread(names), MAX_WAV_BYTES)
    clip_s = min(10.0, max(0.25, round(statistics.median(lengths), 2)))
    seen = f"{len(lengths)} files that were looked at: {rate} Hz, a median of {clip_s:g} s"
    _, why = _of_sounds(store, names, names)
    return _spectrogram(dataset, why, (), {"sample_rate_hz": rate, "clip_s": clip_s}, seen)


def _heard(store: Names, names: Sequence[str], limit_bytes: int) -> tuple[int, list[float]]:
    """Return the one sample rate of the files ``names``, and how long they are, in seconds.

    Raises:
        DataError: If no file can be read (the first is named), or they have several rates.
    """
    rates, lengths, refused = Counter[int](), [], list[str]()
    for name in names:
        try:
            with wave.open(io.BytesIO(plain_wav(store.read(name, limit_bytes)))) as sound:
                rates[sound.getframerate()] += 1
                lengths.append(sound.getnframes() / max(1, sound.getframerate()))
        except (wave.Error, EOFError, CompressorError) as error:
            refused.append(f"{name}: {error}")  # counted as corrupt when all of them are read
    if not rates:
        message = f"Expected WAV files of 8- or 16-bit PCM, got none in {len(refused)} that were looked at"
        first = f", {refused[0][:300]}" if refused else ""
        raise DataError(f"{message}{first}: mend or convert them (ffmpeg -i FILE -ac 1 -c:a pcm_s16le NEW.wav)")
    if len(rates) != 1:
        got = ", ".join(f"{rate} Hz ({count} files)" for rate, count in rates.most_common(3))
        message = f"Expected WAV files of one sample rate, got {got}"
        raise DataError(f"{message}: resample them; a device has one microphone with one rate")
    return next(iter(rates)), lengths


def _spectrogram(dataset: str, why: str, keys: Sequence[Key], own: dict[str, float], seen: str) -> Layout:
    """Return the layout of sounds; ``own``: the options with sample rate and length, and those of the data set."""
    rate, clip_s = int(own["sample_rate_hz"]), own["clip_s"]
    window, hop = round(0.032 * rate), round(0.016 * rate)
    frames = 1 + max(0, round(clip_s * rate) - window) // hop
    found = (
        Key(name="front_end", value="log_mel", why="sounds: the device computes the same spectrogram"),
        Key(name="options", value={**own, "window_ms": 32, "hop_ms": 16, "mels": 32}, why=seen),
        Key(name="colour", value="grey", why="a spectrogram has one channel"),
    )
    size_why = f"32 mel bands x {frames} frames of 32 ms, every 16 ms"
    return Layout(dataset=dataset, why=why, kind="sound", size=(32, max(4, frames)), size_why=size_why,
                  keys=(*keys, *found))  # fmt: skip


def _lists_events(store: Names, names: Sequence[str], wavs: Sequence[str]) -> str:
    """Return why these recordings have lists of events; "" if they have none."""
    name, beside = _list_of_events(store, names, wavs)
    if not name:
        return ""
    return "recordings (WAV), " + ("a list of events beside each" if beside else f"their events in {name}")


def _list_of_events(store: Names, names: Sequence[str], wavs: Sequence[str]) -> tuple[str, bool]:
    """Return a list of events, "" if there is none, and whether it is that of one recording, beside it."""
    own = {PurePosixPath(name).with_suffix(".csv").as_posix() for name in wavs} & set(names)
    top = [name for name in ending(names, (".csv",)) if "/" not in name and name not in own]
    for name in [*sorted(own)[:1], *top]:
        _, found = _event_list(store, name)
        if {"start_s", "end_s", "label"} <= set(found) and (name in own or "path" in found):
            return name, name in own
    return "", False


def _event_list(store: Names, name: str) -> tuple[Lines, dict[str, str]]:
    """Return the list of events ``name``, and what it calls the columns that are wanted, for those that it has."""
    lines = lines_of(store.read(name, MAX_CSV_BYTES), name, [one for own in _EVENT_COLUMNS.values() for one in own], {})
    meant = {wanted: named(lines.head, words) for wanted, words in _EVENT_COLUMNS.items()}
    return lines, {wanted: own for wanted, own in meant.items() if own}


def _events(store: Names, wavs: Sequence[str], why: str) -> Layout:
    """Return the layout of recordings with events: windows a little longer than most events."""
    lists = [name for name in ending(store.names(), (".csv",)) if not is_hidden(name)]
    first, _ = _list_of_events(store, lists, wavs)
    _, found = _event_list(store, first)
    lengths = list[float]()
    for name in dict.fromkeys([first, *spread(lists)]):
        lines, own = _event_list(store, name)
        lengths += _lengths(lines, own) if found.items() <= own.items() else []
    rate, lasts = _heard(store, spread(wavs)[:5], MAX_RECORDING_BYTES)
    usual_s = statistics.median(lengths) if lengths else 0.8
    clip_s = float(round(min(2.0, max(0.3, 1.2 * usual_s), *lasts), 2))
    options = {
        "sample_rate_hz": rate,
        "clip_s": clip_s,
        "stride_s": max(0.05, round(clip_s / 4, 2)),
        "tolerance_s": 0.5,
    }
    seen = f"{rate} Hz; a window is a little longer than the median event ({usual_s:.2g} s), a quarter of it the stride"
    other = {wanted: own for wanted, own in found.items() if own != wanted}
    keys = [Key(name="task", value=TASKS["sound_events"], why="events with begin and end in recordings")]
    keys += [Key(name="columns", value=other, why="what the lists call them")] if other else []
    return _spectrogram("sound_events", why, keys, options, seen)


def _lengths(lines: Lines, columns: dict[str, str]) -> list[float]:
    """Return how long the events of a list are, in seconds; lines without times are passed over."""
    found = []
    for start, end in zip(lines.column(columns["start_s"]), lines.column(columns["end_s"]), strict=True):
        try:
            found.append(float(end) - float(start))
        except ValueError:  # of no event, or wrong: the data set says so
            continue
    return [length for length in found if length > 0]


def _arrays(store: Names, names: Sequence[str]) -> Layout:
    values = [samples_of(read_npy(store.read(name, MAX_WINDOW_BYTES), name), name) for name in spread(names)]
    lengths = [len(one) for one in values]
    options = {"steps": max(2, statistics.median_low(lengths)), "channels": values[0].shape[1]}
    options |= {"resample": 1} if len(set(lengths)) > 1 else {}
    seen = f"{len(values)} arrays that were looked at have {min(lengths)} to {max(lengths)} steps"
    return windowed("class_folders", "arrays (.npy) in folders, one a class", options, seen, values)


def _windows(store: Names, names: Sequence[str]) -> Layout:
    if not ending(names, TABLES) or any(name.endswith("combined_windows.json") for name in names):
        document = next(name for name in names if name.lower().endswith(".json"))
        if document.endswith("combined_windows.json"):
            series = read(store, ending(names, (".csv",))[0])
            values = tabular.channels_of(series, {"timestamp"})
            options: dict[str, float] = {"steps": 32, "channels": values.shape[1]}
            seen = "32 steps: change it to the time in which an anomaly shows"
            found = windowed("windows", "series with labelled spans", options, seen, [values])
            return replace(found, interval_s=options["steps"] * tabular.spacing_s(series))
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
    table = read(store, ending(names, TABLES)[0])
    lengths = list(Counter(table.required("window")).values())
    told = {"window", "label", "source"} | {name for name in table.columns if name.startswith("target")}
    values = tabular.channels_of(table, told)
    options = {"steps": max(2, statistics.median_low(lengths)), "channels": values.shape[1]}
    options |= {"resample": 1} if len(set(lengths)) > 1 else {}
    seen = f"windows of {min(lengths)} to {max(lengths)} steps in {table.name}"
    return windowed("windows", "a table with a line for each step of a window", options, seen, [values])


def _is_strokes(store: Names, name: str) -> bool:
    try:
        document = json.loads(store.read(name, _JSON_BYTES))
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "strokes" in document
