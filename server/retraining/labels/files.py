"""Files of labels: CSV for tables, and the JSON of Label Studio. Pure: writes and reads texts.

CSV: a header line, then one line an image. A cell that a table program would take for a formula has an apostrophe
before it, which reading takes off (OWASP, CSV Injection); numbers stay as they are.
Label Studio: a list of tasks (https://labelstud.io/guide/task_format). A class is a result of the type ``choices``, a
number one of the type ``number``; the picture is in the task as a data URI, because Label Studio has no token of this
server. What the model said is not written: it would be seen before the person answers.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from xml.sax.saxutils import quoteattr

from server.errors import LabelFileError
from server.retraining.labelling import NOTHING, LabelForm
from server.retraining.samples import StoredSample

COLUMNS = ("sample", "model", "sha256", "device", "at_ms", "lane", "label", "label_by", "labelled_ms")
MAX_CHARACTERS = 64 * 1024 * 1024
MAX_ROWS = 10_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_IMAGE, _CLASS = "image", "label"
_MAX_ID = 2**63


class LabelFormat(StrEnum):
    """A format of files of labels."""

    CSV = "csv"
    LABEL_STUDIO = "label-studio"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One label of a file. ``row`` counts lines of CSV, with the header, and tasks of Label Studio, both from 1.

    ``sample``: its id, 0 if the file has none; ``model``, ``sha256``: of the image, "" likewise. ``based_ms``: when the
    label that the file was made with had been given (UTC), 0 for none. ``numbers``: of Label Studio, by their names.
    """

    row: int
    label: str
    sample: int = 0
    model: str = ""
    sha256: str = ""
    based_ms: int = 0
    numbers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row of a file can't be used."""

    row: int
    text: str


Read = tuple[list[FileRow], list[RowProblem]]
_Label = tuple[str, tuple[tuple[str, str], ...]]
_CHOICES, _NUMBER = "choices", "number"  # types of a result, as Label Studio names them
_NONE: _Label = ("", ())


