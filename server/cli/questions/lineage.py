"""``fleet-server lineage``: where a release, a device's model, a sample or a job comes from, and what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime

import click

from server.cli.frame import JSON, CommandGroup, coded, example, print_rows
from server.cli.place import PLACE, ServerPlace
from server.client import LineageInfo

COLUMNS = ("kind", "id", "known", "at_ms", "words", "from", "acts")
RUN_COLUMNS = ("device", "site", "release", "from_ms", "until_ms", "received_ms", "left")
GIVEN_COLUMNS = ("sample", "device", "lane", "label", "label_by", "label_now", "watched", "labelled_ms", "sha256")
_GRAPH = click.option("--json", "as_json", is_flag=True, help="The whole graph as a JSON object instead of a table.")


def time_value(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Return a time in UTC ms: a number, or a date and time, UTC where it names no zone."""
    if value is None:
        return None
    if value.isdecimal() and len(value) < 19:  # noqa: PLR2004 - digits of 64 bits
        return int(value)
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        message = f"Expected UTC milliseconds or a time such as 2026-11-28T14:00, got {value[:60]!r}"
        raise click.BadParameter(message) from error
    return max(int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000), 0)


@click.group(
    cls=CommandGroup,
    epilog=example(
        "fleet-server lineage release state digits-4",
        "fleet-server lineage device state cam-1 --at 2026-11-28T14:00",
        "fleet-server lineage devices state --sample 17",
    ),
)
def lineage() -> None:
    """Print where something comes from, and what came of it.

    Data, run, gates, release, rollout, devices, samples, labels, job, next release, with who decided what. All ask the
    running server. A line with known = False is something that the server does not know; its words say what.
    """


@lineage.command(
    epilog=example("fleet-server lineage release state digits-4", "fleet-server lineage release state digits-4 --json")
)
@PLACE
@click.argument("name", metavar="RELEASE")
@_GRAPH
@coded
def release(place: ServerPlace, name: str, *, as_json: bool) -> None:
    """Print what RELEASE was made of, who approved it, where it runs, and what was made from it."""
    with place.client() as server:
        _print(server.lineage(release=name), as_json=as_json)


@lineage.command(
    epilog=example(
        "fleet-server lineage device state cam-1", "fleet-server lineage device state cam-1 --at 2026-11-28T14:00"
    )
)
@PLACE
@click.argument("name", metavar="DEVICE")
@click.option("--at", "at_ms", callback=time_value, help="When: UTC ms, or a time as 2026-11-28T14:00 (UTC). [now]")
@_GRAPH
@coded
def device(place: ServerPlace, name: str, at_ms: int | None, *, as_json: bool) -> None:
    """Print which release DEVICE ran at a time, since when, by which report, and what that was made of."""
    with place.client() as server:
        _print(server.lineage(device=name, at_ms=at_ms), as_json=as_json)


@lineage.command(epilog=example("fleet-server lineage sample state 17"))
@PLACE
@click.argument("number", metavar="SAMPLE", type=click.IntRange(0, 2**63 - 1))
@_GRAPH
@coded
def sample(place: ServerPlace, number: int, *, as_json: bool) -> None:
    """Print who labelled SAMPLE, which releases learned from it, and how many devices run them."""
    with place.client() as server:
        _print(server.lineage(sample=number), as_json=as_json)


@lineage.command(epilog=example("fleet-server lineage job state 9f86d081884c7d65"))
@PLACE
@click.argument("name", metavar="JOB")
@_GRAPH
@coded
def job(place: ServerPlace, name: str, *, as_json: bool) -> None:
    """Print why the training job JOB was made, with which labels, and what came of it."""
    with place.client() as server:
        _print(server.lineage(job=name), as_json=as_json)


@lineage.command(
    epilog=example(
        "fleet-server lineage devices state --sample 17 --now", "fleet-server lineage devices state --release digits-4"
    )
)
@PLACE
@click.option("--release", "name", default="", help="The release that they ran.")
@click.option(
    "--sample", "number", type=click.IntRange(0, 2**63 - 1), help="The sample that their release learned from."
)
@click.option("--now/--before", "now", default=None, help="Only what they report now, or only what they ran before.")
@JSON
@coded
def devices(place: ServerPlace, name: str, number: int | None, now: bool | None, *, as_json: bool) -> None:  # noqa: FBT001
    """Print when which devices ran a release, or one that learned from a sample or was made from such a one."""
    if bool(name) == (number is not None):
        raise click.UsageError("Expected one of --release and --sample")
    with place.client() as server:
        found = [asdict(one) for one in server.release_runs(release=name, sample=number, now=now)]
    print_rows(found, RUN_COLUMNS, as_json=as_json)


@lineage.command(epilog=example("fleet-server lineage samples state 9f86d081884c7d65 --json"))
@PLACE
@click.argument("name", metavar="JOB")
@JSON
@coded
def samples(place: ServerPlace, name: str, *, as_json: bool) -> None:
    """Print the samples that the training job JOB was given, with their labels then and now."""
    with place.client() as server:
        found = [asdict(one) for one in server.given_samples(name)]
    print_rows(found, GIVEN_COLUMNS, as_json=as_json)


def _print(found: LineageInfo, *, as_json: bool) -> None:
    """Print the graph, or its sentences on standard error and a line a node on standard output."""
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
        return
    sources: dict[str, list[str]] = {}
    for edge in found.edges:
        sources.setdefault(edge.target, []).append(f"{edge.source} ({edge.words}; {edge.known_from})")
    rows = [
        {
            "kind": node.kind, "id": node.id, "known": node.known, "at_ms": node.at_ms, "words": node.words,
            "from": sources.get(f"{node.kind}:{node.id}", []),
            "acts": [f"{act.act} by {act.by} at {act.at_ms}" for act in node.acts],
        }
        for node in found.nodes
    ]  # fmt: skip
    for line in found.answers:
        click.echo(line, err=True)
    print_rows(rows, COLUMNS, as_json=False)
    for kind, count in found.left_out.items():
        click.echo(f"{count} more {kind} are not shown", err=True)
