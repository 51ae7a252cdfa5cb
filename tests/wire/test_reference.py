"""The reference is read byte for byte, and only with the artifact that made it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import leb128
from wire.errors import ReferenceProfileError, WireError
from wire.reference import MAX_REFERENCE_BYTES, Context, Reference, StreamSpec, read_reference, write_reference

INT8, FLOAT = "11" * 32, "22" * 32
EDGES = tuple(float(i) for i in range(15))
PLAIN = Reference(
    artifact_sha256=INT8,
    streams=(StreamSpec(name="luma", kind="input"),),
    contexts=(Context(name="default", n=160, n_effective=160, counts=(10,) * 16),),
    classes=2,
    confidence_bins=2,
    table_right=(1, 2, 3, 4),
    table_seen=(4, 4, 4, 4),
    edges=(EDGES,),
)
EMBEDDED = replace(
    PLAIN, projection_mean=(0.5, 1.5, 2.5), projection=((1.0, 0.0, -1.0),) * 8, projection_scale=(2.0,) * 8
)


@pytest.mark.parametrize("reference", [PLAIN, EMBEDDED], ids=["without embedding", "with embedding"])
def test_reads_back_what_was_written(reference: Reference) -> None:
    """Writing and reading are inverse, and the identity stays."""
    data = write_reference(reference)
    assert read_reference(data) == reference
    assert read_reference(data).ref_id == reference.ref_id


def test_identity_survives_the_rounding_to_float32() -> None:
    """Values that are float64 in Python before writing have the same identity after reading."""
    reference = replace(PLAIN, edges=(tuple(i / 7 for i in range(15)),))
    assert read_reference(write_reference(reference)).ref_id == reference.ref_id


def test_identity_survives_fields_of_a_newer_version() -> None:
    """An older program computes the same identity, because it keeps unknown fields."""
    newer = replace(PLAIN, extra={"season": "winter"})
    older = read_reference(write_reference(newer))
    assert older.extra == {"season": "winter"}
    assert older.ref_id == newer.ref_id


@pytest.mark.parametrize(
    "change", [{"edges": ((*EDGES[:-1], 99.0),)}, {"risk": 0.5}, {"artifact_sha256": FLOAT}, {"temperature": 2.0}]
)
def test_any_change_gives_another_identity(change: dict[str, object]) -> None:
    """Counters made with different references never merge, because the identities differ."""
    assert replace(PLAIN, **change).ref_id != PLAIN.ref_id


def test_refuses_a_reference_made_by_the_float_model() -> None:
    """The reference belongs to one artifact, identified by its digest."""
    with pytest.raises(ReferenceProfileError, match="running the exported artifact") as caught:
        PLAIN.check_artifact(FLOAT)
    assert caught.value.code == "reference_invalid"
    PLAIN.check_artifact(INT8)


@pytest.mark.parametrize(
    "change",
    [
        {"streams": (), "edges": ()},
        {"contexts": ()},
        {"contexts": (Context(counts=(1,) * 15),)},
        {"contexts": (Context(counts=(-1,) * 16),)},
        {"table_seen": (1,)},
        {"classes": -2, "confidence_bins": -2},
        {"edges": (EDGES[:-1],)},
        {"edges": (EDGES[::-1],)},
        {"edges": ((float("nan"),) * 15,)},
        {"projection_mean": (1.0,)},
        {"projection_mean": (float("nan"),), "projection": ((1.0,),) * 8, "projection_scale": (1.0,) * 8},
    ],
)
def test_refuses_parts_that_don_t_fit_each_other(change: dict[str, object]) -> None:
    """Every count is checked before it is used."""
    with pytest.raises(ReferenceProfileError):
        read_reference(write_reference(replace(PLAIN, **change)))


def test_refuses_to_write_what_float32_can_t_hold() -> None:
    """The error is raised when writing, not on the device."""
    with pytest.raises(ReferenceProfileError, match="float32"):
        write_reference(replace(PLAIN, edges=((*EDGES[:-1], 1e300),)))


@pytest.mark.parametrize("embedding", ["-1", "5000", "true", '"8"', "null"])
def test_refuses_an_impossible_embedding(embedding: str) -> None:
    """The size of the matrix is checked before memory is spent on it."""
    header = b'{"embedding":' + embedding.encode() + b"}"
    with pytest.raises(ReferenceProfileError, match="embedding"):
        read_reference(b"TFR1" + leb128.encode([len(header)]) + header)


def test_every_truncation_is_refused() -> None:
    """No prefix of a reference is a reference."""
    data = write_reference(EMBEDDED)
    for length in range(len(data)):
        with pytest.raises(ReferenceProfileError):
            read_reference(data[:length])


def test_refuses_an_oversize_reference() -> None:
    """The limit is checked before anything is parsed."""
    with pytest.raises(ReferenceProfileError, match="at most"):
        read_reference(b"TFR1" + bytes(MAX_REFERENCE_BYTES))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_reference_or_a_coded_error(data: bytes) -> None:
    """Garbage behind the magic never raises anything else."""
    try:
        read_reference(b"TFR1" + data)
    except WireError as error:
        assert error.code == "reference_invalid"  # noqa: PT017 - either outcome is right
