"""server.toml: strict, and every refusal names the next step."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from server.app.state_directory import StateDirectory
from server.config import ServerConfig, check_config, is_loopback, read_config
from server.errors import ConfigError
from wire.settings import MAX_TOML_BYTES, Bound, rules


def _read(tmp_path: Path, text: str) -> ServerConfig:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return read_config(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[htpp]\nport = 1", "got 'htpp': did you mean 'http'"),
        ("[broker]\nprot = 1", "server.toml [broker] one of bind, port"),
        ("[broker]\nprot = 1", "got 'prot': did you mean 'port'"),
        ("[ingest]\nqueue_messages = inf", "queue_messages to be a whole number, got float inf"),
        ("[fleet]\nsilent_s = nan", "silent_s above 0 and at most 31622400, got nan"),
        ("#" * MAX_TOML_BYTES + "\n", f"at most {MAX_TOML_BYTES} bytes in"),
        ("[drift]\nwindow_s = 1", "did you mean 'window_ms'"),
        ("[http]\nport = '80'", "server.toml [http] port to be a whole number, got str '80'"),
        ("[http]\nport = 70000", "server.toml [http] port between 0 and 65535, got 70000"),
        ("[ingest]\nbatch_messages = 0", "[ingest] batch_messages above 0 and at most 1000000, got 0"),
        ("[rollout]\ndeadline_s = 1e300", "[rollout] deadline_s above 0 and at most 31622400, got 1e+300"),
        ("[broker]\nbind = '0.0.0.0'", "broker.bind on loopback"),
        ("[tls]\nkey = 'k.pem'", "all of certificate, key and ca"),
        ("[http", "Expected TOML in"),
        ("http = 3", "server.toml [http] to be a table, got int 3"),
    ],
)
def test_refuses_what_it_cannot_obey(tmp_path: Path, text: str, words: str) -> None:
    """The error names the nearest key for an unknown one, and the expectation for a value."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        _read(tmp_path, text)


def test_a_tilde_in_a_path_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of certificates and of the broker's program."""
    monkeypatch.setenv("HOME", "/home/me")
    text = '[tls]\ncertificate = "~/c.pem"\nkey = "k.pem"\nca = "/ca.pem"\n[broker]\nprogram = "~/bin/mosquitto"\n'
    path = tmp_path / "server.toml"
    path.write_text(text)
    config = read_config(path)
    assert (config.tls.certificate, config.tls.key) == ("/home/me/c.pem", str(tmp_path.resolve() / "k.pem"))
    assert config.broker.program == "/home/me/bin/mosquitto"
    path.write_text(text.replace("~/c", "~nobody-here/c"))
    with pytest.raises(ConfigError, match="a home directory for ~nobody-here"):
        read_config(path)


def _numbers() -> dict[tuple[str, str], Bound | None]:
    """Return the bound of every number of the settings by table ("" for none) and key."""
    found: dict[tuple[str, str], Bound | None] = {}
    for table in ("", *(field.name for field in fields(ServerConfig))):
        owner = getattr(ServerConfig(), table) if table else ServerConfig()
        if is_dataclass(owner):
            bounds = rules(type(owner))
            numbers = (field.name for field in fields(owner) if type(getattr(owner, field.name)) in {int, float})
            found |= {(table, key): bounds.get(key) for key in numbers}
    return found


@pytest.mark.parametrize(("table", "key"), list(_numbers()))
def test_every_number_has_a_bound_and_takes_both_ends(table: str, key: str) -> None:
    """Infinite, NaN or absurd values are refused; both ends of the range and the default are accepted."""
    bound = _numbers()[table, key]
    assert bound is not None

    def with_value(value: float) -> ServerConfig:
        owner = getattr(ServerConfig(), table) if table else ServerConfig()
        inner = replace(owner, **{key: value if not math.isfinite(value) else type(getattr(owner, key))(value)})
        return replace(ServerConfig(), **{table: inner}) if table else inner

    check_config(ServerConfig())
    for value in (bound.high, bound.low + 1 if bound.above and bound.high > 1 else max(bound.low, bound.high / 2)):
        check_config(with_value(value))
    name = rf"server\.toml {re.escape(f'[{table}] ' if table else '')}{key}"
    for value in (math.inf, -math.inf, math.nan, 1e300, -1, bound.high * 2 + 1, *([bound.low] if bound.above else [])):
        with pytest.raises(ConfigError, match=rf"^Expected {name} .* got .*: correct it in server.toml$"):
            check_config(with_value(value))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        read_config(tmp_path / "absent.toml")


def test_the_file_that_init_writes_means_the_defaults(state: StateDirectory) -> None:
    """The template is valid."""
    assert read_config(state.config) == ServerConfig()


def test_sub_tables_reach_their_owners(tmp_path: Path) -> None:
    """[drift] and [rollout] are read by the code that obeys them."""
    config = _read(tmp_path, "[drift]\nwindow_ms = 2000\n[rollout]\ncanary = 2\n")
    assert (config.drift.window_ms, config.rollout.canary) == (2000, 2)


@pytest.mark.parametrize(
    ("address", "loopback"), [("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("x", False)]
)
def test_knows_loopback(address: str, loopback: bool) -> None:  # noqa: FBT001 - the expectation
    """Names other than localhost may resolve to anything."""
    assert is_loopback(address) is loopback
