"""Whether these Axolotl configs could run on this trainer: `python -m tests.preflight.could_run FILE...` prints why
not.

Every config is read as base=FILE reads it, and its findings are those of a launch: all imports, plugins, optimizers,
dataset formats and templates that it names have to resolve in the trainer's Python. One process answers for all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.composing.axolotl_file import read_base
from runner.environment import trainer_environment
from runner.environment.verdicts import Verdicts
from runner.errors import SweepError
from runner.executors.validator import FreshValidator
from runner.preflight.findings import blocking
from runner.preflight.stage import Preflight
from runner.types import DataChoice, ExecutorChoice, Experiment, Gpu, TrackingChoice
from tests.modal_app.deployments import shipped

EIGHT = Gpu("h100", 8)


def obstacles(
    files: Sequence[Path], *, gpu: Gpu = EIGHT, packages: Mapping[Path, Sequence[str]] | None = None
) -> dict[Path, list[str]]:
    """What prevents each config from running on Modal; empty for one that could run.

    `packages`: what executor.modal.packages adds for a config. The current folder is the user's.
    """
    found: dict[Path, list[str]] = {}
    experiments: dict[Path, Experiment] = {}
    for file in files:
        try:
            config = dict(read_base(str(file)).axolotl)
        except SweepError as error:
            found[file] = str(error).splitlines()
            continue
        image = ExecutorChoice("modal", modal=shipped(packages=list((packages or {}).get(file, ()))))
        tracking = TrackingChoice("disabled", "axosweep")
        config = {**config, "seed": config.get("seed") or 42}
        experiments[file] = Experiment((f"base={file}",), config, gpu, DataChoice(), tracking, image)
    preflight = Preflight(list(experiments.values()), Verdicts(None, ""))
    preflight.ask(FreshValidator(trainer_environment.find()), preflight.experiments)
    refused = blocking(preflight.findings(), force=False)
    for number, file in enumerate(experiments):
        found[file] = [one.finding.text for one in refused if number in one.runs]
    return {file: found[file] for file in files}


def main() -> int:
    found = obstacles([Path(name) for name in sys.argv[1:]])
    for file, texts in found.items():
        print(f"{file}: {'could run' if not texts else ''}")
        print("".join(f"  - {text}\n" for text in texts), end="")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
