"""``fleet-server devices mute`` and ``unmute``: with DIR they work on the state directory, also beside a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from server.cli.alerts import span_s
from server.cli.frame import STATE, coded, console, example, opened
from server.cli.place import AnyHost
from server.clock import system_now_ms
from server.errors import UnknownDeviceError
from server.fleet.device_list import DeviceList
from server.fleet.fleet import Device, Fleet, Outbox
from server.fleet.mutes import DeviceMutes
from server.store.lists.devices import DeviceFilter, FleetCondition
from wire.memory_broker import MemoryBroker, MemoryTransport

_DEVICES = click.argument("devices", metavar="[DEVICE]...", nargs=-1)
_SITE = click.option("--site", default="", help="All devices of this site instead.")
_TAG = click.option("--tag", default="", help="All devices with this tag instead; with --site, those of the site.")
_WHY = click.option("--why", default="", help="Kept with it and in the events.")
_BY = click.option("--by", default="", help="Who decides it; kept with it. The name of the user by default.")


def _moment_ms(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int:
    """Return the moment of an option in UTC ms, 0 if it is left out."""
    if value is None:
        return 0
    try:
        return round(datetime.fromisoformat(value).astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"Expected a time such as 2026-12-02T08:00, got {value!r}") from None


@click.command(
    cls=AnyHost,
    epilog=example(
        "fleet-server devices mute state cam-1 --for 4h --why 'the lens is cleaned'",
        "fleet-server devices mute state --site north --until 2026-12-02T08:00+01:00 --why 'power works'",
    ),
)
@STATE
@_DEVICES
@_SITE
@_TAG
@click.option("--for", "seconds", callback=span_s, metavar="TIME", help="For how long: 30m, 4h or 2d; at most 90d.")
@click.option("--until", "until_ms", callback=_moment_ms, metavar="TIME",
              help="Until when: 2026-12-02T08:00, this machine's time; or with +01:00.")  # fmt: skip
@_WHY
@_BY
@coded
def mute(  # noqa: PLR0913 - one argument a command-line option
    directory: Path, devices: Sequence[str], *, site: str, tag: str, seconds: int, until_ms: int, why: str,
    by: str,
) -> None:  # fmt: skip
    """Let devices raise no alert and no concern of their own for a while.

    Without --for and --until: until they are unmuted. An open alert of theirs alone ends at once; if its cause is still
    there after the mute, it opens again. They are judged for drift and count in rollouts as before, and the status of
    the fleet names them. Each line has a device and until when (UTC ms; 0: until it is unmuted).
    """
    end_ms = end_of_mute(seconds, until_ms)

    def one(mutes: DeviceMutes, device: str) -> Device:
        return mutes.mute(device, end_ms, why, by=console(by))

    _each(directory, devices, site, tag, one)


@click.command(
    cls=AnyHost,
    epilog=example("fleet-server devices unmute state cam-1", "fleet-server devices unmute state --site north"),
)
@STATE
@_DEVICES
@_SITE
@_TAG
@_BY
@coded
def unmute(directory: Path, devices: Sequence[str], *, site: str, tag: str, by: str) -> None:
    """Let devices raise alerts and concerns again; with --site or --tag, those that are muted.

    Each line has a device and 0.
    """
    _each(directory, devices, site, tag, lambda mutes, device: mutes.unmute(device, by=console(by)), muted=True)


def end_of_mute(seconds: int, until_ms: int) -> int:
    """Return the end of a mute by ``--for`` and ``--until`` in UTC ms, 0 without either.

    Raises:
        click.UsageError: If both are given.
    """
    if seconds and until_ms:
        raise click.UsageError("Expected --for or --until, got both: leave one out")
    return system_now_ms() + 1000 * seconds if seconds else until_ms


def expect_one_choice(devices: Sequence[str], site: str, tag: str) -> None:
    """Check that devices are named, or chosen by site or tag.

    Raises:
        click.UsageError: If both or neither.
    """
    if bool(devices) == bool(site or tag):
        raise click.UsageError("Expected DEVICE, or --site or --tag, one of them: say which devices it is about")


def say_none(site: str, tag: str, *, muted: bool) -> None:
    """Say that no device was chosen by ``site`` and ``tag``; to find none ``muted`` is no mistake.

    Raises:
        UnknownDeviceError: If any device was looked for: the site or tag is spelled wrong.
    """
    asked = " and ".join(f"{name} {text!r}" for name, text in (("site", site), ("tag", tag)) if text)
    if not muted:
        raise UnknownDeviceError(f"Expected a device of {asked}, got none: fleet-server devices lists them")
    click.echo(f"no device of {asked} is muted", err=True)


def _each(
    directory: Path, devices: Sequence[str], site: str, tag: str, act: Callable[[DeviceMutes, str], Device], *,
    muted: bool = False,
) -> None:  # fmt: skip
    expect_one_choice(devices, site, tag)
    with _mutes(directory) as (mutes, listing):
        if not devices:
            only = FleetCondition.MUTED if muted else None
            devices = [one.device for one in listing.all(DeviceFilter(site=site, tag=tag, condition=only))]
            if not devices:
                say_none(site, tag, muted=muted)
        for name in devices:  # all are known before the first is changed
            mutes.fleet.active_device(name)
        for name in devices:
            now = act(mutes, name)
            click.echo(f"{now.device}\t{now.muted_until_ms}")


@contextmanager
def _mutes(directory: Path) -> Iterator[tuple[DeviceMutes, DeviceList]]:
    config, database = opened(directory)
    outbox = Outbox(MemoryTransport(broker=MemoryBroker(), client_id="none"))  # the server reads the database
    fleet = Fleet(database=database, outbox=outbox, clock=system_now_ms)
    try:
        listing = DeviceList(database=database, clock=system_now_ms, silent_s=config.fleet.silent_s)
        yield DeviceMutes(fleet=fleet, clock=system_now_ms), listing
    finally:
        database.close()
