"""`compare --from wandb`: W&B's runs become the same rows as those of the store, and what cannot be read is one
message."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind
from runner.cli import main
from runner.compare.comparison import comparison_without_store
from runner.compare.ranking import rows_from
from runner.compare.source import facts_of_sweep
from runner.errors import SweepError
from runner.wandb import rows as compare_wandb
from runner.wandb.history import MOST_ROWS, STEP, curves_from
from runner.wandb.local_runs import SUMMARY, receipt_summary
from runner.wandb.messages import TrackedRun
from runner.wandb.rows import Selection, facts_from, locations_of, sampled
from tests.forked_command import COMMAND
from tests.runner.builders import finish_run, open_sweep, run
from tests.wandb_server import serve_wandb
from tests.wandb_server.sdk import LoggedRun, log_runs

NULL = {"folder", "log", "attempts", "store", "record", "overrides"}
"""Fields of a row that W&B cannot fill."""


def rows(losses: Mapping[int, Any]) -> list[dict[str, Any]]:
    return [{"_step": at, STEP: step, "eval/loss": loss} for at, (step, loss) in enumerate(losses.items())]


def tracked(key: str, losses: Mapping[int, Any], **rest: Any) -> TrackedRun:
    given = {"state": "finished", "config": {}, "summary": {}, **rest}
    given["config"] = {"run_key": key, "data_key": "d", "eval_fingerprint": "rows", **given["config"]}
    return TrackedRun(id=key, history=rows(losses), **given)


def test_rows_are_those_of_the_store_but_for_what_wandb_cannot_know(store: Store) -> None:
    runs = [run({"learning_rate": rate, "lora_r": 8, "lora_alpha": 16}) for rate in (1e-3, 2e-3)]
    sweep = open_sweep(store, runs).sweep
    for one, losses in zip(runs, ({0: 3.0, 5: 1.0}, {0: 3.0, 5: 2.0}), strict=True):
        finish_run(store, one, losses)
    composed = {one.key: read_json(store.folder(StepKind.TRAIN, one.key).identity) for one in runs}
    ours = rows_from(facts_of_sweep(store, sweep))
    there = [
        tracked(
            row.key, {0: 3.0, 5: row.final}, composed=composed[row.key],
            config={"data_key": row.data_key, "eval_fingerprint": row.eval_fingerprint, "output_dir": row.key},
            summary=receipt_summary(row) | {name: one for name in SUMMARY if (one := getattr(row, name)) is not None},
        )
        for row in reversed(ours)
    ]  # fmt: skip
    theirs = rows_from(facts_from(sweep, there))
    for our, their in zip(ours, theirs, strict=True):
        first, second = dataclasses.asdict(our), dataclasses.asdict(their)
        assert {name: value for name, value in first.items() if name not in NULL} == {
            name: value for name, value in second.items() if name not in NULL
        }
        assert {name for name in NULL if second[name]} == set()
    assert [row.params for row in theirs] == [{"learning_rate": 1e-3}, {"learning_rate": 2e-3}]


def test_the_last_value_of_a_step_counts_however_the_rows_come() -> None:
    twice = [*rows({3: 1.0, 6: 0.5}), {"_step": 7, STEP: 3, "eval/loss": 0.75}]
    assert curves_from(reversed(twice)).by_name == {"eval_loss": {3: 0.75, 6: 0.5}}


def test_names_are_those_of_the_store_and_the_summary_at_the_end_is_not_a_metric() -> None:
    history = [
        {"_step": 0, STEP: 1, "train/loss": 2.0, "train/tokens/trainable": 64, "train/epoch": 0.5, "_runtime": 3.0},
        {"_step": 1, STEP: 1, "train/train_runtime": 9.0, "train/total_flos": 1e9},
        {"_step": 2, "system": 1.0},
    ]
    assert curves_from(history).by_name == {
        "loss": {1: 2.0}, "tokens/trainable": {1: 64.0}, "epoch": {1: 0.5}, "tokens": {1: 64.0},
    }  # fmt: skip


@pytest.mark.parametrize("strange", ["NaN", "Infinity", math.nan, -math.inf])
def test_a_run_with_a_loss_that_is_not_finite_has_diverged_and_does_not_win(strange: Any) -> None:
    found = rows_from(facts_from("s", [tracked("a", {0: 3.0, 4: strange}), tracked("b", {0: 3.0, 4: 2.0})]))
    assert [(row.key, row.flags, row.is_best) for row in found] == [("b", (), True), ("a", ("diverged",), False)]


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "succeeded"), ("failed", "failed"), ("preempted", "stopped"), ("crashed", "lost")],
)
def test_a_state_is_reported_in_our_words(state: str, status: str) -> None:
    (one,) = facts_from("s", [tracked("a", {}, state=state)])
    assert (one.status, one.message) == (status, "")


def test_a_run_that_has_stopped_at_a_rung_has_not_finished_although_wandb_says_so() -> None:
    at_rung = {"rung": 2, "stopped_at_rung": 2}
    stopped, resumed, goes_on = facts_from(
        "s",
        [
            tracked("a", {0: 3.0, 5: 1.0}, summary=at_rung),
            tracked("b", {0: 3.0, 9: 2.0}, summary={**at_rung, "stopped_at_rung": 0}),
            tracked("c", {0: 3.0}, state="running", summary=at_rung),
        ],
    )
    assert [(one.status, one.rung) for one in (stopped, resumed, goes_on)] == [
        ("stopped at rung", 2), ("succeeded", 0), ("running", 0),
    ]  # fmt: skip
    ranked = rows_from([stopped, resumed])
    assert [row.key for row in ranked if row.is_best] == ["b"]
    assert comparison_without_store(ranked, ["s"]).notes[0].startswith("1 of 2 runs has stopped at a rung")


def test_a_state_that_is_not_known_is_lost_and_the_message_says_which() -> None:
    (one,) = facts_from("s", [tracked("a", {}, state="new")])
    assert (one.status, one.message) == ("lost", "its state in W&B is new, which axosweep does not know")


def test_where_a_run_lacks_its_file_the_parameters_are_what_all_have_in_wandbs_config() -> None:
    composed = {"axolotl": {"learning_rate": 1e-3, "micro_batch_size": 1}}
    whole = {"learning_rate": 1e-3, "lora_r": 8, "output_dir": "x", "weight_decay": 0.1}
    there = [
        tracked("a", {1: 1.0}, config=whole, composed=composed),
        tracked("b", {1: 2.0}, config={"learning_rate": 2e-3, "lora_r": 8}),
    ]
    assert [row.params for row in rows_from(facts_from("s", there))] == [
        {"learning_rate": 1e-3},
        {"learning_rate": 2e-3},
    ]


def test_of_a_key_the_newest_run_counts_and_other_peoples_runs_do_not() -> None:
    stray = TrackedRun("stray", "finished", {"lr": 1}, {}, ())
    there = [tracked("a", {1: 5.0}), stray, tracked("a", {1: 4.0}), tracked("b", {1: 1.0})]
    assert [(row.key, row.final) for row in rows_from(facts_from("s", there))] == [("b", 1.0), ("a", 4.0)]
    assert [one.key for one in facts_from("s", there, only={"a"})] == ["a"]


def test_steps_end_where_the_summary_says_and_otherwise_where_the_config_does() -> None:
    there = [
        tracked("a", {}, config={"max_steps": 6}),
        tracked("b", {}, config={"max_steps": -1}),
        tracked("c", {}, config={"max_steps": -1}, summary={"max_steps": 12}),
    ]
    assert [one.max_steps for one in facts_from("s", there)] == [6, None, 12]


def test_a_run_with_more_rows_than_wandb_gives_is_named() -> None:
    long = TrackedRun("id", "finished", {"run_key": "long"}, {}, [{}] * MOST_ROWS)
    assert sampled([tracked("a", {1: 1.0})]) == []
    assert "these have more: long" in sampled([long])[0]


def test_a_sweep_is_looked_for_where_its_runs_were_tracked_and_otherwise_where_the_config_says(store: Store) -> None:
    runs = [run({"learning_rate": rate}) for rate in (1e-3, 2e-3, 3e-3)]
    sweep = open_sweep(store, runs).sweep
    assert [(one.project, one.entity) for one in locations_of(sweep, store, None, None)] == [("axosweep", "")]
    for one, project in zip(runs, ("early", "late", "late"), strict=True):
        folder = store.folder(StepKind.TRAIN, one.key)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.tracking.write_text(json.dumps({"id": one.key, "group": "g", "project": project, "entity": "us"}))
    places = [(one.project, one.entity) for one in locations_of(sweep, store, None, None)]
    assert places == [("early", "us"), ("late", "us")]
    assert [(one.project, one.entity) for one in locations_of(sweep, store, "mine", None)] == [("mine", "us")]
    assert [(one.project, one.entity, one.tag) for one in locations_of("x", None, None, "me")] == [
        ("axosweep", "me", "sweep:x")
    ]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"^Reading from W&B needs a key for api\.forge\.coreweave\.com.*wandb login"),
        (
            {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://me:hunter2@127.0.0.1:9"},
            r"^W&B does not answer at http://me:\*\*\*@127\.0\.0\.1:9",
        ),
        (
            {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://me:hunter2@127.0.0.1"},
            r"^W&B does not answer at http://me:\*\*\*@127\.0\.0\.1 \(InvalidURL\)\.",
        ),
    ],
)
def test_no_key_and_no_answer_are_one_message(
    store: Store, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], message: str
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(store.root / "netrc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SweepError, match=message):
        compare_wandb.read([Selection("somewhere-1a2b3c")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--project", "mine"], "add --from wandb"),
        (["--from", "wandb"], "for a sweep in W&B, write its complete id"),
    ],
)
def test_flags_that_say_too_little_are_reported(
    store: Store, capsys: pytest.CaptureFixture[str], words: Sequence[str], message: str
) -> None:
    assert main(["compare", "--store", str(store.root), *words]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def axosweep(folder: Path, environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "compare", "--store", str(folder), "--from", "wandb", *words],
        env={**os.environ, **environment}, cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def logged(id: str, group: str, tags: list[str], losses: Mapping[int, float], **config: Any) -> LoggedRun:
    init = {"project": "team", "id": id, "group": group, "tags": tags, "config": {"eval_fingerprint": "rows", **config}}
    return LoggedRun(init, [{STEP: step, "eval/loss": loss} for step, loss in losses.items()])


@pytest.mark.slow
def test_a_sweep_that_ran_elsewhere_is_read_by_its_group_and_its_tag(tmp_path: Path) -> None:
    there = [
        logged("one", "rates-1a2b3c", [], {0: 3.0, 4: 2.0}, run_key="aaaa", learning_rate=0.1),
        logged("two", "old-000000", ["sweep:rates-1a2b3c"], {0: 3.0, 4: 1.0}, run_key="bbbb", learning_rate=0.2),
        logged("three", "old-000000", [], {0: 0.1}, run_key="cccc", learning_rate=0.3),
    ]
    with serve_wandb() as server:
        here = dict(server.environment())
        log_runs(there, {**os.environ, **here, "WANDB_DIR": str(tmp_path)}, tmp_path)
        done = axosweep(tmp_path, here, "rates-1a2b3c", "--project", "team", "--json")
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        assert [(row["key"], row["params"], row["final"], row["is_best"]) for row in made["runs"]] == [
            ("bbbb", {"learning_rate": 0.2}, 1.0, True),
            ("aaaa", {"learning_rate": 0.1}, 2.0, False),
        ]
        assert (made["sweep"], made["store"], made["cost"]) == ("rates-1a2b3c", None, None)
        table = axosweep(tmp_path, here, "rates-1a2b3c", "--project", "team")
        assert "Best: bbbb" in table.stdout, table.stderr

        absent = axosweep(tmp_path, here, "rates-1a2b3c")
        assert absent.returncode == 2
        assert "W&B has no run of a sweep rates-1a2b3c in axosweep" in absent.stderr.replace("\n", " ")
        stranger = axosweep(tmp_path, {**here, "WANDB_API_KEY": "w" * 40}, "rates-1a2b3c")
        assert stranger.returncode == 2
        assert "Is the key right?" in stranger.stderr.replace("\n", " ")
        assert not server.world.unknown
