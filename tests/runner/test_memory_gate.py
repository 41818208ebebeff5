import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from modal_app.store.facts import DataManifest
from runner.config.shipped import shipped_root
from runner.environment.verdicts import Verdicts
from runner.memory.estimate import Verdict
from runner.preflight.findings import Severity
from runner.preflight.memory import memory_findings, memory_lines, memory_of, printed_memory
from runner.preflight.stage import Preflight
from runner.types import Experiment, Gpu, ModelFacts
from tests.runner.builders import experiment
from tests.runner.memory_points import LLAMA_8B, LLAMA_70B
from tests.runner.test_memory import LORA, zero


def run(axolotl: dict[str, Any], facts: ModelFacts | None, gpu: Gpu) -> Experiment:
    return replace(experiment(axolotl, gpu=gpu), model=facts)


def test_a_run_that_will_not_fit_is_refused_with_its_figures_and_the_ways_out() -> None:
    (found,) = memory_findings(run({**LORA, "micro_batch_size": 8}, LLAMA_70B, Gpu("a100_80gb", 1)))
    assert found.severity is Severity.GATE
    assert found.text.startswith("On 1 x a100_80gb WON'T FIT: ")
    assert " GiB of 78 GiB (weights 131, " in found.text
    assert "It would fit with `adapter=qlora load_in_4bit=true micro_batch_size=" in found.text
    assert "`gpu.count=4 deepspeed=zero3" in found.text


def test_an_unsure_run_is_reported_and_allowed() -> None:
    (found,) = memory_findings(run({**LORA, "micro_batch_size": 14}, LLAMA_8B, Gpu("a100_80gb", 1)))
    assert found.severity is Severity.WARNING
    assert "UNSURE" in found.text


def test_a_fit_and_what_is_unknown_hold_nothing_back() -> None:
    assert not list(memory_findings(run(LORA, LLAMA_8B, Gpu("h100", 1))))
    assert not list(memory_findings(run(LORA, None, Gpu("h100", 1))))
    assert not list(memory_findings(run({**LORA, "rl": "dpo"}, LLAMA_8B, Gpu("l4", 1))))


def test_a_cpu_has_no_verdict() -> None:
    assert memory_of(run(LORA, LLAMA_70B, Gpu("cpu", 1))) == ()


def test_every_card_that_a_run_may_fall_back_on_has_to_hold_it() -> None:
    requested = run({**LORA, "micro_batch_size": 4}, LLAMA_8B, Gpu("h100", 1, fallback=("l4", "h100")))
    assert [one.verdict for one in memory_of(requested)] == [Verdict.FITS, Verdict.WONT_FIT]
    (found,) = memory_findings(requested)
    assert found.text.startswith("On 1 x l4 WON'T FIT")


def test_short_prepared_rows_make_a_run_fit() -> None:
    requested = run({**LORA, "sequence_len": 8192, "micro_batch_size": 8}, LLAMA_8B, Gpu("a100_80gb", 1))
    assert [one.severity for one in memory_findings(requested)] == [Severity.GATE]
    assert not list(memory_findings(requested, longest_row=500))
    (found,) = memory_of(requested, longest_row=500)
    assert found.tokens == "8 x 512 tokens (the longest prepared row)"


def test_a_run_that_has_finished_needs_no_memory() -> None:
    requested = run({**LORA, "micro_batch_size": 8}, LLAMA_70B, Gpu("a100_80gb", 1))
    preflight = Preflight([requested, requested], Verdicts(None, "lock"), prepared=[DataManifest(), DataManifest()])
    preflight.finished = frozenset({0})
    (held_back,) = (one for one in preflight.findings() if "WON'T FIT" in one.finding.text)
    assert held_back.runs == (1,)
    preflight.finished = frozenset({0, 1})
    assert not any("WON'T FIT" in one.finding.text for one in preflight.findings())
    assert preflight.memory_lines() == []


def test_deepspeed_settings_in_a_file_are_read(tmp_path: Path) -> None:
    settings = tmp_path / "zero3.json"
    settings.write_text(json.dumps(zero(3)["deepspeed"]))
    requested = run({**LORA, "deepspeed": str(settings)}, LLAMA_70B, Gpu("h100", 8))
    assert memory_of(requested)[0].verdict is Verdict.FITS
    assert memory_of(replace(requested, axolotl={**LORA, "deepspeed": "no.json"}))[0].verdict is Verdict.UNKNOWN


def test_a_model_without_a_file_tells_its_own_shape() -> None:
    requested = run({**LORA, "base_model": str(shipped_root() / "tiny/model")}, None, Gpu("t4", 1))
    assert memory_of(requested)[0].verdict is Verdict.FITS


def test_plan_says_equal_verdicts_once() -> None:
    small, large = run(LORA, LLAMA_8B, Gpu("h100", 1)), run(LORA, None, Gpu("h100", 1))
    estimates = [memory_of(one) for one in (small, small, large)]
    lines = memory_lines(estimates, ["lora=r8", "lora=r16", "model=llama3_70b"])
    assert len(lines) == 2
    assert lines[0].startswith("memory  1 x h100: FITS: ")
    assert lines[0].endswith("(2 runs, first lora=r8)")
    assert lines[1].endswith("(model=llama3_70b)")
    assert memory_lines(estimates[:1], ["lora=r8"])[0].endswith("tokens (sequence_len)")


def test_json_has_the_bytes_of_every_part() -> None:
    (printed,) = printed_memory(memory_of(run(LORA, LLAMA_8B, Gpu("h100", 1))))
    assert printed.verdict == "FITS"
    assert printed.parts is not None
    assert printed.bytes == sum(asdict(printed.parts).values()) < printed.usable
    (unknown,) = printed_memory(memory_of(run(LORA, None, Gpu("h100", 1))))
    assert (unknown.verdict, unknown.bytes, unknown.parts) == ("UNKNOWN", None, None)
    assert json.dumps([asdict(printed), asdict(unknown)])


def test_weights_that_are_too_many_are_refused_with_cards_that_have_room() -> None:
    experts = replace(LLAMA_70B, experts=8, active_experts=2)
    (found,) = memory_findings(run(LORA, experts, Gpu("a100_80gb", 1)))
    assert "(weights 131), the weights alone; the memory of a mixture of experts is not estimated." in found.text
    assert found.text.endswith("They would fit with `lora=qlora_moe` or `gpu=h200` or `gpu.count=2 deepspeed=zero3`.")
    (found,) = memory_findings(run({**LORA, "rl": "dpo"}, LLAMA_70B, Gpu("l4", 1)))
    assert "(weights 131), the weights alone; the effect of rl on memory is not estimated." in found.text
    assert found.text.endswith("They would fit with `gpu=h200` or `gpu.count=8 deepspeed=zero3`.")
    (found,) = memory_findings(run({**LORA, "fsdp_config": {"offload_params": False}}, experts, Gpu("a10", 2)))
    assert found.text.endswith("They would fit with `lora=qlora_moe` or `gpu=a100_80gb gpu.count=2`.")
    (found,) = memory_findings(run({"bf16": True}, replace(experts, parameters=10**13), Gpu("b200", 8)))
    assert "They do not fit on any card, nor on 8 cards that share them." in found.text
