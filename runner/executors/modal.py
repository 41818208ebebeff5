"""Runs a plan on Modal: deploy once per program, upload what is missing, call the steps that no call works on, follow.

The cloud does not need this process. Submitted steps continue when it ends, and `axosweep attach` follows them again.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

import modal
import modal.exception

from modal_app.cloud.claims import Caller, enqueue_behind, is_at_work, is_live, last_claim
from modal_app.cloud.deployment import build_app
from modal_app.cloud.job import Job, job_name, mark_name, steps_file
from modal_app.cloud.meter import CPU_STEP, Reservation
from modal_app.cloud.notices import forget
from modal_app.cloud.searches import ask_in_full, rungs_of
from modal_app.cloud.settings import AFTER_FUNCTION, HOUR_S, Deployment, requested, train_function
from modal_app.store.layout import STEPS, SUBMISSION, Store
from modal_app.store.step import OutcomeStatus, Step, StepKind, write_atomically
from runner.console import terminal
from runner.errors import SweepError
from runner.executors.modal_datasets import damaged_datasets
from runner.executors.modal_deploy import deploy
from runner.executors.modal_errors import explained
from runner.executors.modal_gpus import Placement, one_gpu
from runner.executors.modal_inputs import upload_inputs
from runner.executors.modal_mirror import ModalMirror, follow, submitted_calls
from runner.executors.modal_notices import watched
from runner.executors.modal_rates import rates_now, stale_warning
from runner.executors.modal_searches import ModalSearches, with_earlier_steps
from runner.executors.modal_settled import wait_until_settled
from runner.executors.modal_submission import MirroredStep, Names, mirrored_steps, with_earlier
from runner.executors.modal_work import Work, make_work
from runner.store.ledger import Event, Ledger, Record
from runner.types import Plan, PriceTable

AFTER_LIMIT_S = 4 * HOUR_S
"""Of a follow-up step: the merge of a large model reads and writes it once."""
NO_KEYS: Mapping[str, str] = {}
WANDB_KEY = "WANDB_API_KEY"
SCALEDOWN_S = 2
"""How long a container that takes several runs waits for the next one. Modal's shortest: an idle GPU is paid for."""


