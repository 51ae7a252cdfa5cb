"""``/settings``: what ``server.toml`` says, read only and without secrets; and what is changed elsewhere, by whom."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from urllib.parse import urlsplit

from nicegui import ui
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from server.access.roles import Need, wanted
from server.dashboard.theme import heading
from server.dashboard.visit import Pages, Visit

SET, HIDDEN = "set, not shown", "not shown"
_MAX_VALUE = 120
_SECRETS = ("secret", "password_file", "url_file", "recipients", "user", "sender")
"""Keys, or parts of them, whose values are secrets, or names of people, of which the page says only that they are set.

The numbers ``password_memory_kib`` and ``password_passes`` are no secrets: they are costs.
"""
_ELSEWHERE = (
    ("Users, roles and passwords", Need.ADMINISTER, "/users"),
    ("Tokens of programs", Need.ADMINISTER, "/tokens"),
    ("The own password and tokens", Need.VIEW, "/account"),
    ("When devices switch, how fast they download, thresholds: of each rollout", Need.OPERATE, "/rollouts"),
    ("Names, tags, commissioning and leaving: of each device", Need.OPERATE, "/"),
    ("Whether a rollout or a retraining goes on", Need.APPROVE, "/retraining"),
    ("Who looks after an alert, and until when it is quiet", Need.OPERATE, "/alerts"),
)
"""What is changed while the server runs, who may, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingLine:
    """One setting, its value and its default as the file has them; ``changed``: whether they differ."""

    key: str
    value: str
    default: str
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingTable:
    """One table of ``server.toml``: its name, what its keys mean, and its settings."""

    name: str
    text: str
    lines: tuple[SettingLine, ...]


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/settings", "Settings", _build)


def setting_tables(config: object) -> tuple[SettingTable, ...]:
    """Return the tables of ``config`` as the page shows them; keys outside of any table come first."""
    alone, tables = [], []
    for one in fields(config):  # type: ignore[arg-type]  # the configuration is a dataclass
        value = getattr(config, one.name)
        if is_dataclass(value) and not isinstance(value, type):
            tables.append(_table(one.name, value))
        else:
            alone.append(_line("", one, value))
    return (SettingTable(name="", text="Keys outside of any table.", lines=tuple(alone)), *tables)


def _table(name: str, section: object) -> SettingTable:
    lines, more = [], []
    for one in fields(section):  # type: ignore[arg-type]  # each table is a dataclass
        value = getattr(section, one.name)
        if isinstance(value, tuple) and value and is_dataclass(value[0]):
            more += [
                _line(f"{one.name}[{index}].", inner, getattr(item, inner.name))
                for index, item in enumerate(value)
                for inner in fields(item)
            ]
        else:
            lines.append(_line("", one, value))
    changed = [line for line in more if line.changed]
    text = " ".join((inspect.getdoc(type(section)) or "").replace("``", "").split())
    return SettingTable(name=name, text=text, lines=(*lines, *changed))


def _line(prefix: str, one: Field[object], value: object) -> SettingLine:
    default = one.default
    if default is MISSING:
        default = one.default_factory() if one.default_factory is not MISSING else ""
    changed = value != default
    return SettingLine(
        key=f"{prefix}{one.name}", value=shown_value(one.name, value), default=shown_value(one.name, default),
        changed=changed,
    )  # fmt: skip


def shown_value(key: str, value: object) -> str:
    """Return a value as the page shows it: of a secret only whether it is set, of an address no password and path."""
    if value in ("", (), {}, None):
        return "not set"
    if any(part in key for part in _SECRETS):
        return SET
    if key == "url" and isinstance(value, str):
        return _without_secrets(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_dataclass(value) and not isinstance(value, type):
        text = ", ".join(f"{one.name} {shown_value(one.name, getattr(value, one.name))}" for one in fields(value))
    elif isinstance(value, tuple | list):
        text = ", ".join(shown_value(key, item) for item in value)
    elif isinstance(value, dict):
        text = ", ".join(f"{name}: {shown_value(str(name), item)}" for name, item in value.items())
    else:
        text = f"{value:,.10g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"


def _without_secrets(url: str) -> str:
    """Return the scheme and host of an address: a path or a query of a webhook is often its secret."""
    try:
        parts = make_url(url)
        if parts.drivername.startswith(("postgresql", "sqlite")):
            where = URL.create(parts.drivername, host=parts.host, port=parts.port, database=parts.database)
            return where.render_as_string()
    except (ArgumentError, ValueError):
        return HIDDEN
    try:
        found = urlsplit(url)
    except ValueError:
        return HIDDEN
    return f"{found.scheme}://{found.hostname}/…" if found.hostname else HIDDEN


def _build(visit: Visit) -> None:
    ui.label(
        "What the server started with. The file server.toml in its state directory decides it: who may write there "
        "changes a setting, and it holds from the next start on; a change of policy is then in the log of acts."
    ).classes("tf-muted")
    _show_elsewhere(visit)
    for table in setting_tables(visit.services.config):
        if table.lines:
            _show_table(table)


def _show_elsewhere(visit: Visit) -> None:
    with ui.element("section").classes("tf-card"):
        heading("Changed while the server runs")
        for what, need, page in _ELSEWHERE:
            with ui.element("div").classes("tf-row tf-small"):
                if visit.may(need):
                    ui.link(what, page).classes("tf-link")
                else:
                    ui.label(what)
                who = "each person" if need is Need.VIEW else wanted(need)
                ui.label(f"by {who}").classes("tf-muted")
        if visit.may(Need.ADMINISTER):
            ui.link("Changes of policy in the log of acts", "/acts?act=policy.change").classes("tf-link tf-small")


def _show_table(table: SettingTable) -> None:
    with ui.element("section").classes("tf-card"):
        heading(f"[{table.name}]" if table.name else "server.toml")
        ui.label(table.text).classes("tf-muted tf-small")
        with ui.element("dl").classes("tf-settings"):
            for line in _ordered(table.lines):
                with ui.element("dt"):
                    ui.label(line.key).classes("tf-mono")
                with ui.element("dd"):
                    weight = "; font-weight: 600" if line.changed else ""
                    ui.label(line.value).style(f"overflow-wrap: anywhere{weight}")
                    if line.changed:
                        ui.label(f"default: {line.default}").classes("tf-muted tf-small")


def _ordered(lines: tuple[SettingLine, ...]) -> Iterator[SettingLine]:
    """Yield what was changed first."""
    yield from sorted(lines, key=lambda line: not line.changed)
