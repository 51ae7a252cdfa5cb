"""From the command line's words to the way to devices.

Decides what must be there before anything is trained: server, token, release key, and every device that a gate names.
"""

from __future__ import annotations

from pathlib import Path

from compressor.cli.device_options import Reach
from compressor.devices.bench import ServerBench
from compressor.errors import DeviceMeasureError
from compressor.gates.certificate import Certificate
from compressor.gates.device import device_in
from compressor.progress import Progress
from compressor.recipe.model import Recipe


def bench_of(reach: Reach, keys: Path | None) -> ServerBench | None:
    """Return the way to devices, None where no server was named.

    Raises:
        DeviceMeasureError: If a server was named without token or keys, or the token can't be read.
    """
    if reach.server is None:
        return None
    if reach.token_file is None or keys is None:
        message = "Expected --token-file and --keys with --server, got none: a device obeys only what our release key"
        raise DeviceMeasureError(f"{message} signed; give the server's builder token and the folder of our keys")
    try:
        token = reach.token_file.read_text().strip()
    except OSError as error:
        message = f"Expected the builder token in {reach.token_file}, got: {error.strerror}"
        raise DeviceMeasureError(message) from error
    return ServerBench(reach.server.rstrip("/"), token, keys, reach.ca, reach.device_wait_s)


def devices_named(recipe: Recipe) -> tuple[str, ...]:
    """Return the devices that gates of ``recipe`` name, each once."""
    return tuple(dict.fromkeys(device for gate in recipe.gates if (device := device_in(gate.on)[0])))


def bench_for(recipe: Recipe, reach: Reach, keys: Path | None) -> ServerBench | None:
    """Return the way to the devices that ``recipe`` names, after asking whether they are known; None without any.

    Raises:
        DeviceMeasureError: If no server was named, or it knows no such device.
        ServerUnreachableError: If the server did not answer.
        TrustError: If the release key is missing.
    """
    devices = devices_named(recipe)
    bench = bench_of(reach, keys)
    if not devices:
        return bench
    if bench is None:
        message = f"Expected --server, --token-file and --keys, got none: [gates] measure on {', '.join(devices)}"
        raise DeviceMeasureError(f"{message}; give them, or take the device gates out of the recipe")
    for device in devices:
        bench.check(device)
    return bench


def gate_bundle(path: Path, on: str, reach: Reach, keys: Path | None, progress: Progress) -> Certificate:
    """Return the certificate of the bundle or folder at ``path``, judged again here and, with ``on``, on a device.

    Raises:
        DeviceMeasureError: If ``on`` is not ``device:ID``, or there is no way to that device.
        ServerUnreachableError: If the server did not answer.
        PackageError: If there is no bundle or certificate, or it does not open.
        MeasureError: If the artifact can't be run here.
        TrustError: If the release key is missing.
    """
    from compressor.cli.regate_device import gate_on  # noqa: PLC0415 - runtimes only where something is measured
    from compressor.release.regate import gate_again  # noqa: PLC0415 - runtimes only where something is measured

    if not on:
        return gate_again(path)
    device, target = device_in(on)
    bench = bench_of(reach, keys)
    if not device or target or bench is None:
        message = f"Expected --on device:ID with --server, --token-file and --keys, got --on {on!r}"
        raise DeviceMeasureError(f"{message} and {'a' if bench else 'no'} server")
    bench.check(device)
    return gate_on(path, device, bench, progress)
