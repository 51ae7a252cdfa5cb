"""Reference pages generated from the code, so that no table goes stale: settings, commands, REST, Python API."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click

from edge_agent import sinks, sources
from edge_agent.sinks._filters import SinkSettings
from wire.settings import Bound, OneOf, default_of, names_of, rules

APIS = ("compressor.api", "edge_agent.api", "server.client")
PROGRAMS = {"compressor": ("compressor.cli", "app"), "edge-agent": ("edge_agent.cli", "main"),
            "fleet-server": ("server.cli", "main")}  # fmt: skip
_VERBS = ("get", "post", "put", "delete")


def pages() -> Mapping[str, Callable[[], str]]:
    """Return the generator of each page, by its path in ``docs``."""
    return {
        "reference/agent-toml.md": agent_toml,
        "reference/server-toml.md": server_toml,
        "reference/front-ends.md": front_ends,
        "reference/commands.md": commands,
        "reference/rest.md": rest,
        "reference/python-names.md": python_names,
    }


def agent_toml() -> str:
    """Return every key of the agent's settings."""
    from edge_agent.config import AgentConfig  # noqa: PLC0415 - a page needs the package that it is about

    head = """# agent.toml

The settings of `edge-agent run --config agent.toml`. Every key may be left out; an unknown one is an error that
names the nearest. A relative path starts at the folder of the file. Secrets are never here: they lie in
`identity.json`.
"""
    return head + "".join(_tables(AgentConfig))


def server_toml() -> str:
    """Return every key of the server's settings."""
    from server.config import ServerConfig  # noqa: PLC0415 - a page needs the package that it is about

    head = """# server.toml

The settings of `fleet-server run DIR`, in `DIR/server.toml`. Every key may be left out; an unknown one is an error
that names the nearest. [How to run a server of your own](../how-to/own-server.md) shows what to set beyond one machine.
"""
    return head + "".join(_tables(ServerConfig))


def front_ends() -> str:
    """Return every front end with the files that it reads and its options."""
    from edge_agent import front_ends as sensors  # noqa: PLC0415 - it loads numpy

    text = """# Front ends

What makes a picture of a sensor's bytes: `[data] front_end` of a recipe, with `options` as below. All options, defaults
too, are written into the manifest, so that a device decodes as the build host did. An unknown option is an error that
names the nearest. [How to connect a sensor of your own](../how-to/own-sensor.md).
"""
    for name in sensors.names():
        module = importlib.import_module(f"edge_agent.front_ends.{name}")
        ends = " ".join(f"`{suffix}`" for suffix in sorted(sensors.suffixes(name)))
        own = f"{_doc(module)}\n\nReads {ends}."
        text += _section(name, sensors.settings_of(name), sensors.complete(name, {}), text=own)
    return text


def _tables(config: type) -> Iterator[str]:
    """Yield a section for each table of a settings class; keys outside any table come first."""
    hints = get_type_hints(config)
    by_name = Mapping[str, sinks.SinkConfig]
    plain = [
        field
        for field in dataclasses.fields(config)
        if not dataclasses.is_dataclass(hints[field.name]) and hints[field.name] != by_name
    ]
    if plain:
        yield _section("Outside of any table", config, {field.name for field in plain})
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):
            table = hints[field.name]
            if table is sources.SourceConfig:
                yield from _sources()
            else:
                yield _section(f"[{field.name}]", table, names_of(table))
                yield from _lists(field.name, table)
        elif hints[field.name] == by_name:
            yield from _sinks()


def _lists(name: str, table: type) -> Iterator[str]:
    """Yield a section for each list of tables in ``table``."""
    for key, hint in get_type_hints(table).items():
        inner = get_args(hint)[0] if get_origin(hint) is tuple else None
        if inner is not None and dataclasses.is_dataclass(inner):
            yield _section(f"[[{name}.{key}]]", inner, names_of(inner))


