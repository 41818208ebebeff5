"""The page about JSON output, from the schemas that are written from the dataclasses that are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.docs_site.markdown import code, plain, table

DOCS = Path(__file__).resolve().parents[3] / "docs"
PRINTED_BY = {"compare.schema.json": "axosweep compare --json", "best.schema.json": "axosweep best --json"}


def page() -> str:
    schemas = {name: json.loads((DOCS / name).read_text(encoding="utf-8")) for name in PRINTED_BY}
    assert {*schemas} == {file.name for file in DOCS.glob("*.schema.json")}
    parts, described = ["# JSON output"], set[str]()
    parts += [table(("command", "prints", "JSON Schema"), [_printed(name, one) for name, one in schemas.items()])]
    for schema in schemas.values():
        own = {schema["title"]: schema} if "properties" in schema else {}
        for title, one in {**own, **schema["$defs"]}.items():
            if title not in described:
                described.add(title)
                parts += [f"## {title}", plain(one.get("description", "")), _body(one)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _printed(name: str, schema: Mapping[str, Any]) -> tuple[str, str, str]:
    return code(PRINTED_BY[name]), _type({key: schema[key] for key in schema if key != "$defs"}), f"[{name}](../{name})"


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
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    return str(schema.get("type", "any value"))
