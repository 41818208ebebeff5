"""executor=modal with the unmodified client and container entrypoint and the real Axolotl, against the local Modal of
tests/modal_server: a finished sweep, and what can be done with it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import UNPADDED, Axosweep
from tests.end_to_end.chats import write_chats
from tests.end_to_end.on_modal import container_records, local_modal, machine, with_axolotl
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

OF_A_RUN = (UNPADDED, "data.limit=200", "micro_batch_size=4", "max_steps=10", "save_steps=5", "tracking=disabled")
WORDS = ("-m", "lora=r8,r16", *OF_A_RUN)
TABLE = yaml.safe_load((Path(__file__).parents[2] / "conf" / "prices" / "modal.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Swept:
    """A finished sweep of two runs, trained one after the other in one container."""

    here: Axosweep
    said: str
    announced: str
    """What it printed on stderr."""
    tasks: Counter[str]
    """Its containers."""
    told: Mapping[str, Any]
    """What `compare` prints for it."""


@pytest.fixture(scope="module")
def server() -> Iterator[ModalServer]:
    with local_modal(with_axolotl()) as server:
        yield server


@pytest.fixture(scope="module")
def swept(server: ModalServer, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    here = machine(server, tmp_path_factory.mktemp("swept") / "here")
    done = here.run(*WORDS, "executor=modal", "executor.parallel=1")
    assert done.returncode == 0, done.stderr
    tasks = Counter(task.function for task in server.tasks())
    return Swept(here, done.stdout, done.stderr, tasks, here.json("compare"))


def test_a_launch_says_before_it_starts_how_its_runs_share_containers_and_which_disk_they_have(swept: Swept) -> None:
    lines = swept.announced.splitlines()
    assert "reuse   2 runs in 1 container, which takes them in turn" in lines
    (disk,) = [line for line in lines if line.startswith("disk    ")]
    assert "GiB of each container" in disk
    assert next(at for at, line in enumerate(lines) if line.startswith("total   ")) < lines.index(disk)


def losses(told: Mapping[str, Any], store: Store) -> dict[int, Any]:
    """The losses in the table and all logged losses, by rank: keys name the Python of the trainer, and this machine's
    may differ from Modal's."""
    return {row["params"]["lora_r"]: (row["first"], row["final"], curve(store, row["key"])) for row in told["runs"]}


def machine_rate(record: Mapping[str, Any]) -> float:
    """Dollars a second of a container without GPUs, according to the table."""
    cores = max(record["cores_reserved"], record["cores_used"] or 0)
    memory_gib = max(record["memory_gib_reserved"], record["memory_gib_used"] or 0)
    return float(cores * TABLE["cpu"] + memory_gib * TABLE["memory"])


def mirror_of(axosweep: Axosweep) -> Store:
    return Store(axosweep.store.root / "modal")


def curve(store: Store, key: str) -> dict[int, dict[str, float]]:
    """The losses that were logged at each step."""
    named = ("loss", "eval_loss", "grad_norm", "learning_rate")
    return {step: {name: line[name] for name in named if name in line} for step, line in logged(store, key).items()}


def logged(store: Store, key: str) -> dict[int, dict[str, float]]:
    """What was logged at each step."""
    lines: dict[int, dict[str, float]] = {}
    for text in store.folder(StepKind.TRAIN, key).metrics.read_text().splitlines():
        line = json.loads(text)
        lines.setdefault(line["step"], {}).update(line)
    return lines


def test_a_sweep_on_modal_ends_in_the_table_that_it_has_here(
    swept: Swept, server: ModalServer, axosweep: Axosweep
) -> None:
    assert axosweep.run(*WORDS).returncode == 0
    there = losses(swept.told, mirror_of(swept.here))
    assert there == losses(axosweep.json("compare"), axosweep.store)
    assert all(len(logged) > 5 for _, _, logged in there.values())
    assert [record["ended_because"] for record in container_records(server, "runs/*")] == ["", ""]
    assert swept.tasks == {"preprocess": 1, "train": 1}, "one container has trained both runs"
    assert not server.unknown_calls()


def test_its_mirror_has_the_losses_of_each_held_out_row_and_the_rows(swept: Swept) -> None:
    told = swept.here.json("compare", *(row["key"] for row in swept.told["runs"]))
    where = told["where"]
    assert (where["rows"], where["documents_known"], told["notes"]) == (10, True, [])
    rows = [*where["better"], *where["worse"]]
    assert rows
    assert all(row["text"][-1]["trained"] for row in rows)
    mirror = mirror_of(swept.here)
    assert all(mirror.folder(StepKind.TRAIN, row["key"]).losses_before.exists() for row in told["runs"])


def test_a_second_request_has_nothing_to_do(swept: Swept, server: ModalServer) -> None:
    before = len(server.function_calls())
    again = swept.here.run(*WORDS, "executor=modal")
    assert "2 runs finished before, skipped; nothing to do" in again.stdout
    assert len(server.function_calls()) == before


