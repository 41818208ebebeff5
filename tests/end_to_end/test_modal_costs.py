"""Dollars of sweeps on the local Modal: of what was really allocated, the same for whoever attaches."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.layout import Store
from runner import trainer_environment
from tests.end_to_end.axosweep import Axosweep
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET, needs_mounts, noop_settings
from tests.modal_server.rootfs import HOME

pytestmark = [pytest.mark.slow, needs_mounts]

TABLE = yaml.safe_load((Path(__file__).parents[2] / "conf" / "prices" / "modal.yaml").read_text(encoding="utf-8"))
HOURLY = {"cpu_hour_cost": "0.05", "mem_gib_hour_cost": "0.01", "gpu_hour_cost_h100": "4", "gpu_hour_cost_h200": "5"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
H200 = "NVIDIA H200"


def client(server: ModalServer, folder: Path) -> Axosweep:
    """A machine with an empty store."""
    (folder / "work").mkdir(parents=True)
    return Axosweep(Store(folder / "store"), folder / "work", server.environment())


@contextmanager
def served(settings: Settings) -> Iterator[ModalServer]:
    with ModalServer(settings) as server:
        server.set_secret("secrets-hf-wandb", SECRET)
        yield server


def records(server: ModalServer, folder: str) -> list[dict[str, Any]]:
    """What the containers themselves have left, as it is committed."""
    volume = "axosweep-cache" if folder.startswith("prepared") else "axosweep-runs"
    return [json.loads(path.read_text()) for path in (server.volume_tree(volume)).glob(f"{folder}/containers/*.json")]


def machine(record: Mapping[str, Any], core: float, gib: float) -> float:
    """Dollars a second without the GPUs."""
    cores = max(record["cores_reserved"], record["cores_used"] or 0)
    return cores * core + max(record["memory_gib_reserved"], record["memory_gib_used"] or 0) * gib


def with_cards(settings: Settings, folder: Path, *cards: str) -> Settings:
    """The same, with an nvidia-smi that shows these cards in every container that it is asked for GPUs for."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    lines = "".join(f"echo '{card}, 143771, 70000, 80'\n" for card in cards)
    program.write_text(f'#!/bin/sh\n[ "$2" = "--format=csv,noheader,nounits" ] || exit 1\n{lines}')
    program.chmod(0o755)
    path = os.pathsep.join([str(folder), str(settings.container_python.parent), "/usr/local/bin", "/usr/bin", "/bin"])
    variables = {**settings.container_environment, "PATH": path}
    return replace(settings, visible=(folder,), container_environment=variables)


def test_a_sweep_on_cpus_costs_its_seconds_at_the_tables_rates_and_the_same_on_every_machine(tmp_path: Path) -> None:
    with served(Settings(container_python=trainer_environment.find(), grace_s=10)) as server:
        here = client(server, tmp_path / "here")
        done = here.run("-m", "lora=r8,r16", "max_steps=5", "tracking=disabled", "executor=modal")
        assert done.returncode == 0, done.stderr
        told = here.json("compare")
        for row in told["runs"]:
            (record,) = records(server, f"runs/{row['key']}")
            assert record["ended"]
            assert row["paid_seconds"] == record["seconds"] > 0
            assert row["dollars"] == pytest.approx(record["seconds"] * machine(record, TABLE["cpu"], TABLE["memory"]))
        prepared = records(server, "prepared/*.work")
        cost = told["cost"]
        assert cost["training"] == pytest.approx(sum(row["dollars"] for row in told["runs"]))
        assert cost["preparing"] == pytest.approx(
            sum(one["seconds"] * machine(one, TABLE["cpu"], TABLE["memory"]) for one in prepared)
        )
        assert cost["preparing"] > 0
        assert f"rates: table of {TABLE['date']}" in done.stdout
        # The server's own figures; between them lie a container's very start, and its last commit.
        lived = {task.id: task.ended_at - task.started_at for task in server.tasks()}
        for record in records(server, "runs/*"):
            assert lived[record["task"]] - 5 < record["seconds"] < lived[record["task"]]

        elsewhere = client(server, tmp_path / "elsewhere")
        assert elsewhere.run("attach", told["sweep"]).returncode == 0
        again = elsewhere.json("compare")
        assert again["cost"] == cost
        assert [row["dollars"] for row in again["runs"]] == [row["dollars"] for row in told["runs"]]


