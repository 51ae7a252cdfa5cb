"""The result of a refused attempt: each row of the table, through the updater."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import edge_agent.updater
from edge_agent.device.sane_clock import EARLIEST_MS, ClockWatch
from edge_agent.updater.ports import Refusal
from edge_agent.updater.refusals import COURSES, DOUBTFUL_TRIES, Course, course
from wire.messages import UpdatePhase

HTTP = {"http_302": Course.PASSING, "http_404": Course.FINAL, "http_418": Course.FINAL, "http_999": Course.DOUBTFUL}
ROWS = sorted({**COURSES, **HTTP, "never_heard_of": Course.DOUBTFUL}.items())


@pytest.mark.parametrize(("code", "kind"), ROWS)
def test_every_refusal_takes_its_course(device: object, release: Callable, code: str, kind: Course) -> None:
    """Final: refused at once. Uncertain: after a few tries. Temporary: deferred however often, then it continues."""
    new = device.publish(release(1))
    signed, device.targets[new.desired.target] = new.target, Refusal(code, "so")
    device.offer(new.desired)
    device.work()
    for tried in range(1, 20):
        ended = kind is Course.FINAL or (kind is Course.DOUBTFUL and tried >= DOUBTFUL_TRIES)
        assert device.updater.record.phase is (UpdatePhase.REFUSED if ended else UpdatePhase.DEFERRED)
        assert (device.updater.status.code, device.updater.status.text) == (code, "so")
        device.work_out(1)
    assert device.phases.count(code) == (2 if kind is Course.DOUBTFUL else 1)
    device.targets[new.desired.target] = signed
    device.work_out(1)
    assert (device.updater.record.phase is UpdatePhase.PROBATION) == (kind is Course.PASSING)


TO_A_PERSON = {"no_release", "busy", "changed", "no_previous", "bundle_damaged"}  # answers of ``recall``, no attempt's


def test_every_code_that_the_updater_gives_has_a_row() -> None:
    """A new refusal is classified, not guessed."""
    folder = Path(edge_agent.updater.__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    given = set(re.findall(r'(?:Refusal|NoAnswer)\(\s*"([a-z_]+)"', text)) | set(re.findall(r'code="([a-z_]+)"', text))
    assert given - {"target_unsigned"} - TO_A_PERSON <= set(COURSES)
    assert len(given) > 12
    assert course("never_heard_of") is Course.DOUBTFUL


@pytest.mark.parametrize("seed", range(5))
def test_backs_off_with_full_jitter_and_a_bound(device: object, release: Callable, seed: int) -> None:
    """The first try comes soon, none waits longer than the bound, and the waits differ."""
    device.updater.chance = random.Random(seed)  # noqa: S311 - seeded jitter
    device.targets[release(1).desired.target] = Refusal("metadata_unreachable")
    device.offer(release(1).desired)
    waits = []
    for _ in range(30):
        device.work()
        begun_s = device.now_s
        while device.updater.record.phase is UpdatePhase.DEFERRED:
            device.pass_time(1.0)
        waits.append(device.now_s - begun_s)
    assert waits[0] <= 3
    assert max(waits) <= device.config.defer_max_s + 1
    assert len(set(waits[15:])) > 5


def test_a_deferred_update_goes_on_after_a_restart(device: object, release: Callable) -> None:
    """It need not be sent again."""
    new = device.publish(release(1))
    device.targets[new.desired.target] = Refusal("metadata_unreachable")
    device.offer(new.desired)
    device.work()
    device.publish(new)
    device.restart()
    device.pass_time(0)
    device.work()
    assert device.updater.record.phase is UpdatePhase.PROBATION


def test_an_update_waits_for_a_sane_clock_and_not_a_second_longer(device: object, release: Callable) -> None:
    """In 1970 nothing is verified and no deadline passes; as soon as the clock is set, the update continues."""
    new = device.publish(release(1))
    device.updater.watch = ClockWatch().look(0, 0.0)
    device.offer(new.desired)
    device.pass_time(1)
    assert (device.updater.record.phase, device.updater.status.code) == (UpdatePhase.DEFERRED, "clock_behind")
    assert device.phases == ["offered", "clock_behind"]
    device.updater.watch = device.updater.watch.look(EARLIEST_MS, 1.0)
    device.pass_time(0)
    device.work()
    assert device.updater.record.phase is UpdatePhase.PROBATION


def test_every_code_stands_in_the_documentation() -> None:
    """An operator can look up the code of an event."""
    text = (Path(__file__).parents[3] / "docs" / "explanation" / "architecture.md").read_text()
    assert [code for code in COURSES if code not in text] == []
