#!/usr/bin/env python3
"""Checks whether a real device is fit for a rollout, through its server, and prints a verdict.

    scripts/hil/device.py --server URL --token-file state/operator.token --device cam-1 [--release digits-2] [--json]

Checks, in this order: the server knows the device; it is online; it runs (or has committed) the release; its last
update did not fail; it passes a self-test; its drift window is not overdue. A new device has no window yet, and none is
due. Exit code 0: fit, 1: not, 2: usage. `scripts/hil/run` measures a bundle on devices, and does these checks, too.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from compressor.devices.fitness import FitnessClient
from compressor.errors import CompressorError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--server", "url", required=True, help="The server, http://host:port.")
@click.option("--token-file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", required=True, help="The device's id.")
@click.option("--release", default="", help="The release it must run; default: the one the server desires.")
@click.option("--window-s", default=3600.0, show_default=True, help="The length of the device's drift windows.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tab-separated lines.")
def main(url: str, token_file: Path, device: str, release: str, window_s: float, *, as_json: bool) -> None:
    """Check whether a device is fit for a rollout."""
    try:
        with FitnessClient(url.rstrip("/"), token_file.read_text().strip()) as client:
            checks = client.checks(device, release=release, window_s=window_s)
    except CompressorError as error:
        raise click.ClickException(f"[{error.code}] {error}") from error
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        for check in checks:
            click.echo(f"{'ok' if check.ok else 'FAILED'}\t{check.name}\t{check.text}")
    sys.exit(0 if all(check.ok for check in checks) else 1)


if __name__ == "__main__":
    main()
