"""What a plan as a whole requires from Modal, refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from modal_app.cloud.settings import Deployment
from modal_app.store.layout import Store
from modal_app.store.step import Device, Step, StepKind
from runner.errors import SweepError
from runner.executors.choose import check_gpu_caps, local_executor_for
from runner.executors.local import LocalExecutor
from runner.executors.mixed_workers import MixedWorkers
from runner.executors.warm_server import IDLE_S
from runner.follow_up.carry_out import follow_up_name
from runner.store.ledger import Ledger
from runner.types import ExecutorChoice, Gpu, Plan, PlannedStep
from tests.modal_app.deployments import shipped_node
from tests.runner.builders import plan, run
from tests.runner.fake_trainer import make_trainer

FLASH = "kernels-community/flash-attn2"
COMMIT = "c0ffee" + "0" * 34


def test_a_cap_that_cannot_be_kept_is_refused_on_modal_only(store: Store) -> None:
    made = plan([run({"seed": 1}, gpu=Gpu("h100", 4))], store)
    with pytest.raises(SweepError, match=r"Raise executor\.max_gpus to 4"):
        check_gpu_caps(ExecutorChoice("modal", max_gpus=2, modal=Deployment.from_node(shipped_node())), made)
    check_gpu_caps(ExecutorChoice("modal", max_gpus=4, modal=Deployment.from_node(shipped_node())), made)
    check_gpu_caps(ExecutorChoice("local", parallel=1), plan([run({}, gpu=Gpu("rtx4090", 16))], store))


def test_two_revisions_of_one_kernel_are_refused_unless_one_is_named_for_both(store: Store) -> None:
    """The libraries look a kernel up by its repository's name alone."""
    requested = [{"attn_implementation": "flash_attention_2"}, {"attn_implementation": f"{FLASH}@{COMMIT}"}]
    made = plan([run(config, gpu=Gpu("h100", 1)) for config in requested], store)
    with pytest.raises(SweepError, match=f"{FLASH}@{COMMIT} and {FLASH}@v3"):
        check_gpu_caps(ExecutorChoice("modal", modal=Deployment.from_node(shipped_node())), made)
    named = Deployment.from_node(shipped_node() | {"kernels": [f"{FLASH}@{COMMIT}"]})
    check_gpu_caps(ExecutorChoice("modal", modal=named), made)


def test_follow_up_steps_of_runs_on_cpus_and_on_gpus_are_not_started_together(store: Store) -> None:
    """A run that has finished on one counts for a sweep that asks for the other."""
    steps = [Step(StepKind.INFER, f"{device}/a", {}, "d", device=device, run=device) for device in Device]
    made = Plan("sweep/after-a", (), (), after=tuple(PlannedStep(step, False) for step in steps))
    with pytest.raises(SweepError, match="Name runs of one kind"):
        local_executor_for(made, store, Ledger(store, made.sweep))


@pytest.mark.parametrize(("said", "seconds"), [("0", 0.0), ("", IDLE_S)])
def test_a_trainer_that_is_preloaded_for_follow_up_steps_waits_as_long_as_the_variable_says(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, seconds: float
) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(make_trainer(tmp_path / "trainer")))
    monkeypatch.setenv("AXOSWEEP_WARM_IDLE_S", said)
    made = Plan("sweep/after-a", (), (), after=(PlannedStep(Step(StepKind.MERGE, "run/a", {}, "d", run="run"), False),))
    executor = local_executor_for(made, store, Ledger(store, made.sweep))
    assert isinstance(executor, LocalExecutor)
    assert isinstance(executor.workers, MixedWorkers)
    assert executor.workers.warm.idle_s == seconds


def test_a_merge_and_an_evaluation_of_one_key_are_launches_of_their_own() -> None:
    names = {
        follow_up_name("sweep", [PlannedStep(Step(kind, "run/own", {}, "d", run="run"), False)])
        for kind in (StepKind.MERGE, StepKind.EVALUATE)
    }
    assert len(names) == 2
