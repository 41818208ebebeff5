"""A local Modal with everything deployed, and one run on it whose worker is doomed_worker.py."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import modal
import pytest

from modal_app.cloud.deployment import build_app
from modal_app.cloud.job import Job, steps_file
from modal_app.store.layout import STEPS, Attempt, Store
from modal_app.store.step import Outcome, Step, StepKind
from tests.modal_app.deployments import shipped
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import client_of
from tests.modal_server.layers import HOME
from tests.modal_server.views import Spawned

FILES = {
    f"{HOME}/modal_app/worker.py": Path(__file__).with_name("doomed_worker.py"),
    f"{HOME}/modal_app/oneshot/fetch.py": Path(__file__).with_name("doomed_fetch.py"),
}
MODEL = {"base_model": "owner/model", "revision_of_model": "c0ffee"}
DATA = Step(StepKind.PREPROCESS, "data", MODEL, "data")
STEP = Step(StepKind.TRAIN, "run", {}, "data")
LAST = 20
Call: TypeAlias = "modal.FunctionCall[Any]"


@dataclass(frozen=True)
class Cloud:
    """A local Modal with everything deployed, and the folder of its one run as it is committed."""

    server: ModalServer
    client: modal.Client
    job: Job

    def start(
        self, timeout_s: int = 0, options: Mapping[str, Any] = MappingProxyType({}), **changes: Any
    ) -> modal.FunctionCall[Any]:
        job = replace(self.job, **changes)
        all_options = {"timeout": timeout_s or job.limit_s or 600, **options}
        function = modal.Function.from_name(job.app, job.function, client=self.client).with_options(**all_options)
        return function.spawn(replace(job, options=all_options).to_json())

    def run(self, **changes: Any) -> str:
        """How the call ends, according to its answer."""
        return str(self.start(**changes).get(timeout=90)["status"])

    @property
    def runs(self) -> Store:
        return Store(self.server.volume_tree(self.job.runs_volume))

    @property
    def attempts(self) -> list[Attempt]:
        return self.runs.folder(STEP.kind, STEP.key).attempts()

    @property
    def outcomes(self) -> list[str]:
        """How each attempt ended; empty for one that died without a result."""
        return [str(outcome.status) if (outcome := outcome_of(one)) else "" for one in self.attempts]

    @property
    def losses(self) -> dict[int, float]:
        text = self.runs.folder(STEP.kind, STEP.key).metrics.read_text()
        return {line["step"]: line["loss"] for line in map(json.loads, text.splitlines())}

    def wait_for_all(self) -> list[Spawned]:
        """All calls, once none is running."""

        def ended() -> list[Spawned]:
            calls = self.server.function_calls()
            return [] if any(call.status in ("pending", "running") for call in calls) else calls

        return self.server.wait_until(ended, 60)

    def kill_at(self, name: str, nth: int, call: Call | Callable[[], Call], *, after: bool = False) -> Call:
        """Kill the container of a call at its nth call of that name from now on, before or after its effect.

        For a call that may end sooner than this, pass the function that makes it.
        """
        made = len(self.server.calls(name))
        release = self.server.hold(name, nth=nth, after=after)
        call = call() if callable(call) else call
        self.server.wait_until(lambda: len(self.server.calls(name)) == made + nth, 60)
        time.sleep(0.3 if after else 0.0)
        task = self.server.tasks_of(call.object_id)[-1]
        self.server.kill(task.id)
        self.server.wait_until(lambda: self.server.tasks_of(call.object_id)[0].ended_at)
        release()
        return call

    def wait_for_training(self, attempt: int, run: str = STEP.key) -> None:
        """Wait until that attempt has taken a step, as seen in its container: it is not committed yet."""

        def trains() -> bool:
            curves = self.server.folder.glob(f"t/*/volumes/*/runs/{run}/attempt-*/draft/metrics.jsonl")
            return any(f'"attempt": {attempt},' in _text(curve) for curve in curves)

        self.server.wait_until(trains, 30)


def _text(path: Path) -> str:
    """The text of a file; empty if it has vanished: a container that ends removes its files."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def outcome_of(attempt: Attempt) -> Outcome | None:
    return Outcome.from_json(attempt.result.read_text()) if attempt.result.exists() else None


def undisturbed(steps: int = LAST) -> dict[int, float]:
    losses, value = {}, 1
    for number in range(1, steps + 1):
        value = value * 48_271 % 2_147_483_647
        losses[number] = value / 2_147_483_647
    return losses


def submit(client: modal.Client, *, reused: bool = False, step: Step = STEP) -> Job:
    """Put the plan of one run on the Volume, as the launcher does; returns its job."""
    deployment = shipped(reused=reused)
    train = Job(
        name="train/run", sweep="sweep", app=deployment.app_name, function="train", claims=deployment.claims,
        cache_volume=deployment.cache_volume, runs_volume=deployment.runs_volume, reused=reused,
    )  # fmt: skip
    steps = {train.name: step, "preprocess/data": DATA, "fetch/owner/model@c0ffee": DATA}
    file = io.BytesIO(steps_file(steps, {"preprocess/data": [train]}).encode())
    with modal.Volume.from_name(deployment.runs_volume, client=client).batch_upload() as batch:
        batch.put_file(file, f"/sweeps/{train.sweep}/{STEPS}")
    return train


@contextmanager
def clouds(patch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cloud]]:
    """`clouds(...)({"1": "crash@3"})`: attempt 1 fails in that way."""
    with ExitStack() as stack:

        def start(
            doom: dict[str, str],
            *,
            step_s: float = 0.02,
            save_steps: int = 2,
            waits_s: float = 30.0,
            steps: int = LAST,
            bytes_saved: int = 0,
            secret: Mapping[str, str] = MappingProxyType({}),
            reused: bool = False,
            step: Step = STEP,
            **settings: Any,
        ) -> Cloud:
            told = {
                "WORKER_DOOM": json.dumps(doom),
                "WORKER_STEPS": str(steps),
                "WORKER_BYTES": str(bytes_saved),
                "WORKER_STEP_S": str(step_s),
                "WORKER_SAVE_STEPS": str(save_steps),
                "WORKER_WAITS_S": str(waits_s),
            }
            told |= settings.pop("container_environment", {})
            files = FILES | settings.pop("files", {})
            server = stack.enter_context(
                ModalServer(Settings(container_environment=told, files=files, **{"grace_s": 5.0} | settings))
            )
            server.set_secret(shipped().secret, {"HUGGINGFACE_TOKEN": "hf_test", **secret})
            client = stack.enter_context(client_of(server, patch))
            build_app(shipped(reused=reused)).deploy(client=client)
            return Cloud(server, client, submit(client, reused=reused, step=step))

        yield start
