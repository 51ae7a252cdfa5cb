"""``fleet-server``: init, run, claim, trust, status, devices. Only this file prints.

Exit codes: 0 done, 1 refused or failed (``error [code]: …`` on stderr), 2 wrong usage.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
import httpx
import sqlalchemy as sa

from server.app import Overrides, ServerApp
from server.clock import system_now_ms
from server.config import ServerConfig, read_config
from server.enrolment import Enrolment
from server.errors import ServerError
from server.fleet import Device, Fleet
from server.outbox import Outbox
from server.state_directory import init_state, open_state
from server.store.database import Database, open_database
from server.trust.online_keys import init_online_keys
from server.trust.roots import install_root
from wire.errors import WireError
from wire.memory_broker import MemoryBroker, MemoryTransport

P = ParamSpec("P")
R = TypeVar("R")

_STATE = click.argument("directory", type=click.Path(path_type=Path))


def _coded(command: Callable[P, R]) -> Callable[P, R]:
    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ServerError, WireError) as error:
            click.echo(f"error [{error.code}]: {error}", err=True)
        except sa.exc.SQLAlchemyError as error:
            click.echo(f"error [store]: Expected a usable store, got: {error.__cause__ or error}", err=True)
        except OSError as error:
            click.echo(f"error [os]: {error}", err=True)
        sys.exit(1)

    return run


@click.group()
@click.version_option(package_name="tinyfleet")
def main() -> None:
    """Take models to a fleet of devices and keep them right."""


@main.command()
@_STATE
@_coded
def init(directory: Path) -> None:
    """Make a new state directory with its tokens and online keys."""
    state = init_state(directory)
    init_online_keys(state.path)
    open_database(state.database_url).close()  # now, so that no two later commands make the tables at once
    click.echo(f"state      {state.path}")
    click.echo(f"operator   {state.path / 'operator.token'}")
    click.echo(f"builder    {state.path / 'builder.token'}")
    click.echo(f"next       compressor keys init KEYS --online {state.path / 'online.pub.json'}")
    click.echo(f"then       fleet-server trust {directory} --root KEYS/metadata/1.root.json")


@main.command()
@_STATE
@click.option("--http-port", type=click.IntRange(0, 65535), help="Instead of http.port in server.toml.")
@click.option("--broker-port", type=click.IntRange(0, 65535), help="Instead of broker.port in server.toml.")
@click.option("--bind", help="Address for HTTP and broker; beyond loopback only with [tls] in server.toml.")
@click.option("--verbose", is_flag=True, help="Log state changes, too.")
@_coded
def run(directory: Path, http_port: int | None, broker_port: int | None, bind: str | None, *, verbose: bool) -> None:
    """Serve until SIGINT or SIGTERM."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    app = ServerApp.open(directory, overrides=Overrides(http_port, broker_port, bind))
    app.start()
    click.echo(f"http {app.http_url}")
    click.echo(f"mqtt {app.address.mqtt_host}:{app.address.mqtt_port}")
    while not stop.wait(3600):
        pass
    app.stop()


@main.command()
@_STATE
@click.option("--site", required=True)
@click.option("--device", required=True)
@click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="May be given several times.")
@_coded
def claim(directory: Path, site: str, device: str, attributes: tuple[str, ...]) -> None:
    """Print a one-time claim for a device."""
    pairs = dict(_pair(text) for text in attributes)
    config, database = _opened(directory)
    enrolment = Enrolment(database, system_now_ms, config.enrolment.claim_ttl_s)
    click.echo(enrolment.claim(site, device, pairs))
    database.close()


@main.command()
@_STATE
@click.option("--root", required=True, type=click.Path(path_type=Path, dir_okay=False), help="N.root.json")
@_coded
def trust(directory: Path, root: Path) -> None:
    """Install the root metadata that devices get at enrolment, or the one that follows it."""
    version = install_root(open_state(directory).path, root)
    click.echo(f"root version {version}")


@main.command()
@_STATE
@click.option("--json", "as_json", is_flag=True)
@_coded
def devices(directory: Path, *, as_json: bool) -> None:
    """Print the registered devices, as tab-separated values or JSON."""
    _, database = _opened(directory)
    fleet = Fleet(database, Outbox(MemoryTransport(MemoryBroker(), "none")), system_now_ms)
    rows = [_device_row(device) for device in fleet.devices()]
    database.close()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    names = ("device", "site", "state", "release", "phase", "desired_release", "last_seen_ms")
    click.echo("\t".join(names))
    for row in rows:
        click.echo("\t".join(str(row[name]) for name in names))


@main.command()
@_STATE
@_coded
def status(directory: Path) -> None:
    """Print whether the server of the directory runs, and where."""
    state = open_state(directory)
    address = state.read_address()
    answer = _health(address.http_url) if address else None
    click.echo(json.dumps({"running": answer is not None, **(answer or {}), **(asdict(address) if address else {})}))
    if answer is None:
        sys.exit(1)


def _health(http_url: str) -> dict[str, object] | None:
    try:
        answer = httpx.get(f"{http_url}/api/health", timeout=5.0, trust_env=False, verify=False)  # noqa: S501 - our own
        return dict(answer.json()) if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def _opened(directory: Path) -> tuple[ServerConfig, Database]:
    state = open_state(directory)
    config = read_config(state.config)
    return config, open_database(config.store.url or state.database_url)


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise click.BadParameter(f"Expected KEY=VALUE, got {text!r}", param_hint="--attribute")
    return key, value


def _device_row(device: Device) -> dict[str, object]:
    update = device.reported.update if device.reported else None
    return {
        "device": device.device, "site": device.site, "attributes": dict(device.attributes),
        "state": device.state.value, "release": device.release,
        "phase": update.phase.value if update and update.phase else "", "code": update.code if update else "",
        "desired_gen": device.desired_gen, "desired_release": device.desired_release,
        "last_seen_ms": device.last_seen_ms, "enrolled_ms": device.enrolled_ms,
    }  # fmt: skip


if __name__ == "__main__":
    main()
