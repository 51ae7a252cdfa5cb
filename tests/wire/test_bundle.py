"""A bundle is deterministic, and every changed byte is refused with a code."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wire.bundle import MANIFEST, Bundle, build_bundle, parse_bundle, read_bundle
from wire.canonical import sha256_hex
from wire.errors import (
    BundleDigestError,
    BundleEntryError,
    BundleError,
    BundleOversizeError,
    ReferenceProfileError,
    WireError,
)
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.reference import Context, Reference, StreamSpec, write_reference

FILES = {"model.onnx": bytes(range(256)) * 4, "card.md": b"# card\n", "gate.json": b'{"verdict":"pass"}'}
DRAFT = Manifest(
    model="digits",
    version=3,
    inputs=(TensorSpec(name="image"),),
    outputs=(TensorSpec(name="logits"),),
    preprocessing=Preprocessing(width=8, height=8),
)
GOOD = build_bundle(DRAFT, FILES)


def reference_of(artifact: bytes) -> bytes:
    """Return a small reference made by ``artifact``."""
    return write_reference(
        Reference(
            artifact_sha256=sha256_hex(artifact),
            streams=(StreamSpec(name="luma"),),
            contexts=(Context(counts=(1,) * 16),),
            edges=(tuple(float(i) for i in range(15)),),
        )
    )


def repacked(change: Callable[[zipfile.ZipFile, zipfile.ZipFile], None]) -> bytes:
    """Return a zip that ``change`` wrote, given the good bundle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(GOOD)) as source, zipfile.ZipFile(buffer, "w") as target:
        change(source, target)
    return buffer.getvalue()


def copy(source: zipfile.ZipFile, target: zipfile.ZipFile, *, without: str = "") -> None:
    """Copy all entries but one."""
    for info in source.infolist():
        if info.filename != without:
            target.writestr(info, source.read(info))


def test_the_same_inputs_give_the_same_bytes() -> None:
    """Neither the clock nor the order of the files is in a bundle."""
    assert build_bundle(DRAFT, dict(reversed(FILES.items()))) == GOOD


def test_opens_what_was_built(tmp_path: Path) -> None:
    """Manifest and files come back, digests filled in."""
    path = tmp_path / "digits.tfb"
    path.write_bytes(GOOD)
    bundle = read_bundle(path)
    assert isinstance(bundle, Bundle)
    assert bundle.files == FILES
    assert bundle.artifact == FILES["model.onnx"]
    assert bundle.manifest.artifact_sha256 == sha256_hex(FILES["model.onnx"])


@pytest.mark.parametrize("name", sorted(FILES))
def test_one_byte_changed_in_an_entry_is_refused_by_digest(name: str) -> None:
    """The error has the code of a digest that differs."""
    position = GOOD.index(FILES[name])
    changed = GOOD[:position] + bytes([GOOD[position] ^ 1]) + GOOD[position + 1 :]
    with pytest.raises(BundleDigestError, match=name) as caught:
        parse_bundle(changed)
    assert caught.value.code == "digest_mismatch"


