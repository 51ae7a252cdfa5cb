"""Requests of the device's owner to the running agent: one file in the state directory, and an answer beside it.

A request is a ``wire.messages.Command``, the answer a ``Response``. Who may write the state directory (0700) may ask;
the file must also belong to its owner or to root, and nobody else may be able to change it. The agent looks once a
second and removes a request before it acts, so that one is executed at most once, also over a crash. Decides nothing
about what is asked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import RequestRefusedError
from wire.codec import Json, decode, encode
from wire.errors import MessageError, WireError
from wire.messages import Command, Response

_LOG = logging.getLogger(__name__)
FILE, ANSWER = "request.json", "answer.json"
WAIT_S = 30.0
"""How long the agent has to take a request; it turns many times a second unless its disk hangs."""
_LIMIT_BYTES = 16 * 1024
_PAUSE_S = 0.1
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class RequestFile:
    """The agent's side."""

    state: Path

    def take(self) -> Command | None:
        """Return the request that waits, and remove it; None without one, or if it is not one."""
        path = self.state / FILE
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            _LOG.debug("request not read error=%s", error)
            return None
        try:
            found, data = os.fstat(descriptor), os.read(descriptor, _LIMIT_BYTES + 1)
            path.unlink()
        except OSError as error:  # a folder, or a disk that can't be written: it would be executed again and again
            _LOG.debug("request not taken error=%s", error)
            return None
        finally:
            os.close(descriptor)
        try:
            if (
                not stat.S_ISREG(found.st_mode)
                or found.st_mode & _OTHERS_WRITE
                or found.st_uid not in {0, os.geteuid()}
            ):
                message = f"Expected a file that only its owner can write, got mode {found.st_mode:o} of {found.st_uid}"
                raise MessageError(message)
            return decode(Command, data, limit_bytes=_LIMIT_BYTES)
        except WireError as error:
            _LOG.warning("request ignored error=%s", error)
            return None

    def answer(self, response: Response) -> None:
        """Write the answer to the last request; who asked may be gone, so failure only shows in the log."""
        path = self.state / ANSWER
        try:
            new = path.with_suffix(".new")
            new.write_bytes(encode(response))
            new.replace(path)
        except OSError as error:
            _LOG.warning("answer not written id=%s error=%s", response.id, error)


def ask(state: Path, verb: str, arguments: Mapping[str, Json], wait_s: float = WAIT_S) -> Response:
    """Return the running agent's answer to a request that it accepts.

    Raises:
        RequestRefusedError: If the agent refuses or doesn't answer in time, or another request waits.
        OSError: If the request can't be written.
    """
    now_ms = round(time.time() * 1000)
    command = Command(
        id=os.urandom(8).hex(), verb=verb, issued_ms=now_ms, expires_ms=now_ms + round(wait_s * 1000),
        arguments=arguments,
    )  # fmt: skip
    put(state, command)
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError, MessageError):
            answer = decode(Response, (state / ANSWER).read_bytes())
            if answer.id == command.id:
                (state / ANSWER).unlink()
                if not answer.ok:
                    raise RequestRefusedError(answer.code, answer.text)
                return answer
        time.sleep(_PAUSE_S)
    try:
        (state / FILE).unlink()
    except FileNotFoundError:
        text = f"Expected an answer of the agent in {wait_s:.0f} s, got none; it has taken the request"
        raise RequestRefusedError("unanswered", f"{text}: look at edge-agent status") from None
    text = f"Expected the running agent to take a request in {wait_s:.0f} s, got none taken: it hangs, or is too old"
    raise RequestRefusedError("not_taken", f"{text}: look at edge-agent status, then start it again")


def put(state: Path, command: Command) -> None:
    """Leave a request for the agent on ``state``.

    Raises:
        RequestRefusedError: If another one waits.
        OSError: If it can't be written.
    """
    new = state / f"request.{command.id}.new"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123 - with a mode
            file.write(encode(command))
        os.link(new, state / FILE)
    except FileExistsError as error:
        text = f"Expected no other request to the agent on {state}, got one that waits: try again in a minute"
        raise RequestRefusedError("busy", text) from error
    finally:
        new.unlink(missing_ok=True)
