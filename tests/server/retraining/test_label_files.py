"""Labels out and in: CSV and Label Studio, planned first, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from server.errors import LabelFileError, LabelTakenError
from server.people import Actor, ActorKind
from server.retraining.labels import files
from server.retraining.labels.exchange import LabelExchange
from server.retraining.labels.files import LabelFormat, read_labels, write_csv
from server.retraining.samples import SampleStore, StoredSample
from server.store.people.audit_log import AUDIT_LOG

from .conftest import CONFIG, Site, sample

CSV, STUDIO = LabelFormat.CSV, LabelFormat.LABEL_STUDIO
ANNA = Actor(account="anna", kind=ActorKind.USER)


def exchange_of(site: Site, images: int = 3) -> LabelExchange:
    """Return the exchange of a server with so many samples, the first of them labelled 0 at 60."""
    samples = site.service.samples
    for number in range(images):
        samples.accept("d1", sample(number), 50)
    samples.label(1, "0", "cleo", 60)
    return LabelExchange(database=samples.database, samples=samples)


def labels(samples: SampleStore) -> dict[int, str]:
    """Return the labels by sample."""
    return {one.id: one.label for one in samples.latest()}


def studio_task(data: dict[str, Any], *choices: str, cancelled: bool = False, **more: object) -> dict[str, Any]:
    """Return a task as Label Studio exports JSON, one annotation for each of ``choices``."""
    annotations = [
        {
            "id": 1001 + at, "completed_by": 10 + at,
            "result": [
                {
                    "value": {"choices": [choice]}, "id": "Dx_aB91ISN", "from_name": "label", "to_name": "image",
                    "type": "choices", "origin": "manual",
                }
            ],
            "was_cancelled": cancelled, "ground_truth": False, "created_at": "2026-11-30T22:16:08.728353Z",
            "updated_at": "2026-11-30T22:16:08.728378Z", "draft_created_at": None, "lead_time": 4.288,
            "prediction": {}, "result_count": 1, "unique_id": "0f1a", "last_action": None, "task": 7, "project": 83,
            "parent_prediction": None, "parent_annotation": None,
        }
        for at, choice in enumerate(choices)
    ]  # fmt: skip
    return {
        "id": 7, "annotations": annotations, "file_upload": "b2f4-labels.json", "drafts": [], "predictions": [],
        "data": data, "meta": {}, "created_at": "2026-11-30T21:52:49.513742Z", "inner_id": 1,
        "updated_at": "2026-11-30T22:16:08.746926Z", "total_annotations": len(choices), "cancelled_annotations": 0,
        "total_predictions": 0, "comment_count": 0, "unresolved_comment_count": 0, "last_comment_updated_at": None,
        "project": 83, "updated_by": 10, "comment_authors": [], **more,
    }  # fmt: skip


def test_a_csv_goes_out_is_filled_and_comes_in(site: Site) -> None:
    """What was labelled already stays; each label is an act of who imports, and the import is one."""
    exchange = exchange_of(site)
    text = exchange.export("model", CSV).text
    header, *lines = text.splitlines()
    assert header == "sample,model,sha256,device,at_ms,lane,label,label_by,labelled_ms"
    assert lines[0].endswith(",0,cleo,60")
    filled = "\n".join([header, lines[0], lines[1].replace(",audit,,,0", ",audit,1,,0"), lines[2], ""])
    plan = exchange.plan(CSV, filled, ANNA, 70)
    assert (plan.rows, plan.new, plan.same, plan.refused, plan.done) == (2, 1, 1, 0, False)
    assert labels(exchange.samples) == {1: "0", 2: "", 3: ""}
    assert exchange.plan(CSV, filled, ANNA, 71, dry_run=False).done
    assert (labels(exchange.samples), exchange.samples.sample(2).label_by) == ({1: "0", 2: "1", 3: ""}, "anna")
    with exchange.database.begin() as connection:
        acts = list(connection.execute(sa.select(AUDIT_LOG.c.act, AUDIT_LOG.c.account).order_by(AUDIT_LOG.c.seq)))
    assert acts[-2:] == [("sample.label", "anna"), ("labels.import", "anna")]


def test_a_file_as_label_studio_writes_it_comes_in_and_goes_out(site: Site) -> None:
    """With its data as it was sent there; a cancelled annotation and a task without one say nothing."""
    exchange = exchange_of(site)
    sent = json.loads(exchange.export("model", STUDIO).text)
    assert sent[0]["annotations"][0]["result"][0]["value"] == {"choices": ["0"]}
    assert sent[1]["data"]["image"].startswith("data:image/png;base64,")
    assert "predictions" not in sent[1]
    back = [
        studio_task(sent[0]["data"]),
        studio_task(sent[1]["data"], "1", "1"),
        studio_task(sent[2]["data"], "1", cancelled=True),
    ]
    plan = exchange.plan(STUDIO, json.dumps(back), ANNA, 70, dry_run=False)
    assert (plan.rows, plan.new, plan.done) == (1, 1, True)
    assert labels(exchange.samples) == {1: "0", 2: "1", 3: ""}
    (again, *_) = json.loads(exchange.export("model", STUDIO).text)[1]["annotations"]
    assert again["result"][0]["value"] == {"choices": ["1"]}


def test_the_configuration_of_label_studio_has_the_classes_as_xml(site: Site) -> None:
    """And "none of these", which fits every model with classes."""
    config = exchange_of(site).export("model", STUDIO).config
    assert '<Choice value="0"/>\n    <Choice value="1"/>\n    <Choice value="none of these"/>' in config


def test_numbers_go_out_and_in_by_their_names(site: Site) -> None:
    """In another order, and 3 is 3.0."""
    site.release(2, model=b"another", name="meter", labels=(), values=("flow", "heat"))
    samples = site.service.samples
    samples.accept("d1", sample(5, model=b"another"), 50)
    samples.accept("d1", sample(6, model=b"another"), 50)
    samples.label(1, "3 -4.5", "cleo", 60)
    exchange = LabelExchange(database=samples.database, samples=samples)
    assert ",3 -4.5," in exchange.export("meter", CSV).text
    assert '<Number name="flow" toName="image"/>' in exchange.export("meter", STUDIO).config
    tasks = json.loads(exchange.export("meter", STUDIO).text)
    numbers = [{"type": "number", "from_name": name, "to_name": "image", "value": {"number": number}}
               for name, number in (("heat", 2.5), ("flow", 1))]  # fmt: skip
    tasks[1]["annotations"] = [{"result": numbers}]
    plan = exchange.plan(STUDIO, json.dumps(tasks), ANNA, 70, dry_run=False)
    assert (plan.same, plan.new, plan.done) == (1, 1, True)
    assert labels(samples) == {1: "3 -4.5", 2: "1 2.5"}


@pytest.mark.parametrize("label", ["=1+1", "+a", "-a", "@x"])
def test_a_cell_that_begins_a_formula_is_text_and_comes_back_as_it_was(site: Site, label: str) -> None:
    """A table program would compute it; a negative number is none."""
    known = replace(exchange_of(site).samples.sample(1), label=label, label_by="=cmd")
    text = write_csv([known, replace(known, label="-3.5")])
    assert f",'{label}," in text.replace('"', "")
    assert ",'=cmd," in text
    assert ",-3.5," in text
    rows, problems = read_labels(CSV, text)
    assert ([one.label for one in rows], problems) == ([label, "-3.5"], [])


def test_nothing_is_imported_if_one_row_is_wrong(site: Site) -> None:
    """Each is named with its row and why."""
    exchange = exchange_of(site)
    text = "sample,label,sha256,model\n2,1,,\n3,7,,\n99,0,,\nx,0,,\n2,0,,\n3,0,abc,model\n1,0\n"
    plan = exchange.plan(CSV, text, ANNA, 70, dry_run=False)
    assert (plan.done, plan.refused, plan.rows) == (False, 6, 7)
    said = {one.row: one.text for one in plan.problems}
    assert said.keys() == {3, 4, 5, 6, 7, 8}
    for row, word in ((3, "a class of the model"), (4, "of this server, got 99"), (5, "a number as sample"),
                      (6, "one label for an image"), (7, "another one"), (8, "4 cells, got 2")):  # fmt: skip
        assert word in said[row]
    assert labels(exchange.samples) == {1: "0", 2: "", 3: ""}


def test_a_label_that_came_since_is_a_conflict_and_stays(site: Site) -> None:
    """Named with who gave it; the rest is imported only if wanted. A label that the file knew is changed."""
    exchange = exchange_of(site)
    header, first, second, third = exchange.export("model", CSV).text.splitlines()
    exchange.samples.label(2, "1", "ben", 65)
    filled = "\n".join([
        header, first.replace(",0,cleo", ",1,cleo"), second.replace("audit,,", "audit,0,"),
        third.replace("audit,,", "audit,0,"),
    ])  # fmt: skip
    plan = exchange.plan(CSV, filled, ANNA, 70, dry_run=False)
    assert (plan.done, plan.conflicting, plan.changed, plan.new) == (False, 1, 1, 1)
    assert plan.conflicts[0].text == "sample 2 is '1' by ben since, the file has '0'"
    assert labels(exchange.samples) == {1: "0", 2: "1", 3: ""}
    assert exchange.plan(CSV, filled, ANNA, 71, dry_run=False, keep_newer=True).done
    assert labels(exchange.samples) == {1: "1", 2: "1", 3: "0"}
    assert [one.new_label for one in exchange.samples.changes(1)] == ["1"]


def test_an_import_that_another_person_overtakes_leaves_nothing_behind(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the plan and its last label."""
    exchange = exchange_of(site)
    real = SampleStore.of_two

    def overtaken(self: SampleStore, one: StoredSample) -> bool:
        monkeypatch.setattr(SampleStore, "of_two", real)
        self.label(3, "1", "ben", 69)
        return real(self, one)

    monkeypatch.setattr(SampleStore, "of_two", overtaken)
    with pytest.raises(LabelTakenError):
        exchange.plan(CSV, "sample,label\n2,1\n3,0\n", ANNA, 70, dry_run=False)
    assert labels(exchange.samples)[2] == ""


