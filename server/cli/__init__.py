"""``fleet-server``: init, run, migrate, backup, claim, trust, status; devices, releases, events, rollouts for scripts.

The commands that control a rollout send requests to the running server.
Only this file prints.

Where a command finds its server, DIR or another host, is in ``server.cli.place``; exit codes in ``server.cli.frame``.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import click
import httpx
import sqlalchemy as sa

from server.api.enrol import comes_back
from server.app.processes.decider import elect, when_elected
from server.app.processes.ingest_process import IngestProcess
from server.app.server import Overrides, ServerApp
from server.app.state_backup import back_up_state, check_backup, restore_state
from server.app.state_directory import StateDirectory, init_state, is_locked, open_state
from server.cli import afar, apply, listings, records
from server.cli.alerts import alerts
from server.cli.device_life import mute, unmute
from server.cli.drift import drift
from server.cli.frame import JSON as _JSON
from server.cli.frame import STATE as _STATE
from server.cli.frame import Listing as _Listing
from server.cli.frame import agreed, expect_reason
from server.cli.frame import coded as _coded
from server.cli.frame import console as _console
from server.cli.frame import example as _example
from server.cli.frame import opened as _opened
from server.cli.frame import pairs as _pairs
from server.cli.frame import path_value as _path
from server.cli.frame import print_rows as _print
from server.cli.logins import commands as login_commands
from server.cli.people import record_commands, tokens, users
from server.cli.place import PLACE as _PLACE
from server.cli.place import AnyHost, ServerPlace
from server.cli.questions.lineage import lineage
from server.cli.questions.software import software
from server.clock import system_now_ms
from server.config import ServerConfig, read_config
from server.drift.alarms.records import Alarms
from server.drift.commissions import Commissions
from server.drift.ledger import Verdicts
from server.drift.places import Places
from server.errors import (
    AlreadyRunningError,
    AnsweredError,
    DatabaseOutdatedError,
    DeviceEndedError,
    NotAgreedError,
    NotRunningError,
    ReleaseWithdrawnError,
    ReplayMissingError,
    ServerError,
)
from server.fleet.device_list import DeviceList
from server.fleet.enrolment import Enrolment
from server.fleet.fleet import Device, Fleet, Outbox
from server.fleet.identity.certificates import Certificates
from server.fleet.liveness import presence
from server.fleet.naming import DeviceNaming
from server.fleet.revocation import Revocations
from server.prometheus import Scraped, write_files
from server.registry.blobs import Blobs
from server.registry.events import EventLog
from server.registry.stick import write_stick
from server.registry.versions import Versions
from server.rollout.ledger import RolloutLedger
from server.rollout.model import RolloutPhase
from server.rollout.resuming import How
from server.rollout.service import RolloutService
from server.rollout.thresholds import devices as counted
from server.rollout.withdrawal import Withdrawal
from server.store.backup import back_up_sqlite, sqlite_file
from server.store.database import Database, connect, declared_tables, has_password, open_database, shown_url
from server.store.heartbeat import latest_heartbeat_ms
from server.store.lists.devices import DeviceFilter, FleetCondition
from server.store.lists.events import EventFilter
from server.store.revisions import standing_of, upgrade
from server.trust.authority import host_name, init_authority
from server.trust.online_keys import init_online_keys
from server.trust.repository import TrustRepository
from server.trust.roots import install_root
from server.wording import listed
from wire import __version__
from wire.codec import Json, from_document
from wire.errors import InstallationError
from wire.installation import check_alone
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import LogsAnswer

_LOOK_S = 1.0  # how soon a server that was replaced ends
_MAX_PORT = 65_535
_EPILOG = """\b
From nothing to a first rollout:
  fleet-server init state
  compressor keys init keys --online state/online.pub.json
  fleet-server trust state --root keys/metadata/1.root.json
  fleet-server run state
  fleet-server claim state --site north --device cam-1
Then log in at the address that run prints, as operator, with the token in state/operator.token.

\b
Exit codes:
  0  done
  1  refused or failed: "error [code]: what was expected, what was found, what to do" on stderr
  2  wrong usage; apply --dry-run: something would change
From another host (--server, TINYFLEET_SERVER, login) also:
  3  no server answers there
  4  its certificate is not trusted
  5  no token, or a wrong one
  6  the role of the token does not suffice
  7  the server has no such request: it is older
"""


def _host_and_port(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) <= _MAX_PORT:
        message = f"expected HOST:PORT, got {value!r}"
        raise click.BadParameter(message)
    return host.strip("[]"), int(port)


class _Main(click.Group):
    """Accepts a group's name in the singular too, and ``resume`` and ``skip-group`` without their group's name."""

    command_class = AnyHost

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, None when there is none."""
        if cmd_name in {"resume", "skip-group"}:
            return rollouts.get_command(ctx, cmd_name)
        plural = {"rollout": "rollouts", "device": "devices", "release": "releases", "verdict": "verdicts"}
        plural |= {"user": "users", "token": "tokens", "alert": "alerts"}
        return super().get_command(ctx, plural.get(cmd_name, cmd_name))


@click.group(
    cls=_Main, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="fleet-server")
def main() -> None:
    """Take models to a fleet of devices and keep them right.

    On the server's machine a command names the state directory DIR, which holds settings (server.toml), keys, tokens
    and database. All but init, run and migrate also work beside a running server. From any other host leave DIR out:
    --server URL, TINYFLEET_SERVER or "fleet-server login URL" names the server. Only on its own machine work init,
    run, ingest, migrate, backup, restore, trust, prometheus, releases export and alerts test.
    """
    try:
        check_alone()
    except InstallationError as error:
        raise click.ClickException(str(error)) from error


@main.command(epilog=_example("fleet-server init state", "fleet-server init state --tls-name fleet.example.org"))
@_STATE
@click.option(
    "--tls-name",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="Name or address of this server for devices: makes a private authority, and devices get certificates.",
)
@_coded
def init(directory: Path, hosts: tuple[str, ...]) -> None:
    """Create a new state directory.

    It gets settings, tokens and online keys. DIR must be empty or not exist; nothing is overwritten. With --tls-name,
    which may be given several times, everything is encrypted, and each device proves its identity by a certificate of
    its own instead of a password.
    """
    for host in hosts:
        host_name(host)
    state = init_state(directory, certificates=bool(hosts))
    init_online_keys(state.path)
    if hosts:
        init_authority(state.authority, hosts, system_now_ms())
    open_database(state.database_url).close()
    click.echo(f"state      {state.path}")
    click.echo(f"operator   {state.path / 'operator.token'}")
    click.echo(f"builder    {state.path / 'builder.token'}")
    if hosts:
        click.echo(
            f"authority  {state.authority / 'ca.pem'}   (its key beside it, 0600: see docs/how-to/own-server.md)"
        )
    click.echo(f"next       compressor keys init KEYS --online {state.path / 'online.pub.json'}")
    click.echo(f"then       fleet-server trust {directory} --root KEYS/metadata/1.root.json")


