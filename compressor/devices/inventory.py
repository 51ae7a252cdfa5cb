"""The inventory of a device laboratory: a TOML file with a table ``[devices.NAME]`` for each device.

Decides how a device is reached (``kind``) and what it may need at most (``[devices.NAME.limits]``). Reads nothing but
the file: a device is first asked when a test needs it. Relative paths are relative to the inventory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from compressor.devices import WAIT_S
from compressor.errors import InventoryError
from wire.errors import NameRefusedError, SettingsError
from wire.settings import Bound, fields_from, plain_table, read_toml
from wire.topics import check_name

Limit = Annotated[float, Bound(0, 1e15, above=True)]
Share = Annotated[float, Bound(0, 1)]
Seconds = Annotated[float, Bound(0, 86_400, above=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """``[devices.NAME.limits]``; None: the bundle's own budget, or no limit where it has none.

    ``accuracy_drop``: of the device below this host, on the same rows. ``flip_ratio``: rows with another answer than
    here. ``temperature_celsius``: of the hottest zone, while it measures.
    """

    latency_p50_ms: Limit | None = None
    latency_p95_ms: Limit | None = None
    peak_memory_bytes: Limit | None = None
    energy_mj: Limit | None = None
    temperature_celsius: Limit = 80.0
    accuracy: Share = 0.0
    accuracy_drop: Share = 0.005
    flip_ratio: Share = 0.005
    may_throttle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Keys that every device has.

    ``hardware``: its class, for the marker ``on("hardware:…")``. ``state``: the state directory of its agent, on the
    device; without it only measurements run. ``power_off`` to ``network_up``: commands on this host (a switched
    socket, a managed switch); without them a device with a shell gets ``kill -9`` and its ``link`` down.
    ``cut_s``: how long a network cut lasts; longer than the agent's keep-alive (30 s), it notices by itself.
    ``back_s``: how long the agent may need to serve and to be connected again. ``limit_s``: of one measurement.
    """

    hardware: str = ""
    state: str = ""
    power_off: tuple[str, ...] = ()
    power_on: tuple[str, ...] = ()
    network_down: tuple[str, ...] = ()
    network_up: tuple[str, ...] = ()
    cut_s: Seconds = 5.0
    back_s: Seconds = 120.0
    limit_s: Seconds = WAIT_S
    limits: DeviceLimits = field(default_factory=DeviceLimits)

    @property
    def timed(self) -> bool:
        """Whether its latencies mean anything: not those of an emulator."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellEntry(Entry):
    """Keys of devices with a shell.

    ``python``: the interpreter whose environment has the agent. ``wheel``: a file on this host, installed with
    ``runtime`` into a virtual environment below ``folder`` where ``python`` lacks the agent. ``start``: the line of
    shell that starts the agent; "": the agent's own command. ``config``: its agent.toml. ``energy``: a file on the
    device that counts microjoules; "": RAPL, where it is readable. ``link``: the network interface that is cut.
    """

    python: str = "python3"
    folder: str = "/tmp/tinyfleet-hil"  # noqa: S108 - on the device, and a person may name another
    wheel: Path | None = None
    runtime: str = "onnx"
    start: str = ""
    config: str = ""
    energy: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEntry(ShellEntry):
    """``kind = "local"``: processes on this host, in the network namespace ``netns`` if one is named."""

    netns: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshEntry(ShellEntry):
    """``kind = "ssh"``: ``host`` is ``user@name``; its key must be in ``known_hosts`` (None: the user's own file).

    ``command``: another program than ``ssh``, which gets the same arguments.
    """

    host: str
    port: Annotated[int, Bound(1, 65_535)] = 22
    identity: Path | None = None
    known_hosts: Path | None = None
    command: tuple[str, ...] = ("ssh",)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedEntry(ShellEntry):
    """``kind = "emulated"``: the root file system ``root`` of another machine, run by qemu-user (scripts/hil/arm64)."""

    root: Path
    emulator: Path = Path("/usr/bin/qemu-aarch64-static")

    @property
    def timed(self) -> bool:
        """An emulator's times mean nothing."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEntry(Entry):
    """``kind = "server"``: the device ``id`` by its agent, over ``server``; ``keys``: the folder of the release key.

    ``token_file``: the builder token. ``operator_token_file``: for the checks of its fitness.
    """

    server: str
    token_file: Path
    keys: Path
    id: str = ""
    ca: Path | None = None
    operator_token_file: Path | None = None
    window_s: Seconds = 3600.0


KINDS: Mapping[str, type[Entry]] = {
    "local": LocalEntry,
    "ssh": SshEntry,
    "emulated": EmulatedEntry,
    "server": ServerEntry,
}


def kind_of(entry: Entry) -> str:
    """Return the ``kind`` of a device, as the inventory names it."""
    return next(kind for kind, cls in KINDS.items() if type(entry) is cls)


def read_inventory(path: Path) -> dict[str, Entry]:
    """Return the devices in the inventory at ``path``, by name, in its order.

    Raises:
        InventoryError: If it can't be read, names no device, or a key or value is unknown or invalid.
    """
    try:
        document = read_toml(path)
        tables = plain_table(document.pop("devices", {}), f"{path} [devices]")
        found = {name: _entry(name, table, path) for name, table in tables.items()}
    except (SettingsError, NameRefusedError) as error:
        raise InventoryError(str(error)) from error
    if document:
        raise InventoryError(f"Expected only tables [devices.NAME] in {path}, got {next(iter(document))!r}")
    if not found:
        raise InventoryError(f"Expected at least one table [devices.NAME] in {path}, got none: describe a device")
    return found


def _entry(name: str, table: object, path: Path) -> Entry:
    check_name(name, "a device")
    where = f"{path} [devices.{name}]"
    keys = dict(plain_table(table, where))
    kind = keys.pop("kind", "")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SettingsError(f"Expected {where} kind to be {' or '.join(KINDS)}, got {kind!r}")
    entry = fields_from(KINDS[kind], keys, where, folder=path.parent.resolve())
    if isinstance(entry, SshEntry) and (not entry.host or entry.host.startswith("-")):
        raise SettingsError(f"Expected {where} host as user@name, got {entry.host!r}")
    for off, on in (("power_off", "power_on"), ("network_down", "network_up")):
        if bool(getattr(entry, off)) != bool(getattr(entry, on)):
            raise SettingsError(f"Expected {where} {off} and {on} together, got one: a cut must end")
    return entry