def test_a_part_of_an_export_says_where_the_next_begins(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image once; what is labelled is left out if wanted."""
    exchange = exchange_of(site)
    exchange.samples.accept("d2", replace(sample(0), seq=90), 55)
    monkeypatch.setattr("server.retraining.labels.exchange.MOST", 2)
    first = exchange.export("model", CSV)
    rest = exchange.export("model", CSV, after=first.next)
    assert [(one.rows, one.next) for one in (first, rest)] == [(2, 2), (1, 0)]
    assert exchange.export("model", CSV, unlabelled=True).text.splitlines()[1].startswith("2,")


@pytest.mark.parametrize(
    ("form", "text", "why"),
    [
        (CSV, "", "a header line"),
        (CSV, "label,device\n", "a header line"),
        (CSV, 'sample,label\n1,"0\n', "Expected CSV"),
        (STUDIO, "sample,label\n", "a JSON export"),
        (STUDIO, "[" * 100_000, "a JSON export"),
        (STUDIO, '{"a": 1}', "a list of tasks"),
        (CSV, "sample,label\n" + "1,0\n" * (files.MAX_ROWS + 1), "at most"),
    ],
)
def test_a_file_of_another_kind_is_refused(site: Site, form: LabelFormat, text: str, why: str) -> None:
    """With what was expected."""
    with pytest.raises(LabelFileError, match=why):
        exchange_of(site).plan(form, text, ANNA, 70)


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ({"image": "x", "label": "1"}, "not JSON-MIN"),
        (studio_task({"sample": 1}, "0", "1"), "annotations that agree"),
        ({"data": {"sample": 1}, "annotations": [{"result": [{"type": "rectanglelabels", "value": {}}]}]}, "choices"),
        ({"data": {"sample": 1}, "annotations": [{"result": [{"type": "choices", "value": {"choices": []}}]}]}, "one"),
        ({"data": {"sample": 1}, "annotations": ["x"]}, "annotations as a list"),
        ({"data": {}, "annotations": [{"result": [{"type": "choices", "value": {"choices": ["0"]}}]}]}, "neither"),
        (7, "a task with data"),
    ],
)
def test_a_task_that_says_no_one_label_is_named(task: object, why: str) -> None:
    """Boxes, several choices, and people who differ."""
    rows, (problem,) = read_labels(STUDIO, json.dumps([task]))
    assert (rows, problem.row) == ([], 1)
    assert why in problem.text


def test_an_import_is_one_answer_of_the_two(site: Site) -> None:
    """Whoever imports is one person, whose name is proved."""
    exchange = exchange_of(site)
    samples = replace(exchange.samples, config=replace(CONFIG, second_person=1.0))
    both = replace(exchange, samples=samples)
    assert "log in by name" in both.plan(CSV, "sample,label\n2,1\n", "anna", 70).problems[0].text
    assert both.plan(CSV, "sample,label\n2,1\n", ANNA, 70, dry_run=False).done
    assert (samples.sample(2).label, samples.answers(samples.sample(2))[0].person) == ("", "anna")
