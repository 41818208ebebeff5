"""Frozen values that pass from stage to stage, without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modal_app.cloud.settings import Deployment
from modal_app.store.problem import Problem
from modal_app.store.step import Step, StepKind


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a run trains on. `type` is `cpu` or a GPU's name in conf/gpu; composing replaces `auto` by one of them."""

    type: str
    count: int
    """Processes of a run, one per GPU: the data-parallel ranks."""
    fallback: tuple[str, ...] = ()
    """Other acceptable GPUs, best first, if `type` is not available. In no key: they only decide where a run trains."""


@dataclass(frozen=True, slots=True)
class DataChoice:
    """The `data` node."""

    path: str | None = None
    limit: int | None = None
    """Rows per dataset; None is all of them."""
    seed: int | None = None
    """The seed of shuffling and splitting in preprocessing; None is the run's own seed. conf/config.yaml has 42, so
    that the runs of a sweep over `seed` share their rows."""


@dataclass(frozen=True, slots=True)
class TrackingChoice:
    """The `tracking` node."""

    mode: str
    project: str
    entity: str | None = None
    tags: tuple[str, ...] = ()
    sweep_object: bool = False
    """Whether the runs are attached to a sweep object of W&B, too."""


@dataclass(frozen=True, slots=True)
class ExecutorChoice:
    """The `executor` node."""

    type: str
    parallel: int | None = None
    """Runs at a time; None is what the machine has room for, or Modal's own limit."""
    max_gpus: int | None = None
    """GPUs at a time on Modal; None is Modal's own limit."""
    warm: bool = True
    """On the CPU: fork runs from one preloaded process."""
    warm_idle_s: float | None = None
    """Seconds that the process waits for the next command; None is AXOSWEEP_WARM_IDLE_S, or five minutes."""
    modal: Deployment | None = None
    """What is deployed to Modal, and under which names; None where the executor does not deploy."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the node. If there is any, `modal` is None."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The `model` node: a published model's shape, for memory and price estimates. In no key."""

    base_model: str
    """The model that this describes; a config with another `base_model` has no facts."""
    parameters: int
    """All of them: every expert is counted, tied weights once."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    """The width of one MLP; of one expert where there are experts."""
    vocabulary: int
    """Rows of the embedding matrix."""
    tied: bool
    """Whether the output head shares the embedding matrix."""
    context: int
    """The most positions that the model's own config allows."""
    source: str
    """Where this is published."""
    experts: int | None = None
    """Experts per layer; None for a dense model."""
    active_experts: int | None = None
    """Experts that a token passes through."""
    vision: bool = False
    """Whether it also reads images. All figures but `parameters` are then those of its text part."""
    active_parameters: int | None = None
    """The weights that a token is multiplied with, without looked-up embeddings; None if the shape says it."""
    unusual: str = ""
    """What its layers have besides softmax attention and a gated MLP, such as `linear attention`. The memory of such a
    model is not estimated."""
    adapter_modules: tuple[str, ...] = ()
    """What to name in lora_target_modules, where neither lora_target_linear nor the usual names suit the model."""
    same_shape: tuple[str, ...] = ()
    """Other names on the hub with exactly this shape: the publisher's own repository, copies of it, the base model."""


@dataclass(frozen=True, slots=True)
class DatasetSize:
    """One dataset in the `sizes` node, for price estimates and preflight. In no key."""

    rows: int
    tokens_per_row: float


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The `prices` node: what rented machines cost, US dollars a second. In no key."""

    date: str
    """The day on which the prices were valid, such as 2026-09-20."""
    source: str
    gpu: Mapping[str, float]
    """One card, by its name in conf/gpu."""
    cpu: float
    """One physical core."""
    memory: float
    """One GiB."""
    volume: float
    """One GiB for a month; not part of a run's price."""
    given: tuple[str, ...] = ()
    """The prices that overrides set, not the file: `cpu`, `gpu.h100`."""


