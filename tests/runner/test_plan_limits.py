"""What a plan says where a run is too large for its container: its disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modal_app.store.layout import Store
from runner.estimate.disk import disk_findings
from runner.preflight.findings import Finding, Severity
from runner.types import ExecutorChoice, Gpu, ModelFacts, Run
from tests.runner.builders import plan, run

LLAMA_70B = ModelFacts("llama", 70_553_706_496, 80, 8192, 64, 8, 128, 28672, 128256, False, 131072, "here")
CONFIG: dict[str, Any] = {"base_model": "llama", "adapter": None, "bf16": True, "optimizer": "adamw_8bit",
                          "deepspeed": {"zero_optimization": {"stage": 3}}, "sequence_len": 4096,
                          "micro_batch_size": 1, "max_steps": 26, "saves_per_epoch": 4,
                          "num_epochs": 3}  # fmt: skip


def of_70b(**changes: Any) -> Run:
    one = run(CONFIG | changes, gpu=Gpu("h200", 8), executor=ExecutorChoice("modal"))
    return replace(one, experiment=replace(one.experiment, model=LLAMA_70B))


def test_less_disk_than_the_checkpoints_need_is_a_gate(store: Store) -> None:
    one = of_70b(save_total_limit=2)

    def found(asked_gib: int | None, asked: Run = one) -> Finding | None:
        return disk_findings(plan([asked], store), asked_gib).get(asked.key)

    assert found(None) is None
    assert found(2263) is None
    small = found(1000)
    assert small is not None
    assert (small.severity, small.key, small.seen) == (Severity.GATE, "executor.modal.disk_gib", "1000")
    assert "needs about 2,262 GiB of its container's disk: 4 checkpoints of 527.7 GiB" in small.text
    many = found(3072, of_70b(save_total_limit=9))
    assert many is not None
    assert "at most 3072 GiB. Set save_total_limit=3." in many.text
    assert found(None, of_70b(save_total_limit=3)) is None
