"""server.toml: strict, and every refusal says what to do."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from server.app.state_directory import StateDirectory
from server.bounds import BOUNDS, check_bounds, numbers_of
from server.config import ServerConfig, is_loopback, read_config
from server.errors import ConfigError


def _read(tmp_path: Path, text: str) -> ServerConfig:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return read_config(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[htpp]\nport = 1", "'htpp'; the nearest is 'http'"),
        ("[broker]\nprot = 1", "'prot'; the nearest is 'port'"),
        ("[drift]\nwindow_s = 1", "the nearest is 'window_ms'"),
        ("[http]\nport = '80'", "port as int, got str"),
        ("[http]\nport = 70000", "http.port from 0 to 65535, got 70000"),
        ("[ingest]\nbatch_messages = 0", "ingest.batch_messages above 0 and at most 1000000, got 0"),
        ("[rollout]\ndeadline_s = 1e300", "rollout.deadline_s above 0 and at most 31622400, got 1e+300"),
        ("[broker]\nbind = '0.0.0.0'", "broker.bind on loopback"),
        ("[tls]\nkey = 'k.pem'", "all of certificate, key and ca"),
        ("[http", "readable TOML"),
        ("http = 3", "as dict, got int"),
    ],
)
def test_refuses_what_it_cannot_obey(tmp_path: Path, text: str, words: str) -> None:
    """Unknown keys name the nearest valid one; values say what was expected."""
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


@pytest.mark.parametrize("name", [name for name, _ in numbers_of(ServerConfig())])
def test_every_number_has_a_bound_and_takes_both_ends(name: str) -> None:
    """Nothing infinite, NaN or absurd is obeyed; what the bound allows, and the default, are."""
    bound, parts = BOUNDS[name], name.split(".")

    def check(value: float) -> None:
        kind = type(dict(numbers_of(ServerConfig()))[name])
        inner: object = value if not math.isfinite(value) else kind(value)
        config = ServerConfig()
        for depth in range(len(parts) - 1, -1, -1):
            owner = getattr(config, parts[0]) if depth else config
            inner = replace(owner, **{parts[depth]: inner})  # type: ignore[type-var]
        check_bounds(inner)

    check_bounds(ServerConfig())
    for value in (bound.high, bound.low + 1 if bound.above and bound.high > 1 else max(bound.low, bound.high / 2)):
        check(value)
    for value in (math.inf, -math.inf, math.nan, 1e300, -1, bound.high * 2 + 1, *([bound.low] if bound.above else [])):
        with pytest.raises(ConfigError, match=rf"^Expected {re.escape(name)} .* got .*: correct it in server.toml$"):
            check(value)


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
