"""What has to hold after modal_soak.py, whatever has happened in it: each check is a list of what contradicts it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.modal_soak_faults import Hit
from benchmarks.modal_soak_worker import MODULUS, TRAINED, first_value, next_value
from modal_app.cloud.container import TICK_S
from modal_app.cloud.meter import ContainerRecord
from modal_app.halving.choose import who_goes_on
from modal_app.halving.entries import FileEntries
from modal_app.halving.snapshot import Snapshot
from modal_app.store.layout import StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.state import observe
from modal_app.store.step import Outcome, OutcomeStatus, StepKind
from tests.modal_server.views import Task

EDGE_S = 8.0
"""The server's seconds of a container before its first process and after its last record, on a loaded machine."""
LATE_S = 6.0
"""A commit that follows a tick may take so long, on such a machine."""


@dataclass(frozen=True)
class TrainedSteps:
    """The steps that one container has trained in one attempt."""

    attempt: int
    task: str
    steps: tuple[int, ...]


def trained_of(log: str) -> dict[str, list[TrainedSteps]]:
    """Run key -> what its containers have printed, in the order of the attempts. A container and its worker print to
    the same place, so a line may begin with something else.
    """
    steps: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for line in log.splitlines():
        _, found_here, rest = line.partition(TRAINED)
        words = [found_here, *rest.split()]
        if found_here:
            steps[words[1], int(words[2]), words[3]].append(int(words[4]))
    found: dict[str, list[TrainedSteps]] = defaultdict(list)
    for (key, attempt, task), numbers in sorted(steps.items()):
        found[key].append(TrainedSteps(attempt, task, tuple(numbers)))
    return found


def needed_steps(store: Store, keys: Sequence[str], steps: int) -> dict[str, int]:
    """How many steps each run has to train: those up to the rung where it has stopped, or all."""
    found = {}
    for key in keys:
        outcome = observe(store, StepKind.TRAIN, key).outcome
        stopped = outcome is not None and outcome.status is OutcomeStatus.AT_RUNG
        found[key] = int(outcome.facts["step"]) if outcome and stopped else steps
    return found


def at_rest(store: Store, needed: Mapping[str, int], steps: int) -> list[str]:
    """What is wrong with a search at its end: a run that should have gone on from a rung, and did not."""
    wrong = []
    for folder in store.sweeps.glob("*/rungs/*"):
        snapshot = Snapshot.of(FileEntries(folder).items())
        for rung in range(1, len(snapshot.terms.fractions) + 1):
            left = [run for run in who_goes_on(snapshot, rung) if not snapshot.has_gone(rung, run)]
            wrong += [f"{run}: it should go on from rung {rung}, but has no entry `go`" for run in left]
        parked = [run for run, number in needed.items() if number < steps]
        gone = [run for run in parked if snapshot.has_gone(snapshot.last_rung(run), run)]
        wrong += [f"{run}: it has an entry `go`, but was not started again" for run in gone]
    return wrong


def losses(store: Store, needed: Mapping[str, int]) -> list[str]:
    """The logged losses are those of an undisturbed run. A step that was trained again may be logged twice."""
    wrong = []
    for key, steps in needed.items():
        path = _curve(store.folder(StepKind.TRAIN, key))
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        value, right = first_value(key), {}
        for number in range(1, steps + 1):
            value = next_value(value)
            right[number] = value / MODULUS
        logged = {(line["step"], line["loss"]) for line in lines}
        if logged != set(right.items()):
            wrong.append(f"{key}: {len(logged ^ set(right.items()))} losses are not those of an undisturbed run")
    return wrong


def _curve(folder: StepFolder) -> Path:
    """The curve of a finished run, or of the attempt in which a run has stopped."""
    if folder.done.exists():
        return folder.metrics
    stopped = [one for one in folder.attempts() if read_json(one.result).get("status") == OutcomeStatus.AT_RUNG]
    return folder.draft_of(stopped[-1].number).metrics if stopped else folder.metrics


def results(store: Store, keys: Sequence[str], first_seen: Mapping[str, bytes]) -> list[str]:
    """Every result says that the run has succeeded, and is the one that was there first; no attempt was given up."""
    wrong = []
    for key in keys:
        folder = store.folder(StepKind.TRAIN, key)
        now = folder.done.read_bytes() if folder.done.exists() else b""
        if not now or Outcome.from_json(now.decode()).status is not OutcomeStatus.SUCCEEDED:
            wrong.append(f"{key}: no result")
        elif now != first_seen.get(key, now):
            wrong.append(f"{key}: its result was written twice")
        for attempt in folder.attempts():
            result = read_json(attempt.result)
            if result.get("status") == OutcomeStatus.FAILED:
                wrong.append(f"{key}, attempt {attempt.number}: {result.get('message')}")
    return wrong


