"""Chooses the executor of a plan. The only place that knows them all; Modal's is imported only when it is needed."""

from __future__ import annotations

import contextlib
import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from modal_app.cloud.settings import Deployment
from modal_app.process.attention import kernel_of
from modal_app.process.threads import usable_cores
from modal_app.store.hub import hub_items
from modal_app.store.layout import Store
from modal_app.store.step import Device, Step
from runner.console import terminal
from runner.cost.prices import Rates
from runner.cost.spent import planned_rates
from runner.environment import trainer_environment
from runner.environment.verdicts import Verdicts
from runner.errors import SweepError
from runner.estimate.disk import PrintedDisk, disk_of
from runner.estimate.types import THIS_MACHINE, Pool
from runner.executors.cards import card_locks, usable_cards
from runner.executors.local import LocalExecutor
from runner.executors.mixed_workers import FRESH, ON_A_GPU, MixedWorkers, RunningValidator
from runner.executors.modal_gpus import Containers, containers_of, placements, placements_after
from runner.executors.slots import machine_slots, missing_cards
from runner.executors.validator import FreshValidator
from runner.executors.warm_server import idle_limit, reach_running
from runner.executors.warm_workers import WarmWorkers
from runner.executors.workers import FreshWorkers, Workers
from runner.keys.inputs import staged_name
from runner.preflight.schema import Validator
from runner.request import Request
from runner.store.ledger import Ledger
from runner.types import ExecutorChoice, Experiment, Gpu, InputKind, Plan
from runner.wandb import account

STARTING = "Starting Axolotl; its imports take a few seconds."


class Executor(Protocol):
    def execute(self, plan: Plan, watch: Callable[[], None]) -> None:
        """Run what is not done, calling `watch` regularly. Each step's end is recorded in the ledger and its folder."""
        ...


def one_executor(experiments: Sequence[Experiment]) -> ExecutorChoice:
    """The executor of a sweep. Raises SweepError when its runs name different executors or different prices."""
    if len({repr(experiment.prices) for experiment in experiments}) > 1:
        raise SweepError("The runs of a sweep share one price table. Do not sweep over prices or a key below it.")
    choices = {repr(experiment.executor): experiment.executor for experiment in experiments}
    if len(choices) > 1:
        raise SweepError("The runs of a sweep share one executor. Do not sweep over executor or a key below it.")
    return next(iter(choices.values()))


def check_gpu_caps(choice: ExecutorChoice, plan: Plan) -> None:
    """Raises SweepError when the executor cannot run this plan, such as for a cap that is too low for it."""
    if choice.type == "modal":
        placements(plan, choice)
        _refuse_two_revisions(_deployment(choice).wanted_by(kernels=_kernels(plan)).kernels)


def missing_gpus(choice: ExecutorChoice, plan: Plan) -> str:
    """Why this machine cannot launch the plan, though another machine might; empty when nothing is missing."""
    return missing_cards(plan) if choice.type == "local" else ""


@contextlib.contextmanager
def preloaded_workers(
    choice: ExecutorChoice, experiments: Sequence[Experiment], store: Store
) -> Iterator[MixedWorkers | None]:
    """Forked workers for a launch on this machine's CPU, None for any other launch.

    Their preloaded trainer can import Axolotl while the launch is planned. A trainer that was started here and not used
    ends with the block.
    """
    on_cpu = choice.type == "local" and all(one.gpu.type == "cpu" for one in experiments)
    workers = None
    if on_cpu and choice.warm is True:
        with contextlib.suppress(SweepError):  # no trainer: a later stage reports it
            workers = _warm_workers(trainer_environment.find(), store, choice.warm_idle_s)
    try:
        yield workers
    finally:
        if workers is not None:
            workers.close()


def executor_for(
    choice: ExecutorChoice,
    plan: Plan,
    store: Store,
    ledger: Ledger,
    warm: MixedWorkers | None,
    request: Request | None = None,
) -> Executor:
    """The executor of a plan. `warm`: workers whose trainer is preloaded already. `request`: whom Modal notifies.

    Raises SweepError when this machine (or Modal) cannot run the plan, or W&B cannot track it.
    """
    account.check_tags(plan)
    match choice.type:
        case "local":
            return _local(choice, plan, store, ledger, warm)
        case "modal":
            return _modal(choice, plan, store, ledger, request)
    raise AssertionError(f"executor.type={choice.type} was accepted")


