"""``fleet-server drift``: a look at one window of the fleet, by cohort and stream."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from server.app.state_directory import open_state
from server.cli.frame import JSON, STATE, CommandGroup, coded, example, opened, print_rows
from server.cli.listings import Row
from server.registry.blobs import Blobs
from server.registry.versions import Versions
from server.telemetry.drift_map import COHORTS, DriftExplorer, DriftMap, MapRow

COLUMNS = (
    "cohort", "devices", "windows", "flagged", "faulty", "learning", "largest_ratio", "stream", "evidence_ratio",
    "stream_largest_ratio", "named_by", "words",
)  # fmt: skip
_AGO = re.compile(r"(\d{1,5})([hd])")
_HOURS = {"h": 1, "d": 24}
_HOUR_MS = 3_600_000


def _moment_ms(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Return a time as UTC ms, of "2026-11-30T14:00"; how long ago, of "6h" or "2d", is below 0."""
    if value is None:
        return None
    if ago := _AGO.fullmatch(value):
        return -int(ago[1]) * _HOURS[ago[2]] * _HOUR_MS
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        message = f"Expected a UTC time such as 2026-11-30T14:00, or 6h or 2d before the newest window, got {value!r}"
        raise click.BadParameter(message) from error
    found_ms = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    if found_ms < 0:
        message = f"Expected a time since 1970, got {value!r}"
        raise click.BadParameter(message)
    return found_ms


def _having(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, str] | None:
    if value is None:
        return None
    name, equal, wanted = value.partition("=")
    if not name or not equal:
        message = f"Expected ATTRIBUTE=VALUE, such as site=north, got {value!r}"
        raise click.BadParameter(message)
    return name, wanted


@click.group(cls=CommandGroup, epilog=example("fleet-server drift explore state --by site"))
def drift() -> None:
    """Look at one window of the fleet; alarms are in "fleet-server verdicts"."""


@drift.command(
    epilog=example(
        "fleet-server drift explore state --by site",
        "fleet-server drift explore state --by device --having site=north --at 6h",
        "fleet-server drift explore state --by camera --stream luma_mean --json",
    )
)
@STATE
@click.option("--by", default="site", show_default=True, help="site, release, device, or any attribute of devices.")
@click.option("--at", callback=_moment_ms, help="A time in the window (UTC), or 6h or 2d before the newest window.")
@click.option("--release", default="", help="Only evidence against the reference of this release.")
@click.option("--having", callback=_having, metavar="ATTRIBUTE=VALUE", help="Only devices with this.")
@click.option("--stream", default="", help="The cohorts with most evidence in this stream first.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=COHORTS, show_default=True, help="So many cohorts.")
@JSON
@coded
def explore(  # noqa: PLR0913 - one argument an option
    directory: Path, *, by: str, at: int | None, release: str, having: tuple[str, str] | None, stream: str, limit: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Print which streams hold the evidence of which cohort in one window, the cohorts with most evidence first.

    Tab-separated values with a header line: a line for each cohort and stream. windows: its devices with evidence in
    that window; evidence_ratio: their mean evidence that the stream holds, as a share of the threshold, at least,
    because a device names five streams; named_by: the devices that name it. A cohort without a window has one line
    with empty figures: nothing is known of it, which is not the same as 0. This is a look, not a test: the budget of
    alarms holds for verdicts alone.
    """
    config, database = opened(directory)
    versions = Versions(database, Blobs(open_state(directory).blobs))
    explorer = DriftExplorer(database=database, versions=versions, window_ms=config.drift.window_ms)
    if at is not None and at < 0:
        newest_ms = explorer.explore(by, cohorts=1).newest_ms
        at = None if newest_ms is None else max(newest_ms + at, 0)
    found = explorer.explore(by, at_ms=at, release=release, within=having, stream=stream, cohorts=limit, streams=10_000)
    database.close()
    print_map(found, as_json=as_json)


def print_map(found: DriftMap, *, as_json: bool) -> None:
    """Print a look at one window: its rows, and on standard error of which window they are."""
    if as_json:
        print_rows([asdict(row) for row in found.rows], COLUMNS, as_json=True)
    else:
        print_rows([line for row in found.rows for line in _lines(row)], COLUMNS, as_json=False)
    if found.at_ms is not None:
        moment = datetime.fromtimestamp(found.at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M")
        rest = f", and {found.cohorts - len(found.rows)} more cohorts" if found.cohorts > len(found.rows) else ""
        click.echo(f"window from {moment} UTC, against {found.references} references{rest}", err=True)


def _lines(row: MapRow) -> list[Row]:
    own: dict[str, object] = {name: getattr(row, name) for name in COLUMNS[:6]}
    own["largest_ratio"] = "" if row.largest_ratio is None else round(row.largest_ratio, 4)
    parts: list[dict[str, object]] = [
        {"stream": one.stream, "evidence_ratio": round(one.evidence_ratio, 4), "named_by": one.devices,
         "stream_largest_ratio": round(one.largest_ratio, 4), "words": ", ".join(one.words)}
        for one in row.cells
    ]  # fmt: skip
    return [own | part for part in parts or [dict.fromkeys(COLUMNS[7:], "")]]
