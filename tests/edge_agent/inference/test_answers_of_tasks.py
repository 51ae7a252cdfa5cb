"""The record of each task as a reader gets it: empty lists, rounded numbers, and the examples of the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge_agent import api, tasks
from edge_agent.inference.answers import Answers, open_answers
from edge_agent.inference.served_model import load_model
from edge_agent.sinks import SinkSurroundings
from edge_agent.sources import Capture
from tests.edge_agent.inference.conftest import png, some_images
from tests.edge_agent.task_bundles import bundle_of
from wire.answers import AnswerRecord, encode_answer
from wire.codec import from_document

DOCS = Path(__file__).parents[3] / "docs"
PICTURE = png(some_images(1)[0])


def record_of(task: str, folder: Path, **changes: object) -> dict[str, object]:
    """Return the record of one picture, as sinks and the local interface get it."""
    model, found = load_model(bundle_of(task, folder, **changes)), []
    answers = Answers(watch=lambda record, _data, _model: found.append(record))
    answers.answered(model, Capture("1.png", PICTURE, "1.png"), model.infer(PICTURE), (1_796_000_000_000, 0.0, 0.0))
    return dict(json.loads(encode_answer(found[0])))


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("classification", {"label": "b", "confidence": 0.7856}),
        ("regression", {"values": {"power_w": 412.3, "flow": -0.1}}),
        ("multi_label", {"labels": ["a", "c"], "scores": {"a": 0.6225, "c": 0.2689}}),
        ("anomaly", {"anomalous": True, "scores": {"anomaly": 0.5565934, "threshold": 0.5}}),
        ("stream_events", {"label": "bell", "confidence": 0.9526}),
        (
            "detection",
            {
                "values": {"a": 1.0, "b": 1.0},
                "boxes": [
                    {"label": "a", "score": 0.9, "x0": 0.0, "y0": 0.0, "x1": 4.5, "y1": 5.0},
                    {"label": "b", "score": 0.6, "x0": 4.5, "y0": 5.0, "x1": 9.0, "y1": 10.0},
                ],
            },
        ),
    ],
)
def test_numbers_of_an_answer_are_rounded_by_one_rule(task: str, wanted: dict[str, object], tmp_path: Path) -> None:
    """Probabilities and scores of 0 to 1 have four decimals, other numbers the shortest decimal of their float32."""
    found = record_of(task, tmp_path)
    assert {key: found[key] for key in wanted} == wanted
    assert found["task"] == task


def test_an_answer_without_a_box_or_a_label_says_so(tmp_path: Path) -> None:
    """An empty list, in each form of the answer; tasks that have neither don't carry the key."""
    no_box = record_of("detection", tmp_path, number=0.95)
    assert (no_box["boxes"], no_box["values"]) == ([], {"a": 0.0, "b": 0.0})
    no_label = record_of("multi_label", tmp_path, outputs=[-5.0, -5.0, -5.0])
    assert (no_label["labels"], no_label["scores"]) == ([], {})
    assert not {"boxes", "labels", "scores"} & record_of("classification", tmp_path).keys()
    with api.open_bundle(bundle_of("detection", tmp_path, number=0.95)) as model:
        assert (model.answer(PICTURE).boxes, model.answer(PICTURE).labels) == ((), None)
    with api.open_bundle(bundle_of("multi_label", tmp_path, outputs=[-5.0, -5.0, -5.0])) as model:
        assert (model.answer(PICTURE).labels, model.answer(PICTURE).boxes) == ((), None)


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("classification", {}),
        ("regression", {}),
        ("detection", {"a": 0.5, "b": 0.5}),
        ("multi_label", {"a": 0.5, "b": 0.9, "c": 0.2}),
        ("anomaly", {"anomaly": 0.5}),
        ("stream_events", {"bell": 0.6}),
    ],
)
def test_thresholds_are_known_by_the_names_of_answers(task: str, wanted: dict[str, float], tmp_path: Path) -> None:
    """As the keys of ``[sinks] thresholds`` have them; the background of a stream has none."""
    assert load_model(bundle_of(task, tmp_path)).thresholds == pytest.approx(wanted)


