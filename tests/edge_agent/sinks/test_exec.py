"""A program as a sink: what it has read is sent, the rest comes again, and it can neither block nor fill the log."""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import SinkError
from edge_agent.sinks import SinkConfig, SinkSurroundings
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from edge_agent.sinks.exec import Hook, Settings
from tests.edge_agent.sinks.receiver import until
from wire.answers import AnswerRecord
from wire.errors import SettingsError

READ_LINE = """
def lines():
    line = b""
    while byte := os.read(0, 1):
        line += byte
        if byte == b"\\n":
            yield json.loads(line)["id"]
            line = b""
"""
"""Reads byte by byte, as ``read`` of a shell does: nothing lies in a buffer when it is killed."""
KEEP = "for name in lines():\n    os.write(out, (name + '\\n').encode())\n"
CONFIRM = KEEP + "    print('done', name, flush=True)\n"


@pytest.fixture
def told() -> list[tuple[str, str]]:
    """What an operator is told."""
    return []


@pytest.fixture
def hook(tmp_path: Path, told: list[tuple[str, str]]) -> Callable[..., Hook]:
    """Make the sink of a Python program with ``lines()``, and ``out``, a file of what it got."""

    def build(text: str, **keys: object) -> Hook:
        path = tmp_path / "hook.py"
        opened = f"os.open({str(tmp_path / 'got')!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)"
        path.write_text(f"import itertools, json, os, resource, sys, time\nout = {opened}\n{READ_LINE}{text}")
        return Hook(
            Settings(command=(sys.executable, "-S", str(path)), **keys),
            SinkSurroundings(name="hook", tell=lambda *said: told.append(said)),
        )  # type: ignore[arg-type]

    return build


def got(tmp_path: Path) -> list[str]:
    """Return the ids that the programs kept."""
    return (tmp_path / "got").read_text().split() if (tmp_path / "got").exists() else []


def some(*numbers: int) -> list[AnswerRecord]:
    """Return answers with these ids."""
    return [AnswerRecord(id=str(number)) for number in numbers]


def test_one_program_reads_all_answers(hook: Callable[..., Hook], tmp_path: Path) -> None:
    """It is started once, gets whole lines in order, and ends when its input does."""
    sink = hook(KEEP + "os.write(out, b'end')")
    assert (sink.send(some(1, 2)), sink.send(some(3))) == (2, 1)
    sink.close()
    assert got(tmp_path) == ["1", "2", "3", "end"]


def test_what_a_killed_program_had_not_read_is_not_sent(hook: Callable[..., Hook], tmp_path: Path) -> None:
    """The failure says how many it had read; the fourth line lay in the pipe, whole."""
    sink = hook(
        "names = lines()\nfor _ in range(3):\n    os.write(out, (next(names) + ' ').encode())\nos.kill(os.getpid(), 9)"
    )
    with pytest.raises(SinkError, match=r"got its end \(code -9\): it is started again") as raised:
        sink.send(some(1, 2, 3, 4))
    assert (raised.value.delivered, got(tmp_path)) == (3, ["1", "2", "3"])


def test_a_program_that_ends_is_started_again_after_a_pause_that_grows(hook: Callable[..., Hook]) -> None:
    """Half a second, then a second; in between nothing is started, and the sink says when."""
    sink = hook("sys.exit(3)")
    pauses = []
    for _ in range(2):
        with pytest.raises(SinkError, match=r"got its end \(code 3\)"):
            sink.send(some(1))
        pauses.append(sink._pause_s)
        with pytest.raises(SinkError, match=r"it starts again in \d\.\d s"):
            sink.send(some(1))
        sink._not_before_s = 0.0
    assert pauses == [0.5, 1.0]


def test_a_program_that_reads_nothing_is_killed(hook: Callable[..., Hook]) -> None:
    """After the limit, though it does not end by itself."""
    sink = hook("time.sleep(60)", limit_s=0.2)
    with pytest.raises(SinkError, match=r"no progress in 0.2 s \(code -9\)") as raised:
        sink.send(some(1))
    assert raised.value.delivered == 0


def test_with_confirm_an_answer_is_sent_when_the_program_says_so(hook: Callable[..., Hook]) -> None:
    """It has read all four and confirmed two: only those count."""
    sink = hook(
        "names = list(lines.__call__() and __import__('itertools').islice(lines(), 4))\nprint(1)\nprint(2)",
        confirm=True,
    )
    with pytest.raises(SinkError) as raised:
        sink.send(some(1, 2, 3, 4))
    assert raised.value.delivered == 2