def _sinks() -> Iterator[str]:
    """Yield the keys common to all sinks, and a section for the keys of each."""
    kinds = ", ".join(f"`{name}`" for name in sinks.names())
    kind = f"| `kind` | text | {kinds}, or `package.module:function` | | [where answers go](answers.md) |\n"
    line = "|---|---|---|---|---|\n"
    yield _section("[sinks.NAME]", SinkSettings, names_of(SinkSettings)).replace(line, line + kind, 1)
    for name in sinks.names():
        table = sinks.settings_of(name)
        yield _section(f'[sinks.NAME] of kind = "{name}"', table, names_of(table))


def _sources() -> Iterator[str]:
    """Yield the keys common to all sources, and a section for the keys of each."""
    kinds, default = ", ".join(f"`{name}`" for name in sources.names()), sources.SourceConfig().kind
    own = "[a source of your own](../how-to/own-sensor.md)"
    yield f"""
## [source]

Where inputs come from. The other keys are those of the kind:

| key | type | range | default | |
|---|---|---|---|---|
| `kind` | text | {kinds}, or `package.module:function` | `"{default}"` | {own} |
"""
    for name in sources.names():
        table = sources.settings_of(name)
        yield _section(f'[source] of kind = "{name}"', table, names_of(table))


def _section(title: str, table: type, names: Collection[str], *, text: str = "") -> str:
    """Return heading, ``text`` (or the class's docstring), and a row for each key with the reason for its default."""
    hints, comments, text = get_type_hints(table), _comments(table), text or _plain(inspect.getdoc(table) or "")
    ranges = rules(table)
    rows = []
    for field in dataclasses.fields(table):
        if field.name in names:
            default = default_of(table, field.name)
            shown = "" if default is None else f"`{_toml(default)}`"
            within = _range(ranges.get(field.name))
            why = comments.get(field.name, "")
            rows.append(f"| `{field.name}` | {_type(hints[field.name])} | {within} | {shown} | {why} |")
    lines = "\n".join(["| key | type | range | default | |", "|---|---|---|---|---|", *rows])
    return f"\n## {title}\n\n{text}\n\n{lines}\n"


def _comments(table: type) -> dict[str, str]:
    """Return the comment after each field of a dataclass in its source."""
    pattern = r"^ {4}(\w+): [^#\n]*(?:\n {8}[^#\n]*)?  # (.*)"  # the value may stand on a line of its own
    text = "\n".join(inspect.getsource(cls) for cls in table.__mro__[:-1])
    return {name: why.replace("|", "\\|") for name, why in re.findall(pattern, text, flags=re.MULTILINE)}


def _range(rule: Bound | OneOf | None) -> str:
    if rule is None:
        return ""
    return rule.text if isinstance(rule, Bound) else ", ".join(f"`{name}`" for name in rule.names)


def _type(hint: Any) -> str:  # noqa: ANN401 - any annotation of a settings class
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Path | None: "path"}
    if hint in names:
        return names[hint]
    if get_origin(hint) is tuple:
        return f"list of {_type(get_args(hint)[0])}"
    return "table of text" if get_origin(hint) is not None and get_args(hint)[-1] is str else "table"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return "{}" if isinstance(value, Mapping) and not value else repr(value)


def commands() -> str:
    """Return the help page of every command of the three programs."""
    parts = ["# Commands\n\nWhat `--help` prints, program by program.\n"]
    for program, (module, name) in PROGRAMS.items():
        command = getattr(importlib.import_module(module), name)
        parts += [f"\n{'#' * min(3, 1 + depth)} `{words}`\n\n```text\n{text.rstrip()}\n```\n"
                  for words, depth, text in _helped(command, program, 1)]  # fmt: skip
    return "".join(parts)


def _helped(command: click.Command, words: str, depth: int) -> Iterator[tuple[str, int, str]]:
    context = click.Context(command, info_name=words, max_content_width=100, terminal_width=100)
    yield words, depth, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _helped(below, f"{words} {name}", depth + 1)


@dataclass(frozen=True, slots=True)
class _Call:
    verb: str
    path: str
    who: str
    text: str
    tag: str


