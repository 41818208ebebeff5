"""Runs a plan on Modal: deploy once per program, upload what is missing, spawn, then follow.

The cloud does not need this process: what is submitted goes on when it ends, and `axosweep attach` follows it again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import modal
import modal.exception

from modal_app.deployment import build_app
from modal_app.layout import SUBMISSION, Store
from modal_app.remote import FETCH, Job, fetch_name, hub_model, mark_name
from modal_app.settings import Deployment, train_function
from modal_app.step import Step, StepKind, write_atomically
from runner import terminal
from runner.errors import SweepError
from runner.executors.modal_gpus import Placement
from runner.executors.modal_mirror import MirroredStep, ModalMirror, Names, listed
from runner.executors.modal_rates import rates_now, stale_warning
from runner.ledger import Event, Ledger, Record
from runner.types import Plan, PriceTable

POLL_S = 2.0


@dataclass(slots=True)
class ModalExecutor:
    """`store` is the mirror on this machine; the truth is on the Volumes."""

    store: Store
    deployment: Deployment
    ledger: Ledger
    placements: Mapping[str, Placement]
    """Run key -> its GPUs, and its share of the sweep's cap."""
    inputs: Sequence[str]
    """Kept local inputs, as paths below the store's root."""
    prices: PriceTable | None = None
    """What is charged where Modal does not say it. None: no dollars are shown."""

    def execute(self, plan: Plan, watch: Callable[[], None]) -> None:
        """Submit what is not done, then follow until everything has ended. Interrupting leaves the cloud at work."""
        jobs = self._jobs(plan)
        names = Names(self.deployment.cache_volume, self.deployment.runs_volume, self.deployment.claims)
        mirror = ModalMirror(self.store, names)
        steps = mirrored_steps(plan)
        self._deploy()
        self._upload(plan, names, steps)
        done = mirror.done()
        for job in _trees(plan, jobs, done):
            self._spawn(job)
        while not mirror.look(steps):
            watch()
            time.sleep(POLL_S)
        mirror.note_blocked(steps, self.ledger)
        watch()

    def _deploy(self) -> None:
        """Once per program: the app's name names it, so what is there already is the same."""
        try:
            modal.Secret.from_name(self.deployment.secret).hydrate()
            with contextlib.suppress(modal.exception.NotFoundError):
                modal.Function.from_name(self.deployment.app_name, "train").hydrate()
                return
            build_app(self.deployment).deploy()
        except modal.exception.NotFoundError as error:
            raise SweepError(
                f"Modal has no secret {self.deployment.secret}. Create it:\n  modal secret create "
                f"{self.deployment.secret} HUGGINGFACE_TOKEN=hf_... WANDB_API_KEY=..."
            ) from error
        except modal.exception.AuthError as error:
            raise SweepError(f"Modal did not let us in ({error}). Run `modal token new`.") from error

    def _upload(self, plan: Plan, names: Names, steps: Sequence[MirroredStep]) -> None:
        """Local inputs, by content, to the cache Volume; the sweep's plan to the runs Volume, for whoever attaches."""
        cache = modal.Volume.from_name(names.cache_volume, create_if_missing=True, version=2)
        there = {PurePosixPath(entry.path).name for entry in listed(cache, "inputs")}
        missing = [name for name in self.inputs if PurePosixPath(name).name not in there]
        if missing:
            with cache.batch_upload(force=True) as batch:
                for name in missing:
                    local = self.store.root / name
                    put = batch.put_directory if local.is_dir() else batch.put_file
                    put(local.resolve(), f"/{name}")
        submission = {"names": asdict(names), "steps": [asdict(step) for step in steps], "rates": self._rates()}
        write_atomically(self.ledger.folder / SUBMISSION, json.dumps(submission, indent=1))
        with modal.Volume.from_name(names.runs_volume, create_if_missing=True, version=2).batch_upload(
            force=True
        ) as batch:
            folder = f"/sweeps/{plan.sweep}"
            batch.put_file(self.ledger.folder / "plan.json", f"{folder}/plan.json")
            batch.put_file(self.ledger.folder / SUBMISSION, f"{folder}/{SUBMISSION}")
            for planned in plan.pending:
                identity = self.store.folder(StepKind.TRAIN, planned.run.key).identity
                batch.put_file(identity, f"/{identity.relative_to(self.store.root).as_posix()}")

    def _rates(self) -> dict[str, Any] | None:
        """The rates of this submission: whoever attaches shows the same dollars."""
        if self.prices is None:
            return None
        rates = rates_now(self.prices)
        if warning := stale_warning(self.prices, rates):
            terminal.messages().print(f"[yellow]{warning}[/yellow]", soft_wrap=True)
        return rates.as_json()

    def _jobs(self, plan: Plan) -> dict[str, Job]:
        """A job per step that is not done here."""
        steps = [dataset.step for dataset in plan.datasets] + [planned.step for planned in plan.pending]
        return {f"{step.kind}/{step.key}": self._job(step) for step in steps}

    def _job(self, step: Step) -> Job:
        function, options = step.kind.value, {}
        if step.kind is StepKind.TRAIN:
            placement = self.placements[step.key]
            function = train_function(placement.variant.gpus)
            options = self._options(placement)
        names = self.deployment
        return Job(
            step=step.to_json(),
            app=names.app_name,
            claims=names.claims,
            cache_volume=names.cache_volume,
            runs_volume=names.runs_volume,
            function=function,
            options=options,
        )

    def _options(self, placement: Placement) -> dict[str, Any]:
        """What a call is bound to. Equal options are one pool of containers, and `max_containers` caps that pool."""
        options: dict[str, Any] = {"timeout": self.deployment.timeout_s}
        if len(placement.variant.gpus) == 1:  # a list to fall back on is deployed: Modal binds one GPU only
            (options["gpu"],) = placement.variant.gpus
        if placement.max_containers is not None:
            options["max_containers"] = placement.max_containers
        return options

    def _spawn(self, job: Job) -> None:
        """The intent is recorded before the call, its id after it."""
        step = job.read_step()
        self.ledger.append(Record(Event.SUBMITTED, step.kind, step.key, message=job.name))
        function = modal.Function.from_name(job.app, job.function)
        if job.options:
            function = function.with_options(**job.options)
        call = function.spawn(json.dumps(job.as_dict()))
        modal.Dict.from_name(job.claims, create_if_missing=True).put(f"call/{job.name}", call.object_id)
        self.ledger.append(Record(Event.STARTED, step.kind, step.key, message=job.name, facts={"call": call.object_id}))


