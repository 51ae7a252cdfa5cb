"""How pictures reach a real child, and the handling of one that ends it or is invalid."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent.in_flight import read_held

LIMIT_S = 30.0
MIB = 1024 * 1024

SLOW_WRITER = """
import pathlib, sys, time
data = sys.stdin.buffer.read()
for part in range(15):
    for number in range(10):
        with (pathlib.Path(sys.argv[1]) / f"{number}.png").open("ab") as file:
            file.write(data[len(data) * part // 15 : len(data) * (part + 1) // 15])
    time.sleep(0.1)
"""


def until(done: Callable[[], object]) -> None:
    """Wait until ``done``; fail after the limit."""
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def photo(width: int, height: int, kind: str = "JPEG") -> bytes:
    """Return an encoded picture of coarse random colours."""
    small = np.random.default_rng(0).integers(0, 256, (height // 64, width // 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height)).save(buffer, kind)
    return buffer.getvalue()


def bad(tmp_path: Path) -> list[str]:
    """Return the inputs that were set aside."""
    return sorted(path.name for path in (tmp_path / "state" / "bad").glob("*"))


def test_pictures_written_in_place_over_a_second_and_a_half_are_all_served(
    bundle: Callable, child: Callable, drop: Callable, tmp_path: Path
) -> None:
    """A writer without atomic renames that closes its file after every part: ten of ten served, none set aside."""
    drop({})
    running = child(bundle())
    running.until("ready")
    command = [sys.executable, "-c", SLOW_WRITER, str(tmp_path / "inbox")]
    subprocess.run(command, input=photo(640, 480, "PNG"), check=True, timeout=LIMIT_S)
    running.until("window", lambda _: sum(f.header["n"] for f in running.heard if f.kind == "window") == 10)
    assert running.end() == 0
    assert sum(frame.header["errors"] for frame in running.heard if frame.kind == "beat") == 0
    assert (list((tmp_path / "inbox").iterdir()), bad(tmp_path)) == ([], [])


@pytest.mark.slow
def test_the_item_that_ended_a_child_is_set_aside_and_the_next_is_served(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """After a kill while decoding, the next child sets the picture aside, reports it, and serves the next good one."""
    drop({"0.png": photo(5120, 5120, "PNG"), "1.png": tiny["png"](tiny["images"](1)[0])})
    first = child(bundle())
    until(lambda: (held := read_held(tmp_path / "state")) and held.item == "0.png" and held.pid == first.process.pid)
    first.process.kill()
    first.process.wait(LIMIT_S)
    second = child(bundle())
    fault = second.until("fault").header
    second.until("window", lambda frame: frame.header["n"] == 1)
    assert (fault["code"], fault["text"][:6]) == ("input_crashed", "0.png:")
    assert bad(tmp_path) == ["00000001-input_crashed-0.png"]
    assert second.end() == 0
    assert read_held(tmp_path / "state").item == ""


@pytest.mark.slow
@pytest.mark.parametrize("runs", [["1", "2"], ["1", "2", "3"], ["1", "2", "2"]])
def test_the_item_held_when_the_agent_ended_too_is_tried_once_more(
    runs: list[str], bundle: Callable, child: Callable, drop: Callable, tmp_path: Path
) -> None:
    """Served if the second try succeeds; in progress at another end, of the machine or the child, it is set aside."""
    drop({"0.png": photo(5120, 5120, "PNG")})
    for run in runs[:-1]:
        ended = child(bundle(), run=run)
        pid = ended.process.pid
        until(lambda pid=pid: (held := read_held(tmp_path / "state")) and held.item == "0.png" and held.pid == pid)
        ended.process.kill()
        ended.process.wait(LIMIT_S)
    last = child(bundle(), run=runs[-1])
    set_aside = len(runs) > 2
    assert last.until("fault").header["code"] == ("input_crashed" if set_aside else "input_tried_again")
    if not set_aside:
        last.until("window", lambda frame: frame.header["n"] == 1)
    assert last.end() == 0
    assert bad(tmp_path) == (["00000001-input_crashed-0.png"] if set_aside else [])
    assert list((tmp_path / "inbox").iterdir()) == []


@pytest.mark.parametrize("decoding", [True, False])
def test_a_picture_of_20_megapixels_is_reduced_or_set_aside_but_ends_nothing(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path, *, decoding: bool
) -> None:
    """Under 128 MB: served if the manifest has ``reduced``; with an older bundle set aside by its header."""
    drop({"0.jpg": photo(5472, 3648), "1.png": tiny["png"](tiny["images"](1)[0])})
    running = child(bundle(decoding=decoding), memory_bytes=128 * MIB)
    served = 1 + decoding
    running.until("window", lambda _: sum(f.header["n"] for f in running.heard if f.kind == "window") == served)
    if not decoding:
        fault = running.until("fault").header
        assert fault["code"] == "image_too_large"
        assert "5472x3648 pixels, which take" in fault["text"]
    until(lambda: bad(tmp_path) == ([] if decoding else ["00000001-image_too_large-0.jpg"]))
    status = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
    assert int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) < 128 * 1024
    assert running.end() == 0


def test_a_child_lets_the_control_process_outlive_it(bundle: Callable, child: Callable) -> None:
    """When memory runs out, the kernel ends the child first."""
    running = child(bundle())
    running.until("ready")
    score = int(Path(f"/proc/{running.process.pid}/oom_score_adj").read_text())
    assert score > int(Path(f"/proc/{os.getpid()}/oom_score_adj").read_text())
