"""What earlier runs have shown of their GPUs' memory, in place of the estimate."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from modal_app.cloud.meter import Card, ContainerRecord
from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.cost.run_memory import CACHE, known_memory, memory_of_run
from runner.memory.estimate import Estimate, Evidence, Verdict
from runner.memory.ladder import settings_now, ways_out
from runner.memory.measured import NEAR, NEAR_FACTOR, KnownMemory, RunMemory
from runner.memory.stack import Batch
from runner.memory.words import in_words
from runner.preflight.findings import Severity
from runner.preflight.memory import memory_findings, memory_of, printed_memory, tries_that_fail
from runner.types import Gpu, Run
from tests.runner import memory_points
from tests.runner.builders import begin_attempt, end_attempt, open_sweep, run
from tests.runner.memory_points import GIB, LLAMA_8B, LLAMA_70B, Point
from tests.runner.memory_points_fms import GROUPS
from tests.runner.test_memory import A100, H100, L4, LORA, of

PACKED = {**LORA, "sample_packing": True}
"""Every row has sequence_len tokens, so the memory does not depend on the dataset."""
QLORA = {**PACKED, "adapter": "qlora", "load_in_4bit": True}
DOCS = Path(__file__).resolve().parents[2] / "docs"


def past(config: dict[str, Any], gpu: str = "l4", **rest: Any) -> RunMemory:
    known = {"succeeded": True, "out_of_memory": False, "longest_row": None, **rest}
    return RunMemory("3f2a91bc", config, gpu, known.pop("count", 1), **known)


def out_of_memory(config: dict[str, Any], gpu: str = "l4", **rest: Any) -> RunMemory:
    return past(config, gpu, succeeded=False, out_of_memory=True, **rest)


def judged(config: dict[str, Any], *runs: RunMemory, gpu: Any = L4, longest_row: int | None = None) -> Estimate:
    estimated = of(config, gpu=gpu, longest_row=longest_row)
    return KnownMemory.of(runs).corrected(estimated, config, LLAMA_8B, longest_row)


def gib(size: float) -> int:
    return int(size * GIB)


def test_the_same_run_on_the_same_card_fits_since_it_has_succeeded() -> None:
    config = {**PACKED, "micro_batch_size": 14}
    assert of(config, gpu=A100).verdict is Verdict.UNSURE
    found = judged(config, past(config, "a100_80gb", peak=gib(77)), gpu=A100)
    assert found.verdict is Verdict.FITS
    assert in_words(found).startswith("FITS: 77 GiB of 78 GiB, measured in run 3f2a91bc (estimated: ")


def test_what_does_not_need_memory_may_differ_and_everything_else_may_not() -> None:
    config = {**PACKED, "micro_batch_size": 14}
    other = {
        "seed": 7,
        "learning_rate": 1.0,
        "lora_alpha": 5,
        "num_epochs": 9,
        "lora_dropout": 0.3,
        "evals_per_epoch": 1,
    }
    same = past({**config, **other}, "a100_80gb", peak=gib(77))
    assert judged(config, same, gpu=A100).measured is not None
    for key, value in {"lora_r": 64, "optimizer": "adamw_8bit", "gradient_checkpointing": False, "count": 2,
                       "attn_implementation": "sdpa", "load_in_4bit": True, "lora_dropout": 0.0, "bf16": False,
                       "gradient_accumulation_steps": 1, "val_set_size": 0, "a_new_key": 1}.items():  # fmt: skip
        count = {"count": value} if key == "count" else {}
        differs = past({**config, **({} if count else {key: value})}, "a100_80gb", peak=gib(77), **count)
        assert judged(config, differs, gpu=A100).measured is None, key


def test_on_another_card_its_peak_decides() -> None:
    used = {"used": gib(25)}
    assert of(PACKED, gpu=L4).verdict is Verdict.UNSURE
    assert judged(PACKED, past(PACKED, "h100", peak=gib(20))).verdict is Verdict.FITS
    assert judged(PACKED, past(PACKED, "h100", peak=gib(21.5))).verdict is Verdict.UNSURE
    assert judged(PACKED, past(PACKED, "h100", peak=gib(28))).verdict is Verdict.UNSURE, "some of it may be kept only"
    assert judged(PACKED, past(PACKED, "h100", peak=gib(28), **used)).verdict is Verdict.WONT_FIT, "torch has said it"
    found = judged(PACKED, past(PACKED, "h100", peak=gib(30)))
    assert found.verdict is Verdict.WONT_FIT
    assert "30 GiB of 22 GiB, measured in run 3f2a91bc on h100 (" in in_words(found)


def test_up_to_twice_the_tokens_are_scaled_and_more_are_not() -> None:
    config = {**PACKED, "micro_batch_size": 4}
    scaled = of(config).parts.total / of({**PACKED, "micro_batch_size": 8}).parts.total  # type: ignore[union-attr]
    found = judged(config, past({**PACKED, "micro_batch_size": 8}, "h200", peak=gib(30)), gpu=H100)
    assert found.measured is not None
    assert (found.measured.evidence, found.verdict) == (Evidence.SCALED, Verdict.FITS)
    assert found.needed == pytest.approx(30 * GIB * scaled)
    assert f"{(found.needed or 0) / GIB:.0f} GiB of 78 GiB, scaled from the 30 GiB of run 3f2a91bc" in in_words(found)
    far = past({**PACKED, "micro_batch_size": 12}, "h200", peak=gib(30))
    assert judged(config, far, gpu=H100).measured is None
    near = past({**PACKED, "sequence_len": 1024, "micro_batch_size": 4}, "h200", peak=gib(70), used=gib(70))
    assert judged(config, near, gpu=H100).verdict is Verdict.WONT_FIT


def test_a_run_that_had_more_to_process_proves_a_fit_and_one_that_ran_out_with_less_the_opposite() -> None:
    big, small = {**PACKED, "micro_batch_size": 32}, {**PACKED, "micro_batch_size": 1, "sequence_len": 1024}
    config = {**PACKED, "micro_batch_size": 2}
    assert judged(config, past(big, "l4", peak=gib(20))).verdict is Verdict.FITS
    assert judged(config, past(big, "l4")).verdict is Verdict.FITS, "also without its peak"
    found = judged(config, out_of_memory(small, "l4"))
    assert found.verdict is Verdict.WONT_FIT
    assert "run 3f2a91bc ran out of memory on l4 with 1 x 1024 tokens (estimated: " in in_words(found)
    assert judged(config, out_of_memory(small, "h100")).verdict is Verdict.WONT_FIT, "a smaller card is no better"
    assert judged(config, out_of_memory(small, "l4"), gpu=H100).verdict is Verdict.FITS, "a larger one is"
    both = (out_of_memory(config, "l4"), past(config, "l4", peak=gib(20)))
    assert judged(config, *both).verdict is Verdict.FITS, "something else may have had the memory"


def test_what_ran_out_of_memory_raises_the_estimate_of_a_little_less() -> None:
    config, more = {**PACKED, "micro_batch_size": 8}, {**PACKED, "micro_batch_size": 10}
    assert of(config, gpu=A100).verdict is Verdict.FITS
    found = judged(config, out_of_memory(more, "a100_80gb"), gpu=A100)
    assert (found.verdict, found.measured and found.measured.evidence) == (Verdict.UNSURE, Evidence.AT_LEAST)


def test_rows_of_different_lengths_count_as_far_as_they_were_seen() -> None:
    config = {**LORA, "sequence_len": 8192, "micro_batch_size": 8}
    seen = past(config, "a100_80gb", longest_row=500, peak=gib(30))
    assert judged(config, seen, gpu=A100, longest_row=500).verdict is Verdict.FITS
    assert judged(config, seen, gpu=A100, longest_row=8000).verdict is Verdict.WONT_FIT, "as estimated"
    short = past({**config, "max_steps": 5}, "a100_80gb", longest_row=8000, peak=gib(30))
    assert judged(config, short, gpu=A100, longest_row=8000).verdict is Verdict.WONT_FIT, "it has not seen them all"
    unknown = past(config, "a100_80gb", peak=gib(30))
    assert judged(config, unknown, gpu=A100, longest_row=8000).measured is None


def test_a_model_without_an_estimate_is_judged_by_its_own_runs() -> None:
    known = KnownMemory.of([out_of_memory({**PACKED, "micro_batch_size": 4, "rl": "dpo"}, "h100")])
    requested = replace(
        run({**PACKED, "micro_batch_size": 4, "rl": "dpo"}, gpu=Gpu("h100", 1)).experiment, model=LLAMA_8B
    )
    (found,) = memory_findings(requested, known=known)
    assert "WON'T FIT: run 3f2a91bc ran out of memory on h100 with 4 x 2048 tokens." in found.text
    assert found.way_out == "It needs less with `micro_batch_size=2 gradient_accumulation_steps=8`."


def test_what_can_be_halved_is_not_refused_if_that_is_requested() -> None:
    config = {**PACKED, "micro_batch_size": 4}
    known = KnownMemory.of([out_of_memory(config, "l40s")])
    requested = replace(run(config, gpu=Gpu("l40s", 1)).experiment, model=LLAMA_8B)
    (held_back,) = memory_findings(requested, known=known)
    assert held_back.severity is Severity.GATE
    (output,) = memory_findings(replace(requested, heals=True), known=known)
    assert (output.severity, output.way_out) == (Severity.WARNING, "on_oom=halve then tries micro_batch_size=2.")
    assert tries_that_fail(replace(requested, heals=True), known=known) == 1
    assert tries_that_fail(requested, known=known) == tries_that_fail(replace(requested, heals=True)) == 0
    too_large = replace(requested, heals=True, model=LLAMA_70B)
    assert [one.severity for one in memory_findings(too_large)] == [Severity.GATE], "no batch is small enough"


def test_the_ways_out_go_by_what_was_measured() -> None:
    config = {**PACKED, "micro_batch_size": 8}
    plain = settings_now(config, LLAMA_8B, A100, 1, None, KnownMemory())
    known = KnownMemory.of([out_of_memory(config, "a100_80gb")])
    corrected = settings_now(config, LLAMA_8B, A100, 1, None, known)
    assert plain.after(()).verdict is Verdict.FITS
    assert corrected.times == pytest.approx(78 * GIB / of(config, gpu=A100).needed)  # type: ignore[operator]
    assert ways_out(corrected).lines[0].startswith("micro_batch_size=4 gradient_accumulation_steps=8")


def pairs() -> list[tuple[Point, Point]]:
    """Published runs that differ only in how much is processed at a time, by at most NEAR."""
    lists: list[Sequence[Point]] = [list(group.peaks.values()) for group in GROUPS]
    named = [one for one in vars(memory_points).values() if isinstance(one, tuple)]
    lists.append([point for one in named for point in one if isinstance(point, Point)])
    return [
        (one, other) for points in lists for one, other in permutations(points, 2)
        if _method(one) == _method(other) and one.stack.training != other.stack.training
        and max(one.stack.training.tokens, other.stack.training.tokens)
        <= NEAR * min(one.stack.training.tokens, other.stack.training.tokens)
    ]  # fmt: skip


def _method(point: Point) -> Any:
    return replace(point.stack, training=Batch(1, 1), evaluation=None), point.facts, point.unit, point.whole_card


def test_published_peaks_follow_from_one_another_within_the_margin_and_the_document_says_how_well() -> None:
    found = pairs()
    needs = [other.published / (other.estimated * one.published / one.estimated) for one, other in found]
    assert max(needs) <= NEAR_FACTOR
    mean = statistics.mean(abs(1 / one - 1) for one in needs)
    alone = statistics.mean(abs(other.error) for _, other in found)
    output = (
        f"{len(found)} pairs, mean error {mean:.1%}, worst {max(needs) - 1:.1%} too low. The plain estimates of the "
        f"same figures have a mean error of {alone:.1%}"
    )
    assert output in " ".join((DOCS / "memory-evidence.md").read_text(encoding="utf-8").split())


# Reading


def ended(
    store: Store, one: Run, status: OutcomeStatus = OutcomeStatus.SUCCEEDED, *, card: str = "NVIDIA L4",
    peaks_mib: Sequence[int] = (), logged: dict[str, float] | None = None, **rest: Any,
) -> None:  # fmt: skip
    """What a run leaves: its request, its outcome, the containers' records and its metrics."""
    open_sweep(store, [one])
    folder = store.folder(StepKind.TRAIN, one.key)
    attempt = begin_attempt(store, StepKind.TRAIN, one.key)
    if peaks_mib:
        cards = tuple(Card(card, 23034, peak, 90.0) for peak in peaks_mib)
        record = ContainerRecord("ta-1", "fc-1", "step", 1.0, 2.0, 3.0, True, 9.0, (1,), cards, 0.1, None, 0.1, None)
        folder.containers.mkdir()
        (folder.containers / "ta-1.json").write_text(record.to_json())
    if logged:
        folder.metrics.write_text(json.dumps({"step": 1, **logged}) + "\n" + '{"step": 2, "memory/')
    facts = rest.pop("facts", {})
    end_attempt(store, StepKind.TRAIN, one.key, attempt, status, **rest)
    for path in (folder.done, attempt.result):
        if path.exists():
            path.write_text(json.dumps(json.loads(path.read_text()) | {"facts": facts}))


