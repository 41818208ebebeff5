"""The text of --help, with the verbs, groups and options that exist. Does not import Hydra."""

from __future__ import annotations

import argparse
import importlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache, partial

from runner.command import VERBS
from runner.config.project import SWEEPS
from runner.config.vocabulary import BASE_OPTION, Vocabulary, read_vocabulary
from runner.console.parser import Names, VerbParser

EXAMPLES = (
    ("axosweep lora=r16 max_steps=50", "one run"),
    ("axosweep -m lora=r8,r16 learning_rate=1e-3,3e-3", "every combination: four runs"),
    ("axosweep -m +sweeps=tiny_grid", "a sweep saved as a file in sweeps/"),
)
"""Command lines and what they do; a test plans each."""

GROUPS = {
    "model": "the model to fine-tune",
    "dataset": "the rows that it learns from",
    "training": "the recipe",
    "lora": "the adapter",
    "alpha": "how lora_alpha depends on the rank; not set by default",
    "deepspeed": "sharding over GPUs",
    "fsdp": "sharding by PyTorch instead of DeepSpeed",
    "gpu": "the GPU that a run trains on; gpu.count=N for several",
    "executor": "where the runs go",
    "search": "which points of the axes are run, and which runs are stopped early",
    "prices": "what rented machines cost",
    "tracking": "Weights & Biases",
    "experiment": "a named combination of all of these",
    SWEEPS: "saved sweeps; +sweeps=NAME, with -m",
}
"""What each shipped group is, in the order in which they are listed."""

_TEXT = """\
axosweep: ask Axolotl a fine-tuning question in one line, and get a table of runs that you can compare.

  axosweep [-m] [GROUP=OPTION ...] [KEY=VALUE ...]

GROUP=OPTION chooses a config file. KEY=VALUE sets one value: any key of Axolotl {version} by its own name
(learning_rate, datasets.0.path), or a key of axosweep:
{nodes}
base=FILE.yml starts from your own Axolotl config; the groups that you name are applied to it.
from=RUN@STEP continues from another run's checkpoint.
With -m, values separated by commas are swept: each combination is a run. This is a Hydra application, so
Hydra's grammar (range, choice, glob, ~KEY) works. search=random search.runs=20 draws 20 points at random,
also from intervals: learning_rate=tag(log,interval(1e-5,1e-3)), lora_r=int(interval(4,64)).

Groups (* is the default)
{groups}

Verbs (`axosweep VERB --help` lists the arguments of each)
{verbs}
{with_json}

Flags
  -m, --multirun       sweep
  --zip A,B            axes that move together: the first values of all, then the second ones; may be repeated
  --exclude 'A=1 B=2'  a point that is left out; may be repeated
  --cfg job            print the composed config instead of running; --resolve, -p PACKAGE
  -cd DIR              take config groups from DIR first, then from ./conf and the shipped ones
  --force              launch even if preflight expects a run to fail (for example, if it needs too much memory)
  --note TEXT          a note about the sweep, shown by status, in the report, and in the notes of its W&B runs
  --notify-command CMD run CMD on this machine for each notice (docs/notify.md), with the notice on its stdin
  --yes                do not ask before a launch on Modal that may cost more than confirm_above dollars
  --info and all other flags are Hydra's own

Examples
{examples}

Exit code: 0, 1 when a run failed, 2 if the request was refused or could not be answered, 3 if no setting is shown to
be the best (settle, best --decided), 130 after Ctrl-C."""


def text() -> str:
    vocabulary = read_vocabulary()
    width = max(len(line) for line, _ in EXAMPLES) + 2
    return _TEXT.format(
        version=vocabulary.fields.version,
        nodes="\n".join(_nodes(vocabulary)),
        verbs="\n".join(map(_verb, _parsers())),
        with_json=_filled("  with --json:          ", ", ".join(_taking_json())),
        groups="\n".join(_group(group, vocabulary) for group in _in_order(vocabulary)),
        examples="\n".join(f"  {line:{width}}{meaning}" for line, meaning in EXAMPLES),
    )


def _verb(verb: VerbParser) -> str:
    """Its words, and how its own help begins: the first sentence, or the part of it before its colon."""
    words = [_word(verb, one) for one in verb.arguments if not one.option_strings]
    about = re.split(r"[.:](?:\s|$)", " ".join((verb.description or "").split()), maxsplit=1)[0]
    return _filled(f"{'  ' + ' '.join([verb.prog.removeprefix('axosweep '), *words]):<23}", about)


def _word(verb: VerbParser, argument: argparse.Action) -> str:
    known = argument.choices or (verb.names.get(argument.dest, ()) if argument.metavar is None else ())
    name = str(
        argument.metavar or "|".join(one.upper() if isinstance(one, Names) else one for one in known) or argument.dest
    )
    many = f"{name} ..." if argument.nargs in ("*", "+") else name
    return f"[{many}]" if argument.nargs in ("?", "*") else many


def _filled(beginning: str, text: str) -> str:
    """Texts begin in the same column, below a beginning that is too long for that."""
    if len(beginning) > 23:
        return f"{beginning.rstrip()}\n{_filled(' ' * 23, text)}"
    return textwrap.fill(text, 110, initial_indent=beginning, subsequent_indent=" " * 23, break_on_hyphens=False)


def _taking_json() -> Iterator[str]:
    for verb in _parsers():
        if any("--json" in one.option_strings for one in verb.arguments):
            yield verb.prog.removeprefix("axosweep ")


@cache
def _parsers() -> Sequence[VerbParser]:
    modules = [module for name, module in VERBS.items() if not name.startswith("_")]
    return [importlib.import_module(f"runner.command.{module}").parser() for module in modules]


def _in_order(vocabulary: Vocabulary) -> list[str]:
    known = [group for group in GROUPS if group in vocabulary.groups]
    return known + [group for group in vocabulary.groups if group not in (*GROUPS, BASE_OPTION)]


def _group(group: str, vocabulary: Vocabulary) -> str:
    default = vocabulary.chosen.get(group)
    options = ", ".join(f"{option}*" if option == default else option for option in vocabulary.groups[group])
    indent = " " * 16
    wrapped = textwrap.fill(options, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return f"  {group:<11} {GROUPS.get(group, '')}\n{wrapped}"


def _nodes(vocabulary: Vocabulary) -> list[str]:
    """Those of two names at most, then what is below each of them."""
    filled = partial(textwrap.fill, width=100, subsequent_indent="  ", break_on_hyphens=False)
    below = {
        f"{node}.{name}": tuple(further)
        for node, names in vocabulary.nodes.items()
        for name, further in names.items()
        if further
    }
    names = filled(", ".join(_node_names(vocabulary)), initial_indent="  ")
    return [names, *(filled(", ".join(keys), initial_indent=f"  below {node}: ") for node, keys in below.items())]


def _node_names(vocabulary: Vocabulary) -> list[str]:
    return [name for node, below in vocabulary.nodes.items() for name in ([f"{node}.{one}" for one in below] or [node])]