def test_on_cpus_it_costs_its_seconds_at_the_tables_rates(swept: Swept, server: ModalServer) -> None:
    for row in swept.told["runs"]:
        (record,) = container_records(server, f"runs/{row['key']}")
        assert record["ended"]
        assert row["paid_seconds"] == record["seconds"] > 0
        assert row["dollars"] == pytest.approx(record["seconds"] * machine_rate(record))
    prepared = container_records(server, "prepared/*.work")
    cost = swept.told["cost"]
    assert cost["training"] == pytest.approx(sum(row["dollars"] for row in swept.told["runs"]))
    assert cost["preparing"] == pytest.approx(sum(one["seconds"] * machine_rate(one) for one in prepared))
    assert cost["preparing"] > 0
    assert f"rates: table of {TABLE['date']}" in swept.said
    # The server's own figures, which also include the first moment of a container and its last commit.
    (task,) = server.tasks("train")
    recorded = sum(record["seconds"] for record in container_records(server, "runs/*"))
    lived = (task.ended_at or time.time()) - task.started_at
    assert lived - 15 < recorded < lived, "at its end, it has waited two seconds for another run"


def test_what_comes_next_is_predicted_from_its_records(swept: Swept) -> None:
    words = ("lora=r8", UNPADDED, "micro_batch_size=4", "max_steps=100", "tracking=disabled", "executor=modal")
    (asked,) = swept.here.json("plan", *words)["cost"]["runs"]
    assert asked["basis"] == "2 records"


def test_the_receipt_of_each_run_and_container_adds_up_and_only_first_runs_boot(swept: Swept) -> None:
    runs = {row["key"]: row["receipt"] for row in swept.told["runs"]}
    assert sorted(key for one in swept.told["containers"] for key in one["runs"]) == sorted(runs)
    for one in swept.told["containers"]:
        first, *later = (runs[key]["parts"] for key in one["runs"])
        assert first["boot"] > 0
        assert "idle" not in first
        assert all("idle" in parts and "boot" not in parts for parts in later)
    for receipt in (*runs.values(), *swept.told["containers"]):
        paid = {name: seconds for name, seconds in receipt["parts"].items() if name != "queue"}
        assert sum(paid.values()) == pytest.approx(receipt["seconds"], abs=0.02)
        assert {"import", "load", "train", "evaluate", "save", "copy"} <= set(paid)
    told = swept.here.run("compare", "--receipt").stdout
    assert all(one["container"] in told for one in swept.told["containers"])


def test_attached_to_from_elsewhere_it_is_the_same_sweep_at_the_same_cost(
    swept: Swept, server: ModalServer, tmp_path: Path
) -> None:
    elsewhere = machine(server, tmp_path / "elsewhere")
    attached = elsewhere.run("attach", swept.told["sweep"])
    assert attached.returncode == 0, attached.stderr
    again = elsewhere.json("compare")
    assert losses(again, mirror_of(elsewhere)) == losses(swept.told, mirror_of(swept.here))
    assert again["cost"] == swept.told["cost"]
    assert [row["dollars"] for row in again["runs"]] == [row["dollars"] for row in swept.told["runs"]]


def test_rows_that_no_run_can_train_on_end_there_before_a_card_is_rented(swept: Swept, server: ModalServer) -> None:
    write_chats(swept.here.folder / "silent.ndjson", [("user", "Who?"), ("user", "You.")], times=40)
    before = len(server.function_calls())
    words = ("dataset=local", "data.path=silent.ndjson", "max_steps=2", "tracking=disabled", "executor=modal")
    done = swept.here.run(*words)
    assert done.returncode == 1, done.stderr
    assert "of its 38 rows is trained, so the loss of every step would be NaN" in done.stderr
    assert [call.function for call in server.function_calls()[before:]] == ["preprocess"]


def test_a_run_there_goes_on_from_a_checkpoint_of_another_one(swept: Swept, server: ModalServer) -> None:
    """The checkpoint is copied from its Volume, and is an input of the run that begins with it."""
    (before,) = [row for row in swept.told["runs"] if row["params"]["lora_r"] == 8]
    words = ("lora=r8", *OF_A_RUN, "executor=modal", f"from={before['key']}@5", "learning_rate=0.001")
    (after,) = swept.here.json(*words)["runs"]
    assert after["status"] == "succeeded", after["message"]
    earlier, later = (logged(mirror_of(swept.here), run["key"]) for run in (before, after))
    assert min(later) == 5, "what it begins with is evaluated"
    assert later[6]["loss"] == earlier[6]["loss"], "the same weights, the same rows"
    for step in range(6, 11):
        assert later[step]["learning_rate"] == pytest.approx(earlier[step]["learning_rate"] / 4)
    assert not server.unknown_calls()


def test_a_run_that_stops_at_a_rung_and_goes_on_has_the_losses_of_a_run_without_rungs(
    swept: Swept, server: ModalServer, tmp_path: Path
) -> None:
    """The same runs, on Volumes where they were not trained yet. Without rungs, nothing would be evaluated or saved at
    that step."""
    elsewhere = [f"executor.modal.{name}=rungs-{name}" for name in ("runs_volume", "claims")]
    here, rungs = machine(server, tmp_path / "here"), ("search.rungs=[0.3]", "search.eta=2", "search.audit=false")
    done = here.run(*WORDS, "executor=modal", *elsewhere, *rungs)
    assert done.returncode == 0, done.stderr
    rows = here.json("compare")["runs"]
    assert sorted(row["status"] for row in rows) == ["stopped at rung", "succeeded"]
    (stopped,) = [row["key"] for row in rows if row["status"] != "succeeded"]
    assert max(logged(mirror_of(here), stopped)) == 3
    resumed = here.run("resume", stopped, "--yes")
    assert resumed.returncode == 0, resumed.stderr
    for row in here.json("compare")["runs"]:
        assert curve(mirror_of(here), row["key"]) == curve(mirror_of(swept.here), row["key"])