def test_one_changed_entry_with_a_right_checksum_is_refused_by_digest() -> None:
    """The zip's own checksum proves nothing."""

    def change(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
        copy(source, target, without="card.md")
        target.writestr("card.md", b"# evil\n")

    with pytest.raises(BundleDigestError, match=r"card\.md"):
        parse_bundle(repacked(change))


def test_every_changed_byte_is_refused() -> None:
    """Wherever the byte is: content, header, directory, even a date."""
    for position in range(len(GOOD)):
        changed = GOOD[:position] + bytes([GOOD[position] ^ 0x10]) + GOOD[position + 1 :]
        with pytest.raises(WireError):
            parse_bundle(changed)


def test_every_truncation_is_refused() -> None:
    """Half a download is not a bundle."""
    for length in range(0, len(GOOD), 7):
        with pytest.raises(BundleError):
            parse_bundle(GOOD[:length])


@pytest.mark.parametrize("data", [GOOD + b"x", b"x" + GOOD, b"", b"PK", b"not a zip"], ids=lambda data: repr(data[:9]))
def test_bytes_around_or_instead_of_the_zip_are_refused(data: bytes) -> None:
    """Nothing hides before or behind the entries."""
    with pytest.raises(BundleError):
        parse_bundle(data)


@pytest.mark.parametrize(
    "name", ["run.sh", "../card.md", "/etc/passwd", "model.onnx/", "sub/card.md", "MODEL.ONNX", ""]
)
def test_an_unknown_or_path_like_entry_is_refused(name: str) -> None:
    """Only the names of the contract, and no paths."""

    def change(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
        copy(source, target)
        target.writestr(zipfile.ZipInfo(name), b"x")

    with pytest.raises(BundleEntryError) as caught:
        parse_bundle(repacked(change))
    assert caught.value.code == "bundle_entry"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [MANIFEST, "card.md"])
def test_a_repeated_entry_is_refused(name: str) -> None:
    """Two readers must not see two models."""

    def change(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
        copy(source, target)
        target.writestr(name, source.read(name))

    with pytest.raises(BundleEntryError, match="each once"):
        parse_bundle(repacked(change))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_entry_is_refused(method: int) -> None:
    """Uncompressed entries can't be a decompression bomb."""

    def change(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
        copy(source, target, without="card.md")
        target.writestr("card.md", bytes(10_000_000), compress_type=method)

    with pytest.raises(BundleEntryError, match="stored"):
        parse_bundle(repacked(change))


@pytest.mark.parametrize("name", [MANIFEST, "card.md", "model.onnx"])
def test_a_missing_entry_is_refused(name: str) -> None:
    """The manifest names every file, and none may lack."""
    with pytest.raises(BundleEntryError):
        parse_bundle(repacked(lambda source, target: copy(source, target, without=name)))


def test_a_model_of_any_format_is_opened_and_a_second_one_refused() -> None:
    """A runtime's own ending, 1 to 16 of a to z and 0 to 9."""
    for name in ("model.x", "model.abcdefgh12345678"):
        assert parse_bundle(build_bundle(replace(DRAFT, artifact=name), {name: b"m"})).artifact == b"m"
    for name in ("model.", "model.abcdefgh123456789", "model.X", "model.a/b", "model", "other.onnx"):
        with pytest.raises(BundleEntryError):
            build_bundle(replace(DRAFT, artifact=name), {name: b"m"})
    with pytest.raises(BundleEntryError, match=r"one model\.FORMAT"):
        build_bundle(DRAFT, {**FILES, "model.ort": b"m"})


def test_a_file_the_manifest_does_not_name_is_refused() -> None:
    """Known names alone are not enough."""

    def change(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
        copy(source, target)
        target.writestr("mlbom.cdx.json", b"{}")

    with pytest.raises(BundleEntryError, match="Expected the entries"):
        parse_bundle(repacked(change))


def test_an_oversize_bundle_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """The limit applies to the file and to bytes."""
    path = tmp_path / "digits.tfb"
    path.write_bytes(GOOD)
    with pytest.raises(BundleOversizeError) as caught:
        read_bundle(path, limit_bytes=len(GOOD) - 1)
    assert caught.value.code == "too_large"
    with pytest.raises(BundleOversizeError):
        parse_bundle(GOOD, limit_bytes=100)


def test_an_entry_that_claims_to_be_huge_is_refused() -> None:
    """A directory entry can't promise more bytes than the file has."""
    directory = GOOD.rindex(b"PK\x01\x02")
    changed = bytearray(GOOD)
    changed[directory + 20 : directory + 28] = b"\xff\xff\xff\x7f" * 2
    with pytest.raises(BundleOversizeError):
        parse_bundle(bytes(changed))


def test_a_bundle_that_is_not_there_is_a_coded_error(tmp_path: Path) -> None:
    """A wrong path is an error with a code, like every other refusal."""
    with pytest.raises(BundleError, match="Expected a bundle at"):
        read_bundle(tmp_path / "missing.tfb")


def test_a_reference_of_the_float_model_is_refused_by_digest() -> None:
    """The drift reference must come from the very artifact beside it."""
    build_bundle(DRAFT, {**FILES, "reference.bin": reference_of(FILES["model.onnx"])})
    with pytest.raises(ReferenceProfileError, match="running the exported artifact"):
        build_bundle(DRAFT, {**FILES, "reference.bin": reference_of(b"the float model")})


def test_build_refuses_what_would_not_be_read_back() -> None:
    """Unknown names and a missing artifact are found while building."""
    with pytest.raises(BundleEntryError):
        build_bundle(DRAFT, {**FILES, "secrets.txt": b""})
    with pytest.raises(WireError):
        build_bundle(replace(DRAFT, artifact="model.tflite"), FILES)
