"""Device and server may have different versions, and every message is checked before it is used."""

import json

import pytest

from wire.canonical import canonical_bytes
from wire.codec import MAX_DEPTH, MAX_JSON_BYTES, decode, encode, parse_json
from wire.errors import ManifestError, MessageError
from wire.manifest import Manifest, Preprocessing, read_manifest
from wire.messages import Ack, Batch, Desired, Event, Reported, Sample, State, UpdateStatus


def test_keeps_unknown_fields_and_writes_them_back() -> None:
    """A field of a newer version survives an older program."""
    state = decode(State, b'{"battery_ratio":0.5,"state":"ready"}')
    assert state.extra == {"battery_ratio": 0.5}
    assert json.loads(encode(state))["battery_ratio"] == 0.5


def test_keeps_unknown_fields_of_nested_documents_at_their_level() -> None:
    """Unknown keys don't move between levels."""
    reported = decode(Reported, b'{"update":{"phase":"idle","colour":"green"}}')
    assert reported.extra == {}
    assert json.loads(encode(reported))["update"]["colour"] == "green"


def test_a_field_that_came_later_is_not_written_while_it_has_its_default() -> None:
    """Documents keep the bytes from before the field; with a value it is at its fixed position."""
    assert b"attempt" not in encode(Desired(gen=3))
    assert b'"attempt":3' in encode(Desired(gen=3, attempt=3))
    assert decode(Desired, b'{"attempt":3,"gen":3}') == Desired(gen=3, attempt=3)
    assert b"front_end" not in encode(Preprocessing())
    assert b'"front_end_options":{"side":24.0}' in encode(Preprocessing(front_end_options={"side": 24.0}))


def test_a_key_named_extra_is_an_unknown_field_like_any_other() -> None:
    """A message can't set ``extra`` from outside."""
    assert decode(State, b'{"extra":{"state":"ready"}}').extra == {"extra": {"state": "ready"}}


def test_an_unknown_enum_member_becomes_none() -> None:
    """A state of a newer version is unknown, not an error."""
    assert decode(State, b'{"state":"hibernating"}').state is None
    assert decode(UpdateStatus, b'{"phase":"teleporting"}').phase is None


def test_missing_fields_take_their_defaults() -> None:
    """An empty object is the default message."""
    assert decode(Desired, b"{}") == Desired()


def test_takes_an_integer_for_a_float() -> None:
    """JSON has one kind of number; a whole one is still a float here."""
    value = decode(Desired, b'{"probation_s":60}').probation_s
    assert isinstance(value, float)
    assert value == 60.0


@pytest.mark.parametrize(
    ("cls", "data"),
    [
        (State, b'{"at_ms":"now"}'),
        (State, b'{"at_ms":1.5}'),
        (State, b'{"at_ms":true}'),
        (State, b'{"at_ms":null}'),
        (State, b'{"state":3}'),
        (Desired, b'{"probation_s":"60"}'),
        (Desired, b'{"config":[]}'),
        (Batch, b'{"late":1}'),
        (Batch, b'{"rows":{"0":{}}}'),
        (Batch, b'{"rows":[3]}'),
        (Ack, b'{"watermarks":[[]]}'),
        (Reported, b'{"update":"idle"}'),
        (Reported, b'{"attributes":{"camera":3}}'),
        (Sample, b'{"confidence":false}'),
        (Event, b'{"text":null}'),
    ],
)
def test_refuses_a_value_of_the_wrong_type(cls: type, data: bytes) -> None:
    """Guessing would hide a fault."""
    with pytest.raises(MessageError, match="Expected"):
        decode(cls, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b"{",
        b"\xff\xfe",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":9223372036854775808}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
        b'{"a":"' + b"x" * MAX_JSON_BYTES + b'"}',
    ],
    ids=lambda data: repr(data[:20]),
)
def test_refuses_json_that_the_next_reader_could_not_take(data: bytes) -> None:
    """Not JSON, not an object, too long, too deep, not finite, over 64 bits, half a character."""
    with pytest.raises(MessageError) as caught:
        parse_json(data)
    assert caught.value.code == "message_invalid"


def test_takes_json_at_the_limits() -> None:
    """The limits themselves are allowed."""
    parse_json(b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}")
    parse_json(b'{"a":-9223372036854775808,"b":9223372036854775807}')
    assert parse_json('{"a":"Zähler \U0001f4a7"}'.encode()) == {"a": "Zähler \U0001f4a7"}


def test_canonical_bytes_don_t_depend_on_the_order_of_keys() -> None:
    """One value, one byte string."""
    assert canonical_bytes({"b": 1, "a": [1.5, None]}) == b'{"a":[1.5,null],"b":1}'
    assert canonical_bytes({"a": [1.5, None], "b": 1}) == canonical_bytes({"b": 1, "a": [1.5, None]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "\ud800", {1, 2}, b"bytes"])
def test_refuses_to_write_what_json_can_t_carry(value: object) -> None:
    """The writer finds its own fault, not the reader."""
    with pytest.raises(MessageError):
        canonical_bytes({"a": value})


def test_refuses_a_message_with_a_foreign_object_inside() -> None:
    """A value that is not JSON is found while encoding."""
    with pytest.raises(MessageError):
        encode(Event(data={"when": object()}))  # type: ignore[dict-item]


def test_a_manifest_keeps_what_it_does_not_know() -> None:
    """The manifest follows the same rules as messages."""
    assert decode(Manifest, b'{"model":"m","colour":"red"}').extra == {"colour": "red"}


def test_names_the_message_and_field_in_the_error() -> None:
    """The reader of a log line sees which field was wrong."""
    with pytest.raises(MessageError, match=r"Expected State\.at_ms as int, got str"):
        decode(State, b'{"at_ms":"now"}')


def test_reading_a_manifest_wraps_the_json_error() -> None:
    """A manifest that is not JSON raises a manifest error."""
    with pytest.raises(ManifestError):
        read_manifest(b"no")
