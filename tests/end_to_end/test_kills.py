"""kill -9 at every moment that matters: the status is right, the rest is finished, nothing runs twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import A_SAVE_S, A_STEP_S, Axosweep, held_by, kill, wait_until
from tests.end_to_end.own_code import write_slow_plugin

pytestmark = pytest.mark.slow

WORDS = (
    "-m", "lora=r4,r8", "data.limit=80", "max_steps=15", "save_steps=3", "~evals_per_epoch",
    "eval_steps=6", "micro_batch_size=2", "plugins=[slow.Slow]", "tracking=disabled",
)  # fmt: skip
"""Steps that are slow and take little CPU."""


@dataclass(frozen=True)
class LeftAlone:
    """The same two runs, undisturbed."""

    losses: dict[str, float]
    """The last on the held-out rows, by run."""
    verdicts: str


@pytest.fixture(scope="module")
def left_alone(waiting: Axosweep) -> LeftAlone:
    waiting.empty()
    write_slow_plugin(waiting.folder)
    assert waiting.run(*WORDS).returncode == 0
    return LeftAlone(final_losses(waiting), waiting.verdicts.read_text())


def prepare(place: Axosweep, left_alone: LeftAlone) -> Axosweep:
    write_slow_plugin(place.folder)
    place.know_verdicts(left_alone.verdicts)
    return place


@pytest.fixture
def place(request: pytest.FixtureRequest, moment: str, left_alone: LeftAlone) -> Axosweep:
    """With a preloaded trainer that still imports, or with one that is ready."""
    return prepare(request.getfixturevalue("alone" if moment == FIRST else "axosweep"), left_alone)


def final_losses(axosweep: Axosweep) -> dict[str, float]:
    return {row["key"]: row["final"] for row in axosweep.json("compare")["runs"]}


def preprocessing(axosweep: Axosweep) -> int | None:
    works = [path.name.removesuffix(".work") for path in axosweep.store.prepared.glob("*.work")]
    return next((pid for key in works if (pid := held_by(axosweep.store, StepKind.PREPROCESS, key))), None)


def training(axosweep: Axosweep) -> Iterator[tuple[Path, int]]:
    for key in axosweep.run_keys():
        if pid := held_by(axosweep.store, StepKind.TRAIN, key):
            yield axosweep.store.folder(StepKind.TRAIN, key).path, pid


def alive(axosweep: Axosweep) -> set[str]:
    """The runs that a process trains."""
    return {key for key in axosweep.run_keys() if held_by(axosweep.store, StepKind.TRAIN, key)}


def steps(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count('"loss"') if metrics.exists() else 0


def mid_save(folder: Path) -> bool:
    return any(not (path / "complete.json").exists() for path in folder.glob("model/checkpoint-*"))


Moment = Callable[[Axosweep], int | None]
FIRST, MID_SAVE = "before preprocessing", "in the middle of a save"
MOMENTS: dict[str, Moment] = {
    FIRST: lambda axosweep: axosweep.preloaded() if axosweep.has_a_sweep() else None,
    "during preprocessing": preprocessing,
    "after preprocessing": lambda axosweep: next((pid for _, pid in training(axosweep)), None),
    "in the middle of a step": lambda axosweep: next(
        (pid for folder, pid in training(axosweep) if steps(folder) >= 7), None
    ),
    MID_SAVE: lambda axosweep: next((pid for folder, pid in training(axosweep) if mid_save(folder)), None),
}


def pause_s(moment: str) -> float:
    """The pause before looking again."""
    return A_SAVE_S if moment == MID_SAVE else A_STEP_S


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_trainer_is_reported_and_its_run_finished_later(
    place: Axosweep, left_alone: LeftAlone, moment: str
) -> None:
    launcher = place.start(*WORDS)
    victims: list[int] = []

    def caught() -> bool:
        pid = MOMENTS[moment](place)
        victims.extend([pid] if pid else [])
        return bool(victims)

    wait_until(caught, moment, pause_s=pause_s(moment))
    kill(victims[0])
    said, _ = launcher.communicate(timeout=300)
    # Steps that a preloaded trainer has not begun are submitted to another one.
    assert launcher.returncode == (0 if moment == FIRST else 1), said
    if "preprocessing" not in moment or moment.startswith("after"):
        statuses = Counter(row["status"] for row in place.json("compare")["runs"])
        assert statuses == {"lost": 1, "succeeded": 1}, said
    finish_and_compare(place, left_alone)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_launcher_is_followed_up_and_nothing_runs_twice(
    place: Axosweep, left_alone: LeftAlone, moment: str
) -> None:
    launcher = place.start(*WORDS)
    wait_until(lambda: MOMENTS[moment](place) is not None, moment, pause_s=pause_s(moment))
    kill(launcher.pid)
    launcher.wait()
    orphans = {folder.name: pid for folder, pid in training(place)}
    for pid in orphans.values():  # or it would end before a launch could follow it
        os.kill(pid, signal.SIGSTOP)
    before = alive(place)  # a run that is submitted may begin, and end, while compare looks
    statuses = {row["key"]: row["status"] for row in place.json("compare")["runs"]}
    after = alive(place)
    assert {statuses[key] for key in before & after} <= {"running", "succeeded"}
    assert {key for key, status in statuses.items() if status == "running"} <= before | after
    finish_and_compare(place, left_alone, orphans)
    attempts = [len(place.store.folder(StepKind.TRAIN, key).attempts()) for key in place.run_keys()]
    assert attempts == [1, 1], "orphans are followed, not doubled"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_launch_that_ends_during_axolotls_check_has_begun_nothing(alone: Axosweep, number: signal.Signals) -> None:
    write_slow_plugin(alone.folder)
    temporary = alone.folder / "temporary"
    temporary.mkdir()
    launcher = alone.with_variables({"TMPDIR": str(temporary)}).start(*WORDS)
    wait_until(lambda: alone.preloaded() is not None and any(temporary.glob("axosweep-*")), "Axolotl is asked")
    os.kill(launcher.pid, number)
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, said
    wait_until(lambda: alone.processes() == [], "no process is left", timeout_s=30)
    assert alone.run_keys() == []
    assert alone.records() == []
    assert list(temporary.glob("axosweep-*")) == []


def test_a_newest_checkpoint_cut_in_half_is_not_resumed_from(axosweep: Axosweep, left_alone: LeftAlone) -> None:
    launcher = prepare(axosweep, left_alone).start(*WORDS)
    wait_until(lambda: any(steps(folder) >= 7 for folder, _ in training(axosweep)), "seven steps")
    folder, pid = next((folder, pid) for folder, pid in training(axosweep) if steps(folder) >= 7)
    kill(pid)
    launcher.wait(timeout=300)
    newest = max(folder.glob("model/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    finish_and_compare(axosweep, left_alone)
    assert list(folder.glob("model/broken-checkpoint-*"))


def followed(axosweep: Axosweep) -> set[str]:
    """The steps that a launch found running."""
    return {record["key"] for record in axosweep.records("followed")}


def finish_and_compare(axosweep: Axosweep, left_alone: LeftAlone, frozen: Mapping[str, int] | None = None) -> None:
    """`frozen`: runs and their processes, which go on once the launch follows them."""
    frozen = frozen or {}
    with ThreadPoolExecutor() as threads:
        launch = threads.submit(axosweep.run, *WORDS)
        wait_until(lambda: launch.done() or followed(axosweep) >= frozen.keys(), "the launch follows them")
        for pid in frozen.values():
            os.kill(pid, signal.SIGCONT)
    done = launch.result()
    assert done.returncode == 0, done.stderr
    assert followed(axosweep) >= frozen.keys()
    assert final_losses(axosweep) == left_alone.losses
    successes = Counter(
        record["key"]
        for record in axosweep.records("finished")
        if record["kind"] == StepKind.TRAIN and record["status"] == "succeeded"
    )
    assert set(successes.values()) <= {1}
    wait_until(lambda: axosweep.left_behind() == [], "no process is left", timeout_s=10)
