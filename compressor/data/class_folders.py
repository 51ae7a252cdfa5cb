"""A folder for each class: the label of a file is the name of its folder. A zip or a folder, with or without splits.

::

    set/cat/001.jpg                      set/train/cat/001.jpg        set/yes/0a7c_nohash_0.wav
    set/dog/film-7/001.jpg               set/val/dog/film-7/001.jpg   set/no/ann/12.wav

Files are images; with ``[data] front_end`` they are sounds (``log_mel``, ``mfcc``: WAV) or windows of numbers
(``window``: CSV, JSON, or ``.npy`` of (steps,) or (steps, channels)), one sample a file. A folder below that of the
class is the recording: its files have one ``source``. ``_layout.placed`` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from compressor.data import check_options
from compressor.data._archive import opened
from compressor.data._front_end import Ranged, SensorSample, chosen, ranged, tabled
from compressor.data._layout import IMAGES, Placed, placed
from compressor.data._npy import read_npy, samples_of
from compressor.data._table import Table, source_name
from compressor.data._window_table import encoded
from compressor.data.labelled_images import LabelRow, listed
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe
from edge_agent.errors import SensorError
from edge_agent.front_ends import log_mel, window
from wire.settings import is_given

READS = frozenset({"path", "allow_corrupt", "orientation", "decode", "bits", "front_end", "options"})
_FRONT_ENDS = {"log_mel": log_mel.SUFFIXES, "mfcc": log_mel.SUFFIXES, "window": frozenset({".csv", ".json", ".npy"})}


def front_end(data: DataRecipe) -> tuple[str, dict[str, float]]:
    """Return the front end's name and all its options, as in the manifest.

    Raises:
        DataError: If the front end is unknown, or an option is unknown or out of range.
    """
    return chosen(data, tuple(_FRONT_ENDS))


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the files of all classes in ``data.path`` (a zip or a folder), in the order of their names.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, too many or too large entries, or no file of the
            kind.
        CorruptImageError: If more files than ``data.allow_corrupt`` can't be read.
        DataError: If a file is in no folder of a class, a folder has no file of the kind, or an option is invalid.
        SplitError: If one content or one recording is in two of the splits that the folders tell.
    """
    path = (root or Path()) / data.path
    if data.front_end:
        _check_images_only(data)
        return tabled(data, path, front_end(data), _samples(path, data), what="files that can't be read")
    if data.options:
        message = f"Expected no options in [data] for folders of images, got {', '.join(sorted(data.options))}"
        raise DataError(f"{message}: they belong to a front_end (log_mel, mfcc, window); name it, or leave them out")
    rows = [
        LabelRow(path=file.name, label=file.label, slice="all", split=file.split, source=source_name(file.source))
        for file in _placed(path, IMAGES)
    ]
    return listed(data, path, rows)


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return the numbers of all files before conversion to 8 bits, to fit ranges.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``, or if the files are images.
        SensorError: If a file is cut off or of another kind.
    """
    name, options = front_end(data)
    return ranged(_samples((root or Path()) / data.path, data, text=True), name, options)


def _check_images_only(data: DataRecipe) -> None:
    given = next((key for key in ("orientation", "decode", "bits") if is_given(data, key)), None)
    if given is not None:
        message = f"Expected no {given} in [data] with front_end = {data.front_end!r}, got {getattr(data, given)!r}"
        raise DataError(f"{message}: it is about images; leave it out")


def _placed(path: Path, suffixes: frozenset[str]) -> list[Placed]:
    with opened(path) as store:
        return placed(store.names(), suffixes, str(path))


def _samples(path: Path, data: DataRecipe, *, text: bool = False) -> Iterator[SensorSample]:
    """Yield all samples; those of ``.npy`` are raw float32 if options have ``binary`` and ``text`` is off."""
    suffixes = _FRONT_ENDS[front_end(data)[0]]
    check_options(data, ("stride", "source_windows"), "a window in each file")
    binary = bool(data.options.get("binary", 0)) and not text
    limit_bytes = window.MAX_WINDOW_BYTES if data.front_end == "window" else log_mel.MAX_WAV_BYTES
    with opened(path) as store:
        for file in placed(store.names(), suffixes, str(path)):
            content, problem = store.read(file.name, limit_bytes), ""
            try:
                content = _sensed(content, file.name, binary=binary)
            except DataError as error:
                problem = str(error)
            yield SensorSample(
                name=file.name,
                data=content,
                label=file.label,
                slice="all",
                source=source_name(file.source) or file.name,
                split=file.split,
                problem=problem,
                columns=window.header(content) if data.front_end == "window" and not problem else (),
            )


def _sensed(content: bytes, name: str, *, binary: bool) -> bytes:
    """Return the bytes that a device would get: of text the same, of an array raw float32, or JSON."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in log_mel.SUFFIXES:
        return content
    if suffix == ".npy":
        values = samples_of(read_npy(content, name), name)
    elif binary:
        try:
            values = window.parse(content)
        except SensorError as error:
            raise DataError(str(error)) from error
    else:
        return content
    return encoded(values, binary=binary)
