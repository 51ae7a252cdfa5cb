"""Certificate files that can't be used are named before anything starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from server.app.http import check_certificates
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.config import ServerConfig, TlsConfig, read_config
from server.errors import ConfigError
from server.trust.authority import init_authority
from server.trust.online_keys import init_online_keys
from wire.memory_broker import MemoryBroker, MemoryTransport

TLS = '[tls]\ncertificate = "server.pem"\nkey = "/etc/server.key"\nca = "ca.pem"\n'


def _read(folder: Path, text: str) -> ServerConfig:
    (folder / "server.toml").write_text(text)
    return read_config(folder / "server.toml")


def test_relative_paths_are_below_the_folder_of_the_settings(tmp_path: Path) -> None:
    """Wherever the server is started from."""
    tls = _read(tmp_path, TLS).tls
    assert (tls.certificate, tls.key) == (str(tmp_path / "server.pem"), "/etc/server.key")


@pytest.mark.parametrize(("text", "words"), [
    (TLS + "[http]\nbind = '0.0.0.0'", r"http\.public_url, the address for devices"),
    (TLS + "[broker]\nbind = '::'", r"broker\.public_host, the address for devices"),
])  # fmt: skip
def test_who_listens_everywhere_says_what_devices_are_told(tmp_path: Path, text: str, words: str) -> None:
    """Otherwise devices would connect to their own loopback."""
    with pytest.raises(ConfigError, match=words):
        _read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With its key in server.toml."""
    with pytest.raises(ConfigError, match=r"tls\.certificate.*absent\.pem"):
        check_certificates(TlsConfig(str(tmp_path / "absent.pem"), "key", "ca"))


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    """Before mosquitto ends over it."""
    path = tmp_path / "server.pem"
    path.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"PEM certificate in .*server\.pem"):
        check_certificates(TlsConfig(str(path), str(path), str(path)))


@pytest.mark.parametrize(("settings", "lacks"), [
    ("[http]", []),
    ('[http]\npublic_url = "https://fleet.example.org"', []),
    ('[http]\npublic_url = "https://other.example.org"', ["other.example.org"]),
])  # fmt: skip
def test_an_address_that_the_certificate_lacks_is_reported(tmp_path: Path, settings: str, lacks: list[str]) -> None:
    """Devices that enrol would never connect, and nobody would know why."""
    state = init_state(tmp_path / "state", certificates=True)
    init_online_keys(state.path)
    init_authority(state.authority, ["fleet.example.org"], round(time.time() * 1000))
    state.config.write_text(state.config.read_text().replace("[http]", settings, 1))
    transport = MemoryTransport(broker=MemoryBroker(), client_id="server")
    app = ServerApp.open(state.path, transport=transport, pages=False)
    try:
        app.start()
        events = [event for event in app.parts.events.latest() if event.code == "certificate_names"]
    finally:
        app.stop()
    assert [event.text.partition(":")[0].rpartition(" ")[2] for event in events] == lacks
