"""What a sweep has submitted to Modal, as stored on the runs Volume and here: its steps, and the names it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.cloud.job import job_name
from modal_app.store.hub import fetch_names
from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.read_json import read_as
from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.types import Plan


@dataclass(frozen=True, slots=True)
class Names:
    """The names that reading a deployment's results needs."""

    cache_volume: str
    runs_volume: str
    claims: str


@dataclass(frozen=True, slots=True)
class MirroredStep:
    kind: StepKind
    key: str
    data_key: str
    fetches: tuple[str, ...] = ()
    """The jobs that first fetch what it reads from the hub: for a run, only if it reads its own data, since otherwise
    its dataset waits for them."""
    run: str = ""
    """The run of a follow-up step."""
    follows: str = ""
    """The job that a follow-up step needs: `train/<key>`."""
    search: str = ""
    """The search at whose rungs a run may stop."""

    @property
    def name(self) -> str:
        return job_name(self.kind, self.key)


def mirrored_steps(plan: Plan) -> list[MirroredStep]:
    """The steps of a plan, finished ones, too."""
    datasets = [
        MirroredStep(StepKind.PREPROCESS, dataset.key, dataset.key, fetch_names(dataset.step.config))
        for dataset in plan.datasets
    ]
    runs = [
        MirroredStep(
            StepKind.TRAIN,
            one.run.key,
            one.run.data_key,
            fetches=fetch_names(one.step.config) if one.step.own_data else (),
            search=one.step.rungs.search if one.step.rungs else "",
        )
        for one in plan.runs
        if one.trains or one.done
    ]
    after = [
        MirroredStep(
            one.step.kind,
            one.step.key,
            one.step.data_key,
            run=one.step.run,
            fetches=() if one.needs else fetch_names(one.step.config),
            follows=job_name(*one.needs) if one.needs else "",
        )
        for one in plan.after
    ]
    return datasets + runs + after


def before(step: MirroredStep, steps: Sequence[MirroredStep]) -> tuple[str, ...]:
    """The names of all jobs that a step needs, as far as `steps` has them."""
    for one in steps:
        if step.kind is StepKind.TRAIN and (one.kind, one.key) == (StepKind.PREPROCESS, step.data_key):
            return (one.name, *one.fetches)
        if step.follows and one.name == step.follows:
            return (one.name, *before(one, steps))
    return step.fetches


def with_earlier(path: Path, names: Names, steps: Sequence[MirroredStep]) -> list[MirroredStep]:
    """These steps, and before them those that the sweep submitted earlier under the same names: runs may be added to
    a sweep. `path`: of the earlier submission, if there is one."""
    known, earlier = submission_in(path) or (names, [])
    now = {step.name for step in steps}
    return [*(step for step in earlier if known == names and step.name not in now), *steps]


def read_submission(store: Store, sweep: str) -> tuple[Names, list[MirroredStep]]:
    """What a sweep of the mirror has submitted, and under which names. Raises FileNotFoundError when it has not, and
    SweepError when that cannot be read."""
    path = store.sweeps / sweep / SUBMISSION
    if (submitted := submission_in(path)) is not None:
        return submitted
    path.stat()
    raise SweepError(f"{path} cannot be read. Run the same command again: finished runs are skipped.")


def submission_in(path: Path) -> tuple[Names, list[MirroredStep]] | None:
    """None where there is no such file, or one that cannot be read."""
    return read_as(path, _submitted)


def _submitted(raw: Mapping[str, Any]) -> tuple[Names, list[MirroredStep]]:
    steps = [
        MirroredStep(**one | {"kind": StepKind(one["kind"]), "fetches": tuple(one["fetches"])}) for one in raw["steps"]
    ]
    return Names(**raw["names"]), steps


def submitted_as(store: Store, run: str, sweep: str = "") -> str:
    """The sweep whose submission names the Volumes of a run: `sweep`, or, if that had nothing left to do, the newest
    with this run. Raises SweepError when there is none."""
    if sweep and (store.sweeps / sweep / SUBMISSION).exists():
        return sweep
    for path in sorted(store.sweeps.glob(f"*/{SUBMISSION}"), key=lambda path: path.stat().st_mtime, reverse=True):
        if any(step.key == run for step in (submission_in(path) or (None, ()))[1]):
            return path.parent.name
    raise SweepError(f"Run {run} was never submitted to Modal, so it has no files there.")
