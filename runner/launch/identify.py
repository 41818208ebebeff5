"""Experiments -> runs: where they go, what trains them, what they read by content or commit, and their keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from modal_app.store.facts import DataManifest
from modal_app.store.layout import Store
from runner.cost.model_names import model_name
from runner.cost.run_memory import known_memory
from runner.environment import trainer_environment
from runner.executors.choose import one_executor, remembered_verdicts
from runner.keys.code import code_input
from runner.keys.content import ContentHashes
from runner.keys.identity import identify_run, split_by_gpu_type
from runner.keys.inputs import find_inputs, identify_input
from runner.keys.row_files import identify_rows, names_files
from runner.launch.start_checkpoint import check_checkpoint_fits, checkpoint_input, with_start_checkpoints
from runner.launch.types import Launch
from runner.memory.measured import NOTHING_KNOWN, KnownMemory
from runner.preflight.stage import Preflight
from runner.request import Request
from runner.store.stores import open_store, store_of, stores
from runner.types import Experiment, Input, Run


def resolve(experiments: Sequence[Experiment], request: Request) -> Launch:
    """Where a sweep runs and what trains it, with the problems that can be found at once.

    Raises SweepError when they name different executors, and for a start checkpoint that does not exist.
    """
    executor, local_store = one_executor(experiments), open_store(request.store)
    experiments = with_start_checkpoints(experiments, stores(request.store))
    return Launch(
        experiments=tuple(experiments),
        request=request,
        executor=executor,
        store=store_of(executor.type, request.store),
        local_store=local_store,
        trainer=trainer_environment.identity(executor.modal),
        preflight=Preflight(experiments, remembered_verdicts(local_store), force=request.force),
    )


def identify(launch: Launch) -> Launch:
    """The launch with its runs. Raises SweepError for inputs that cannot be used, and for a start checkpoint that does
    not fit its run."""
    hashes = ContentHashes(launch.store.cache / "hashes.json")
    runs = split_by_gpu_type([identified(one, hashes, launch.trainer) for one in launch.experiments])
    hashes.save()
    for run in runs:
        check_checkpoint_fits(run)
    launch.preflight.prepared = _manifests(launch.store, runs)
    launch.preflight.known = _known_memory(runs, stores(launch.request.store))
    return replace(launch, runs=tuple(runs))


def identified(experiment: Experiment, hashes: ContentHashes, trainer: str) -> Run:
    """The run that an experiment is, with every input that it reads."""
    inputs: list[Input] = []
    for one in find_inputs(experiment.axolotl):
        if names_files(one, experiment.axolotl):
            inputs += identify_rows(one, hashes)
        else:
            inputs.append(identify_input(one, experiment.axolotl, hashes))
    if (code := code_input(experiment)) is not None:
        inputs.append(code)
    if experiment.start_checkpoint is not None:
        inputs.append(checkpoint_input(experiment.start_checkpoint))
    return identify_run(experiment, inputs, trainer_lock=trainer)


def _manifests(store: Store, runs: Sequence[Run]) -> list[DataManifest]:
    """What is known of each run's dataset; runs that share one share the value."""
    known = {key: DataManifest.read(store.manifest(key)) for key in {run.data_key for run in runs}}
    return [known[run.data_key] for run in runs]


def _known_memory(runs: Sequence[Run], known: Sequence[Store]) -> list[KnownMemory]:
    """What earlier runs of each run's model have shown of its GPUs' memory; nothing for runs on CPUs."""
    if all(run.experiment.gpu.type == "cpu" for run in runs):
        return []
    found = known_memory(known)
    return [found.get(_model_of(run), NOTHING_KNOWN) for run in runs]


def _model_of(run: Run) -> str:
    identity = next((one.identity for one in run.inputs if one.at == "base_model"), None)
    return model_name(str(run.experiment.axolotl.get("base_model") or ""), identity)
