"""Settling a sweep in a store: what is recorded, what goes on after a kill, what is refused. The trainings are
invented."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from modal_app.store.lines import append_line
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.command.settle import main
from runner.errors import SweepError
from runner.launch.plan import make_plan
from runner.settle.log import Log, Round, SeedRun, Settling, further_seeds
from runner.settle.policy import Terms
from runner.settle.rounds import Ending, Result, RoundResult, settle
from runner.settle.sweep import Sweep, read_sweep
from runner.settle.words import closing_lines
from runner.store.ledger import Ledger
from runner.types import DataChoice, Run
from tests.runner.builders import finish, finish_run, log_losses, open_sweep, run
from tests.runner.settling import losses_of

TERMS = Terms(looks=4, worth=0.005, max_seeds=8)
RATES = (0.001, 0.002, 0.003)


def seed_run(rate: float, seed: int, data_seed: int | None = 42) -> Run:
    return run({"base_model": "tiny", "learning_rate": rate, "seed": seed}, data=DataChoice(seed=data_seed))


def train(store: Store, one: Run, losses: dict[float, float]) -> None:
    loss = losses[one.config["learning_rate"]]
    finish_run(store, one, {10: loss})
    losses_of(loss, one.config["learning_rate"], one.config["seed"]).write(store.folder(StepKind.TRAIN, one.key).losses)


@dataclass
class Trainer:
    """Trains nothing: a run ends with its setting's loss, and a random part for its seed."""

    losses: dict[float, float]
    launched: list[tuple[float, int]] = field(default_factory=list)
    killed_after: int | None = None
    """It dies when so many runs have been trained."""
    affords: int | None = None
    diverges: tuple[float, int] | None = None
    """The rate and the seed of a run whose loss ends far above its first value."""
    breaks: tuple[float, int] | None = None
    """Those of a run that ends with a NaN."""

    def affordable(self, now: Sweep, settling: Settling, runs: Sequence[SeedRun]) -> list[SeedRun]:
        return list(runs) if self.affords is None else list(runs)[: self.affords - len(self.launched)]

    def launch(self, now: Sweep, settling: Settling, opened: Round) -> RoundResult:
        runs = [seed_run(now.facts[one.like].config["learning_rate"], one.seed) for one in opened.runs]
        plan = make_plan(runs, "", lambda _, key: now.store.folder(StepKind.TRAIN, key).done.exists(), added_to=now.id)
        Ledger(now.store, now.id).open(plan, "axosweep settle")
        failures: dict[str, str] = {}
        for one in plan.pending:
            if len(self.launched) == self.killed_after:
                raise KeyboardInterrupt
            open_sweep(now.store, [one.run], "not this one")
            self.launched.append((one.run.config["learning_rate"], one.run.config["seed"]))
            if self.launched[-1] == self.breaks:
                nan = FailureReason.NAN
                finish(now.store, StepKind.TRAIN, one.run.key, OutcomeStatus.FAILED, reason=nan, message="a NaN")
                failures[one.run.key] = "a NaN"
                continue
            if (one.run.config["learning_rate"], one.run.config["seed"]) == self.diverges:
                log_losses(now.store, one.run, {0: 0.1})
            train(now.store, one.run, self.losses)
        return RoundResult(failures)


def swept(root: Path, losses: dict[float, float], data_seed: int | None = 42) -> tuple[Store, str]:
    """A sweep of settings that were trained once."""
    store = Store(root)
    runs = [seed_run(rate, 42, data_seed) for rate in losses]
    sweep = open_sweep(store, runs).sweep
    for one in runs:
        train(store, one, losses)
    return store, sweep


def begun(store: Store, sweep: str, terms: Terms = TERMS) -> Settling:
    settling = Settling(terms, further_seeds([42], terms.max_seeds))
    Log(Ledger(store, sweep)).begin(settling)
    return settling


def continue_settling(store: Store, sweep: str, trainer: Trainer) -> Result:
    settling = Log(Ledger(store, sweep)).newest()
    assert settling is not None
    return settle(store, sweep, settling, trainer, lambda *_: None)


