"""The Mongo-like filters with which W&B's API requests runs."""

from __future__ import annotations

from typing import Any

from tests.wandb_server.records import Run

COLUMNS = {
    "group": "group", "state": "state", "name": "name", "tags": "tags", "jobType": "job_type", "job_type": "job_type",
    "display_name": "display_name", "displayName": "display_name", "sweep": "sweep",
}  # fmt: skip


def matches(run: Run, wanted: dict[str, Any] | None) -> bool:
    """Raises KeyError for a column or an operator that this fake does not know."""
    return all(_one(run, key, condition) for key, condition in (wanted or {}).items())


def _one(run: Run, key: str, condition: Any) -> bool:
    if key == "$and":
        return all(matches(run, one) for one in condition)
    if key == "$or":
        return any(matches(run, one) for one in condition)
    value = _value(run, key)
    if not isinstance(condition, dict):
        condition = {"$eq": condition}
    return all(_compare(value, operator, operand) for operator, operand in condition.items())


def _compare(value: Any, operator: str, operand: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    checks = {
        "$eq": lambda: operand in values,
        "$ne": lambda: operand not in values,
        "$in": lambda: any(one in operand for one in values),
        "$nin": lambda: not any(one in operand for one in values),
        "$exists": lambda: (value is not None) == bool(operand),
    }
    return bool(checks[operator]())


def _value(run: Run, key: str) -> Any:
    root, _, rest = key.partition(".")
    if root == "config":
        return run.settings.get(rest.removesuffix(".value"))
    if root == "summary_metrics":
        return run.summary.get(rest)
    return getattr(run, COLUMNS[key])
