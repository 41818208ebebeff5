"""kill -9 at every moment that matters: the truth is told, the rest is finished, nothing runs twice."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modal_app.layout import Store
from modal_app.step import StepKind
from tests.end_to_end.axosweep import Axosweep, held_by, kill, wait_until

pytestmark = pytest.mark.slow

WORDS = ("-m", "lora=r4,r8", "max_steps=24", "~saves_per_epoch", "save_steps=3", "tracking=disabled")


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Axosweep:
    folder = tmp_path_factory.mktemp("undisturbed")
    axosweep = Axosweep(Store(folder / "store"), folder)
    assert axosweep.run(*WORDS).returncode == 0
    return axosweep


@pytest.fixture(scope="module")
def undisturbed(left_alone: Axosweep) -> dict[str, float]:
    """Run key -> final eval loss of the same two runs, left alone."""
    return final_losses(left_alone)


@pytest.fixture
def judged(axosweep: Axosweep, left_alone: Axosweep) -> None:
    """Axolotl's schema has been asked before, so that its preloaded process is needed only to train."""
    axosweep.store.cache.mkdir(parents=True)
    shutil.copy(left_alone.store.cache / "verdicts.json", axosweep.store.cache)


def final_losses(axosweep: Axosweep) -> dict[str, float]:
    return {row["key"]: row["final"] for row in axosweep.json("compare")["runs"]}


def preprocessing(axosweep: Axosweep) -> int | None:
    works = [path.name.removesuffix(".work") for path in axosweep.store.prepared.glob("*.work")]
    return next((pid for key in works if (pid := held_by(axosweep.store, StepKind.PREPROCESS, key))), None)


def training(axosweep: Axosweep) -> Iterator[tuple[Path, int]]:
    for key in axosweep.run_keys():
        if pid := held_by(axosweep.store, StepKind.TRAIN, key):
            yield axosweep.store.folder(StepKind.TRAIN, key).path, pid


def steps(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count('"loss"') if metrics.exists() else 0


def mid_save(folder: Path) -> bool:
    return any(not (path / "complete.json").exists() for path in folder.glob("model/checkpoint-*"))


Moment = Callable[[Axosweep], int | None]
MOMENTS: dict[str, Moment] = {
    "before preprocessing": Axosweep.preloaded,
    "during preprocessing": preprocessing,
    "after preprocessing": lambda axosweep: next((pid for _, pid in training(axosweep)), None),
    "in the middle of a step": lambda axosweep: next(
        (pid for folder, pid in training(axosweep) if steps(folder) >= 7), None
    ),
    "in the middle of a save": lambda axosweep: next(
        (pid for folder, pid in training(axosweep) if mid_save(folder)), None
    ),
}


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_trainer_is_told_of_and_finished_later(
    axosweep: Axosweep, undisturbed: dict[str, float], moment: str
) -> None:
    launcher = axosweep.start(*WORDS)
    victims: list[int] = []
    wait_until(lambda: bool(victims.extend([pid] if (pid := MOMENTS[moment](axosweep)) else []) or victims), moment)
    kill(victims[0])
    said, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 1, said
    if "preprocessing" not in moment or moment.startswith("after"):
        statuses = Counter(row["status"] for row in axosweep.json("compare")["runs"])
        assert statuses == {"lost": 1, "succeeded": 1}, said
    finish_and_compare(axosweep, undisturbed)


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_launcher_is_followed_up_and_nothing_runs_twice(
    axosweep: Axosweep, undisturbed: dict[str, float], moment: str
) -> None:
    launcher = axosweep.start(*WORDS)
    wait_until(lambda: MOMENTS[moment](axosweep) is not None, moment)
    kill(launcher.pid)
    launcher.wait()
    for row in axosweep.json("compare")["runs"]:
        alive = held_by(axosweep.store, StepKind.TRAIN, row["key"]) is not None
        assert (row["status"] == "running") == alive or row["status"] == "succeeded"
    finish_and_compare(axosweep, undisturbed)
    attempts = [len(axosweep.store.folder(StepKind.TRAIN, key).attempts()) for key in axosweep.run_keys()]
    assert attempts == [1, 1], "orphans are followed, not doubled"


@pytest.mark.parametrize(
    ("ended", "number", "code"),
    [
        ("the launcher", signal.SIGINT, 130),
        ("the launcher", signal.SIGTERM, 130),
        ("the one that is asked", signal.SIGKILL, 2),
    ],
)
def test_a_launch_that_ends_while_axolotl_is_asked_has_begun_nothing(
    axosweep: Axosweep, ended: str, number: signal.Signals, code: int
) -> None:
    temporary = axosweep.folder / "temporary"
    temporary.mkdir()
    launcher = replace(axosweep, environment={"TMPDIR": str(temporary)}).start(*WORDS)
    wait_until(lambda: axosweep.preloaded() is not None and any(temporary.glob("axosweep-*")), "Axolotl is asked")
    asked = axosweep.preloaded()
    assert asked is not None
    os.kill(launcher.pid if ended == "the launcher" else asked, number)
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == code, said
    wait_until(lambda: axosweep.processes() == [], "nobody is left", timeout_s=5)
    assert axosweep.run_keys() == []
    assert axosweep.records() == []
    assert list(temporary.glob("axosweep-*")) == []


def test_a_newest_checkpoint_cut_in_half_is_not_resumed_from(axosweep: Axosweep, undisturbed: dict[str, float]) -> None:
    launcher = axosweep.start(*WORDS)
    wait_until(lambda: any(steps(folder) >= 7 for folder, _ in training(axosweep)), "seven steps")
    folder, pid = next((folder, pid) for folder, pid in training(axosweep) if steps(folder) >= 7)
    kill(pid)
    launcher.wait(timeout=300)
    newest = max(folder.glob("model/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    finish_and_compare(axosweep, undisturbed)
    assert list(folder.glob("model/broken-checkpoint-*"))


def finish_and_compare(axosweep: Axosweep, undisturbed: dict[str, float]) -> None:
    done = axosweep.run(*WORDS)
    assert done.returncode == 0, done.stderr
    assert final_losses(axosweep) == undisturbed
    successes = Counter(
        record["key"]
        for record in axosweep.records("finished")
        if record["kind"] == StepKind.TRAIN and record["status"] == "succeeded"
    )
    assert set(successes.values()) <= {1}
    wait_until(lambda: axosweep.processes() == [], "nobody is left", timeout_s=10)
