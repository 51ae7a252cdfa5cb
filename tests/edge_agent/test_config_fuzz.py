"""Every field of `agent.toml`, derived from what the code declares, with values of every type and size.

The answer to a value that is not accepted is one sentence with the key, the expectation and the value.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent import sinks, sources
from edge_agent.config import AgentConfig, read_config
from edge_agent.errors import AgentConfigError
from edge_agent.sinks._filters import SinkSettings
from wire.settings import names_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.integers(-(2**80), 2**80) | st.floats() | st.sampled_from([0, -1, 2**53 + 1, 10**400, math.nan, math.inf])
PLAIN = TEXTS | NUMBERS | st.booleans() | st.sampled_from(["", "\x00", "\x1b[31m\n", "~", "x" * 5000, "../..", "://"])
DATES = st.just(dt.datetime(1979, 5, 27, 7, 32, tzinfo=dt.UTC)) | st.just(dt.time(7, 32))
VALUES = st.recursive(
    PLAIN | DATES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)


def fields() -> Iterator[tuple[str, str, str]]:
    """Yield each field: its table, a line that the table needs beside it, and its key."""
    hints = get_type_hints(AgentConfig)
    for field in dataclasses.fields(AgentConfig):
        if hints[field.name] is sources.SourceConfig:
            for kind in sources.names():
                yield from (("source", f'kind = "{kind}"', key) for key in sorted(names_of(sources.settings_of(kind))))
            yield "source", "", "kind"
        elif field.name == "sinks":
            for kind in sinks.names():
                for key in sorted(names_of(sinks.settings_of(kind)) | names_of(SinkSettings)):
                    needed = '\ncommand = ["/bin/true"]' if kind == "exec" and key != "command" else ""
                    yield "sinks.a", f'kind = "{kind}"{needed}', key
            yield "sinks.a", "", "kind"
        else:
            yield from ((field.name, "", key) for key in sorted(names_of(hints[field.name])))


FIELDS = tuple(fields())


def toml(value: object) -> str:
    """Return ``value`` as TOML 1.0."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else str(value)
    if isinstance(value, str):  # a JSON string of ASCII is a TOML string, but for pairs of surrogates and DEL
        return '"' + "".join(f"\\U{ord(letter):08X}" for letter in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value) if isinstance(value, int) else value.isoformat()  # type: ignore[attr-defined]  # dates


def answer(table: str, beside: str, key: str, value: object) -> str:
    """Return the refusal of ``value``, or nothing if it is accepted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.toml"
        path.write_text(f"[{table}]\n{beside}\n{key} = {toml(value)}\n", encoding="utf-8")
        try:
            read_config(path)
        except AgentConfigError as error:
            return str(error)
    return ""


def test_every_table_is_found() -> None:
    """The derived list has each table of the settings, each source and each sink."""
    assert {table.partition(".")[0] for table, _, _ in FIELDS} == names_of(AgentConfig)
    assert {beside.partition("\n")[0] for _, beside, _ in FIELDS} >= {
        f'kind = "{name}"' for name in (*sources.names(), *sinks.names())
    }
    assert len(FIELDS) > 150


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: "-".join(field).replace('kind = "', "").replace('"', ""))
def test_a_field_refuses_what_has_another_type(field: tuple[str, str, str]) -> None:
    """No field takes text, a number, a list and a date alike; the sentence names key, expectation and value."""
    said = [answer(*field, value) for value in (dt.time(7, 32), [[]], {"a": {"b": 1}}, math.nan, 10**400)]
    assert all(said), said
    for text in said:
        assert "Expected" in text
        assert "got" in text
        assert field[2] in text
        assert len(text) < 5_000


@given(field=st.sampled_from(FIELDS), value=VALUES)
@example(field=("device", "", "attributes"), value={"\x00": "\x1b"})
def test_any_value_is_accepted_or_refused_by_a_sentence(field: tuple[str, str, str], value: object) -> None:
    """Nothing else is raised, whatever the type, the size and the characters."""
    said = answer(*field, value)
    if said:
        assert "Expected" in said
        assert "got" in said
        assert field[2] in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "beside", "key", "value"),
    [
        ("monitor", "", "window_s", math.nan),
        ("source", 'kind = "camera"', "path", ["x"]),
        ("sinks.a", 'kind = "mqtt"', "port", 10**400),
        ("api", "", "listen", "\x1b[31m:\x00"),
    ],
)
def test_the_program_ends_with_code_3_and_one_sentence(
    tmp_path: Path, table: str, beside: str, key: str, value: object
) -> None:
    """Which systemd does not repeat; no traceback."""
    identity = {"site": "lab", "device": "cam-1", "password": "-", "mqtt_host": "127.0.0.1", "mqtt_port": 9}
    (tmp_path / "identity.json").write_text(json.dumps(identity))
    (config := tmp_path / "agent.toml").write_text(f"[{table}]\n{beside}\n{key} = {toml(value)}\n")
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "run", "--state", str(tmp_path)]
    done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr, key in done.stderr) == (3, False, True), done.stderr
    assert "Expected" in done.stderr
