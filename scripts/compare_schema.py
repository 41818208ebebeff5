"""Write docs/compare.schema.json and docs/best.schema.json from the dataclasses that are printed.

    .venv/bin/python scripts/compare_schema.py

A test compares the files with the code, and the output of the commands with the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from modal_app.held_out.held_out import Segment
from runner.compare.best import Best, Next
from runner.compare.comparison import ComparedSweep, Comparison
from runner.compare.groups import Group
from runner.compare.pair import Pair
from runner.compare.ranking import Row
from runner.verdict.where import MovedRow, Part, Where

DOCS = Path(__file__).resolve().parents[1] / "docs"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def adapters() -> dict[str, TypeAdapter[Any]]:
    """By file name, the adapter that describes and checks the output of a command."""
    printed: tuple[type[Any], ...] = (
        Row,
        Group,
        ComparedSweep,
        Comparison,
        Pair,
        Where,
        Part,
        MovedRow,
        Segment,
        Next,
        Best,
    )
    for one in printed:
        one.__pydantic_config__ = ConfigDict(use_attribute_docstrings=True)
    return {"compare.schema.json": TypeAdapter(Comparison | Pair), "best.schema.json": TypeAdapter(Best)}


def text_of(adapter: TypeAdapter[Any]) -> str:
    schema = {"$schema": DIALECT, **adapter.json_schema(mode="serialization")}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for name, adapter in adapters().items():
        (DOCS / name).write_text(text_of(adapter), encoding="utf-8")
        print(f"written docs/{name}")


if __name__ == "__main__":
    main()
