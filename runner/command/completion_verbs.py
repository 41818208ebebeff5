"""What can follow each verb on a command line: its flags, and the names that its other words may be. For completion."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modal_app.store.layout import Store

SHELLS = ("bash", "zsh", "fish")

_Words = Callable[[Sequence[str], str], Iterable[str]]
"""The words before the cursor, the verb first, and the one at it -> what that may become."""


def files(beginning: str) -> list[str]:
    return [f"{path}/" if os.path.isdir(path) else path for path in glob.glob(glob.escape(beginning) + "*")]


def sweeps(words: Sequence[str], _: str = "") -> Sequence[str]:
    from runner.store.ledger import sweep_ids

    return sweep_ids(_store(words))


def runs(words: Sequence[str], _: str = "") -> Sequence[str]:
    """Sweeps, and the runs that there is anything of."""
    return [*sweeps(words), *(path.parent.name for path in _store(words).runs.glob("*/run.json"))]


def _paths(_: Sequence[str], word: str) -> list[str]:
    return files(word)


def _folders(_: Sequence[str], word: str) -> list[str]:
    return [path for path in files(word) if path.endswith("/")]


def _nothing(_: Sequence[str], __: str) -> Sequence[str]:
    return ()


def _data_keys(words: Sequence[str], _: str) -> Sequence[str]:
    return [manifest.parent.name for manifest in _store(words).prepared.glob("*/manifest.json")]


def _first(names: _Words) -> _Words:
    """The one word that a verb is about, which comes first."""
    return lambda words, word: names(words, word) if len(words) == 1 else ()


def _either(*choices: str) -> _Words:
    return lambda words, _: choices if len(words) == 1 else ()


def _served(words: Sequence[str], word: str) -> Sequence[str]:
    return [*runs(words), *_either("list", "stop")(words, word)]


def _pulled(words: Sequence[str], word: str) -> Sequence[str]:
    """A run, what of it, where to."""
    from runner.files.choice import WHATS

    if len(words) == 1:
        return runs(words)
    return [*(WHATS if len(words) == 2 else ()), *files(word)]


def _store(words: Sequence[str]) -> Store:
    from runner.store.stores import open_store

    asked = [after for flag, after in itertools.pairwise(words) if flag == "--store"]
    return open_store(asked[-1] if asked else None)


@dataclass(frozen=True, slots=True)
class Follows:
    """What can follow a verb."""

    flags: tuple[str, ...]
    names: _Words = _nothing
    values: Mapping[str, _Words] = field(default_factory=dict)
    """Of flags that take one."""

    def candidates(self, words: Sequence[str], word: str) -> list[str]:
        if words[-1] in self.values:
            return list(self.values[words[-1]](words, word))
        flags = self.flags if word[:1] == "-" or len(words) == 1 else ()
        return [*(() if word[:1] == "-" else self.names(words, word)), *flags]


def _follows(flags: str, names: _Words = _nothing, **values: _Words) -> Follows:
    """The flags without their dashes, and `prompts=` for what follows --prompts."""
    by_flag = {f"--{name.strip('_').replace('_', '-')}": words for name, words in values.items()}
    return Follows(tuple(f"--{flag}" for flag in flags.split()), names, {"--store": _folders, **by_flag})


_COMPARED = "all metric maximize where store json"
_REMOVED = "older-than modal dry-run yes store json"

VERBS: Mapping[str, Follows] = {
    "plan": _follows("overrides json diff write", diff=sweeps, write=_folders),
    "status": _follows("refresh store json", _first(sweeps)),
    "compare": _follows(
        f"{_COMPARED} over sort reverse from project entity csv md", runs, from_=lambda *_: ("store", "wandb")
    ),
    "best": _follows(f"{_COMPARED} write", sweeps, write=_paths),
    "sync": _follows("store json", _first(sweeps)),
    "wandb-view": _follows("dry-run store json", _first(sweeps)),
    "report": _follows("out open store", _first(sweeps), out=_paths),
    "watch": _follows("port store", _first(sweeps)),
    "data": _follows("store json", _first(_data_keys)),
    "attach": _follows("runs-volume store json", _first(sweeps)),
    "logs": _follows("follow store", _first(runs)),
    "cancel": _follows("store", _first(runs)),
    "merge": _follows("lora-model-dir store json", _first(runs), lora_model_dir=_paths),
    "eval": _follows(
        "best base tasks include-path limit num-fewshot no-chat-template batch-size store json",
        _first(runs),
        include_path=_paths,
    ),
    "infer": _follows(
        "prompt prompts system greedy temperature seed max-tokens merged base no-base store json",
        _first(runs),
        prompts=_paths,
    ),
    "serve": _follows("merged token port host gpu idle-minutes runs-volume store json", _served),
    "ls": _follows("store json", _first(runs)),
    "pull": _follows("force store json", _pulled),
    "rm": _follows(f"checkpoints {_REMOVED}", runs),
    "gc": _follows(_REMOVED),
    "push": _follows("merged public revision message license force dry-run store json", _first(runs)),
    "import": _follows("name force config-dir", _paths, config_dir=_folders),
    "init": _follows("", _folders),
    "doctor": _follows("secret store json"),
    "warm": _follows("all yes store json", _either("status", "stop")),
    "setup": _follows(""),
    "completion": _follows("", _either(*SHELLS)),
}
"""Of `plan` the flags alone: it takes overrides, too."""