@dataclass(frozen=True, slots=True)
class StartCheckpoint:
    """Another run's checkpoint that a run continues from."""

    run: str
    step: int
    folder: str
    """Where its files are on this machine."""
    identity: str
    """Hex sha256 of its content."""
    store: str
    """The root of the store that the other run is recorded in."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One composed point of a sweep: what it is (axolotl), and where and how it runs (the rest)."""

    overrides: tuple[str, ...]
    """What was requested beyond the defaults, as the user wrote it."""
    axolotl: Mapping[str, Any]
    """Resolved and plain (JSON values only), exactly what conf and overrides say."""
    gpu: Gpu
    data: DataChoice
    tracking: TrackingChoice
    executor: ExecutorChoice
    model: ModelFacts | None = None
    """What is known of `base_model`; None for one that conf/model does not describe."""
    chosen: str = ""
    """Why gpu=auto chose these GPUs; empty without gpu=auto."""
    prices: PriceTable | None = None
    sizes: Mapping[str, DatasetSize] = field(default_factory=dict)
    """The sizes of datasets by path, as their files in conf declare them."""
    stages: tuple[str, ...] = ("preprocess", "train")
    """What is done with it, in this order. In no key."""
    heals: bool = False
    """Whether it is tried again with a smaller micro batch if it is out of memory (on_oom=halve). In no key."""
    from_text: str | None = None
    """RUN[@STEP], as the command line has it."""
    start_checkpoint: StartCheckpoint | None = None
    """The checkpoint that `from_text` names."""
    replaced_optimizer: str | None = None
    """The requested optimizer, if gpu=cpu has replaced it."""
    for_another_model: tuple[str, ...] = ()
    """The keys whose values the default's model file has set for its own model, and not for this `base_model`."""


StepId = tuple[StepKind, str]
"""What names a step: its kind and its key."""


class InputKind(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    HUB = "hub"
    ROWS = "rows"
    """A file whose rows name other files on this machine. The store has a copy that names them by content."""
    ROW_FILES = "row files"
    """These other files. The config does not name them, so `at` is no key of it."""
    CHECKPOINT = "checkpoint"
    """Another run's, copied into a folder of the store."""
    CODE = "code"
    """The user's own Python modules, copied into a folder of the store."""


@dataclass(frozen=True, slots=True)
class Input:
    """Something outside the config that decides what a run is."""

    at: str
    """Where the config names it: `base_model`, `datasets.0.path`."""
    text: str
    """What the config says there."""
    kind: InputKind
    identity: str | None
    """Hex sha256 of the content, or the hub commit. None: could not be resolved now."""
    problem: str = ""
    """Why it could not be resolved."""
    files: tuple[tuple[str, str], ...] = ()
    """Of the user's modules: each file by its name in the store's folder, and where it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """An experiment with its identity."""

    key: str
    data_key: str
    experiment: Experiment
    config: Mapping[str, Any]
    """The keyed config: local inputs by content, hub inputs by commit, no addresses."""
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class PlannedDataset:
    key: str
    step: Step
    done: bool
    runs: tuple[str, ...]
    """Keys of the runs that read it."""
    damage: str = ""
    """What is wrong with its files, if it was prepared before and is prepared again for that reason."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    run: Run
    step: Step
    done: bool
    copies: int = 1
    """How many of the requested experiments are this run."""
    trains: bool = True
    """False: only its dataset is requested."""
    at_rung: int = 0
    """The rung of its search where it has stopped, if it does not go on as things stand; 0 otherwise."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A follow-up step of a run: merge, infer, evaluate."""

    step: Step
    done: bool
    needs: StepId | None = None
    """The step that has to be done before it, if that is not done yet."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How one requested experiment ended, for the caller, which may be a third-party sweeper."""

    key: str
    succeeded: bool
    objective: float | None
    """Best eval loss; None without one."""
    message: str = ""
    at_rung: bool = False
    """Whether other runs of its search were better at a rung, so that it has stopped there."""

    @property
    def failed(self) -> bool:
        return not (self.succeeded or self.at_rung)


@dataclass(frozen=True, slots=True)
class Plan:
    """What would run, each run and dataset once."""

    sweep: str
    """The sweep's id: its name and a hash of its runs, so that the same question is the same sweep."""
    runs: tuple[PlannedRun, ...]
    datasets: tuple[PlannedDataset, ...]
    unresolved: tuple[Input, ...] = field(default=())
    after: tuple[PlannedStep, ...] = ()
    """The follow-up steps, each after the step that it needs."""

    @property
    def pending(self) -> tuple[PlannedRun, ...]:
        """The runs to be trained, in the order in which they start. Runs that stop at rungs start in a random one, that
        of their keys: in a grid that is written from its worst run to its best, every run would go on, since each is
        better than all before it."""
        pending = tuple(planned for planned in self.runs if not planned.done)
        halved = any(planned.step.rungs for planned in pending)
        return tuple(sorted(pending, key=lambda planned: planned.run.key)) if halved else pending

    @property
    def has_work(self) -> bool:
        """Whether anything is left to do."""
        wanted = {planned.run.data_key for planned in self.pending}
        return (
            any(planned.trains for planned in self.pending)
            or any(not dataset.done and dataset.key in wanted for dataset in self.datasets)
            or any(not one.done for one in self.after)
        )
