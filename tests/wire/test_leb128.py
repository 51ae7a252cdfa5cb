"""LEB128 and the packed counts are exact inverses and refuse truncated input."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import leb128
from wire.bitpack import inflate, pack, unpack
from wire.errors import MessageError, WireError

NUMBERS = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1)), max_size=60)


@given(NUMBERS)
def test_leb128_decodes_what_it_encoded(numbers: list[int]) -> None:
    """Encoding and decoding are inverse, and the length is returned."""
    data = leb128.encode(numbers)
    assert leb128.decode(data + b"rest", len(numbers)) == (numbers, len(data))


@given(NUMBERS)
def test_packing_is_exact(numbers: list[int]) -> None:
    """Unpacking returns the same counts."""
    assert unpack(pack(numbers), len(numbers)) == tuple(numbers)


def test_leb128_gives_the_bytes_of_the_standard() -> None:
    """624485 is the example of DWARF 5, figure 22 (2, 127, 128, 129, 12857 beside it)."""
    assert leb128.encode([624_485]).hex() == "e58e26"
    assert leb128.encode([2, 127, 128, 129, 12857]).hex() == "027f80018101b964"


@pytest.mark.parametrize("numbers", [[-1], [2**63], [0, 5, -7]])
def test_refuses_numbers_out_of_range(numbers: list[int]) -> None:
    """Counts are 0 to 2^63 - 1."""
    with pytest.raises(MessageError):
        leb128.encode(numbers)
    with pytest.raises(MessageError):
        pack(numbers)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 40])
def test_refuses_leb128_that_ends_early_or_never(data: bytes) -> None:
    """A number takes at most nine bytes."""
    with pytest.raises(MessageError):
        leb128.decode(data, 1)


@given(st.binary(max_size=60), st.integers(0, 40))
def test_any_bytes_unpack_or_give_a_coded_error(data: bytes, count: int) -> None:
    """Garbage never raises anything else."""
    try:
        assert len(unpack(data, count)) == count
    except WireError as error:
        assert error.code == "message_invalid"  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("cut", range(1, 12))
def test_refuses_packed_counts_cut_short(cut: int) -> None:
    """Every byte is needed."""
    with pytest.raises(MessageError):
        unpack(pack(list(range(40)))[:-cut], 40)


def test_inflate_stops_at_its_limit() -> None:
    """A decompression bomb uses no more memory than the limit."""
    with pytest.raises(MessageError):
        inflate(zlib.compress(bytes(10_000_000)), 1000)