def on(gpu: str, config: dict[str, Any]) -> Run:
    return run({"base_model": "owner/model", **config}, gpu=Gpu(gpu, 1))


def test_a_runs_peak_is_the_most_that_the_driver_or_torch_has_shown(store: Store) -> None:
    ended(store, on("l4", PACKED), peaks_mib=[1024, 2048],
          logged={"memory/device_reserved (GiB)": 3.0, "memory/max_allocated (GiB)": 1.5})  # fmt: skip
    (found,) = memory_of_run(store, on("l4", PACKED).key)
    assert (found.peak, found.used) == (gib(3.6), gib(2.1)), "with CUDA's own memory"
    assert (found.gpu, found.succeeded, found.out_of_memory) == ("l4", True, False)


def test_the_card_is_the_one_that_the_run_had(store: Store) -> None:
    ended(store, on("h100", PACKED), card="NVIDIA H200", peaks_mib=[1024])
    (found,) = memory_of_run(store, on("h100", PACKED).key)
    assert found.gpu == "h200"


@pytest.mark.parametrize(("facts", "verdict"), [({"out_of_memory_on": "gpu"}, True), ({}, False),
                                                ({"out_of_memory_on": "machine"}, False)])  # fmt: skip
def test_only_a_gpus_memory_speaks_about_a_gpu(store: Store, facts: dict[str, str], verdict: bool) -> None:
    one = on("l4", PACKED)
    ended(store, one, OutcomeStatus.FAILED, reason=FailureReason.OOM, message="out of memory", facts=facts)
    known = known_memory([store])["owner/model"]
    found = known.corrected(of(PACKED, gpu=L4), one.experiment.axolotl, LLAMA_8B)
    assert (found.verdict is Verdict.WONT_FIT) is verdict


