"""Asks the application on the device whether a release may be switched to now. Runs on the worker.

Decides what an exit code means: 0 goes on, 75 (``EX_TEMPFAIL``) is busy, any other one is a fault of the program, which
counts as busy too, because an unasked switch is what the integrator excluded. After the time limit the program and what
it started are killed. Going back to the previous release is never asked about: the release that serves has failed.

The program gets no secret and no more rights than it needs: a small environment, the folder ``/``, no open file, no way
to gain rights (``setpriv --no-new-privs``), and with ``user`` another user's. It ends with the agent.

Source: sysexits.h, EX_TEMPFAIL; setpriv(1); prctl(2), PR_SET_NO_NEW_PRIVS and PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import selectors
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

from edge_agent.config import HookConfig
from edge_agent.updater.ports import Consent, Refusal

BUSY = os.EX_TEMPFAIL
_LAST_BYTES = 300  # of what it wrote
_LOOK_S = 0.05
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class ProgramHook:
    """The program of ``[hooks] before_switch``."""

    config: HookConfig

    def ask(self, release: str, current: str) -> Consent | Refusal:
        """Return whether ``release`` may replace ``current`` now."""
        command, config = list(self.config.before_switch), self.config
        if setpriv := shutil.which("setpriv", path=_PATH):
            command = [setpriv, "--no-new-privs", "--pdeathsig", "KILL", "--", *command]
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", "TINYFLEET_RELEASE": release, "TINYFLEET_CURRENT": current}
        rights: dict[str, object] = {}
        try:
            if config.user:
                entry = pwd.getpwnam(config.user)
                if os.geteuid() != entry.pw_uid:
                    rights = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            process = subprocess.Popen(  # type: ignore[call-overload]  # mypy knows no unpacked keywords
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
                env=environment, start_new_session=True, bufsize=0, **rights,
            )  # fmt: skip
        except KeyError:
            return Refusal("hook_failed", f"Expected the user {config.user!r} of [hooks], got none: create it")
        except OSError as error:
            text = (
                f"Expected to start {config.before_switch[0]}, got: {error.strerror}: correct before_switch in [hooks]"
            )
            return Refusal("hook_failed", f"{text}, its permissions, or user")
        with process:
            said, in_time = _outcome(process, config.timeout_s)
        name, code = config.before_switch[0], process.returncode
        if not in_time:
            return Refusal("hook_hung", f"Expected an answer of {name} in {config.timeout_s:g} s, got none: {said}")
        if code == 0:
            return Consent()
        if code == BUSY:
            return Refusal("application_busy", f"{name} asks to wait: {said}")
        text = f"Expected 0 or {BUSY} (busy) of {name}, got {code}: {said}"
        return Refusal("hook_failed", text)


def _outcome(process: subprocess.Popen[bytes], limit_s: float) -> tuple[str, bool]:
    """Return the end of what ``process`` wrote, and whether it ended in time; otherwise its group is killed."""
    said, end_s, in_time = b"", time.monotonic() + limit_s, True
    with selectors.DefaultSelector() as ready:
        if process.stdout is not None:
            ready.register(process.stdout, selectors.EVENT_READ)
        while process.poll() is None and in_time:
            for key, _ in ready.select(_LOOK_S):
                data = os.read(key.fd, 65_536)
                said = (said + data)[-_LAST_BYTES:]
                if not data:
                    ready.unregister(key.fileobj)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(max(0.0, end_s - time.monotonic()))
            in_time = time.monotonic() < end_s or process.poll() is not None
        if not in_time:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        elif process.stdout is not None and ready.select(0):  # written just before its end
            said = (said + os.read(process.stdout.fileno(), 65_536))[-_LAST_BYTES:]
    text = said.decode("utf-8", "backslashreplace").strip()
    return "".join(c if c.isprintable() else " " for c in text), in_time
