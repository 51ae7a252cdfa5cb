"""A real child and its answers: each input is answered, filtered or counted, over kills and slow sinks."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent import api
from edge_agent.inference.answers import open_answers
from edge_agent.inference.served_model import load_model
from edge_agent.sinks import SinkSurroundings
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sources import Capture
from wire import leb128

LOG = {"log": {"kind": "jsonl"}}
LIMIT_S = 60.0


def images(tiny: dict, count: int) -> dict[str, bytes]:
    """Return PNGs by name; few different ones, so that many are quick to make."""
    some = [tiny["png"](image) for image in tiny["images"](16)]
    return {f"{number:05}.png": some[number % 16] for number in range(count)}


def answers(tmp_path: Path, name: str = "log") -> list[dict]:
    """Return all answers in the sink's files."""
    files = (tmp_path / "state" / "answers").glob(f"{name}.jsonl*")
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def settled(until: Callable, tmp_path: Path) -> None:
    """Read heartbeats until the folder is empty: the source is through with every input."""
    until("beat", lambda _: not any((tmp_path / "inbox").iterdir()))


def test_every_input_gets_an_answer_and_a_bad_one_a_reason(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """The record has the label and confidence that the Python interface gives, the device and the input's name."""
    drop({**images(tiny, 3), "bad.png": b"no image"})
    running = child(bundle(), sinks=LOG)
    running.until("ready")
    settled(running.until, tmp_path)
    assert running.end() == 0
    found = {record["id"].partition("@")[0]: record for record in answers(tmp_path)}
    assert found.keys() == {"00000.png", "00001.png", "00002.png", "bad.png"}
    assert (found["bad.png"]["error"], "label" in found["bad.png"]) == ("image_invalid", False)
    with api.open_bundle(bundle()) as model:
        wanted = model.answer(images(tiny, 1)["00000.png"])
    good = found["00000.png"]
    assert (good["label"], good["confidence"]) == (wanted.label, pytest.approx(wanted.confidence))
    assert (good["device"], good["release"], good["task"]) == ("cam-1", "tiny-1", "classification")


def test_a_release_that_smooths_answers_for_the_last_inputs_and_counts_single_ones(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """The answer is that of the mean logits, as in the gates; a bad input is left out of it; drift counts are equal."""
    inputs = {**images(tiny, 6), "00002.png": b"no image"}
    drop(inputs)
    running = child(bundle(smoothed=3), sinks=LOG)
    running.until("ready")
    settled(running.until, tmp_path)
    assert running.end() == 0
    found = {record["id"].partition("@")[0]: record for record in answers(tmp_path)}
    model = load_model(bundle())
    good = [name for name in sorted(inputs) if name != "00002.png"]
    rows = {name: model.infer(inputs[name]) for name in good}
    for at, name in enumerate(good):
        last = [rows[one].logits for one in good[max(0, at - 2) : at + 1]]
        wanted = model.answer(replace(rows[name], logits=np.mean(last, axis=0).astype(np.float32)))
        assert found[name].get("inputs", 1) == len(last)
        assert (found[name]["label"], found[name]["confidence"]) == (wanted.label, pytest.approx(wanted.confidence))
    drop(inputs)
    plain = child(bundle(), sinks=LOG)
    settled(plain.until, tmp_path)
    assert plain.end() == 0
    windows = [[one.payload for one in each.heard if one.kind == "window"] for each in (running, plain)]
    counts = [np.sum([leb128.decode(one, 23 * 17 + 30)[0] for one in each], axis=0).tolist() for each in windows]
    assert counts[0] == counts[1]
    assert sum(counts[0]) > 0


def kills(child: Callable, bundle: Path, tmp_path: Path, times: int) -> None:
    """Kill children at random moments of a stream of inputs, then let one finish."""
    chance = random.Random(3)  # noqa: S311 - moments of kills are no secret
    for _ in range(times):
        running = child(bundle, sinks=LOG, backlog=20_000)
        running.until("ready")
        running.until("beat", lambda frame: frame.header["n"] > 0 or not any((tmp_path / "inbox").iterdir()))
        time.sleep(chance.uniform(0.0, 0.15))
        running.process.kill()
        running.process.wait(LIMIT_S)
    last = child(bundle, sinks=LOG, backlog=20_000)
    last.until("ready")
    settled(last.until, tmp_path)
    assert last.end() == 0


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_each_input_is_answered_at_least_once_over_kills(
    count: int, bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """Kill -9 of the child during a stream: no id is missing, some come twice, and the account's sums agree."""
    drop(images(tiny, count))
    kills(child, bundle(), tmp_path, 3 if count == 1000 else 8)
    ids = Counter(record["id"] for record in answers(tmp_path))
    counts = open_accounts(tmp_path / "state", ["log"])["log"].counts
    assert len(ids) == count
    assert sum(ids.values()) >= counts["sent"] >= count - counts["cut_off"]
    assert counts["offered"] == counts["sent"] + counts["dropped"] + counts["filtered"] + counts["cut_off"]


def test_the_heartbeat_says_what_became_of_the_answers(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """An operator sees how many a filter held back."""
    drop(images(tiny, 20))
    running = child(bundle(), sinks={"few": {"kind": "jsonl", "every_s": 3600}})
    running.until("ready")
    settled(running.until, tmp_path)
    beat = running.until("beat", lambda frame: frame.header["sinks"]["few"]["offered"] == 20)
    assert beat.header["sinks"]["few"]["filtered"] == 19


def test_a_sink_that_can_not_be_opened_is_reported_and_the_others_work(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """Inference and drift go on: an application's file must not end the watch over the model."""
    drop(images(tiny, 2))
    running = child(bundle(), sinks={**LOG, "other": {"kind": "jsonl", "path": str(tmp_path / "inbox")}})
    fault = running.until("fault").header
    assert (fault["code"], fault["text"][:7]) == ("sink_failed", "other: ")
    settled(running.until, tmp_path)
    running.end()
    assert len(answers(tmp_path)) == 2


SLOW_SINK = """
import pathlib, time

class Lines:
    def __init__(self, path): self.path = path
    def send(self, records):
        with self.path.open("a") as file: file.writelines(f"{record.id}\\n" for record in records)
        return len(records)
    def close(self): pass

def open_sink(settings, around):
    while not (around.state / "there").exists(): time.sleep(0.01)
    return Lines(around.state / "lines")
"""


def test_a_sink_from_outside_that_does_not_open_stops_nobody_and_joins_later(
    bundle: Callable, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported; answers go to the others, and to it from when it is open."""
    (tmp_path / "slow_sink.py").write_text(SLOW_SINK)
    monkeypatch.syspath_prepend(tmp_path)
    told: list[tuple[str, str]] = []
    (tmp_path / "state").mkdir()
    around = SinkSurroundings(state=tmp_path / "state", tell=lambda *said: told.append(said))
    found = open_answers({**LOG, "slow": {"kind": "slow_sink:open_sink"}}, around, wait_s=0.2)
    assert [code for code, _ in told] == ["sink_failed"]
    model = load_model(bundle())
    outcome = model.infer(images(tiny, 1)["00000.png"])
    done: list[str] = []

    def answer(name: str) -> None:
        found.answered(model, Capture(name, b"", name), outcome, (0, 0.0, 0.0))
        found.when_settled(lambda: done.append(name))

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline
            found.settle()

    answer("a")
    until(lambda: done == ["a"])
    (tmp_path / "state" / "there").touch()
    until(lambda: len(found.deliveries) == 2)
    answer("b")
    until(lambda: done == ["a", "b"])
    found.close()
    assert (tmp_path / "state" / "lines").read_text() == "b\n"
    assert [record["id"] for record in answers(tmp_path)] == ["a", "b"]
