"""Converts a finished run to a record for the tracker. Pure, except that it reads the files of the run.

Decides the names. Parameters: ``train.epochs``, ``compress.1.step``, ``gates.accuracy_drop.max``. Metrics:
``TARGET/FIGURE``, ``TARGET/gate/NAME/value|bound|limit`` and ``seconds/STAGE``. Tags: ``verdict``, ``verdict.TARGET``,
``gate.TARGET.NAME``, ``lineage.NAME``, ``artifact_sha256.FILE``. A figure that is not finite is left out: it was not
measured, and the tag of its gate gives the verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from compressor.gates.certificate import Certificate, Line
from compressor.recipe.model import Recipe
from compressor.run.pipeline import Outcome
from compressor.tracking.tracker import Record
from wire import __version__
from wire.bundle import CARD, read_bundle
from wire.canonical import sha256_hex

_NOT_A_NAME = re.compile(r"[^\w./ -]", re.ASCII)
"""Characters that MLflow rejects in names. Source: mlflow.utils.validation, names of parameters, metrics and tags."""
_CARDS = "cards"
V = TypeVar("V")


def record_of(outcome: Outcome, seconds: Mapping[str, float], experiment: str = "") -> Record:
    """Return the record of ``outcome``; ``seconds`` of each stage; ``experiment`` defaults to the model's name.

    Raises:
        OSError: If a file of the run is missing.
        WireError: If a bundle of the run is damaged.
    """
    certificate = outcome.certificate
    release = f"{certificate.model}-{certificate.version}"
    files = dict(_files(outcome))
    digests = {f"artifact_sha256.{name}": sha256_hex(data) for name, data in files.items()}
    return Record(
        experiment=experiment or certificate.model,
        name=release,
        parameters=parameters_of(outcome.recipe),
        metrics=_named({**_metrics(outcome.targets), **{f"seconds/{name}": value for name, value in seconds.items()}}),
        tags=_named({**_tags(outcome), **digests}),
        note=_note(certificate),
        artifacts=files,
    )


def parameters_of(recipe: Recipe) -> dict[str, str]:
    """Return every value of ``recipe`` under its dotted name; empty values are left out, lists are joined."""
    document = asdict(recipe)
    del document["folder"]
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


def _files(outcome: Outcome) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the run: report, certificate, bundles, and the card of each bundle."""
    for path in (outcome.report, outcome.report.with_name("gate.json"), *outcome.bundles):
        yield path.name, path.read_bytes()
    for path in outcome.bundles:
        yield f"{_CARDS}/{Path(path.name).stem}.md", read_bundle(path).files[CARD]


def _note(certificate: Certificate) -> str:
    """Return the gates as a Markdown table."""
    head = ["| gate | target | verdict | |", "|---|---|---|---|"]
    return "\n".join([f"**{certificate.verdict.upper()}**", "", *head, *map(_row, certificate.gates)])


def _row(line: Line) -> str:
    return f"| {line.title} | {line.target} | {line.verdict} | {line.text.replace('|', '/')} |"


def _named(values: dict[str, V]) -> dict[str, V]:
    return {_NOT_A_NAME.sub("_", name): value for name, value in values.items()}
