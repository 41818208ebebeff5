"""The paths of everything in a store: the only place that knows the names of the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modal_app.store.step import FOLLOW_UP_KINDS, StepKind

ATTEMPT_PREFIX = "attempt-"
DRAFT = "draft"
"""In the folder of an attempt on Modal: the step's files, until they are published."""

COPYING = "copying"
"""Next to it: a checkpoint of which a part has been copied from the container's own disk."""

LATEST = "latest"
"""In a step's folder: a link to its newest attempt, for people and their editors. Nothing reads it."""

SUBMISSION = "submission.json"
"""In the folder of a sweep that runs elsewhere: the names it uses there and the steps it has."""

STEPS = "steps.json"
"""Next to it on the runs Volume: the steps themselves, and what waits for each."""

SEEN = "seen.json"
"""Next to it in a mirror: the time of the last look, and whether everything had ended by then."""

BASE_MODEL_KEY = "base"
"""In the place of a run's key: steps of a base model alone."""

ANSWERS = "answers.jsonl"
"""In the folder of an infer step: a line per prompt."""

MANIFEST = "manifest.json"
"""In the folder of a merge step: the files of the merged model, with their sizes and sha256."""

DEBUG_LOG = "debug.log"
"""Axolotl's own, in its output_dir: it is still written to while the process ends."""

REMOVED = "removed.json"
"""In the folder of a run that was removed: when, and how many bytes that freed."""

SAMPLES = "samples.json"
"""In a prepared dataset: some of its rows, decoded."""

HELD_OUT = "held_out.jsonl.gz"
"""In a prepared dataset: which document and dataset each of its held-out rows is of, and what it says."""

LOSSES = "losses.npz"
"""In the folder of a run or of an evaluation: the loss of each held-out row."""

LOSSES_BEFORE = "losses-before.npz"
"""In the folder of a run: the same for the weights that training begins with."""


@dataclass(frozen=True, slots=True)
class StepFolder:
    """The folder that one step owns. On this machine, only the holder of `lock` writes below it. On Modal, where no
    lock is possible, each attempt writes below its own folder only, into its draft."""

    path: Path
    done: Path
    """The file whose presence, and nothing else, means that the step has succeeded."""
    drafted_by: int = 0
    """The attempt whose draft of the step's files this is; 0 for the files themselves."""
    scratch: Path | None = None
    """On Modal, the attempt's folder on its container's own disk. `model` and `done`, and what says how the attempt has
    ended, lie there until they are copied into the draft; the small files that others read meanwhile do not."""

    def draft_of(self, attempt: int, scratch: Path | None = None) -> StepFolder:
        """The same step, whose files (and `done`) are those in an attempt's draft."""
        place = self.attempt(attempt).draft if scratch is None else scratch / DRAFT
        return StepFolder(self.path, place / self.done.name, attempt, scratch)

    @property
    def files(self) -> Path:
        """The folder of the files that the step leaves."""
        return self.attempt(self.drafted_by).draft if self.drafted_by else self.path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def metrics(self) -> Path:
        return self.files / "metrics.jsonl"

    @property
    def losses(self) -> Path:
        """losses.npz: of each held-out row, in the newest evaluation; once a run has finished, with the weights that it
        stores."""
        return self.files / LOSSES

    @property
    def losses_best(self) -> Path:
        """losses-best.npz: the same at the best step so far, until a run that stores its best weights has finished."""
        return self.files / "losses-best.npz"

    @property
    def losses_before(self) -> Path:
        """losses-before.npz: the same for the weights that training begins with."""
        return self.files / LOSSES_BEFORE

    @property
    def config(self) -> Path:
        """The Axolotl config as it was keyed: inputs by content, no addresses."""
        return self.files / "config.yml"

    @property
    def identity(self) -> Path:
        """run.json: the request, and every part of the key."""
        return self.path / "run.json"

    @property
    def model(self) -> Path:
        """Axolotl's output_dir: the adapter, and checkpoint-N folders next to it."""
        return (self.files if self.scratch is None else self.scratch / DRAFT) / "model"

    def result_of(self, attempt: Attempt) -> Path:
        """Where the attempt's worker writes how it ended: its result.json, or what is copied to there last."""
        return attempt.result if self.scratch is None else self.scratch / attempt.result.name

    @property
    def answers(self) -> Path:
        return self.files / ANSWERS

    @property
    def manifest(self) -> Path:
        return self.files / MANIFEST

    @property
    def tracking(self) -> Path:
        """wandb.json: the W&B run id and group, chosen at the first attempt and never changed."""
        return self.files / "wandb.json"

    @property
    def removed(self) -> Path:
        """removed.json: the run's results were removed on request, and have not been requested since."""
        return self.path / REMOVED

    @property
    def containers(self) -> Path:
        """containers/<task id>.json: on Modal, what each container has spent on the step."""
        return self.path / "containers"

    def attempts(self) -> list[Attempt]:
        """Every attempt so far, oldest first."""
        found = [
            Attempt(path, int(path.name.removeprefix(ATTEMPT_PREFIX)))
            for path in self.path.glob(f"{ATTEMPT_PREFIX}*")
            if path.name.removeprefix(ATTEMPT_PREFIX).isdecimal()
        ]
        return sorted(found, key=lambda attempt: attempt.number)

    @property
    def latest(self) -> Path:
        """The link to the newest attempt."""
        return self.path / LATEST

    def attempt(self, number: int) -> Attempt:
        return Attempt(self.path / f"{ATTEMPT_PREFIX}{number}", number)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a step: its own folder, never reused."""

    path: Path
    number: int

    @property
    def draft(self) -> Path:
        """draft/, on Modal: the step's files as this attempt makes them."""
        return self.path / DRAFT

    @property
    def copying(self) -> Path:
        """copying/, on Modal: a checkpoint of which a part has been copied from the container's disk."""
        return self.path / COPYING

    @property
    def started(self) -> Path:
        """started.json: the process that runs it (pid, start time, boot id), and since when."""
        return self.path / "started.json"

    @property
    def container(self) -> Path:
        """container.json, on Modal: which container works on it, for which call; written before its worker starts."""
        return self.path / "container.json"

    @property
    def result(self) -> Path:
        """result.json: how it ended; written last."""
        return self.path / "result.json"

    @property
    def exit(self) -> Path:
        """exit.json: the process's exit code or signal, written by the process that reaped it."""
        return self.path / "exit.json"

    @property
    def stop(self) -> Path:
        """stop.json: what requested its worker to stop, and what killed it."""
        return self.path / "stop.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def config(self) -> Path:
        """The config as Axolotl reads it, with the attempt's paths."""
        return self.path / "config.yml"

    @property
    def step(self) -> Path:
        """step.json: the complete Step, with which it can be tried again."""
        return self.path / "step.json"

    def log_of(self, rank: int) -> Path:
        """The log of one rank of several; rank 0's is the attempt's."""
        return self.log if rank == 0 else self.path / f"log-{rank}.txt"

    def failure(self, rank: int) -> Path:
        """Why one rank of several failed, by its own account."""
        return self.path / f"failure-{rank}.json"

    @property
    def train_state(self) -> Path:
        """train.json: steps, world size and phase seconds, kept current by the Axolotl plugin."""
        return self.path / "train.json"

    def rung_question(self, rung: int) -> Path:
        """rung-<k>.json, on Modal: that the run has reached a rung, for the container to answer."""
        return self.path / f"rung-{rung}.json"

    def rung_answer(self, rung: int) -> Path:
        """rung-<k>-answer.json: the answer."""
        return self.path / f"rung-{rung}-answer.json"

    @property
    def progress(self) -> Path:
        """progress.json: how many prompts an infer step has answered, and of how many; what another step downloads or
        tokenizes (process/bars.py), until it trains."""
        return self.path / "progress.json"


