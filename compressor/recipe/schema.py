"""The JSON schema of a recipe's file, for editors: keys, types, ranges, choices and what each key means.

Made from the recipe's dataclasses, the steps, the gates and the plug-in folders of this installation. A schema checks
one key at a time; what several tables say together is checked by ``read`` alone.

Source: JSON Schema, draft 7, which editors of TOML read (Taplo, Even Better TOML).
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from compressor import plugins, quantize, steps, tasks
from compressor.errors import PluginError
from compressor.gates.evidence import GateRecipe
from compressor.gates.kinds import KINDS
from compressor.recipe.changes import PLAIN
from compressor.recipe.model import DecoderRecipe, SmoothingRecipe, TargetRecipe
from edge_agent import decoders, smoothers
from wire.settings import Bound, OneOf, names_of, rule_of

DRAFT = "http://json-schema.org/draft-07/schema#"
_JSON = {str: "string", int: "integer", float: "number", bool: "boolean"}
_PLUGINS = {"dataset": "compressor.data", "network": "compressor.networks", "scheme": "compressor.quantize"}
"""Keys whose value names a plug-in: one of the folder, or ``package.module:attribute``."""
_OWN = {"type": "string", "pattern": "^[^:]+:[^:]+$"}
Schema = dict[str, Any]


def schema() -> Schema:
    """Return the schema of a recipe's file, as JSON."""
    tables = {name: _table(cls) for name, cls in PLAIN.items()}
    tables["compress"] = {"type": "array", "items": {"anyOf": [_step(name) for name in steps.names()]}}
    tables["targets"] = {"type": "object", "additionalProperties": _table(TargetRecipe, without=("name",))}
    tables["gates"] = {
        "type": "object",
        "properties": {name: _gate(kind.limits) for name, kind in KINDS.items()},
        "patternProperties": {":": _gate(("max", "min"))},
        "additionalProperties": False,
    }
    tables["smoothing"] = _smoothing()
    tables["decoder"] = _decoder()
    return {
        "$schema": DRAFT,
        "title": "recipe of compressor",
        "type": "object",
        "properties": tables,
        "required": ["model"],
        "additionalProperties": False,
    }


def _table(cls: type, *, without: tuple[str, ...] = ()) -> Schema:
    """Return the schema of the table that ``cls`` is read from."""
    hints, said = get_type_hints(cls, include_extras=True), _meanings(cls)
    properties: dict[str, Schema] = {}
    required = []
    for field in dataclasses.fields(cls):
        if field.name in without:
            continue
        found = _plugin(field.name) or _value(hints[field.name])
        if field.name in said:
            found["description"] = said[field.name]
        if field.default not in {dataclasses.MISSING, None, ""} and not isinstance(field.default, tuple):
            found["default"] = field.default
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        properties[field.name] = found
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": required} if required else {})


def _plugin(key: str) -> Schema | None:
    if key == "task":
        return {"anyOf": [{"enum": ["", *sorted(tasks.known())]}, dict(_OWN)]}
    if key not in _PLUGINS:
        return None
    return {"anyOf": [{"enum": list(plugins.names(_PLUGINS[key]))}, dict(_OWN)]}


def _value(hint: object) -> Schema:
    """Return the schema of one value of the type ``hint``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _value(arguments[0]) | _range(hint)
    if origin in {Union, types.UnionType}:
        options = [_value(option) for option in arguments if option is not type(None)]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if origin is tuple:
        return {"type": "array", "items": _value(arguments[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _value(arguments[1])}
    return {"type": _JSON[hint]} if hint in _JSON else {}


def _range(hint: object) -> Schema:
    rule = rule_of(hint)
    if isinstance(rule, OneOf):
        return {"enum": list(rule.names)}
    if isinstance(rule, Bound):
        return {"exclusiveMinimum" if rule.above else "minimum": rule.low, "maximum": rule.high}
    return {}


def _step(name: str) -> Schema:
    cls = steps.module(name).Settings
    found = _table(cls, without=("own",))
    found["properties"]["step"] = {"const": name, "description": _summary(steps.module(name))}
    found["required"] = ["step"]
    for scheme in plugins.names("compressor.quantize") if name == "quantize" else ():
        try:
            declared = quantize.own_settings(scheme)
        except PluginError:  # its package is missing here
            continue
        if declared is not None:
            found["properties"] |= _table(declared)["properties"]
    return found


def _gate(limits: tuple[str, ...]) -> Schema:
    found = _table(GateRecipe, without=("name", *({"max", "min"} - set(limits))))
    found["oneOf"] = [{"required": [limit]} for limit in limits]
    return found


def _smoothing() -> Schema:
    found = _table(SmoothingRecipe, without=("options",))
    found["properties"]["kind"] = {"enum": list(smoothers.names())}
    for name in smoothers.names():
        for key in smoothers.complete(name, {}):
            found["properties"].setdefault(key, {"type": "number", "description": f"of kind {name}"})
    return found


def _decoder() -> Schema:
    found = _table(DecoderRecipe, without=("options",))
    found["properties"]["kind"] = {"enum": list(decoders.of_boxes())}
    for name in decoders.of_boxes():
        for key, schema in _table(decoders.settings_of(name))["properties"].items():
            there = found["properties"].get(key)
            if there is not None and "enum" in there and "enum" in schema:  # of two decoders
                schema["enum"] = list(dict.fromkeys([*there["enum"], *schema["enum"]]))
            found["properties"][key] = schema
    return found


def _summary(module: types.ModuleType) -> str:
    return (inspect.getdoc(module) or "").partition("\n")[0]


def _meanings(cls: type) -> dict[str, str]:
    """Return what the docstring of ``cls`` says of its fields, after ``field``: or ``a`` and ``b``:."""
    text = " ".join((inspect.getdoc(cls) or "").split())
    heads = list(re.finditer(r"(?:^|(?<=[.)] ))((?:``\w+``(?:, | and |, and )?)+)(?: \([^)]*\))?: ", text))
    ends = [*(head.start() for head in heads[1:]), len(text)][: len(heads)]
    known = names_of(cls)
    return {
        name: text[head.end() : end].strip().replace("``", "`")
        for head, end in zip(heads, ends, strict=True)
        for name in re.findall(r"``(\w+)``", head[1])
        if name in known
    }
