"""Lists of software: digest, compressed form, faults, and the CycloneDX document."""

import base64
import json
import zlib

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st

from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import decode, encode
from wire.cyclonedx import cyclonedx_document
from wire.errors import MessageError
from wire.messages import Reported
from wire.software import (
    MAX_COMPONENT_NAME,
    MAX_COMPONENTS,
    MAX_LIST_BYTES,
    MAX_PACKED_BYTES,
    ComponentKind,
    InstalledSoftware,
    SoftwareAnswer,
    SoftwareComponent,
    SoftwareList,
    pack_software,
    parse_software,
    software_bytes,
    software_digest,
    software_of,
    unpack_software,
)

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
NUMPY = SoftwareComponent(ComponentKind.PACKAGE, "numpy", "2.1.0")
EVERY = software_of(
    [
        NUMPY,
        SoftwareComponent(ComponentKind.AGENT, "tinyfleet", "0.2.0"),
        SoftwareComponent(ComponentKind.PYTHON, "CPython", "3.11.2"),
        SoftwareComponent(ComponentKind.RUNTIME, "onnxruntime", "1.22.0"),
        SoftwareComponent(ComponentKind.OS, "debian", "12"),
        SoftwareComponent(ComponentKind.KERNEL, "Linux", "6.1.0"),
        SoftwareComponent(ComponentKind.ARCHITECTURE, "aarch64"),
        SoftwareComponent(ComponentKind.BOARD, "Raspberry Pi 5 <script>alert('ä')</script>"),
        SoftwareComponent(ComponentKind.MODEL, "meter-digits", "3", sha256=SHA),
    ]
)


def answer_of(data: bytes) -> tuple[SoftwareAnswer, str]:
    """Return an answer with ``data`` as its list, and its true digest."""
    packed = base64.b64encode(zlib.compress(data)).decode()
    return SoftwareAnswer(sha256=sha256_hex(data), packed=packed), sha256_hex(data)


def rows_of(*rows: object, left_out: object = 0) -> bytes:
    """Return a list with made-up rows."""
    return canonical_bytes({"format": 1, "components": list(rows), "left_out": left_out})


def test_a_list_comes_back_from_its_answer() -> None:
    """What is packed is unpacked, whatever order it was collected in."""
    answer = pack_software(EVERY)
    found, packed = unpack_software(answer, software_digest(EVERY))
    assert found == EVERY == software_of(tuple(reversed(EVERY.components)))
    assert base64.b64decode(answer.packed) == packed


def test_the_digest_follows_the_content() -> None:
    """One version, or one component more that is left out, is another digest."""
    others = [
        software_of([*EVERY.components[1:]]),
        software_of([*EVERY.components, SoftwareComponent(ComponentKind.PACKAGE, "numpy", "2.1.1")]),
        SoftwareList(components=EVERY.components, left_out=1),
    ]
    assert len({software_digest(one) for one in [EVERY, *others]}) == 4


def test_names_that_no_list_may_have_are_counted_as_left_out() -> None:
    """An empty, long or unprintable name, and packages beyond the limit; what is no package stays."""
    bad = [SoftwareComponent(ComponentKind.PACKAGE, name) for name in ("", "a\tb", "x" * (MAX_COMPONENT_NAME + 1))]
    many = [SoftwareComponent(ComponentKind.PACKAGE, f"a{number}") for number in range(MAX_COMPONENTS)]
    found = software_of([*EVERY.components, *bad, *many])
    assert len(found.components) == MAX_COMPONENTS
    assert found.left_out == len(bad) + len(EVERY.components)
    assert {one.kind for one in found.components} == set(ComponentKind)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", rows_of(["package", "numpy", "2.1.0"]), rows_of(["package", "numpy", 2, ""]),
        rows_of("numpy"),
        rows_of(["package", "", "", ""]), rows_of(["package", "a\nb", "", ""]), rows_of(["package", "a", "1\t2", ""]),
        rows_of(["package", "x" * (MAX_COMPONENT_NAME + 1), "", ""]), rows_of(["model", "m", "1", "not a digest"]),
        rows_of(left_out=-1), rows_of(left_out=True), rows_of(*[["package", "a", "", ""]] * (MAX_COMPONENTS + 1)),
        canonical_bytes({"format": 2, "components": []}), b'{"format":1,"components":[[["package"]]]}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_refuses_a_malformed_list_with_a_true_digest(data: bytes) -> None:
    """Each is one fault of a list whose digest is right."""
    answer, digest = answer_of(data)
    with pytest.raises(MessageError):
        unpack_software(answer, digest)


