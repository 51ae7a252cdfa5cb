"""Command-line options that several commands have: of the server and its devices, and ``--set``.

Imports little, so that commands start fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from compressor.devices import WAIT_S

_MAX_WAIT_S = 21_600.0


class FiniteRange(click.FloatRange):
    """A number in its range; "nan", which click takes for one inside of any range, and "inf" are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's
        """Return the number, or end with a usage error."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"Expected a finite number, got {value!r}", param, ctx)
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Values of these options; empty if they were not given."""

    server: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    device_wait_s: float = WAIT_S


SET = click.option("--set", "changes", metavar="KEY=VALUE", multiple=True,
                   help="A value instead of the recipe's: --set train.epochs=3. May be repeated.")  # fmt: skip


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``command`` with the options ``--server``, ``--token-file``, ``--ca`` and ``--device-wait-s``."""
    path = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--device-wait-s", type=FiniteRange(1, _MAX_WAIT_S), default=WAIT_S, show_default=True,
                     help="How long a device may take to measure; then its gates fail."),
        click.option("--ca", type=path, help="PEM file to trust for https, instead of the system's."),
        click.option("--token-file", type=path, help="File with the server's builder token."),
        click.option("--server", help="Address of the server, http://host:port, where gates name devices."),
    ):  # fmt: skip
        command = option(command)
    return command
