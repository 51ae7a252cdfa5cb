"""Labels from Label Studio: its JSON export (whole, or ``JSON-MIN``) and the images that it names, in a zip or folder.

::

    set/
    ├── project-1.json               the export: the only .json at the top
    └── images/                      anywhere below, by the names in the export
        ├── 3fa85f64-001.jpg
        └── 002.jpg

The label of an image is its only choice, of a recipe of several labels all its choices, or with ``[data] label =
"number"`` its number or rating. Tasks without an annotation, and annotations that were skipped, are left out. Of
several annotations, those marked as ground truth count; the others must agree. The key ``source`` of a task's data
holds frames of one recording together; ``[data] slices`` and ``split`` name further keys of the task's data,
``columns`` the keys that are called otherwise.

Source: https://labelstud.io/guide/export, "JSON" and "JSON_MIN"; https://labelstud.io/guide/task_format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor import tasks
from compressor.data._archive import Names, opened
from compressor.data._delimited import check_columns
from compressor.data._named_files import NamedFiles
from compressor.data._table import Table, check_label, source_name
from compressor.data.labelled_images import LabelRow, listed
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import SEPARATOR, DataRecipe

READS = frozenset({"path", "slices", "split", "allow_corrupt", "orientation", "decode", "bits", "columns"})
MAX_EXPORT_BYTES = 256 * 1024 * 1024
COLUMNS = ("path", "label", "source")
_IMAGES = ("image", "img", "path", "file", "url", "image_url")
_OWN = (
    "id",
    "annotator",
    "annotation_id",
    "created_at",
    "updated_at",
    "lead_time",
    "agreement",
    "file_upload",
    "source",
)
"""Keys of JSON-MIN that are no label."""
Fields = Mapping[str, Any]


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the annotated images of the export in ``data.path``, in its order.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, or too many or too large entries, or no export.
        ColumnError: If a key that ``data`` names is missing in a task.
        CorruptImageError: If more images than ``data.allow_corrupt`` are missing or broken.
        DataError: If the export is damaged, or an image has several labels.
        SplitError: If a task has an unknown split, or one content is in two.
    """
    path = (root or Path()) / data.path
    check_columns(data.columns, COLUMNS, data.dataset)
    with opened(path) as store:
        name = _export(store, path)
        found = _tasks(store.read(name, MAX_EXPORT_BYTES), name)
        files = NamedFiles(store.names(), str(path))
    rows = []
    for place, task in enumerate(found):
        where = f"{name}, task {task.get('id', place)}"
        fields = task["data"] if isinstance(task.get("data"), dict) else task
        labels = _annotated(task, data, where) if "annotations" in task else _plain(fields, data, where)
        if labels:
            rows.append(_row(fields, labels, data, files, where))
    if not rows:
        message = f"Expected annotated tasks in {name}, got none of {len(found)}: export those with annotations"
        raise DataError(message)
    return listed(data, path, rows)


def _export(store: Names, path: Path) -> str:
    found = [name for name in store.names() if name.lower().endswith(".json") and "/" not in name]
    if len(found) != 1:
        message = f"Expected one JSON export of Label Studio at the top of {path}, got {', '.join(found[:5]) or 'none'}"
        raise ArchiveError(message)
    return found[0]


def _tasks(content: bytes, name: str) -> list[Fields]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        message = f"Expected {name} as JSON, got: {str(error)[:120]}: export it again"
        raise DataError(message) from error
    if not isinstance(document, list) or not all(isinstance(task, dict) for task in document):
        message = f"Expected {name} as a list of tasks, got {type(document).__name__}"
        raise DataError(f"{message}: export it from Label Studio as JSON or JSON-MIN")
    return document


def _row(fields: Fields, labels: list[str], data: DataRecipe, files: NamedFiles, where: str) -> LabelRow:
    different = sorted(set(labels))
    if len(different) > 1:
        message = f"Expected one label in {where}, got {', '.join(different)[:200]}"
        raise DataError(f"{message}: settle it in Label Studio (ground truth), or leave the task out")
    if not tasks.of(data).several:  # what stands between separators is checked by the task
        check_label(different[0], where)
    asked = data.columns.get("path")
    keys = (asked,) if asked else _IMAGES
    image = next((fields[key] for key in keys if isinstance(fields.get(key), str) and fields[key]), None)
    if image is None:
        message = (
            f"Expected an image under {' or '.join(keys)} in {where}, got {', '.join(map(str, fields)) or 'no data'}"
        )
        raise ColumnError(f'{message}: name the key, columns = {{path = "…"}} in [data]')
    return LabelRow(
        path=files.find(image, where),
        label=different[0],
        slice=_required(fields, data.slices, where) if data.slices else "all",
        split=str(fields.get(data.split) or "") if data.split else "",
        source=source_name(str(fields.get(data.columns.get("source", "source")) or "")),
    )


def _required(fields: Fields, key: str, where: str) -> str:
    value = fields.get(key)
    if value is None or isinstance(value, dict | list):
        message = f"Expected the key {key!r} in the data of {where}, got {', '.join(map(str, fields))[:200] or 'none'}"
        raise ColumnError(message)
    return str(value)


def _annotated(task: Fields, data: DataRecipe, where: str) -> list[str]:
    """Return the labels of a whole task: those of its ground truth, or of all annotations that were not skipped."""
    given = task["annotations"]
    done = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    done = [one for one in done if not one.get("was_cancelled")]
    found = []
    for annotation in [one for one in done if one.get("ground_truth")] or done:
        results = annotation.get("result")
        for result in results if isinstance(results, list) else []:
            if isinstance(result, dict) and result.get("from_name") == data.columns.get(
                "label", result.get("from_name")
            ):
                found += _values(result.get("value"), data, where)
        if tasks.of(data).several and not results:  # looked at, and nothing chosen
            found.append("")
    return found


def _values(value: object, data: DataRecipe, where: str) -> list[str]:
    """Return the labels in a result's ``value``: its choices, or its number or rating if numbers are predicted."""
    if not isinstance(value, dict):
        return []
    if tasks.of(data).columns:
        return [str(value[key]) for key in ("number", "rating") if isinstance(value.get(key), int | float)]
    choices = value.get("choices")
    if choices is None:
        return []
    if tasks.of(data).several and isinstance(choices, list):
        return [(data.separator or SEPARATOR).join(sorted(map(str, choices)))]
    if not isinstance(choices, list) or len(choices) != 1:
        message = f"Expected one choice in {where}, got {str(choices)[:100]}"
        raise DataError(f"{message}: a classifier has one label for each image; leave the task out")
    return [str(choices[0])]


def _plain(fields: Fields, data: DataRecipe, where: str) -> list[str]:
    """Return the labels of a task of JSON-MIN: of the key that is named, or of the only key that can be one."""
    asked = data.columns.get("label")
    known = {*_IMAGES, *_OWN, *data.columns.values(), data.slices, data.split}
    keys = [asked] if asked else [key for key in fields if key not in known]
    if len(keys) > 1:
        message = f"Expected one key that can be the label in {where}, got {', '.join(keys)[:200]}"
        raise ColumnError(f'{message}: name it, columns = {{label = "…"}} in [data]')
    value = fields.get(keys[0]) if keys else None
    if isinstance(value, dict):
        return _values(value, data, where)
    if value is None or value == "":
        return []
    if isinstance(value, list):
        message = f"Expected one label in {where}, key {keys[0]!r}, got a list"
        raise DataError(f"{message}: boxes and regions are read by other data sets")
    return [str(value)]
