"""Shell completion: what can come next on a command line. Without Hydra, so that a TAB is answered at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runner.command.arguments import COMPLETION, FLAGS_OF_OURS, INFO, SHOWN_INFO, SWITCHES, VALUED
from runner.command.completion_verbs import SHELLS, VERBS, files, runs
from runner.config.fields import Field, Fields
from runner.config.overrides import ORIGIN
from runner.config.project import SWEEPS
from runner.config.vocabulary import AXOLOTL, BASE, Nodes, Vocabulary, read_vocabulary
from runner.errors import SweepError, did_you_mean

_SIGNS = "+~"


def complete(line: str, point: int) -> list[str]:
    """Whole words that may stand at the cursor, which is at `point` in `line`; sorted, all fitting."""
    before = line[:point]
    words = before.split()[1:]
    word = "" if not words or before[-1].isspace() else words.pop()
    return sorted({found for found in _candidates(words, word) if found.startswith(word) and found != word})


def _candidates(words: Sequence[str], word: str) -> Iterable[str]:
    verb = words[0] if words else ""
    if verb not in VERBS:
        return [*(VERBS if not words else ()), *_overrides(words, word)]
    after = VERBS[verb].candidates(words, word)
    if verb != "plan" or words[-1] in VERBS[verb].values:
        return after
    return [*_overrides(words, word), *after]


def _overrides(words: Sequence[str], word: str) -> Iterable[str]:
    previous = words[-1] if words else ""
    if previous in INFO:
        return [*SHOWN_INFO, *_names(word, read_vocabulary())]
    if previous in VALUED:
        return VALUED[previous]
    if previous in COMPLETION:
        return [f"install={shell}" for shell in SHELLS]
    if word.startswith("-"):
        return [*SWITCHES, *FLAGS_OF_OURS, *VALUED, *INFO, *COMPLETION]
    vocabulary = read_vocabulary()
    return _values(word, vocabulary) if "=" in word else _names(word, vocabulary)


def _names(word: str, vocabulary: Vocabulary) -> Iterable[str]:
    """Groups, config nodes and Axolotl's keys; of the last, only what a first letter asks for."""
    bare = word.lstrip(_SIGNS)
    sign = word[: len(word) - len(bare)]
    end = "" if sign == "~" else "="
    if bare.startswith(f"{AXOLOTL}."):
        names = _keys(bare.removeprefix(f"{AXOLOTL}."), vocabulary, end)
        return [f"{sign}{AXOLOTL}.{name}" for name in names]
    names = [f"{group}{end}" for group in vocabulary.groups if group not in (SWEEPS, BASE)]
    names += [] if end == "" else [f"{BASE}{end}"]
    names += _nodes(vocabulary.nodes, "", bare, end)
    names += _keys(bare, vocabulary, end) if bare else []
    return [*(f"{sign}{name}" for name in names), f"+{SWEEPS}="]


def _nodes(nodes: Nodes, before: str, word: str, end: str) -> list[str]:
    """One level: `gpu.` first, what is below it once that is typed."""
    names = []
    for name, below in nodes.items():
        full = f"{before}{name}"
        if not below:
            names.append(f"{full}{end}")
        elif word.startswith(f"{full}."):
            names += _nodes(below, f"{full}.", word, end)
        else:
            names.append(f"{full}.")
    return names


def _keys(word: str, vocabulary: Vocabulary, end: str) -> list[str]:
    *path, _ = word.split(".")
    field = _field(path, vocabulary)
    if path and field is None:
        return []
    known = vocabulary.fields.top if field is None else vocabulary.fields.below(field)
    inside_list = field is not None and field.numbered and not path[-1].isdecimal()
    before = ".".join([*path, ""]) + ("0." if inside_list else "")
    return [f"{before}{name}{suffix}" for name, field in known.items() for suffix in _suffixes(field, end)]


def _field(path: Sequence[str], vocabulary: Vocabulary) -> Field | None:
    """The key that a dotted path ends at; numbers only count through a list."""
    known: Fields = vocabulary.fields.everywhere
    field = None
    for name in path:
        if name.isdecimal():
            continue
        if (field := known.get(name)) is None:
            return None
        known = vocabulary.fields.below(field)
    return field


def _suffixes(field: Field, end: str) -> tuple[str, ...]:
    if field.models and field.numbered:
        return (".0.",)
    return (".",) if field.models else (end,)


def _values(word: str, vocabulary: Vocabulary) -> Iterable[str]:
    """Options of a group, also after a comma; the choices of an Axolotl key; files for data.path and base."""
    key, _, value = word.partition("=")
    name = key.lstrip(_SIGNS)
    if name == ORIGIN:
        return [f"{key}={run}" for run in runs(())]
    if name in ("data.path", BASE):
        return [f"{key}={path}" for path in files(value)]
    chosen, comma, _ = value.rpartition(",")
    known = _choices(name, vocabulary)
    return [f"{key}={chosen}{comma}{one}" for one in known if one not in chosen.split(",")]


def _choices(name: str, vocabulary: Vocabulary) -> Sequence[str]:
    if name in vocabulary.groups:
        return vocabulary.groups[name]
    if name == "action":
        return ("launch", "plan", "overrides")
    if name in ("json", "executor.warm"):
        return ("true", "false")
    field = _field(name.removeprefix(f"{AXOLOTL}.").split("."), vocabulary)
    return field.choices if field else ()


def script(shell: str) -> str:
    """What a shell has to evaluate once: eval "$(axosweep completion bash)"."""
    scripts: dict[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
    if shell not in scripts:
        raise SweepError(f"No completion for {shell}.{did_you_mean(shell, SHELLS)} There is: {', '.join(SHELLS)}.")
    return scripts[shell]


_BASH = """\
_axosweep() {
  local word="${COMP_LINE:0:COMP_POINT}" before="" candidate mark
  word="${word##*[[:space:]]}"
  # bash replaces only what follows the last of its word breaks, = and : among them
  for mark in = :; do
    if [[ $COMP_WORDBREAKS == *$mark* && $word == *$mark* ]]; then
      local tail="${word##*$mark}"
      (( ${#word} - ${#tail} > ${#before} )) && before="${word%"$tail"}"
    fi
  done
  COMPREPLY=()
  while IFS= read -r candidate; do
    [[ -n $candidate ]] && COMPREPLY+=("${candidate#"$before"}")
  done < <("${COMP_WORDS[0]}" __complete "$COMP_LINE" "$COMP_POINT" 2>/dev/null)
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]]; then
    compopt -o nospace 2>/dev/null
  fi
}
complete -F _axosweep axosweep"""

_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_axosweep() {
  local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
  local -a candidates unfinished finished
  candidates=("${(@f)$("${words[1]}" __complete "$line" "${#line}" 2>/dev/null)}")
  unfinished=(${(M)candidates:#*[=./]})
  finished=(${candidates:#*[=./]})
  compadd -S '' -a unfinished
  compadd -a finished
}
compdef _axosweep axosweep"""

_FISH = """\
function __axosweep_complete
  set -l line (commandline -cp)
  axosweep __complete "$line" (string length -- "$line") 2>/dev/null
end
complete -c axosweep -f -a '(__axosweep_complete)'"""
