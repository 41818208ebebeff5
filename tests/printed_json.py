"""Outputs of --json, compared with the schema of their verb."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from scripts.json_schemas import PRINTED, adapter

LIKE_A_LAUNCH = "attach"


def read_printed(verb: str, text: str) -> Any:
    """The output of a verb, or of a launch. It has exactly the fields of a type that the verb prints, with values of
    their types."""
    verb = verb if verb in PRINTED else LIKE_A_LAUNCH
    adapter(verb).validate_json(text, strict=True)
    printed = json.loads(text)
    assert any(
        _fields(printed) == {one.name for one in dataclasses.fields(kind)} - {"version"} for kind in PRINTED[verb]
    )
    return printed


def _fields(printed: dict[str, Any]) -> set[str]:
    return {*printed} - {"version"}