def test_a_healed_run_speaks_for_each_batch_that_it_has_tried(store: Store) -> None:
    one = on("l4", {**PACKED, "micro_batch_size": 4})
    smaller = {"smaller_batch": {"micro_batch_size": 2, "gradient_accumulation_steps": 8}}
    ended(store, one, OutcomeStatus.STOPPED, reason=FailureReason.OOM, facts={"out_of_memory_on": "gpu"})
    ended(store, one, facts=smaller)
    sizes = enumerate((21, 9), start=1)
    lines = [{"step": 1, "attempt": attempt, "memory/device_reserved (GiB)": size} for attempt, size in sizes]
    store.folder(StepKind.TRAIN, one.key).metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    first, second = memory_of_run(store, one.key)
    assert (first.out_of_memory, first.succeeded, first.config["micro_batch_size"]) == (True, False, 4)
    assert (second.out_of_memory, second.succeeded, second.config["micro_batch_size"]) == (False, True, 2)
    assert second.peak == gib(9.6), "not what the larger batch needed"
    known = known_memory([store])["owner/model"]
    configs = [{**PACKED, "micro_batch_size": size} for size in (1, 2, 4, 8)]
    verdicts = [known.corrected(of(config, gpu=L4), config, LLAMA_8B).verdict for config in configs]
    assert verdicts == [Verdict.FITS, Verdict.FITS, Verdict.WONT_FIT, Verdict.WONT_FIT]


