"""``edge-agent try``: answers a line, nothing deleted, and an error that names what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import front_ends
from edge_agent.config import AgentConfig
from edge_agent.config import document_of as document_of_config
from edge_agent.errors import SourceError
from edge_agent.inference.trial import _found, document_of
from tests.edge_agent.conftest import free_port
from tests.edge_agent.task_bundles import bundle_of

LIMIT_S = 60


def tried(*arguments: object) -> tuple[int, list[dict], str]:
    """Run the command; return its exit code, its answers and what it wrote for people."""
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "try", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def pictures(tiny: dict, tmp_path: Path) -> Path:
    """A folder of three pictures, a broken one, and notes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(tiny["images"](3)):
        (folder / f"{number}.png").write_bytes(tiny["png"](image))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_each_file_of_a_folder_gets_one_answer_and_stays(bundle: Callable, pictures: Path) -> None:
    """In the order of their names; the broken one with a reason, and the command ends."""
    before = sorted(pictures.iterdir())
    code, answers, said = tried(bundle(), "--path", pictures, "--once")
    assert (code, [record["id"] for record in answers]) == (0, ["0.png", "1.png", "2.png", "broken.png"])
    assert said.splitlines()[-1].startswith("skipped 1 of 5 files: notes.txt: this release reads no such files")
    assert [record.get("error", record.get("label")) in {"a", "b", "c"} for record in answers] == [True] * 3 + [False]
    assert sorted(pictures.iterdir()) == before


def test_a_video_that_can_not_be_read_ends_with_a_named_error(bundle: Callable, tmp_path: Path) -> None:
    """It was tried again without end."""
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video" * 100)
    code, answers, said = tried(bundle(), "--source", "camera", "--path", path)
    assert (code != 0, answers) == (True, [])
    assert f"Expected a file that can be read to its end at {path}, got: " in said.splitlines()[-1]


def test_a_watched_folder_ends_after_the_wanted_number(bundle: Callable, pictures: Path) -> None:
    """``--count`` ends the watching, and no more lines come."""
    code, answers, _ = tried(bundle(), "--path", pictures, "--count", 2)
    assert (code, len(answers), len(list(pictures.iterdir()))) == (0, 2, 5)


def test_one_file_and_a_zip_are_answered(bundle: Callable, pictures: Path, tmp_path: Path) -> None:
    """Both end by themselves."""
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in pictures.iterdir():
            file.write(path, path.name)
    assert len(tried(bundle(), "--path", pictures / "1.png")[1]) == 1
    assert len(tried(bundle(), "--path", archive, "--once")[1]) == 4


@pytest.mark.parametrize("how", ["file", "folder", "zip"])
def test_a_region_is_cut_out_however_the_pictures_come(
    how: str, bundle: Callable, pictures: Path, tmp_path: Path
) -> None:
    """One pixel of a picture is another input than all of it."""
    (pictures / "broken.png").unlink()
    if how == "zip":
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
            file.write(pictures / "0.png", "0.png")
    path = {"file": pictures / "0.png", "folder": pictures, "zip": tmp_path / "all.zip"}[how]
    whole, part = (
        tried(bundle(temperature=30.0), "--path", path, "--once", *keys)[1][0]["confidence"]
        for keys in ((), ("--set", "region=[0,0,0.01,0.01]"))
    )
    assert whole != part


def test_a_fifo_and_a_damaged_zip_end_too(bundle: Callable, pictures: Path, tmp_path: Path) -> None:
    """What can't be read is answered with a reason or refused; nothing hangs, and there is no traceback."""
    os.mkfifo(pictures / "a.png")
    assert [record["id"] for record in tried(bundle(), "--path", pictures, "--once")[1]][-2:] == ["a.png", "broken.png"]
    archive = tmp_path / "all.zip"
    archive.write_bytes(b"no zip")
    code, _, text = tried(bundle(), "--path", archive, "--once")
    assert (code, "Expected an intact zip" in text, "Traceback" in text) == (3, True, False)


def test_a_clone_without_a_bundle_says_how_to_get_one() -> None:
    """The wheel carries one; a clone does not."""
    code, _, text = tried()
    assert (code, "compressor run models/digits" in text) == (3, True)


