"""A search with rungs on this machine: after any kill, nothing is trained twice, and no decision is lost."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from modal_app.halving.choose import who_goes_on
from modal_app.halving.entries import FileEntries
from modal_app.halving.snapshot import Snapshot
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import A_SAVE_S, Axosweep, held_by, kill_all, wait_until

pytestmark = pytest.mark.slow

FULL = (
    "lora_r=4,8", "learning_rate=5e-4,4e-3,3e-2", "data.limit=200", "max_steps=20", "micro_batch_size=4",
    "~evals_per_epoch", "~saves_per_epoch", "eval_steps=10", "save_steps=20", "tracking=disabled",
)  # fmt: skip
WORDS = ("-m", *FULL, "search.rungs=[0.2,0.6]", "search.audit=false")
AT = {1: 4, 2: 12}
"""The step of each rung."""
Losses = dict[tuple[str, int, str], float]


@dataclass(frozen=True)
class LeftAlone:
    """The same search, undisturbed."""

    losses: Losses
    verdicts: str
    copy: Path
    """Of its store."""


def folder_of(axosweep: Axosweep) -> Path:
    """A snapshot of its only search."""
    (found,) = axosweep.store.sweeps.glob("*/rungs/*")
    return found


def snapshot(axosweep: Axosweep) -> Snapshot:
    return Snapshot.of(FileEntries(folder_of(axosweep)).items())


def steps_of(axosweep: Axosweep, key: str) -> list[tuple[int, int]]:
    """Each training step that a run has logged, as (attempt, step), in order."""
    metrics = axosweep.store.folder(StepKind.TRAIN, key).metrics
    lines = [json.loads(text) for text in metrics.read_text().splitlines() if text.endswith("}")]
    return [(line["attempt"], line["step"]) for line in lines if "loss" in line]


def losses_of(axosweep: Axosweep) -> Losses:
    """Every loss of every run at every step; of a repeated step, the last."""
    found: Losses = {}
    for key in axosweep.run_keys():
        metrics = axosweep.store.folder(StepKind.TRAIN, key).metrics
        for line in map(json.loads, metrics.read_text().splitlines()):
            found |= {(key, line["step"], name): line[name] for name in ("loss", "eval_loss") if name in line}
    return found


def check_at_rest(axosweep: Axosweep, left_alone: LeftAlone, killed: tuple[str, ...] = ()) -> None:
    """All runs that should go on have gone on. Each step was trained once, except those that a killed run has not
    saved. At each step, the loss is that of the undisturbed search."""
    now = snapshot(axosweep)
    assert len(now.at(1)) == 6
    for rung in AT:
        assert who_goes_on(now, rung).keys() <= now.gone.get(rung, {}).keys(), f"at rung {rung}"
    for key in axosweep.run_keys():
        state = observe(axosweep.store, StepKind.TRAIN, key)
        assert state.phase in (Phase.SUCCEEDED, Phase.AT_RUNG), key
        steps = [step for _, step in steps_of(axosweep, key)]
        assert key in killed or steps == sorted(set(steps)), key
        last = now.last_rung(key)
        diverged = now.at(last)[key].loss is None
        reached = 20 if state.phase is Phase.SUCCEEDED else AT[last]
        assert diverged or max(steps) == reached, key
        assert (state.phase is Phase.SUCCEEDED) == now.has_gone(2, key), key
    ours, theirs = losses_of(axosweep), left_alone.losses
    assert {at: loss for at, loss in ours.items() if at in theirs} == {at: theirs[at] for at in ours.keys() & theirs}


def stopped_runs(axosweep: Axosweep) -> list[str]:
    return [path.stem for path in axosweep.store.sweeps.glob("*/rungs/*/stop/*/*.json")]


def live_at_rung(axosweep: Axosweep) -> tuple[str, int] | None:
    """A run that has just recorded its loss at a rung, and the process that trains it."""
    for path in axosweep.store.sweeps.glob("*/rungs/*/loss/1/*.json"):
        if not path.name.startswith(".") and (pid := held_by(axosweep.store, StepKind.TRAIN, path.stem)):
            return path.stem, pid
    return None


@pytest.fixture(scope="module")
def left_alone(waiting: Axosweep, tmp_path_factory: pytest.TempPathFactory) -> LeftAlone:
    waiting.empty()
    done = waiting.run(*WORDS)
    assert done.returncode == 0, done.stderr
    copy = tmp_path_factory.mktemp("left-alone") / "store"
    found = LeftAlone(losses_of(waiting), waiting.verdicts.read_text(), copy)
    check_at_rest(waiting, found)
    before = {key: steps_of(waiting, key) for key in waiting.run_keys()}
    assert waiting.run(*WORDS).returncode == 0
    assert {key: steps_of(waiting, key) for key in waiting.run_keys()} == before, "the same line trains nothing again"
    shutil.copytree(waiting.store.root, copy, symlinks=True)
    return found


@pytest.fixture
def place(axosweep: Axosweep, left_alone: LeftAlone) -> Axosweep:
    axosweep.know_verdicts(left_alone.verdicts)
    return axosweep


def test_a_trainer_that_is_killed_at_a_rung_is_continued_by_the_same_line(
    place: Axosweep, left_alone: LeftAlone
) -> None:
    launcher = place.start(*WORDS)
    victims: list[tuple[str, int]] = []

    def caught() -> bool:
        found = live_at_rung(place)
        victims.extend([found] if found else [])
        return bool(victims)

    wait_until(caught, "a run at a rung", pause_s=A_SAVE_S)
    key, pid = victims[0]
    kill_all([pid])
    said, _ = launcher.communicate(timeout=300)
    lost = observe(place.store, StepKind.TRAIN, key).phase is Phase.LOST
    assert launcher.returncode == int(lost), said
    done = place.run(*WORDS)
    assert done.returncode == 0, done.stderr
    check_at_rest(place, left_alone, killed=(key,))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_two_launchers_at_once_go_on_with_a_search_whose_launcher_has_ended(
    place: Axosweep, left_alone: LeftAlone, number: signal.Signals
) -> None:
    """Meanwhile an entry is cut in half."""
    launcher = place.start(*WORDS)
    wait_until(lambda: bool(stopped_runs(place)), "a run that has stopped")
    launcher.send_signal(number)
    launcher.communicate(timeout=300)
    cut(folder_of(place) / "terms.json")
    cut(next(folder_of(place).glob("stop/1/*.json")))
    both = [place.start(*WORDS), place.start(*WORDS)]
    for one in both:
        said, _ = one.communicate(timeout=300)
        assert one.returncode == 0, said
    check_at_rest(place, left_alone)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_a_reading_that_is_lost_is_taken_again_and_a_sweep_without_rungs_trains_to_the_end(
    place: Axosweep, left_alone: LeftAlone
) -> None:
    shutil.copytree(left_alone.copy, place.store.root, symlinks=True, dirs_exist_ok=True)
    now = snapshot(place)
    key = next(key for key in now.stopped[1] if now.at(1)[key].loss is not None and not now.has_gone(1, key))
    reading = folder_of(place) / "loss" / "1" / f"{key}.json"
    before = json.loads(reading.read_text())
    cut(reading)
    assert place.run(*WORDS).returncode == 0
    assert json.loads(reading.read_text()) == before
    check_at_rest(place, left_alone)
    done = place.run("-m", *FULL)
    assert done.returncode == 0, done.stderr
    assert {observe(place.store, StepKind.TRAIN, one).phase for one in place.run_keys()} == {Phase.SUCCEEDED}
    for one in place.run_keys():
        steps = [step for _, step in steps_of(place, one)]
        assert steps == sorted(set(steps)) == list(range(1, 21)), one
    assert place.run(*WORDS).returncode == 0, "a search of runs that have all finished"
