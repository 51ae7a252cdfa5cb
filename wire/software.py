"""The software of a device: a list of components, its digest, and the compressed form that the device sends when asked.

``reported`` carries the digest alone. The server asks one device for the list of a digest that it has not stored
(``cmd/software``), and the answer's ``data`` is ``SoftwareAnswer``. Decides what a list may contain: it comes from a
device, so sizes are bounded before anything is read. ``wire.cyclonedx`` writes it as a document of that standard.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum

from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import OMIT_DEFAULT, Json, parse_json
from wire.errors import MessageError

SOFTWARE_VERB = "software"
MAX_COMPONENTS = 2_000
MAX_COMPONENT_NAME, MAX_VERSION = 200, 100  # characters
MAX_PACKED_BYTES = 96 * 1024  # in base64 it fits into one message
MAX_LIST_BYTES = 1024 * 1024
_FORMAT = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NO_NAME = re.compile(r"[-_.]+")
_FIELDS = 4


class ComponentKind(StrEnum):
    """What a component is. ``runtime``: a package that runs models. ``model``: a release in a slot."""

    AGENT = "agent"
    PYTHON = "python"
    RUNTIME = "runtime"
    PACKAGE = "package"
    OS = "os"
    KERNEL = "kernel"
    ARCHITECTURE = "architecture"
    BOARD = "board"
    MODEL = "model"


@dataclass(frozen=True, slots=True, order=True)
class SoftwareComponent:
    """One component; ``sha256``: of a model's bundle, else ""."""

    kind: ComponentKind
    name: str
    version: str = ""
    _: KW_ONLY
    sha256: str = ""

    @property
    def key(self) -> str:
        """The name by which it is found: two spellings of one package have the same (PEP 503)."""
        return component_key(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareList:
    """The components of one device, sorted, each once; ``left_out``: how many more it has that did not fit."""

    components: tuple[SoftwareComponent, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledSoftware:
    """``software`` in ``reported``: the digest of the list, and since when the device has run it by its own clock."""

    sha256: str = ""
    since_ms: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareAnswer:
    """The data of the response to ``software``; ``packed``: the list, compressed with zlib, in base64."""

    sha256: str = ""
    packed: str = field(default="", metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


def component_key(name: str) -> str:
    """Return ``name`` in lower case, with runs of ``- _ .`` as one ``-``.

    Source: PEP 503, normalized names.
    """
    return _NO_NAME.sub("-", name).lower()


def is_software_digest(text: str) -> bool:
    """Return whether ``text`` is a SHA-256 as this list has it."""
    return _DIGEST.fullmatch(text) is not None


def software_of(components: Collection[SoftwareComponent], left_out: int = 0) -> SoftwareList:
    """Return the list of ``components`` as it may be sent; what may not be in one is counted in ``left_out``.

    Models and what is not a package stay before packages are left out.
    """
    whole = {one for one in components if is_component(one)}
    fit = sorted(whole, key=lambda one: (one.kind is ComponentKind.PACKAGE, one))[:MAX_COMPONENTS]
    invalid = sum(not is_component(one) for one in components)
    return SoftwareList(components=tuple(sorted(fit)), left_out=left_out + invalid + len(whole) - len(fit))


def is_component(one: SoftwareComponent) -> bool:
    """Return whether ``one`` may be in a list: printable, short, and with a digest or without."""
    return (
        0 < len(one.name) <= MAX_COMPONENT_NAME
        and len(one.version) <= MAX_VERSION
        and (one.name + one.version).isprintable()
        and (not one.sha256 or is_software_digest(one.sha256))
    )


def software_bytes(software: SoftwareList) -> bytes:
    """Return the canonical bytes of a list: its digest is that of these."""
    rows = [[one.kind.value, one.name, one.version, one.sha256] for one in software.components]
    return canonical_bytes({"format": _FORMAT, "components": rows, "left_out": software.left_out})


def software_digest(software: SoftwareList) -> str:
    """Return the SHA-256 of a list."""
    return sha256_hex(software_bytes(software))


def pack_software(software: SoftwareList) -> SoftwareAnswer:
    """Return the answer that carries a list.

    Raises:
        MessageError: If it is too long for one message.
    """
    data = software_bytes(software)
    packed = zlib.compress(data, 9)
    if len(packed) > MAX_PACKED_BYTES or len(data) > MAX_LIST_BYTES:
        message = f"Expected a list of software of at most {MAX_PACKED_BYTES} bytes compressed, got {len(packed)}"
        raise MessageError(message)
    return SoftwareAnswer(sha256=sha256_hex(data), packed=base64.b64encode(packed).decode())


def unpack_software(answer: SoftwareAnswer, wanted: str) -> tuple[SoftwareList, bytes]:
    """Return the list in ``answer`` and its compressed bytes, checked against the digest ``wanted``.

    Raises:
        MessageError: If it is too long, damaged, of another digest, or has a component that no list may have.
    """
    if len(answer.packed) > 4 * (MAX_PACKED_BYTES // 3 + 1):
        message = f"Expected a list of software of at most {MAX_PACKED_BYTES} bytes, got {len(answer.packed)} in base64"
        raise MessageError(message)
    try:
        packed = base64.b64decode(answer.packed, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"Expected base64 in a list of software, got: {error}"
        raise MessageError(message) from error
    data = unzip_software(packed)
    if sha256_hex(data) != wanted:
        message = f"Expected the list of software {wanted[:16]}, got one of the digest {sha256_hex(data)[:16]}"
        raise MessageError(message)
    return parse_software(data), packed


def unzip_software(packed: bytes) -> bytes:
    """Return the bytes of a compressed list; never more than ``MAX_LIST_BYTES`` are written.

    Raises:
        MessageError: If it is damaged, cut, followed by something, or longer.
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, MAX_LIST_BYTES)
    except zlib.error as error:
        message = f"Expected a list of software compressed with zlib, got: {error}"
        raise MessageError(message) from error
    if not stream.eof or stream.unused_data:
        message = (
            f"Expected one whole list of software of at most {MAX_LIST_BYTES} bytes, got {len(packed)} other bytes"
        )
        raise MessageError(message)
    return data


def parse_software(data: bytes) -> SoftwareList:
    """Return the list in its canonical bytes; a kind that this program does not know is counted in ``left_out``.

    Raises:
        MessageError: If it is not one, or has too many components or one that no list may have.
    """
    document = parse_json(data, limit_bytes=MAX_LIST_BYTES)
    rows, left_out = document.get("components"), document.get("left_out", 0)
    if document.get("format") != _FORMAT or not isinstance(rows, list) or len(rows) > MAX_COMPONENTS:
        message = (
            f"Expected a list of at most {MAX_COMPONENTS} components of format {_FORMAT}, got {str(document)[:80]}"
        )
        raise MessageError(message)
    if not isinstance(left_out, int) or isinstance(left_out, bool) or not 0 <= left_out < 2**31:
        message = f"Expected how many components are left out, got {str(left_out)[:40]}"
        raise MessageError(message)
    found = [_component(row) for row in rows]
    known = sorted({one for one in found if one is not None})
    return SoftwareList(components=tuple(known), left_out=left_out + sum(one is None for one in found))


def _component(row: Json) -> SoftwareComponent | None:
    fits = isinstance(row, list) and len(row) == _FIELDS
    values = [value for value in row if isinstance(value, str)] if isinstance(row, list) else []
    if not fits or len(values) != _FIELDS:
        message = f"Expected a component as [kind, name, version, sha256], got {str(row)[:80]}"
        raise MessageError(message)
    kind = values[0] if values[0] in set(ComponentKind) else None
    one = SoftwareComponent(ComponentKind(kind or ComponentKind.PACKAGE), values[1], values[2], sha256=values[3])
    if not is_component(one):
        message = (
            f"Expected a component with a name of 1 to {MAX_COMPONENT_NAME} printable characters and a version of at "
            f"most {MAX_VERSION}, got {one.name[:60]!r} {one.version[:60]!r}"
        )
        raise MessageError(message)
    return one if kind is not None else None
