import io
import json

import pytest
from rich.console import Console

from modal_app.store.claim import claim
from modal_app.store.layout import Store, after_key
from modal_app.store.step import OutcomeStatus, Step, StepKind
from runner.show.progress import Progress
from runner.types import ExecutorChoice, Plan, PlannedStep, Run
from tests.runner.builders import begin_attempt, end_attempt, finish, log_losses, plan, run
from tests.runner.counting_store import CountingStore

ONE, TWO = (run({"learning_rate": rate}) for rate in (1, 2))


def piped() -> Console:
    return Console(file=io.StringIO(), width=10_000)


def watching(store: Store, console: Console, *runs: Run, line_due: bool = False) -> Progress:
    """Every frame is due at once."""
    seconds_between_lines = 0.0 if line_due else 60.0
    return Progress(plan(runs, store), store, console, 0.0, seconds_between_lines)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_in_a_pipe_each_change_is_one_line(store: Store) -> None:
    console = piped()
    with watching(store, console, ONE, TWO) as shown:
        shown.update()
        assert text_of(console) == ""
        finish(store, StepKind.PREPROCESS, ONE.data_key, manifest={"rows": 70})
        for _ in range(3):
            shown.update()
        with claim(store.folder(StepKind.TRAIN, ONE.key)):
            attempt = begin_attempt(store, StepKind.TRAIN, ONE.key)
            shown.update()
        end_attempt(store, StepKind.TRAIN, ONE.key, attempt)
    assert text_of(console).splitlines() == [
        f"preprocess {ONE.data_key}: succeeded  70 rows",
        "train      learning_rate=1: running",
        "train      learning_rate=1: succeeded",
    ]


def test_what_is_known_only_of_a_prepared_dataset_is_noted_once_with_its_runs(store: Store) -> None:
    console = piped()
    with watching(store, console, ONE, TWO) as shown:
        finish(store, StepKind.PREPROCESS, ONE.data_key, manifest={"rows": 70, "eval_rows": 0, "dropped_rows": 30})
        shown.update()
        shown.update()
    noted = [line for line in text_of(console).splitlines() if line.startswith("note: ")]
    assert [line.split(":")[1] for line in noted] == [" sequence_len=null"]
    assert "30 of 100 rows were dropped" in noted[0]


def test_now_and_then_a_line_says_how_far_a_running_run_is(store: Store) -> None:
    console = piped()
    with claim(store.folder(StepKind.TRAIN, ONE.key)), watching(store, console, ONE, line_due=True) as shown:
        attempt = begin_attempt(store, StepKind.TRAIN, ONE.key)
        attempt.train_state.write_text(json.dumps({"max_steps": 50}))
        log_losses(store, ONE, {0: 4.0, 20: 2.5})
        shown.update()
    lines = text_of(console).splitlines()
    assert f"train      {ONE.key}: running  step 20/50  eval loss 2.500" in lines
    assert "sweep      0 of 1 done, 1 running; 0:00 elapsed" in lines


def test_a_run_that_has_succeeded_keeps_its_line_and_is_not_read_again(store: Store) -> None:
    console, counting = piped(), CountingStore(store.root)
    with watching(counting, console, ONE, TWO, line_due=True) as shown:
        finish(store, StepKind.TRAIN, ONE.key)
        shown.update()
        seen = counting.asked[ONE.key]
        finish(store, StepKind.TRAIN, TWO.key, OutcomeStatus.FAILED)
        for _ in range(3):
            shown.update()
        assert counting.asked[ONE.key] == seen
    assert text_of(console).splitlines() == [
        "train      learning_rate=1: succeeded",
        "train      learning_rate=2: failed",
    ]


def test_a_run_on_modal_is_read_to_the_end_since_it_is_paid_for_a_while_yet(store: Store) -> None:
    counting, there = CountingStore(store.root), run(executor=ExecutorChoice("modal"))
    with watching(counting, piped(), there) as shown:
        finish(store, StepKind.TRAIN, there.key)
        shown.update()
        seen = counting.asked[there.key]
        shown.update()
        assert counting.asked[there.key] > seen


