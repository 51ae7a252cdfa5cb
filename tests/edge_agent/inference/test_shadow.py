"""A challenger beside the model that serves, in a real child."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.inference import shadow as challenger
from edge_agent.inference.served_model import ServedModel, load_model
from edge_agent.inference.shadow import Shadow
from wire.codec import decode
from wire.shadow import ShadowCounts, merge_shadow

LIMIT_S = 20.0


def until(done: Callable[[], object]) -> None:
    """Wait for ``done``; fail after the limit."""
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def counted(running: object) -> ShadowCounts:
    """Return the counts that the child has sent."""
    return merge_shadow(decode(ShadowCounts, frame.payload) for frame in running.heard if frame.kind == "shadow")


def drop_images(drop: Callable, tiny: dict, count: int, seed: int = 1) -> None:
    """Put images into the inbox."""
    drop({f"{seed}-{index:04}.png": tiny["png"](image) for index, image in enumerate(tiny["images"](count, seed))})


def test_a_challenger_runs_on_the_inputs_of_the_champion_which_alone_answers(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """Every input is served once by the champion, and compared or counted as skipped; windows are the champion's."""
    running = child(bundle(version=1))
    running.until("ready")
    running.tell(type="shadow", bundle=str(bundle(version=2)))
    running.until("shadow")
    drop_images(drop, tiny, 40)
    running.until("shadow", lambda _: counted(running).n + counted(running).skipped == 40)
    counts = counted(running)
    assert counts.n > 0
    assert counts.disagreed == sum(pair.n for pair in counts.pairs)
    assert all(pair.champion != pair.challenger for pair in counts.pairs)
    assert {frame.header["release"] for frame in running.heard if frame.kind == "window"} <= {"tiny-1"}
    assert running.end() == 0