def rest() -> str:
    """Return every call of the REST interface with the roles that may make it."""
    head = """# REST

People and programs send `Authorization: Bearer TOKEN` (of `fleet-server tokens issue`, or the files `operator.token`
and `builder.token` of the server's state directory), devices Basic with their id and password. What a call needs, and
which role that is: [people, roles and tokens](../how-to/people.md). Errors are problems (RFC 9457) with `code` and
`text`. A running server has the same as OpenAPI at `/api/openapi.json`, with every body and answer, and as a page at
`/api/docs`. From Python:
[`server.client`](python-api.md#talk-to-a-server).
"""
    found: dict[str, list[_Call]] = {}
    for call in _calls():
        found.setdefault(call.tag, []).append(call)
    for tag, calls in found.items():
        rows = "\n".join(f"| {call.verb} | `{call.path}` | {call.who} | {call.text} |" for call in calls)
        head += f"\n## {tag}\n\n| | path | needs | |\n|---|---|---|---|\n{rows}\n"
    return head


def _calls() -> Iterator[_Call]:
    """Yield the calls of a server opened in a temporary folder, without a broker."""
    from server.app.server import ServerApp  # noqa: PLC0415 - a page needs the package that it is about
    from server.app.state_directory import init_state  # noqa: PLC0415 - as above
    from wire.memory_broker import MemoryBroker, MemoryTransport  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory(prefix="tinyfleet-docs-") as folder:
        state = init_state(Path(folder) / "state")
        app = ServerApp.open(
            state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"), pages=False
        )
        try:
            document = app.web.api.openapi()
        finally:
            app.stop()
    for path, calls in document["paths"].items():
        for verb in (verb for verb in _VERBS if verb in calls):
            call = calls[verb]
            query = [one["name"] for one in call.get("parameters", ()) if one["in"] == "query"]
            shown = path + (f"?{'&'.join(query)}" if query else "") + _body(call, document)
            text = _plain(str(call.get("description", ""))).split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            yield _Call(verb.upper(), shown, call["x-needs"], text, call.get("tags", ["other"])[0])


def _body(call: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return the fields of a call's JSON body; optional ones end with a question mark."""
    schema = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    schema = next((one for one in schema.get("anyOf", ()) if "$ref" in one), schema)  # an optional body
    named = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
    wanted = named.get("required", ())
    fields = [name if name in wanted else f"{name}?" for name in named.get("properties", {})]
    return f" {{{', '.join(fields)}}}" if fields else ""


def python_names() -> str:
    """Return the public names of the Python API with signatures and docstrings."""
    parts = ["# Python API: names\n\nMade from the docstrings; [the guide](python-api.md) has examples.\n"]
    for module_name in APIS:
        module = importlib.import_module(module_name)
        parts.append(f"\n## {module_name}\n\n{_doc(module)}\n")
        parts += [_name(getattr(module, name), name) for name in module.__all__]
    return "".join(parts)


def _name(thing: Any, name: str) -> str:  # noqa: ANN401 - whatever a module offers
    home = getattr(thing, "__module__", "")
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return f"\n### {name}\n\n`{name} = {thing}`\n".replace("typing.", "").replace("collections.abc.", "")
    said = f"\n### {name}\n\n```python\n{_signature(thing, name)}\n```\n\n{_doc(thing)}\n"
    if inspect.isclass(thing) and home in APIS:
        methods = [one for one in vars(thing) if not one.startswith("_") and callable(getattr(thing, one))]
        for one in methods:
            method = getattr(thing, one)
            said += f"\n#### {name}.{one}\n\n```python\n{_signature(method, one)}\n```\n\n{_doc(method)}\n"
    return said


def _signature(thing: Any, name: str) -> str:  # noqa: ANN401 - a class or function
    try:
        return f"{name}{inspect.signature(thing)}".replace("'", "")
    except ValueError:
        return name


def _doc(thing: Any) -> str:  # noqa: ANN401 - a module, class or function
    """Return the docstring as Markdown: names in one pair of backticks, sections of Google's style as lists."""
    text = _plain(inspect.getdoc(thing) or "")
    lines, section = [], False
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Yields):", line):
            section = True
            lines += [f"**{line.removesuffix(':')}**", ""]
        elif section and re.match(r" {4}\S", line):
            lines.append(f"- {line.strip()}")
        elif section and line.startswith(" " * 5):
            lines[-1] += f" {line.strip()}"
        else:
            section = section and not line
            lines.append(line)
    return "\n".join(lines)


def _plain(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)
