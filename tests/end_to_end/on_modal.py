"""The command with a local Modal, and what the calls of its sweeps have left there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.environment import trainer_environment
from runner.store.ledger import Event, Ledger, sweep_ids
from tests.end_to_end.axosweep import Axosweep
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET

ON_GPUS = ("gpu=a100_80gb", "gpu.count=2", "tracking=disabled", "executor=modal", "--yes")
RUNS, CACHE = "axosweep-runs", "axosweep-cache"


@contextmanager
def local_modal(settings: Settings) -> Iterator[ModalServer]:
    """A local Modal with the secret that axosweep requires."""
    with ModalServer(settings) as server:
        server.set_secret("secrets-hf-wandb", SECRET)
        yield server


THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "3")
"""As Modal sets them in a container, from its CPU request."""

IN_ONE_PROCESS = {"AXOLOTL_DATASET_NUM_PROC": "0"}
"""Few rows are tokenized in the container's own process: each other one would import the library of datasets."""


def with_axolotl(container_environment: Mapping[str, str] | None = None, **others: Any) -> Settings:
    """Containers in which the real worker runs the real Axolotl."""
    environment = THREADS | IN_ONE_PROCESS | dict(container_environment or {})
    python = trainer_environment.find()
    return Settings(container_python=python, grace_s=10, container_environment=environment, **others)


def machine(server: ModalServer, folder: Path, **variables: str) -> Axosweep:
    """A place with an empty store, whose commands use that server."""
    (folder / "work").mkdir(parents=True)
    return Axosweep(Store(folder / "store"), folder / "work", {**server.environment(), **variables})


def beside(axosweep: Axosweep, server: ModalServer, store: Store) -> Axosweep:
    """The command on that server, with a store of its own."""
    return Axosweep(store, axosweep.folder, server.environment())


def finish(on_modal: Axosweep, *words: str) -> Counter[str]:
    """Launch, and follow to the end, which all runs have to reach; returns their statuses in the table."""
    return Counter(row["status"] for row in on_modal.json(*words)["runs"])


def statuses(on_modal: Axosweep) -> Counter[str]:
    return Counter(row["status"] for row in on_modal.json("compare")["runs"])


def recorded(on_modal: Axosweep, event: Event, *kinds: StepKind) -> int:
    """How often this event is in the ledgers of its sweeps, for steps of these kinds, or of any kind."""
    mirror = Store(on_modal.store.root / "modal")
    records = (record for sweep in sweep_ids(mirror) for record in Ledger(mirror, sweep).records())
    return sum(record.event is event and (not kinds or record.kind in kinds) for record in records)


def attempts(server: ModalServer, on_modal: Axosweep) -> list[int]:
    """The number of attempts at every run and dataset in this store, as the Volumes have them."""
    mirror = on_modal.store.root / "modal"
    runs = [server.volume_tree(RUNS) / "runs" / path.name for path in (mirror / "runs").iterdir()]
    data = [server.volume_tree(CACHE) / "prepared" / path.name for path in mirror.glob("prepared/*.work")]
    return [len(list(folder.glob("attempt-*"))) for folder in (*runs, *data)]


def calls_since(server: ModalServer, started: float) -> Counter[str]:
    return Counter(call.function for call in server.function_calls() if call.created_at >= started)


def container_records(server: ModalServer, folder: str) -> list[dict[str, Any]]:
    """What the containers themselves have left and committed."""
    tree = server.volume_tree(CACHE if folder.startswith("prepared") else RUNS)
    return [json.loads(path.read_text()) for path in tree.glob(f"{folder}/containers/*.json")]
