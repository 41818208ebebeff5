"""Each shipped experiment and sweep fits its GPUs by our own estimate, and docs/experiments.md agrees with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.config.gpus import GPUS
from runner.config.project import SWEEPS
from runner.config.vocabulary import read_vocabulary
from runner.memory.estimate import Estimate, Verdict, estimate
from runner.memory.weights import GIB
from runner.preflight import quick_findings
from runner.types import Experiment

GROUPS = read_vocabulary().groups
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")

PLAIN_LOSS = ["~plugins", "~liger_fused_linear_cross_entropy"]
COPIES = [*PLAIN_LOSS, "fsdp=none", "optimizer=adamw_bnb_8bit"]
KERNELS = ["~liger_rope", "~liger_rms_norm", "~liger_glu_activation"]
AS_WRITTEN = {
    "llama3_8b_alpaca": [],
    "llama3_8b_one_gpu": [*PLAIN_LOSS, "micro_batch_size=16", "gradient_accumulation_steps=2"],
    "llama3_70b_four_gpus": [*COPIES, "load_in_8bit=true", "micro_batch_size=4", "gradient_accumulation_steps=4"],
    "llama3_405b_eight_gpus": [*COPIES, "micro_batch_size=2", "gradient_accumulation_steps=2", "sequence_len=4096"],
    "max_speed": [*PLAIN_LOSS, *KERNELS, "micro_batch_size=8", "gradient_accumulation_steps=4"],
    "max_quality": PLAIN_LOSS,
}
"""What undoes our corrections: the tutorial's own values for the same question."""


def _estimate(experiment: Experiment) -> Estimate:
    return estimate(experiment.axolotl, experiment.model, GPUS[experiment.gpu.type], experiment.gpu.count)


def _rows(experiment: Experiment) -> int:
    config = experiment.axolotl
    return int(config["micro_batch_size"] * config["gradient_accumulation_steps"] * experiment.gpu.count)


@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_an_experiment_fits_and_its_page_says_so(ask: Callable[..., Any], name: str) -> None:
    (shipped,) = ask(f"experiment={name}").experiments
    (written,) = ask(f"experiment={name}", *AS_WRITTEN[name]).experiments
    ours, theirs = _estimate(shipped), _estimate(written)
    assert ours.verdict in (Verdict.FITS, Verdict.UNSURE)
    assert quick_findings(shipped) == ()
    assert _rows(shipped) == _rows(written) or shipped.axolotl["sample_packing"]
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == f"{shipped.gpu.count} x {shipped.gpu.type}"
    assert _agrees(cells[2], theirs), theirs
    assert cells[3] == "the same" if not AS_WRITTEN[name] else _agrees(cells[3], ours), ours


def _agrees(cell: str, found: Estimate) -> bool:
    """`26 of 78 GiB, FITS`, to the nearest GiB or its neighbour."""
    said = re.fullmatch(r"(\d+) of (\d+) GiB, (.+)", cell)
    assert said is not None, cell
    assert found.parts is not None
    close = abs(found.parts.total / GIB - int(said[1])) <= 1
    return close and round(found.usable / GIB) == int(said[2]) and said[3] == found.verdict


@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_an_experiment_opens_with_the_command_that_asks_it(name: str) -> None:
    file = Path(__file__).resolve().parents[2] / "conf" / "experiment" / f"{name}.yaml"
    assert f"axosweep plan experiment={name}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("sweep", GROUPS[SWEEPS])
def test_a_shipped_sweep_is_several_runs_that_fit_their_gpus(ask: Callable[..., Any], sweep: str) -> None:
    experiments: Sequence[Experiment] = ask("-m", f"+sweeps={sweep}").experiments
    assert len(experiments) > 1
    assert {finding for one in experiments for finding in quick_findings(one)} == set()
    on_gpus = [one for one in experiments if one.gpu.type in GPUS]
    assert all(_estimate(one).verdict is Verdict.FITS for one in on_gpus)
