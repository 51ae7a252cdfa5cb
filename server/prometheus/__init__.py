"""The files with which Prometheus and Grafana watch a server: scrape settings, alert rules, a dashboard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from server.errors import ClientFileError
from wire.durable import write_atomically

FILES = ("prometheus.yml", "alerts.yml", "grafana.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """The server that Prometheus asks: its address, the file of a token, and the CA of its certificate, "" for none."""

    url: str
    token_file: str
    ca: str = ""


def write_files(folder: Path, server: Scraped) -> tuple[Path, ...]:
    """Write ``FILES`` into ``folder``, which is made; return their paths. Files that exist are never replaced.

    Raises:
        ClientFileError: If the address is none, or one of the files exists or can't be written; then none was written.
    """
    parts = urlsplit(server.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClientFileError(f"Expected an address as https://HOST:PORT, got {server.url[:200]!r}")
    paths = tuple(folder / name for name in FILES)
    taken = [path.name for path in paths if path.exists()]
    if taken:
        message = f"Expected a folder without {', '.join(taken)}, got {folder}: name another one, or remove them first"
        raise ClientFileError(message)
    settings = {
        "@SCHEME@": parts.scheme,
        "@TARGET@": json.dumps(parts.netloc),
        "@TOKEN@": json.dumps(server.token_file),
    }
    settings["@TLS@"] = f"    tls_config:\n      ca_file: {json.dumps(server.ca)}\n" if server.ca else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            text = (files(__name__) / path.name).read_text(encoding="utf-8")
            if path.name == "prometheus.yml":
                for name, value in settings.items():
                    text = text.replace(name, value)
            write_atomically(path, text.encode(), mode=0o644)  # Prometheus is another user
    except OSError as error:
        raise ClientFileError(f"Expected to write to {folder}, got: {error.strerror}") from error
    return paths