def mirrored_steps(plan: Plan) -> list[MirroredStep]:
    datasets = [
        MirroredStep(StepKind.PREPROCESS, dataset.key, dataset.key, fetch_name(dataset.step))
        for dataset in plan.datasets
    ]
    return datasets + [MirroredStep(StepKind.TRAIN, one.run.key, one.run.data_key) for one in plan.runs]


def _trees(plan: Plan, jobs: Mapping[str, Job], done: set[str]) -> list[Job]:
    """What to call: a model with what waits for it, a dataset with its runs, or a run whose dataset is there."""
    roots: list[Job] = []
    for dataset in plan.datasets:
        names = [f"{StepKind.TRAIN}/{key}" for key in dataset.runs]
        waiting = [jobs[name] for name in names if name in jobs and mark_name(name) not in done]
        preprocess = jobs[f"{StepKind.PREPROCESS}/{dataset.key}"]
        if mark_name(preprocess.name) in done:
            roots += waiting
        elif waiting:
            roots.append(replace(preprocess, then=tuple(waiting)))
    return _after_their_models(roots, done)


def _after_their_models(roots: Sequence[Job], done: set[str]) -> list[Job]:
    """The same, each hub model that is not there yet fetched once before all that needs it."""
    behind: dict[str, Job] = {}
    free: list[Job] = []
    for root in roots:
        if hub_model(root.read_step()) is None:
            free.append(root)
            continue
        fetch = replace(root, function=FETCH, options={}, then=())
        if mark_name(fetch.name) in done:
            free.append(root)
        else:
            known = behind.get(fetch.name, fetch)
            behind[fetch.name] = replace(known, then=(*known.then, root))
    return [*behind.values(), *free]