@pytest.mark.parametrize("terminal", [False, True])
def test_a_message_with_brackets_is_shown_and_ends_nothing(store: Store, terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal)
    with watching(store, console, ONE) as shown:
        finish(store, StepKind.TRAIN, ONE.key, OutcomeStatus.FAILED, message="unexpected [/INST] in [INST]")
        shown.update()
    assert "unexpected [/INST] in [INST]" in text_of(console)


def test_the_line_of_a_run_that_found_a_damaged_checkpoint_says_so(store: Store) -> None:
    console, folder = piped(), store.folder(StepKind.TRAIN, ONE.key)
    with watching(store, console, ONE):
        finish(store, StepKind.TRAIN, ONE.key)
        facts = {"damaged": "checkpoint-14 is damaged and not used: optimizer.pt is missing"}
        folder.done.write_text(json.dumps(json.loads(folder.done.read_text()) | {"facts": facts}))
    assert text_of(console).splitlines() == [f"train      {ONE.key}: succeeded  {facts['damaged']}"]


def test_what_was_done_before_is_not_shown(store: Store) -> None:
    finish(store, StepKind.PREPROCESS, ONE.data_key)
    finish(store, StepKind.TRAIN, ONE.key)
    console = piped()
    with watching(store, console, ONE, TWO) as shown:
        shown.update()
    assert text_of(console) == ""


def test_an_infer_step_says_how_many_prompts_are_answered(store: Store) -> None:
    console, key = piped(), after_key(ONE.key, "own")
    step = PlannedStep(Step(StepKind.INFER, key, {}, ONE.data_key, run=ONE.key), done=False)
    made = Plan("sweep/after-1", (), (), after=(step,))
    with claim(store.folder(StepKind.INFER, key)), Progress(made, store, console, 0.0, 0.0) as shown:
        attempt = begin_attempt(store, StepKind.INFER, key)
        shown.update()
        attempt.progress.write_text(json.dumps({"done": 64, "of": 128}))
        shown.update()
    lines = text_of(console).splitlines()
    assert f"infer      {ONE.key}: running" in lines
    assert f"infer      {ONE.key}: running  answered 64 of 128" in lines


def test_a_merge_and_an_evaluation_with_one_key_are_reported_once_each(store: Store) -> None:
    console, key = piped(), after_key(ONE.key, "own")
    kinds = (StepKind.MERGE, StepKind.EVALUATE)
    after = tuple(PlannedStep(Step(kind, key, {}, ONE.data_key, run=ONE.key), done=False) for kind in kinds)
    with Progress(Plan("sweep", (), (), after=after), store, console, 0.0, 60.0) as shown:
        finish(store, StepKind.MERGE, key)
        shown.update()
        with claim(store.folder(StepKind.EVALUATE, key)):
            attempt = begin_attempt(store, StepKind.EVALUATE, key)
            for _ in range(3):
                shown.update()
        end_attempt(store, StepKind.EVALUATE, key, attempt)
    assert text_of(console).splitlines() == [
        f"merge      {ONE.key}: succeeded",
        f"evaluate   {ONE.key}: running",
        f"evaluate   {ONE.key}: succeeded",
    ]


def test_what_a_plan_has_said_of_a_run_is_not_noted_again(store: Store) -> None:
    said = run({"val_set_size": 5, "sequence_len": 2048, "datasets": [{"path": "a/b", "type": "alpaca"}]})
    console = piped()
    with watching(store, console, said) as shown:
        finish(store, StepKind.PREPROCESS, said.data_key, manifest={"rows": 7, "eval_rows": 5, "dropped_rows": 30})
        shown.update()
    noted = [line for line in text_of(console).splitlines() if line.startswith("note: ")]
    assert [line.partition("=")[0] for line in noted] == ["note: sequence_len"]