@pytest.mark.parametrize(
    ("kind", "path", "keys", "wanted"),
    [
        ("fodler", None, (), "did you mean 'folder'"),
        ("folder", None, (), "give --path"),
        ("folder", "/nowhere", (), "nothing there"),
        ("synthetic", "/tmp", ("rate",), "KEY=VALUE"),
        ("synthetic", "/tmp", ("rate_hertz=1",), "did you mean 'rate_hz'"),
        ("synthetic", "/tmp", ("rate_hz=-1",), "between 0 and 10000, got -1"),
    ],
)
def test_a_wrong_source_is_refused_with_a_next_step(
    kind: str, path: str | None, keys: tuple[str, ...], wanted: str
) -> None:
    """The error names the option, the expectation and the value."""
    with pytest.raises(SourceError, match=wanted):
        document_of(kind, path, keys)


def test_values_of_keys_are_json_or_text() -> None:
    """Numbers, booleans and plain words need no quotes."""
    document = document_of("synthetic", "/tmp", ("rate_hz=2.5", "repeat=false"))
    assert document == {"kind": "synthetic", "path": "/tmp", "rate_hz": 2.5, "repeat": False}


def test_a_page_shows_what_is_tried(bundle: Callable, pictures: Path) -> None:
    """``--listen`` serves the page and the answers beside the lines; the address is named."""
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "try", str(bundle())]
    port = free_port()
    command += ["--path", str(pictures), "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            lines = [json.loads(running.stdout.readline()) for _ in range(4)]
            found = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/answers", timeout=20).read())
        finally:
            running.terminate()
        assert [answer["id"] for answer in found] == [answer["id"] for answer in lines]
        assert f"page: http://127.0.0.1:{port}/" in running.stderr.read().decode()
        assert running.wait(LIMIT_S) == 0


def test_a_page_is_not_shown_to_the_network(bundle: Callable, pictures: Path) -> None:
    """``try`` has no token."""
    code, _, words = tried(bundle(), "--path", pictures, "--listen", "0.0.0.0:8500")
    assert (code != 0, "which is not loopback" in words) == (True, True)


def test_a_file_that_can_not_be_read_has_the_reason(bundle: Callable, pictures: Path, tmp_path: Path) -> None:
    """A folder with the name of a picture, and an entry of a zip that is damaged: not "0 bytes"."""
    (pictures / "folder.png").mkdir()
    _, answers, _ = tried(bundle(), "--path", pictures, "--once")
    (found,) = [record for record in answers if record["id"] == "folder.png"]
    assert (found["error"], "got: Is a directory" in found["text"]) == ("image_invalid", True)
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(pictures / "0.png", "0.png")
    data = bytearray(archive.read_bytes())
    data[60] ^= 1
    archive.write_bytes(data)
    _, answers, _ = tried(bundle(), "--path", archive, "--once")
    assert "Bad CRC-32" in answers[0]["text"]


def test_an_only_input_without_an_answer_is_a_failure(bundle: Callable, pictures: Path) -> None:
    """A script sees by the exit code that nothing was answered; one answer of several is enough."""
    code, answers, _ = tried(bundle(), "--path", pictures / "broken.png", "--once")
    assert (code, [record["error"] for record in answers]) == (1, ["image_invalid"])


def test_what_a_plug_in_prints_is_no_answer(bundle: Callable, tmp_path: Path) -> None:
    """Lines of code from outside go to standard error; standard output has answers alone."""
    (tmp_path / "loud.py").write_text(
        "import os\nfrom edge_agent.sources import Capture\n\n"
        "class Loud:\n"
        "    def take(self):\n        print('loud', flush=True)\n        os.system('echo louder')\n"
        "        return Capture('a', b'no picture')\n"
        "    def done(self, capture): pass\n"
        "    def refuse(self, capture, code, *, final=False): return True\n"
        "    def take_dropped(self): return 0\n\n"
        "def open_source(*_): return Loud()\n"
    )
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "try", str(bundle())]
    done = subprocess.run(
        [*command, "--source", "loud:open_source", "--count", "2"], capture_output=True, text=True, timeout=LIMIT_S,
        check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert [json.loads(line)["error"] for line in done.stdout.splitlines()] == ["image_invalid"] * 2, done.stderr
    assert ("loud\n" in done.stderr, "louder" in done.stderr) == (True, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [["try", "AT", "--path", "."], ["run", "--state", "state", "--config", "AT"]])
def test_a_command_that_serves_ends_well_while_it_still_loads(
    command: list[str], number: signal.Signals, tmp_path: Path
) -> None:
    """The file that it reads is a FIFO: it waits there, and has begun nothing that must be ended in order."""
    os.mkfifo(tmp_path / "waiting")
    words = [str(tmp_path / "waiting") if word == "AT" else word for word in command]
    code = "from edge_agent.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", code, *words], cwd=tmp_path, stderr=subprocess.PIPE) as running:
        writer = os.open(tmp_path / "waiting", os.O_WRONLY)  # returns when it has opened the other end
        running.send_signal(number)
        assert (running.wait(LIMIT_S), running.stderr.read()) == (0, b"")
        os.close(writer)


