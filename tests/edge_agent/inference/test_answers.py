"""A real child and its answers: each input is answered, filtered or counted, over kills and slow sinks."""

from __future__ import annotations

import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent import api
from edge_agent.inference.answers import Answers, open_answers
from edge_agent.inference.child import CountingSettings, InferenceLoop
from edge_agent.inference.served_model import load_model
from edge_agent.inference.trial import Listed
from edge_agent.sinks import SinkSurroundings
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from edge_agent.sources import Capture
from tests.edge_agent.sinks.receiver import Receiver, until
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


def test_an_answer_names_what_the_server_said_of_the_inputs(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """Not before it was heard, with an answer and without one, and no more when it is unknown again."""
    running, told = child(bundle(), sinks=LOG), []
    running.until("ready")
    for number, state in enumerate(("", "drift", "")):
        if number:
            running.tell(type="drift", state=state)
            running.tell(type="read the frames before this one")
            running.until("fault", lambda frame: frame.header["code"] == "frame_unknown")
        drop({f"{number}.png": tiny["png"](tiny["images"](1)[0]), f"bad{number}.png": b"no image"})
        settled(running.until, tmp_path)
        told.append({record.get("drift") for record in answers(tmp_path)[-2:]})
    assert told == [{None}, {"drift"}, {None}]


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


@dataclass(slots=True)
class Steps:
    """A clock that moves by ``step_s`` each time it is read."""

    step_s: float
    now_s: float = 0.0

    def now_ms(self) -> int:
        """Return a fixed time."""
        return 1_790_000_000_000

    def monotonic_s(self) -> float:
        """Return the next time."""
        self.now_s += self.step_s
        return self.now_s


def loop_of(path: Path, given: dict[str, bytes], state: Path, step_s: float) -> tuple[InferenceLoop, Receiver]:
    """Return a loop that reads ``given``, and the receiver of its one sink; the counts are below ``state``."""
    source = Listed(left=deque(given), read=given.__getitem__)
    loop = InferenceLoop(load_model(path), source, lambda *_: None, Steps(step_s), CountingSettings(beat_s=1e9))
    sink, account = Receiver(), open_accounts(state, ["log"])["log"]
    loop.answers = Answers(deliveries=[Delivery("log", sink, SinkSettings(), account, lambda *_: None)])
    return loop, sink


def test_answers_wait_for_the_next_input_only_while_there_is_time(bundle: Callable, tiny: dict, tmp_path: Path) -> None:
    """Within the time that an answer may wait, three are made together; when a run takes longer, each by itself."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "quick").mkdir()
    slow, slow_sink = loop_of(bundle(), images(tiny, 3), tmp_path / "slow", 0.005)
    slow.turn(), slow.turn()
    until(lambda: len(slow_sink.ids) == 2)
    quick, quick_sink = loop_of(bundle(), images(tiny, 3), tmp_path / "quick", 0.0)
    quick.turn(), quick.turn(), quick.turn()
    assert (quick.answers.figures["log"]["offered"], quick_sink.ids) == (3, [])
    quick.turn()
    until(lambda: quick_sink.ids == ["00000.png", "00001.png", "00002.png"])


def test_an_answer_that_waited_at_a_kill_is_counted_as_cut_off(bundle: Callable, tiny: dict, tmp_path: Path) -> None:
    """It is counted as offered from the run on, not only from the record on."""
    loop, sink = loop_of(bundle(), images(tiny, 2), tmp_path, 0.0)
    loop.turn()
    assert sink.ids == []
    assert open_accounts(tmp_path, ["log"])["log"].counts["cut_off"] == 1


def test_answers_stay_in_the_order_of_their_inputs(bundle: Callable, tiny: dict, tmp_path: Path) -> None:
    """An input that can't be read, or a large one, does not overtake the answers that wait."""
    large = tiny["png"](np.zeros((700, 700, 3), np.uint8))
    good = images(tiny, 2)
    given = {"a": good["00000.png"], "b": b"no image", "c": good["00001.png"], "d": large, "e": good["00000.png"]}
    loop, sink = loop_of(bundle(), given, tmp_path, 0.0)
    for _ in range(6):
        loop.turn()
    until(lambda: sink.ids == list("abcde"))