@dataclass(slots=True)
class ModalExecutor:
    """`store` is the mirror on this machine; the originals are on the Volumes."""

    store: Store
    deployment: Deployment
    ledger: Ledger
    placements: Mapping[str, Placement]
    """Run key -> its GPUs, and its share of the sweep's cap."""
    inputs: Sequence[str]
    """Stored local inputs, as paths below the store's root."""
    prices: PriceTable | None = None
    """The prices where Modal names none. None: no dollars are shown."""
    notify: str | None = None
    """The key of the secret that has the webhook's address. None: no notices are sent."""
    budget: float | None = None
    """Dollars of the sweep."""
    further: bool = False
    """Whether a search may have further rounds."""

    def check(self, keys: Mapping[str, str] = NO_KEYS) -> None:
        """Raises SweepError for what Modal would refuse, before anything is created here or there. `keys`: the keys
        that the secret must have, and what needs each."""
        try:
            with explained(modal.exception.NotFoundError):
                modal.Secret.from_name(self.deployment.secret).hydrate()
        except modal.exception.NotFoundError as error:
            raise SweepError(
                f"Modal has no secret {self.deployment.secret}. Create it:\n  modal secret create "
                f"{self.deployment.secret} HUGGINGFACE_TOKEN=hf_... WANDB_API_KEY=..."
            ) from error
        try:
            with explained(modal.exception.NotFoundError, modal.exception.InvalidError):
                modal.Secret.from_name(self.deployment.secret, required_keys=list(keys)).hydrate()
        except (modal.exception.NotFoundError, modal.exception.InvalidError) as error:
            needed = " or ".join(f"{key}, which {why} needs" for key, why in keys.items())
            others = "".join(f" {key}=..." for key in keys if key != WANDB_KEY)
            offline = "\ntracking=offline leaves the W&B runs on the Volume until `axosweep sync`."
            raise SweepError(
                f"Modal's secret {self.deployment.secret} has no {needed}. "
                f"Create it again with all its keys:\n  modal secret create --force {self.deployment.secret} "
                f"HUGGINGFACE_TOKEN=hf_... {WANDB_KEY}=...{others}{offline if WANDB_KEY in keys else ''}"
            ) from error

    def execute(self, plan: Plan, watch: Callable[[], None]) -> None:
        """Submit what is not done, then follow until everything has ended. An interrupt does not stop the cloud."""
        names = Names(self.deployment.cache_volume, self.deployment.runs_volume, self.deployment.claims)
        mirror = ModalMirror(self.store, names)
        steps = mirrored_steps(plan)
        searches = ModalSearches.of(self.store, names, mirror.claims, steps)
        with explained():
            self._deploy()
            cache = modal.Volume.from_name(names.cache_volume, create_if_missing=True, version=2)
            self._upload_plan(plan, names, steps, make_work(plan, self._job, set()))
            upload_inputs(cache, self.store, self.inputs)  # after the plan: `gc` removes inputs that nothing names
            found = wait_until_settled(mirror, steps, submitted_calls(self.ledger))
            entries, done = found.entries, found.done - self._damaged(cache, plan, found.done)
            if searches.members:
                mirror.copy_searches(steps, entries)
                searches.put()
                entries = mirror.claims_of(steps, submitted_calls(self.ledger), copy=False)
            work = make_work(plan, self._job, done)
            self._submit(plan, work, mirror.claims, entries, found.at_work, searches.stay(entries))
            try:
                follow(mirror, steps, self.ledger, watch, lambda: searches.start(plan.sweep, self.ledger))
            except KeyboardInterrupt:
                terminal.message(f"Modal continues to run it: {_verbs(plan)}")
                raise

    def _deploy(self) -> None:
        """Once per program: the app's name identifies the program, so an app of this name is the same."""
        with contextlib.suppress(modal.exception.NotFoundError):
            modal.Function.from_name(self.deployment.app_name, "train").hydrate()
            return
        deploy(build_app(self.deployment))

    def _damaged(self, cache: modal.Volume, plan: Plan, done: Set[str]) -> set[str]:
        """The marks of datasets that runs are about to read and whose files are damaged: they are prepared again."""
        wanted = {planned.run.data_key for planned in plan.pending}
        marks = {key: mark_name(job_name(StepKind.PREPROCESS, key)) for key in wanted}
        damage = damaged_datasets(cache, [key for key, mark in marks.items() if mark in done])
        for key, why in damage.items():
            self.store.manifest(key).unlink(missing_ok=True)  # the mirror's copy
            terminal.message(f"The prepared dataset {key} is damaged, so it is prepared again: {why}.", style="yellow")
        return {marks[key] for key in damage}

    def _upload_plan(self, plan: Plan, names: Names, steps: Sequence[MirroredStep], work: Work) -> None:
        """To the runs Volume: the sweep's plan, which `attach` reads, and its steps, which the calls read, since a
        config may be longer than a call's argument. Of follow-up steps only the steps: they cannot be attached to."""
        submission = {
            "names": asdict(names),
            "steps": [asdict(step) for step in with_earlier(self.ledger.folder / SUBMISSION, names, steps)],
            "rates": self._rates(),
            "deployment": asdict(self.deployment),
        }
        write_atomically(self.ledger.folder / SUBMISSION, json.dumps(submission, indent=1))
        volume = modal.Volume.from_name(names.runs_volume, create_if_missing=True, version=2)
        folder = f"/sweeps/{plan.sweep}"
        text = with_earlier_steps(volume, plan.sweep, steps_file(work.steps, work.waiting, work.halved))
        with volume.batch_upload(force=True) as batch:
            if plan.runs:
                batch.put_file(self.ledger.folder / "plan.json", f"{folder}/plan.json")
                batch.put_file(self.ledger.folder / SUBMISSION, f"{folder}/{SUBMISSION}")
            batch.put_file(io.BytesIO(text.encode()), f"{folder}/{STEPS}")
            for planned in plan.pending:
                identity = self.store.folder(StepKind.TRAIN, planned.run.key).identity
                batch.put_file(identity, f"/{identity.relative_to(self.store.root).as_posix()}")

    def _rates(self) -> dict[str, Any] | None:
        """The rates of this submission, so that `attach` shows the same dollars."""
        if self.prices is None:
            return None
        rates = rates_now(self.prices)
        if warning := stale_warning(self.prices, rates):
            terminal.message(warning, style="yellow")
        return rates.as_json()

    def _submit(
        self,
        plan: Plan,
        work: Work,
        claims: modal.Dict,
        entries: Mapping[str, Any],
        at_work: Set[str],
        at_rungs: Set[str],
    ) -> None:
        """Call the jobs that no call works on. A job that another call works on is followed, and that call also starts
        the jobs that wait for it. `at_work`: the jobs on which calls worked before the finished ones were listed; one
        of them that has ended since is not called again. `at_rungs`: the jobs of runs that stay where they have
        stopped."""
        for name in work.names:
            for old in (f"cancelled/{name}", f"refused/{name}"):
                if old in entries:
                    claims.pop(old, None)
        caller, jobs = Caller(claims), deque(work.first)
        caller.check(job for many in (work.first, *work.waiting.values()) for job in many)
        forget(claims, entries, plan.sweep)
        if self.notify is not None:
            notified = watched(
                plan, work, entries, self.deployment, self.notify, self.budget, at_rungs, further=self.further
            )
            notified.watch(claims)
        halved = rungs_of(entries)
        while jobs:
            job = jobs.popleft()
            if job.name in at_rungs:
                continue  # the end of another run may start it
            step, waiting = work.steps[job.name], work.waiting.get(job.name, ())
            key, call = last_claim(entries.get, job.name)
            if step.kind is StepKind.TRAIN and step.rungs is None:
                ask_in_full(claims, step.key, halved.get(step.key, ()), self.store)
            if call is None or not (job.name in at_work or is_at_work(entries.get, job.name, call)):
                self._call(caller, job, key, step)
                continue
            live = is_live(call)  # before the next line: a call first says how its job has ended
            ended = enqueue_behind(claims, call, job.name, waiting)
            if ended is None and live:
                facts = {"call": call}
                self.ledger.append(Record(Event.FOLLOWED, step.kind, step.key, message=job.name, facts=facts))
            elif ended is not None and ended["status"] == OutcomeStatus.SUCCEEDED:
                entries = dict(claims.items())
                jobs += waiting
            elif ended is None or step.rungs is None or ended["status"] != OutcomeStatus.AT_RUNG:
                self._call(caller, job, key, step)

    def _call(self, caller: Caller, job: Job, key: str, step: Step) -> None:
        """Record the intent before the call, and the call's id after it."""
        self.ledger.append(Record(Event.SUBMITTED, step.kind, step.key, message=job.name))
        facts = {"call": caller.call(job, key)}
        self.ledger.append(Record(Event.STARTED, step.kind, step.key, message=job.name, facts=facts))

    def _job(self, step: Step) -> Job:
        function, options, reserved = step.kind.value, {}, CPU_STEP
        limit_s = self.deployment.timeout_s
        if step.kind is StepKind.TRAIN:
            placement = self.placements[step.key]
            function = train_function(placement.variant.gpus)
            reserved = self.deployment.reserved(placement.variant.cards)
            options = self._options(placement, reserved, limit_s)
            options |= {"scaledown_window": SCALEDOWN_S} if self.deployment.reuse else {}
        elif step.kind is not StepKind.PREPROCESS:
            placement = self.placements[step.run]
            function, limit_s = AFTER_FUNCTION, min(limit_s, AFTER_LIMIT_S)
            reserved = self.deployment.reserved(1)
            options = self._options(one_gpu(placement), reserved, limit_s)
        names = self.deployment
        return Job(
            name=job_name(step.kind, step.key),
            sweep=step.sweep,
            app=names.app_name,
            function=function,
            claims=names.claims,
            cache_volume=names.cache_volume,
            runs_volume=names.runs_volume,
            options=options,
            limit_s=limit_s,
            cores=reserved.cores,
            memory_gib=reserved.memory_gib,
            reused=self.deployment.reuse and step.kind is StepKind.TRAIN,
        )

    def _options(self, placement: Placement, reserved: Reservation, limit_s: int) -> dict[str, Any]:
        """The options of a call. Calls with equal options share a pool of containers; `max_containers` caps it."""
        options: dict[str, Any] = {"timeout": limit_s}
        if len(placement.variant.gpus) < 2:  # a call's options can name one GPU only: a list is deployed
            options |= requested(reserved)
        if len(placement.variant.gpus) == 1:
            (options["gpu"],) = placement.variant.gpus
        if placement.max_containers is not None:
            options["max_containers"] = placement.max_containers
        return options


def _verbs(plan: Plan) -> str:
    """The commands that follow it and end it. Follow-up steps alone have no plan on the Volume to attach to."""
    sweep = plan.sweep.partition("/")[0]
    attach = f"axosweep attach {sweep}" if plan.runs else "the same command"
    return f"{attach} follows it, axosweep cancel {sweep} ends it."
