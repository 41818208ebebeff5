"""What a plan shows besides its runs: its datasets and models, whether they exist, and the command that runs it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from modal_app.store.facts import DataManifest
from modal_app.store.layout import Store
from runner.console.numbers import counted
from runner.keys.code import Code, find_code
from runner.keys.hub_commits import hub_cache
from runner.keys.inputs import hub_name, is_dataset
from runner.types import InputKind, Plan

PLAN_OVERRIDES = ("action=plan", "json=true")
"""What the verb adds to a command line."""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    key: str
    done: bool
    runs: int
    """How many of the plan's runs read it."""
    rows: int | None
    """Rows to train on; None until the dataset is prepared."""
    eval_rows: int | None


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the hub that is not a dataset."""

    name: str
    commit: str | None
    fetched: bool | None
    """Whether this machine's hub cache has it; None where it is fetched elsewhere."""


@dataclass(frozen=True, slots=True)
class RunCounts:
    new: int
    finished: int
    duplicates: int
    """Runs that the same command requests again."""


def counts(plan: Plan) -> RunCounts:
    finished = len(plan.runs) - len(plan.pending)
    return RunCounts(len(plan.pending), finished, sum(one.copies - 1 for one in plan.runs))


def datasets(plan: Plan, store: Store) -> list[DatasetFacts]:
    facts = []
    for dataset in plan.datasets:
        known = DataManifest.read(store.manifest(dataset.key)) if dataset.done else DataManifest()
        rows = known.rows, known.eval_rows
        facts.append(DatasetFacts(dataset.key, dataset.done, len(dataset.runs), *rows))
    return facts


def models(plan: Plan) -> list[HubModel]:
    """Of the runs that would train, each repository and commit once."""
    found: dict[tuple[str, str | None], HubModel] = {}
    for planned in plan.pending:
        here = planned.run.experiment.executor.type == "local"
        for one in planned.run.inputs:
            if one.kind is InputKind.HUB and not is_dataset(one.at):
                name = hub_name(one)
                fetched = _is_fetched(name, one.identity) if here else None
                found.setdefault((name, one.identity), HubModel(name, one.identity, fetched))
    return list(found.values())


def code(plan: Plan) -> list[Code]:
    """The Python that the runs that would train make a trainer run, besides Axolotl's, each once."""
    found: dict[Code, None] = {}
    for planned in plan.pending:
        found |= dict.fromkeys(find_code(planned.run.experiment, planned.run.inputs))
    return list(found)


def _is_fetched(name: str, commit: str | None) -> bool:
    snapshots = hub_cache() / f"models--{name.replace('/', '--')}" / "snapshots"
    return commit is not None and (snapshots / commit).is_dir()


def command(arguments: Sequence[str]) -> str:
    """The command line that runs what this one planned, for a shell.

    >>> command(["-m", "lora=r8,r16", "name=a b", "action=plan", "json=true"])
    "axosweep -m lora=r8,r16 'name=a b'"
    """
    return shlex.join(["axosweep", *(word for word in arguments if word not in PLAN_OVERRIDES)])


def lines(plan: Plan, store: Store, arguments: Sequence[str], *, ready: bool = True) -> list[str]:
    """For people. `ready`: a launch would not be refused, so the command is shown."""
    texts = [f"data {one.key}: {_dataset(one)}" for one in datasets(plan, store)]
    texts += [f"model {one.name}: {_model(one)}" for one in models(plan)]
    texts += [f"runs code {one}" for one in code(plan)]
    return [*texts, f"Run it: {command(arguments)}"] if plan.pending and ready else texts


def _dataset(one: DatasetFacts) -> str:
    runs = counted(one.runs, "run")
    if not one.done:
        return f"to be tokenized, for {runs}"
    held_out = f", {one.eval_rows} held out" if one.eval_rows else ""
    return f"ready ({one.rows} rows{held_out}), for {runs}"


def _model(one: HubModel) -> str:
    if one.fetched:
        return "in this machine's hub cache"
    return (
        "to be fetched from the hub" if one.fetched is False else "fetched from the hub once, before any GPU is rented"
    )
