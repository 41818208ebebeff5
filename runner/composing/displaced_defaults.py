"""Keys that exclude each other: one that a user sets displaces our defaults for the others.

If a user sets two, both stay, and Axolotl's schema refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.config.overrides import parts
from runner.config.own_keys import own_keys
from runner.config.project import current_project
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, EXPERIMENT, OLD_ATTENTION

FAMILIES = (
    ("save_steps", "saves_per_epoch", "save_strategy"),
    ("eval_steps", "evals_per_epoch", "eval_strategy"),
    ("warmup_steps", "warmup_ratio"),
    ("batch_size", "gradient_accumulation_steps"),
)
"""Axolotl's schema accepts only one key of each (check_saves, check_evals, check_warmup, check_gas_bsz), with one
exception: it accepts save_strategy next to saves_per_epoch, and then ignores it without a message."""
AGREES = "steps"
"""The strategy that goes together with an interval."""
ATTENTION = "attn_implementation"
WITHOUT_FLASH_ATTENTION = ("cpu", "t4")
"""The options of `gpu` that set attn_implementation."""


def without_displaced(
    axolotl: Mapping[str, Any], overrides: Sequence[str], choices: Mapping[str, Any]
) -> Mapping[str, Any]:
    """A composed config without the defaults that the user's own keys exclude. `overrides`: of the job, in the user's
    words; `choices`: the groups' options.
    """
    axolotl = _with_one_attention(axolotl, overrides, choices)
    rivals = [found for family in FAMILIES if len(found := _set_in(axolotl, family)) > 1]
    if not rivals:
        return axolotl
    given = _of_own_files(choices) | {parts(one).key.removeprefix(f"{AXOLOTL}.") for one in overrides}
    safe = given | _of_the_base(choices)
    displaced = {key for family in rivals if given & set(family) for key in family if key not in safe}
    return {key: value for key, value in axolotl.items() if key not in displaced}


def _with_one_attention(
    axolotl: Mapping[str, Any], overrides: Sequence[str], choices: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Without attn_implementation or the old flags, if one is set with more authority than the other: by the command
    line, gpu=cpu or gpu=t4, the user's own files, another group, and last a base.
    """
    keys = [key for key in (ATTENTION, *OLD_ATTENTION) if axolotl.get(key)]
    if len(keys) < 2 or ATTENTION not in keys:
        return axolotl
    line = {parts(one).key.removeprefix(f"{AXOLOTL}.") for one in overrides}
    own, base = _of_own_files(choices), _of_the_base(choices)

    def authority(key: str) -> int:
        by_gpu = key == ATTENTION and choices.get("gpu") in WITHOUT_FLASH_ATTENTION
        return 4 if key in line else 3 if by_gpu else 2 if key in own else 0 if key in base else 1

    most = max(map(authority, keys))
    displaced = [key for key in keys if authority(key) < most]
    return {key: value for key, value in axolotl.items() if key not in displaced}


def _of_own_files(choices: Mapping[str, Any]) -> frozenset[str]:
    return own_keys({group: one for group, one in choices.items() if group != BASE_OPTION}, current_project())


def _set_in(axolotl: Mapping[str, Any], family: Sequence[str]) -> list[str]:
    return [key for key in family if axolotl.get(key) and axolotl[key] != AGREES]


def _of_the_base(choices: Mapping[str, Any]) -> frozenset[str]:
    """The keys of base=FILE, of an imported one, or of the run in from=RUN: the user's, but they displace no group that
    is named next to it.
    """
    source = current_project().bases.get(str(choices.get(EXPERIMENT)))
    if source is not None:
        return source.axolotl_keys
    return own_keys({BASE_OPTION: choices.get(BASE_OPTION)}, current_project())