FAR = dict(zip(RATES, (1.0, 1.2, 1.5), strict=True))
TIED = dict(zip(RATES, (1.0, 1.0, 1.5), strict=True))


def test_the_seeds_of_runs_that_were_removed_are_used_up(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, TIED)
    begun(store, sweep, replace(TERMS, worth=1e-6, max_seeds=3))
    trainer = Trainer(TIED)
    assert continue_settling(store, sweep, trainer).ending in (Ending.SEEDS, Ending.LOOKS)
    for rate, seed in trainer.launched:
        shutil.rmtree(store.folder(StepKind.TRAIN, seed_run(rate, seed).key).path)
    assert continue_settling(store, sweep, trainer).ending is Ending.SEEDS


def test_seeds_are_added_to_the_sweep_until_one_setting_is_better_than_all_others(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, FAR)
    begun(store, sweep)
    trainer = Trainer(FAR)
    result = continue_settling(store, sweep, trainer)
    assert result.ending is Ending.SEPARATED
    assert result.sweep.name(result.sweep.estimate.leader) == "learning_rate=0.001"
    assert sorted(trainer.launched) == [(0.001, 1), (0.001, 2), (0.002, 1), (0.002, 2)]
    assert len(Ledger(store, sweep).plan().runs) == len(result.sweep.rows) == 7
    again = continue_settling(store, sweep, trainer)
    assert (again.ending, len(again.settling.looks), len(trainer.launched)) == (Ending.SEPARATED, 1, 4)


def test_contenders_that_do_not_differ_by_what_is_worth_having_are_equal(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, TIED)
    begun(store, sweep, Terms(4, 0.1, 8))
    result = continue_settling(store, sweep, Trainer(TIED))
    assert result.ending is Ending.EQUAL
    assert {result.sweep.name(one) for one in result.sweep.estimate.group} == {
        "learning_rate=0.001",
        "learning_rate=0.002",
    }


@pytest.mark.medium
def test_a_kill_costs_no_look_and_no_run(tmp_path: Path) -> None:
    terms = Terms(2, 1e-6, 4)
    alone, first = swept(tmp_path / "alone", TIED)
    begun(alone, first, terms)
    undisturbed = Trainer(TIED)
    expected = continue_settling(alone, first, undisturbed)
    assert (expected.ending, len(expected.settling.looks)) == (Ending.LOOKS, 2)
    assert len(undisturbed.launched) == 6

    for moment, lines in ((1, 2), (4, 3), (4, 4)):  # in the first round; before and after the second one was recorded
        store, sweep = swept(tmp_path / f"killed after {moment}, {lines}", TIED)
        begun(store, sweep, terms)
        killed, after = Trainer(TIED, killed_after=moment), Trainer(TIED)
        with pytest.raises(KeyboardInterrupt):
            continue_settling(store, sweep, killed)
        path = Ledger(store, sweep).folder / "settle.jsonl"
        kept = path.read_bytes().splitlines(keepends=True)[:lines]
        path.write_bytes(b"".join(kept) + b'{"event": "rou')  # a kill while it was written
        result = continue_settling(store, sweep, after)
        assert [*killed.launched, *after.launched] == undisturbed.launched
        assert result.settling.events == expected.settling.events


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({}, "it lacks 'event'"),
        ({"event": "begun", "worth": 0.005, "max_seeds": 8, "seeds": [1]}, "it lacks 'looks'"),
        ({"event": "begun", "looks": [], "worth": 0.005, "max_seeds": 8, "seeds": [1]}, "int() argument must be"),
        ({"event": "round", "runs": [{"like": "0a1b2c", "seed": None}]}, "int() argument must be"),
        ({"event": "round", "runs": [{"like": "0a1b2c", "seed": 1}]}, "the sweep has no run 0a1b2c"),
        ({"event": "look", "verdict": "maybe", "group": []}, "'maybe' is not a valid Conclusion"),
        ({"event": "look", "verdict": None, "group": [5]}, "'int' object is not iterable"),
    ],
)
def test_a_damaged_line_is_refused_since_each_look_counts(tmp_path: Path, line: dict[str, object], why: str) -> None:
    store, sweep = swept(tmp_path, TIED)
    begun(store, sweep, TERMS)
    path = Ledger(store, sweep).folder / "settle.jsonl"
    append_line(path, line)
    with pytest.raises(SweepError) as refused:
        main([sweep, "--store", str(store.root)])
    assert f"A line of {path} cannot be read ({why}" in str(refused.value)
    assert "delete it to start over" in str(refused.value)


