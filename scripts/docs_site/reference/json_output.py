"""The page about JSON output, and the schema of each verb, written from the dataclasses that are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from scripts.docs_site.markdown import code, plain, table
from scripts.json_schemas import PRINTED, schema_of, text_of


def pages() -> Mapping[str, str]:
    return {"reference/json.md": page(), **{f"reference/{verb}.schema.json": text_of(verb) for verb in PRINTED}}


@cache
def page() -> str:
    described, rows, parts = dict[str, Mapping[str, Any]](), [], list[str]()
    for verb in PRINTED:
        schema, file = schema_of(verb), f"{verb}.schema.json"
        types = _types(schema)
        names = {title: _section_name(title, verb, one, described) for title, one in types.items()}
        new = {names[title]: one for title, one in types.items() if names[title] not in described}
        described |= new
        parts += [f"## {name}\n\n{_section(one, names)}" for name, one in new.items()]
        rows.append((code(f"axosweep {verb} --json"), _type(schema, names), f"[{file}]({file})"))
    parts = ["# JSON output", table(("command", "prints", "JSON Schema"), rows), *parts]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _types(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The objects and enums of a schema, by their names."""
    own = {key: schema[key] for key in schema if not key.startswith("$")}
    return {**({schema["title"]: own} if "properties" in schema else {}), **schema.get("$defs", {})}


def _section_name(title: str, verb: str, one: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]]) -> str:
    """The type's name; with the verb if another type has that name."""
    alike = [name for name, known in described.items() if known == one]
    return alike[0] if alike else f"{title} of {verb}" if title in described else title


def _section(described: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return f"{plain(described.get('description', ''))}\n\n{_body(described, names)}".strip("\n")


def _body(schema: Mapping[str, Any], names: Mapping[str, str]) -> str:
    if "enum" in schema:
        return "One of " + ", ".join(code(str(one)) for one in schema["enum"]) + "."
    rows = [
        (code(name), _type(one, names), _default(one), plain(one.get("description", "")))
        for name, one in schema.get("properties", {}).items()
    ]
    return table(("field", "type", "default", "what"), rows)


def _default(schema: Mapping[str, Any]) -> str:
    return code(json.dumps(schema["default"])) if "default" in schema else ""


def _type(schema: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A type as a reader says it: `list of Row`, `number or null`."""
    match schema:
        case {"$ref": reference}:
            return _link(names[str(reference).rpartition("/")[2]])
        case {"anyOf": several}:
            return " or ".join(_type(one, names) for one in several)
        case {"properties": _}:
            return _link(names[schema["title"]])
        case {"const": value}:
            return code(json.dumps(value))
        case {"prefixItems": several}:
            return f"list of {', '.join(_type(one, names) for one in several)}"
        case {"type": "array", "items": dict(one)} if one:
            return f"list of {_type(one, names)}"
        case {"type": "array"}:
            return "list"
        case {"additionalProperties": dict(one)}:
            return f"object of {_type(one, names)}"
    return str(schema.get("type", "any value"))


def _link(name: str) -> str:
    return f"[{name}](#{name.lower().replace(' ', '-')})"
