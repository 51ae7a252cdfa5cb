"""The strict reader of settings: every mistake names its key, the expectation and the value."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from wire.errors import SettingsError
from wire.settings import (
    MAX_TOML_BYTES,
    Bound,
    OneOf,
    check,
    fields_from,
    numbers_from,
    parse_toml,
    read_toml,
    rules,
    type_name,
)


@dataclass(frozen=True, slots=True)
class Inner:
    """A table in a table."""

    port: Annotated[int, Bound(0, 65_535)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """One field of each kind."""

    name: str
    ratio: Annotated[float, Bound(0, 1, above=True)] = 0.5
    colour: Annotated[str, OneOf(("rgb", "grey"))] = "rgb"
    limit: Annotated[float, Bound(0, 9)] | None = None
    free: float = 0.0
    sizes: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    on: bool = True
    inner: Inner = field(default_factory=Inner)


def _read(**table: object) -> Outer:
    return fields_from(Outer, {"name": "x", **table}, "a.toml [outer]")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"nam": 1}, "Expected in a.toml [outer] one of name, ratio, .*, got 'nam': did you mean 'name'?"),
        ({"name": 3}, "Expected a.toml [outer] name to be text, got int 3"),
        ({"on": 1}, "on to be true or false, got int 1"),
        ({"ratio": True}, "ratio to be a number, got bool True"),
        ({"ratio": 0}, "Expected a.toml [outer] ratio above 0 and at most 1, got 0"),
        ({"ratio": 1.1}, "ratio above 0 and at most 1, got 1.1"),
        ({"ratio": float("nan")}, "ratio above 0 and at most 1, got nan"),
        ({"limit": float("inf")}, "limit between 0 and 9, got inf"),
        ({"free": float("nan")}, "free to be a finite number, got nan"),
        ({"limit": 10}, "limit between 0 and 9, got 10"),
        ({"colour": "gray"}, "colour to be rgb or grey, got 'gray': did you mean 'grey'?"),
        ({"sizes": [1, "2"]}, "sizes to be a list of a whole number, got list [1, '2']"),
        ({"sizes": 1}, "sizes to be a list of a whole number, got int 1"),
        ({"labels": {"lens": 5}}, "labels lens to be text, got int 5"),
        ({"labels": 5}, "labels to be a table of text, got int 5"),
        ({"path": "\0"}, "path: Expected a path without a NUL character"),
        ({"path": 5}, "path to be a path as text, got int 5"),
        ({"inner": 5}, "[inner] to be a table, got int 5"),
        ({"inner": {"prot": 5}}, "Expected in a.toml [outer] [inner] one of port, got 'prot': did you mean 'port'?"),
        ({"inner": {"port": 65_536}}, "[outer] [inner] port between 0 and 65535, got 65536"),
        ({"inner": {"port": 5.0}}, "port to be a whole number, got float 5.0"),
    ],
)
def test_refuses_with_key_expectation_and_value(table: dict[str, object], words: str) -> None:
    """Each mistake has its own message; both sides of the bounds are below."""
    pattern = ".*".join(map(re.escape, words.split(".*")))
    with pytest.raises(SettingsError, match=pattern):
        _read(**table)


def test_takes_what_is_meant_at_both_ends_of_every_bound() -> None:
    """Whole numbers for numbers, lists as tuples, tables in tables."""
    read = _read(ratio=1, limit=9, sizes=[1, 2], labels={"lens": "a"}, colour="grey", inner={"port": 65_535})
    assert (read.ratio, read.limit, read.sizes, read.labels) == (1.0, 9.0, (1, 2), {"lens": "a"})
    assert (read.inner.port, _read(inner={"port": 0}).inner.port, _read(limit=0).limit) == (65_535, 0, 0.0)
    assert isinstance(read.ratio, float)


def test_a_key_without_a_default_must_be_there() -> None:
    """The message lists the keys that were present."""
    with pytest.raises(SettingsError, match=r"Expected in \[x\] the key 'name', got ratio"):
        fields_from(Outer, {"ratio": 1}, "[x]")
    assert fields_from(Outer, {}, "[x]", given={"name": "y"}).name == "y"
    with pytest.raises(SettingsError, match="one of ratio"):
        fields_from(Outer, {"name": "z"}, "[x]", given={"name": "y"})


def test_whole_numbers_of_a_manifest_are_floats() -> None:
    """80.0 is 80 where a whole number is wanted, and stays a float where any is; 80.5 is none."""
    port, ratio = (
        numbers_from(Inner, {"port": 80.0}, "[x]").port,
        numbers_from(Outer, {"ratio": 1.0}, "[x]", given={"name": "y"}).ratio,
    )
    assert [(type(value), value) for value in (port, ratio)] == [(int, 80), (float, 1.0)]
    for options, words in (({"port": 80.5}, "Expected .x. port .* a whole number"), ({"prt": 80.0}, "mean 'port'")):
        with pytest.raises(SettingsError, match=words):
            numbers_from(Inner, options, "[x]")


def test_a_path_starts_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path starts at the file's folder, ``~`` at the home directory; an absolute one stays."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, wanted in (("in", tmp_path / "in"), ("~/in", tmp_path / "home" / "in"), ("/in", Path("/in"))):
        assert fields_from(Outer, {"name": "x", "path": given}, "[x]", folder=tmp_path).path == wanted
    assert _read(path="in").path == Path("in")


def test_values_that_no_table_gave_are_checked_too() -> None:
    """A command line's override is held to the same ranges."""
    check(Outer(name="x"), "a.toml")
    with pytest.raises(SettingsError, match=r"Expected a.toml \[inner\] port between 0 and 65535, got -1"):
        check(Outer(name="x", inner=Inner(-1)), "a.toml")
    assert set(rules(Outer)) == {"ratio", "colour", "limit"}
    assert type_name(Annotated[int, Bound(0, 1)] | None) == "a whole number"


