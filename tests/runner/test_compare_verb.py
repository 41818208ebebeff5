import json
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.cli import main
from runner.types import Run
from tests.runner.builders import finish_run, open_sweep, run

ONE, TWO, THREE = (run({"learning_rate": rate, "lora_r": 8}) for rate in (1e-4, 2e-4, 3e-4))


@pytest.fixture
def swept(store: Store) -> Store:
    """Two sweeps that share a run."""
    for one, loss in zip((ONE, TWO, THREE), (3.0, 2.0, 1.0), strict=True):
        finish_run(store, one, {0: 5.0, 9: loss})
    open_sweep(store, [ONE, TWO], "first")
    open_sweep(store, [TWO, THREE], "second")
    return store


def rows(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["compare", "--json", "--store", str(store.root), *words]) == 0
    read: dict[str, Any] = json.loads(capsys.readouterr().out)
    return read


def refused(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["compare", "--store", str(store.root), *words]) == 2
    return capsys.readouterr().err


def keys(read: dict[str, Any]) -> list[str]:
    return [one["key"] for one in read["runs"]]


def test_several_sweeps_are_one_table_and_a_run_of_two_appears_once(
    swept: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    read = rows(swept, capsys, "first", "second")
    assert keys(read) == [THREE.key, TWO.key, ONE.key]
    assert [len(one["sweeps"]) for one in read["runs"]] == [1, 2, 1]
    assert (read["sweep"], [one["sweep"].split("-")[0] for one in read["sweeps"]]) == (None, ["first", "second"])
    assert [one["is_best"] for one in read["runs"]] == [True, False, False]


def test_reverse_alone_puts_the_worst_run_first(swept: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(rows(swept, capsys, "--all", "--reverse")) == [ONE.key, TWO.key, THREE.key]
    assert keys(rows(swept, capsys, "--all", "--reverse", "--maximize")) == [THREE.key, TWO.key, ONE.key]


def test_the_name_of_a_key_is_no_markup(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run({"chat_template_kwargs": {"[/b]": value}}) for value in (1, 2)]
    for one in runs:
        finish_run(store, one, {9: 1.0})
    open_sweep(store, runs)
    assert main(["compare", "--store", str(store.root), "--over", "chat_template_kwargs.[/b]"]) == 0
    assert "Mean over chat_template_kwargs.[/b]" in capsys.readouterr().out


def test_all_is_every_sweep(swept: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(keys(rows(swept, capsys, "--all"))) == {ONE.key, TWO.key, THREE.key}
    assert "--all means every sweep: leave out first." in refused(swept, capsys, "--all", "first")


def test_sweeps_of_a_mirror_and_of_this_machine_stand_side_by_side(
    swept: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = Store(swept.root / "modal")
    finish_run(mirror, ONE, {0: 5.0, 9: 0.5})
    open_sweep(mirror, [ONE], "cloud")
    read = rows(swept, capsys, "first", "cloud")
    assert [(one["key"], one["store"]) for one in read["runs"]] == [
        (ONE.key, str(mirror.root)),
        (TWO.key, str(swept.root)),
        (ONE.key, str(swept.root)),
    ]


def test_one_run_or_three_are_a_table(swept: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(rows(swept, capsys, ONE.key)) == [ONE.key]
    assert keys(rows(swept, capsys, ONE.key[:8], TWO.key, THREE.key)) == [THREE.key, TWO.key, ONE.key]


def test_two_runs_of_any_sweeps_are_shown_side_by_side_in_the_requested_order(
    swept: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    read = rows(swept, capsys, THREE.key[:8], ONE.key[:8])
    assert (keys(read), read["difference"], read["config"]) == (
        [THREE.key, ONE.key],
        2.0,
        {"learning_rate": [3e-4, 1e-4]},
    )
    assert main(["compare", "--store", str(swept.root), THREE.key, ONE.key]) == 0
    assert "eval loss by step: • " in capsys.readouterr().out


def test_a_name_that_fits_several_runs_is_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    runs: list[Run] = [run({"learning_rate": rate}) for rate in range(17)]
    open_sweep(store, runs, "x")
    initial = max("0123456789abcdef", key=lambda letter: sum(one.key.startswith(letter) for one in runs))
    assert f"{initial} is the beginning of several runs' keys: " in refused(store, capsys, initial)


def test_what_is_neither_a_sweep_nor_a_run_is_refused(swept: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["frst"], [ONE.key, "frst"]):
        assert "There is no run or sweep frst in " in refused(swept, capsys, *words)


def test_a_run_that_is_named_twice_is_not_compared_with_itself(
    swept: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "are one run, so there is nothing to compare" in refused(swept, capsys, ONE.key, ONE.key[:8])


def test_the_place_of_a_sweep_is_printed_once_for_all_its_runs(
    swept: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--store", str(swept.root), ONE.key, TWO.key, THREE.key]) == 0
    text = capsys.readouterr().out
    places = [line for line in text.splitlines() if line.startswith("Everything: ")]
    assert len(places) == len(set(places)) == 2
    assert main(["compare", "--store", str(swept.root), ONE.key]) == 0
    assert "\n1 run\n" in "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("name", ["loss", "train/loss", "eval_perplexity"])
def test_a_metric_goes_by_the_names_that_others_have_for_it(
    swept: Store, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for one, value in ((ONE, 1.0), (TWO, 2.0), (THREE, 3.0)):
        with (swept.runs / one.key / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 9, "loss": value, "eval_ppl": value}) + "\n")
    assert keys(rows(swept, capsys, "--all", "--metric", name)) == [ONE.key, TWO.key, THREE.key]
    assert keys(rows(swept, capsys, "--all", "--metric", name, "--maximize")) == [THREE.key, TWO.key, ONE.key]


def test_a_metric_that_no_run_has_logged_is_refused_with_the_existing_ones(
    swept: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "None of these runs has logged train_runtime. There are: eval_loss." in refused(
        swept, capsys, "--metric", "train_runtime"
    )


def test_seeds_with_other_held_out_rows_get_the_advice_to_keep_them(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run({"seed": seed}) for seed in (1, 2)]
    for one, fingerprint in zip(runs, ("aaaaaaaaaaaa", "bbbbbbbbbbbb"), strict=True):
        finish_run(store, one, {9: 1.0}, eval_fingerprint=fingerprint)
    open_sweep(store, runs)
    assert main(["compare", "--store", str(store.root), "--over", "seed"]) == 0
    text = capsys.readouterr().out
    assert "With data.seed=42, they are the same for every seed." in text
    assert "Mean over" not in text
    assert main(["compare", "--store", str(store.root), "--over", "seed", "--md"]) == 0
    assert "mean eval loss" not in capsys.readouterr().out
    assert "data.seed=42" in rows(store, capsys, "--over", "seed")["notes"][0]


def test_groups_are_a_table_of_their_own_and_take_the_place_of_rows_in_csv_and_markdown(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run({"lora_r": rank, "seed": seed}) for rank in (8, 16) for seed in (1, 2)]
    for place, one in enumerate(runs):
        finish_run(store, one, {9: 1.0 + place})
    open_sweep(store, runs)
    words = ["compare", "--store", str(store.root), "--over", "seed"]
    assert main(words) == 0
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("*") and len(line.split()) == 6)
    assert line.split() == ["*", "8", "1.5000", "0.7071", "2", "1.0000"]
    assert main([*words, "--csv"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[0] == "lora_r,metric,eval_fingerprint,runs,n,mean,sd,best,diverged,is_best"
    )
    assert main([*words, "--md"]) == 0
    assert "| * | 8 | 1.5000 | 0.7071 | 2 | 1.0000 |" in capsys.readouterr().out


def test_a_store_without_sweeps_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--all"]):
        message = refused(Store(tmp_path), capsys, *words)
        assert "Start one: axosweep -m +sweeps=tiny_grid. If it is in another folder, add --store" in message
    assert "has none yet. Name another store with --store DIR" in refused(Store(tmp_path), capsys, "x")
