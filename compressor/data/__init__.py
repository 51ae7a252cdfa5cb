"""Data sets. The folder is the registry: each has ``load(data: DataRecipe, root: Path | None) -> Table`` and ``READS``.

``READS``: the members of ``KEYS`` that it reads. An unread key is an error, because the user expects an effect; all
other keys apply to every data set (sizes, colour, mean, shares). A person's own data set may read any.

Modules that begin with ``_`` are helpers of data sets, above all ``_table.Table``.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor import plugins, tasks
from compressor.cache import Cache, Stage
from compressor.closure import package, plugin
from compressor.data._stored_images import Images, StoredImages, object_array, shapes_of, stored_in
from compressor.data._stored_images import read as read_pixels
from compressor.data._stored_images import write as write_pixels
from compressor.data._table import Shares, Table, check_sound
from compressor.errors import CompressorError, DataError, PluginError, StorageError
from compressor.recipe.model import DataRecipe
from wire.canonical import sha256_file, sha256_hex
from wire.settings import is_given

FLOOR = 'label = "floor"'
KEYS = (
    "path",
    "slices",
    "split",
    "allow_corrupt",
    "orientation",
    "decode",
    "bits",
    "front_end",
    "options",
    "columns",
    "label_columns",
    "ignore",
    "missing",
    FLOOR,
)
"""Keys that not every data set reads. Of ``label`` only ``floor``: ``exact`` and ``number`` apply to all."""


def datasets() -> tuple[str, ...]:
    """Return the names of the data sets in this folder."""
    return plugins.names(__name__)


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the table that ``data`` describes; a relative ``data.path`` is relative to ``root``.

    Raises:
        PluginError: If the data set is unknown, raises an error that is not ours, or does not return a ``Table``.
        DataError: If its data can't be used, ``data`` sets a key that the data set does not read, or its labels are not
            targets of the recipe's task.
    """
    check_read(data, datasets())
    if data.needs and not data.path:
        quick = ", or try the recipe with --quick, on generated data" if data.stand_in else ""
        message = f"Expected data, got no [data] path: the recipe needs {data.needs}"
        raise DataError(f"{message}; pass it with --data{quick}")
    found = plugins.resolve(__name__, data.dataset, "load", known=datasets())
    table = _own(found, data, root) if ":" in data.dataset else found(data, root)
    if not isinstance(table, Table):
        message = f"Expected {data.dataset!r} to return a Table, got {type(table).__name__}"
        raise PluginError(message)
    check_sound(table, data.dataset, bits=data.bits)
    if data.split and table.told is None:
        message = f"Expected a data set that tells splits for [data] split = {data.split!r}, got {data.dataset!r}"
        raise DataError(f"{message}: use labelled_images, or leave it out")
    told = set() if table.told is None else set(table.told.tolist())
    if data.shares and told >= {"calibration", "reference"} and "" not in told:
        message = f"Expected no shares in [data] with split = {data.split!r}, whose column tells every row's split"
        raise DataError(f"{message}: nothing is drawn; leave shares out, or leave some rows open")
    task = tasks.of(data)
    table = replace(task.targets.read(table, data), task=task.name)
    return replace(table, shares=Shares(**data.shares)) if data.shares else table


def _own(found: Callable[..., object], data: DataRecipe, root: Path | None) -> object:
    """Return the result of a person's own data set; errors that it raises are reported with their line."""
    try:
        return found(data, root)
    except CompressorError:
        raise
    except Exception as error:  # foreign code may raise anything
        message = f"Expected {data.dataset!r} to return a Table, got {plugins.failure(error)}"
        raise PluginError(message) from error


def check_read(data: DataRecipe, known: tuple[str, ...]) -> None:
    """Check that ``data`` sets no key that its data set, one of ``known``, does not read.

    Raises:
        DataError: If it does; the key, the data set and those that read the key are named.
    """
    if data.dataset not in known:
        return
    given = [key for key in KEYS if (data.label == "floor" if key == FLOOR else is_given(data, key))]
    unread = [key for key in given if key not in reads(data.dataset)]
    if not unread:
        return
    key = unread[0]
    others = ", ".join(name for name in known if key in reads(name))
    value = "" if key == FLOOR else f" = {getattr(data, key)!r}"
    message = f"Expected no {key}{value} in [data] with dataset = {data.dataset!r}, which does not read it"
    raise DataError(f"{message}: leave it out, or name a data set that does ({others})")


def check_options(data: DataRecipe, unread: tuple[str, ...], why: str) -> None:
    """Check that ``[data] options`` contain none of ``unread``; ``why``: the kind of data, for the message.

    Raises:
        DataError: If they do.
    """
    found = next((name for name in unread if name in data.options), None)
    if found is not None:
        message = f"Expected no {found!r} in [data] options with {why}, got {data.options[found]:g}"
        raise DataError(f"{message}: nothing would read it; leave it out")


