"""Cache of stage results, keyed by their inputs, so that a run resumes where it stopped.

The key of a result is the digest of the stage's name, the source code it ran (``closure``) and the digests of its
inputs. A changed parameter therefore re-runs that stage and only what depends on its *result*: if the stage returns the
same bytes as before, later stages still hit the cache. Files are written whole or not at all; a damaged one is made
again. Results are in a folder named after the cache's version, so those of another version are neither read nor
removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compressor.closure import code_digests
from compressor.errors import PackageError
from wire import durable
from wire.canonical import canonical_bytes, sha256_hex

CACHE_VERSION = 2
"""Version of the cache's layout and of the steps' formats. Raise it when either changes; version 1 had no folder."""
_DIGEST_BYTES = 64


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a stage. ``digest`` is the SHA-256 of ``data``; ``cached``: it was read from the cache."""

    data: bytes
    digest: str
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A piece of work whose result is cached: its name, the digests of its ``inputs``, and what makes its bytes.

    The code that it depends on is that of the module that defines ``make``, with all it imports. ``uses``: modules that
    ``make`` imports late, and plug-ins, which no import statement shows.
    """

    name: str
    inputs: Mapping[str, str]
    make: Callable[[], bytes]
    uses: tuple[str, ...] = ()

    def code(self) -> dict[str, str]:
        """Return the SHA-256 of the source of each module that it runs, by name."""
        return code_digests((self.make.__module__, *self.uses), apart=f"{__name__}.{type(self).__name__}")

    def key(self) -> str:
        """Return the digest of name, inputs and code."""
        return sha256_hex(canonical_bytes({"step": self.name, "inputs": dict(self.inputs), "code": self.code()}))


@dataclass(slots=True)
class Cache:
    """A folder of results. ``ran`` and ``found`` list this run's steps, in order: computed and read back."""

    folder: Path
    ran: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    @property
    def results(self) -> Path:
        """The folder of results for this version of the cache."""
        return self.folder / f"v{CACHE_VERSION}"

    def left_aside(self) -> str:
        """Return a sentence if the folder has results of other versions only, else an empty string."""
        if self.results.exists() or not self.folder.is_dir():
            return ""
        others = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))  # not a lock
        if not others:
            return ""
        newer = [name for name in others if name.startswith("v") and name[1:].isdecimal()]
        which = f"of version {newer[-1][1:]}" if newer else "of an older version"
        return (
            f"the cache {self.folder} is {which}: it is left aside (delete it to free space), every step is made anew"
        )

    def result(self, stage: Stage) -> Result:
        """Return the cached result for equal inputs and code, or else what ``stage`` makes.

        Raises:
            PackageError: If the result can't be written.
        """
        path = self.results / f"{stage.name}-{stage.key()[:24]}"
        known = _read(path)
        if known is not None:
            self.found.append(stage.name)
            return Result(known, sha256_hex(known), cached=True)
        data = stage.make()
        digest = sha256_hex(data)
        write_atomically(path, digest.encode() + data)
        self.ran.append(stage.name)
        return Result(data, digest, cached=False)

    def forget(self, stage: Stage) -> None:
        """Delete the result of ``stage``, so that it is made anew."""
        (self.results / f"{stage.name}-{stage.key()[:24]}").unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return data if sha256_hex(data).encode() == digest else None


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all, even if the power fails.

    Raises:
        PackageError: If the disk is full or the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_atomically(path, data, mode=0o644)
    except OSError as error:
        message = (
            f"Expected to write {len(data)} bytes to {path}, got: {error.strerror}: free space or choose another --out"
        )
        raise PackageError(message) from error
