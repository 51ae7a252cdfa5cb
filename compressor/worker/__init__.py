"""Leases retraining jobs from the server and carries them out: download, train, gate, sign, publish, report.

A worker keeps its name across restarts, so the server returns its unfinished job, and the pipeline's cache has the
results so far. What the gates reject is reported with their text, and never signed. A job that fails for whatever
reason is reported and ends; the worker continues with the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from compressor.cache import write_atomically
from compressor.data import labelled_images
from compressor.data._table import Table
from compressor.devices.bench import ServerBench
from compressor.errors import CompressorError, JobLostError, ServerUnreachableError, WorkerError
from compressor.progress import Bars, Progress
from compressor.recipe.model import DataRecipe, Recipe
from compressor.recipe.read import read_recipe
from compressor.release.keys import load_signer, read_root
from compressor.release.publish import publish
from compressor.run.ledger import LooksAt
from compressor.run.pipeline import BasePoint, Outcome, run_recipe
from compressor.worker.client import ServerClient, WorkOrder
from wire.bundle import read_bundle
from wire.canonical import sha256_file
from wire.codec import to_document
from wire.errors import WireError

_LOG = logging.getLogger(__name__)
_HEARTBEAT_S = 10.0
_POLL_S = 2.0
_BACK_OFF_MAX_S = 60.0
_RELEASED, _INTERNAL = "released", "internal"
_WEIGHTS, _BASE = "float.pt", "base.tfb"
LABELS, WATCHED = "labels.csv", "watched.csv"
"""In the samples of a job: those of the devices whose inputs drifted, and those of other sites."""
_SEARCH_DEPTH, _SEARCH_FILES = 4, 1000  # folders down, files at each depth: a wrong --out must not read a whole disk
_MAX_WEIGHTS_BYTES = 4 * 1024**3
_EXITS = {"pass": 0, "fail": 2, "inconclusive": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Settings of a worker: recipe and data, keys, its folder, the server and the token's text."""

    recipe: Recipe
    keys: Path
    out: Path
    server_url: str
    token: str
    checkpoint: Path | None = None
    ca: Path | None = None

    def folder(self, order: WorkOrder) -> Path:
        """Return the folder of a job; it is the same after a restart."""
        return self.out / "jobs" / order.id


@dataclass(slots=True, kw_only=True)
class LeaseHeartbeat:
    """Renews a lease in the background while the pipeline runs."""

    client: ServerClient
    job: str
    interval_s: float = _HEARTBEAT_S
    lost: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def beating(self) -> Iterator[LeaseHeartbeat]:
        """Send lease heartbeats while the context is open."""
        thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        while not self._over.wait(self.interval_s):
            try:
                self.client.heartbeat(self.job)
            except JobLostError:
                self.lost.set()
                return
            except CompressorError:
                continue  # the server is away: the lease survives some missed heartbeats, the end of the job decides

    def require(self) -> None:
        """Check that the lease has not been lost.

        Raises:
            JobLostError: If another worker holds the job now.
        """
        if self.lost.is_set():
            message = f"Expected to hold job {self.job}, it is another worker's now: its result is dropped"
            raise JobLostError(message)


def work_on(order: WorkOrder, place: Workplace, client: ServerClient, progress: Progress) -> Outcome:
    """Carry out one leased job, whatever the gates' verdict; the result is reported when this returns.

    Raises:
        CompressorError: If it failed, whatever the cause; the failure was reported to the server, unless it can't be
            reached.
        KeyboardInterrupt: After the lease was released.
    """
    with LeaseHeartbeat(client=client, job=order.id).beating() as heartbeat:
        try:
            outcome = _retrain(order, place, client, progress)
            heartbeat.require()
            certificate = outcome.certificate
            if outcome.verdict.value == "pass":
                bundles, url, bases = list(outcome.bundles), place.server_url, [place.folder(order) / _BASE]
                publish(bundles, keys=place.keys, server_url=url, token=place.token, ca=place.ca, bases=bases)
                client.done(order.id, f"{certificate.model}-{certificate.version}", to_document(certificate))
            else:
                refused = [line for line in certificate.gates if line.verdict != "pass"]
                text = "; ".join(f"{line.title} {line.verdict}: {line.text}" for line in refused)
                client.failed(order.id, f"gate_{outcome.verdict.value}", text or certificate.verdict)
        except (JobLostError, ServerUnreachableError):
            raise
        except KeyboardInterrupt:
            with contextlib.suppress(CompressorError):
                client.failed(order.id, _RELEASED, "the worker was stopped")
            raise
        except CompressorError as error:
            client.failed(order.id, error.code, str(error))
            raise
        except Exception as error:
            _LOG.exception("Job failed. job=%s", order.id)
            code, text = _reason(error)
            client.failed(order.id, code, text)
            message = f"Expected to do job {order.id}, got: {text}"
            raise WorkerError(message) from error
    return outcome