def test_a_trial_that_is_stopped_before_any_answer_ends_well(bundle: Callable, tmp_path: Path) -> None:
    """Nothing came yet: that is no fault. Without a signal it is one."""
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "try", str(bundle())]
    command += ["--path", str(tmp_path / "empty"), "--listen", f"127.0.0.1:{free_port()}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        while b"page: " not in running.stderr.readline():
            pass
        running.terminate()
        assert running.wait(LIMIT_S) == 0


def test_a_signal_that_comes_while_the_agent_starts_is_kept_for_it(tmp_path: Path) -> None:
    """The command line becomes the control process: what came in between reaches it, instead of killing it."""
    lines = [
        "import os, signal, sys",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os.execv(sys.executable, [sys.executable, '-m', 'edge_agent.control', sys.argv[1]])",
    ]
    checked = tmp_path / "checked.json"
    checked.write_text(json.dumps({"config": document_of_config(AgentConfig()), "runtimes": []}))
    with checked.open("rb") as file:
        told = json.dumps({"state": str(tmp_path), "verbose": False, "checked": file.fileno()})
        command = [sys.executable, "-c", "\n".join(lines), told]
        done = subprocess.run(command, capture_output=True, text=True, pass_fds=[file.fileno()], check=False)
    assert (done.returncode, "error [" in done.stderr) == (3, True)  # it has no identity, and says so


def test_columns_in_another_order_are_said_once(tmp_path: Path) -> None:
    """Rows with the model's names in another order are answered; foreign names are an error with both."""
    names = tuple("abcdefgh")
    options = front_ends.complete("window", {"steps": 8, "channels": 8})
    pre = {"front_end": "window", "front_end_options": options, "front_end_columns": names}
    rows = tmp_path / "rows"
    rows.mkdir()
    lines = "\n".join([",".join("0" * 8)] * 8)
    for number, head in enumerate((names, names[::-1], names[::-1], ("z", *names[1:]))):
        (rows / f"{number}.csv").write_text(f"{','.join(head)}\n{lines}\n")
    code, answers, said = tried(bundle_of("classification", tmp_path, pre=pre), "--path", rows, "--once")
    assert code == 0
    assert [answer.get("error", answer.get("label")) for answer in answers] == ["b", "b", "b", "sensor_invalid"]
    assert said.count("columns_reordered") == 1
    assert "columns_reordered: 1.csv: Expected the columns a, b, c, d, e, f, g, h, got h, g, f, e" in said
    assert "(missing: a; not of the model: z)" in answers[3]["text"]


def test_files_that_are_no_inputs_are_named_at_the_end(tmp_path: Path) -> None:
    """Of a folder or a zip: hidden files and folders are none; too large ones are, and a GIF has advice of its own."""
    suffixes = frozenset({".png"})
    there = {"b.png": True, "a.png": True, ".hidden.png": True, "large.png": False, "c.GIF": True}
    found, said = _found(there, tmp_path, suffixes)
    assert list(found) == ["a.png", "b.png"]
    assert said == "skipped 2 of 4 files: c.GIF, large.png: save the frames of a GIF as PNG"
    assert _found({"a.png": True}, tmp_path, suffixes)[1] == ""
    many = {f"{number}.txt": True for number in range(7)}
    assert ": 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more: " in _found({"a.png": True, **many}, tmp_path, suffixes)[1]
    with pytest.raises(SourceError, match=r"got 1 others: c\.gif: save the frames of a GIF as PNG"):
        _found({"c.gif": True}, tmp_path, suffixes)
    with pytest.raises(SourceError, match="got none: check --path"):
        _found({}, tmp_path, suffixes)