def training(
    store: Store, trained: Mapping[str, Sequence[TrainedSteps]], hits: Sequence[Hit], needed: Mapping[str, int]
) -> list[str]:
    """No two containers make the same attempt, and steps are trained again only where an attempt died, or where two
    containers may have worked at once."""
    wrong = []
    shared = {hit.key for hit in hits if hit.kind == "delivered twice"}
    lost_for_all = any(hit.kind == "Dict entries lost" for hit in hits)
    for key, all_ in trained.items():
        numbers = [one.attempt for one in all_]
        if len(numbers) != len(set(numbers)):
            wrong.append(f"{key}: two containers made the same attempt: {numbers}")
        folder = store.folder(StepKind.TRAIN, key)
        allowed = 0
        for one in all_[:-1]:
            status = read_json(folder.attempt(one.attempt).result).get("status")
            stopped = status in (OutcomeStatus.STOPPED, OutcomeStatus.AT_RUNG)
            allowed += 0 if stopped and key not in shared and not lost_for_all else len(one.steps)
        repeated = sum(len(one.steps) for one in all_) - needed[key]
        if not 0 <= repeated <= allowed:
            wrong.append(f"{key}: {repeated} steps were trained again, at most {allowed} should have been")
    return wrong


def untouched(
    trained: Mapping[str, Sequence[TrainedSteps]],
    hits: Sequence[Hit],
    tasks: Mapping[str, Task],
    needed: Mapping[str, int],
) -> tuple[list[str], int]:
    """A run that met no fault has trained each step once: in one attempt, and one more for each rung where it has
    stopped. Also: how many such runs there were."""
    wrong, count = [], 0
    for key, all_ in trained.items():
        began = min(tasks[one.task].started_at for one in all_)
        ended = max(tasks[one.task].ended_at for one in all_)
        met = [hit for hit in hits if hit.kind != "client killed" and hit.key in ("", key)]
        if any(hit.key or (hit.at <= ended and hit.until >= began) for hit in met):
            continue
        count += 1
        if [step for one in all_ for step in one.steps] != list(range(1, needed[key] + 1)):
            wrong.append(f"{key}: met no fault, and was not trained once")
    return wrong, count


def receipt(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    tasks: Mapping[str, Task],
    hits: Sequence[Hit],
    trained: Mapping[str, Sequence[TrainedSteps]],
) -> tuple[list[str], dict[str, float]]:
    """What is paid is what the containers have recorded; and that is what the server has counted, up to the edges of a
    container and what was not committed of one that was lost. A container without a record has trained nothing."""
    wrong, recorded_s, server_s, most_lost_s = [], 0.0, 0.0, 0.0
    recorded: set[str] = set()
    for row in rows:
        paths = sorted(store.folder(StepKind.TRAIN, str(row["key"])).containers.glob("*.json"))
        records = [ContainerRecord.of(json.loads(path.read_text())) for path in paths]
        if abs(row["paid_seconds"] - sum(one.seconds for one in records)) > 0.01:
            wrong.append(f"{row['key']}: {row['paid_seconds']} s paid, containers have recorded another sum")
        for one in records:
            task = tasks[one.task]
            spent_s = task.ended_at - task.started_at
            recorded.add(one.task)
            recorded_s, server_s = recorded_s + one.seconds, server_s + spent_s
            lost_s = spent_s - one.seconds
            most_lost_s = max(most_lost_s, lost_s)
            if lost_s < -0.5 or lost_s > _may_lose_s(one, task, hits):
                wrong.append(f"{row['key']}, {one.task}: {one.seconds} s recorded, the server counts {spent_s:.1f} s")
    without = {task.id: task.ended_at - task.started_at for task in tasks.values() if task.function == "train"}
    unrecorded = {task: seconds for task, seconds in without.items() if task not in recorded}
    at_work = {one.task for all_ in trained.values() for one in all_}
    wrong += [f"{task}: it trained, but left no record" for task in sorted(at_work & set(unrecorded))]
    figures = {
        "paid_seconds": round(recorded_s, 1),
        "server_seconds": round(server_s, 1),
        "most_lost_by_one_container": round(most_lost_s, 1),
        "containers_without_a_record": len(unrecorded),
        "their_server_seconds": round(sum(unrecorded.values()), 1),
    }
    return wrong, figures


def _may_lose_s(record: ContainerRecord, task: Task, hits: Sequence[Hit]) -> float:
    """The seconds after the last record that was committed."""
    allowed = EDGE_S if record.ended else EDGE_S + TICK_S + LATE_S
    for hit in hits:
        met = hit.task == task.id if hit.task else hit.at <= task.ended_at and hit.until >= task.started_at
        if met and hit.kind in ("unavailable", "connections dropped"):
            allowed += hit.until - hit.at + LATE_S
        if met and hit.kind == "commit refused":
            allowed += TICK_S if hit.detail == "once" else 4 * TICK_S
    return allowed