def local_executor_for(plan: Plan, store: Store, ledger: Ledger) -> Executor:
    """For follow-up steps of runs on this machine. Raises SweepError when it lacks what they need."""
    devices = {one.step.device for one in plan.after}
    if len(devices) > 1:
        raise SweepError("Some of these runs were trained on CPUs, others on GPUs. Name runs of one kind.")
    (device,) = devices
    slots = machine_slots(device, 1, None)
    fresh = FreshWorkers(trainer_environment.find(), store.root, {})
    workers = _warm_workers(fresh.python, store, None) if device is Device.CPU else fresh
    reached = reach_running(fresh.python, store.root) if isinstance(workers, MixedWorkers) else None
    if isinstance(workers, MixedWorkers) and reached is not None:
        workers.warm.warm_up(reached)
    else:
        terminal.message(STARTING)
    return LocalExecutor(store, _in_its_environment(workers, plan), slots, ledger, card_locks(store))


def modal_executor_for(
    plan: Plan,
    store: Store,
    ledger: Ledger,
    deployment: Mapping[str, Any],
    gpus: Mapping[str, Gpu],
    inputs: Sequence[str],
) -> Executor:
    """For follow-up steps of runs on Modal: in the app of their sweep, or this program's app with the same settings.

    `gpus`: run key -> the GPU of its steps. Raises SweepError for what Modal would refuse.
    """
    from runner.executors.modal import ModalExecutor

    executor = ModalExecutor(store, Deployment.read(deployment), ledger, placements_after(gpus), tuple(inputs))
    executor.check()
    return executor


