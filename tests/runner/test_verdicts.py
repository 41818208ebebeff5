"""Which settings `compare` and `best` call the best, and what they say about it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modal_app.store.layout import Store, after_key
from modal_app.store.step import Outcome, OutcomeStatus, StepKind, write_atomically
from runner.cli import main
from runner.compare.ranking import compare_sweep
from runner.compare.row_losses import losses_files, losses_of
from runner.compare.verdicts import verdicts_on
from runner.html_report.gather import gather
from runner.types import Run
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.judged_store import draw_losses, judged_sweep, write_losses
from tests.runner.test_report import strict_json

CLOSE = {1e-4: 1.5, 2e-4: 1.501, 3e-4: 1.502, 1e-3: 1.8}
CLEAR = {1e-4: 1.5, 2e-4: 1.6, 3e-4: 1.7}


def printed(store: Store, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main([*words, "--store", str(store.root)]) == code
    return capsys.readouterr().out


def stars(text: str) -> list[bool]:
    """The mark of each row, in the order of the table."""
    return [line.startswith("*") for line in text.splitlines() if line.rstrip().endswith("succeeded")]


def train_for(store: Store, one: Run, seconds: float) -> None:
    (attempt,) = store.folder(StepKind.TRAIN, one.key).attempts()
    attempt.train_state.write_text(json.dumps({"max_steps": 9, "phases": {"train": seconds}}))


def test_every_setting_that_may_be_as_good_as_the_best_has_the_star_and_the_cheapest_is_named(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, runs = judged_sweep(store, CLOSE)
    for one, seconds in zip(runs, (61.0, 30.5, 90.0, 1.0), strict=True):
        train_for(store, one, seconds)
    text = printed(store, capsys, "compare")
    assert stars(text) == [True, True, True, False]
    lines = text.splitlines()
    assert (
        "These 3 settings cannot be told apart (95 %): learning_rate=0.0001; learning_rate=0.0002; "
        "learning_rate=0.0003. The cheapest is learning_rate=0.0002 (30.5 s of training per run)."
    ) in lines
    assert f"`axosweep settle {sweep}` trains further seeds of these until one is shown to be better." in lines
    assert f"Lowest eval loss: {runs[0].key}  learning_rate=0.0001" in lines
    worst = next(line for line in lines if runs[3].key in line).split()
    assert worst[2:4] == ["1.8000", "0.3000"]
    assert worst[5] == "to"
    assert float(worst[4]) < 0.3 < float(worst[6])
    best = printed(store, capsys, "best", "--cheapest-of-best")
    assert f"Lowest eval loss: {runs[1].key}  learning_rate=0.0002" not in best
    assert f"Cheapest of the best: {runs[1].key}  learning_rate=0.0002" in best
    assert "--cheapest-of-best --write best.yml" in best
    assert json.loads(printed(store, capsys, "best", "--json"))["run"]["key"] == runs[0].key


def test_a_setting_that_is_shown_to_be_better_is_the_only_one_with_a_star(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = judged_sweep(store, CLEAR)
    text = printed(store, capsys, "compare")
    assert stars(text) == [True, False, False]
    assert "learning_rate=0.0001 is better than both others (95 %).\n" in text
    assert "Seed noise unknown: no setting has several seeds, so this holds for these runs, " in text
    assert f"Best: {runs[0].key}  learning_rate=0.0001\n" in text


def test_the_exit_code_tells_a_script_whether_the_best_is_decided(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    clear, _ = judged_sweep(store, CLEAR, name="clear")
    close, _ = judged_sweep(store, {rate / 3: mean for rate, mean in CLOSE.items()}, name="close")
    assert main(["best", "--decided", clear, "--store", str(store.root)]) == 0
    assert "Not decided" not in capsys.readouterr().err
    assert main(["best", "--decided", close, "--store", str(store.root)]) == 3
    assert "Not decided: These 3 settings cannot be told apart" in capsys.readouterr().err
    read = strict_json(printed(store, capsys, "best", "--json", close))
    assert read["undecided"].startswith("These 3 settings")
    assert [one["in_best_group"] for one in read["verdict"]["settings"]] == [True, True, True, False]
    assert strict_json(printed(store, capsys, "best", "--json", clear))["undecided"] == ""


def test_nothing_is_decided_while_a_run_may_still_win(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, runs = judged_sweep(store, CLEAR, name="clear")
    more = run({"learning_rate": 9.0, "seed": 1})
    sweep = open_sweep(store, [*runs, more], "more").sweep
    assert main(["best", "--decided", sweep, "--store", str(store.root)]) == 3
    assert "Not decided: 1 run has not ended, and may be better." in capsys.readouterr().err
    assert "is better than both others" in printed(store, capsys, "compare", sweep), "of those that have finished"


def test_a_verdict_on_settings_with_different_seeds_says_that_these_may_make_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "The settings were trained with different seeds, which may be the only reason"
    one, _ = judged_sweep(store, {1e-4: 1.5}, name="one")
    three, _ = judged_sweep(store, {2e-4: 1.6}, seeds=3, name="three")
    text = printed(store, capsys, "compare", one, three)
    assert f"On these runs, learning_rate=0.0001 has the lowest loss. {warning}" in text
    assert "is better" not in text
    assert "\nLowest eval loss: " in text
    assert main(["best", "--decided", one, three, "--store", str(store.root)]) == 3
    assert warning in capsys.readouterr().err
    alike, _ = judged_sweep(store, {3e-4: 1.5, 4e-4: 1.6}, seeds=2, name="alike")
    assert warning not in printed(store, capsys, "compare", alike)
    assert warning not in printed(store, capsys, "compare", alike, three), "enough seeds are counted in"


def test_different_seeds_are_seen_if_no_column_shows_them(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run({"learning_rate": rate, "seed": seed}) for rate, seed in ((1e-4, 1), (2e-4, 2))]
    for number, one in enumerate(runs):
        finish_run(store, one, {9: 1.5 + number / 10})
        write_losses(store, one, draw_losses(1.5 + number / 10, own=number + 1))
    open_sweep(store, runs)
    text = printed(store, capsys, "compare")
    assert "On these runs, learning_rate=0.0001 has the lowest loss. The settings were trained with different" in text


def test_what_adds_losses_by_row_is_said_of_the_sweeps_that_lack_them(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = {}
    for name, rate in (("old", 5e-4), ("older", 6e-4)):
        lacking[name], runs = judged_sweep(store, {rate: 1.7, rate / 100: 1.8}, name=name)
        for one in runs:
            store.folder(StepKind.TRAIN, one.key).losses.unlink()
    new, _ = judged_sweep(store, CLEAR, name="new")
    said = f"2 runs have no per-row losses: `axosweep eval {lacking['old']}` adds them."
    assert said in printed(store, capsys, "compare", new, lacking["old"])
    assert said in strict_json(printed(store, capsys, "best", "--json", new, lacking["old"]))["undecided"]
    both = " and ".join(f"`axosweep eval {one}`" for one in lacking.values())
    assert f"4 runs have no per-row losses: {both} add them." in printed(store, capsys, "compare", *lacking.values())


def test_settings_with_paths_of_the_same_end_have_different_names(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run({"base_model": f"/models/{name}/out/model", "seed": 1}) for name in ("first", "second")]
    for number, one in enumerate(runs):
        finish_run(store, one, {9: 1.5 + number})
        write_losses(store, one, draw_losses(1.5 + number, own=number))
    sweep = open_sweep(store, runs).sweep
    better = "base_model=/models/first/out/model is better than base_model=/models/second/out/model (95 %).\n"
    assert better in printed(store, capsys, "compare")
    shown = gather(store, sweep)["runs"]
    names = [one["name"] for one in shown]
    assert names == ["base_model=/models/first/out/model", "base_model=/models/second/out/model"]
    assert [f"base_model={one['params']['base_model']}" for one in shown] == names


def test_seeds_are_one_setting_and_their_noise_is_counted_in(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, runs = judged_sweep(store, {1e-4: 1.3, 2e-4: 1.6, 3e-4: 1.301}, seeds=3)
    text = printed(store, capsys, "compare", "--over", "seed")
    groups = text[text.index("Mean over seed") :].splitlines()[2:5]
    assert [line.split()[0] for line in groups] == ["*", "*", "0.0002"]
    assert "Seeds of one setting differ by 0.0020 (standard deviation); the intervals include this.\n" in text
    read = json.loads(printed(store, capsys, "compare", "--json"))
    (verdict,) = read["verdicts"]
    assert [len(one["runs"]) for one in verdict["settings"]] == [3, 3, 3]
    assert [one["key"] for one in read["runs"] if one["is_best"]] == [runs[0].key]
    assert (verdict["seed_degrees"], round(verdict["seed_sd"], 4)) == (6, 0.002)
    heads, first, *_ = printed(store, capsys, "compare", "--csv").splitlines()
    cells = dict(zip(heads.split(","), first.split(","), strict=True))
    assert (cells["verdict.in_best_group"], cells["verdict.difference"]) == ("True", "0.0")
    assert "| * | 0.0003 | 1.3010 | 0.0010 | -0.00" in printed(store, capsys, "compare", "--over", "seed", "--md")


def test_the_seed_noise_of_other_sweeps_is_shown_if_a_sweep_has_no_seeds(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds, _ = judged_sweep(store, {1e-5: 2.0, 2e-5: 2.0}, seeds=2, name="seeds")
    another_model = [run({"base_model": "other", "seed": seed}, overrides=[f"seed={seed}"]) for seed in (1, 2)]
    for one, final in zip(another_model, (1.0, 3.0), strict=True):
        finish_run(store, one, {0: 5.0, 9: final})
    open_sweep(store, another_model, "another-model")
    judged_sweep(store, CLEAR, name="one-seed")
    text = printed(store, capsys, "compare")
    assert f"In {seeds}, seeds of one setting differ by 0.0014 in eval loss (0.071 %).\n" in text


def test_a_setting_with_a_nan_is_not_judged_whatever_its_rows_say(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = judged_sweep(store, CLEAR)
    with store.folder(StepKind.TRAIN, runs[0].key).metrics.open("a") as file:
        file.write('{"step": 7, "loss": null, "not_finite": ["loss"]}\n')
    text = printed(store, capsys, "compare")
    assert "learning_rate=0.0002 is better than learning_rate=0.0003 (95 %).\n" in text
    assert stars(text) == [True, False, False], "the broken run comes last"
    assert f"Best: {runs[1].key}" in text


def test_where_the_mean_over_tokens_names_another_best_than_the_eval_loss_that_is_said(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = judged_sweep(store, CLEAR)
    write_losses(store, runs[0], draw_losses(1.65, own=1))
    text = printed(store, capsys, "compare")
    assert (
        "By eval loss, learning_rate=0.0001 is first; by the mean over tokens, learning_rate=0.0002 is, which is shown "
        "to be better (1.6000 against 1.6500)."
    ) in text
    assert f"Lowest eval loss: {runs[0].key}" in text
    assert printed(store, capsys, "best", "--decided", code=3)


def test_unknown_documents_are_reported(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    judged_sweep(store, CLEAR, documents_known=False)
    assert "so each of the 400 counts as its own." in printed(store, capsys, "compare")


def test_an_old_store_compares_as_before_and_says_what_adds_the_rest(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, runs = judged_sweep(store, CLEAR)
    judged = printed(store, capsys, "compare").splitlines()
    for one in runs:
        store.folder(StepKind.TRAIN, one.key).losses.unlink()
    text = printed(store, capsys, "compare")
    assert stars(text) == [True, False, False]
    assert "95 %" not in text
    assert (
        "It is unknown which differences are chance: 3 runs have no per-row losses: "
        f"`axosweep eval {sweep}` adds them.\n"
    ) in text
    assert [line for line in judged if line.startswith(("Best", "Its"))] == [
        line for line in text.splitlines() if line.startswith(("Best", "Its"))
    ]
    assert "verdict" not in printed(store, capsys, "compare", "--csv")
    assert main(["best", "--cheapest-of-best", "--store", str(store.root)]) == 2
    assert f"`axosweep eval {sweep}` adds them." in capsys.readouterr().err
    assert printed(store, capsys, "best", "--decided", code=3)
    evaluate(store, runs[0], 1, draw_losses(1.5, own=1))
    evaluate(store, runs[1], 1, draw_losses(1.6, own=2))
    text = printed(store, capsys, "compare")
    assert "learning_rate=0.0001 is better than learning_rate=0.0002 (95 %).\n" in text
    assert f"1 run has no per-row losses: `axosweep eval {sweep}` adds them.\n" in text
    assert "judged by `axosweep eval`, the rest" not in text
    write_losses(store, runs[2], draw_losses(1.7, own=3))
    assert "2 runs are judged by `axosweep eval`, the rest by the last evaluation of their training." in printed(
        store, capsys, "compare"
    )


def test_the_note_says_why_runs_have_no_losses_by_row(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, runs = judged_sweep(store, CLEAR)
    for one, why in zip(runs, ("the rows are read as a stream", "the rows are read as a stream", ""), strict=True):
        folder = store.folder(StepKind.TRAIN, one.key)
        folder.losses.unlink()
        outcome = json.loads(folder.done.read_text())
        folder.done.write_text(json.dumps(outcome | {"facts": {"no_row_losses": why} if why else {}}))
    assert (
        "It is unknown which differences are chance: 2 runs have no per-row losses (the rows are read as a stream). "
        f"1 run has no per-row losses: `axosweep eval {sweep}` adds them.\n"
    ) in printed(store, capsys, "compare")
    for number, one in enumerate(runs[1:]):
        write_losses(store, one, draw_losses(1.5 + number, own=number))
    assert "\n1 run has no per-row losses (the rows are read as a stream).\n" in printed(store, capsys, "compare")


@pytest.mark.parametrize(
    ("other", "noted"),
    [({"sample_packing": True}, True), ({"sample_packing": True, "eval_sample_packing": False}, False), ({}, False)],
)
def test_a_table_that_mixes_packed_and_padded_evaluations_says_how_to_read_it(
    store: Store, capsys: pytest.CaptureFixture[str], other: dict[str, bool], noted: bool
) -> None:
    runs = [run({"sample_packing": False}), run({"lora_r": 8, **other})]
    for number, one in enumerate(runs):
        finish_run(store, one, {9: 1.0 + number})
    open_sweep(store, runs)
    assert ("Some of these runs evaluate packed rows" in printed(store, capsys, "compare")) == noted
    assert "packed rows" not in printed(store, capsys, "compare", "--maximize")


def evaluate(store: Store, one: Run, number: int, losses: Any) -> Path:
    folder = store.folder(StepKind.EVALUATE, after_key(one.key, f"own{number}"))
    folder.path.mkdir(parents=True)
    outcome = Outcome(OutcomeStatus.SUCCEEDED, 1, 1.0, 1.0 + number, facts={"metrics": {"eval_loss": 1.0}})
    write_atomically(folder.done, outcome.to_json())
    losses.write(folder.losses)
    return folder.losses


def test_the_losses_of_a_run_are_those_of_its_training_or_of_its_newest_evaluation(store: Store) -> None:
    sweep, runs = judged_sweep(store, {1e-4: 1.5})
    (row,) = compare_sweep(store, sweep)
    evaluate(store, runs[0], 1, draw_losses(1.5, own=1))
    newer = evaluate(store, runs[0], 2, draw_losses(1.4, own=1))
    own = store.folder(StepKind.TRAIN, runs[0].key).losses
    assert losses_files(row)[:2] == [own, newer]
    own.write_bytes(b"PK")
    found = losses_of(row)
    assert found is not None, "one that is damaged is not in the way of an evaluation"
    assert found.about.eval_loss == 1.4
    own.unlink()
    assert losses_files(row)[0] == newer


def test_a_preference_loss_is_not_promised_any_rows(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run({"learning_rate": rate, "rl": "dpo"}) for rate in (1, 2)]
    for one in runs:
        finish_run(store, one, {9: 1.0})
    open_sweep(store, runs)
    assert "chance" not in printed(store, capsys, "compare")


def test_another_metric_than_the_eval_loss_has_no_verdict(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, runs = judged_sweep(store, CLOSE)
    for one in runs:
        with store.folder(StepKind.TRAIN, one.key).metrics.open("a") as file:
            file.write(json.dumps({"step": 9, "loss": 1.0}) + "\n")
    read = json.loads(printed(store, capsys, "compare", "--json", "--metric", "loss"))
    assert (read["verdicts"], read["notes"]) == ([], [])


def test_runs_with_other_rows_than_the_rest_are_left_out_and_counted(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, runs = judged_sweep(store, CLEAR)
    write_losses(store, runs[2], draw_losses(1.7, own=3, other_rows=1))
    assert "1 run is not judged: other rows than the rest" in printed(store, capsys, "compare")
    assert printed(store, capsys, "best", "--decided", code=3), "that one may be better"
    write_losses(store, runs[2], draw_losses(np.nan, own=3))
    (verdict,) = verdicts_on(compare_sweep(store, sweep))
    assert len(verdict.settings) == 2


def test_a_damaged_file_of_losses_is_none(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, runs = judged_sweep(store, CLEAR)
    store.folder(StepKind.TRAIN, runs[2].key).losses.write_bytes(b"PK")
    assert "1 run has no per-row losses" in printed(store, capsys, "compare")
    for one in runs:
        store.folder(StepKind.TRAIN, one.key).losses.write_bytes(b"PK")
    assert "3 runs have no per-row losses: `axosweep eval" in printed(store, capsys, "compare")


def test_rows_of_a_single_document_give_no_verdict_and_the_reason(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = judged_sweep(store, CLEAR)
    for one in runs:
        drawn = draw_losses(1.5, own=1)
        write_losses(store, one, replace(drawn, document=np.zeros_like(drawn.document)))
    assert "It is unknown which differences are chance: the held-out rows are of a single" in printed(
        store, capsys, "compare"
    )
    assert main(["best", "--decided", "--store", str(store.root)]) == 3
    assert "of a single document" in capsys.readouterr().err


def test_status_says_nothing_of_chance(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, _ = judged_sweep(store, CLEAR)
    assert json.loads(printed(store, capsys, "status", sweep, "--json"))["verdicts"] == []


def test_a_setting_of_which_a_seed_is_far_off_is_not_among_the_best_and_the_sentence_says_so(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = judged_sweep(store, {1e-4: 1.5, 2e-4: 1.7, 3e-4: 1.55}, seeds=3)
    write_losses(store, runs[0], draw_losses(0.9, own=1))
    text = printed(store, capsys, "compare")
    assert "learning_rate=0.0003 is better than learning_rate=0.0002 (95 %).\n" in text
    assert "learning_rate=0.0001 is left out of this: its seeds differ far more than those of the others.\n" in text
    assert "By eval loss" not in text
    assert stars(text) == [False] * 3 + [True] * 3 + [False] * 3
    settings = json.loads(printed(store, capsys, "compare", "--json"))["verdicts"][0]["settings"]
    assert [one["is_unsteady"] for one in settings] == [False, False, True]
    assert [one["difference"] == 0 for one in settings] == [True, False, False]


def test_a_small_difference_is_not_printed_as_nought(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, runs = judged_sweep(store, {1e-4: 1.5, 2e-4: 1.50003})
    text = printed(store, capsys, "compare")
    row = next(line for line in text.splitlines() if runs[1].key in line).split()
    assert row[row.index("1.5000") + 1] == "0.000030"