def write_csv(samples: Iterable[StoredSample]) -> str:
    """Return the labels of samples as CSV with ``COLUMNS``."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample in samples:
        writer.writerow([_cell(getattr(sample, "id" if name == "sample" else name)) for name in COLUMNS])
    return text.getvalue()


def read_labels(form: LabelFormat, text: str) -> Read:
    """Return the labels of a file, and what is wrong with single rows. Rows without a label are left out.

    Raises:
        LabelFileError: If it is no file of this format, or has too many rows.
    """
    if len(text) > MAX_CHARACTERS:
        message = f"Expected a file of at most {MAX_CHARACTERS} characters, got {len(text)}: import it in parts"
        raise LabelFileError(message)
    rows, problems = _read_csv(text) if form is LabelFormat.CSV else _read_tasks(text)
    if len(rows) + len(problems) > MAX_ROWS:
        message = f"Expected at most {MAX_ROWS} labels, got {len(rows) + len(problems)}: import them in parts"
        raise LabelFileError(message)
    return rows, problems


def write_label_studio(
    samples: Iterable[StoredSample], image_of: Callable[[StoredSample], bytes],
    form_of: Callable[[StoredSample], LabelForm],
) -> str:  # fmt: skip
    """Return samples as tasks of Label Studio, with their labels as annotations."""
    tasks = []
    for sample in samples:
        uri = f"data:{sample.media_type};base64,{base64.b64encode(image_of(sample)).decode()}"
        data = {
            _IMAGE: uri, "sample": sample.id, "model": sample.model, "sha256": sample.sha256, "device": sample.device,
            "labelled_ms": sample.labelled_ms,
        }  # fmt: skip
        task: dict[str, object] = {"data": data}
        if sample.label:
            result = _results(sample.label, form_of(sample))
            task["annotations"] = [{"result": result, "was_cancelled": False, "ground_truth": False}]
        tasks.append(task)
    return json.dumps(tasks, ensure_ascii=False, indent=1)


def labelling_config(form: LabelForm) -> str:
    """Return the labelling configuration with which Label Studio labels samples of one model."""
    if form.values:
        fields = [f"  <Number name={quoteattr(name)} toName={quoteattr(_IMAGE)}/>" for name in form.values]
    else:
        choices = [f"    <Choice value={quoteattr(name)}/>" for name in dict.fromkeys((*form.classes, NOTHING))]
        choice = f'  <Choices name="{_CLASS}" toName="{_IMAGE}" choice="single" required="true">'
        fields = [choice, *choices, "  </Choices>"]
    return "\n".join(["<View>", f'  <Image name="{_IMAGE}" value="${_IMAGE}"/>', *fields, "</View>", ""])


def _cell(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _is_number(value):
        return value
    return f"'{value}"


def _uncell(text: str) -> str:
    return text[1:] if text[:1] == "'" and text[1:].startswith(_FORMULA) else text


def _is_number(text: str) -> bool:
    try:
        return bool(text.split()) and all(math.isfinite(float(one)) for one in text.split())
    except ValueError:
        return False


def _read_csv(text: str) -> Read:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    rows: list[FileRow] = []
    problems: list[RowProblem] = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if "label" not in header or not ("sample" in header or {"model", "sha256"} <= set(header)):
            message = (
                f"Expected a header line with label, and sample or model and sha256, got {','.join(header)[:100]!r}"
            )
            raise LabelFileError(f"{message}: fleet-server samples export writes one")
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) != len(header):
                problems.append(RowProblem(reader.line_num, f"Expected {len(header)} cells, got {len(cells)}"))
                continue
            values = {name: _uncell(cell.strip()) for name, cell in zip(header, cells, strict=True)}
            _add(reader.line_num, values.get("label", ""), values, rows, problems)
    except csv.Error as error:
        message = f"Expected CSV, got: {error} in line {reader.line_num}"
        raise LabelFileError(message) from error
    return rows, problems


def _add(
    row: int, label: str, values: Mapping[str, object], rows: list[FileRow], problems: list[RowProblem],
    given: tuple[tuple[str, str], ...] = (),
) -> None:  # fmt: skip
    """Add a label, or what is wrong with its row; neither for a row without a label."""
    if not label:
        return
    numbers = {}
    for name in ("sample", "labelled_ms"):
        try:
            numbers[name] = int(str(values.get(name) or 0))
        except ValueError:
            numbers[name] = -1
        if not 0 <= numbers[name] < _MAX_ID:
            problems.append(RowProblem(row, f"Expected a number as {name}, got {str(values.get(name))[:40]!r}"))
            return
    model, sha256 = str(values.get("model") or ""), str(values.get("sha256") or "")
    if not (numbers["sample"] or (model and sha256)):
        problems.append(RowProblem(row, "Expected a sample, or model and sha256, got neither"))
        return
    rows.append(
        FileRow(
            row=row,
            label=label,
            sample=numbers["sample"],
            model=model,
            sha256=sha256,
            based_ms=numbers["labelled_ms"],
            numbers=given,
        )
    )


def _results(label: str, form: LabelForm) -> list[dict[str, object]]:
    if form.values:
        return [
            {"from_name": name, "to_name": _IMAGE, "type": "number", "value": {"number": float(number)}}
            for name, number in zip(form.values, label.split(), strict=False)
        ]
    return [{"from_name": _CLASS, "to_name": _IMAGE, "type": "choices", "value": {"choices": [label]}}]


def _read_tasks(text: str) -> Read:
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"Expected a JSON export of Label Studio, got: {str(error)[:100]}"
        raise LabelFileError(message) from error
    if not isinstance(tasks, list):
        message = f"Expected a list of tasks, as Label Studio exports JSON, got {type(tasks).__name__}"
        raise LabelFileError(message)
    rows: list[FileRow] = []
    problems: list[RowProblem] = []
    for row, task in enumerate(tasks, start=1):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            problems.append(RowProblem(row, "Expected a task with data (export as JSON, not JSON-MIN), got none"))
            continue
        try:
            label, numbers = _label_of(task)
        except LabelFileError as error:
            problems.append(RowProblem(row, str(error)))
            continue
        _add(row, label, data, rows, problems, numbers)
    return rows, problems


def _label_of(task: Mapping[str, Any]) -> _Label:
    """Return the label of a task, and its numbers by their names; "" if nobody has annotated it.

    Raises:
        LabelFileError: If its annotations differ, or are neither one choice nor numbers.
    """
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise LabelFileError("Expected annotations as a list, got something else")
    results = [one.get("result") or [] for one in annotations if not one.get("was_cancelled")]
    labels = {_label_in(result) for result in results} - {_NONE}
    if len(labels) > 1:
        shown = ", ".join(sorted(label for label, _ in labels))[:100]
        message = f"Expected annotations that agree, got {shown}: settle them in Label Studio first"
        raise LabelFileError(message)
    return next(iter(labels), _NONE)


def _label_in(results: Sequence[Any]) -> _Label:
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise LabelFileError("Expected a list of results, got something else")
    kinds = {str(one.get("type")) for one in results}
    values = [one["value"] if isinstance(one.get("value"), dict) else {} for one in results]
    if kinds == {_CHOICES} and len(results) == 1:
        chosen = values[0].get("choices")
        if isinstance(chosen, list) and len(chosen) == 1:
            return str(chosen[0]).strip(), ()
        message = f"Expected one choice, got {str(chosen)[:60]}"
        raise LabelFileError(message)
    if kinds == {_NUMBER}:
        numbers = tuple(
            (str(one.get("from_name")), str(value.get("number"))) for one, value in zip(results, values, strict=True)
        )
        return " ".join(number for _, number in numbers), tuple(sorted(numbers))
    if not results:
        return _NONE
    message = f"Expected one result of the type choices, or results of the type number, got {', '.join(sorted(kinds))}"
    raise LabelFileError(message[:200])