def pools_of(choice: ExecutorChoice, plan: Plan) -> dict[str, Pool]:
    """Run key -> the pool that the run shares with others, for runs that are not done."""
    if choice.type == "modal":
        reused = {one.variant for one in modal_containers(choice, plan) if one.reused}
        placed = {key: (str(one.variant), one.max_containers) for key, one in placements(plan, choice).items()}
        return {key: Pool(name, most, name in reused) for key, (name, most) in placed.items()}
    processes = max((planned.step.processes for planned in plan.pending), default=1)
    on_cpu = all(planned.step.device is Device.CPU for planned in plan.pending)
    room = max(usable_cores() // processes, 1) if on_cpu else len(usable_cards()) // processes
    most = min((one for one in (room, choice.parallel) if one), default=None)
    return {planned.run.key: Pool(THIS_MACHINE, most) for planned in plan.pending}


def modal_containers(choice: ExecutorChoice, plan: Plan) -> list[Containers]:
    """The containers of a plan on Modal, and whether they are reused; none for another executor."""
    if choice.type != "modal":
        return []
    reuse = choice.modal is not None and choice.modal.reuse
    return containers_of(plan, placements(plan, choice), reuse=reuse)


def modal_disk(choice: ExecutorChoice, plan: Plan) -> PrintedDisk | None:
    """The disk of each container of a plan on Modal; None for another executor."""
    if choice.type != "modal":
        return None
    return disk_of(plan, choice.modal.disk_gib if choice.modal else None)


def rates_of(choice: ExecutorChoice, plan: Plan, store: Store, *, ask: bool) -> Rates | None:
    """What is charged for a plan, None where nothing is rented.

    `ask`: ask Modal, which may take a few seconds. Otherwise, the rates are Modal's last answer that is in this store,
    or those of the table.
    """
    prices = plan.runs[0].run.experiment.prices
    if choice.type != "modal" or prices is None:
        return None
    if not ask:
        return planned_rates(store, prices, datetime.datetime.now(datetime.UTC).date())
    from runner.executors.modal_rates import rates_now

    return rates_now(prices)


def validator_at_hand(store: Store) -> Validator | None:
    """The preloaded trainer of this local store if it runs, otherwise a separate process; None without a current
    trainer environment.
    """
    try:
        python = trainer_environment.find()
    except SweepError:
        return None
    running = reach_running(python, store.root)
    return FreshValidator(python) if running is None else RunningValidator(python, store.root, running)


def remembered_verdicts(store: Store) -> Verdicts:
    """Axolotl's earlier verdicts. For an environment that was not built from the lock, nothing is remembered."""
    locked = trainer_environment.built_from() == trainer_environment.lock_hash()
    return Verdicts(store.cache / "verdicts.json" if locked else None, trainer_environment.identity(None))


def _local(choice: ExecutorChoice, plan: Plan, store: Store, ledger: Ledger, warm: MixedWorkers | None) -> Executor:
    devices = {step.device for step in _pending_steps(plan)}
    if len(devices) > 1:
        raise SweepError("executor=local runs a sweep on CPUs or on GPUs, not on both. Split it into two sweeps.")
    (device,) = devices
    if account.tracks_online(plan):
        account.check_key()
    processes = max(step.processes for step in _pending_steps(plan))
    slots = machine_slots(device, processes, choice.parallel)
    workers = warm or FreshWorkers(trainer_environment.find(), store.root, {})
    if choice.warm and warm is None and device is not Device.CPU:
        terminal.message(FRESH.format(why=ON_A_GPU))
    return LocalExecutor(store, _in_its_environment(workers, plan), slots, ledger, card_locks(store))


def _pending_steps(plan: Plan) -> list[Step]:
    """The steps that are not done: of runs, and their follow-up steps."""
    return [planned.step for planned in plan.pending] + [one.step for one in plan.after if not one.done]


def _warm_workers(python: Path, store: Store, idle_s: float | None) -> MixedWorkers:
    forked = WarmWorkers(python, store.root, {}, idle_limit(idle_s), terminal.message)
    return MixedWorkers(forked, FreshWorkers(python, store.root, {}), terminal.message)


def _in_its_environment(workers: MixedWorkers | FreshWorkers, plan: Plan) -> Workers:
    environment = _offline_when_local(plan)
    for one in (workers.warm, workers.fresh) if isinstance(workers, MixedWorkers) else (workers,):
        one.environment = environment
    return workers


def _offline_when_local(plan: Plan) -> dict[str, str]:
    """A plan without hub names needs no hub. Libraries that contact it anyway would wait for nothing."""
    reads_hub = any(one.kind is InputKind.HUB for planned in plan.runs for one in planned.run.inputs)
    reads_hub |= any(one.step.asks_the_hub or hub_items(one.step.config) for one in plan.after)
    return {} if reads_hub or _kernels(plan) else {"HF_HUB_OFFLINE": "1"}


def _kernels(plan: Plan) -> set[str]:
    """The attention kernels that pending runs load from the hub."""
    return {kernel for planned in plan.pending if (kernel := kernel_of(planned.run.config))}


def _modal(choice: ExecutorChoice, plan: Plan, store: Store, ledger: Ledger, request: Request | None) -> Executor:
    from runner.executors.modal import ModalExecutor

    placed = placements(plan, choice)
    lists = {one.variant.gpus for one in placed.values() if len(one.variant.gpus) > 1}
    reuse = any(one.reused for one in modal_containers(choice, plan))
    disk = modal_disk(choice, plan)
    deployment = _deployment(choice).wanted_by(
        gpu_lists=lists, kernels=_kernels(plan), reuse=reuse, disk_gib=disk.gib if disk else None
    )
    inputs = dict.fromkeys(
        staged_name(found)
        for planned in plan.pending
        for found in planned.run.inputs
        if found.kind is not InputKind.HUB
    )
    prices = plan.runs[0].run.experiment.prices
    notify, budget = (request.notify, request.budget) if request else (None, None)
    further = request is not None and request.round is not None
    executor = ModalExecutor(store, deployment, ledger, placed, tuple(inputs), prices, notify, budget, further)
    keys = {account.KEY_VARIABLE: "tracking=wandb"} if account.tracks_online(plan) else {}
    executor.check(keys | ({notify: f"notify={notify}"} if notify else {}))
    return executor


def _deployment(choice: ExecutorChoice) -> Deployment:
    """The deployment of executor=modal. Raises SweepError for settings that cannot be deployed; --force does not
    override this."""
    if choice.modal is None:
        raise SweepError("\n".join(map(str, choice.problems)) or "executor=modal needs settings below executor.modal.")
    return choice.modal


def _refuse_two_revisions(kernels: Sequence[str]) -> None:
    """An image has one revision of a kernel: the libraries look a kernel up by its repository's name alone."""
    for repository, times in Counter(kernel.partition("@")[0] for kernel in kernels).items():
        if times > 1:
            named = " and ".join(kernel for kernel in kernels if kernel.startswith(f"{repository}@"))
            raise SweepError(
                f"This sweep needs {named}, but an image on Modal can have only one revision of {repository}. Split "
                "the sweep into two, or name one revision in executor.modal.kernels."
            )