def examples() -> list[str]:
    """Return the records that the docs show."""
    pages = [*sorted((DOCS / "how-to").glob("*.md")), DOCS / "reference" / "answers.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return re.findall(r'^\{"[^\n]*"version":1\}$', text, flags=re.MULTILINE)


@pytest.mark.parametrize("line", examples())
def test_an_example_of_the_docs_is_a_record(line: str) -> None:
    """Nothing in it that no record has, in the bytes that a device writes."""
    record = from_document(AnswerRecord, json.loads(line))
    assert record.extra == {}
    assert encode_answer(record).decode() == line
    rounded = [record.confidence, *(record.scores or {}).values()] if record.task != "anomaly" else []
    rounded += list(record.values.values()) if record.labels is not None else []
    rounded += [box["score"] for box in record.boxes or ()]
    assert all(number is None or round(number, 4) == number for number in rounded)


@pytest.mark.parametrize("task", tasks.names())
def test_the_reference_shows_a_record_of_each_task(task: str, tmp_path: Path) -> None:
    """With the keys that the task's own record has, but those that only some releases have."""
    page = (DOCS / "reference" / "answers.md").read_text(encoding="utf-8")
    shown = [json.loads(line) for line in examples() if line in page and f'"task":"{task}"' in line]
    good = next(record for record in shown if "error" not in record)
    wanted = record_of(task, tmp_path).keys() - {"events"}
    assert wanted <= good.keys()
    assert good.keys() - wanted <= {"device", "support_rate", "events", "inputs", "drift"}


def test_thresholds_of_labels_that_the_release_does_not_have_are_told(tmp_path: Path) -> None:
    """The known labels are named; a sink of known ones alone says nothing."""
    told: list[tuple[str, str]] = []
    documents = {
        "fine": {"kind": "jsonl", "thresholds": {"b": 0.5}},
        "sure": {"kind": "jsonl", "thresholds": {"a": 0.5, "B": 0.9}, "above": 0.25},
    }
    around = SinkSurroundings(state=tmp_path, tell=lambda *words: told.append(words))
    model = load_model(bundle_of("classification", tmp_path))
    found = open_answers(documents, around, model)
    assert [code for code, _ in told] == ["sink_failed"]
    assert told[0][1].startswith(f"sure: Expected thresholds of {', '.join(model.manifest.labels)}, got 'B'")
    assert "other labels pass from 0.25 on" in told[0][1]
    found.close()


def test_a_filter_that_does_nothing_for_the_task_is_told_and_ends_no_sink(tmp_path: Path) -> None:
    """Task, key, value and what to use are named, at the start and for a later release of another task alike."""
    told: list[tuple[str, str]] = []
    documents = {
        "fine": {"kind": "jsonl", "change_by": 0.5, "changes_only": True},
        "sure": {"kind": "jsonl", "above": 0.6},
    }
    around = SinkSurroundings(state=tmp_path, tell=lambda *words: told.append(words))
    found = open_answers(documents, around, load_model(bundle_of("regression", tmp_path)))
    assert [delivery.name for delivery in found.deliveries] == ["fine", "sure"]
    wanted = "sure: Expected no above for a release of the task regression, got above = 0.6: numbers have no confidence"
    assert [(code, text.startswith(wanted)) for code, text in told] == [("sink_failed", True)]
    assert "change_by" in told[0][1]
    assert told[0][1].endswith(": all answers pass it")
    later = load_model(bundle_of("classification", tmp_path))
    assert found.misfits(load_model(bundle_of("regression", tmp_path))) == [told[0][1]]
    assert found.misfits(later)[0].startswith("fine: Expected no change_by for a release of the task classification")
    found.close()
