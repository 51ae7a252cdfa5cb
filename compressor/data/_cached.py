"""The data step: a table cached by its inputs, so that a resumed run neither decodes nor renders again."""

from __future__ import annotations

import io
from dataclasses import astuple
from pathlib import Path

import numpy as np

from compressor import tasks
from compressor.cache import Cache, Stage
from compressor.closure import package, plugin
from compressor.data import datasets, load
from compressor.data._shares import Shares
from compressor.data._table import Table, object_array
from compressor.recipe.model import DataRecipe
from wire.canonical import sha256_file


def load_kept(cache: Cache, data: DataRecipe, root: Path) -> Table:
    """Return the table of ``data``; cached if it comes from one file or from none (a folder is read every time).

    Raises:
        PluginError: If the data set is unknown.
        DataError: If its data can't be used.
    """
    path = root / data.path
    if data.dataset not in datasets() or (data.path and not path.is_file()):
        return load(data, root)
    inputs = {"recipe": repr(data), "task": tasks.of(data).name, "file": sha256_file(path) if data.path else ""}
    return unpack(
        cache.result(Stage(name="data", inputs=inputs, make=lambda: pack(load(data, root)), uses=code_of(data))).data
    )


def code_of(data: DataRecipe) -> tuple[str, ...]:
    """Return the modules that determine the table of ``data``, in addition to this one.

    Both a data set and a recipe can name a front end, so all of them count.
    """
    sources = (plugin("compressor.data", data.dataset), tasks.of(data).code("targets"))
    return (*sources, *package("edge_agent.front_ends"))


def pack(table: Table) -> bytes:
    """Return the bytes of ``table``."""
    images = [np.asarray(image) for image in table.images]
    shapes = np.array([image.shape for image in images], dtype=np.int64)
    names, corrupt = np.array(table.class_names), np.array(table.corrupt, dtype=np.str_)
    buffer = io.BytesIO()
    shares, told = np.array(astuple(table.shares)), np.array([] if table.told is None else table.told, dtype=np.str_)
    columns = (table.labels, table.slices, table.sources, table.hashes)
    np.lib.format.write_array(buffer, shapes, allow_pickle=False)
    size = int(shapes.prod(axis=1).sum())
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    for image in images:  # one by one: joining them would hold all pixels twice
        buffer.write(np.ascontiguousarray(image).data)
    for array in (*columns, names, corrupt, shares, told, np.array(table.task)):
        np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes) -> Table:
    """Return the table in ``data``, written by ``pack``."""
    buffer = io.BytesIO(data)
    read = (np.lib.format.read_array(buffer, allow_pickle=False) for _ in range(11))
    shapes, pixels, labels, slices, sources, hashes, names, corrupt, shares, told, task = read
    ends = np.cumsum(shapes.prod(axis=1)).tolist()
    starts = [0, *ends[:-1]]
    images = [pixels[a:b].reshape(shape) for a, b, shape in zip(starts, ends, shapes.tolist(), strict=True)]
    texts = tuple(names.tolist()), tuple(corrupt.tolist())
    columns = (object_array(images), labels, slices, sources, hashes)
    return Table(*columns, *texts, Shares(*shares.tolist()), told=told if len(told) else None, task=str(task))
