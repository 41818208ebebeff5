"""The advice for a run that was out of memory: what would have fitted, at which price, and a command for it."""

import json
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.compare.ranking import Row, compare_sweep
from runner.config.gpus import GPUS
from runner.html_report.gather import gather
from runner.memory.advice import MemoryAdvice, advice_for, ready_line, sentences
from runner.memory.estimate import Verdict, estimate
from runner.show.tables import show_rows
from runner.types import Gpu
from tests.runner.builders import finish, open_sweep, run
from tests.runner.memory_points import LLAMA_8B, LLAMA_70B
from tests.runner.test_memory import LORA

PACKED = {**LORA, "sample_packing": True, "micro_batch_size": 4, "gradient_accumulation_steps": 2}
RATES = {"l4": 0.0002, "a100_40gb": 0.0006, "a100_80gb": 0.0005, "h100": 0.001, "h200": 0.002}


def advised(config: dict[str, Any], facts: Any = LLAMA_8B, gpu: str = "l4", count: int = 1) -> MemoryAdvice:
    return advice_for(config, facts, gpu, count, None, RATES)


def test_the_nearest_rung_is_a_smaller_micro_batch_with_the_same_batch() -> None:
    found = advised(PACKED, gpu="a100_40gb")
    assert found.verdict is Verdict.FITS
    assert found.ways[0] == "micro_batch_size=2 gradient_accumulation_steps=4"
    assert "adapter=qlora load_in_4bit=true" in found.ways[1]


def test_what_was_said_to_fit_is_not_believed_once_it_was_out_of_memory() -> None:
    config = {**PACKED, "micro_batch_size": 2, "gradient_accumulation_steps": 4}
    assert estimate(config, LLAMA_8B, GPUS["h100"], 1).verdict is Verdict.FITS
    needed = estimate(config, LLAMA_8B, GPUS["h100"], 1).needed
    assert needed is not None
    times = GPUS["h100"].usable_gib * 2**30 / needed
    found = advised(config, gpu="h100")
    assert found.ways[0].startswith("micro_batch_size=1 gradient_accumulation_steps=8")
    halved = estimate({**config, "micro_batch_size": 1}, LLAMA_8B, GPUS["h100"], 1).needed
    assert halved is not None
    assert (halved * times * 1.25 > 78 * 2**30) is ("chunked_cross_entropy=true" in found.ways[0])
    assert found.larger is not None
    assert found.larger.name == "1 x h200"


def test_a_larger_card_is_the_cheapest_that_holds_it_unchanged_with_its_price() -> None:
    found = advised(PACKED)
    assert found.larger is not None
    assert (found.larger.name, found.larger.dollars_s) == ("1 x a100_80gb", 0.0005)
    assert sentences(found).endswith(
        "Without a change, it would have fitted on 1 x a100_80gb, for $1.80 an hour instead of $0.72 on 1 x l4."
    )
    assert not any(line.startswith("gpu=a100_80gb") for line in found.ways), "it is named once"
    without = advice_for(PACKED, LLAMA_8B, "l4", 1, None, {})
    assert "$" not in sentences(without)


def test_as_many_cards_are_compared_with_as_many() -> None:
    config = {**PACKED, "micro_batch_size": 16}
    found = advised(config, gpu="a100_40gb", count=2)
    assert found.larger is not None
    assert found.larger.override.endswith(" gpu.count=2")
    assert found.larger.dollars_s == pytest.approx(RATES[found.larger.name.split()[-1]] * 2)


def test_only_what_is_certain_is_said_of_a_model_that_nothing_is_known_of() -> None:
    found = advised(PACKED, None)
    assert sentences(found) == (
        "`micro_batch_size=2 gradient_accumulation_steps=4` needs less memory for the same batch; whether that is "
        "enough is not known (the shape of this base_model is unknown)."
    )
    assert found.larger is None
    one = advised({**PACKED, "micro_batch_size": 1}, None)
    assert sentences(one).startswith("One row at a time was too much already.")
    assert ready_line(one, ["lora=r8"]) == ""
    assert "nothing is estimated on a CPU" in sentences(advised(PACKED, gpu="cpu"))
    assert advised({**PACKED, "rl": "dpo"}).verdict is Verdict.UNKNOWN


def test_weights_that_do_not_fit_are_not_helped_by_smaller_batches() -> None:
    found = advised(PACKED, LLAMA_70B)
    assert found.verdict is Verdict.FITS
    assert all("gpu" in line for line in found.ways), found.ways


def test_the_ready_line_is_the_users_own_with_the_change() -> None:
    requested = ["model=llama3_1_8b", "++axolotl.micro_batch_size=4", "gradient_accumulation_steps=2", "gpu=a100_40gb",
             "++axolotl.wandb_name='a b'"]  # fmt: skip
    assert ready_line(advised(PACKED, gpu="a100_40gb"), requested) == (
        "axosweep model=llama3_1_8b gpu=a100_40gb '++axolotl.wandb_name='\"'\"'a b'\"'\"'' micro_batch_size=2 "
        "gradient_accumulation_steps=4"
    )


# In a store


def row_after(store: Store, facts: dict[str, str], message: str = "out of memory") -> tuple[Row, str]:
    """The failed run's row, and the sweep."""
    one = run({**PACKED, "base_model": "NousResearch/Meta-Llama-3-8B"}, gpu=Gpu("l4", 1))
    planned = open_sweep(store, [one])
    identity = store.folder(StepKind.TRAIN, one.key).identity
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"overrides": ["lora=r16", "gpu=l4"]}))
    attempt = finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, reason=FailureReason.OOM, message=message)
    attempt.result.write_text(json.dumps(json.loads(attempt.result.read_text()) | {"facts": facts}))
    (row,) = compare_sweep(store, planned.sweep)
    return row, planned.sweep


def test_the_table_and_the_report_say_it_with_a_command_at_the_prices_of_the_files(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    row, sweep = row_after(store, {"out_of_memory_on": "gpu"})
    said, line = row.advice
    assert "It would have fitted with `adapter=qlora load_in_4bit=true micro_batch_size=2 " in said
    assert " on 1 x l40s, for $1.95 an hour instead of $0.80 on 1 x l4." in said
    assert line == (
        "axosweep lora=r16 gpu=l4 adapter=qlora load_in_4bit=true micro_batch_size=2 gradient_accumulation_steps=4"
    )
    show_rows([row], store, sweep, as_json=False, judge=False)
    printed = capsys.readouterr().out
    assert printed.index("failed (oom)") < printed.index(f"  {said}\n  {line}\n") < printed.index("  log: ")
    (failure,) = gather(store, sweep)["failures"]
    assert failure["advice"] == [said, line]


def test_a_process_that_the_kernel_has_killed_gets_none(store: Store) -> None:
    assert row_after(store, {}, "ran out of memory, so the kernel killed it (signal 9)")[0].advice == ()