def test_looks_end_even_if_nothing_is_settled(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, TIED)
    begun(store, sweep, Terms(1, 1e-6, 8))
    result = continue_settling(store, sweep, Trainer(TIED))
    assert (result.ending, len(result.settling.looks)) == (Ending.LOOKS, 1)


def test_what_is_left_of_the_budget_is_spent_and_no_more_until_there_is_more(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, FAR)
    begun(store, sweep)
    short = Trainer(FAR, affords=3)
    assert continue_settling(store, sweep, short).ending is Ending.BUDGET
    assert len(short.launched) == 3
    assert continue_settling(store, sweep, Trainer(FAR)).ending is Ending.SEPARATED


def test_a_seed_whose_loss_is_not_a_number_is_a_failure_and_not_left_out(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, FAR)
    begun(store, sweep)
    result = continue_settling(store, sweep, Trainer(FAR | {0.002: float("nan")}))
    assert result.ending is Ending.FAILED
    assert "is not a number" in result.failures[0]


def test_a_setting_of_which_a_seed_diverges_is_left_out_and_the_rest_is_settled(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, FAR)
    begun(store, sweep)
    trainer = Trainer(FAR, diverges=(0.001, 1))
    result = continue_settling(store, sweep, trainer)
    assert result.ending is Ending.SEPARATED
    assert result.sweep.name(result.sweep.estimate.leader) == "learning_rate=0.002"
    assert {rate for rate, _ in trainer.launched[4:]} == {0.003}, "0.002 has three seeds by then"
    assert "Settings with a diverged seed are left out: learning_rate=0.001." in closing_lines(result)


def test_a_run_that_ends_with_a_nan_is_not_paid_for_again_and_its_setting_is_left_out(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, FAR)
    begun(store, sweep)
    trainer = Trainer(FAR, breaks=(0.001, 1))
    result = continue_settling(store, sweep, trainer)
    assert result.ending is Ending.SEPARATED
    assert result.sweep.name(result.sweep.estimate.leader) == "learning_rate=0.002"
    assert trainer.launched.count((0.001, 1)) == 1


def test_with_a_single_setting_left_that_has_not_diverged_there_is_nothing_to_settle(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, {0.001: 1.0, 0.002: 1.2})
    begun(store, sweep)
    with pytest.raises(SweepError, match=r"fewer than two settings .* diverged seed are left out: learning_rate=0.001"):
        continue_settling(store, sweep, Trainer(FAR, diverges=(0.001, 1)))


def test_dollars_are_not_compared_with_seconds(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, TIED)
    now = read_sweep(store, sweep, TERMS)
    first, second = (now.runs_of(one)[0] for one in now.estimate.group)
    costs = {first: {"dollars": 0.5, "train_seconds": 90.0}, second: {"dollars": None, "train_seconds": 30.0}}
    facts = {key: replace(one, **costs.get(key, {})) for key, one in now.facts.items()}  # type: ignore[arg-type]
    assert now.estimate.group[1] == replace(now, facts=facts).cheapest


