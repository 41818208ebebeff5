"""A search as a whole: its rounds, what is known of it after a kill, and what it leaves out."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest

import axosweep
from modal_app.store.flock import try_lock
from modal_app.store.layout import Store
from runner import cli
from runner.api import application
from runner.errors import SweepError
from runner.search import methods
from runner.store.ledger import Ledger, sweep_ids
from runner.store.search_note import SearchNote, interrupted_search
from tests.runner.fake_trainer import make_trainer
from tests.runner.played_search import Config, World

COORDINATE = ("search=coordinate", "learning_rate=1e-4,1e-3,1e-2", "lora=r32,r4,r8")
TPE = ("search=tpe", "search.runs=8", "learning_rate=tag(log,interval(1e-5,1e-1))", "lora=r4,r8,r32")
ON_A_CARD = (
    "model=llama3_1_8b", f"revision_of_model={'a' * 40}", "gpu=h100", "sequence_len=4096", "lora=r8",
)  # fmt: skip


def away(config: Config) -> float:
    """A loss with its minimum at a rate of 1e-3 and a rank of 4."""
    return 1 + abs(math.log10(float(config["learning_rate"])) + 3) + abs(math.log2(config["lora_r"] / 4)) / 10


def settings(configs: list[Config]) -> list[tuple[float, int]]:
    return [(one["learning_rate"], one["lora_r"]) for one in configs]


def test_each_round_is_of_one_sweep_and_the_last_launch_has_all_runs(store: Store) -> None:
    world = World(store, away).search(*COORDINATE)
    first, second, closing = map(settings, world.rounds)
    assert first == [(1e-4, 8), (1e-3, 8), (1e-2, 8)]
    assert second == [(1e-3, 4), (1e-3, 32)]
    assert sorted(closing) == sorted(first + second)
    assert world.exit_code == 0
    (sweep,) = sweep_ids(store)
    assert {one.sweep for one in world.requests} == {sweep}
    assert len(Ledger(store, sweep).plan().runs) == 5
    assert SearchNote.read(store, sweep) == SearchNote("coordinate", over=True)


def test_a_plan_shows_the_next_round_and_how_many_may_follow_and_writes_nothing(store: Store) -> None:
    world = World(store, away).search("action=plan", *COORDINATE)
    assert settings(world.rounds[0]) == [(1e-4, 8), (1e-3, 8), (1e-2, 8)]
    assert world.requests[0].round is not None
    assert world.requests[0].round.further == 3, "one step beyond the end of the rate, and two ranks"
    assert world.requests[0].round.beyond == ("learning_rate=1e-05", "learning_rate=0.1")
    assert not store.root.exists()
    drawn = World(store, away).search("action=plan", *TPE).rounds[0]
    assert not store.root.exists()
    assert World(store, away).search(*TPE).rounds[0] == drawn


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The runs of both searches."""
    stores = {words: Store(tmp_path_factory.mktemp("undisturbed")) for words in (COORDINATE, TPE)}
    return {words[0]: set(World(store, away).search(*words).trained) for words, store in stores.items()}


@pytest.mark.medium
@pytest.mark.parametrize(("words", "dies_after"), [(COORDINATE, 0), (COORDINATE, 4), (TPE, 1), (TPE, 5)])
def test_killed_anywhere_the_same_line_goes_on_and_trains_nothing_twice(
    store: Store, words: tuple[str, ...], dies_after: int, undisturbed: dict[str, set[str]]
) -> None:
    world = World(store, away, dies_after=dies_after)
    with pytest.raises(KeyboardInterrupt):
        world.search(*words)
    (sweep,) = sweep_ids(store)
    assert SearchNote.read(store, sweep) == SearchNote(words[0].removeprefix("search="), over=False)
    world.dies_after = math.inf
    world.search(*words)
    assert len(world.trained) == len(set(world.trained))
    assert set(world.trained) == undisturbed[words[0]]
    assert sweep_ids(store) == [sweep]
    before = list(world.trained)
    assert len(world.search(*words).closing) == len(before)
    assert world.trained == before, "a search that is over runs nothing more"


def test_attach_and_status_say_how_to_go_on_with_a_search_whose_launcher_has_ended(store: Store) -> None:
    world = World(store, away, dies_after=1)
    with pytest.raises(KeyboardInterrupt):
        world.search(*COORDINATE)
    (sweep,) = sweep_ids(store)
    assert not interrupted_search(store, sweep), "this process lives"
    records = store.sweeps / sweep / "records.jsonl"
    records.write_text(records.read_text().replace('"pid": ', '"pid": 4194304'))
    further = interrupted_search(store, sweep)
    assert further is not None
    assert further.command.startswith(
        "axosweep -m search=coordinate learning_rate=1e-4,1e-3,1e-2 lora=r32,r4,r8 store="
    )
    assert further.command in further.text
    words = shlex.split(further.command)[1:]
    with pytest.raises(SweepError, match="now gives another search"):
        application.run([*words, "weight_decay=0.1"], world, search=sweep)
    world.dies_after = math.inf
    application.run(words, world, search=sweep)
    assert interrupted_search(store, sweep) is None


