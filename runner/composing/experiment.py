"""Hydra's composed config -> Experiment and Request: resolved, plain and checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modal_app.cloud.settings import Deployment, settings_problems
from modal_app.store.own_data import own_data_of
from modal_app.store.problem import Problem
from runner.composing.displaced_defaults import without_displaced
from runner.composing.other_model import keys_for_another_model
from runner.composing.search_node import search_choice
from runner.config.cpu_optimizers import NO_CPU_CODE, REPLACEMENT
from runner.config.known_names import describes, facts_in, facts_named, size_named
from runner.config.overrides import parts
from runner.config.project import current_project
from runner.config.stages import stages_of
from runner.config.sweep_name import within_limit
from runner.config.vocabulary import BASE_OPTION, EXPERIMENT
from runner.errors import SweepError, did_you_mean
from runner.keys.inputs import require_possible_paths
from runner.preflight.auto import with_gpu
from runner.preflight.data import datasets_of, limit_findings, split_of
from runner.preflight.findings import shown
from runner.preflight.nodes import no_text_findings
from runner.request import Action, Request, SearchChoice
from runner.types import (
    DataChoice,
    DatasetSize,
    ExecutorChoice,
    Experiment,
    Gpu,
    ModelFacts,
    PriceTable,
    TrackingChoice,
)

REQUEST_KEYS = ("action", "budget", "confirm_above", "confirmed", "force", "json", "name", "notify", "search", "store")
"""What is requested for a command: the same for all its runs, so never swept. `search` is a node."""
HALVE = "halve"
"""What on_oom takes, besides null."""
EXECUTORS = ("local", "modal")
NOT_DEPLOYED = "executor.modal says what executor=modal deploys. Leave it out, or choose executor=modal."


def is_of_request(key: str) -> bool:
    """Whether a config key describes the command, not its runs."""
    return key.partition(".")[0] in REQUEST_KEYS


def experiment_from(
    config: DictConfig, overrides: Sequence[str], choices: Mapping[str, Any] = MappingProxyType({})
) -> Experiment:
    """`experiment_of` a config as Hydra gives it to a task. Raises SweepError also for what cannot be resolved."""
    return experiment_of(_plain(config), overrides, choices)


def experiment_of(
    node: Mapping[str, Any], overrides: Sequence[str], choices: Mapping[str, Any] = MappingProxyType({})
) -> Experiment:
    """One composed job, resolved and plain, as a value. `overrides` is what was requested for it, in the user's words;
    `choices`: the groups' options.

    Raises SweepError for a config that is not an experiment. Problems of the run itself are left to preflight.
    """
    axolotl = without_displaced(_mapping(node, "axolotl"), overrides, choices)
    optimizer = axolotl.get("optimizer")
    replaced = optimizer if choices.get("gpu") == "cpu" and str(optimizer) in NO_CPU_CODE else None
    axolotl = {**axolotl, "optimizer": REPLACEMENT} if replaced else axolotl
    gpu = _gpu(_fields(node, "gpu", Gpu))
    data = _data(DataChoice(**_fields(node, "data", DataChoice)), axolotl, overrides)
    tracking = TrackingChoice(**_fields(node, "tracking", TrackingChoice))
    executor = _executor(_fields(node, "executor", ExecutorChoice, without=("problems",)))
    if wrong := list(no_text_findings(tracking)):
        raise SweepError("\n".join(one.text for one in wrong))
    experiment = Experiment(
        overrides=tuple(one for one in overrides if not is_of_request(parts(one).key)),
        axolotl=_limited(axolotl, data.limit),
        gpu=gpu,
        data=data,
        tracking=_as_text(tracking),
        executor=executor,
        model=_model_facts(node, axolotl),
        prices=_prices(node, overrides),
        from_text=_from_text(node.get("from")),
        sizes=_sizes(node, axolotl),
        stages=stages_of(node.get("stages")),
        heals=_heals(node.get("on_oom")),
        replaced_optimizer=replaced,
        for_another_model=keys_for_another_model(node, axolotl, overrides, choices),
    )
    require_possible_paths(experiment.axolotl)
    return with_gpu(experiment)


def _gpu(values: Mapping[str, Any]) -> Gpu:
    """Raises SweepError for a list where a name is expected, and the other way around."""
    kind, fallback = values["type"], values.get("fallback") or []
    if not isinstance(kind, str):
        raise SweepError(
            f"gpu.type={shown(kind)}: the name of one GPU is expected. For others that a run may use instead: "
            "gpu.fallback=[h100]; for a run on each: -m gpu=h100,a100_80gb."
        )
    if not isinstance(fallback, list):
        raise SweepError(f"gpu.fallback={shown(fallback)}: a list is expected. Write gpu.fallback=[{shown(fallback)}].")
    return Gpu(**{**values, "fallback": tuple(map(str, fallback))})


def _heals(value: Any) -> bool:
    """Raises SweepError for another value than null and halve."""
    if value is None:
        return False
    if value == HALVE:
        return True
    raise SweepError(
        f"on_oom={value}: expected null, or {HALVE} to try a run that is out of memory again with half its micro batch."
    )


def _from_text(value: Any) -> str | None:
    """RUN[@STEP]. Raises SweepError for a key that a file has as a number."""
    if value is None or isinstance(value, str):
        return _no_blank("from", value)
    raise SweepError(f"from is {value!r}: a run's key is text. Put it in quotes where it is written.")


def _no_blank(key: str, value: Any) -> str | None:
    """Raises SweepError for an empty name: a shell variable that is not set means something else than `null`."""
    if value is None or str(value).strip():
        return None if value is None else str(value)
    raise SweepError(f"{key}= is empty: a name is expected, or {key}=null. Is a shell variable not set?")


def _truth(key: str, value: Any) -> bool:
    """Raises SweepError for anything but true and false: Hydra reads `no` as text, which Python takes for true."""
    if isinstance(value, bool):
        return value
    raise SweepError(f"{key}={shown(value)}: expected true or false.")


def _model_facts(node: Mapping[str, Any], axolotl: Mapping[str, Any]) -> ModelFacts | None:
    """The facts in the chosen model file if it describes `base_model`, or otherwise in any file that does."""
    base_model = str(axolotl.get("base_model") or "")
    if node.get("model") is not None:
        try:
            facts = facts_in(_fields(node, "model", ModelFacts))
        except ValueError as error:
            raise SweepError(f"{error}.") from error
        if describes(facts, base_model):
            return facts
    return facts_named(base_model)


def _data(data: DataChoice, axolotl: Mapping[str, Any], overrides: Sequence[str]) -> DataChoice:
    """Without the default seed of preparing a dataset, for a run that has none prepared."""
    if own_data_of(axolotl) is None or any(parts(one).key == "data.seed" for one in overrides):
        return data
    return replace(data, seed=None)


def _executor(values: Mapping[str, Any]) -> ExecutorChoice:
    """A `modal` node that cannot be deployed is replaced by its problems, which preflight reports with all others."""
    if values["type"] not in EXECUTORS:
        raise SweepError(
            f"executor.type={shown(values['type'])}: there is no such executor. There are: {', '.join(EXECUTORS)}. "
            "Choose one with executor=NAME."
        )
    if values["type"] != "modal":
        problems = [Problem("executor.modal", "", NOT_DEPLOYED)] if values.get("modal") else []
        return ExecutorChoice(**{**values, "modal": None, "problems": tuple(problems)})
    node = _mapping({"executor.modal": values.get("modal") or {}}, "executor.modal")
    problems = settings_problems(node)
    deployment = None if problems else Deployment.from_node(node)
    return ExecutorChoice(**{**values, "modal": deployment, "problems": tuple(problems)})


def _prices(node: Mapping[str, Any], overrides: Sequence[str]) -> PriceTable | None:
    """The price table, with the names of prices that overrides set; None if the config has none."""
    if node.get("prices") is None:
        return None
    values = _fields(node, "prices", PriceTable)
    keys = [parts(one).key for one in overrides]
    given = [key.removeprefix("prices.") for key in keys if key.startswith("prices.")]
    return PriceTable(**{**values, "gpu": _mapping(values, "gpu"), "given": tuple(given)})


def _sizes(node: Mapping[str, Any], axolotl: Mapping[str, Any]) -> Mapping[str, DatasetSize]:
    """The sizes of datasets, by path: from the chosen files, and of other datasets from any file that declares them."""
    sizes = _mapping(node, "sizes") if node.get("sizes") else {}
    chosen = {path: DatasetSize(**_fields(sizes, path, DatasetSize)) for path in sizes}
    others = {str(one.get("path")): one for one in datasets_of(axolotl) if str(one.get("path")) not in chosen}
    found = {path: size for path, one in others.items() if (size := size_named(one)) is not None}
    return chosen | found


def _as_text(tracking: TrackingChoice) -> TrackingChoice:
    """Hydra reads a project named 2026 as a number; W&B and the process environment take text."""
    entity = None if tracking.entity is None else str(tracking.entity)
    return replace(tracking, project=str(tracking.project), entity=entity, tags=tuple(map(str, tracking.tags or ())))


def request_from(config: DictConfig, choices: Mapping[str, Any], keys: Iterable[str]) -> Request:
    """What was requested for the command. Its name comes from its `choices` of config groups, or from the `keys` that
    its runs differ in (a single run: those that were requested).
    """
    try:
        action = Action(config.action)
    except ValueError as error:
        raise SweepError(f"action={config.action}: expected one of {', '.join(Action)}.") from error
    return Request(
        action=action,
        name=_name(choices, keys) if (name := _no_blank("name", config.name)) is None else name,
        store=_no_blank("store", config.store),
        json=_truth("json", config.json),
        force=_truth("force", config.force),
        budget=config.budget,
        confirm_above=config.confirm_above,
        confirmed=_truth("confirmed", config.confirmed),
        notify=_no_blank("notify", config.notify),
        search=search_of(config),
    )


def search_of(config: DictConfig) -> SearchChoice:
    """The `search` node. Raises SweepError for what means nothing."""
    node = OmegaConf.to_container(config.search, resolve=True)
    return search_choice(_fields({"search": node}, "search", SearchChoice))


def _name(choices: Mapping[str, Any], keys: Iterable[str]) -> str:
    named = choices.get("sweeps") or choices.get("experiment")
    bases = current_project().bases
    source = bases.get(named) if isinstance(named, str) else None
    if source is not None and source.key == BASE_OPTION:
        return Path(source.value).stem
    if source is None and isinstance(named, str) and "," not in named:
        return named
    named_keys = [key for key in keys if key.partition(".")[0] not in (*REQUEST_KEYS, "executor", "prices", "tracking")]
    chosen = {EXPERIMENT: next(iter(bases.values())).key} if bases else {}
    words = [chosen.get(key, key.removeprefix("axolotl.").replace(".", "_")) for key in named_keys]
    return within_limit("-".join(dict.fromkeys(words))).strip("-") or "default"


def _plain(config: DictConfig) -> dict[str, Any]:
    """Everything but Hydra's own node, interpolations resolved."""
    try:
        job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        plain = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise SweepError(unresolved(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _mapping(node: Mapping[str, Any], name: str) -> dict[str, Any]:
    values = node.get(name)
    if not isinstance(values, dict):
        raise SweepError(f"{name} is {values!r}; a mapping of keys is expected. Set one of them: {name}.KEY=value.")
    return {str(key): value for key, value in values.items()}


def _fields(node: Mapping[str, Any], name: str, kind: type[Any], *, without: Collection[str] = ()) -> dict[str, Any]:
    """A config node with the keys of the dataclass that it becomes, and no others. `without`: fields that
    no config sets.
    """
    values, known = _mapping(node, name), [field.name for field in fields(kind) if field.name not in without]
    missing = [f"{name}.{one.name}" for one in fields(kind) if one.default is MISSING and one.name not in values]
    if missing and (stray := [key for key in values if key not in known]):  # Hydra puts a file under its group's name
        raise SweepError(
            f"The config's part {name} has keys that do not belong there: {', '.join(stray)}. The first line of the "
            f"file for {name}= says where its keys go: `# @package axolotl` for keys of Axolotl, `# @package _global_` "
            "if they stand under axolotl: in the file."
        )
    if missing:
        raise SweepError(
            f"The config has no {', '.join(missing)}, which it needs: either the option of {name}= that sets it has "
            "left it out, or an override has removed it."
        )
    for key in values:
        if key not in known:
            raise SweepError(f"{name} has no {key}.{did_you_mean(key, known)} It has: {', '.join(known)}.")
    return values


def unresolved(error: OmegaConfBaseException) -> str:
    """The sentence for a value that is missing, or an interpolation that cannot be followed."""
    key = error.full_key or "A value"
    reason = str(error.msg or error).splitlines()[0]
    if "???" in reason or "Missing mandatory value" in reason:
        return f"{key} has no value yet: give it one, {key.removeprefix('axolotl.')}=..."
    if "Environment variable" in reason:  # as omegaconf's resolver oc.env says it
        unset = reason.partition(": ")[2].strip('"') or reason
        return f"{key} cannot be resolved: {unset}. Set the variable, or write a default: ${{oc.env:NAME,default}}."
    way_out = ". Set that key, or leave out what reads it." if reason.startswith("Interpolation key") else ""
    return f"{key} cannot be resolved: {reason}{way_out}"


def _limited(axolotl: Mapping[str, Any], limit: int | None) -> Mapping[str, Any]:
    """Each dataset limited to its first rows by its split, since Axolotl silently ignores num_samples.

    A dataset that cannot be limited is left to preflight.
    """
    if limit is None or any(limit_findings(axolotl, limit)):
        return axolotl
    limited = [{**dataset, "split": f"{split_of(dataset)}[:{limit}]"} for dataset in datasets_of(axolotl)]
    return {**axolotl, "datasets": limited}