@dataclass(frozen=True, slots=True)
class Store:
    """The root folder of everything that axosweep stores. The tree is the same on this machine and on Modal."""

    root: Path

    @property
    def inputs(self) -> Path:
        """Local files and folders that experiments read, by content hash."""
        return self.root / "inputs"

    @property
    def is_mounted(self) -> bool:
        """Whether its parts are Volumes, mounted in a container on Modal."""
        return self.inputs.is_symlink()

    @property
    def sweeps(self) -> Path:
        return self.root / "sweeps"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def prepared(self) -> Path:
        return self.root / "prepared"

    @property
    def cache(self) -> Path:
        """Facts that can be found again: content hashes, hub revisions."""
        return self.root / "cache"

    def prepared_dataset(self, data_key: str) -> Path:
        return self.prepared / data_key

    def manifest(self, data_key: str) -> Path:
        return self.prepared_dataset(data_key) / "manifest.json"

    def folder(self, kind: StepKind, key: str) -> StepFolder:
        match kind:
            case StepKind.PREPROCESS:
                return StepFolder(self.prepared / f"{key}.work", done=self.manifest(key))
            case StepKind.TRAIN:
                path = self.runs / key
                return StepFolder(path, done=path / "result.json")
            case StepKind.MERGE | StepKind.INFER | StepKind.EVALUATE:
                run, own = parts_of_key(key)
                path = self.runs / run / kind / own
                return StepFolder(path, done=path / "result.json")

    def after(self, run: str) -> list[tuple[StepKind, str]]:
        """Every step that has begun after a run, or (BASE_MODEL_KEY) of a base model alone."""
        found = [(kind, path.name) for kind in FOLLOW_UP_KINDS for path in sorted((self.runs / run / kind).glob("*"))]
        return [(kind, after_key(run, own)) for kind, own in found]


def after_key(run: str, own: str) -> str:
    """The key of a step that comes after a run, or is of a base model alone: the run's key and the step's own hash.

    Its folder lies in the run's, so that removing a run removes what was created from it.
    """
    return f"{run or BASE_MODEL_KEY}/{own}"


def parts_of_key(key: str) -> tuple[str, str]:
    """The run's key (or BASE_MODEL_KEY) and the step's own hash in an `after_key`; otherwise the key and an empty
    text."""
    run, _, own = key.partition("/")
    return run, own
