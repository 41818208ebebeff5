"""What `axosweep plan` does beyond listing its runs: --diff sets them beside a sweep, --write makes files of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from runner.launch import plan_inputs
from runner.launch.plain_configs import write_configs
from runner.launch.plan_diff import PlanDiff, diff_lines, plan_diff
from runner.store.stores import stores
from runner.types import Plan, Request


@dataclass(frozen=True, slots=True)
class Beyond:
    lines: tuple[str, ...]
    """For people."""
    json: Mapping[str, Any]


def beyond(
    plan: Plan, store: Store, request: Request, *, trainer: str, arguments: Sequence[str], ready: bool
) -> Beyond:
    """`trainer`: the hash of what would train. `arguments`: the command line. `ready`: nothing would refuse a launch.

    Raises SweepError for a sweep that is not there, before any file is written, and for files that are in the way.
    """
    diff = plan_diff(plan, stores(request.store), request.diff, trainer=trainer) if request.diff else None
    written = write_configs(plan, request.write) if request.write else []
    said = [
        *(diff_lines(diff) if diff else ()),
        *_written(written),
        *plan_inputs.lines(plan, store, arguments, ready=ready),
    ]
    return Beyond(tuple(said), {**plan_inputs.as_json(plan, store, arguments), **_json(diff, written)})


def _written(files: Sequence[Path]) -> list[str]:
    return [f"written {file}" for file in files]


def _json(diff: PlanDiff | None, written: Sequence[Path]) -> dict[str, Any]:
    described: dict[str, Any] = {"diff": asdict(diff)} if diff else {}
    return described | ({"written": [str(file) for file in written]} if written else {})
