"""Invalid values: of the wrong type, outside their range, or an unknown name. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from runner.config.fields import Field, Fields, axolotl_fields, plugins_of
from runner.config.numbers import number
from runner.errors import did_you_mean
from runner.preflight.findings import Finding, error, shown
from runner.preflight.ranges import BELOW, IN_DATASETS, RANGES, VAL_SET_SIZE, Range

_TRUTHS = {"0", "1", "f", "t", "n", "y", "no", "yes", "off", "on", "false", "true"}
"""What pydantic reads as a boolean, in upper or lower case."""
_INTERVALS = ("no", "steps", "epoch")
_NAMES = {
    "eval_strategy": _INTERVALS,
    "evaluation_strategy": _INTERVALS,
    "save_strategy": (*_INTERVALS, "best"),
    "sample_packing_mp_start_method": ("fork", "spawn", "forkserver"),
}
"""From transformers' IntervalStrategy and SaveStrategy and Python's multiprocessing; the schema accepts any text."""
_LONG = 12
"""A message lists up to this many names; of more, only the nearest ones."""


def value_findings(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    """Types and ranges at every depth, and names that the schema does not check."""
    # A plugin may convert a value of another type, so then only the schema itself can check types.
    wrong_types = [] if plugins_of(axolotl) else list(_types(axolotl, axolotl_fields().top, ""))
    yield from wrong_types
    reported = {one.key for one in wrong_types}
    yield from (one for one in (*_ranges(axolotl), *_names(axolotl)) if one.key not in reported)


def _types(node: Mapping[str, Any], fields: Fields, before: str) -> Iterator[Finding]:
    for name, value in node.items():
        field = fields.get(str(name))
        if field is None or value is None:
            continue
        key = f"{before}{name}"
        if expected := _wrong(value, field):
            way_out = f"Write {key}=null to leave it unset." if value == "" else ""
            yield error(key, value, f"expected {expected}", way_out)
        elif field.models:
            entries = [(key, value)] if isinstance(value, Mapping) else _entries(key, value)
            for at, entry in entries:
                yield from _types(entry, axolotl_fields().below(field), f"{at}.")


def _entries(key: str, value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    listed = value if isinstance(value, list) else []
    return [(f"{key}.{index}", entry) for index, entry in enumerate(listed) if isinstance(entry, Mapping)]


def _wrong(value: Any, field: Field) -> str:
    """What is expected instead; empty when the value is valid, or when only the schema itself can decide."""
    parts = [part.strip() for part in field.type.split("|")]
    literals = [choice for choice in field.choices if choice in parts]
    plain = [part for part in parts if part in ("int", "float", "bool", "str")]
    if field.open or len(plain) + len(literals) < len(parts):
        return _wrong_shape(value, field, parts)
    if isinstance(value, Mapping | list):
        return "" if value else "one value"  # its content is reported with the unknown keys
    fits = value in literals or any(_fits(value, part) for part in plain)
    return "" if fits else " or ".join(parts)


def _wrong_shape(value: Any, field: Field, parts: list[str]) -> str:
    if field.numbered and not isinstance(value, list) and all(part.startswith("list[") for part in parts):
        return f"a list: [{shown(value)}]"
    if field.models and set(parts) <= set(field.models) and not isinstance(value, Mapping):
        return "a mapping with keys of its own"
    return ""


def _fits(value: Any, kind: str) -> bool:
    """As pydantic converts: text in figures is a number, 0 and 1 are booleans."""
    match kind:
        case "str":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool) or value in (0, 1) or str(value).lower() in _TRUTHS
        case "float":
            return isinstance(value, bool) or number(value) is not None
        case _:
            found = float(value) if isinstance(value, bool) else number(value)
            return found is not None and found.is_integer()


def _ranges(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    for key, value in axolotl.items():
        if key in RANGES:
            yield from _outside(key, value, RANGES[key])
    for at, entry in _entries("datasets", axolotl.get("datasets")):
        for name, one in IN_DATASETS.items():
            yield from _outside(f"{at}.{name}", entry.get(name), one)
    for key, one in BELOW.items():
        top, name = key.split(".")
        node = axolotl.get(top)
        yield from _outside(key, node.get(name) if isinstance(node, Mapping) else None, one)
    held_out = number(axolotl.get("val_set_size"))
    if held_out is not None and not (0 <= held_out < 1 or (held_out >= 2 and held_out.is_integer())):
        yield error("val_set_size", axolotl["val_set_size"], f"expected {VAL_SET_SIZE}")


def _outside(key: str, value: Any, one: Range) -> Iterator[Finding]:
    found = number(value)
    if isinstance(value, str) and found is None:
        yield error(key, value, f"expected a number, {one.text}")
    elif found is not None and not one.holds(found):
        finite = "" if math.isfinite(found) else "a finite number, "
        yield error(key, value, f"expected {finite}{one.text}")


def _names(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    fields = axolotl_fields()
    known = dict(_NAMES)
    if not plugins_of(axolotl):  # a plugin may bring an optimizer or a scheduler of its own
        known |= {key: fields.top[key].choices for key in ("optimizer", "lr_scheduler")}
    for key, names in known.items():
        value = axolotl.get(key)
        if isinstance(value, str) and value not in names:
            yield _unknown_name(key, value, names)
    if any(axolotl.get(key) for key in ("rl", "reward_model", "process_reward_model", "pretraining_dataset")):
        return
    types = fields.models["SFTDataset"]["type"].choices
    for at, entry in _entries("datasets", axolotl.get("datasets")):
        kind = entry.get("type")
        # With a dot it may be the user's own module. The schema refuses sharegpt, and says what to write instead.
        if isinstance(kind, str) and kind and "." not in kind and kind.partition(":")[0] not in (*types, "sharegpt"):
            yield _unknown_name(f"{at}.type", kind, types)


def _unknown_name(key: str, value: str, names: tuple[str, ...]) -> Finding:
    listed = ", ".join(names) if len(names) <= _LONG else f"{len(names)} names"
    meant = did_you_mean(value, names).strip() or ("" if len(names) <= _LONG else f"There are: {', '.join(names)}.")
    return error(key, value, f"no such name; expected one of {listed}", meant)