def test_with_more_runs_the_search_goes_on(store: Store) -> None:
    world = World(store, away).search(*TPE)
    assert len(world.trained) == 8
    more = [word.replace("search.runs=8", "search.runs=10") for word in TPE]
    assert len(world.search(*more).closing) == 10
    assert len(set(world.trained)) == 10
    assert len(sweep_ids(store)) == 1


def test_other_axes_another_seed_or_another_value_for_all_runs_is_another_search(store: Store) -> None:
    world = World(store, away)
    ids = set()
    for words in (TPE, (*TPE, "search.seed=1"), (*TPE, "weight_decay=0.1"), (*TPE[:-1], "lora=r4,r8"), COORDINATE):
        world.search("action=plan", *words)
        ids.add(world.requests[0].sweep)
    assert len(ids) == 5


def test_a_setting_with_several_seeds_is_as_good_as_their_mean(store: Store) -> None:
    def loss(config: Config) -> float:
        lucky = bool(config["seed"] == 1 and config["learning_rate"] == 1e-2)
        unlucky = bool(config["seed"] == 2 and config["learning_rate"] == 1e-4)
        return away(config) - 1.5 * lucky + 0.2 * unlucky

    world = World(store, loss).search(*COORDINATE, "seed=1,2")
    assert len(world.rounds[0]) == 6
    assert settings(world.rounds[1]) == [(1e-3, 4), (1e-3, 4), (1e-3, 32), (1e-3, 32)]


def test_runs_that_diverge_are_not_trained_again_and_others_that_fail_are(store: Store) -> None:
    def loss(config: Config) -> float | None:
        rate = config["learning_rate"]
        return math.nan if rate == 1e-2 else None if rate == 1e-4 and not mended else away(config)

    mended = False
    world = World(store, loss).search(*COORDINATE)
    assert world.exit_code == 1
    assert len(world.closing) == 5
    assert settings(world.rounds[1]) == [(1e-3, 4), (1e-3, 32)]
    mended = True
    before = len(world.trained)
    world.search(*COORDINATE)
    assert len(world.trained) == before + 1
    assert settings(world.rounds[0]) == [(1e-4, 8), (1e-3, 8)]


def test_a_round_of_which_all_runs_fail_ends_the_search_until_that_is_mended(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(store, lambda _: None).search(*TPE)
    assert world.exit_code == 1
    assert "no run of this round has a value of eval_loss" in capsys.readouterr().err
    failed = set(world.trained)
    world.reached = away
    assert len(world.search(*TPE).closing) == 8
    assert failed < set(world.trained)


def test_points_that_do_not_fit_a_card_are_not_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def loss(config: Config) -> float:
        return 2 - float(config["micro_batch_size"]) / 1000 - float(config["learning_rate"])

    axes = ("learning_rate=1e-4,2e-4,4e-4", "micro_batch_size=1,2,512,1024")
    world = World(store, loss).search("search=tpe", "search.runs=6", *axes, *ON_A_CARD)
    assert {one["micro_batch_size"] for one in world.closing} == {1, 2}
    assert len(world.closing) == 6
    assert world.exit_code == 0
    world.search("search=coordinate", *axes, *ON_A_CARD)
    assert {one["micro_batch_size"] for one in world.closing} == {1, 2}
    assert "micro_batch_size=512: On 1 x h100 WON'T FIT: " in capsys.readouterr().err


@pytest.mark.parametrize("words", [COORDINATE, (*TPE[:1], "search.runs=6", "learning_rate=1e-4,1e-3,1e-2", TPE[3])])
def test_points_that_are_excluded_are_not_run(store: Store, words: tuple[str, ...]) -> None:
    world = World(store, away).search(*words, "--exclude", "lora=r4 learning_rate=1e-3")
    assert (1e-3, 4) not in settings(world.closing)
    assert len(world.closing) >= 4


def test_a_plan_says_which_points_are_left_out_and_why(store: Store) -> None:
    world = World(store, away).search("action=plan", *COORDINATE, "--exclude", "lora=r8 learning_rate=1e-2")
    assert settings(world.rounds[0]) == [(1e-4, 8), (1e-3, 8)]
    (one,) = world.requests[0].left_out
    assert one.overrides == ("learning_rate=0.01", "lora=r8")
    assert one.why == "--exclude 'lora=r8 learning_rate=1e-2'"


def test_a_value_that_is_refused_is_refused_before_the_first_run(store: Store) -> None:
    world = World(store, away)
    with pytest.raises(SweepError, match="lora_dropout=3"):
        world.search("search=coordinate", "learning_rate=1e-4,1e-3", "lora_dropout=0,3")
    assert not world.trained


def test_a_value_that_axolotls_schema_refuses_is_refused_before_the_first_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {"keys": ["peft_use_rslora"], "message": "no such adapter."}
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(make_trainer(tmp_path / "trainer", refused=[refused])))
    words = ("-m", "search=coordinate", "learning_rate=1e-3,1e-2", "lora=r4,rslora", f"store={store.root}")
    for verb in (["plan"], []):
        assert cli.main([*verb, *words]) == 2
        printed = capsys.readouterr().err
        assert "1 of 3 runs cannot start, so none was started." in printed
        assert "(learning_rate=0.001 lora=rslora)" in printed
    assert not store.runs.exists()


