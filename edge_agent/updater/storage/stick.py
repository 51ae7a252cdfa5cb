"""Copies a release from a USB stick below the state directory, from where the agent installs it (``imported``).

Nothing is trusted because it is at hand: ``release.json`` only names a target, which the signed metadata of the stick
must vouch for, from the root that this device enrolled with, with its floors of time and of versions. The same checks
run twice: before the bundle is copied, so that a person gets the reason at once, and by the agent before it installs.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edge_agent.device.disk import Disk
from edge_agent.errors import RequestRefusedError
from edge_agent.updater.children import ChildVerifier
from edge_agent.updater.ports import Refusal, TargetInfo
from edge_agent.updater.storage.imported import BUNDLE, FOLDER
from wire.codec import decode
from wire.errors import MessageError
from wire.stick import BLOBS, INDEX, MAX_INDEX_BYTES, METADATA, METADATA_NAME, Stick, StickTarget

_MAX_METADATA_BYTES = 4 * 1024 * 1024  # the largest that verification reads of one file
_MAX_METADATA_FILES = 64
_CHUNK_BYTES = 64 * 1024
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKind:
    """What decides which bundle of a release fits: the hardware class and the runtimes."""

    hardware: str
    runtimes: tuple[str, ...]


def stage(state: Path, at: Path, kind: DeviceKind, disk: Disk, reserve_bytes: int) -> tuple[StickTarget, TargetInfo]:
    """Copy what fits this device from the folder or zip ``at`` below ``state``; return the target and what is signed.

    Raises:
        RequestRefusedError: If it is no release, is not complete, is not signed for this device, or does not fit on
            the disk; nothing is left behind then.
        OSError: If ``at`` can't be read, or ``state`` can't be written.
    """
    folder = state / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / METADATA).mkdir(mode=0o700, parents=True)
        stick = _Stick(at)
        undo.callback(stick.close)
        index = stick.index()
        for name in stick.metadata():
            stick.copy(f"{METADATA}/{name}", folder / METADATA / name, _MAX_METADATA_BYTES)
        target, signed = _choose(state, index, kind)
        free_bytes = disk.free_bytes(state) - reserve_bytes
        if signed.length_bytes > free_bytes:
            text = f"Expected {signed.length_bytes} bytes free below {state} beside the reserve, got {free_bytes}"
            raise RequestRefusedError("no_space", f"{text}: free the disk")
        digest, length = stick.copy(f"{BLOBS}/{signed.sha256}", folder / BUNDLE, signed.length_bytes)
        if (digest, length) != (signed.sha256, signed.length_bytes):
            text = f"Expected {signed.length_bytes} bytes with the SHA-256 {signed.sha256[:12]}… in {at}, got {length}"
            raise RequestRefusedError("digest_mismatch", f"{text} with {digest[:12]}…: copy the release to it again")
        stick.close()
        undo.pop_all()
    return target, signed


def _choose(state: Path, index: Stick, kind: DeviceKind) -> tuple[StickTarget, TargetInfo]:
    """Return the first target that is signed and that this device can run."""
    verifier, wrong = ChildVerifier(state, metadata=state / FOLDER / METADATA), "no target is listed"
    for target in index.targets:
        found = verifier.check(target.target)
        if isinstance(found, Refusal):
            raise RequestRefusedError(found.code, f"{target.target or INDEX}: {found.text}")
        if found.custom.hardware and kind.hardware not in found.custom.hardware:
            wrong = f"{target.target} is for {', '.join(found.custom.hardware)}"
        elif found.custom.runtime and found.custom.runtime not in kind.runtimes:
            wrong = f"{target.target} needs the runtime {found.custom.runtime}"
        else:
            return target, found
    text = f"Expected a bundle for {kind.hardware} with {', '.join(kind.runtimes) or 'no runtime'}, got: {wrong}"
    raise RequestRefusedError("hardware_mismatch", f"{text}: export the release's other targets too")


class _Stick:
    """The files of a folder or a zip, read with a limit each."""

    def __init__(self, at: Path) -> None:
        self._at, self._zip = at, None if at.is_dir() else self._opened(at)

    def close(self) -> None:
        """Close the zip."""
        if self._zip is not None:
            self._zip.close()

    @staticmethod
    def _opened(at: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(at)
        except (*_BROKEN, FileNotFoundError) as error:
            text = f"Expected a folder or an intact zip of fleet-server releases export at {at}, got: {error}"
            raise RequestRefusedError("import_invalid", f"{text}: check the path, or copy it again") from error

    def index(self) -> Stick:
        """Return the index."""
        try:
            with self._open(INDEX) as file:
                return decode(Stick, file.read(MAX_INDEX_BYTES + 1), limit_bytes=MAX_INDEX_BYTES)
        except (MessageError, *_BROKEN) as error:
            text = f"Expected {INDEX} of fleet-server releases export in {self._at}, got: {error}: export it again"
            raise RequestRefusedError("import_invalid", text) from error

    def metadata(self) -> list[str]:
        """Return the names of the metadata files."""
        if self._zip is not None:
            found = [name.removeprefix(f"{METADATA}/") for name in self._zip.namelist()]
        else:
            found = [path.name for path in (self._at / METADATA).glob("*.json")]
        return sorted(name for name in found if METADATA_NAME.fullmatch(name))[:_MAX_METADATA_FILES]

    def copy(self, name: str, to: Path, most_bytes: int) -> tuple[str, int]:
        """Copy one file, at most one byte more than ``most_bytes``; return the digest and the length of what came."""
        digest, length = hashlib.sha256(), 0
        try:
            with self._open(name) as file, to.open("wb") as copy:
                while length <= most_bytes and (chunk := file.read(min(_CHUNK_BYTES, most_bytes + 1 - length))):
                    digest.update(chunk)
                    length += len(chunk)
                    copy.write(chunk)
        except _BROKEN as error:
            text = f"Expected {name} in {self._at} as it was written, got: {error}: copy the release to it again"
            raise RequestRefusedError("digest_mismatch", text) from error
        return digest.hexdigest(), length

    def _open(self, name: str) -> IO[bytes]:
        try:
            return (self._at / name).open("rb") if self._zip is None else self._zip.open(name)
        except (FileNotFoundError, KeyError) as error:
            text = f"Expected {name} in {self._at}, got no such file: it is no release, or half of a copy"
            raise RequestRefusedError("import_invalid", f"{text}; export or copy it again") from error