def test_a_file_is_not_read_beyond_its_limit(tmp_path: Path) -> None:
    """A file at the limit is read completely; one byte more, a folder and no file are errors that name the path."""
    path = tmp_path / "a.toml"
    path.write_bytes(b"#" * (MAX_TOML_BYTES - 6) + b"\na = 1")
    assert read_toml(path) == {"a": 1}
    path.write_bytes(b"#" * (MAX_TOML_BYTES + 1))
    for wrong, words in (
        (path, f"at most {MAX_TOML_BYTES} bytes in"),
        (tmp_path, "got: Is a"),
        (tmp_path / "b", "No such"),
    ):
        with pytest.raises(SettingsError, match=words) as raised:
            read_toml(wrong)
        assert str(wrong) in str(raised.value)


@pytest.mark.parametrize("data", [b"[a", b"\xff", b"a = " + b"[" * 20_000 + b"]" * 20_000])
def test_what_is_not_toml_is_an_error_not_a_traceback(data: bytes) -> None:
    """Half a table, another encoding, and nesting beyond the parser's stack."""
    with pytest.raises(SettingsError, match=r"Expected TOML in a\.toml, got"):
        parse_toml(data, "a.toml")


def test_the_reader_loads_neither_toml_nor_difflib_before_it_needs_them() -> None:
    """A process that is given its settings stays small."""
    code = "import sys, wire.settings; sys.exit(bool({'tomllib', 'difflib', 'json'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_byte_order_mark_of_an_editor_is_no_part_of_the_file() -> None:
    """Editors of Windows write one; in any other place it is an error."""
    assert parse_toml(b"\xef\xbb\xbfa = 1\n", "a.toml") == {"a": 1}
    with pytest.raises(SettingsError, match="line 2"):
        parse_toml(b"a = 1\n\xef\xbb\xbfb = 2\n", "a.toml")
