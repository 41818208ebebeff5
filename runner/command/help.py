"""The text of --help, with the groups and options that exist. Does not import Hydra."""

from __future__ import annotations

import textwrap

from runner.config.project import SWEEPS
from runner.config.vocabulary import BASE_OPTION, Vocabulary, read_vocabulary

EXAMPLES = (
    ("axosweep lora=r16 max_steps=50", "one run"),
    ("axosweep -m lora=r8,r16 learning_rate=1e-3,3e-3", "every combination: four runs"),
    ("axosweep -m +sweeps=tiny_grid", "a question saved as a file in sweeps/"),
)
"""Command lines and what they do; a test plans each."""

GROUPS = {
    "model": "what is tuned",
    "dataset": "what it learns from",
    "training": "the recipe",
    "lora": "the adapter",
    "alpha": "how lora_alpha follows from the rank; none unless named",
    "deepspeed": "sharding over GPUs",
    "fsdp": "the same by PyTorch; choose one of the two",
    "gpu": "what a run trains on; gpu.count=N for several",
    "executor": "where the runs go",
    "prices": "what rented machines cost",
    "tracking": "Weights & Biases",
    "experiment": "a named combination of all of these",
    SWEEPS: "questions; +sweeps=NAME, with -m",
}
"""What each shipped group is, in the order in which they are listed."""

_TEXT = """\
axosweep: ask Axolotl a fine-tuning question in one line, and get a table of runs that you can compare.

  axosweep [-m] [GROUP=OPTION ...] [KEY=VALUE ...]

GROUP=OPTION chooses a config file, KEY=VALUE sets one value: any key of Axolotl {version} by its own name
(learning_rate, datasets.0.path), or one of axosweep's own:
{nodes}
base=FILE.yml starts from your own Axolotl config; groups that you name are still applied to it.
from=RUN@STEP continues from another run's checkpoint.
With -m, values separated by commas are swept: each combination is a run. This is a Hydra application, so
Hydra's grammar (range, choice, glob, ~KEY) works.

Groups (* is the default)
{groups}

Verbs
  plan ARGS            what would run, and what is done already; starts nothing
  plan ARGS --diff SWEEP  the runs and values that differ from an earlier sweep
  plan ARGS --write DIR   each run as a config for plain `axolotl train`
  plan ARGS --overrides   the runs as overrides that any Hydra sweeper takes
  status [SWEEP]       the status of every sweep, or of every run of one
  compare [SWEEP ...]  the runs side by side; the newest sweep when none is named
  compare RUN RUN      two runs: the config keys that differ, both curves
  compare --from wandb [SWEEP ...]  the same rows from W&B, also of sweeps that ran elsewhere
  best [SWEEP]         the best run, its config (--write FILE) and its files
  settle [SWEEP]       further seeds of the best settings, until they are told apart; budget=DOLLARS on Modal
  sync [SWEEP]         upload offline runs to W&B, and what is missing there
  wandb-view [SWEEP]   a W&B workspace view of a sweep
  report [SWEEP]       one HTML file with tables and charts that opens offline; --out FILE, --open
  watch [SWEEP]        the report in the browser, updated while the sweep runs
  data [KEY]           the prepared datasets, or samples of one
  attach [SWEEP]       follow a sweep on Modal, from any machine
  logs RUN [-f]        the newest attempt's log of a run
  merge [RUN|SWEEP]    merge the adapter into the base model; of a sweep, the best run's
  eval [RUN|SWEEP]     evaluate on held-out rows or --tasks of the lm-evaluation-harness; --base: the base model, too
  infer RUN|SWEEP      ask a run (--prompt TEXT, --prompts FILE), or a sweep's runs and their base model side by side
  push RUN OWNER/NAME  upload the adapter (or --merged model) to the Hugging Face hub, with a card; --dry-run shows it
  serve [RUN ...]      an OpenAI-compatible server of runs and their base model; on Modal: serve list, serve stop
  cancel [SWEEP|RUN]   stop a sweep or a run, once it has saved a checkpoint; given again, kill it
  ls RUN               the files of a run, how large they are and where
  pull RUN [WHAT] DIR  copy the adapter, checkpoints, logs or all into a folder; a killed pull is resumed
  rm RUN|SWEEP ...     remove runs, or with --checkpoints only their checkpoints; asks first
  gc                   remove what nothing needs any more: unused datasets and inputs, old caches
  import FILE.yml      turn an Axolotl config into an experiment: conf/experiment/NAME.yaml
  init [DIR]           create a small project of your own: conf/, sweeps/
  doctor               check what a sweep needs from this machine and its accounts
  warm [status|stop]   the preloaded trainer that waits for the next command; stop ends it
  setup                build the environment that runs Axolotl
  completion SHELL     completion for bash, zsh or fish: eval "$(axosweep completion bash)"
  Every verb that prints rows takes --json.

Flags
  -m, --multirun       sweep
  --cfg job            print the composed config instead of running; --resolve, -p PACKAGE
  -cd DIR              take config groups from DIR first, then from ./conf and the shipped ones
  --force              launch what preflight holds back (such as a run on a GPU that is too small)
  --note TEXT          why you launch it: shown by status and in the report, and in the notes of its W&B runs
  --notify-command CMD run a command here with each notice (docs/notify.md) on its stdin
  --yes                launch on Modal without asking above confirm_above dollars
  --info and all other flags are Hydra's own

Examples
{examples}

Exit code: 0, 1 when a run failed, 2 for a mistake in the request, 3 if settings could not be told apart
(settle, best --decided), 130 after Ctrl-C."""


def text() -> str:
    vocabulary = read_vocabulary()
    width = max(len(line) for line, _ in EXAMPLES) + 2
    return _TEXT.format(
        version=vocabulary.fields.version,
        nodes=textwrap.fill(", ".join(_node_names(vocabulary)), 100, initial_indent="  ", subsequent_indent="  "),
        groups="\n".join(_group(group, vocabulary) for group in _in_order(vocabulary)),
        examples="\n".join(f"  {line:{width}}{meaning}" for line, meaning in EXAMPLES),
    )


def _in_order(vocabulary: Vocabulary) -> list[str]:
    known = [group for group in GROUPS if group in vocabulary.groups]
    return known + [group for group in vocabulary.groups if group not in (*GROUPS, BASE_OPTION)]


def _group(group: str, vocabulary: Vocabulary) -> str:
    default = vocabulary.chosen.get(group)
    options = ", ".join(f"{option}*" if option == default else option for option in vocabulary.groups[group])
    indent = " " * 16
    wrapped = textwrap.fill(options, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return f"  {group:<11} {GROUPS.get(group, '')}\n{wrapped}"


def _node_names(vocabulary: Vocabulary) -> list[str]:
    return [name for node, below in vocabulary.nodes.items() for name in ([f"{node}.{one}" for one in below] or [node])]