def test_a_peak_that_the_driver_has_shown_changes_the_verdicts_of_a_plan(store: Store) -> None:
    """From UNSURE to FITS, and from FITS to WON'T FIT."""
    trained, large = on("h100", PACKED), on("h100", QLORA)
    ended(store, trained, card="NVIDIA H100 80GB HBM3", peaks_mib=[20 * 1024])
    ended(store, large, card="NVIDIA H100 80GB HBM3", peaks_mib=[30 * 1024])
    known = known_memory([store])["owner/model"]
    for config, before, after in ((PACKED, Verdict.UNSURE, Verdict.FITS),
                                  (QLORA, Verdict.FITS, Verdict.WONT_FIT)):  # fmt: skip
        requested = replace(on("l4", config).experiment, model=LLAMA_8B)
        assert [one.verdict for one in memory_of(requested)] == [before]
        assert [one.verdict for one in memory_of(requested, known=known)] == [after]
        (printed,) = printed_memory(memory_of(requested, known=known))
        assert printed.measured is not None
        assert printed.bytes == printed.measured.bytes == printed.measured.peak


@pytest.mark.medium
def test_a_thousand_runs_are_read_once(store: Store) -> None:
    for seed in range(1000):
        one = on("l4", {**PACKED, "seed": seed})
        folder = store.folder(StepKind.TRAIN, one.key)
        folder.path.mkdir(parents=True)
        axolotl = dict(one.experiment.axolotl)
        folder.identity.write_text(json.dumps({"axolotl": axolotl, "gpu": {"type": "l4", "count": 1}}))
        folder.done.write_text(json.dumps({"attempt": 1, "status": "succeeded", "started_at": 1.0, "finished_at": 2.0,
                                           "reason": None}))  # fmt: skip
        folder.metrics.write_text('{"memory/device_reserved (GiB)": 3.0}\n')
    known_memory([store])
    cache = store.cache / CACHE
    for metrics in store.runs.glob("*/metrics.jsonl"):
        metrics.unlink()
    began = time.process_time()
    (method,) = known_memory([store])["owner/model"].by_method.values()
    assert time.process_time() - began < 1.0
    assert [one.peak for one in method] == [gib(3.6)] * 1000
    cache.write_text("{")
    assert {one.peak for ones in known_memory([store])["owner/model"].by_method.values() for one in ones} == {None}
