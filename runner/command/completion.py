"""`axosweep completion`: a script for the shell, which calls `axosweep __complete` at a TAB."""

from __future__ import annotations

from collections.abc import Sequence

from runner.console.parser import VerbParser
from runner.errors import SweepError, did_you_mean

SHELLS = ("bash", "zsh", "fish")


def parser() -> VerbParser:
    verb = VerbParser("completion", description='Print shell completion: eval "$(axosweep completion bash)"')
    verb.add("shell", choices=SHELLS)
    return verb


def main(words: Sequence[str]) -> int:
    print(script(parser().read(words).shell))
    return 0


def script(shell: str) -> str:
    """The script that a shell has to evaluate once: eval "$(axosweep completion bash)"."""
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