def reads(dataset: str) -> frozenset[str]:
    """Return the members of ``KEYS`` that the data set ``dataset`` of this folder reads."""
    found: frozenset[str] = importlib.import_module(f"compressor.data.{dataset}").READS
    return found


def load_kept(cache: Cache, data: DataRecipe, root: Path) -> Table:
    """Return the table of ``data``; cached if it comes from one file or from none (a folder is read every time).

    A resumed run then neither decodes nor renders again. Many images are kept on disk, beside the cache's results.

    Raises:
        PluginError: If the data set is unknown.
        DataError: If its data can't be used, or its file changes while it is read.
        StorageError: If its images can't be kept.
    """
    path, folder = root / data.path, cache.results
    if data.dataset not in datasets() or (data.path and not path.is_file()):
        with stored_in(folder):
            return load(data, root)
    content = sha256_file(path) if data.path else ""

    def make() -> bytes:
        with stored_in(folder):
            table = load(data, root)
        if content and sha256_file(path) != content:  # what was read may be neither the old file nor the new one
            message = f"Expected {path} to stay as it is while it is read, got another content"
            raise DataError(f"{message}: run again when nothing writes to it")
        return pack(table, folder)

    inputs = {"recipe": repr(data), "task": tasks.of(data).name, "file": content}
    if data.columns:
        inputs["columns"] = repr(sorted(data.columns.items()))
    stage = Stage(name="data", inputs=inputs, make=make, uses=code_of(data))
    packed = cache.result(stage).data
    try:
        return unpack(packed, folder)
    except StorageError:  # the result is there, its pixels were deleted or damaged
        cache.forget(stage)
        return unpack(cache.result(stage).data, folder)


def code_of(data: DataRecipe) -> tuple[str, ...]:
    """Return the modules that determine the table of ``data``, in addition to this one.

    Both a data set and a recipe can name a front end, so all of them count.
    """
    sources = (plugin("compressor.data", data.dataset), tasks.of(data).code("targets"))
    return (*sources, *package("edge_agent.front_ends"))


def pack(table: Table, folder: Path | None = None) -> bytes:
    """Return the bytes of ``table``; the pixels of images on disk are written to a file in ``folder`` instead.

    Raises:
        StorageError: If they can't be written.
    """
    images, shapes, pixels = table.images, shapes_of(table.images), ""
    if isinstance(images, StoredImages) and folder is not None:
        pixels = write_pixels(images, folder / _pixels_of(table.hashes))
        images = images[:0]
    names, corrupt = np.array(table.class_names), np.array(table.corrupt, dtype=np.str_)
    buffer = io.BytesIO()
    shares = np.array(astuple(table.shares))
    told, places, kinds = (
        np.array([] if one is None else one, dtype=np.str_) for one in (table.told, table.names, table.kinds)
    )
    columns = (table.labels, table.slices, table.sources, table.hashes)
    np.lib.format.write_array(buffer, shapes, allow_pickle=False)
    size = 0 if pixels else int(shapes.prod(axis=1).sum())
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    for image in images:  # one by one: joining them would hold all pixels twice
        buffer.write(np.ascontiguousarray(image).data)
    remarks = np.array(table.remarks, dtype=np.str_)
    named = np.array(table.columns, dtype=np.str_)
    last = (np.array(table.task), places, remarks, named, kinds, np.array(pixels))
    for array in (*columns, names, corrupt, shares, told, *last):
        np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes, folder: Path | None = None) -> Table:
    """Return the table in ``data``, written by ``pack`` with the same ``folder``.

    Raises:
        StorageError: If the file of its pixels is not there, or damaged.
    """
    buffer = io.BytesIO(data)
    read = (np.lib.format.read_array(buffer, allow_pickle=False) for _ in range(16))
    shapes, pixels, labels, slices, sources, hashes, names, corrupt, shares, told, task, places, *last = read
    remarks, named, kinds, digest = last
    texts = tuple(names.tolist()), tuple(corrupt.tolist())
    images: Images
    if str(digest):
        images = read_pixels((folder or Path()) / _pixels_of(hashes), shapes, str(digest))
    else:
        ends = np.cumsum(shapes.prod(axis=1)).tolist()
        cuts = zip([0, *ends[:-1]], ends, shapes.tolist(), strict=True)
        images = object_array([pixels[start:end].reshape(shape) for start, end, shape in cuts])
    columns = (images, labels, slices, sources, hashes)
    given = [one if len(one) else None for one in (told, places, kinds)]
    return Table(*columns, *texts, Shares(*shares.tolist()), told=given[0], task=str(task), names=given[1],
                 remarks=tuple(remarks.tolist()), columns=tuple(named.tolist()), kinds=given[2])  # fmt: skip


def _pixels_of(hashes: npt.NDArray[np.str_]) -> str:
    """Return the name of the file with the pixels of images with these ``hashes``."""
    return f"pixels-{sha256_hex(' '.join(hashes.tolist()).encode())[:24]}"
