"""Runs that are out of memory, by torch's own exception: the advice, and how on_oom=halve heals them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.store.ledger import Event, Ledger
from tests.end_to_end.axosweep import Axosweep, kill_all
from tests.end_to_end.on_modal import local_modal, machine, with_axolotl
from tests.modal_server.fixture import needs_mounts

pytestmark = pytest.mark.slow

TOO_LARGE = """
    import torch
    from axolotl.integrations.base import BasePlugin

    class TooLarge(BasePlugin):
        def post_trainer_create(self, cfg, trainer):
            train = trainer.training_step

            def step(*args, **kwargs):
                if trainer.args.per_device_train_batch_size > 2 and trainer.state.global_step >= 3:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.96 GiB.")
                return train(*args, **kwargs)

            trainer.training_step = step
    """
"""A plugin: with more than two rows at a time, the fourth step is out of memory."""
WORDS = (
    "lora=r8 lora_dropout=0 max_steps=5 micro_batch_size=4 gradient_accumulation_steps=1 saves_per_epoch=null "
    "save_steps=2 evals_per_epoch=null eval_steps=5 logging_steps=1 plugins=[too_large.TooLarge] tracking=disabled "
    "data.limit=200"
).split()


def logged(store: Store, key: str, name: str) -> list[tuple[int, int, float]]:
    """Attempt, step and value."""
    lines = (store.runs / key / "metrics.jsonl").read_text().splitlines()
    return [(one["attempt"], one["step"], one[name]) for one in map(json.loads, lines) if name in one]


def events(store: Store, key: str) -> list[Event]:
    (sweep,) = {path.name for path in store.sweeps.iterdir() if "gpu_count" in path.name}
    return [one.event for one in Ledger(store, sweep).records() if one.key == key]


def check_healed(row: Any, store: Store) -> None:
    assert (row["status"], row["healed"]) == ("succeeded", "micro_batch_size 4 -> 2 after out of memory")
    assert row["flags"] == ["healed"]
    assert row["attempts"] == 2
    losses = logged(store, row["key"], "loss")
    assert [(attempt, step) for attempt, step, _ in losses] == [(1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]
    before, after = (value for _, step, value in losses if step == 3)
    assert before == after, "from the checkpoint of step 2, with the same rows"


def test_a_run_gets_advice_that_needs_less_memory_and_is_healed_when_requested_again(alone: Axosweep) -> None:
    """On one rank and on two."""
    (alone.folder / "too_large.py").write_text(textwrap.dedent(TOO_LARGE))
    done = alone.run(*WORDS)
    assert done.returncode == 1
    assert "failed (oom): CUDA out of memory. Tried to allocate 1.96 GiB." in done.stdout
    assert "`micro_batch_size=2 gradient_accumulation_steps=2` needs less memory for the same batch" in done.stdout
    (failed,) = alone.json("compare")["runs"]
    assert failed["advice"][1].startswith("axosweep lora=r8 ")
    assert failed["advice"][1].endswith(" micro_batch_size=2 gradient_accumulation_steps=2")
    healed = alone.run("-m", *WORDS, "gpu.count=1,2", "on_oom=halve")
    assert healed.returncode == 0, healed.stderr
    assert ": micro_batch_size 4 -> 2 after out of memory." in healed.stdout
    rows = {row["params"]["gpu.count"]: row for row in alone.json("compare", "gpu_count")["runs"]}
    assert rows[1]["key"] == failed["key"], "it stays the requested run"
    for row in rows.values():
        check_healed(row, alone.store)
    assert Event.TRIED_AGAIN not in events(alone.store, rows[1]["key"]), "its first attempt was that of another launch"
    assert events(alone.store, rows[2]["key"]).count(Event.TRIED_AGAIN) == 1
    asked = (alone.store.runs / failed["key"] / "config.yml").read_text()
    assert "micro_batch_size: 4" in asked


@needs_mounts
def test_it_is_healed_on_modal_as_well(tmp_path: Path) -> None:
    with local_modal(with_axolotl()) as server:
        here = machine(server, tmp_path)
        (here.folder / "too_large.py").write_text(textwrap.dedent(TOO_LARGE))
        done = here.run(*WORDS, "on_oom=halve", "executor=modal")
        assert done.returncode == 0, done.stderr
        (row,) = here.json("compare")["runs"]
        check_healed(row, Store(here.store.root / "modal"))
    kill_all(here.processes())
