"""A search of several runs on a local Modal, whose worker is doomed_worker.py."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import modal

from modal_app.cloud.job import Job, steps_file
from modal_app.halving.choose import who_goes_on
from modal_app.halving.entries import FileEntries, entries_folder
from modal_app.halving.snapshot import Snapshot, Terms
from modal_app.store.layout import STEPS
from modal_app.store.rungs import Rungs
from modal_app.store.state import observe
from modal_app.store.step import Share, Step, StepKind
from tests.modal_app.cloud import LAST, Cloud

SEARCH = "sweep/hash"
RUNG = LAST // 5
"""The step of the first rung."""


@dataclass(frozen=True)
class HalvedCloud:
    """`losses`: those of the runs, at each rung."""

    cloud: Cloud
    losses: Mapping[str, float]
    rungs: Rungs
    share: Share | None

    @classmethod
    def on(
        cls,
        cloud: Cloud,
        losses: Mapping[str, float],
        fractions: tuple[float, ...] = (0.2,),
        eta: int = 2,
        share: Share | None = None,
        waits: Mapping[str, str] | None = None,
    ) -> HalvedCloud:
        """Put the plan and the terms of the search where the launcher puts them. `waits`: a run, and one that waits for
        it."""
        here = cls(cloud, losses, Rungs(SEARCH, fractions, eta, audit=False), share)
        steps = {f"train/{run}": here._step(run) for run in losses}
        terms = json.dumps(Terms(dict.fromkeys(losses, None), fractions, eta, audit=False).to_json())
        with modal.Volume.from_name(cloud.job.runs_volume, client=cloud.client).batch_upload(force=True) as batch:
            waiting = {f"train/{before}": [here.job(run)] for before, run in (waits or {}).items()}
            file = steps_file(steps, waiting, [here.job(run) for run in losses])
            batch.put_file(io.BytesIO(file.encode()), f"/sweeps/sweep/{STEPS}")
            batch.put_file(io.BytesIO(terms.encode()), f"/sweeps/{SEARCH.replace('/', '/rungs/')}/terms.json")
        return here

    def job(self, run: str) -> Job:
        return replace(self.cloud.job, name=f"train/{run}", options={"timeout": 600})

    def start(self, *runs: str) -> list[modal.FunctionCall[Any]]:
        return [self.cloud.start(name=f"train/{run}") for run in runs or self.losses]

    @property
    def claims(self) -> modal.Dict:
        return modal.Dict.from_name(self.cloud.job.claims, create_if_missing=True, client=self.cloud.client)

    @property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """The entries, as the Volume has them."""
        return FileEntries(entries_folder(self.cloud.runs, SEARCH)).items()

    @property
    def phases(self) -> dict[str, str]:
        return {run: str(observe(self.cloud.runs, StepKind.TRAIN, run).phase) for run in self.losses}

    def calls_of(self, run: str) -> int:
        server = self.cloud.server
        jobs = [Job.from_json(server.argument(call.id)) for call in server.function_calls()]
        return sum(job.name == f"train/{run}" for job in jobs)

    def steps_trained(self, run: str) -> list[int]:
        """The committed steps, each as often as it was taken."""
        folder = self.cloud.runs.folder(StepKind.TRAIN, run)
        drafts = [attempt.draft / "metrics.jsonl" for attempt in folder.attempts()]
        curves = [path.read_text() for path in (folder.metrics, *drafts) if path.exists()]
        return [json.loads(line)["step"] for line in max(curves, key=len).splitlines()]

    def all_have_gone_that_should(self) -> bool:
        """What has to hold when no run works."""
        snapshot = Snapshot.of(self.entries)
        every = range(1, len(self.rungs.fractions) + 1)
        return all(snapshot.has_gone(rung, run) for rung in every for run in who_goes_on(snapshot, rung))

    def _step(self, run: str) -> Step:
        return Step(
            StepKind.TRAIN, run, {"loss": self.losses[run]}, "data", sweep="sweep", share=self.share, rungs=self.rungs
        )
