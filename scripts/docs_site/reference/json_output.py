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
    sections, rows = dict[str, str](), []
    for verb in PRINTED:
        schema, file = schema_of(verb), f"{verb}.schema.json"
        types = _types(schema)
        names = {title: _section_name(title, verb, one, sections) for title, one in types.items()}
        sections |= {names[title]: _section(one, names) for title, one in types.items()}
        printed = _type({key: schema[key] for key in schema if key != "$defs"}, names)
        rows.append((code(f"axosweep {verb} --json"), printed, f"[{file}]({file})"))
    parts = ["# JSON output", table(("command", "prints", "JSON Schema"), rows)]
    parts += [f"## {name}\n\n{text}" for name, text in sections.items()]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _types(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The objects and enums of a schema, by their names."""
    return {**({schema["title"]: schema} if "properties" in schema else {}), **schema.get("$defs", {})}


def _section_name(title: str, verb: str, described: Mapping[str, Any], sections: Mapping[str, str]) -> str:
    """The type's name; with the verb if an earlier verb has another type of that name."""
    first = next(_types(schema_of(one))[title] for one in PRINTED if title in _types(schema_of(one)))
    return title if first == described or title not in sections else f"{title} of {verb}"


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