def _reason(error: Exception) -> tuple[str, str]:
    """Return the code and text of a failure that is not a ``CompressorError``."""
    if isinstance(error, WireError):
        return error.code, str(error)
    return ("io", str(error)) if isinstance(error, OSError) else (_INTERNAL, f"{type(error).__name__}: {error}")


def _retrain(order: WorkOrder, place: Workplace, client: ServerClient, progress: Progress) -> Outcome:
    if order.model != place.recipe.model.name:
        message = f"Expected a job for {place.recipe.model.name}, got one for {order.model}: give its --recipe"
        raise WorkerError(message)
    folder = place.folder(order)
    progress.say(f"job {order.id}: {order.labelled} samples for {order.base_release}, {order.cause}")
    base, samples = folder / _BASE, folder / "samples.zip"
    client.fetch_bundle(order.base_sha256, base)
    client.fetch_samples(order, samples)
    extra = read_samples(samples, place.recipe.data)
    watched = read_samples(samples, place.recipe.data, WATCHED) if _has_watched(samples) else None
    checkpoint = find_checkpoint(base, place)
    if checkpoint is None:
        progress.say(
            "the weights of the release before are not on this host: training from the start; --checkpoint names them"
        )
    else:
        progress.say(f"fine-tuning from {checkpoint}")
    version = chosen_version(order, base, folder, client)
    bench = ServerBench(url=place.server_url, token=place.token, keys=place.keys, ca=place.ca)
    return run_recipe(
        place.recipe, out=folder, version=version, base=BasePoint(base, checkpoint), extra=extra, watched=watched,
        progress=progress, devices=bench, looks=LooksAt(path=place.out / "looks.json", least=order.look),
    )  # fmt: skip


def _has_watched(samples: Path) -> bool:
    """Return whether the job has samples of sites that did not drift; an older server sends none."""
    try:
        with zipfile.ZipFile(samples) as archive:
            return WATCHED in archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        message = f"Expected the samples of the job as a zip, got: {error}"
        raise WorkerError(message) from error


def read_samples(path: Path, data: DataRecipe, listing: str = LABELS) -> Table:
    """Return the labelled samples of a job, decoded as in ``data``; the data set that reads them checks them.

    ``listing``: the CSV that names them.

    Raises:
        DataError: If they can't be used.
    """
    return labelled_images.load(
        DataRecipe(
            dataset="labelled_images", path=str(path.resolve()), slices="slice", width=data.width, height=data.height,
            orientation=data.orientation, decode=data.decode, resize=data.resize, resize_to=data.resize_to,
            bits=data.bits, colour=data.colour,
        ),
        listing=listing,
    )  # fmt: skip


def find_checkpoint(base: Path, place: Workplace) -> Path | None:
    """Return the float weights from which the base release was made, if this host has them.

    They are identified by the digest in the base's manifest, never by name.

    Raises:
        WorkerError: If the bundle can't be read.
    """
    try:
        wanted = read_bundle(base).manifest.lineage.get("float_weights", "")
    except WireError as error:
        message = f"Expected the bundle of the release before, got: {error}"
        raise WorkerError(message) from error
    for path in _checkpoints(place):
        if not path.is_file():
            continue
        if (length := path.stat().st_size) > _MAX_WEIGHTS_BYTES:
            _LOG.warning("Weights above %s bytes are not looked at. path=%s bytes=%s", _MAX_WEIGHTS_BYTES, path, length)
        elif sha256_file(path) == wanted:
            return path
    return None


def _checkpoints(place: Workplace) -> Iterator[Path]:
    """Yield files that may be the weights: the named one, then every ``float.pt`` of the worker and near the recipe."""
    if place.checkpoint is not None:
        yield place.checkpoint
    for folder in (place.out, place.recipe.folder / "build"):
        for depth in range(_SEARCH_DEPTH):
            found = sorted(folder.glob("/".join(["*"] * depth + [_WEIGHTS])))
            if len(found) > _SEARCH_FILES:
                left = len(found) - _SEARCH_FILES
                _LOG.warning(
                    "Weights beyond the first %s are not looked at. folder=%s count=%s", _SEARCH_FILES, folder, left
                )
            yield from found[:_SEARCH_FILES]


