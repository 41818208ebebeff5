"""What a command shows that follows a sweep of another process."""

import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console

from modal_app.process.bars import BarsState
from modal_app.store.claim import claim
from modal_app.store.layout import Store
from modal_app.store.step import StepKind, write_atomically
from runner.compare.source import facts_of_sweep
from runner.show.following import headway_of_sweep, lines_of
from runner.show.headway import ExpectedSeconds, run_left
from runner.show.screen import Size, screen
from runner.show.sweep_view import SweepView
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus
from tests.runner.builders import begin_attempt, end_attempt, finish, log_losses, open_sweep, run

RUNS = [run({"learning_rate": rate}) for rate in (1, 2, 3)]


def test_the_time_left_is_the_estimate_of_the_launch_corrected_by_what_has_run(store: Store) -> None:
    planned = open_sweep(store, RUNS)
    data = RUNS[0].data_key
    ExpectedSeconds({one.key: 100.0 for one in RUNS} | {data: 30.0}, at_a_time=1).save(store, planned.sweep)

    def left() -> float | None:
        return headway_of_sweep(store, planned.sweep, facts_of_sweep(store, planned.sweep), now=2000.0).left_s

    assert left() == 330.0, "the dataset, then three runs one after the other"
    finish(store, StepKind.PREPROCESS, data)
    assert left() == 300.0
    attempt = begin_attempt(store, StepKind.TRAIN, RUNS[0].key)
    end_attempt(store, StepKind.TRAIN, RUNS[0].key, attempt)
    done = store.folder(StepKind.TRAIN, RUNS[0].key).done
    ended = json.loads(done.read_text()) | {"started_at": 3e9, "finished_at": 3e9 + 150}
    write_atomically(done, json.dumps(ended))
    assert left() == 300.0, "two more, half as long again as was thought"


def test_without_an_estimate_and_before_a_run_has_shown_its_speed_no_time_is_given(store: Store) -> None:
    planned = open_sweep(store, RUNS)
    with claim(store.folder(StepKind.TRAIN, RUNS[0].key)):
        begin_attempt(store, StepKind.TRAIN, RUNS[0].key)
        facts = facts_of_sweep(store, planned.sweep)
        headway = headway_of_sweep(store, planned.sweep, facts, now=facts[0].started_at or 0.0)
        assert headway.left_s is None
        assert headway.counted == "0 of 3 done, 1 running"
        assert "left" not in headway.timed


def test_lines_of_a_sweep_have_its_running_datasets_and_what_tells_its_runs_apart(store: Store) -> None:
    planned = open_sweep(store, RUNS)
    log_losses(store, RUNS[0], {0: 4.0})
    with claim(store.folder(StepKind.PREPROCESS, RUNS[0].data_key)):
        begin_attempt(store, StepKind.PREPROCESS, RUNS[0].data_key)
        lines = lines_of(store, facts_of_sweep(store, planned.sweep))
    assert [(line.kind, line.status) for line in lines] == [
        (StepKind.PREPROCESS, RunStatus.RUNNING),
        *[(StepKind.TRAIN, RunStatus.PENDING)] * 3,
    ]
    assert [line.params for line in lines[1:]] == [{"learning_rate": one} for one in (1, 2, 3)]
    assert lines[1].eval_loss == 4.0


@pytest.mark.parametrize("terminal", [False, True])
def test_the_view_is_redrawn_on_a_terminal_and_is_a_line_for_each_change_in_a_pipe(
    store: Store, terminal: bool
) -> None:
    planned = open_sweep(store, RUNS)
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=terminal)
    view = SweepView(store, planned.sweep, console)
    view.update()
    finish(store, StepKind.TRAIN, RUNS[1].key)
    view.update()
    view.update()
    view.close()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("train      learning_rate=2: succeeded") == (0 if terminal else 1)
    assert ("1 of 3 done" in text) is terminal


def test_compare_says_that_a_sweep_is_not_over_until_it_is(store: Store, command: Callable[..., Any]) -> None:
    planned = open_sweep(store, RUNS)
    finish(store, StepKind.TRAIN, RUNS[0].key)
    with claim(store.folder(StepKind.TRAIN, RUNS[1].key)):
        begin_attempt(store, StepKind.TRAIN, RUNS[1].key)
        note = f"{planned.sweep} is not over: 1 of 3 done, 1 pending, 1 running."
        assert note in command("compare").splitlines()
        assert command("compare", "--json")["notes"] == [note]
    assert "not over" not in command("compare"), "nothing works on it any more"


def test_a_dataset_that_is_tokenized_and_a_run_that_downloads_say_how_far_they_are(store: Store) -> None:
    planned, data = open_sweep(store, RUNS), RUNS[0].data_key
    with (
        claim(store.folder(StepKind.PREPROCESS, data)),
        claim(store.folder(StepKind.TRAIN, RUNS[0].key)),
    ):
        tokenizing = begin_attempt(store, StepKind.PREPROCESS, data)
        since = json.loads(tokenizing.started.read_text())["at"] + 5
        state = BarsState("Tokenizing Prompts", 500, 2000, "examples", since)
        tokenizing.progress.write_text(json.dumps(asdict(state)))
        os.utime(tokenizing.progress, (since + 10, since + 10))
        loading = begin_attempt(store, StepKind.TRAIN, RUNS[0].key)
        state = BarsState("downloading", 1_200_000_000, 4_000_000_000, "B", since)
        loading.progress.write_text(json.dumps(asdict(state)))
        facts = facts_of_sweep(store, planned.sweep)
        dataset, run_line, *_ = lines_of(store, facts)
        assert (dataset.counted, dataset.message) == ("500 of 2000", "Tokenizing Prompts")
        assert dataset.timing is not None
        assert run_left(dataset.timing, [dataset.timing], None, now=since + 10) == pytest.approx(30)
        assert run_line.text().endswith("running  downloading 1.2 GB of 4.0 GB")
        shown = screen(
            [dataset, run_line], headway_of_sweep(store, planned.sweep, facts, since), Size(100, 24), now=since
        )
        text = "\n".join(line.plain for line in shown)
        assert re.search("━━─{8} +500 of 2000 ", text)
        assert "Tokenizing Prompts" in text


def test_the_elapsed_time_ends_with_the_last_run(store: Store) -> None:
    planned = open_sweep(store, RUNS[:1])
    finish(store, StepKind.TRAIN, RUNS[0].key)
    done = store.folder(StepKind.TRAIN, RUNS[0].key).done
    launched = Ledger(store, planned.sweep).records()[0].at
    times = {"started_at": launched + 10, "finished_at": launched + 70}
    write_atomically(done, json.dumps(json.loads(done.read_text()) | times))
    headway = headway_of_sweep(store, planned.sweep, facts_of_sweep(store, planned.sweep), now=launched + 9999)
    assert (headway.counted, headway.timed) == ("1 of 1 done", "1:10 elapsed")
