"""The software that is installed on this device. Reads the metadata of packages; imports none of them.

The command line collects it once, before it becomes the control process: the modules that read metadata stay out of
that process. What changes while the agent runs is reported after its next start, as only then it runs.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from edge_agent import declarations
from wire import __version__
from wire.software import ComponentKind, SoftwareComponent, SoftwareList, component_key, software_of

_AGENT = "tinyfleet"
_BOARDS = ("device-tree/model", "class/dmi/id/product_name")
_MAX_BOARD_BYTES = 256


def installed_software() -> SoftwareList:
    """Return what is installed, without the models in the slots."""
    named = {name for one in declarations.runtimes() for name in one.packages.values()}
    found = packages(metadata.distributions(), {component_key(name) for name in named})
    return software_of([*_machine(), SoftwareComponent(ComponentKind.AGENT, _AGENT, __version__), *found])


def packages(
    distributions: Iterable[metadata.Distribution], runtimes: set[str]
) -> tuple[SoftwareComponent, ...]:  # fmt: skip
    """Return the packages: of two with one name the first, which is the one that Python imports.

    ``runtimes``: the keys of those that run models. Metadata without a name, left by an interrupted installation, are
    no package.
    """
    found: dict[str, SoftwareComponent] = {}
    for one in distributions:
        name = one.metadata["Name"] if one.metadata is not None else None
        if not name or component_key(name) == _AGENT:
            continue
        kind = ComponentKind.RUNTIME if component_key(name) in runtimes else ComponentKind.PACKAGE
        found.setdefault(component_key(name), SoftwareComponent(kind, str(name), str(one.metadata["Version"] or "")))
    return tuple(found.values())


def _machine() -> list[SoftwareComponent]:
    found = [
        SoftwareComponent(ComponentKind.PYTHON, platform.python_implementation(), platform.python_version()),
        SoftwareComponent(ComponentKind.KERNEL, platform.system() or "unknown", platform.release()),
        SoftwareComponent(ComponentKind.ARCHITECTURE, platform.machine() or "unknown"),
    ]
    with suppress(OSError):  # a system without /etc/os-release
        system = platform.freedesktop_os_release()
        found.append(SoftwareComponent(ComponentKind.OS, system.get("ID", "linux"), system.get("VERSION_ID", "")))
    board = next((name for root in _BOARDS if (name := _board(Path("/sys") / root))), "")
    board = board or _board(Path("/proc") / _BOARDS[0])
    return [*found, SoftwareComponent(ComponentKind.BOARD, board)] if board else found


def _board(path: Path) -> str:
    """Return the name of the board in ``path``, "" if there is none; its serial number stands elsewhere."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BOARD_BYTES).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""
