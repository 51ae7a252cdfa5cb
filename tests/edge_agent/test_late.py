"""Modules of the standard library that the control process imports on first use."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from edge_agent.control import late

PLACES = [str(Path(late.__file__).parents[2]), sysconfig.get_path("purelib")]
BEGIN = "import sys\nfrom edge_agent.control.late import PUT_OFF, put_off, put_off_still\nput_off()\n"


def printed(program: str) -> list[str]:
    """Return the lines that ``program`` prints in a new process, after modules were put off."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PLACES)}  # -S: a checkout's own finder imports some
    command = [sys.executable, "-S", "-c", BEGIN + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines() + done.stderr.splitlines()


def test_an_import_loads_nothing_and_an_attribute_loads_the_module() -> None:
    """Also one in a package; whoever imported it before sees the real one, and the others stay put off."""
    program = (
        "import http.client, urllib.request, uuid\nbefore = http.client\nprint(len(PUT_OFF) - len(put_off_still()))\n"
        "print(http.client.OK, before.NOT_FOUND, http.client is sys.modules['http.client'], before is http.client)\n"
        "print('http.client' in put_off_still(), 'urllib.request' in put_off_still())"
    )
    assert printed(program) == ["0", "200 404 True False", "False True"]


def test_a_name_that_a_module_lacks_is_missing_there() -> None:
    """The error is Python's own, of the real module."""
    program = "import shutil\ntry:\n    shutil.nothing\nexcept AttributeError as error:\n    print(error)"
    assert printed(program) == ["module 'shutil' has no attribute 'nothing'"]


def test_threads_that_need_it_at_once_get_one_module() -> None:
    """Eight, again and again for each module that is put off."""
    program = (
        "import importlib, threading\nassert put_off_still() == set(PUT_OFF)\n"
        "for name in sorted(PUT_OFF):\n"
        "    late, gate, found = sys.modules[name], threading.Barrier(8), []\n"
        "    if name not in put_off_still():\n"
        "        continue\n"
        "    def use(late=late, gate=gate, found=found):\n"
        "        gate.wait()\n"
        "        found.append(late.some_name if hasattr(late, 'some_name') else sys.modules[late.__name__])\n"
        "    users = [threading.Thread(target=use) for _ in range(8)]\n"
        "    [user.start() for user in users] and [user.join() for user in users]\n"
        "    assert len(found) == 8 and set(found) == {importlib.import_module(name)}, name\n"
        "print(sorted(put_off_still()))"
    )
    assert printed(program) == ["[]"]


def test_a_failure_is_logged_with_its_stack() -> None:
    """What the log needs for it comes then."""
    program = (
        "import logging\nlogging.basicConfig(format='%(message)s')\nassert 'traceback' in put_off_still()\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('failed')"
    )
    lines = printed(program)
    assert (lines[0], lines[1], lines[-1]) == (
        "failed",
        "Traceback (most recent call last):",
        "ZeroDivisionError: division by zero",
    )