@main.command(epilog=_example("fleet-server run state --http-port 8080", "fleet-server status state"))
@_STATE
@click.option("--http-port", type=click.IntRange(0, 65535), help="Instead of http.port in server.toml.")
@click.option("--broker-port", type=click.IntRange(0, 65535), help="Instead of broker.port in server.toml.")
@click.option("--bind", help="Address for HTTP and broker; beyond loopback only with [tls] in server.toml.")
@click.option("--migrate", is_flag=True, help="Migrate the database of an older version without asking.")
@click.option("--standby", is_flag=True, help="While another server runs here, wait, and take over when it ends.")
@click.option("--verbose", is_flag=True, help="Log state changes, too.")
@_coded
def run(  # noqa: PLR0913 - the options of the command
    directory: Path, http_port: int | None, broker_port: int | None, bind: str | None, *, migrate: bool, standby: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Serve until SIGINT or SIGTERM.

    Runs broker, REST interface, pages, drift detection, rollouts and retraining. Prints "http URL" and
    "mqtt HOST:PORT" when it is ready. Ports stay the same over restarts. Needs mosquitto. The database of an older
    version is migrated only if you agree: on a terminal it asks, elsewhere it refuses. One server decides for a fleet:
    on a directory or PostgreSQL database that another one has it refuses, or waits with --standby.
    """
    stop = _until_signalled(verbose=verbose)
    overrides = Overrides(http_port, broker_port, bind)

    def opened() -> ServerApp:
        try:
            return ServerApp.open(directory, overrides=overrides)
        except DatabaseOutdatedError:
            if not (migrate or sys.stdin.isatty()):
                raise
            _migrate(open_state(directory), assume_yes=migrate)
            return ServerApp.open(directory, overrides=overrides)

    app = when_elected(opened, stop.wait, lambda why: click.echo(f"standby: {why}")) if standby else opened()
    if app is None:
        return
    app.start()
    if has_password(app.config.store.url):
        advice = "write it into the file that PGPASSFILE names: a backup copies server.toml"
        click.echo(f"warning: store.url in server.toml has a password: {advice}", err=True)
    click.echo(f"http {app.http_url}")
    click.echo(f"mqtt {app.address.mqtt_host}:{app.address.mqtt_port}")
    while not stop.wait(_LOOK_S) and not app.decider.deposed.is_set():
        pass
    app.stop()
    if app.decider.deposed.is_set():
        message = "Expected to decide for this fleet, got another server that took over while the database was away"
        raise AlreadyRunningError(message)


@main.command(epilog=_example("fleet-server ingest state", "fleet-server ingest copy --broker fleet.example.org:1883"))
@_STATE
@click.option(
    "--broker", metavar="HOST:PORT", callback=_host_and_port, help="The server's broker, where DIR is not the server's."
)
@click.option("--verbose", is_flag=True, help="Log state changes, too.")
@_coded
def ingest(directory: Path, broker: tuple[str, int] | None, *, verbose: bool) -> None:
    """Only store devices' telemetry, beside the server, until SIGINT or SIGTERM.

    For large fleets on PostgreSQL: up to 16 of these processes share telemetry with the server, on its host or others.
    On another host DIR has copies of server.toml, ingest.group, ingest.token and the files of [tls]. Prints
    "ingest NAME HOST:PORT" with each connection. Any of them may end at any time: nothing is lost or counted twice.
    """
    stop = _until_signalled(verbose=verbose)
    process = IngestProcess.open(directory, broker=broker)
    begun = f"ingest {process.name} {process.broker[0]}:{process.broker[1]}"
    process.run(stop.wait, lambda: click.echo(begun))
    process.close()
    figures = process.ingest.figures
    click.echo(f"stored {figures.accepted}, again {figures.duplicates}, refused {figures.refused}")


def _until_signalled(*, verbose: bool) -> threading.Event:
    """Return an event that SIGINT and SIGTERM set; log to stderr."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


@main.command(epilog=_example("fleet-server migrate state", "fleet-server migrate state --check || echo it is due"))
@_STATE
@click.option("--yes", "assume_yes", is_flag=True, help="Don't ask.")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 when the database must be migrated.")
@_coded
def migrate(directory: Path, *, assume_yes: bool, check: bool) -> None:
    """Migrate the database of an older version to this one.

    Prints the steps, asks, copies an SQLite database to backups/ in DIR, and then applies all steps or none.
    The server must not run meanwhile. To go back to the older version, restore that copy.
    """
    if check:
        _, database = _opened(directory)
        database.close()
        click.echo("the database is at this version's revision")
    else:
        _migrate(open_state(directory), assume_yes=assume_yes)


def _migrate(state: StateDirectory, *, assume_yes: bool) -> None:
    url = read_config(state.config).store.url or state.database_url
    alone, engine = elect(state, url, "fleet-server migrate"), connect(url)
    try:
        standing = standing_of(engine)
        click.echo(f"database   {shown_url(url)}")
        click.echo(f"revision   {standing.revision or 'none: no tables yet'}")
        if standing.is_current:
            click.echo("nothing to do")
            return
        for step in standing.steps:
            click.echo(f"step       {step.revision} {step.text}")
        source, target = sqlite_file(engine), None
        if source is not None and not standing.is_empty:
            target = state.backups / f"fleet-{standing.revision}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db"
        made = f"to {target}, first" if target else "none is made here: for PostgreSQL make one with pg_dump first"
        click.echo(f"backup     {made}")
        if not assume_yes:
            try:
                agreed("Migrate the database now?")
            except NotAgreedError as error:
                raise DatabaseOutdatedError(str(error)) from error
        if source is not None and target is not None:
            back_up_sqlite(source, target)
        upgrade(engine, declared_tables())
        click.echo(f"done       revision {standing.head}")
    finally:
        engine.dispose()
        alone.release()


@main.command(epilog=_example("fleet-server backup state /backups/fleet-2026-11-28"))
@_STATE
@click.argument("target", metavar="TARGET", type=click.Path(), callback=_path)
@_coded
def backup(directory: Path, target: Path) -> None:
    """Copy a state directory to the new directory TARGET; the server may run meanwhile.

    "fleet-server restore DIR TARGET" makes a state directory of it again: with the same ports, keys, tokens, devices
    and bundles; it signs newer versions than devices have seen. For PostgreSQL, dump the database with pg_dump first.
    """
    state = open_state(directory)
    config = read_config(state.config)
    engine = connect(config.store.url or state.database_url)
    try:
        back_up_state(state, engine, target, system_now_ms())
        if sqlite_file(engine) is None:
            click.echo(f"not in it: the database {shown_url(config.store.url)}: dump it with pg_dump", err=True)
    finally:
        engine.dispose()
    for name in (config.tls.certificate, config.tls.key, config.tls.ca):
        if name and state.path not in Path(name).resolve().parents:
            click.echo(f"not in it: {name}: back it up, too", err=True)
    click.echo(f"backup     {target}")


@main.command(
    epilog=_example(
        "fleet-server restore state /backups/fleet-2026-11-28",
        "fleet-server restore state /backups/fleet-2026-11-28 --check",
    )
)
@_STATE
@click.argument("copy", metavar="COPY", type=click.Path(), callback=_path)
@click.option("--check", is_flag=True, help="Only read the copy and compare it with its digests; DIR is not touched.")
@_coded
def restore(directory: Path, copy: Path, *, check: bool) -> None:
    """Make the new state directory DIR of a COPY that "fleet-server backup" made.

    Every file is compared with its digest first. DIR is there whole or not at all, and nothing is ever replaced. Then
    run the server on it as before, and repeat what was done since the copy was made: revocations, withdrawals,
    releases (compressor publish) and rollouts. A PostgreSQL database is restored by pg_restore first.
    """
    found = check_backup(copy)
    made = datetime.fromtimestamp(found.made_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC") if found.made_ms else ""
    whole = f"made {made} by tinyfleet {found.version}: {found.files} files are whole"
    without = "of a version without digests: only database and bundles were checked"
    click.echo(f"copy       {copy}, {whole if made else without}")
    if check:
        return
    restore_state(found, directory)
    url = read_config(open_state(directory).config).store.url
    if url:
        click.echo(f"not in it  the database {shown_url(url)}: restore it, too, before you start the server")
    click.echo(f"restored   {directory}")
    click.echo(
        "next       repeat what was done since: fleet-server devices revoke, releases withdraw, compressor publish; "
        f"then fleet-server run {directory}"
    )


@main.command(
    epilog=_example(
        "fleet-server claim state --site north --device cam-1 --attribute lens=wide > cam-1.claim",
        "edge-agent enrol --server URL --claim-file cam-1.claim --state DIR   (on the device)",
    )
)
@_STATE
@click.option("--site", required=True, help="Where the device stands; part of its topics (a-z 0-9 _ -).")
@click.option("--device", required=True, help="Its id (a-z 0-9 _ -).")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="KEY=VALUE",
    help="What it shares with others (lens=wide); may be given several times.",
)
@_coded
def claim(directory: Path, site: str, device: str, attributes: tuple[str, ...]) -> None:
    """Print a one-time claim for a device.

    The device enrols itself with it. It expires after enrolment.claim_ttl_s of server.toml. The device's id is
    unique in the whole fleet.
    """
    given = _pairs(attributes)
    config, database = _opened(directory)
    enrolment = Enrolment(
        database=database,
        clock=system_now_ms,
        certificates=Certificates(database=database, clock=system_now_ms),
        claim_ttl_s=config.enrolment.claim_ttl_s,
    )
    note = comes_back(device, enrolment.ended(device))
    click.echo(enrolment.claim(site, device, given, by=_console()))
    database.close()
    if note:
        click.echo(f"note: {note}", err=True)


@main.command(epilog=_example("fleet-server trust state --root keys/metadata/1.root.json"))
@_STATE
@click.option("--root", required=True, type=click.Path(dir_okay=False), callback=_path, help="The file N.root.json.")
@_coded
def trust(directory: Path, root: Path) -> None:
    """Install the root that devices trust first.

    They get it at enrolment. Each later root must be signed by the one before.
    """
    version = install_root(open_state(directory).path, root)
    click.echo(f"root version {version}")


@main.group(
    cls=_Listing,
    epilog=_example(
        "fleet-server devices state | cut -f1,4",
        "fleet-server devices revoke state cam-1 --why 'stolen'",
    ),
)
def devices() -> None:
    """Print the devices of the fleet; tag, name, mute, commission, revoke, retire or remove one.

    "fleet-server devices DIR" is short for "fleet-server devices list DIR".
    """


@devices.command(
    "list",
    epilog=_example(
        "fleet-server devices list state --json",
        "fleet-server devices list state --condition lost --site berlin",
        "fleet-server devices list state --search 'gate ov5640'",
        "fleet-server devices list state --ended",
        "fleet-server devices list state --retired",
    ),
)
@_STATE
@click.option("--ended", is_flag=True, help="Those that left the fleet instead, the last first.")
@click.option("--retired", is_flag=True, help="Those that were retired instead, the last first.")
@click.option("--search", default="", help="Words, all of them in id, site, release or attributes.")
@click.option("--site", default="", help="Only devices of this site.")
@click.option("--state", default="", help="Only devices that reported this state last, such as degraded.")
@click.option("--release", default="", help="Only devices that run this release.")
@click.option("--tag", default="", help="Only devices with this tag.")
@click.option(
    "--condition", type=click.Choice([one.value for one in FleetCondition]), metavar="CONDITION",
    help=f"Only devices for which it holds: {', '.join(FleetCondition)}.",
)  # fmt: skip
@_JSON
@_coded
def devices_list(  # noqa: PLR0913 - one argument a command-line option
    directory: Path, *, search: str, site: str, state: str, release: str, tag: str, condition: str | None,
    ended: bool, retired: bool, as_json: bool,
) -> None:  # fmt: skip
    """Print the devices of the fleet, all for which each option holds.

    Tab-separated values with a header line. States are the last that a device reported; presence shows whether
    it is there, away, silent or has never connected.
    """
    config, database = _opened(directory)
    now_ms, silent_s = system_now_ms(), config.fleet.silent_s
    wanted = DeviceFilter(
        search=search, site=site, state=state, release=release, tag=tag, ended=ended, retired=retired,
        condition=FleetCondition(condition) if condition else None,
    )  # fmt: skip
    found = DeviceList(database=database, clock=lambda: now_ms, silent_s=silent_s).all(wanted)
    rows = [listings.device_row(device, presence(device, now_ms, silent_s)) for device in found]
    database.close()
    _print(rows, listings.ENDED_COLUMNS if ended or retired else listings.DEVICE_COLUMNS, as_json=as_json)


_DEVICE = click.argument("device", metavar="DEVICE")
_WHY = click.option("--why", default="", help="Kept with it and in the events.")
_BY = click.option("--by", default="", help="Who decides it; kept with it. The name of the user by default.")


@devices.command(epilog=_example("fleet-server devices tag state cam-1 night --remove indoor"))
@_STATE
@_DEVICE
@click.argument("tags", metavar="[TAG]...", nargs=-1)
@click.option("--remove", "gone", multiple=True, metavar="TAG", help="Take this tag from it.")
@_BY
@_coded
def tag(directory: Path, device: str, tags: tuple[str, ...], gone: tuple[str, ...], by: str) -> None:
    """Give a device each TAG, and take those after --remove from it; print its tags, one a line.

    "rollouts create --tag" and "devices list --tag" choose devices by them. A tag has 1 to 63 characters a-z 0-9 _ -,
    a device at most 32 tags. Removing the device takes them off, revoking it does not.
    """
    with _naming(directory) as naming:
        for name in naming.tag(device, tags, gone, by=_console(by)).tags:
            click.echo(name)


@devices.command(epilog=_example("fleet-server devices rename state cam-1 'Gate, north side'"))
@_STATE
@_DEVICE
@click.argument("title", metavar="NAME")
@_BY
@_coded
def rename(directory: Path, device: str, title: str, by: str) -> None:
    """Show a device under NAME beside its id, '' for none.

    The id itself stays for good: it is part of topics and credentials.
    """
    with _naming(directory) as naming:
        click.echo(f"{device}\t{naming.rename(device, title, by=_console(by)).title}")


@devices.command(epilog=_example("fleet-server devices revoke state cam-1 --why 'stolen'"))
@_STATE
@_DEVICE
@_WHY
@_BY
@_coded
def revoke(directory: Path, device: str, why: str, by: str) -> None:
    """Refuse a device's credentials from now on.

    A running server ends its session and refuses it on broker and HTTP within seconds. Its unused claims become void;
    it can return only with a new one. Rollouts leave it out, but a failure in one stays counted. Its history stays.
    """
    _end_device(directory, device, why, lambda revocations: revocations.revoke(device, why, by=_console(by)))


@devices.command(epilog=_example("fleet-server devices retire state cam-1 --why 'replaced by cam-7'"))
@_STATE
@_DEVICE
@_WHY
@_BY
@_coded
def retire(directory: Path, device: str, why: str, by: str) -> None:
    """Let a device that is gone for good leave the fleet: revoke it and delete its assignment.

    It is in no rollout and judged no more; a failure in an open rollout stays counted. Its tags, name and history stay,
    "devices list --retired" prints them. A new claim for the same id admits a device that begins anew, without a
    release.
    """
    _end_device(directory, device, why, lambda revocations: revocations.retire(device, why, by=_console(by)))


@devices.command(epilog=_example("fleet-server devices remove state cam-1 --why 'scrapped'"))
@_STATE
@_DEVICE
@_WHY
@_BY
@_coded
def remove(directory: Path, device: str, why: str, by: str) -> None:
    """Revoke a device and delete its assignment, tags and name.

    For hardware that is gone. Its events, evidence and history stay. A new claim for the same id admits it again,
    without a release.
    """
    _end_device(directory, device, why, lambda revocations: revocations.remove(device, why, by=_console(by)))


@devices.command(
    epilog=_example(
        "fleet-server devices commission state cam-1 --why 'lens replaced'",
        "fleet-server devices commission state --attribute site=north --why 'new lamps'",
        "fleet-server devices commission state --attribute site=north --why 'new lamps' --yes",
    )
)
@_STATE
@click.argument("device", metavar="[DEVICE]", required=False)
@click.option("--attribute", metavar="KEY=VALUE", help="All devices that have it, instead of one; site=VALUE too.")
@click.option("--why", required=True, help="What changed before the device; kept with it and in the events.")
@_BY
@click.option("--yes", is_flag=True, help="Do not ask; with --attribute the devices are named first.")
@click.option("--json", "as_json", is_flag=True, help="The commissions as a JSON array instead of these lines.")
@_coded
def commission(  # noqa: PLR0913 - one argument a command-line option
    directory: Path, device: str | None, attribute: str | None, why: str, by: str, *, yes: bool, as_json: bool
) -> None:  # fmt: skip
    """Commission a device again: what stands before it is another world now.

    For a repair, a moved camera, another lens. Its alarms end, and its baseline begins anew with its next whole window,
    as at an installation; windows from before do not count, nor does an acceptance of its place. It can't be taken
    back. Each line has a device and from when on its windows count (UTC ms).
    """
    if (device is None) == (attribute is None):
        raise click.UsageError("Expected DEVICE or --attribute KEY=VALUE, one of them: say which devices it is about")
    pair = next(iter(_pairs((attribute,)).items())) if attribute is not None else None
    config, database = _opened(directory)
    commissions, now_ms, person = _commissions(config, database), system_now_ms(), _console(by)
    if pair is not None and not yes:
        named = commissions.devices_with(*pair)
        devices_text = "1 device" if len(named) == 1 else f"{len(named)} devices"
        click.echo(f"{devices_text}: {listed(named, 20)}. Their baselines begin anew, for good.", err=True)
        agreed("Go on?", err=True)
    begun = (
        commissions.begin_all(*pair, why, now_ms=now_ms, by=person) if pair is not None
        else (commissions.begin(device or "", why, now_ms=now_ms, by=person),)
    )  # fmt: skip
    database.close()
    if as_json:
        _print([listings.commission_row(one) for one in begun], listings.COMMISSION_COLUMNS, as_json=True)
        return
    for one in begun:
        click.echo(f"{one.device} {one.from_ms}")


@main.command("commissions", epilog=_example("fleet-server commissions state --json"))
@_STATE
@_JSON
@_coded
def commissions_list(directory: Path, *, as_json: bool) -> None:
    """Print which devices were commissioned again, from when on, by whom and why; the newest first.

    Tab-separated values with a header line.
    """
    config, database = _opened(directory)
    rows = [listings.commission_row(one) for one in _commissions(config, database).all()]
    database.close()
    _print(rows, listings.COMMISSION_COLUMNS, as_json=as_json)


def _commissions(config: ServerConfig, database: Database) -> Commissions:
    verdicts = Verdicts(database, EventLog(database))
    return Commissions(verdicts=verdicts, fleet=_fleet(database), window_ms=config.drift.window_ms)


class _Number(click.FloatRange):
    """A number in its range; "nan", which click takes for a number inside of any range, is none."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or end with a usage error."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"Expected a number, got {value!r}", param, ctx)
        return number


_WAIT = click.option("--wait", "wait_s", type=_Number(1, 3600), default=60.0, show_default=True, help="Seconds.")


@devices.command(
    epilog=_example(
        "fleet-server devices logs state cam-1", "fleet-server devices logs state cam-1 --level WARNING --lines 20"
    )
)
@_PLACE
@_DEVICE
@click.option("-n", "--lines", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--level", type=click.Choice(["INFO", "WARNING", "ERROR"]), default="INFO", help="And above. [INFO]")
@_WAIT
@_coded
def logs(place: ServerPlace, device: str, lines: int, level: str, wait_s: float) -> None:
    """Print the newest lines of a device's log, which it sends now: at most 48 KiB, without passwords."""
    answer = from_document(LogsAnswer, _ask_device(place, device, "logs", {"lines": lines, "level": level}, wait_s))
    if answer.left_out:
        click.echo(f"{answer.left_out} older lines left out: too much to send; ask for fewer lines", err=True)
    for line in answer.lines:
        click.echo(line)


@devices.command(epilog=_example("fleet-server devices benchmark state cam-1 | jq .p95_ms"))
@_PLACE
@_DEVICE
@_WAIT
@_coded
def benchmark(place: ServerPlace, device: str, wait_s: float) -> None:
    """Let a device time its current release, and print the figures as a JSON object.

    One inference at a time, at the lowest priority beside the model that it serves ("shared" is true then). It refuses
    during an update, when it is hot, and on a battery that is low.
    """
    click.echo(json.dumps(_ask_device(place, device, "benchmark", {}, wait_s)))


def _ask_device(
    place: ServerPlace, device: str, verb: str, arguments: Mapping[str, Json], wait_s: float
) -> Mapping[str, Json]:
    """Return the data of a device's answer.

    Raises:
        AnsweredError: If it refuses, or doesn't answer in time.
        ServerError: If no server runs.
    """
    with place.client() as server:
        answer = server.command(device, verb, arguments, wait_s=wait_s)
    if not answer.answered_ms:
        text = f"Expected an answer of {device} in {wait_s:.0f} s, got none: is it there? fleet-server devices shows it"
        raise AnsweredError("no_answer", text)
    if not answer.ok:
        raise AnsweredError(answer.code, f"{device}: {answer.text}")
    return answer.data


@contextmanager
def _naming(directory: Path) -> Iterator[DeviceNaming]:
    _, database = _opened(directory)
    try:
        yield DeviceNaming(fleet=_fleet(database), clock=system_now_ms)
    finally:
        database.close()


def _end_device(directory: Path, device: str, why: str, end: Callable[[Revocations], Device]) -> None:
    _, database = _opened(directory)
    fleet = _fleet(database)
    ended = end(Revocations(fleet=fleet, outbox=fleet.outbox, clock=system_now_ms))
    database.close()
    expect_reason(DeviceEndedError, device, f"{ended.ended} already", ended.ended_why, why)
    click.echo(f"{device} {ended.ended}")


@main.group(
    cls=_Listing,
    epilog=_example("fleet-server releases state", "fleet-server releases withdraw state digits-3 --why mislabelled"),
)
def releases() -> None:
    """Print the releases; withdraw one.

    "fleet-server releases DIR" is short for "fleet-server releases list DIR".
    """


@releases.command(
    epilog=_example(
        "fleet-server releases export state digits-3 /media/usb",
        "fleet-server releases export state digits-3 digits-3.zip --target gateway",
    )
)
@_STATE
@click.argument("release", metavar="RELEASE")
@click.argument("to", metavar="FOLDER|ZIP", type=click.Path(), callback=_path)
@click.option("--target", help="Only the bundle of this target class. [every one]")
@_coded
def export(directory: Path, release: str, to: Path, target: str | None) -> None:
    """Write RELEASE for devices without a network: "edge-agent import" installs it there.

    The bundles and the signed metadata as they are published; devices verify them as over the network. It can be
    imported until the metadata expire, which it prints: the timestamp holds for a week. A FOLDER that is not there is
    made, but not the one that it is in. An earlier release that was exported to it is replaced.
    """
    if not to.absolute().parent.is_dir():
        message = f"Expected a folder at {to.absolute().parent}, got none: mount the stick there, or make the folder"
        raise click.BadParameter(message, param_hint="FOLDER|ZIP")
    made = not to.exists() and to.suffix.lower() != ".zip"
    _, database = _opened(directory)
    state = open_state(directory)
    blobs = Blobs(state.blobs)
    versions = Versions(database, blobs)
    found = versions.release(release, target)
    if found.withdrawn_ms:
        raise ReleaseWithdrawnError(f"Expected a release that may be rolled out, got {release}: it was withdrawn")
    wanted = [one for one in versions.releases() if one.name == release and target in {None, one.target}]
    index = write_stick(to, wanted, TrustRepository(state.path), blobs)
    database.close()
    until = datetime.fromtimestamp(index.expires_ms / 1000, UTC).isoformat(timespec="minutes")
    size = sum(one.length_bytes for one in index.targets)
    bundles = "1 bundle" if len(index.targets) == 1 else f"{len(index.targets)} bundles"
    click.echo(f"{release}: {bundles}, {size / 1e6:.1f} MB, can be imported until {until}")
    if made:
        click.echo(f"in a new folder, {to.absolute()}")


@releases.command("list", epilog=_example("fleet-server releases list state --json"))
@_STATE
@_JSON
@_coded
def releases_list(directory: Path, *, as_json: bool) -> None:
    """Print the releases in the order of publication, and on how many devices each runs.

    Tab-separated values with a header line. still_on: the devices that still run a withdrawn release; roll another
    one out to them.
    """
    state, database = open_state(directory), _opened(directory)[1]
    found, running = Versions(database, Blobs(state.blobs)).releases(), _fleet(database).devices()
    database.close()
    _print(listings.release_rows(found, running), listings.RELEASE_COLUMNS, as_json=as_json)


@releases.command(epilog=_example("fleet-server releases withdraw state digits-3 --why mislabelled"))
@_STATE
@click.argument("release", metavar="RELEASE")
@_WHY
@_BY
@_coded
def withdraw(directory: Path, release: str, why: str, by: str) -> None:
    """Withdraw a release for good: it is offered to no device any more.

    Its rollouts are aborted, and no new one can be created. Prints the devices that still run it: they keep it until
    you roll out another release to them; one of another model needs rollouts create --move.
    """
    rollouts, database = _rollouts(directory)
    withdrawal = Withdrawal(versions=rollouts.versions, fleet=rollouts.fleet, rollouts=rollouts, clock=system_now_ms)
    running = withdrawal.withdraw(release, why, by=_console(by))
    first = rollouts.versions.release(release).withdrawn_why
    database.close()
    expect_reason(ReleaseWithdrawnError, release, "withdrawn already", first, why)
    click.echo(f"{release} withdrawn; it still runs on {counted(len(running))}")
    for device in running:
        click.echo(device.device)


@main.group(cls=_Listing, epilog=_example("fleet-server audit state", "fleet-server audit ask state cam-1 --count 30"))
def audit() -> None:
    """Print how often models are wrong, by labels of samples drawn uniformly; verify who did what.

    "fleet-server audit DIR" is short for "fleet-server audit list DIR". [audit] of server.toml turns the steady audit
    on. verify, head and export are about the log of acts: who claimed, approved, paused, labelled and so on.
    """


@audit.command("list", epilog=_example("fleet-server audit list state", "fleet-server audit list state --json"))
@_PLACE
@_JSON
@_coded
def audit_list(place: ServerPlace, *, as_json: bool) -> None:
    """Print the error rate of each release: on all devices, on cohorts, on devices with enough labels or harm.

    Tab-separated values with a header line. scenes, wrong: how many were labelled and wrong; at_least, at_most: bounds
    of the error rate that hold however often you look; harmful: at_least is above allowed, since since_ms; waiting:
    samples without a label. Releases that are not audited, and settings of [audit] without effect, are named on
    standard error, with why and what to do. The server must run.
    """
    with place.client() as server:
        audits, settings = server.audits(), server.idle_audit_settings()
    _print(listings.audit_rows(audits), listings.AUDIT_COLUMNS, as_json=as_json)
    for text in (*(f"{one.release} is not audited: {one.not_asked}" for one in audits if one.not_asked), *settings):
        click.echo(text, err=True)


@audit.command(epilog=_example("fleet-server audit ask state cam-1", "fleet-server audit ask state cam-1 --count 100"))
@_PLACE
@click.argument("device", metavar="DEVICE")
@click.option("--count", type=click.IntRange(1, 10_000), default=30, show_default=True, help="So many samples.")
@_coded
def ask(place: ServerPlace, device: str, count: int) -> None:
    """Ask DEVICE once for samples drawn uniformly from what it sees, over about a day.

    They wait for labels on the page "Samples". The device sends them only if its owner allows it ([samples] of
    agent.toml). The server must run.
    """
    with place.client() as server:
        asked = server.request("POST", f"/api/audit/{quote(device, safe='')}", {"count": count})
    click.echo(f"{device} {asked['request']}")


@main.group(
    cls=_Listing,
    epilog=_example(
        "fleet-server verdicts state --open", "fleet-server verdicts dismiss state 7 --why 'the new lamps, seen by ada'"
    ),
)
def verdicts() -> None:
    """Print the verdicts on drift; dismiss one that holds a rollout; derive an alarm again.

    "fleet-server verdicts DIR" is short for "fleet-server verdicts list DIR".
    """


@verdicts.command(
    "list",
    epilog=_example("fleet-server verdicts list state --open", "fleet-server verdicts list state --json | head -20"),
)
@_STATE
@click.option("--open", "only_open", is_flag=True, help="Only verdicts that are not over.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="So many at most.")
@_JSON
@_coded
def verdicts_list(directory: Path, limit: int, *, only_open: bool, as_json: bool) -> None:
    """Print the verdicts on drift, the newest first.

    Tab-separated values with a header line. kind; devices, separated by commas; since_ms: the first window with it;
    until_ms: when it was closed, 0 while it is open; provisional: the baselines of most of its devices are not
    complete; cause: what changed; action: what to do; dismissed_by: who let it hold no rollout.
    """
    _, database = _opened(directory)
    known = Verdicts(database, EventLog(database))
    found = known.open()[::-1][:limit] if only_open else known.latest(limit)
    database.close()
    _print([listings.verdict_row(verdict) for verdict in found], listings.VERDICT_COLUMNS, as_json=as_json)


@verdicts.command(epilog=_example("fleet-server verdicts dismiss state 7 --why 'the new lamps, seen by ada'"))
@_STATE
@click.argument("verdict", metavar="VERDICT", type=click.IntRange(0, 2**63 - 1))
@click.option("--why", required=True, help="The reason; kept with it and in the events.")
@_BY
@_coded
def dismiss(directory: Path, verdict: int, why: str, by: str) -> None:
    """Let VERDICT, an open release_regression, hold no rollout.

    While such a verdict is open, no rollout of its release can be approved or resumed. It also ends by itself: when
    labels show no harm, or when devices have not shown it for some windows. A dismissed one stays open and is shown as
    long as devices show it; a rollout that it paused is resumed by "fleet-server rollouts resume".
    """
    _, database = _opened(directory)
    found = Verdicts(database, EventLog(database)).dismiss(verdict, why, system_now_ms(), by=_console(by))
    database.close()
    click.echo(f"{found.id} dismissed by {found.dismissed_by}")


@verdicts.command(
    epilog=_example("fleet-server verdicts replay state 7", "fleet-server verdicts replay state 7 --json")
)
@_STATE
@click.argument("verdict", metavar="VERDICT", type=click.IntRange(0, 2**63 - 1))
@_JSON
@_coded
def replay(directory: Path, verdict: int, *, as_json: bool) -> None:
    """Derive the alarm of VERDICT again, from the windows, baselines and settings that are kept with it.

    A line for each of its devices with most evidence. since_baseline: the path begins with the baseline, else with a
    recorded state; log_value: as recorded when the verdict opened; derived: now; same: to the last bit. log_threshold
    is of the whole fleet in that window, and recorded. JSON has the log value after each window too. The exit code is
    1, with the reason, if something is missing or differs.
    """
    config, database = _opened(directory)
    found = Alarms(database, config.drift).replay(verdict)
    database.close()
    rows = [listings.replay_row(path, found.log_threshold) for path in found.paths]
    _print(rows, listings.REPLAY_COLUMNS, as_json=as_json)
    if not found.same:
        message = f"Expected the alarm of verdict {verdict} to the bit, got: {'; '.join(found.missing) or 'other bits'}"
        raise ReplayMissingError(message)


@main.group(
    cls=_Listing,
    epilog=_example("fleet-server places state", "fleet-server places accept state cam-1 --why 'labelled 30 by hand'"),
)
def places() -> None:
    """Print the devices at places that training does not know; accept one, or take that back.

    "fleet-server places DIR" is short for "fleet-server places list DIR".
    """


@places.command("list", epilog=_example("fleet-server places list state --json"))
@_STATE
@_JSON
@_coded
def places_list(directory: Path, *, as_json: bool) -> None:
    """Print the places with what labels show there, the newest first.

    Tab-separated values with a header line. States: open (labels are missing), harmful, harmless, accepted, withdrawn
    (accepted by mistake), commissioned (the device was commissioned again: this is of before).
    """
    _, database = _opened(directory)
    rows = [listings.place_row(place) for place in _places(database).all()]
    database.close()
    _print(rows, listings.PLACE_COLUMNS, as_json=as_json)


@places.command(epilog=_example("fleet-server places accept state cam-1 --why 'labelled 30 by hand'"))
@_STATE
@_DEVICE
@_WHY
@_BY
@_coded
def accept(directory: Path, device: str, why: str, by: str) -> None:
    """Accept the place of DEVICE, which training does not know.

    Its verdict ends with its next window, and what it sees there is its usual, for every release of the model, until it
    moves to another site.
    """
    _, database = _opened(directory)
    place = _places(database).accept(device, why, now_ms=system_now_ms(), by=_console(by))
    database.close()
    click.echo(f"{place.device} {place.state}")


@places.command("withdraw", epilog=_example("fleet-server places withdraw state cam-1 --why 'it was cam-2'"))
@_STATE
@_DEVICE
@_WHY
@_BY
@_coded
def withdraw_place(directory: Path, device: str, why: str, by: str) -> None:
    """Take back that the place of DEVICE was accepted.

    It is reported as a new place again with its next window, and asked for labels again.
    """
    _, database = _opened(directory)
    place = _places(database).withdraw(device, why, now_ms=system_now_ms(), by=_console(by))
    database.close()
    click.echo(f"{place.device} {place.state}")


def _places(database: Database) -> Places:
    return Places(Verdicts(database, EventLog(database)))


devices.add_command(mute)
devices.add_command(unmute)
main.add_command(alerts)
main.add_command(lineage)
main.add_command(drift)
main.add_command(software)
main.add_command(users)
main.add_command(tokens)
record_commands(audit)


def _fleet(database: Database) -> Fleet:
    """Return the fleet without a broker: a running server publishes the changes in its next turn."""
    return Fleet(
        database=database, outbox=Outbox(MemoryTransport(broker=MemoryBroker(), client_id="none")), clock=system_now_ms
    )


def _rollouts(directory: Path) -> tuple[RolloutService, Database]:
    """Return the rollouts, and the database to close."""
    config, database = _opened(directory)
    versions = Versions(database, Blobs(open_state(directory).blobs))
    service = RolloutService(
        ledger=RolloutLedger(database), fleet=_fleet(database), versions=versions, events=EventLog(database),
        config=config.rollout,
    )  # fmt: skip
    return service, database


@main.command(
    epilog=_example("fleet-server events state --device cam-1", "fleet-server events state --after 120 --json")
)
@_STATE
@click.option("--after", type=click.IntRange(0, 2**63 - 1), help="Only events with a higher id, from the oldest on.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="So many at most.")
@click.option("--device", help="Only events of this device.")
@_JSON
@_coded
def events(directory: Path, after: int | None, limit: int, device: str | None, *, as_json: bool) -> None:
    """Print the newest events, oldest first.

    Tab-separated values with a header line. To follow the log, call it again with --after and the highest id.
    """
    _, database = _opened(directory)
    log = EventLog(database)
    found = log.after(after, limit, device=device) if after is not None else log.latest(limit, device=device)[::-1]
    rows = [listings.event_row(event) for event in found]
    database.close()
    _print(rows, listings.EVENT_COLUMNS, as_json=as_json)


@main.command(epilog=_example("fleet-server refused state", "fleet-server refused state --device cam-1 --json"))
@_STATE
@click.option("--device", default="", help="Only messages of this device.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="So many at most.")
@_JSON
@_coded
def refused(directory: Path, device: str, limit: int, *, as_json: bool) -> None:
    """Print messages of devices that the server could not take, newest first, to look at.

    Kept are topic, length and the first 512 bytes (head: as text, or in hex) of one message an hour for each device and
    code, as long as other telemetry events; how often it happened stands in the text of later events.
    """
    _, database = _opened(directory)
    log, rows, cursor = EventLog(database), list[listings.Row](), None
    try:
        while len(rows) < limit:
            page = log.page(EventFilter(kind="ingest", device=device), limit=200, cursor=cursor)
            rows += [listings.refused_row(event) for event in page.rows if "payload" in event.data]
            cursor = page.next
            if not cursor:
                break
    finally:
        database.close()
    _print(rows[:limit], listings.REFUSED_COLUMNS, as_json=as_json)


@main.group(
    cls=_Listing,
    epilog=_example(
        "fleet-server rollouts state | cut -f1-6",
        "fleet-server rollouts create state meter-3 --site berlin",
        "fleet-server rollouts approve state 3f2a91c0",
        "fleet-server rollouts resume state 3f2a91c0 --how replace",
        "fleet-server rollouts abort state 3f2a91c0 --why 'wrong labels' --yes",
    ),
)
def rollouts() -> None:
    """Print the rollouts; create, approve, pause, resume or abort one.

    "fleet-server rollouts DIR" is short for "fleet-server rollouts list DIR". A rollout waits for approval, assigns
    the release to its first group, and opens the next group when all before it reached their success ratio. It pauses
    by itself when too many devices fail.
    """


@rollouts.command(
    "list", epilog=_example("fleet-server rollouts list state", "fleet-server rollouts list state --json")
)
@_STATE
@_JSON
@_coded
def rollouts_list(directory: Path, *, as_json: bool) -> None:
    """Print the rollouts, newest first.

    Tab-separated values with a header line: the phase, and the number of devices in each standing. A failed or stuck
    device stays counted as such, even if it was replaced. replaced: devices in whose place others try; removed:
    devices that left the fleet before the release had an outcome on them. air_bytes: what the devices have fetched over
    the network so far, of the bundle and of patches; bundle_bytes: of agents that don't count that, how much of the
    bundle they had. scope: which devices it is for, empty for all of the release's model. forecast_bytes: what they
    were or are to fetch, by what each had before: to be compared with air_bytes; empty if nobody forecast it. --json
    also has both by group.
    """
    rollouts, database = _rollouts(directory)
    rows = [listings.rollout_row(rollout) for rollout in rollouts.up_to_date(*rollouts.list())]
    database.close()
    _print(rows, listings.ROLLOUT_COLUMNS, as_json=as_json)


_SECONDS, _RATIO = _Number(0, 366 * 86_400, min_open=True), _Number(0, 1)
_ROLLOUT = click.argument("rollout", metavar="ROLLOUT")
_TROUBLED = 50  # rows that people read
_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_ANSWER = click.option("--json", "as_json", is_flag=True, help="The rollout as a JSON object instead of its phase.")


@rollouts.command(
    epilog=_example(
        "fleet-server rollouts show state 3f2a91c0", "fleet-server rollouts show state 3f2a91c0 --json | jq .groups"
    )
)
@_STATE
@_ROLLOUT
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every field instead.")
@_coded
def show(directory: Path, rollout: str, *, as_json: bool) -> None:
    """Print one rollout: how often its release fails, its groups, and the devices that failed.

    First lines of a name and a value, then two tables of tab-separated values. failing: the share of devices on which
    the release failed, with bounds that hold whenever one looks. A group opens the next when needs_committed_ratio of
    its devices committed, and the rollout pauses above pauses_above_ratio failed ones. forecast_bytes: the bodies that
    its devices were or are to fetch, without what HTTP, MQTT and TLS add; air_bytes: what they have fetched.
    """
    service, database = _rollouts(directory)
    try:
        (found,) = service.up_to_date(service.get(rollout))
    finally:
        database.close()
    groups, troubled = listings.group_rows(found), listings.trouble_rows(found)
    if as_json:
        click.echo(json.dumps({**listings.rollout_row(found), "groups": groups, "troubled": troubled}))
        return
    click.echo("\n".join(listings.rollout_lines(found)))
    click.echo("\n" + listings.as_tsv(groups, listings.GROUP_COLUMNS))
    if troubled:
        click.echo("\n" + listings.as_tsv(troubled[:_TROUBLED], listings.TROUBLE_COLUMNS))
        if len(troubled) > _TROUBLED:
            click.echo(f"and {len(troubled) - _TROUBLED} more: --json has all")


@rollouts.command(
    epilog=_example(
        "fleet-server rollouts create state meter-3",
        "fleet-server rollouts create state meter-3 --site berlin --canary 3",
        "fleet-server rollouts create state tones-1 --device mic-1 --device mic-2 --move",
        "fleet-server rollouts create state meter-3 --window 22:00-05:00 --days sat,sun --deadline 700000",
        "fleet-server rollouts create state meter-3 --shadow 3600 --shadow-limit 0.02",
    )
)
@_PLACE
@click.argument("release", metavar="RELEASE")
@click.option("--device", "devices", multiple=True, help="Only this device. Each filter may be given several times.")
@click.option("--site", "sites", multiple=True, help="Only devices of this site.")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only devices that have it.",
)
@click.option("--tag", "tags", multiple=True, help="Only devices with this tag.")
@click.option("--hardware", multiple=True, help="Only devices that report it, such as aarch64.")
@click.option("--running", "releases", multiple=True, metavar="RELEASE", help="Only devices that run this release now.")
@click.option("--model", "models", multiple=True, help="Only devices that run a release of this model now.")
@click.option("--move", is_flag=True, help="Also devices that run another model; needs a filter other than --hardware.")
@click.option("--newcomers", is_flag=True, help="Devices of the scope that enrol while it runs get it too.")
@click.option("--canary", type=click.IntRange(1), help="So many devices go first; [rollout] canary by default.")
@click.option("--first", multiple=True, metavar="DEVICE", help="This device goes first, instead of --canary.")
@click.option("--window", metavar="HH:MM-HH:MM", help="Devices switch between these times only.")
@click.option("--days", metavar="DAYS", default="", help="The window begins on these days only, such as mon,tue.")
@click.option("--time-zone", default="", help="Of the window, such as Europe/Berlin; each device's own by default.")
@click.option("--deadline", "deadline_s", type=_SECONDS, help="Seconds after its assignment a device is stuck.")
@click.option("--probation", "probation_s", type=_SECONDS, help="Seconds that it must stay healthy before its commit.")
@click.option("--success", "success_ratio", type=_RATIO, help="Share of a group that opens the next one.")
@click.option("--errors", "error_ratio", type=_RATIO, help="Share of failures of a group above which it pauses.")
@click.option("--max-bytes-per-s", type=click.IntRange(0), default=0, help="How fast a device may download.")
@click.option("--shadow", "shadow_s", type=_SECONDS, help="Seconds of comparison with the release that serves, before.")
@click.option("--shadow-limit", type=_RATIO, help="Refuse it above this share of inputs with two labels.")
@click.option("--shadow-required", is_flag=True, help="Also refuse it where nothing can be compared.")
@click.option("--approve", is_flag=True, help="Start it at once instead of waiting for an approval.")
@_ANSWER
@_coded
def create(  # noqa: PLR0913 - one argument a command-line option
    place: ServerPlace, release: str, *, devices: tuple[str, ...], sites: tuple[str, ...], attributes: tuple[str, ...],
    tags: tuple[str, ...], hardware: tuple[str, ...], releases: tuple[str, ...], models: tuple[str, ...], move: bool,
    newcomers: bool,
    canary: int | None, first: tuple[str, ...], window: str | None, days: str, time_zone: str,
    deadline_s: float | None, probation_s: float | None, success_ratio: float | None, error_ratio: float | None,
    max_bytes_per_s: int, shadow_s: float | None, shadow_limit: float | None, shadow_required: bool, approve: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Create a rollout of RELEASE. It assigns nothing before it is approved: see rollouts approve.

    Without a filter it is for all devices that run the release's model. A device has to pass every filter that is
    given, by any of its values. A blank device, which runs no model yet, joins if --device, --site, --attribute or
    --tag names it, or if the fleet has one model only. Prints the rollout's id and phase.

    Outside of the window devices download and test the release, but do not switch to it; --deadline counts from the
    assignment, so it has to reach beyond the next opening. Without an option the setting of [rollout] holds.
    """
    if first and canary is not None:
        raise click.UsageError("Expected --canary or --first, got both: name the devices, or say how many")
    scope: dict[str, Json] = {
        "devices": list(devices), "sites": list(sites), "attributes": dict(_pairs(attributes)),
        "tags": list(tags), "hardware": list(hardware), "releases": list(releases), "models": list(models),
        "move": move,
    }  # fmt: skip
    go_first: Json = list(first) or canary
    wanted: dict[str, Json] = {"release": release, "scope": scope, "newcomers": newcomers, "approved": approve}
    given: dict[str, Json] = {
        "deadline_s": deadline_s, "probation_s": probation_s, "success_ratio": success_ratio,
        "error_ratio": error_ratio, "max_bytes_per_s": max_bytes_per_s or None,
        "window": _window(window, days, time_zone), "shadow": _shadow(shadow_s, shadow_limit, required=shadow_required),
    }  # fmt: skip
    wanted |= {key: value for key, value in given.items() if value is not None}
    with place.client() as server:
        found = server.request("POST", "/api/rollouts", {**wanted, "canary": go_first})
    click.echo(json.dumps(found) if as_json else f"{found['id']} {found['phase']}")


@rollouts.command(
    epilog=_example(
        "fleet-server rollouts approve state 3f2a91c0",
        "fleet-server rollouts approve state 3f2a91c0 --yes",
        "fleet-server rollouts approve state 3f2a91c0 --token-file ada.token",
    )
)
@_PLACE
@_ROLLOUT
@_BY
@_YES
@_ANSWER
@_coded
def approve(place: ServerPlace, rollout: str, by: str, *, yes: bool, as_json: bool) -> None:
    """Approve ROLLOUT, after printing which devices it will assign.

    Before a person approves, no device is assigned the release. At first only the first group is; the next opens when
    all before it reached their success ratio. With [rollout] approvers in server.toml it waits for so many people other
    than the one who created it, and each approves with a personal token (fleet-server tokens issue --user) or on the
    page.
    """
    _steer(place, rollout, "approve", {}, by, yes=yes, as_json=as_json)


@rollouts.command(epilog=_example("fleet-server rollouts pause state 3f2a91c0 --why 'look at cam-7 first'"))
@_PLACE
@_ROLLOUT
@_WHY
@_BY
@_YES
@_ANSWER
@_coded
def pause(place: ServerPlace, rollout: str, why: str, by: str, *, yes: bool, as_json: bool) -> None:
    """Pause ROLLOUT: no further device is assigned the release until it is resumed.

    Devices that are under way are not affected: they go on and are counted; it prints which. "fleet-server rollouts
    resume" continues, "fleet-server rollouts abort" sets back the devices that have not committed.
    """
    _steer(place, rollout, "pause", {"why": why}, by, yes=yes, as_json=as_json)


@rollouts.command(
    epilog=_example(
        "fleet-server rollouts resume state 3f2a91c0",
        "fleet-server rollouts resume state 3f2a91c0 --how replace --yes",
    )
)
@_PLACE
@_ROLLOUT
@click.option(
    "--how",
    type=click.Choice([how.value for how in How]),
    default=How.RETRY.value,
    show_default=True,
    help="retry: assign it again to those that failed or are stuck. replace: others try instead. tolerate: go on.",
)
@_BY
@_YES
@_ANSWER
@_coded
def resume(place: ServerPlace, rollout: str, how: str, by: str, *, yes: bool, as_json: bool) -> None:
    """Resume the paused ROLLOUT, after printing which devices it will assign.

    The next group still opens only when this one reaches its success ratio. Failures that stay count against it; a
    retried device counts by its new try. A replaced one stays failed in every figure, with the name of the person who
    decided, and its group is judged by the others.
    """
    _steer(place, rollout, "resume", {"how": how}, by, yes=yes, as_json=as_json)


@rollouts.command(
    "skip-group", epilog=_example("fleet-server rollouts skip-group state 3f2a91c0 --group canary --by ada")
)
@_PLACE
@_ROLLOUT
@click.option("--group", default="", help="The open group that did not reach its success. Required.")
@click.option("--by", default="", help="Who decides it; it is recorded. Required.")
@_YES
@_ANSWER
@_coded
def skip_group(place: ServerPlace, rollout: str, group: str, by: str, *, yes: bool, as_json: bool) -> None:
    """Let the next group of ROLLOUT open although one missed its success ratio, or answered no input yet.

    First prints which devices it will assign. Only this command gets past such a group; one that committed but has
    answered no input with the release also opens the next with its first answer.
    """
    missing = [name for name, value in (("--group NAME", group), ("--by PERSON", by)) if not value.strip()]
    if missing:  # both in one error, where click names one at a time
        message = f"Expected {' and '.join(missing)}, got none: rollouts list --json has the groups"
        raise click.UsageError(message)
    _steer(place, rollout, "skip", {"group": group}, by, yes=yes, as_json=as_json)


@rollouts.command(
    epilog=_example(
        "fleet-server rollouts abort state 3f2a91c0",
        "fleet-server rollouts abort state 3f2a91c0 --why 'wrong labels' --yes",
    )
)
@_PLACE
@_ROLLOUT
@_WHY
@_BY
@_YES
@_ANSWER
@_coded
def abort(place: ServerPlace, rollout: str, why: str, by: str, *, yes: bool, as_json: bool) -> None:
    """End ROLLOUT for good, after printing which devices are set back.

    Devices that have not committed go back to what they ran before. Devices that committed keep the release: to take
    them back too, roll out the older release to them.
    """
    _steer(place, rollout, "abort", {"why": why}, by, yes=yes, as_json=as_json)


def _window(times: str | None, days: str, time_zone: str) -> dict[str, Json] | None:
    """Return the maintenance window of ``--window``, ``--days`` and ``--time-zone``, None without any of them."""
    if times is None:
        if days or time_zone:
            raise click.UsageError("Expected --window beside --days and --time-zone, got none")
        return None
    start, dash, end = times.partition("-")
    if not dash:
        raise click.BadParameter(f"Expected HH:MM-HH:MM, got {times!r}", param_hint="--window")
    listed_days: list[Json] = [day.strip() for day in days.split(",") if day.strip()]
    return {"start": start.strip(), "end": end.strip(), "days": listed_days, "time_zone": time_zone}


def _shadow(seconds: float | None, limit: float | None, *, required: bool) -> dict[str, Json] | None:
    """Return the comparison of ``--shadow`` and its limits, None without any of them."""
    if seconds is None:
        if limit is not None or required:
            raise click.UsageError("Expected --shadow beside --shadow-limit and --shadow-required, got none")
        return None
    return {"seconds": seconds, "max_ratio": 1.0 if limit is None else limit, "required": required}


def _steer(  # noqa: PLR0913 - what all acts share
    place: ServerPlace, rollout: str, act: str, wanted: dict[str, Json], by: str, *, yes: bool, as_json: bool
) -> None:  # fmt: skip
    """Send an act on a rollout to the running server, after printing its immediate effects."""
    path = f"/api/rollouts/{quote(rollout, safe='')}"
    query = {"act": act, "acting": "true"} | {
        key: str(value) for key, value in wanted.items() if key in {"how", "group"}
    }
    with place.client() as server:
        seen = server.request("GET", f"{path}/foresight", query=query)
        click.echo(str(seen["text"]), err=as_json)
        if not yes:
            agreed("Go on?", err=as_json)
        expected: dict[str, Json] = {} if act in {"pause", "abort"} else {"only": seen["assigns"]}
        signed: dict[str, Json] = {"by": place.signer(server, by)}
        found = server.request("POST", f"{path}/{act}", wanted | signed | expected)
    click.echo(json.dumps(found) if as_json else f"{rollout} {found['phase']}")
    if act == "approve" and found["phase"] == RolloutPhase.AWAITING_APPROVAL:
        click.echo(str(found["text"]), err=True)


@main.command(
    epilog=_example("fleet-server status state && echo it runs and is healthy", "fleet-server status state | jq .text")
)
@_STATE
@_coded
def status(directory: Path) -> None:
    """Print whether the server runs, whether it is healthy, and its addresses.

    One JSON object. running: whether a server holds the directory. ok: whether it reports that it is healthy; text
    names the faults. age_s: the age of the last heartbeat, null when there was none. Exit code 1 unless it runs and
    is healthy.
    """
    state = open_state(directory)
    address, running = state.read_address(), is_locked(state)
    answer = _health(address.http_url) if address and running else None
    if answer is None:
        text = "does not answer: see its log" if running else "no server runs on this directory"
        answer = {"ok": False, "text": text, "at_ms": _last_heartbeat_ms(directory)}
    at_ms = answer.get("at_ms")
    age_s = (system_now_ms() - at_ms) / 1000 if isinstance(at_ms, int) and at_ms else None
    document = {"running": running, **answer, "age_s": age_s, **(asdict(address) if address else {})}
    click.echo(json.dumps(document))
    if not (running and answer.get("ok") is True):
        sys.exit(1)


@main.command(
    epilog=_example(
        "fleet-server prometheus state watch --token-file /etc/prometheus/tinyfleet.token",
        "prometheus --config.file=watch/prometheus.yml",
    )
)
@_STATE
@click.argument("folder", metavar="FOLDER", type=click.Path(), callback=_path)
@click.option(
    "--token-file", type=click.Path(), callback=lambda *given: _path(*given) if given[2] else None,
    help="File with a token that may view, as Prometheus will find it; by default DIR/operator.token.",
)  # fmt: skip
@_coded
def prometheus(directory: Path, folder: Path, token_file: Path | None) -> None:
    """Write FOLDER/prometheus.yml, alerts.yml and grafana.json, with which others watch this server.

    prometheus.yml asks the address of the server that ran on DIR last for /metrics; alerts.yml has rules with what to
    do; grafana.json is a dashboard to import. Prometheus runs as a user of its own: give it a token of its own, in a
    file that only it can read (fleet-server tokens issue DIR prometheus --role viewer --read-only). No file that exists
    is replaced.
    """
    state = open_state(directory)
    address = state.read_address()
    if address is None:
        raise NotRunningError(f"Expected a server that has run on {directory}, got none: fleet-server run {directory}")
    tls = read_config(state.config).tls
    server = Scraped(
        url=address.http_url,
        token_file=str((token_file or state.path / "operator.token").absolute()),
        ca=str(Path(tls.ca).absolute()) if tls.enabled else "",
    )
    for path in write_files(folder, server):
        click.echo(f"wrote      {path}")


def _health(http_url: str) -> dict[str, object] | None:
    try:
        answer = httpx.get(f"{http_url}/api/health", timeout=5.0, trust_env=False, verify=False)  # noqa: S501 - our own
        found = answer.json()
        return dict(found) if isinstance(found, dict) and "ok" in found else None
    except (httpx.HTTPError, ValueError):
        return None


def _last_heartbeat_ms(directory: Path) -> int:
    try:
        _, database = _opened(directory)
        with database.begin() as connection:
            at_ms = latest_heartbeat_ms(connection)
        database.close()
    except (ServerError, sa.exc.SQLAlchemyError):
        return 0  # a database that can't be read has no heartbeat to show
    return at_ms


login_commands.add_commands(main)
records.add_commands(main)
main.add_command(apply.apply)
afar.attach(main)