def test_a_batch_larger_than_a_pipe_reaches_a_program_that_confirms(hook: Callable[..., Hook], tmp_path: Path) -> None:
    """Neither side waits for the other: 1 MB in, a line out for each."""
    sink = hook(CONFIRM, confirm=True)
    records = [AnswerRecord(id=str(number), text="x" * 4000) for number in range(250)]
    assert sink.send(records) == 250
    sink.close()
    assert got(tmp_path) == [record.id for record in records]


def test_each_runs_once_for_an_answer_and_its_exit_code_counts(
    hook: Callable[..., Hook], tmp_path: Path, told: list[tuple[str, str]]
) -> None:
    """A failed one and one over its limit are dropped, the others are sent; failures in a row are reported once."""
    text = "name = next(lines())\nos.write(out, (name + ' ').encode())\n"
    sink = hook(text + "time.sleep(60 if name == '3' else 0)\nsys.exit(name == '2')", each=True, limit_s=1.0)
    assert sink.send(some(1, 2, 3, 4)) == 2
    assert got(tmp_path) == ["1", "2", "3", "4"]
    assert [text.partition(":")[2][:30] for _, text in told] == [" Expected exit code 0 of " + sys.executable[:5]]


def test_a_program_that_is_not_there_is_named() -> None:
    """The answers wait until it is."""
    for each in (True, False):
        with pytest.raises(SinkError, match="that can be started at /nonexistent/hook, got: No such file"):
            Hook(Settings(command=("/nonexistent/hook",), each=each), SinkSurroundings(name="hook")).send(some(1))


def test_its_output_goes_to_the_log_and_is_bounded(hook: Callable[..., Hook], caplog: pytest.LogCaptureFixture) -> None:
    """Sixty lines a minute, 300 characters each, and no control character that could forge a line."""
    caplog.set_level(logging.INFO)
    sink = hook("next(lines())\nprint('a\\x1b[2J\\rb', 'x' * 9999)\nfor n in range(9999):\n    print(n)\n" + KEEP)
    assert sink.send(some(1)) == 1
    sink.close()
    lines = [record.getMessage() for record in caplog.records if "hook=hook" in record.getMessage()]
    assert (len(lines), max(len(line) for line in lines) < 340) == (60, True)
    assert lines[0].startswith(r"hook=hook a\x1b[2J\rb xxx")


def test_it_has_the_memory_of_the_machine_not_of_the_child(hook: Callable[..., Hook], tmp_path: Path) -> None:
    """The limit on the inference child's memory is not the program's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, hard))
    try:
        text = "os.write(out, str(resource.getrlimit(resource.RLIMIT_DATA)[0]).encode())"
        assert hook(f"next(lines())\n{text}", each=True).send(some(1)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert got(tmp_path) == [str(hard)]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, r'an absolute path and arguments, got \[\]: command = \["/usr/local/bin/hook"\]'),
        ({"command": ["hook"]}, r"an absolute path and arguments, got \['hook'\]"),
        ({"command": ["/bin/x", "a\0b"]}, "an absolute path and arguments"),
        ({"command": "/bin/x --y"}, "command to be a list of text"),
        ({"command": ["/bin/x"], "each": True, "confirm": True}, "each or confirm, got both"),
        ({"command": ["/bin/x"], "limit_s": 0.01}, "limit_s between 0.1 and 86400, got 0.01"),
    ],
)
def test_a_wrong_table_is_refused_by_name(table: dict[str, object], words: str) -> None:
    """Before the agent starts."""
    with pytest.raises(SettingsError, match=words):
        SinkConfig.from_table({"kind": "exec", **table}, "agent.toml sinks hook", None)


@pytest.mark.parametrize("keys", [{"confirm": True}, {}], ids=["confirm", "read"])
def test_no_answer_that_counts_as_sent_is_lost_over_kills(
    keys: dict[str, bool], hook: Callable[..., Hook], tmp_path: Path
) -> None:
    """Kill -9 of the program during a stream: sums agree. Without ``confirm`` a kill may lose the line in its hands."""
    sink = hook(CONFIRM if keys else KEEP, **keys)
    account = open_accounts(None, ["hook"])["hook"]
    delivery = Delivery("hook", sink, SinkSettings(queue=5000), account, lambda _code, _text: None)
    chance = random.Random(5)  # noqa: S311 - moments of kills are no secret
    for number in range(3000):
        delivery.offer(AnswerRecord(id=str(number)), 0.0)
    for kill in range(2):
        reached = len(got(tmp_path)) + chance.randrange(100, 900)
        until(lambda reached=reached: len(got(tmp_path)) > reached)  # type: ignore[misc]
        assert sink._running is not None, kill
        os.kill(sink._running._process.pid, signal.SIGKILL)
    until(lambda: not account.open, 60)
    delivery.close(5)
    assert (account.counts["sent"], account.counts["dropped"]) == (3000, 0)
    assert 3000 - len(set(got(tmp_path))) <= (0 if keys else 2)