def test_refuses_a_list_that_lies_about_its_digest() -> None:
    """Neither the wanted digest nor the claimed one makes another content right."""
    other, _ = answer_of(software_bytes(SoftwareList(components=(NUMPY,))))
    wanted = software_digest(EVERY)
    with pytest.raises(MessageError, match="digest"):
        unpack_software(SoftwareAnswer(sha256=wanted, packed=other.packed), wanted)


def test_refuses_a_list_too_large_before_it_is_read() -> None:
    """A bomb of zeros is cut at the limit; a long base64 is not decoded; cut or followed streams are refused."""
    bomb, digest = answer_of(b" " * (MAX_LIST_BYTES + 1))
    whole = base64.b64decode(pack_software(EVERY).packed)
    for packed in (
        bomb.packed, "A" * (MAX_PACKED_BYTES * 2), "no base64!", "ä", base64.b64encode(whole[:-4]).decode(),
        base64.b64encode(whole + b"x").decode(), base64.b64encode(b"no zlib").decode(), "",
    ):  # fmt: skip
        with pytest.raises(MessageError):
            unpack_software(SoftwareAnswer(packed=packed), digest)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_refused(data: bytes) -> None:
    """Nothing else is raised than the error of messages."""
    try:
        parse_software(data)
    except MessageError:
        return


def test_a_kind_of_a_newer_agent_is_counted_and_not_shown() -> None:
    """The digest covers it, and the rest of the list is read."""
    answer, digest = answer_of(rows_of(["package", "numpy", "2.1.0", ""], ["container", "web", "1", ""], left_out=2))
    assert unpack_software(answer, digest)[0] == SoftwareList(components=(NUMPY,), left_out=3)


def test_two_spellings_of_a_package_have_one_key() -> None:
    """As the index of packages has it."""
    assert {SoftwareComponent(ComponentKind.PACKAGE, name).key for name in ("Ai_Edge.LiteRT", "ai--edge-litert")} == {
        "ai-edge-litert"
    }


def test_an_older_report_has_no_software_and_an_older_program_keeps_it_apart() -> None:
    """A report without it decodes, and is written without it; one with it survives."""
    old = Reported(gen=1)
    assert b"software" not in encode(old)
    new = Reported(software=InstalledSoftware(sha256=SHA, since_ms=5))
    assert decode(Reported, encode(new)) == new
    assert len(encode(new)) - len(encode(Reported())) < 120


@pytest.mark.parametrize("software", [EVERY, SoftwareList(), SoftwareList(components=EVERY.components, left_out=2)])
def test_the_document_is_valid_by_the_schema_of_cyclonedx(software: SoftwareList) -> None:
    """The published JSON schema of CycloneDX 1.6, strictly."""
    document = cyclonedx_document(software, device="cam-1", since_ms=1_795_000_000_000)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    assert document == cyclonedx_document(software, device="cam-1", since_ms=1_795_000_000_000)


def test_the_document_names_packages_by_url_and_models_by_digest() -> None:
    """What other programs look for."""
    components = {one["name"]: one for one in cyclonedx_document(EVERY)["components"]}  # type: ignore[union-attr]
    assert components["onnxruntime"]["purl"] == "pkg:pypi/onnxruntime@1.22.0"
    model = components["meter-digits"]
    assert (model["type"], model["version"]) == ("machine-learning-model", "3")
    assert model["hashes"] == [{"alg": "SHA-256", "content": SHA}]
