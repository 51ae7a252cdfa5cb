"""``fleet-server software``: which devices run a model, a runtime or a package, and what runs on a device."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from server.cli.frame import JSON, CommandGroup, coded, example, print_rows
from server.cli.place import PLACE, ServerPlace
from server.cli.questions.lineage import time_value
from server.client import FleetClient
from wire.software import ComponentKind

COLUMNS = ("kind", "name", "version", "devices")
RUNNER_COLUMNS = ("device", "site", "kind", "name", "version", "from_ms", "state", "last_seen_ms", "sha256")
RUN_COLUMNS = ("from_ms", "until_ms", "received_ms", "list")
_KIND = click.option(
    "--kind", type=click.Choice([kind.value for kind in ComponentKind]), default=None, help="Only these."
)


@click.group(
    cls=CommandGroup,
    epilog=example(
        "fleet-server software find state onnxruntime --version '1.22.*'",
        "fleet-server software list state --search onnx",
        "fleet-server software show state cam-1 --at 2026-11-28T14:00 > cam-1.cdx.json",
    ),
)
def software() -> None:
    """Print which devices run a model, a runtime, a package or a system, by their own reports.

    All ask the running server. Devices whose software is not known are counted on standard error: nothing is said about
    them.
    """


@software.command(
    epilog=example(
        "fleet-server software find state numpy --version 2.1.0",
        "fleet-server software find state onnxruntime --version '1.22.*' --json",
        "fleet-server software find state meter-digits --kind model",
    )
)
@PLACE
@click.argument("name", metavar="NAME")
@click.option("--version", default="", help="One version, as 1.22.0, or its beginning, as '1.22.*'.")
@_KIND
@JSON
@coded
def find(place: ServerPlace, name: str, version: str, kind: str | None, *, as_json: bool) -> None:
    """Print the devices that run NAME now, by their last reports; in a package's name - and _ are the same."""
    with place.client() as server:
        found = [asdict(one) for one in server.software_devices(name, version=version, kind=kind or "")]
        _say_unknown(server)
    print_rows(found, RUNNER_COLUMNS, as_json=as_json)


@software.command(
    "list", epilog=example("fleet-server software list state --search onnx", "fleet-server software list state --json")
)
@PLACE
@click.option("--search", default="", help="Words in the name.")
@_KIND
@JSON
@coded
def list_(place: ServerPlace, search: str, kind: str | None, *, as_json: bool) -> None:
    """Print what devices run now, with how many do."""
    with place.client() as server:
        found = [asdict(one) for one in server.software(search=search, kind=kind or "")]
        _say_unknown(server)
    print_rows(found, COLUMNS, as_json=as_json)


@software.command(
    epilog=example(
        "fleet-server software show state cam-1 > cam-1.cdx.json",
        "fleet-server software show state cam-1 --at 2026-11-28T14:00 | jq -r '.components[].purl'",
    )
)
@PLACE
@click.argument("device", metavar="DEVICE")
@click.option("--at", "at_ms", callback=time_value, help="When: UTC ms, or a time as 2026-11-28T14:00 (UTC). [now]")
@coded
def show(place: ServerPlace, device: str, at_ms: int | None) -> None:
    """Print what DEVICE ran at a time as a CycloneDX 1.6 document."""
    with place.client() as server:
        document = server.software_of(device, at_ms=at_ms)
    click.echo(json.dumps(document, indent=1, ensure_ascii=False))


@software.command(epilog=example("fleet-server software runs state cam-1"))
@PLACE
@click.argument("device", metavar="DEVICE")
@JSON
@coded
def runs(place: ServerPlace, device: str, *, as_json: bool) -> None:
    """Print when DEVICE ran which list of software, the newest first; until_ms 0: what it reported last."""
    with place.client() as server:
        found = [asdict(one) for one in server.software_runs(device)]
    print_rows(found, RUN_COLUMNS, as_json=as_json)


def _say_unknown(server: FleetClient) -> None:
    unreported, missing = server.software_unknown()
    if unreported:
        click.echo(f"{unreported} devices report no software: their agents are older, or never connected", err=True)
    if missing:
        click.echo(f"{missing} devices run software whose list has not arrived: they are asked", err=True)
