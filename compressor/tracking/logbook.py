"""Tracking for the command line: check first that the tracker is usable, log once the run is complete on disk.

Decides which failures stop a run before it starts (a missing package, a wrong address, a server that denies access) and
which only leave it unlogged (a server that does not answer, a disk that can't be read), and the names in the record of
a run. Parameters: ``train.epochs``, ``compress.1.step``, ``gates.accuracy_drop.max``. Metrics: ``TARGET/FIGURE``,
``TARGET/gate/NAME/value|bound|limit`` and ``seconds/STAGE``. Tags: ``verdict``, ``verdict.TARGET``,
``gate.TARGET.NAME``, ``lineage.NAME``, ``artifact_sha256.FILE``. A figure that is not finite is left out: it was not
measured, and the tag of its gate gives the verdict.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from compressor.errors import CompressorError, TrackingError, TrackingUnreachableError
from compressor.gates.certificate import Certificate
from compressor.progress import Progress, StageProgress
from compressor.recipe.model import Recipe
from compressor.run.pipeline import Outcome
from compressor.tracking.mlflow_tracker import EXPERIMENT_VARIABLE, tracker_at
from compressor.tracking.tracker import Record, Tracker
from wire import __version__
from wire.bundle import CARD, read_bundle
from wire.canonical import sha256_hex
from wire.errors import WireError

_NOT_A_NAME = re.compile(r"[^\w./ -]", re.ASCII)
"""Characters that MLflow rejects in names. Source: mlflow.utils.validation, names of parameters, metrics and tags."""
_CARDS = "cards"
V = TypeVar("V")


@dataclass(slots=True)
class Timed:
    """Forwards every call to ``inner`` and sums the seconds of each stage by name.

    A nested stage counts in both. ``clock`` returns monotonic seconds.
    """

    inner: Progress
    clock: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[StageProgress]:
        """Yield the stage of ``inner``; its time counts even if it fails."""
        start = self.clock()
        try:
            with self.inner.stage(name, total, unit) as stage:
                yield stage
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start

    def say(self, text: str) -> None:
        """Forward one line of text."""
        self.inner.say(text)


@dataclass(frozen=True, slots=True)
class Logbook:
    """Logbook of a run: pass its ``progress`` to ``run_recipe`` to time stages. Without ``tracker`` it logs nothing."""

    tracker: Tracker | None
    progress: Timed
    experiment: str = ""

    def check(self) -> None:
        """Check whether a run could be logged; that a server does not answer now is only reported.

        Raises:
            PluginError: If a package is missing.
            TrackingError: If logging can never succeed.
        """
        if self.tracker is None:
            return
        try:
            self.tracker.check()
        except TrackingUnreachableError as error:
            self.progress.say(f"not logged yet: {error}. The run goes on, and logging is tried again at its end")

    def keep(self, outcome: Outcome) -> CompressorError | None:
        """Log ``outcome`` and report where; return the error if it could not be logged, or None."""
        if self.tracker is None:
            return None
        try:
            where = self.tracker.log(record_of(outcome, self.progress.seconds, self.experiment))
        except CompressorError as error:
            return error
        except (OSError, WireError) as error:
            return TrackingError(f"Expected to read what the run wrote, got: {error}")
        self.progress.say(f"logged: {where}")
        return None


def logbook(asked: str | None, progress: Progress, environment: Mapping[str, str] = os.environ) -> Logbook:
    """Return the checked logbook of a run; ``asked`` is the address, empty for the environment's, None for no tracker.

    Raises:
        PluginError: If a package is missing.
        TrackingError: If that address can't be used.
    """
    tracker = None if asked is None else tracker_at(asked, environment)
    book = Logbook(tracker, Timed(progress), environment.get(EXPERIMENT_VARIABLE, ""))
    book.check()
    return book


def record_of(outcome: Outcome, seconds: Mapping[str, float], experiment: str = "") -> Record:
    """Return the record of ``outcome``; ``seconds`` of each stage; ``experiment`` defaults to the model's name.

    Raises:
        OSError: If a file of the run is missing.
        WireError: If a bundle of the run is damaged.
    """
    certificate = outcome.certificate
    release = f"{certificate.model}-{certificate.version}"
    written = (outcome.report, outcome.report.with_name("gate.json"), *outcome.bundles)
    files = {path.name: path.read_bytes() for path in written}
    files |= {f"{_CARDS}/{Path(path.name).stem}.md": read_bundle(path).files[CARD] for path in outcome.bundles}
    digests = {f"artifact_sha256.{name}": sha256_hex(data) for name, data in files.items()}
    note = [f"**{certificate.verdict.upper()}**", "", "| gate | target | verdict | |", "|---|---|---|---|"]
    note += [f"| {x.title} | {x.target} | {x.verdict} | {x.text.replace('|', '/')} |" for x in certificate.gates]
    return Record(
        experiment=experiment or certificate.model,
        name=release,
        parameters=parameters_of(outcome.recipe),
        metrics=_named({**_metrics(outcome.targets), **{f"seconds/{name}": value for name, value in seconds.items()}}),
        tags=_named({**_tags(outcome), **digests}),
        note="\n".join(note),
        artifacts=files,
    )


def parameters_of(recipe: Recipe) -> dict[str, str]:
    """Return every value of ``recipe`` under its dotted name; empty values are left out, lists are joined."""
    document = asdict(recipe)
    del document["folder"], document["written"]
    document["compress"] = {str(i): step for i, step in enumerate(document["compress"], start=1)}
    for table in ("targets", "gates"):
        document[table] = {item.pop("name"): item for item in document[table]}
    return _named(dict(_flat("", document)))


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, list | tuple):
        yield from _flat(prefix, ", ".join(str(item) for item in value))
    elif value is not None and value != "":
        yield prefix, str(value)


def _metrics(targets: tuple[Certificate, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for target in targets:
        found |= {f"{target.target}/{name}": value for name, value in target.figures.items()}
        for line in target.gates:
            numbers = {"value": line.value, "bound": line.bound, "limit": line.limit}
            named = {f"{target.target}/gate/{line.title}/{what}": number for what, number in numbers.items()}
            found |= {name: number for name, number in named.items() if number is not None}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _tags(outcome: Outcome) -> dict[str, str]:
    tags = {"verdict": outcome.certificate.verdict, "baseline": outcome.certificate.baseline}
    for target in outcome.targets:
        tags[f"verdict.{target.target}"] = target.verdict
        tags |= {f"gate.{target.target}.{line.title}": line.verdict for line in target.gates}
    tags |= {f"lineage.{name}": digest for name, digest in outcome.lineage.items()}
    steps = {
        "steps.made": ", ".join(dict.fromkeys(outcome.ran)),
        "steps.found": ", ".join(dict.fromkeys(outcome.found)),
    }
    return tags | steps | {"tinyfleet.version": __version__}


def _named(values: dict[str, V]) -> dict[str, V]:
    return {_NOT_A_NAME.sub("_", name): value for name, value in values.items()}
