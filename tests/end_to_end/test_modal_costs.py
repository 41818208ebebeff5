"""Dollars of sweeps on the local Modal, for what was really allocated. The worker in the containers does nothing;
test_modal.py checks the cost of a sweep of real runs on CPUs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.on_modal import container_records, local_modal, machine
from tests.modal_server import Settings, empty_fetch
from tests.modal_server.fixture import needs_mounts, noop_settings
from tests.modal_server.layers import HOME

pytestmark = [pytest.mark.slow, needs_mounts]

HOURLY = {"cpu_hour_cost": "0.05", "mem_gib_hour_cost": "0.01", "gpu_hour_cost_h100": "4", "gpu_hour_cost_h200": "5"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
H200 = "NVIDIA H200"


def machine_rate(record: Mapping[str, Any]) -> float:
    """Dollars a second without the GPUs."""
    cores = max(record["cores_reserved"], record["cores_used"] or 0)
    memory_gib = max(record["memory_gib_reserved"], record["memory_gib_used"] or 0)
    return float(cores * 0.05 + memory_gib * 0.01) / 3600


def with_cards(settings: Settings, folder: Path, *cards: str) -> Settings:
    """The same, with an nvidia-smi that shows these cards in every container with GPUs."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    lines = "".join(f"echo '{card}, 143771, 70000, 80'\n" for card in cards)
    program.write_text(f'#!/bin/sh\n[ "$2" = "--format=csv,noheader,nounits" ] || exit 1\n{lines}')
    program.chmod(0o755)
    path = os.pathsep.join([str(folder), str(settings.container_python.parent), "/usr/local/bin", "/usr/bin", "/bin"])
    variables = {**settings.container_environment, "PATH": path}
    return replace(settings, visible=(*settings.visible, folder), container_environment=variables)


def test_what_was_allocated_is_paid_at_modals_rates_and_shown_while_it_is_spent(tmp_path: Path) -> None:
    """Two H100s are requested, and two H200s are allocated."""
    settings = with_cards(noop_settings(train_s=14, billing_rates=HOURLY), tmp_path / "bin", H200, H200)
    with local_modal(settings) as server:
        here, elsewhere = machine(server, tmp_path / "here"), machine(server, tmp_path / "elsewhere")
        launch = here.start("lora=r8", "gpu=h100", "gpu.count=2", "tracking=disabled", "executor=modal")
        server.wait_until(lambda: [task for task in server.tasks("train") if task.inputs], 120)
        (plan,) = here.store.root.glob("modal/sweeps/*/plan.json")
        shown = elsewhere.shown("attach", plan.parent.name)
        said, _ = launch.communicate(timeout=120)
        assert launch.returncode == 0, said
        told = here.json("compare")
        (row,) = told["runs"]
        (record,) = container_records(server, f"runs/{row['key']}")
        assert (record["cores_reserved"], record["memory_gib_reserved"]) == (4.0, 32.0), "for two cards"
        per_second = 2 * 5 / 3600 + machine_rate(record)
        assert row["gpu"] == "2 x h200"
        assert row["dollars"] == pytest.approx(record["seconds"] * per_second)
        assert told["cost"]["as_asked"] == []
        assert "rates: Modal's of " in said
        # The last record came after the tick of the tenth second.
        so_far = [float(dollars) for dollars in re.findall(r"\$(\d+\.\d+) so far", shown)]
        assert row["dollars"] / 2 < so_far[-1] <= round(told["cost"]["dollars"], 4), "as it is shown below ten cents"
        (used,) = row["record"]["containers"]
        assert {(card["peak_mib"], card["utilisation"]) for card in used["cards"]} == {(70000, 80.0)}
        assert used["memory_gib_used"] > 0


def test_containers_that_were_taken_away_are_paid_too(tmp_path: Path) -> None:
    """One is preempted, and has time for a last record; the other one is killed. What their cards showed then decides
    where the same runs fit."""
    over = tmp_path / "signs" / "over"
    over.parent.mkdir()
    settings = noop_settings(train_s=4, until={"train": over}, billing_rates=HOURLY, grace_s=10)
    settings = with_cards(settings, tmp_path / "bin", H200)
    with local_modal(settings) as server:
        here = machine(server, tmp_path / "here")
        words = ("-m", "micro_batch_size=1,80000", "lora=r8", "pad_to_sequence_len=true", "tracking=disabled",
                 "executor=modal")  # fmt: skip
        launch = here.start(*words, "gpu=h200")
        server.wait_until(lambda: server.tasks("train"), 120)
        server.wait_until(lambda: len(container_records(server, "runs/*")) == 2, 60)
        preempted, killed = container_records(server, "runs/*")
        server.preempt(preempted["task"])
        server.kill(killed["task"])
        over.touch()
        said, _ = launch.communicate(timeout=120)
        assert launch.returncode == 0, said
        left = {one["task"]: one for one in container_records(server, "runs/*")}
        assert (left[preempted["task"]]["ended"], left[killed["task"]]["ended"]) == (True, False)
        for row in here.json("compare")["runs"]:
            both = container_records(server, f"runs/{row['key']}")
            assert len(both) == 2
            assert all(one["seconds"] > 0 for one in both)
            assert row["paid_seconds"] == pytest.approx(sum(one["seconds"] for one in both))
            dollars = [one["seconds"] * (5 / 3600 + machine_rate(one)) for one in both]
            assert row["dollars"] == pytest.approx(sum(dollars))
        planned = here.json("plan", *words, "gpu=h100,l4", "seed=7", "--force")
        known = [one for (one,) in planned["preflight"]["memory"]]
        assert {(one["gpu"], one["tokens"][:5]): one["verdict"] for one in known} == {
            ("h100", "1 x 1"): "FITS",
            ("l4", "1 x 1"): "WON'T FIT",  # estimated, it would fit
            ("h100", "80000"): "FITS",  # estimated, that would be uncertain
            ("l4", "80000"): "WON'T FIT",
        }
        runs = {one["key"] for one in here.json("compare")["runs"]}
        assert {one["measured"]["run"] for one in known} == runs
        assert {one["measured"]["peak"] for one in known} == {70000 * 2**20}, (
            "what the container's nvidia-smi has shown"
        )


def test_fetching_the_model_is_in_the_sweeps_dollars(tmp_path: Path) -> None:
    settings = noop_settings(billing_rates=HOURLY)
    settings = replace(
        settings, files={**settings.files, f"{HOME}/modal_app/oneshot/fetch.py": Path(empty_fetch.__file__)}
    )
    with local_modal(settings) as server:
        here = machine(server, tmp_path / "here")
        done = here.run(
            "base_model=owner/model", f"revision_of_model={COMMIT}", "lora=r8", "tracking=disabled", "executor=modal"
        )
        assert done.returncode == 0, done.stderr
        fetched, prepared = container_records(server, "fetched/*"), container_records(server, "prepared/*.work")
        assert len(fetched) == len(prepared) == 1
        dollars = sum(one["seconds"] * machine_rate(one) for one in [*fetched, *prepared])
        assert here.json("compare")["cost"]["preparing"] == pytest.approx(dollars)