def test_a_child_that_is_stopped_sends_what_it_has_counted(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """Its next heartbeat would come in seconds: the figures and the shadow's counts come with the end."""
    running = child(bundle(version=1), beat_s=3.0)
    running.until("ready")
    running.tell(type="shadow", bundle=str(bundle(version=1)))
    running.until("shadow")
    drop_images(drop, tiny, 10)
    running.until("window", lambda frame: frame.header["n"] > 0)
    running.tell(type="stop")
    assert running.end() == 0
    windows, beats = (sum(one.header["n"] for one in running.heard if one.kind == kind) for kind in ("window", "beat"))
    assert windows == beats == counted(running).n + counted(running).skipped > 0


@pytest.mark.parametrize(("last", "skipped"), [(False, 0), (True, 1)])
def test_an_input_under_comparison_at_the_end_is_skipped(
    bundle: Callable, tiny: dict, *, last: bool, skipped: int
) -> None:
    """Each input is compared or skipped, once."""
    held = challenger.threading.Event()
    made, model = with_challenger(bundle(version=1), held.wait)
    data = tiny["png"](tiny["images"](1)[0])
    made.offer(data, model, model.infer(data))
    counts = made.take(last=last)
    assert (counts.n, counts.skipped) == (0, skipped)
    held.set()
    until(lambda: made.take().n == 1)
    assert made.take(last=True).skipped == 0
    made.close()


def test_a_model_never_disagrees_with_itself(bundle: Callable, child: Callable, drop: Callable, tiny: dict) -> None:
    """The same bundle as champion and challenger."""
    running = child(bundle(version=1))
    running.until("ready")
    running.tell(type="shadow", bundle=str(bundle(version=1)))
    running.until("shadow")
    drop_images(drop, tiny, 20)
    running.until("shadow", lambda _: counted(running).n + counted(running).skipped == 20)
    assert (counted(running).disagreed, counted(running).errors, counted(running).pairs) == (0, 0, ())


def test_a_damaged_challenger_ends_alone(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """Its end has a code; the champion serves on."""
    damaged = bytearray(bundle(version=2).read_bytes())
    damaged[2000] ^= 1
    (tmp_path / "damaged.tfb").write_bytes(damaged)
    running = child(bundle(version=1))
    running.until("ready")
    running.tell(type="shadow", bundle=str(tmp_path / "damaged.tfb"))
    ended = running.until("shadow_ended").header
    drop_images(drop, tiny, 2)
    running.until("beat", lambda frame: frame.header["n"] > 0)
    assert ended["bundle"] == str(tmp_path / "damaged.tfb")
    assert ended["code"] in {"digest_mismatch", "bundle_invalid"}


def test_a_swap_ends_the_shadow(bundle: Callable, child: Callable) -> None:
    """Counts of the challenger with another champion would mean something else."""
    running = child(bundle(version=1))
    running.until("ready")
    running.tell(type="shadow", bundle=str(bundle(version=2)))
    running.until("shadow")
    running.tell(type="swap", bundle=str(bundle(version=3)))
    running.until("swapped")
    seen = len(running.heard)
    running.until("beat")
    running.until("beat")
    assert not [frame for frame in running.heard[seen:] if frame.kind == "shadow"]


def test_without_room_for_two_models_nothing_is_loaded(bundle: Callable) -> None:
    """The check comes before the load, and names how much it needs."""
    loads: list[Path] = []
    path = bundle(version=2)
    needed = 3 * path.stat().st_size + 40 * 1024 * 1024
    made = Shadow(path, lambda bundle: loads.append(bundle) or load_model(bundle), lambda: needed - 1)
    until(lambda: made.ended)
    assert made.ended == (
        "shadow_no_room", f"Expected {needed} bytes free for a second model and a large input, got {needed - 1}",
    )  # fmt: skip
    assert not loads
    enough = Shadow(path, load_model, lambda: needed)
    until(lambda: enough.loaded)
    enough.close()


class SlowRuntime:
    """The tiny model's, once the test lets it run."""

    def __init__(self, model: ServedModel, act: Callable[[], object]) -> None:
        """Run ``act`` first."""
        self.real, self.act = model.runtime, act

    def run(self, batch: object) -> object:
        """Act, then run."""
        self.act()
        return self.real.run(batch)

    def close(self) -> None:
        """Nothing is held."""


def with_challenger(path: Path, act: Callable[[], object]) -> tuple[Shadow, ServedModel]:
    """Return a shadow whose challenger does ``act`` at each run, and its champion."""
    model = load_model(path)
    made = Shadow(path, lambda _: replace(model, runtime=SlowRuntime(model, act)), lambda: sys.maxsize)
    until(lambda: made.loaded)
    return made, model


def test_a_challenger_that_takes_its_share_of_the_time_skips_the_rest(bundle: Callable, tiny: dict) -> None:
    """At 50 ms a run and an input every few milliseconds, a quarter of the time is its bound."""
    made, model = with_challenger(bundle(version=1), lambda: time.sleep(0.05))
    data = tiny["png"](tiny["images"](1)[0])
    outcome = model.infer(data)
    begun_s = time.monotonic()
    for _ in range(400):
        made.offer(data, model, outcome)
        time.sleep(0.005)
    elapsed_s, counts = time.monotonic() - begun_s, made.take()
    made.close()
    assert counts.n + counts.skipped in {399, 400}  # one may be under way
    assert 0 < counts.n * 0.05 <= 0.25 * elapsed_s + 0.5 + 0.1


def test_a_challenger_that_hangs_is_named_while_the_champion_goes_on(
    bundle: Callable, tiny: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is never held up: offers return at once, and ``ended`` says hung after the limit."""
    monkeypatch.setattr(challenger, "RUN_LIMIT_S", 0.05)
    held = challenger.threading.Event()
    made, model = with_challenger(bundle(version=1), held.wait)
    data = tiny["png"](tiny["images"](1)[0])
    made.offer(data, model, model.infer(data))
    until(lambda: made.ended)
    assert made.ended[0] == "challenger_hung"
    held.set()
    made.close()


@pytest.mark.parametrize(
    ("error", "code"), [(MemoryError(), "challenger_out_of_memory"), (KeyError("x"), "challenger_crashed")]
)
def test_an_error_of_the_challenger_ends_it_alone(bundle: Callable, tiny: dict, error: Exception, code: str) -> None:
    """Out of memory, and whatever else a runtime raises."""

    def fail() -> None:
        raise error

    made, model = with_challenger(bundle(version=1), fail)
    data = tiny["png"](tiny["images"](1)[0])
    made.offer(data, model, model.infer(data))
    until(lambda: made.ended)
    assert made.ended[0] == code


def test_an_input_that_only_the_champion_reads_is_an_error_of_the_challenger(bundle: Callable, tiny: dict) -> None:
    """It is counted, and the challenger goes on."""
    made, model = with_challenger(bundle(version=1), lambda: None)
    data = tiny["png"](tiny["images"](1)[0])
    made.offer(b"no image", model, model.infer(data))
    total: list[ShadowCounts] = []
    until(lambda: total.append(made.take()) or merge_shadow(total).errors == 1)
    made.close()
    assert (merge_shadow(total).n, made.ended) == (0, None)