def test_the_python_api_plans_a_search(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(make_trainer(tmp_path / "trainer")))
    planned = axosweep.plan(*COORDINATE, store=str(store.root))
    assert [one.params["learning_rate"] for one in planned.runs] == [1e-4, 1e-3, 1e-2]
    assert (planned.further, planned.refused) == (3, None)
    refused = axosweep.plan("search=coordinate", "learning_rate=1e-3,abc", store=str(store.root)).refused
    assert "learning_rate=abc" in str(refused)


@pytest.mark.parametrize("words", [COORDINATE[:2], (*TPE[:1], "search.runs=6", TPE[2])])
def test_axes_that_move_together_are_one(store: Store, words: tuple[str, ...]) -> None:
    zipped = ("lora_r=32,4,8", "lora_alpha=3,1,2", "--zip", "lora_r,lora_alpha")
    world = World(store, away).search(*words, *zipped)
    pairs = {(one["lora_r"], one["lora_alpha"]) for one in world.closing}
    assert pairs <= {(32, 3), (4, 1), (8, 2)}
    assert len(pairs) > 1
    if words[0] == "search=coordinate":
        assert {one["lora_r"] for one in world.rounds[0]} == {8}, "the middle rank"


def test_all_points_of_lists_are_run_once_and_then_it_is_over(store: Store) -> None:
    world = World(store, away).search("search=tpe", "search.runs=50", "learning_rate=1e-4,1e-3", "lora=r4,r8")
    assert sorted(settings(world.closing)) == [(1e-4, 4), (1e-4, 8), (1e-3, 4), (1e-3, 8)]


def test_no_more_runs_may_follow_than_there_are_points_left(store: Store) -> None:
    lists = ("search=tpe", "search.runs=6", "learning_rate=1e-4,1e-3", "lora=r4,r8")
    world = World(store, away).search("action=plan", *lists)
    assert world.requests[0].round is not None
    assert (len(world.rounds[0]), world.requests[0].round.further) == (2, 2), "of four points"


def test_after_a_kill_a_round_is_counted_as_one_of_this_command(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(store, away, dies_after=5)
    with pytest.raises(KeyboardInterrupt):
        world.search(*TPE)
    assert "round 1  " in capsys.readouterr().err
    world.dies_after = math.inf
    world.search(*TPE)
    assert "round 1 of this command  " in capsys.readouterr().err


def test_two_launchers_do_not_draw_points_of_one_search(store: Store) -> None:
    world = World(store, away).search(*TPE)
    (sweep,) = sweep_ids(store)
    with (store.sweeps / sweep / "trials.jsonl").open("ab") as file:
        assert try_lock(file.fileno())
        with pytest.raises(SweepError, match="Another process runs the search"):
            world.search(*TPE)


def test_without_optuna_one_message_says_how_to_get_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "runner.search.tpe", None)
    with pytest.raises(SweepError, match=r"needs Optuna.*none-any\.whl\[search\]"):
        World(store, away).search(*TPE)
    assert "pip install" not in methods.NOT_INSTALLED, "no package index has axosweep"


def test_a_metric_of_a_task_needs_runs_that_are_evaluated(store: Store) -> None:
    world = World(store, away)
    with pytest.raises(SweepError, match=r"Add 'stages=\[preprocess,train,eval\]'"):
        world.search(*COORDINATE, "search.metric=tasks/gsm8k/exact_match")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search.metric=eval_los",), "search.metric=eval_los: no run logs .* Did you mean eval_loss"),
        (("search.metric=val_loss",), "Did you mean eval_loss"),
        (("search.metric=eval_perplexity", "val_set_size=0"), "has no held-out rows.* Set val_set_size"),
    ],
)
def test_a_metric_that_no_run_can_have_is_refused_in_the_plan(
    store: Store, words: tuple[str, ...], message: str
) -> None:
    world = World(store, away)
    with pytest.raises(SweepError, match=message):
        world.search("action=plan", *COORDINATE, *words)
    assert not world.requests


def test_a_plan_notes_a_metric_that_the_runs_are_not_known_to_log(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for metric, noted in (("eval_accuracy", True), ("eval_kd_loss", True), ("eval/loss", False)):
        world = World(store, away).search("action=plan", *COORDINATE, f"search.metric={metric}")
        assert world.requests
        assert (f"note: search.metric={metric} is not among" in capsys.readouterr().err) is noted
