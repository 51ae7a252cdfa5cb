"""Publishes a passed bundle to the server: first the blobs, then the signed metadata that names them.

Decides the order and the handling of conflicts. Does not decide what may be signed (``signing``). The new list of
releases is based on the server's, after its signature verified with our root; our own ``targets.json`` is replaced only
after the server accepted the new one. A release signed only for an air gap keeps its bytes (a name is never signed
twice with other bytes) but appears on the server only once it is published there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx
from tqdm import tqdm
from tuf.api.metadata import Targets

from compressor.devices.connection import connect
from compressor.errors import PublishError, ServerUnreachableError, VersionConflictError
from compressor.release.keys import METADATA, TARGETS_DAYS, read_root
from compressor.release.signing import (
    TARGETS_FILE,
    add_targets,
    read_signable,
    read_targets,
    sign_bundles,
    sign_targets,
    verified_targets,
)
from wire.durable import write_atomically

__all__ = ["Published", "command", "publish", "sign_bundles"]

CHUNK_BYTES = 256 * 1024
_NOT_FOUND, _CONFLICT, _FIRST_ERROR = 404, 409, 400
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Published:
    """Result of publishing: the TUF paths, the targets version, and by path the patches as bytes and share of it."""

    paths: tuple[str, ...]
    version: int
    patches: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)


def publish(  # noqa: PLR0913 - who, what, where and how it is reached
    bundles: list[Path],
    *,
    keys: Path,
    server_url: str,
    token: str,
    ca: Path | None = None,
    bases: Sequence[Path] = (),
    expires_days: int = TARGETS_DAYS,
    progress: Progress = lambda _bytes: None,
) -> Published:
    """Sign ``bundles`` and upload them to the server; repeating it changes nothing.

    A server whose list is older than ours gets a newer one, even if it has the bundles: devices refuse an older list.

    Args:
        bundles: Bundles whose certificate says ``pass``.
        keys: Folder of ``compressor keys init``.
        server_url: Address of the server, as ``http://host:port``.
        token: The server's builder token.
        ca: PEM file to trust for https, instead of the system's certificates.
        bases: Bundles that devices have now: from those of the same model and target, patches are published too. A
            release that is published already keeps the patches that it has.
        expires_days: Validity of the signed list of releases.
        progress: Called with the number of bytes just sent.

    Raises:
        CompressorError: If ``ca`` is not a certificate.
        PackageError: If a bundle can't be read.
        GateNotPassedError: If a bundle's certificate does not say ``pass``.
        ReleaseExistsError: If a release is already signed with other bytes.
        TrustError: If keys are missing, or the server's metadata is not signed by our key.
        VersionConflictError: If another build host published in between.
        ServerUnreachableError: If the server did not answer.
        PublishError: If the server refused for another reason.
    """
    signables = [read_signable(path, bases) for path in bundles]
    root = read_root(keys)
    ours = read_targets(keys, root)
    add_targets(ours, signables)  # rejects other bytes under a name we signed before, even if the server forgot it
    try:
        with connect(server_url, token, ca) as client:
            theirs, answer = None, client.get("/api/tuf/targets")
            if answer.status_code != _NOT_FOUND:
                _check(answer)
                theirs = verified_targets(answer.content, root, f"the answer of {client.base_url}").signed
            published = theirs or Targets()
            base = theirs.version if theirs else 0
            # A server that was restored from an older copy has a list that devices refuse: it needs a newer one.
            if add_targets(published, signables) or base < ours.version:
                for one in signables:
                    headers = {"Content-Length": str(one.length_bytes), "Content-Type": "application/octet-stream"}
                    content = _chunks(one.source, progress)
                    _check(client.put(f"/api/blobs/{one.sha256}", content=content, headers=headers))
                    for delta, patch in zip(one.custom.deltas, one.patches, strict=True):
                        _check(client.put(f"/api/blobs/{delta.sha256}", content=patch))
                data = sign_targets(published, max(base, ours.version) + 1, keys, root, expires_days)
                _check(client.post("/api/tuf/targets", content=data, params={"base": base}))
                write_atomically(keys / METADATA / TARGETS_FILE, data, mode=0o644)
    except httpx.HTTPError as error:
        message = f"Expected an answer from {server_url}, got: {error!r}: is the server running?"
        raise ServerUnreachableError(message) from error
    patches = {
        one.path: tuple((len(patch), len(patch) / one.length_bytes) for patch in one.patches) for one in signables
    }
    return Published(tuple(signable.path for signable in signables), published.version, patches)


def _chunks(path: Path, progress: Progress) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            progress(len(chunk))


def _check(response: httpx.Response) -> None:
    if response.status_code < _FIRST_ERROR:
        return
    kind = VersionConflictError if response.status_code == _CONFLICT else PublishError
    message = f"Expected the server to accept, got HTTP {response.status_code}: {response.text[:300]}"
    if kind is VersionConflictError:
        message += ": somebody published in between; run the command again"
    raise kind(message)


@click.command("publish")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--keys", required=True, type=click.Path(path_type=Path), help="Folder of `compressor keys init`.")
@click.option("--server", "server_url", required=True, help="Address of the server, http://host:port.")
@click.option("--token-file", required=True, type=click.Path(path_type=Path), help="File with the builder token.")
@click.option("--ca", type=click.Path(path_type=Path), help="PEM file to trust for https, instead of the system's.")
@click.option(
    "--base",
    "bases",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A bundle that devices have now: publish a patch from it too. May be given several times.",
)
def command(
    bundles: tuple[Path, ...], keys: Path, server_url: str, token_file: Path, ca: Path | None, bases: tuple[Path, ...]
) -> None:
    """Sign BUNDLES that passed their gates and hand them to the server.

    Only a bundle whose certificate says pass is signed. The server then offers the release; a rollout is started there.

    \b
    Examples:
      compressor publish build/digits-1-*.tfb --keys keys \\
        --server https://fleet.example:8443 --token-file state/builder.token
      compressor publish digits-2-gateway.tfb --base digits-1-gateway.tfb …    with a patch
    """  # noqa: D301 - \b is click's: keep the lines
    try:
        token = token_file.read_text().strip()
        total_bytes = sum(path.stat().st_size for path in bundles)
    except OSError as error:
        message = f"Expected bundles and a token file that can be read, got: {error}"
        raise PublishError(message) from error
    with tqdm(total=total_bytes, unit="B", unit_scale=True, desc="upload", leave=False) as bar:
        done = publish(
            list(bundles), keys=keys, server_url=server_url, token=token, ca=ca, bases=bases, progress=bar.update
        )
    for path in done.paths:
        click.echo(f"published {path} (targets version {done.version})")
        for length_bytes, share in done.patches[path]:
            click.echo(f"  patch from a base: {length_bytes:,} bytes to fetch, {100 * share:.1f} % of the bundle")
