"""The text of --help, from the groups and options that there are. No Hydra."""

from __future__ import annotations

import textwrap

from runner.config.project import SWEEPS
from runner.config.vocabulary import BASE_OPTION, Vocabulary, read_vocabulary

EXAMPLES = (
    ("axosweep lora=r16 max_steps=50", "one run"),
    ("axosweep -m lora=r8,r16 learning_rate=1e-3,3e-3", "every combination: four runs"),
    ("axosweep -m +sweeps=tiny_grid", "a question kept in a file of sweeps/"),
)
"""Command lines and what they do; a test plans each."""

_GROUPS = {
    "model": "what is tuned",
    "dataset": "what it learns from",
    "training": "the recipe",
    "lora": "the adapter",
    "deepspeed": "sharding over GPUs",
    "fsdp": "... or PyTorch's own; one of the two",
    "gpu": "what a run trains on; gpu.count=N for several",
    "executor": "where the runs go",
    "prices": "what rented machines cost",
    "tracking": "Weights & Biases",
    "experiment": "a named combination of all of these",
    SWEEPS: "questions; +sweeps=NAME, with -m",
}

_TEXT = """\
axosweep: ask Axolotl a question in one line, train every answer, compare them.

  axosweep [-m] [GROUP=OPTION ...] [KEY=VALUE ...]

GROUP=OPTION chooses a config file, KEY=VALUE sets one value: any key of Axolotl {version} by its own name
(learning_rate, datasets.0.path), or one of axosweep's own:
{nodes}
base=FILE.yml starts from an Axolotl config of your own, as it is; a group that is asked for still counts.
from=RUN@STEP goes on from another run's checkpoint.
With -m, values separated by commas are swept, each combination a run. It is a Hydra application: its
grammar (range, choice, glob, ~KEY) works as Hydra documents it.

Groups (* is the default)
{groups}

Verbs
  plan ARGS            what would run, what is done already; starts nothing
  plan ARGS --diff SWEEP  which runs and values are others than an earlier sweep's
  plan ARGS --write DIR   each run as a config for plain `axolotl train`
  plan ARGS --overrides   the runs as overrides that any Hydra sweeper takes
  status [SWEEP]       how every sweep stands, or every run of one
  compare [SWEEP ...]  the runs side by side; the newest sweep when none is named
  compare RUN RUN      two runs: the config keys that differ, both curves
  compare --from wandb [SWEEP ...]  the same rows from W&B, also of sweeps that ran elsewhere
  best [SWEEP]         the winner, its config (--write FILE), what it has made
  sync [SWEEP]         upload offline runs to W&B, and what it lacks
  wandb-view [SWEEP]   a W&B workspace view of it
  report [SWEEP]       one HTML file with tables and charts that opens offline; --out FILE, --open
  watch [SWEEP]        the same in the browser, kept up to date while the sweep runs
  data [KEY]           the prepared datasets, or samples of one
  attach [SWEEP]       follow a sweep on Modal, from any machine
  logs RUN [-f]        the newest attempt's log of a run
  merge [RUN|SWEEP]    the adapter into the base model; of a sweep, the best run's
  eval [RUN|SWEEP]     finished runs on their held-out rows, or --tasks of the lm-evaluation-harness; --base, too
  infer RUN|SWEEP      ask a run (--prompt TEXT, --prompts FILE), or a sweep's runs and their base model side by side
  push RUN OWNER/NAME  the adapter (or --merged model) to the Hugging Face hub, with a model card; --dry-run shows it
  serve [RUN ...]      an OpenAI-compatible server of runs and their base model; on Modal: serve list, serve stop
  cancel [SWEEP|RUN]   end what works on it
  ls RUN               what there is of a run, how large it is and where
  pull RUN [WHAT] DIR  bring it into a folder: the adapter, checkpoints, logs, all; goes on where a killed one ended
  rm RUN|SWEEP ...     remove runs, or with --checkpoints only these; shows what, asks first
  gc                   remove what nothing needs any more: datasets and inputs of no run, dead caches
  import FILE.yml      make an experiment of an Axolotl config: conf/experiment/NAME.yaml
  init [DIR]           a small start for a project of your own: conf/, sweeps/
  doctor               what a sweep will need of this machine and its accounts
  warm [status|stop]   the preloaded trainer that waits for the next command; stop ends it
  setup                build the environment that runs Axolotl
  completion SHELL     completion for bash, zsh or fish: eval "$(axosweep completion bash)"
  --json goes with every verb that prints rows.

Flags
  -m, --multirun       sweep
  --cfg job            print the composed config instead of running; --resolve, -p PACKAGE
  -cd DIR              config groups of your own in DIR, ahead of ./conf and of those shipped
  --force              launch in spite of what preflight holds back (a GPU that is too small)
  --yes                launch on Modal without asking above confirm_above dollars
  --info and the rest are Hydra's own

Examples
{examples}

Exit code: 0, 1 when a run failed, 2 for a mistake in the request."""


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
    known = [group for group in _GROUPS if group in vocabulary.groups]
    return known + [group for group in vocabulary.groups if group not in (*_GROUPS, BASE_OPTION)]


def _group(group: str, vocabulary: Vocabulary) -> str:
    default = vocabulary.chosen.get(group)
    options = ", ".join(f"{option}*" if option == default else option for option in vocabulary.groups[group])
    indent = " " * 16
    wrapped = textwrap.fill(options, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return f"  {group:<11} {_GROUPS.get(group, '')}\n{wrapped}"


def _node_names(vocabulary: Vocabulary) -> list[str]:
    return [name for node, below in vocabulary.nodes.items() for name in ([f"{node}.{one}" for one in below] or [node])]
