"""Keys that exclude each other: one that a user sets displaces our defaults for the others.

If a user sets two, both stay, and Axolotl's schema refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.config.overrides import parts
from runner.config.own_keys import own_keys
from runner.config.project import current_project
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, EXPERIMENT

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


def without_displaced(
    axolotl: Mapping[str, Any], overrides: Sequence[str], choices: Mapping[str, Any]
) -> Mapping[str, Any]:
    """A composed config without the defaults that the user's own keys exclude. `overrides`: of the job, in the user's
    words; `choices`: the groups' options.
    """
    rivals = [found for family in FAMILIES if len(found := _set_in(axolotl, family)) > 1]
    if not rivals:
        return axolotl
    others = {group: option for group, option in choices.items() if group != BASE_OPTION}
    given = own_keys(others, current_project()) | {parts(one).key.removeprefix(f"{AXOLOTL}.") for one in overrides}
    safe = given | _of_the_base(choices)
    displaced = {key for family in rivals if given & set(family) for key in family if key not in safe}
    return {key: value for key, value in axolotl.items() if key not in displaced}


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
