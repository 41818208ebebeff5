"""A store that looks as if a sweep had run in it: runs of every status, with curves, phases and prices."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from modal_app.cloud.meter import Card, ContainerRecord
from modal_app.store.claim import claim
from modal_app.store.layout import SUBMISSION, Store, after_key
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind, write_atomically
from runner.compare.metrics import read_curves
from runner.types import DataChoice, Gpu, Plan, Run
from tests.runner.builders import begin_attempt, end_attempt, finish, open_sweep, run
from tests.runner.judged_store import draw_losses, write_losses

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&{{b}}"
SECRET = "hf_" + "q" * 30
RATES = {
    "date": "2026-11-01",
    "table_date": "2026-09-20",
    "rates": {name: {"dollars": dollars, "origin": "modal"} for name, dollars in
              {"h100": 0.001097, "cpu": 0.0000131, "memory": 0.00000222}.items()},
}  # fmt: skip
START = 1_790_000_000.0


@dataclass(frozen=True)
class RunsByStatus:
    """One run in each status."""

    failed: Run
    diverged: Run
    running: Run
    blocked: Run
    pending: Run


def grid(number: int, gpu: Gpu) -> list[Run]:
    """Runs that differ in rank, learning rate, dropout, schedule and seed, in an order that is always the same."""
    chosen = random.Random(0)
    settings: dict[str, dict[str, Any]] = {}
    while len(settings) < number:
        one = {
            "lora_r": chosen.choice([4, 8, 16, 32, 64]),
            "learning_rate": float(f"{10 ** chosen.uniform(-5, -2):.3g}"),
            "lora_dropout": chosen.choice([0.0, 0.05, 0.1]),
            "lr_scheduler": chosen.choice(["cosine", "linear", "constant_with_warmup"]),
            "seed": chosen.choice([1, 2, 3]),
        }
        settings[json.dumps(one, sort_keys=True)] = one
    return [
        run(one, gpu=gpu, overrides=[f"{name}={value}" for name, value in one.items()]) for one in settings.values()
    ]


def synthetic_sweep(store: Store, number: int, *, rented: bool = True, points: int = 200) -> Plan:
    """A sweep in which all runs have succeeded."""
    runs = grid(number, Gpu("h100", 1))
    planned = open_sweep(store, runs, "synthetic")
    _price(store, planned, rented=rented)
    for index, one in enumerate(runs):
        _dataset(store, one)
        _train(store, one, index, points=points, rented=rented)
    return planned


def sweep_over_seeds(store: Store) -> Plan:
    """Four settings with three seeds each, all succeeded after a minute in the queue, with per-row losses, and answered
    by all models."""
    grid = [
        {"lora_r": rank, "learning_rate": rate, "seed": seed}
        for rank in (8, 32) for rate in (1e-4, 1e-3) for seed in (1, 2, 3)
    ]  # fmt: skip
    runs = [run(one, gpu=Gpu("h100", 1), overrides=[f"{name}={value}" for name, value in one.items()]) for one in grid]
    planned = open_sweep(store, runs, "seeds")
    records = store.sweeps / planned.sweep / "records.jsonl"
    rows = [json.loads(line) | {"at": START - 71.0} for line in records.read_text().splitlines()]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _price(store, planned, rented=True)
    options = {"prompts": "inputs/a.jsonl", "greedy": True, "max_tokens": 9, "base": "b"}
    for index, one in enumerate(runs):
        _dataset(store, one)
        _train(store, one, index, points=60, rented=True)
        final = read_curves(store.folder(StepKind.TRAIN, one.key).metrics).final("eval_loss")
        far_off = 2.0 if index < 3 else 0.0  # the first setting: its interval is out of the plot
        write_losses(store, one, draw_losses((final or 0.0) + far_off, own=index + 1))
        answered(store, after_key(one.key, "1"), options, ["The captain is Ana.", "Yes", HOSTILE], "Yes")
    answered(store, after_key("", "2"), options, ["The captain is Bo.", "No", "I do not know"], "Yes")
    return planned


def answered(
    store: Store,
    key: str,
    options: Mapping[str, Any],
    outputs: Sequence[str],
    right: str | None = None,
    at: float = 9.0,
) -> None:
    """What an infer step leaves."""
    folder = store.folder(StepKind.INFER, key)
    folder.path.mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"question {number}"}], "output": output, "cut": False}
        | ({} if right is None else {"answer": right, "exact": output == right})
        for number, output in enumerate(outputs)
    ]
    write_atomically(folder.answers, "".join(json.dumps(row) + "\n" for row in rows))
    outcome = Outcome(OutcomeStatus.SUCCEEDED, 1, 1.0, at, facts={"options": dict(options)})
    write_atomically(folder.done, outcome.to_json())


@contextmanager
def sweep_of_every_kind(store: Store) -> Iterator[tuple[Plan, RunsByStatus]]:
    """Three successful runs, and one each that failed, diverged, is running, is blocked, and was never started."""
    requested = {"lora_r": 8, "base_model": "tiny"}
    runs = [run(requested | {"learning_rate": rate, "note": "plain"}) for rate in (1e-4, 2e-4, 3e-4)]
    failed = run(requested | {"learning_rate": 4e-4, "note": HOSTILE}, overrides=[f"note={HOSTILE}"])
    diverged = run(requested | {"learning_rate": 1.0, "note": "plain"})
    running = run(requested | {"learning_rate": 5e-4, "note": "plain"})
    blocked = run(requested | {"learning_rate": 6e-4, "note": "plain"}, data=DataChoice(seed=77))
    pending = run(requested | {"learning_rate": 7e-4, "note": "plain"})
    planned = open_sweep(store, [*runs, failed, diverged, running, blocked, pending], "kinds")
    for index, one in enumerate(runs):
        _train(store, one, index, points=40, rented=False)
    _dataset(store, runs[0])
    _end_badly(
        store, failed, FailureReason.OOM, f"out of memory {HOSTILE}", f"{HOSTILE}\n\x1b[31mCUDA\x1b[0m {SECRET}\n"
    )
    _write_metrics(store, diverged, _losses(3.0, 0.1, 20), nan_at=20)
    _end_badly(store, diverged, FailureReason.NAN, "loss became NaN or infinite by step 20 of 40", "loss is nan\n")
    finish(
        store,
        StepKind.PREPROCESS,
        blocked.data_key,
        OutcomeStatus.FAILED,
        reason=FailureReason.DATA,
        message="no row is left",
    )
    log = store.folder(StepKind.PREPROCESS, blocked.data_key).attempt(1).log
    log.write_text("every row was longer than sequence_len\n")
    with claim(store.folder(StepKind.TRAIN, running.key), "kinds"):
        begin_attempt(store, StepKind.TRAIN, running.key)
        _write_metrics(store, running, _losses(3.0, 1.5, 12))
        yield planned, RunsByStatus(failed, diverged, running, blocked, pending)


def _losses(first: float, last: float, points: int, noise: random.Random | None = None) -> list[float]:
    fall = [math.exp(-5 * index / points) for index in range(points)]
    return [last + (first - last) * part + (noise.gauss(0, 0.04) if noise else 0.0) for part in fall]


def _price(store: Store, planned: Plan, *, rented: bool) -> None:
    if rented:
        steps = [{"key": one.run.key, "fetches": []} for one in planned.runs]
        write_atomically(store.sweeps / planned.sweep / SUBMISSION, json.dumps({"steps": steps, "rates": RATES}))


def _dataset(store: Store, one: Run) -> None:
    if not store.manifest(one.data_key).exists():
        manifest = {"eval_fingerprint": "5d41402abc4b", "rows": 1900, "eval_rows": 100}
        finish(store, StepKind.PREPROCESS, one.data_key, manifest=manifest)


def _train(store: Store, one: Run, index: int, *, points: int, rented: bool) -> None:
    noise, requested = random.Random(index), one.experiment.axolotl
    rate = math.log10(float(requested["learning_rate"]))
    last = 1.2 + 0.12 * (rate + 3.3) ** 2 - 0.0015 * float(requested["lora_r"]) + noise.gauss(0, 0.015)
    seconds = 40.0 + float(requested["lora_r"]) * 1.5 + noise.random() * 10
    _write_metrics(store, one, _losses(3.0, last, points, noise), seconds=seconds)
    attempt = begin_attempt(store, StepKind.TRAIN, one.key)
    phases = {
        "import": 9.0,
        "config": 1.0,
        "prepare": 2.0,
        "load": 12.0,
        "first": 4.0,
        "train": seconds,
        "eval": 6.0,
        "save": 3.0,
    }
    state = {"global_step": points, "max_steps": points, "phases": phases}
    write_atomically(attempt.train_state, json.dumps(state))
    attempt.log.write_text("done\n")
    began = START + index
    facts = {"phases": phases, "eval_fingerprint": "5d41402abc4b"}
    outcome = Outcome(OutcomeStatus.SUCCEEDED, 1, began, began + sum(phases.values()) + 1.5, facts=facts)
    write_atomically(store.folder(StepKind.TRAIN, one.key).done, outcome.to_json())
    write_atomically(attempt.result, outcome.to_json())
    if rented:
        paid = sum(phases.values()) + 14.0
        record = ContainerRecord(
            task=f"ta-{index}", call="fc-1", step=f"train/{one.key}", booted_at=began - 11.0, began_at=began - 1.0,
            seen_at=began - 11.0 + paid, ended=True, seconds=paid, attempts=(1,),
            cards=(Card("NVIDIA H100 80GB HBM3", 81559, 41000 + index, 87.0),),
            cores_reserved=0.125, cores_used=1.1, memory_gib_reserved=0.125, memory_gib_used=9.5,
            boot=10.0, ended_because=f"{HOSTILE} {SECRET}" if index == 0 else "",
        )  # fmt: skip
        folder = store.folder(StepKind.TRAIN, one.key).containers
        folder.mkdir(exist_ok=True)
        (folder / f"ta-{index}.json").write_text(record.to_json())


def _write_metrics(
    store: Store, one: Run, losses: Sequence[float], *, seconds: float = 10.0, nan_at: int | None = None
) -> None:
    folder = store.folder(StepKind.TRAIN, one.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    every = max(1, len(losses) // 8)
    with folder.metrics.open("a", encoding="utf-8") as file:
        untrained = {"attempt": 1, "step": 0, "time": START + 30.0, "seconds": 0.0, "eval_loss": losses[0] + 0.05}
        file.write(json.dumps(untrained) + "\n")
        for step, value in enumerate(losses, start=1):
            passed = seconds * step / len(losses)
            line = {"attempt": 1, "step": step, "time": START + 30.0 + passed, "seconds": passed}
            if step == nan_at:
                file.write(json.dumps(line | {"loss": None, "not_finite": ["loss"]}) + "\n")
                continue
            file.write(json.dumps(line | {"loss": value, "tokens": step * 4096}) + "\n")
            if step % every == 0 or step == len(losses):
                file.write(json.dumps(line | {"eval_loss": value + 0.05}) + "\n")


def _end_badly(store: Store, one: Run, reason: FailureReason, message: str, log: str) -> None:
    attempt = begin_attempt(store, StepKind.TRAIN, one.key)
    attempt.log.write_text("an earlier line\n" * 40 + log)
    end_attempt(store, StepKind.TRAIN, one.key, attempt, OutcomeStatus.FAILED, reason=reason, message=message)
