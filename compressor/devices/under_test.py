"""A device under test: measure a bundle on it, look at its agent, cut its power or network.

Decides how each is done for a kind of device. Judges nothing: tests do.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compressor import data, tasks
from compressor.data._split import split
from compressor.devices.bench import DeviceAnswer, DeviceBench, ServerBench, Subject
from compressor.devices.client import DeviceClient
from compressor.devices.fitness import FitnessCheck, FitnessClient
from compressor.devices.inventory import DeviceLimits, EmulatedEntry, Entry, LocalEntry, ServerEntry, ShellEntry
from compressor.devices.shell import COMMAND_S, ShellBench, shell_of
from compressor.errors import CannotError, CompressorError, DataError, DeviceMeasureError, PackageError
from compressor.measurement.predictions import Predictions
from compressor.progress import Silent
from compressor.recipe.read import read_recipe
from compressor.release.regate import open_bundle
from compressor.run.device_evidence import make_subject
from compressor.steps._selection import learns
from compressor.tasks import Labels, Task
from wire.bundle import GOLDEN
from wire.manifest import Manifest

_POLL_S = 0.5
_AWAY = frozenset({"disconnected", "lost", ""})
_AGENT = "from edge_agent.cli import main; main()"
_KILL = """\
import os, signal, sys
from edge_agent.device.lock import holder
from pathlib import Path
parent = {}
for path in Path("/proc").glob("[0-9]*/stat"):
    try:
        parent[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    except OSError:
        pass
found = [holder(Path(sys.argv[1]))]
if not found[0]:
    sys.exit("Expected an agent that runs, got none")
for pid in found:
    found += [child for child, above in parent.items() if above == pid]
for pid in found:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
"""Kills the agent first, so that it starts nothing again, then all that it had started."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BundleUnderTest:
    """A bundle and what is measured of it; ``labels``: those of the probe's rows, None without a probe."""

    path: Path
    manifest: Manifest
    subject: Subject
    labels: Labels | None = None
    task: Task | None = None

    def accuracy(self, answer: DeviceAnswer) -> float:
        """Return the task's score of the answers to the probe's rows: the accuracy of a classifier.

        Raises:
            CannotError: If there is no probe.
        """
        if self.task is None or self.labels is None:
            raise CannotError("Expected a probe to measure accuracy, got none: give --hil-probe RECIPE")
        return self.task.judging.score(_predictions(answer), self.labels)

    def flips(self, one: DeviceAnswer, other: DeviceAnswer) -> int:
        """Return to how many rows of the probe the answers differ.

        Raises:
            CannotError: If there is no probe.
        """
        if self.task is None:
            raise CannotError("Expected a probe to compare answers, got none: give --hil-probe RECIPE")
        allowed = self.manifest.budgets.golden_max_abs
        return int(self.task.judging.differs(_predictions(one), _predictions(other), allowed).sum())


@dataclass(slots=True, kw_only=True)
class DeviceUnderTest:
    """The device ``name`` of an inventory; ``answers`` keeps what was measured, by bundle and rows."""

    name: str
    entry: Entry
    bench: DeviceBench
    answers: dict[tuple[str, int], DeviceAnswer] = field(default_factory=dict)

    @property
    def limits(self) -> DeviceLimits:
        """What it may need at most."""
        return self.entry.limits

    @property
    def id(self) -> str:
        """Its name on the server."""
        return (self.entry.id if isinstance(self.entry, ServerEntry) else "") or self.name

    def measure(self, bundle: BundleUnderTest) -> DeviceAnswer:
        """Return the measurement of ``bundle`` with the rows of its probe; the same one is measured once.

        Raises:
            DeviceMeasureError: If the device fails, refuses, takes too long, or its report is not accepted.
            ServerUnreachableError: If its server did not answer.
            TrustError: If the release key is missing.
        """
        subject = bundle.subject
        key = subject.artifact_sha256, subject.n
        if key not in self.answers:
            self.answers[key] = self.bench.measure(subject, self.id, Silent())
        return self.answers[key]

    def agent(self) -> Mapping[str, Any]:
        """Return the last status of the device's agent: ``health``, ``connected``, ``spool_rows`` and more.

        Over a server ``health`` is "serving" for a device that is ready, and the rest is not known.

        Raises:
            CannotError: If the inventory names no state directory.
            DeviceMeasureError: If there is none, or the device does not answer.
            ServerUnreachableError: If its server did not answer.
        """
        if isinstance(self.entry, ServerEntry):
            with self._client() as client:
                state = client.known(self.id).state
            return {"health": "serving" if state == "ready" else state, "connected": state not in _AWAY}
        line = self._agent_command("status", "--json")
        said = self._shell_bench.shell.run(f"{{ {line} || true; }} 2>&1").decode(errors="replace")
        lines = said.splitlines()  # the document is one line, and warnings come before it
        try:
            document: Mapping[str, Any] = json.loads(lines[-1] if lines else "")
        except ValueError as error:
            message = f"Expected the status of the agent of {self.name}, got {said.strip()[-300:] or 'no word'}"
            raise DeviceMeasureError(message) from error
        return document

    def fitness(self) -> tuple[FitnessCheck, ...]:
        """Return the checks of its fitness for a rollout.

        Raises:
            CannotError: If it is not reached over a server, or the inventory names no operator token.
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If it refuses, or the token can't be read.
        """
        entry = self.entry
        if not isinstance(entry, ServerEntry) or entry.operator_token_file is None:
            raise CannotError(f"Expected operator_token_file and a server of {self.name}, got none")
        with FitnessClient(entry.server.rstrip("/"), _token(entry.operator_token_file), entry.ca) as client:
            return client.checks(self.id, window_s=entry.window_s)

    @property
    def sees_itself(self) -> bool:
        """Whether ``agent`` asks the device itself, whatever its network does."""
        return isinstance(self.entry, LocalEntry | EmulatedEntry)

    def start(self) -> None:
        """Start its agent.

        Raises:
            CannotError: If the inventory names no state directory.
            DeviceMeasureError: If it can't be started.
        """
        entry, bench = self._shell_bench.entry, self._shell_bench
        config = ("--config", entry.config) if entry.config else ()
        state = shlex.quote(entry.state)
        run = f"setsid {self._agent_command('run', *config)} </dev/null >>{state}/hil.log 2>&1 &"
        bench.shell.run(entry.start or run)

    @contextmanager
    def power_cut(self) -> Iterator[None]:
        """Cut its power for the ``with`` block; without a switched socket, ``kill -9`` of the agent and its processes.

        Raises:
            CannotError: If there is neither.
            DeviceMeasureError: If a command fails.
        """
        entry = self.entry
        if entry.power_off:
            _here(entry.power_off)
        else:
            bench = self._shell_bench
            bench.shell.run(f"{bench.python()} -c {shlex.quote(_KILL)} {shlex.quote(self._state)}")
        try:
            self._wait_for_its_server()
            yield
        finally:
            if entry.power_on:
                _here(entry.power_on)
            else:
                self.start()

    @contextmanager
    def network_cut(self) -> Iterator[None]:
        """Cut its network for the ``with`` block; without a managed switch: its ``link`` in its namespace goes down.

        Raises:
            CannotError: If there is neither.
            DeviceMeasureError: If a command fails.
        """
        entry = self.entry
        down, up = entry.network_down, entry.network_up
        if not down:
            if not isinstance(entry, LocalEntry) or not entry.netns or not entry.link:
                message = f"Expected network_down and network_up of {self.name}, or netns and link, got none"
                raise CannotError(f"{message}: a device can't end by itself a cut that it made")
            link = ("ip", "-n", entry.netns, "link", "set", entry.link)
            down, up = (*link, "down"), (*link, "up")
        _here(down)
        try:
            self._wait_for_its_server()
            yield
        finally:
            _here(up)

    def _wait_for_its_server(self) -> None:
        """Over a server: wait until it has noticed the cut, so that what it says later is of the time after it."""
        if isinstance(self.entry, ServerEntry):
            self.wait(lambda status: not status["connected"], "a loss of its connection that the server notices")

    def wait(self, holds: Callable[[Mapping[str, Any]], bool], what: str) -> Mapping[str, Any]:
        """Return the agent's status once ``holds`` is true of it, at most ``back_s`` from now.

        Raises:
            CannotError: If the inventory names no state directory.
            DeviceMeasureError: If that takes longer; ``what`` and the last status are in the message.
        """
        deadline_s, said = time.monotonic() + self.entry.back_s, "no status"
        while True:
            try:
                status = self.agent()
                if holds(status):
                    return status
                said = ", ".join(f"{key} {status.get(key)}" for key in ("health", "connected", "spool_rows"))
            except CannotError:
                raise
            except CompressorError as error:  # it is away, or its server is: that is what is waited for
                said = str(error)
            if time.monotonic() > deadline_s:
                raise DeviceMeasureError(f"Expected {what} of {self.name} within {self.entry.back_s:g} s, got {said}")
            time.sleep(_POLL_S)

    @property
    def _shell_bench(self) -> ShellBench:
        if not isinstance(self.bench, ShellBench):
            raise CannotError(
                f"Expected a device with a shell, got {self.name} over its server: name power_off and so on"
            )
        return self.bench

    @property
    def _state(self) -> str:
        if not self.entry.state:
            raise CannotError(f"Expected state of {self.name} in the inventory, got none: name its agent's directory")
        return self.entry.state

    def _agent_command(self, command: str, *arguments: str) -> str:
        words = [command, "--state", self._state, *arguments]
        return f"env {self._shell_bench.python()} -c {shlex.quote(_AGENT)} {shlex.join(words)}"

    def _client(self) -> DeviceClient:
        bench = self.bench
        if not isinstance(bench, ServerBench):
            raise CannotError(f"Expected {self.name} over a server, got a device with a shell")
        return DeviceClient(bench.url, bench.token, bench.ca)


def under_test(name: str, entry: Entry) -> DeviceUnderTest:
    """Return the device ``name``; nothing is asked of it yet.

    Raises:
        DeviceMeasureError: If the token can't be read, or an emulator's root file system is missing.
    """
    if isinstance(entry, ServerEntry):
        url = entry.server.rstrip("/")
        bench: DeviceBench = ServerBench(
            url=url, token=_token(entry.token_file), keys=entry.keys, ca=entry.ca, wait_s=entry.limit_s
        )
    elif isinstance(entry, ShellEntry):
        bench = ShellBench(name=name, entry=entry, shell=shell_of(entry))
    else:
        raise DeviceMeasureError(f"Expected a device with a shell or over a server, got {type(entry).__name__}")
    return DeviceUnderTest(name=name, entry=entry, bench=bench)


def read_bundle_under_test(path: Path, probe: str | None, *, most: int) -> BundleUnderTest:
    """Return the bundle at ``path``; ``probe``: a recipe, of whose gate split at most ``most`` rows are answered.

    Raises:
        PackageError: If there is no bundle, or it has no golden vectors.
        RecipeError: If the recipe can't be read.
        DataError: If its data can't be used, or has other labels than the bundle.
    """
    opened = open_bundle(path)
    manifest = opened.manifest
    if GOLDEN not in opened.files:
        raise PackageError(f"Expected {GOLDEN} in {path}, got {sorted(opened.files)}: build the bundle again")
    if probe is None:
        subject = make_subject(manifest, opened.artifact, opened.files[GOLDEN], None)
        return BundleUnderTest(path=path, manifest=manifest, subject=subject)
    recipe = read_recipe(probe)
    table = data.load(recipe.data, recipe.folder)
    if table.class_names != (manifest.values or manifest.labels):
        message = f"Expected a probe with the labels of {manifest.release}, got {', '.join(table.class_names)}"
        raise DataError(f"{message}: give the recipe that the bundle was made from")
    splits = split(table, recipe.train.seed, slices=recipe.data.train_slices, learns=learns(recipe))
    rows = table.take(splits.gate[:most])
    subject = make_subject(manifest, opened.artifact, opened.files[GOLDEN], rows)
    task = tasks.of(recipe.data)
    return BundleUnderTest(path=path, manifest=manifest, subject=subject, labels=rows.labels, task=task)


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise DeviceMeasureError(f"Expected a token of the server in {path}, got: {error.strerror}") from error


def _predictions(answer: DeviceAnswer) -> Predictions:
    return Predictions(answer.logits, np.zeros((len(answer.logits), 0), np.float32))


def _here(command: tuple[str, ...]) -> None:
    """Run a command of the inventory on this host."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=COMMAND_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceMeasureError(f"Expected {shlex.join(command)!r} to run on this host, got: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise DeviceMeasureError(f"Expected {shlex.join(command)!r} to succeed, got exit {done.returncode}: {said}")
