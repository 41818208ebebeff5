"""The values of a model file that were meant for another model: `base_model=` without `model=` leaves them in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.config.known_names import MODEL
from runner.config.overrides import parts
from runner.config.project import current_project
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, EXPERIMENT, load_yaml


def keys_for_another_model(
    node: Mapping[str, Any], axolotl: Mapping[str, Any], overrides: Sequence[str], choices: Mapping[str, Any]
) -> tuple[str, ...]:
    """The keys of a composed config (`axolotl`, of `node`) that still have the values of the default's model file,
    although an override names another base model and nothing names a file. `overrides`: of the job, in the user's
    words; `choices`: the groups' options.
    """
    given = {parts(one).key.removeprefix(f"{AXOLOTL}.") for one in overrides}
    if "base_model" not in given or given & {MODEL, BASE_OPTION, EXPERIMENT} or choices.get(EXPERIMENT):
        return ()
    file = current_project().config_files().get(Path(MODEL, f"{choices.get(MODEL)}.yaml"))
    values = load_yaml(file.read_text(encoding="utf-8"), file).get(AXOLOTL) if file else None
    described = (node.get(MODEL) or {}).get("base_model")
    if not isinstance(values, dict) or axolotl.get("base_model") in (None, described):
        return ()
    return tuple(key for key, value in values.items() if key not in given and axolotl.get(key) == value)
