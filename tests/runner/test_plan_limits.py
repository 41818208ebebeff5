"""What a plan says if a run is too large for its container, or writes too much: disk, price, time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from modal_app.cloud.settings import Deployment
from modal_app.store.layout import Store
from runner.cost.prices import MEMORY
from runner.estimate.disk import disk_findings, disk_line, disk_of
from runner.estimate.host_memory import host_findings
from runner.estimate.plan import plan_cost
from runner.estimate.predict import SAVE_BYTES_S, SAVE_S
from runner.estimate.stops import stops_lines, time_findings
from runner.estimate.types import Pool, RunCost
from runner.launch.budget import bound_line
from runner.preflight.findings import Finding, Severity
from runner.request import Action, Request
from runner.types import ExecutorChoice, Gpu, ModelFacts, Run
from tests.modal_app.deployments import shipped_node
from tests.runner.builders import plan, run
from tests.runner.test_cost_plan import RATES, cost_of

LLAMA_70B = ModelFacts("llama", 70_553_706_496, 80, 8192, 64, 8, 128, 28672, 128256, False, 131072, "here")
CONFIG: dict[str, Any] = {"base_model": "llama", "adapter": None, "bf16": True, "optimizer": "adamw_8bit",
                          "deepspeed": {"zero_optimization": {"stage": 3}}, "sequence_len": 4096,
                          "micro_batch_size": 1, "max_steps": 26, "saves_per_epoch": 4,
                          "num_epochs": 3}  # fmt: skip


def of_70b(**changes: Any) -> Run:
    one = run(CONFIG | changes, gpu=Gpu("h100", 8), executor=ExecutorChoice("modal"))
    return replace(one, experiment=replace(one.experiment, model=LLAMA_70B))


def test_less_disk_than_the_checkpoints_need_is_a_gate(store: Store) -> None:
    one = of_70b(save_total_limit=2)

    def found(requested_gib: int | None, requested: Run = one) -> Finding | None:
        return disk_findings(plan([requested], store), requested_gib).get(requested.key)

    assert found(None) is None
    assert disk_of(plan([one], store), None).gib == 2828, "1.25 times the need"
    assert found(2263) is None
    small = found(1000)
    assert small is not None
    assert (small.severity, small.key, small.seen) == (Severity.GATE, "executor.modal.disk_gib", "1000")
    assert "needs about 2,262 GiB of its container's disk: 4 checkpoints of 527.7 GiB" in small.text
    many = found(3072, of_70b(save_total_limit=9))
    assert many is not None
    assert "at most 3072 GiB. Set save_total_limit=3." in many.text
    assert found(None, of_70b(save_total_limit=3)) is None


def priced(one: Run, store: Store) -> RunCost:
    return cost_of(plan([one], store), store, rented=True).runs[0]


@pytest.mark.parametrize(
    ("changes", "checkpoint", "model"),
    [({}, 527.7, 131.4), ({"save_only_model": True}, 131.4, 131.4), ({"deepspeed": None}, 274.6, 135.3)],
)
def test_the_price_and_the_disk_have_checkpoints_of_the_same_size(
    changes: dict[str, Any], checkpoint: float, model: float, store: Store
) -> None:
    one = of_70b(**changes)
    need, cost = disk_of(plan([one], store), None).need, priced(one, store)
    found, length = cost.prediction, cost.length
    assert need is not None
    assert found is not None
    assert length is not None
    assert (round(need.checkpoint / 2**30, 1), round(need.model / 2**30, 1)) == (checkpoint, model)
    assert found.save_s == pytest.approx(SAVE_S + need.checkpoint / SAVE_BYTES_S)
    last_s = SAVE_S + need.model / SAVE_BYTES_S
    assert found.phases.save == pytest.approx((length.saves - 1) * found.save_s + last_s), "the last one is the model"


@pytest.mark.parametrize(
    ("changes", "hours", "severity", "says"),
    [
        # the estimate is 4.5 hours, at most 6.8; a checkpoint takes 19 minutes, and 12.5 are left for it.
        ({}, 24, None, ""),
        ({}, 1, Severity.WARNING, "takes about 19 min to write, but 10 min are left for it"),
        ({"saves_per_epoch": None, "save_strategy": "no", "max_steps": 9000}, 1, Severity.GATE, "it fails there"),
        ({"save_only_model": True}, 24, None, ""),
        ({"save_only_model": True}, 0.5, Severity.GATE, "cannot go on from a checkpoint, and fails after 24 min"),
        ({"save_only_model": True}, 1.5, Severity.WARNING, "it may take up to"),
    ],
)
def test_a_run_that_cannot_go_on_from_one_call_to_the_next_is_a_gate(
    changes: dict[str, Any], hours: float, severity: Severity | None, says: str, store: Store
) -> None:
    planned = plan([of_70b(**changes)], store)
    found = time_findings(planned, cost_of(planned, store, rented=True), hours)
    assert [one.severity for one in found.values()] == ([severity] if severity else [])
    assert all(says in one.text for one in found.values()), found


def test_no_checkpoint_is_promised_at_a_stop_that_leaves_no_time_for_one(store: Store) -> None:
    request = Request(Action.PLAN, "sweep", None, json=False, budget=300.0)

    def lines(**changes: Any) -> tuple[list[str], str]:
        planned = plan([of_70b(**changes)], store)
        cost = cost_of(planned, store, rented=True)
        return stops_lines(planned, cost, 24), bound_line(cost, request)

    (stops,), budget = lines()
    assert "about 19 min to write, which is too long when Modal preempts a container (20 s), " in stops
    assert "when a budget is spent (6 min), at the time limit of a call (12 min): then" in stops
    assert "is stopped when its share is spent, without a new checkpoint" in budget
    (stops,), budget = lines(optimizer="sgd", deepspeed=None)  # 5 minutes
    assert stops.count("when") == 1
    assert "stopped with a checkpoint when its share is spent" in budget
    assert lines(adapter="lora", lora_r=8)[0] == []


@pytest.mark.parametrize(
    ("changes", "checkpoints"),
    [
        ({"save_total_limit": 2}, 4),
        ({"save_total_limit": 2, "load_best_model_at_end": True}, 5),
        ({}, 6),
        ({"saves_per_epoch": 1}, 4),  # of 3 epochs, and one when it is stopped
        ({"saves_per_epoch": None, "save_strategy": "no"}, 1),
        ({"saves_per_epoch": None, "save_steps": 5, "max_steps": None}, 6),
    ],
)
def test_the_parts_of_the_disk_add_up_and_more_is_requested(
    changes: dict[str, Any], checkpoints: int, store: Store
) -> None:
    small = ModelFacts("llama", 8_030_261_248, 32, 4096, 32, 8, 128, 14336, 128256, False, 8192, "here")
    one = of_70b(**changes)
    disk = disk_of(plan([replace(one, experiment=replace(one.experiment, model=small))], store), None)
    assert disk.need is not None
    assert disk.need.checkpoints == checkpoints
    parts = checkpoints * round(disk.need.checkpoint / 2**30, 1) + round(disk.need.model / 2**30, 1) + 20
    assert disk.need.gib == pytest.approx(parts, abs=0.5)
    assert disk.gib == max(512, math.ceil(1.25 * disk.need.gib))
    assert disk_line(disk).startswith(f"disk    about {disk.need.gib:.0f} of {disk.gib} GiB")
    assert disk_line(disk).endswith(" GiB, 20 GiB for temporary rows and caches")


def test_host_memory_beyond_what_is_reserved_is_in_the_price_and_a_warning(store: Store) -> None:
    one = of_70b()
    planned, settings = plan([one], store), Deployment.from_node(shipped_node())

    def rent(gib: int) -> float | None:
        pools = {one.key: Pool("h100", None)}
        return plan_cost(planned, store, [store], RATES, pools, hosts={one.key: gib * 2**30}).runs[0].dollars_s

    little, much = rent(0), rent(1051)
    assert little is not None
    assert much is not None
    assert rent(100) == little
    assert much - little == pytest.approx((1051 - 8 * 16) * (RATES.of(MEMORY) or 0))
    (found,) = host_findings(planned, {one.key: 1051 * 2**30}, settings).values()
    assert "reserves 128 GiB of host memory, but the run needs about 1051 GiB" in found.text
    assert found.severity is Severity.WARNING
    assert "Modal reserves at most 336 GiB for a container" in found.text
    (found,) = host_findings(planned, {one.key: 300 * 2**30}, settings).values()
    assert "Set executor.modal.memory_gib=38" in found.text
    assert host_findings(planned, {one.key: 128 * 2**30}, settings) == {}


@pytest.mark.parametrize(("each_gib", "refused"), [(42, False), (42.5, True), (132, True)])
def test_more_host_memory_than_modal_reserves_is_a_gate(each_gib: float, refused: bool, store: Store) -> None:
    one = of_70b()
    settings = Deployment.from_node({**shipped_node(), "memory_gib": each_gib})
    found = host_findings(plan([one], store), {}, settings)
    assert (one.key in found) is refused
    if refused:
        assert found[one.key].severity is Severity.GATE
        assert f"executor.modal.memory_gib={each_gib}: for 8 GPUs that is {8 * each_gib:g} GiB" in found[one.key].text
        assert "Set executor.modal.memory_gib=42 or less." in found[one.key].text
