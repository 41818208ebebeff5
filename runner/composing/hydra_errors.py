"""Hydra's and omegaconf's exceptions -> the sentence that a user can act on."""

from __future__ import annotations

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigIndexError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from runner.composing.experiment import unresolved
from runner.config.overrides import in_a_shell, no_such_option, parts, spoken
from runner.config.vocabulary import AXOLOTL, EXPERIMENT, Vocabulary
from runner.errors import SweepError, did_you_mean

WITHOUT_HEADER = re.compile(r"In '([\w-]+)/([^']+)': Could not override '([^'@]+)@\1\.")
"""As Hydra says it of a file without a first line that says where its keys go. It looks for the group below the file's
own."""
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, SweepError)


def explained(error: Exception, vocabulary: Vocabulary) -> str:
    """One of COMPOSITION_ERRORS in our words."""
    match error:
        case SweepError():
            return str(error)
        case MissingConfigException() if error.missing_cfg_file is not None:
            return _missing(error.missing_cfg_file, error, vocabulary)
        case OverrideParseException():
            return unreadable(spoken(error.override, vocabulary))
        case InterpolationResolutionError():
            return unresolved(error)
        case _ if isinstance(error.__cause__, ConfigAttributeError) and _is_of_modal(error.__cause__):
            return f"{error.__cause__.full_key} exists only with executor=modal."
        case _ if found := WITHOUT_HEADER.match(_first_line(error)):
            group, option, other = found.groups()
            return (
                f"The file of {group}={option} does not begin with the line `# @package _global_`: without it, Hydra "
                f"looks for {other} below {group}."
            )
        case _ if isinstance(error.__cause__, ConfigIndexError):
            return f"{_first_line(error)}: {_no_such_entry(error.__cause__)}"
        case _:
            return _sentences(error, vocabulary)


def check_override(override: str) -> None:
    """SweepError with a form that works, when Hydra's grammar cannot read this override, or when Hydra would fail over
    the type of its value without naming it."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise SweepError(unreadable(override)) from error
    if not parsed.is_delete() and not parsed.is_sweep_override():
        _check_type(override, parsed.key_or_group, parsed.value())


def _check_type(override: str, key: str, value: object) -> None:
    if key in ("hydra.sweeper", "hydra.launcher") and not isinstance(value, dict):
        raise SweepError(f"{override!r}: {key} is a mapping of settings. To choose one: {key.replace('.', '/')}=NAME")
    names = value if isinstance(value, list) else [value]
    if key == "hydra.verbose" and not isinstance(value, bool) and not all(isinstance(one, str) for one in names):
        raise SweepError(f"{override!r}: hydra.verbose is true, false, the name of a logger, or a list of names.")


def unreadable(override: str) -> str:
    """Most often a value with characters that Hydra's grammar reserves: `<|...|>`, `[:100]`."""
    parsed = parts(override)
    if not parsed.value:
        return f"{override!r} cannot be read. Write key=value."
    if parsed.value.endswith(","):
        listed = f"{parsed.key}={parsed.value.rstrip(',')},..."
        return f"{override!r} cannot be read: nothing follows its comma. Write values without spaces: {listed}"
    return f"{override!r} cannot be read: its value has to be quoted. In a shell:\n  {in_a_shell(override)}"


def unread_key(key: str, vocabulary: Vocabulary) -> str:
    """The sentence for a key at the top of a composed config that has no meaning there."""
    if key in vocabulary.groups:
        header = "# @package _global_" if key == EXPERIMENT else f"# @package {AXOLOTL}"
        return (
            f"A file in conf/{key}/ has keys that nothing reads: its first line has to be `{header}`. Without it, "
            f"Hydra puts the keys under {key}."
        )
    if key in vocabulary.fields.everywhere:
        return f"A config file has {key} next to `{AXOLOTL}:`, where nothing reads it: put it below `{AXOLOTL}:`."
    return f"A config file has the key {key}, which nothing reads.{did_you_mean(key, vocabulary.read)}"


def _missing(name: str, error: MissingConfigException, vocabulary: Vocabulary) -> str:
    # An option may be a path, with slashes of its own; a group's name may have some, too.
    named = [one for one in vocabulary.groups if name.startswith(f"{one}/")]
    group = max(named, key=len, default=name.rpartition("/")[0])
    options = vocabulary.groups.get(group, tuple(error.options or ()))
    if not group or not options:
        return str(error).split("\n")[0]
    option = name.removeprefix(f"{group}/")
    own = f" To set Axolotl's own key: {AXOLOTL}.{group}={option}." if group in vocabulary.fields.everywhere else ""
    return no_such_option(group, option, options) + own


def _is_of_modal(error: ConfigAttributeError) -> bool:
    """Whether it is about a key of the node that only executor=modal fills. The key itself is a known one."""
    return str(error.full_key).startswith("executor.modal.")


def _no_such_entry(error: ConfigIndexError) -> str:
    """The sentence for an entry of a list that is not there: Hydra sets entries, and adds none."""
    key = re.sub(r"\[\d+\]$", "", str(error.full_key)).removeprefix(f"{AXOLOTL}.")
    return (
        f"{key} has no such entry; the first one is {key}.0. To add one, write the complete list "
        f"('{key}=[{{...}}, {{...}}]'), or put it into a config file (docs/your-own-configs.md)."
    )


def _first_line(error: BaseException) -> str:
    first, _, rest = str(error).strip().partition("\n")
    if first.endswith("raised while composing config:"):  # what was raised follows
        first = f"{first} {rest.strip().partition(chr(10))[0]}"
    return re.sub(r"\+\+axolotl\.", "", first)


def _sentences(error: BaseException, vocabulary: Vocabulary) -> str:
    """The first line of each exception in the chain, without repeating."""
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = _first_line(cause)
        if text and text not in lines:
            lines.append(text)
        cause = cause.__cause__
    return ": ".join(line.removesuffix(".") for line in lines) + "."
