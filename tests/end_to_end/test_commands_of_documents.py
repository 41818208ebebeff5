"""Every command that README and the pages of docs/ show, run as it is written, or with the reason why it is not run.

A launch is only planned, unless its runs are in the shared sweep. Words in capitals are placeholders; here they become
the shared sweep, its runs, and files that are created.
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from tests.documented import OMITTED, PAGES, ROOT, command_lines, words_of
from tests.end_to_end.axosweep import TRAINED_ONCE, Axosweep, kill_all
from tests.runner.builders import finish_run, log_losses, open_sweep, run

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Rule:
    """Commands that are treated alike: those that match the pattern."""

    pattern: str
    why: str

    def holds(self, words: tuple[str, ...]) -> bool:
        return re.search(self.pattern, " ".join(words)) is not None


NOT_RUN = (
    Rule(r"^(serve( SWEEP| RUN|$)|watch)", "it serves until Ctrl-C: test_serve.py, tests/runner/test_report.py"),
    Rule(r"^(attach|serve (list|stop))", "it asks Modal: test_first_launch.py, test_modal_serve.py"),
    Rule(r"^(sync|wandb-view|compare --from wandb)", "it needs an account at W&B: test_wandb.py"),
    Rule(r"^push (?!.*--dry-run)", "it uploads to the hub: test_push.py"),
    Rule(r"llama3_8b_alpaca .*(executor=modal|max_gpus=\d)$", "it is one of the first launch: test_first_launch.py"),
    Rule(r"^resume", "all runs of the shared sweep have finished: tests/runner/test_resume.py"),
    Rule(r"^settle .*budget=", "it caps the dollars of a sweep on Modal: test_settle.py"),
    Rule(r"^eval .*hellaswag", "it downloads the tasks"),
    Rule(r"^setup", "it builds the environment that the tests use: tests/runner/test_trainer_environment.py"),
    Rule(r"^warm stop --all", "it would end the trainers of other stores: test_warm.py"),
    Rule(r"^experiment=my-axolotl|\+sweeps=first", "its option is in a folder of its own: make wheel-check"),
)
REFUSED = (
    Rule(r"lora_dropout=3", "expected at least 0 and below 1"),
    Rule(r"^plan model=llama3_70b lora=r16 gpu=a100_80gb", "WON'T FIT"),
    Rule(r"^plan model=llama3_1_8b .*gpu=l4", "WON'T FIT"),
    Rule(r"base=by-hand.yml (base_model=\S+70B|load_in_8bit=false)", "WON'T FIT"),
)
"""Commands that a page shows because they are refused, and the text of the refusal."""
WRITTEN = Rule(r"^compare .*(--over seed|--where|arc_easy)", "the shared sweep has no seeds and no such values")
REMOVES = Rule(r"^(rm|gc|warm stop)", "other tests need what it removes")
LATER = Rule(r"^(pull .*merged|serve .*--merged|push|compare|report|settle)", "it needs what merge and eval leave")
ALONE = Rule(r"^cancel", "it would stop its own process, which has launched the sweep before")
PLANNED = Rule(r"^settle(?!.*--plan)", "it trains, so it only says what it would")
CONFIG = (ROOT / "tests" / "good_configs" / "tiny_on_cpu.yml").read_text()
STREAMED = (ROOT / "tests" / "good_configs" / "pretraining_streamed.yml").read_text()
BY_HAND = """\
base_model: NousResearch/Meta-Llama-3-8B
load_in_8bit: true
datasets: [{path: fozziethebeat/alpaca_messages_2k_test, type: chat_template}]
sequence_len: 4096
adapter: lora
lora_r: 32
lora_alpha: 16
lora_target_linear: true
micro_batch_size: 2
gradient_accumulation_steps: 16
gradient_checkpointing: true
num_epochs: 1
optimizer: adamw_bnb_8bit
learning_rate: 0.0002
bf16: auto
output_dir: ./outputs/lora-out
"""
SCRIPT = re.compile(r"^```python\n(# make_rows\.py\n.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"`(conf/[\w/]+\.yaml)`(?:(?!\n\n).)*\n\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = {
    "my-axolotl.yml": CONFIG,
    "a.yml": CONFIG,
    "b.yml": CONFIG.replace("lora_r: 8", "lora_r: 4"),
    "pretraining.yml": STREAMED.replace("attn_implementation: flash_attention_2\n", ""),
    "by-hand.yml": BY_HAND,
    "prompts.txt": "where does Ada live?\n",
}
"""Files that a page expects. Files that it shows are created as it says: rows by its script, options by its YAML."""
VARIABLES = {"AXOSWEEP_NOTIFY_URL": "https://a.example/hook", "BROWSER": "true"}
TINY = ROOT / "tiny"
STANDS_FOR = {"FILE": "prompts.txt", "DIR": "folder", "OWNER/NAME": "me/my-adapter", "COMMIT": "0123456789" * 4}
A_STEP, A_DATASET, A_SWEEP = r"@\d+\b", r"\b[0-9a-f]{12}\b|\bDATA\b", r"\b[a-z_-]+-[0-9a-f]{6}\b"
PLACEHOLDER = re.compile(r"OWNER/NAME|(?<![\w$])[A-Z]+(?![\w-])")


@dataclass(frozen=True)
class Place:
    """Where a command is run, and the values of its words in capitals."""

    command: Axosweep
    sweep: str
    runs: tuple[str, ...]
    step: int
    """The step of a checkpoint that each of the runs has."""
    data: str
    """The key of their dataset."""

    def run(
        self, commands: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[tuple[str, ...], subprocess.CompletedProcess[str]]]:
        together = [words for words in commands if not ALONE.holds(words)]
        lines = [[*self.filled_in(words), *_answered(words)] for words in together]
        yield from zip(together, self.command.run_in_turn(lines), strict=True)
        for words in commands:
            if ALONE.holds(words):
                yield words, self.command.run(*self.filled_in(words))

    def filled_in(self, words: tuple[str, ...]) -> list[str]:
        """The first run that a command names is the best one of the sweep, the second another one."""
        keys = iter(self.runs)

        def stands_for(found: re.Match[str]) -> str:
            if found[0] == "SWEEP":
                return self.sweep
            return next(keys) if found[0] in ("RUN", "A", "B") else STANDS_FOR[found[0]]

        filled: list[str] = []
        for before, word in itertools.pairwise(("", *words)):
            if word == OMITTED:
                filled += TRAINED_ONCE
            elif before == "--out":
                filled.append("new.html")
            else:
                named = re.sub(A_STEP, f"@{self.step}", re.sub(A_SWEEP, self.sweep, word))
                known = re.sub(A_DATASET, self.data, named)
                filled.append(PLACEHOLDER.sub(stands_for, known))
        return filled


@cache
def documented() -> dict[tuple[str, ...], str]:
    """The words of each command, and the first page that shows it. A launch that is planned elsewhere counts once."""
    found: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        for line in command_lines((ROOT / page).read_text(encoding="utf-8")):
            found.setdefault(_without_launching(words_of(line)), page)
    return found


def test_every_rule_is_about_a_command_that_a_page_shows() -> None:
    for rule in (*NOT_RUN, *REFUSED, WRITTEN, REMOVES, LATER, PLANNED, ALONE):
        assert any(rule.holds(words) for words in documented()), f"{rule.pattern}: no page shows such a command"


def test_every_other_command_does_what_it_says(trained: Axosweep, removing: Axosweep, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    here, written, elsewhere = (
        _place(one, folder) for one in (trained, Axosweep(_written_store(tmp_path), folder), removing)
    )
    commands = [words for words in documented() if not any(rule.holds(words) for rule in NOT_RUN)]
    assert len(commands) > 60
    failures = []
    for place in (here, written, elsewhere):
        own = [words for words in commands if _place_of(words, here, written, elsewhere) is place]
        for words, done in place.run(sorted(own, key=LATER.holds)):
            refusal = next((rule for rule in REFUSED if rule.holds(words)), None)
            good = refusal.why in done.stderr and done.returncode == 2 if refusal else done.returncode == 0
            if not good or "Traceback" in done.stderr:
                shown = f"{documented()[words]}: axosweep {shlex.join(words)}\n  run as: {shlex.join(done.args)}"
                failures.append(f"{shown}\n  exit code {done.returncode}\n{done.stdout[-500:]}{done.stderr[-1000:]}")
    assert not failures, "\n".join(failures)


def _place_of(words: tuple[str, ...], here: Place, written: Place, elsewhere: Place) -> Place:
    return written if WRITTEN.holds(words) else elsewhere if REMOVES.holds(words) else here


def _answered(words: tuple[str, ...]) -> list[str]:
    """What prevents a command from asking, or from training."""
    return ["--yes"] if words[0] in ("rm", "gc") else ["--plan"] if PLANNED.holds(words) else []


@pytest.fixture
def removing(trained: Axosweep, tmp_path: Path) -> Iterator[Axosweep]:
    """A copy of the shared store, from which things may be removed."""
    shutil.copytree(trained.store.root, tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("cache"))
    command = Axosweep(Store(tmp_path / "copy"), tmp_path)
    yield command
    kill_all(command.processes())


def _folder(place: Path) -> Path:
    """A folder with the files that the pages name; only a few prompts, since three models answer each."""
    folder = place / "work"
    (folder / "tiny" / "data").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for script in SCRIPT.findall(text):
            subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
        for name, option in OPTION.findall(text):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(option)
    for name in ("train.jsonl", "held-out.jsonl"):
        shutil.copy(folder / "chat.jsonl", folder / name)
    for file in (TINY / "model", TINY / "data" / "train.jsonl", TINY / "data" / "tiny_directory.yaml"):
        (folder / file.relative_to(ROOT)).symlink_to(file)
    prompts = (TINY / "data" / "prompts.jsonl").read_text().splitlines(keepends=True)
    (folder / "tiny" / "data" / "prompts.jsonl").write_text("".join(prompts[:4]))
    return folder


def _place(axosweep: Axosweep, folder: Path) -> Place:
    command = replace(axosweep, folder=folder).with_variables(VARIABLES)
    compared = command.json("compare")
    steps = [path.name.rpartition("-")[2] for path in command.store.runs.glob("*/model/checkpoint-*")]
    keys = tuple(row["key"] for row in sorted(compared["runs"], key=lambda row: not row["is_best"]))
    return Place(command, compared["sweep"], keys, min(map(int, steps), default=0), compared["runs"][0]["data_key"])


def _written_store(place: Path) -> Store:
    """Runs with seeds, as a sweep leaves them, without training."""
    store = Store(place / "written")
    grid = [run({"lora_r": 16, "learning_rate": rate, "seed": seed}) for rate in (1e-4, 1e-3) for seed in (1, 2)]
    open_sweep(store, grid, "seeds")
    for number, one in enumerate(grid):
        finish_run(store, one, {0: 3.0, 9: 1.0 + number})
        log_losses(store, one, {10: 1.0 + number}, "tasks/arc_easy/acc")
    return store


def _without_launching(words: tuple[str, ...]) -> tuple[str, ...]:
    """A launch, turned into a plan unless it is trained already."""
    launches = not re.fullmatch(r"[a-z][a-z-]*", words[0])
    return ("plan", *words) if launches and OMITTED not in words and "--cfg" not in words else words