def test_what_was_allocated_is_paid_at_modals_rates_and_shown_while_it_is_spent(tmp_path: Path) -> None:
    """Two H100s are asked for, and two H200s are what comes."""
    settings = with_cards(noop_settings(train_s=14, billing_rates=HOURLY), tmp_path / "bin", H200, H200)
    with served(settings) as server:
        here, elsewhere = client(server, tmp_path / "here"), client(server, tmp_path / "elsewhere")
        launch = here.start("lora=r8", "gpu=h100", "gpu.count=2", "tracking=disabled", "executor=modal")
        server.wait_until(lambda: [task for task in server.tasks("train") if task.inputs], 120)
        (plan,) = here.store.root.glob("modal/sweeps/*/plan.json")
        shown = elsewhere.shown("attach", plan.parent.name)
        said, _ = launch.communicate(timeout=120)
        assert launch.returncode == 0, said
        told = here.json("compare")
        (row,) = told["runs"]
        (record,) = records(server, f"runs/{row['key']}")
        assert (record["cores_reserved"], record["memory_gib_reserved"]) == (4.0, 32.0), "for two cards"
        per_second = 2 * 5 / 3600 + machine(record, 0.05 / 3600, 0.01 / 3600)
        assert row["gpu"] == "2 x h200"
        assert row["dollars"] == pytest.approx(record["seconds"] * per_second)
        assert told["cost"]["as_asked"] == []
        assert "rates: Modal's of " in said
        # The last word came after the tick of the tenth second.
        so_far = [float(dollars) for dollars in re.findall(r"\$(\d+\.\d+) so far", shown)]
        assert row["dollars"] / 2 < so_far[-1] <= round(told["cost"]["dollars"], 2)
        (used,) = row["record"]["containers"]
        assert {(card["peak_mib"], card["utilisation"]) for card in used["cards"]} == {(70000, 80.0)}
        assert used["memory_gib_used"] > 0


def test_containers_that_were_taken_away_are_paid_too(tmp_path: Path) -> None:
    """One is preempted, and has time for a last word; the other one is killed."""
    settings = with_cards(noop_settings(train_s=4, billing_rates=HOURLY, grace_s=10), tmp_path / "bin", H200)
    with served(settings) as server:
        here = client(server, tmp_path / "here")
        launch = here.start("-m", "lora=r8,r16", "gpu=h200", "tracking=disabled", "executor=modal")
        server.wait_until(lambda: server.tasks("train"), 120)
        preempted, killed = server.wait_until(lambda: len(found := records(server, "runs/*")) == 2 and found, 60)
        server.preempt(preempted["task"])
        server.kill(killed["task"])
        said, _ = launch.communicate(timeout=120)
        assert launch.returncode == 0, said
        left = {one["task"]: one for one in records(server, "runs/*")}
        assert (left[preempted["task"]]["ended"], left[killed["task"]]["ended"]) == (True, False)
        for row in here.json("compare")["runs"]:
            both = records(server, f"runs/{row['key']}")
            assert len(both) == 2
            assert all(one["seconds"] > 0 for one in both)
            assert row["paid_seconds"] == pytest.approx(sum(one["seconds"] for one in both))
            dollars = [one["seconds"] * (5 / 3600 + machine(one, 0.05 / 3600, 0.01 / 3600)) for one in both]
            assert row["dollars"] == pytest.approx(sum(dollars))


def test_fetching_the_model_is_in_the_sweeps_dollars(tmp_path: Path) -> None:
    nothing = tmp_path / "fetch.py"
    nothing.write_text("print('fetched nothing')\n")
    settings = noop_settings(billing_rates=HOURLY)
    settings = replace(settings, files={**settings.files, f"{HOME}/modal_app/fetch.py": nothing})
    with served(settings) as server:
        here = client(server, tmp_path / "here")
        done = here.run(
            "base_model=owner/model", f"revision_of_model={COMMIT}", "lora=r8", "tracking=disabled", "executor=modal"
        )
        assert done.returncode == 0, done.stderr
        fetched, prepared = records(server, "fetched/*"), records(server, "prepared/*.work")
        assert len(fetched) == len(prepared) == 1
        dollars = sum(one["seconds"] * machine(one, 0.05 / 3600, 0.01 / 3600) for one in [*fetched, *prepared])
        assert here.json("compare")["cost"]["preparing"] == pytest.approx(dollars)