def chosen_version(order: WorkOrder, base: Path, folder: Path, client: ServerClient) -> int:
    """Return the new release's version: chosen once per job, so that a restart signs the same name.

    Raises:
        WorkerError: If the file in which it is kept is broken.
    """
    kept = folder / "version.json"
    if kept.is_file():
        try:
            return int(json.loads(kept.read_bytes())["version"])
        except (ValueError, KeyError, TypeError) as error:
            message = f"Expected the version of the job's release in {kept}, got {error}"
            raise WorkerError(f"{message}: delete the file, another version is then chosen") from error
    version = client.next_version(order.model, read_bundle(base).manifest.version)
    write_atomically(kept, json.dumps({"version": version}).encode())
    return version


def worker_name(out: Path) -> str:
    """Return the worker's name, created once for its folder."""
    path = out / "worker.txt"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        host = "".join(c for c in socket.gethostname().lower() if c.isalnum() or c == "-")[:40] or "host"
        write_atomically(path, f"{host}-{secrets.token_hex(4)}".encode())
    return path.read_text().strip()  # the server rejects a name too long; truncated, it could be another's


@contextlib.contextmanager
def sole_worker(out: Path) -> Iterator[None]:
    """Hold the folder's lock: two workers with one name would both hold the same lease.

    Raises:
        WorkerError: If another worker holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / "worker.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        message = f"Expected to be the only worker in {out}, another one runs: give another --out"
        raise WorkerError(message) from error
    finally:
        os.close(descriptor)


def serve(place: Workplace, *, once: bool, progress: Progress, pause: threading.Event | None = None) -> int:
    """Carry out jobs until stopped; with ``once`` wait for one, finish it, and return the exit code of its verdict.

    Raises:
        TrustError: If the release key is missing: no job is leased whose release could not be signed.
        CompressorError: With ``once``, if the job failed.
        KeyboardInterrupt: When stopped.
    """
    load_signer(place.keys, "targets", read_root(place.keys))
    idle, away_s = pause or threading.Event(), _POLL_S
    with (
        sole_worker(place.out),
        ServerClient(place.server_url, place.token, worker_name(place.out), place.ca) as client,
    ):
        while True:
            try:
                order = client.lease()
                away_s = _POLL_S
                if order is not None:
                    outcome = work_on(order, place, client, progress)
                    progress.say(f"job {order.id}: {outcome.verdict.value}")
                    if once:
                        return _EXITS[outcome.verdict.value]
                    continue
            except ServerUnreachableError as error:
                progress.say(f"{error}; trying again in {away_s:.0f} s")
                away_s = min(away_s * 2, _BACK_OFF_MAX_S)
            except CompressorError as error:
                if once:
                    raise
                progress.say(f"[{error.code}] {error}")
            idle.wait(away_s)


@click.command("worker")
@click.option("--server", "server_url", required=True, help="Address of the server, http://host:port.")
@click.option("--token-file", required=True, type=click.Path(path_type=Path), help="File with the builder token.")
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="The recipe that made the release.")
@click.option("--keys", required=True, type=click.Path(path_type=Path), help="Folder of `compressor keys init`.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The worker's folder.")
@click.option("--data", type=click.Path(path_type=Path), help="The data set, instead of the recipe's path.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="float.pt of the release before.")
@click.option("--ca", type=click.Path(path_type=Path), help="PEM file to trust for https, instead of the system's.")
@click.option("--once", is_flag=True, help="Wait for one job, do it, exit with its verdict.")
def command(  # noqa: PLR0913, PLR0917 - one parameter per option
    server_url: str,
    token_file: Path,
    recipe: Path,
    keys: Path,
    out: Path,
    data: Path | None,
    checkpoint: Path | None,
    ca: Path | None,
    once: bool,  # noqa: FBT001 - click passes flags so
) -> None:
    """Lease retraining jobs from the server, train, gate, sign and publish.

    Stop it with Ctrl-C: the job goes back to the server. Started again, it goes on where it was.

    \b
    Examples:
      compressor worker --server https://fleet.example:8443 --token-file builder.token \\
        --recipe models/digits --keys keys --out build/worker --checkpoint build/float.pt
      compressor worker … --once    one job, for a cron table; its verdict is the exit code
    """  # noqa: D301 - \b is click's: keep the lines
    read = read_recipe(recipe).with_data(data)
    try:
        token = token_file.read_text().strip()
    except OSError as error:
        message = f"Expected the builder token in {token_file}, got: {error.strerror}"
        raise WorkerError(message) from error
    place = Workplace(
        recipe=read, keys=keys, out=out, server_url=server_url.rstrip("/"), token=token, checkpoint=checkpoint, ca=ca
    )
    code = serve(place, once=once, progress=Bars())
    if code:
        raise SystemExit(code)