@pytest.mark.medium
def test_what_is_fixed_before_the_first_look_is_refused_later_unless_it_starts_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, sweep = swept(tmp_path, FAR)
    begun(store, sweep)
    assert continue_settling(store, sweep, Trainer(FAR)).ending is Ending.SEPARATED
    with pytest.raises(
        SweepError, match=r"--looks 4 --worth 0\.5% --max-seeds 8, and these values are fixed .* --again"
    ):
        main([sweep, "--looks", "8", "--store", str(tmp_path)])
    assert main([sweep, "--looks", "4", "--store", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["ending"], printed["settled"], printed["looks"]) == ("separated", True, 1)
    assert len(printed["added"]) == 4
    assert main([sweep, "--looks", "8", "--again", "--store", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["looks"], printed["max_looks"], printed["added"]) == (1, 8, []), "of all runs that are there"


@pytest.mark.medium
def test_again_starts_over_once_all_seeds_are_used_and_not_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, sweep = swept(tmp_path, TIED)
    begun(store, sweep, Terms(4, 1e-6, 3))
    assert continue_settling(store, sweep, Trainer(TIED)).ending is Ending.SEEDS
    assert main([sweep, "--plan", "--store", str(tmp_path)]) == 0
    assert "next    nothing: each contender has 3 seeds\n" in capsys.readouterr().out

    log = Ledger(store, sweep).folder / "settle.jsonl"
    complete = log.read_text()
    killed = "".join(complete.splitlines(keepends=True)[:2])  # before the first look was recorded
    same = ["--looks", "4", "--worth", "0.0001%", "--max-seeds", "3"]
    for text, times in ((killed, 1), (complete, 2)):
        log.write_text(text)
        assert main([sweep, "--again", *same, "--store", str(tmp_path)]) == 3
        assert log.read_text().count("begun") == times
        assert "Not settled: each contender has 3 seeds (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--worth", "0.5"], r"--worth: 0\.5: a percentage is expected, such as 0\.5%"),
        (["--max-seeds", "2"], "with at least 3 seeds of two settings"),
        (["budget=5"], "budget=5: it limits the dollars spent on Modal"),
        (["budget=none"], "budget=none: expected US dollars"),
        (["lora=r8"], "so it takes no override but budget=DOLLARS"),
    ],
)
def test_a_mistake_on_the_command_line_has_a_way_out(tmp_path: Path, words: list[str], message: str) -> None:
    swept(tmp_path, FAR)
    with pytest.raises(SweepError, match=message):
        main([*words, "--store", str(tmp_path)])


def test_a_sweep_that_its_rows_cannot_tell_apart_is_refused(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path / "no losses", FAR)
    for losses in store.runs.glob("*/losses.npz"):
        losses.unlink()
    with pytest.raises(SweepError, match=r"3 of the 3 finished runs .* no per-row losses.* `axosweep eval"):
        read_sweep(store, sweep, TERMS)

    store, sweep = swept(tmp_path / "own rows", FAR, data_seed=None)
    with pytest.raises(SweepError, match=r"data\.seed=null, so each seed is evaluated on other held-out rows"):
        read_sweep(store, sweep, TERMS)

    store = Store(tmp_path / "two")
    runs = [seed_run(0.001, 42), seed_run(0.002, 42, data_seed=7)]
    sweep = open_sweep(store, runs).sweep
    for fingerprint, one in zip("ab", runs, strict=True):
        finish_run(store, one, {10: 1.0}, eval_fingerprint=fingerprint)
    with pytest.raises(SweepError, match="2 different sets of held-out rows"):
        read_sweep(store, sweep, TERMS)

    store, sweep = swept(tmp_path / "one", {0.001: 1.0})
    with pytest.raises(SweepError, match="fewer than two settings"):
        read_sweep(store, sweep, TERMS)


def test_the_more_looks_the_wider_the_intervals_of_each(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path, FAR)
    assert [Terms(looks, 0.005, 8).level for looks in (1, 4)] == [0.95, 0.9875]
    once, often = (read_sweep(store, sweep, Terms(looks, 0.005, 8)).estimate.intervals.q for looks in (1, 4))
    assert once < often


def test_seeds_that_the_sweep_has_are_not_used_again() -> None:
    assert further_seeds([42, 1, 3], 4) == (2, 4, 5, 6)
