"""What a plan costs where containers do several runs: a boot for each container, not for each run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modal_app.cloud.meter import Card, ContainerRecord
from modal_app.cloud.settings import Deployment
from modal_app.store.layout import Store
from modal_app.store.step import StepKind, write_atomically
from runner.cost.prices import CPU, MEMORY
from runner.cost.types import NOTHING, Phases, Prediction, Range
from runner.estimate.plan import BETWEEN_RUNS, plan_cost
from runner.estimate.records import read_past
from runner.estimate.types import PlanCost, Pool, RunCost
from runner.estimate.words import cost_lines, printed_cost
from runner.executors.choose import pools_of
from runner.launch.budget import bound_line, with_shares
from runner.request import Action, Request
from runner.show.headway import ExpectedSeconds, Timing, seconds_left
from runner.store.run_state import RunStatus
from runner.types import ExecutorChoice, Gpu, Plan
from tests.modal_app.deployments import shipped_node
from tests.runner.builders import plan, run
from tests.runner.test_cost_plan import MODAL, RATES, TINY, finish_run, mirror

GPU = Gpu("h100", 1)
WORKER_S, BOOT_S, AROUND_S, IDLE_S = 16.0, 30.0, 3.0, 1.0


def trained(store: Store, number: int, *, boot: float, idle: float) -> None:
    """A run that a container did, after its boot or after another run."""
    one = run(TINY | {"learning_rate": 0.1 * number}, gpu=GPU, executor=MODAL)
    finish_run(store, one, seconds=WORKER_S)
    seconds = boot + idle + AROUND_S + WORKER_S
    record = ContainerRecord(
        "ta-1", "fc-1", f"train/{one.key}", 0.0, 100.0, 200.0, True, seconds, (1,),
        (Card("NVIDIA H100 80GB HBM3", None, None, None),), 2.0, 2.0, 16.0, 5.0, boot=boot, idle=idle,
    )  # fmt: skip
    folder = store.folder(StepKind.TRAIN, one.key).containers
    folder.mkdir()
    write_atomically(folder / "ta-1.json", record.to_json())


def plan_of(store: Store, number: int) -> Plan:
    return plan(
        [run(TINY | {"learning_rate": 0.01 / (1 + each)}, gpu=GPU, executor=MODAL) for each in range(number)],
        store,
    )


def cost_of(planned: Plan, store: Store, pool: Pool) -> PlanCost:
    return plan_cost(planned, store, [store], RATES, {one.run.key: pool for one in planned.pending})


def rent_of_a_second() -> float:
    return sum((RATES.of(item) or 0.0) * amount for item, amount in (("h100", 1), (CPU, 2), (MEMORY, 16)))


@pytest.fixture
def there(store: Store) -> Store:
    """A mirror with a container that did two runs."""
    found = mirror(store)
    trained(found, 1, boot=BOOT_S, idle=0.0)
    trained(found, 2, boot=0.0, idle=IDLE_S)
    return found


def test_runs_that_were_not_the_first_of_their_container_tell_nothing_about_boots(there: Store) -> None:
    assert {one.boot for one in read_past([there]).runs} == {BOOT_S, None}
    (one,) = cost_of(plan_of(there, 1), there, Pool("h100", None)).runs
    assert one.prediction is not None
    assert one.prediction.boot.likely == BOOT_S, "not the median of a boot and of nothing"
    assert one.prediction.around.likely == pytest.approx(AROUND_S + IDLE_S / 2)
    assert one.prediction.rented.likely == pytest.approx(BOOT_S + AROUND_S + IDLE_S / 2 + WORKER_S)


def test_five_runs_in_two_containers_pay_for_two_boots(there: Store) -> None:
    planned, around = plan_of(there, 5), AROUND_S + IDLE_S / 2
    shared, single = (cost_of(planned, there, Pool("h100", 2, reused)) for reused in (True, False))
    assert shared.dollars is not None
    assert single.dollars is not None
    assert shared.dollars.likely == pytest.approx((2 * BOOT_S + 5 * (around + WORKER_S)) * rent_of_a_second())
    assert single.dollars.likely == pytest.approx((5 * BOOT_S + 5 * (around + WORKER_S)) * rent_of_a_second())
    assert shared.wall is not None
    assert single.wall is not None
    assert shared.wall.likely == pytest.approx(BOOT_S + 3 * (around + WORKER_S)), "three in one of them"
    assert single.wall.likely == pytest.approx(3 * (BOOT_S + around + WORKER_S))
    assert (shared.boots, single.boots) == (2, 0)
    assert [one.boots for one in printed_cost(shared).runs] == [0.4] * 5


def test_the_plan_names_the_boots_only_where_containers_do_several_runs(there: Store) -> None:
    planned = plan_of(there, 5)
    names = {one.run.key: "x" for one in planned.pending}
    shared, single = (cost_lines(cost_of(planned, there, Pool("h100", 2, reused)), names) for reused in (True, False))
    assert ", including 2 boots of 30 s; rates: " in shared[1]
    assert "boot" not in " ".join(single)
    assert len(shared) == len(single) == 3, "equal runs have one line: which of them boots is not known"


def test_more_containers_than_runs_boot_once_for_each_run(there: Store) -> None:
    cost = cost_of(plan_of(there, 2), there, Pool("h100", 5, reused=True))
    assert cost.boots == 2
    assert [one.prediction.boots for one in cost.runs if one.prediction] == [1.0, 1.0]


def test_without_records_a_container_is_expected_to_wait_between_its_runs(store: Store) -> None:
    done = run(TINY, gpu=GPU, executor=MODAL)
    finish_run(store, done)  # its container has no record, as for a run on another machine
    (one, *_) = cost_of(plan_of(store, 4), store, Pool("h100", 2, reused=True)).runs
    assert one.prediction is not None
    assert one.prediction.around == BETWEEN_RUNS


def test_runs_that_fail_for_memory_boot_again_in_other_containers(there: Store) -> None:
    planned = plan_of(there, 4)
    pools = {one.run.key: Pool("h100", 2, reused=True) for one in planned.pending}
    failing = {planned.pending[0].run.key: 2}
    cost = plan_cost(planned, there, [there], RATES, pools, failing)
    assert [one.prediction.boots for one in cost.runs if one.prediction] == [2.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(("reuse", "parallel", "reused"), [(True, 2, True), (True, None, False), (False, 2, False)])
def test_containers_are_shared_where_a_limit_leaves_fewer_than_runs_and_reuse_is_not_off(
    store: Store, reuse: bool, parallel: int | None, reused: bool
) -> None:
    choice = ExecutorChoice("modal", parallel=parallel, modal=Deployment.from_node(shipped_node() | {"reuse": reuse}))
    planned = plan_of(store, 3)
    assert {pool.reused for pool in pools_of(choice, planned).values()} == {reused}


def keyed(planned: Plan, *seconds: float, boots: float) -> PlanCost:
    """Runs of these seconds at a tenth of a dollar a second, with boots of 10 s."""
    boot, nothing = Range.exactly(10.0), Range.exactly(0.0)
    runs = []
    for one, took in zip(planned.pending, seconds, strict=True):
        found = Prediction(Range.exactly(took), Phases(0, took, 0, 0), boot, nothing, nothing, "1 record", boots=boots)
        runs.append(RunCost(one.run.key, prediction=found, dollars=found.rented.scaled(0.1), dollars_s=0.1))
    return PlanCost(tuple(runs), NOTHING, NOTHING, None, 1, RATES, boots=round(boots * len(runs)))


def test_a_share_of_a_budget_is_as_large_as_if_its_run_booted_a_container(store: Store) -> None:
    planned = plan_of(store, 2)
    cost = keyed(planned, 10.0, 50.0, boots=0.5)
    assert cost.dollars is not None
    assert cost.dollars.likely == pytest.approx(7.0), "one boot"
    request = Request(Action.LAUNCH, "sweep", None, json=False, budget=8.0)
    shares = [one.step.share.dollars for one in with_shares(planned, cost, request).runs if one.step.share]
    assert shares == pytest.approx([2.0, 6.0]), "the short run, too, may be the one that boots"
    line = bound_line(cost, request)
    assert "plus $1.00 at most for the boot of each attempt at a run that starts a container." in line
    assert "for the boot of each attempt at a run." in bound_line(replace(cost, boots=0), request)


def test_a_run_that_waits_for_a_container_waits_for_no_boot() -> None:
    waiting = [Timing(f"k{number}", RunStatus.PENDING) for number in range(5)]
    expected = ExpectedSeconds({one.key: 100.0 for one in waiting}, boot_s=10.0, at_a_time=2, next_s=1.0)
    assert seconds_left(waiting, expected, 200.0) == 10 + 100 + 1 + 100 + 1 + 100
    running = [Timing("k0", RunStatus.RUNNING, started_at=150.0), *waiting[1:2]]
    assert seconds_left(running, replace(expected, at_a_time=1), 200.0) == 50 + 1 + 100
