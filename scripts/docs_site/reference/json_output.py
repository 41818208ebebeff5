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
    schemas = {verb: schema_of(verb) for verb in PRINTED}
    parts, described = ["# JSON output"], set[str]()
    parts += [table(("command", "prints", "JSON Schema"), [_printed(verb, one) for verb, one in schemas.items()])]
    for schema in schemas.values():
        own = {schema["title"]: schema} if "properties" in schema else {}
        for title, one in {**own, **schema.get("$defs", {})}.items():
            if title not in described:
                described.add(title)
                parts += [f"## {title}", plain(one.get("description", "")), _body(one)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _printed(verb: str, schema: Mapping[str, Any]) -> tuple[str, str, str]:
    file = f"{verb}.schema.json"
    printed = _type({key: schema[key] for key in schema if key != "$defs"})
    return code(f"axosweep {verb} --json"), printed, f"[{file}]({file})"


def _body(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "One of " + ", ".join(code(str(one)) for one in schema["enum"]) + "."
    rows = [
        (code(name), _type(one), _default(one), plain(one.get("description", "")))
        for name, one in schema.get("properties", {}).items()
    ]
    return table(("field", "type", "default", "what"), rows)


def _default(schema: Mapping[str, Any]) -> str:
    return code(json.dumps(schema["default"])) if "default" in schema else ""


def _type(schema: Mapping[str, Any]) -> str:
    """A type as a reader says it: `list of Row`, `number or null`."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "properties" in schema:
        return f"[{schema['title']}](#{str(schema['title']).lower()})"
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "prefixItems" in schema:
        return f"list of {', '.join(_type(one) for one in schema['prefixItems'])}"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any value"))
