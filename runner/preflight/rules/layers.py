"""Rules about names of layers: those that an architecture does not have, as LoRA, freezing and LISA look them up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from runner.config.architectures import Architecture, leaf
from runner.preflight.findings import Finding, error, warning
from runner.preflight.rules.module_names import (
    HEADS,
    as_axolotl_compiles,
    ends_in,
    example,
    layers_to_try,
    leaves,
    linear_inside,
    matches_any,
    names_a_module,
    trained_names,
)
from runner.preflight.rules.run_facts import RunFacts, is_on

PEFT_TARGETS = "https://huggingface.co/docs/peft/package_reference/lora#peft.LoraConfig.target_modules"
PEFT_LAYERS = "https://huggingface.co/docs/peft/package_reference/lora#peft.LoraConfig.layers_to_transform"
PEFT_PARAMETERS = "https://huggingface.co/docs/peft/package_reference/lora#peft.LoraConfig.target_parameters"
PEFT_SAVED = "https://huggingface.co/docs/peft/package_reference/lora#peft.LoraConfig.modules_to_save"
FREEZE = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/freeze.py"
ROUTER = "https://github.com/huggingface/transformers/blob/main/src/transformers/models/llama4/modeling_llama4.py"
LISA = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/callbacks/lisa.py"

USUAL = frozenset("q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split())
"""Names that most architectures have, so that lists for several of them have all seven."""
TWO_RESULTS = ("llama4", "llama4_text")
"""Types of models whose router is a linear layer with two results."""
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")


def lora_modules_that_the_model_lacks(run: RunFacts) -> Iterator[Finding]:
    """lora_target_modules name modules of another architecture: PEFT refuses to build an adapter without any."""
    targets = run.axolotl.get("lora_target_modules")
    if not targets or not run.adapts or run.axolotl.get("lora_model_dir"):
        return
    if (found := _architecture(run)) is None:
        return
    if isinstance(targets, list):
        yield from _listed_targets(run, [str(one) for one in targets], found)
    elif isinstance(targets, str) and not matches_any(targets, found, _layers(run)) and not _others(run):
        yield error(
            "lora_target_modules",
            targets,
            f"no module of {found.model_type} has a name that this matches from its beginning to its end",
            f"Write a list such as [{', '.join(leaves(found)[:4])}], or lora_target_linear=true.",
            PEFT_TARGETS,
        )


def _listed_targets(run: RunFacts, targets: Sequence[str], found: Architecture) -> Iterator[Finding]:
    for one in targets:
        if inside := linear_inside(one, found):
            yield error(
                "lora_target_modules",
                targets,
                f"{one} is not a matrix but a part of {found.model_type} that contains matrices, and PEFT refuses it",
                f"Name what is inside: [{', '.join(inside)}].",
                PEFT_TARGETS,
            )
            return
    lacking = [one for one in targets if not names_a_module(one, found)]
    if not lacking:
        return
    names = ", ".join(leaves(found))
    if len(lacking) == len(targets) and not _others(run):
        yield error(
            "lora_target_modules",
            targets,
            f"a model of type {found.model_type} has none of these modules, and PEFT fails when it builds the adapter",
            f"Choose from {names}, or set lora_target_linear=true.",
            PEFT_TARGETS,
        )
        return
    others = [name for name in leaves(found) if name not in targets]
    if not others and set(lacking) <= USUAL:
        return  # a list for several architectures, which covers all that this one has
    meant = [match for one in lacking for match in get_close_matches(leaf(one), others, 1, 0.7)]
    yield warning(
        "lora_target_modules",
        targets,
        f"a model of type {found.model_type} has no {' and no '.join(lacking)}, so no adapter is trained there",
        _write_own_modules(run)
        or (f"Did you mean {meant[0]}? " if meant else "")
        + (f"It also has {', '.join(others)}." if others else f"Remove {', '.join(lacking)}."),
        PEFT_TARGETS,
    )


def _write_own_modules(run: RunFacts) -> str:
    """What to write, if the model's file in conf/model names the modules; otherwise empty."""
    listed = run.model.adapter_modules if run.model is not None else ()
    linear = "lora_target_linear=false " if run.axolotl.get("lora_target_linear") else ""
    return f"Write {linear}lora_target_modules=[{','.join(listed)}]." if listed else ""


def adapter_on_a_router(run: RunFacts) -> Iterator[Finding]:
    """Llama 4's router is a linear layer with two results: an adapter on it ends the first step with an error."""
    targets, found = run.axolotl.get("lora_target_modules"), _architecture(run)
    if not run.adapts or found is None or found.model_type not in TWO_RESULTS:
        return
    named = isinstance(targets, list) and any(leaf(str(one)) == "router" for one in targets)
    linear = is_on(run.axolotl.get("lora_target_linear"))
    if linear or named or targets == "all-linear":
        key = "lora_target_linear" if linear else "lora_target_modules"
        yield error(
            key,
            run.axolotl[key],
            f"it puts an adapter on the router of {run.axolotl['base_model']}, which has two results, and PEFT ends "
            "the first step with an AttributeError",
            _write_own_modules(run)
            or "Write lora_target_linear=false lora_target_modules=[q_proj,k_proj,v_proj,o_proj].",
            ROUTER,
        )


def lora_layers_beyond_the_model(run: RunFacts) -> Iterator[Finding]:
    """peft_layers_to_transform counts from 0: a model of 32 layers has 0 to 31."""
    layers = run.axolotl.get("peft_layers_to_transform")
    if not isinstance(layers, list) or not layers or not run.adapts or run.model is None:
        return
    beyond = [one for one in layers if isinstance(one, int) and not 0 <= one < run.model.layers]
    if not beyond:
        return
    key, last = "peft_layers_to_transform", run.model.layers - 1
    has = f"the model has {run.model.layers} layers, 0 to {last}"
    if len(beyond) == len(layers) and not run.axolotl.get("lora_target_parameters"):
        why = f"{has}, so PEFT finds no module and fails when it builds the adapter"
        yield error(key, layers, why, f"Choose from 0 to {last}.", PEFT_LAYERS)
    else:
        why = f"{has}, so nothing is trained for {', '.join(map(str, beyond))}"
        yield warning(key, layers, why, f"Choose from 0 to {last}.", PEFT_LAYERS)


def lora_layers_under_another_name(run: RunFacts) -> Iterator[Finding]:
    """peft_layers_pattern is the name of the list that the layers are in, such as `layers` or `h`."""
    patterns = run.axolotl.get("peft_layers_pattern")
    if not patterns or not run.adapts or not run.axolotl.get("peft_layers_to_transform"):
        return
    if (found := _architecture(run)) is None:
        return
    lists = sorted({leaf(name.partition(".#")[0]) for name in found.modules if ".#" in name})
    listed = [patterns] if isinstance(patterns, str) else [str(one) for one in patterns]
    if not any(re.fullmatch(one, name) for one in listed for name in lists):
        yield error(
            "peft_layers_pattern",
            patterns,
            f"a model of type {found.model_type} has its layers in a list named {' or '.join(lists)}, so PEFT finds no "
            "module and fails when it builds the adapter",
            f"Set peft_layers_pattern=[{lists[0] if lists else 'layers'}], or remove it.",
            PEFT_LAYERS,
        )


def lora_parameters_that_the_model_lacks(run: RunFacts) -> Iterator[Finding]:
    """lora_target_parameters name parameters, such as those of experts; a dense model has none of these."""
    targets = run.axolotl.get("lora_target_parameters")
    if not targets or not run.adapts or (found := _architecture(run)) is None:
        return
    listed = [str(one) for one in targets] if isinstance(targets, list) else [str(targets)]
    if any(ends_in(name, one) for one in listed for name in found.parameters):
        return
    alone = not run.axolotl.get("lora_target_linear") and not run.axolotl.get("lora_target_modules")
    yield (error if alone else warning)(
        "lora_target_parameters",
        targets,
        f"a model of type {found.model_type} has none of these parameters, so "
        + ("PEFT fails when it builds the adapter" if alone else "no adapter is trained there"),
        "Set lora_target_linear=true." if alone else "Remove it (~lora_target_parameters).",
        PEFT_PARAMETERS,
    )


def saved_modules_that_the_model_lacks(run: RunFacts) -> Iterator[Finding]:
    """lora_modules_to_save name a module that the architecture does not have: nothing is trained in full."""
    saved = run.axolotl.get("lora_modules_to_save")
    if not isinstance(saved, list) or not run.adapts or (found := _architecture(run)) is None:
        return
    for one in saved:
        if leaf(str(one)) in HEADS or any(ends_in(name, str(one)) for name in found.modules):
            continue
        embedding = next((leaf(name) for name in found.modules if leaf(name) in EMBEDDINGS), "")
        yield warning(
            "lora_modules_to_save",
            saved,
            f"a model of type {found.model_type} has no module {one}, so nothing is trained in full there",
            f"Its embedding is {embedding}." if embedding else "",
            PEFT_SAVED,
        )


def nothing_left_to_train(run: RunFacts) -> Iterator[Finding]:
    """unfrozen_parameters match no parameter. Axolotl matches them from the beginning of a name, and a dot matches only
    a dot, except in `.+`. With an adapter, every name begins with base_model.model."""
    patterns = run.axolotl.get("unfrozen_parameters")
    if not isinstance(patterns, list) or not patterns:
        return
    if run.axolotl.get("adapter") and (run.axolotl.get("rl") or not run.adapts):
        return  # the adapter is built later, or by a plugin
    if (found := _architecture(run)) is None:
        return
    try:
        compiled = [as_axolotl_compiles(str(one)) for one in patterns]
    except re.error:
        return
    layers = layers_to_try([str(one) for one in patterns], _layers(run))
    if any(one.match(name) for name in trained_names(found, layers, adapted=run.adapts) for one in compiled):
        return
    begins = "base_model.model.model.layers.0..." if run.adapts else f"{found.parameters[-1].partition('.')[0]}."
    yield error(
        "unfrozen_parameters",
        patterns,
        f"no parameter of this model begins with any of these, so all are frozen and nothing can be trained; a name "
        f"begins with {begins}"
        + (", and the adapter itself would be frozen" if run.adapts else ", and .* skips no part of it (.+ does)"),
        "Remove it: an adapter is trained alone anyway (~unfrozen_parameters)."
        if run.adapts
        else f"Write it as {example(found)}.",
        FREEZE,
    )


def lisa_without_its_layers(run: RunFacts) -> Iterator[Finding]:
    """LISA looks for its layers under lisa_layers_attribute. An adapter wraps the model, so LISA finds none."""
    if not (run.axolotl.get("lisa_n_layers") and run.axolotl.get("lisa_step_interval")) or run.axolotl.get("rl"):
        return
    attribute = str(run.axolotl.get("lisa_layers_attribute") or "model.layers")
    if run.adapts and attribute == "model.layers":
        yield error(
            "lisa_n_layers",
            run.axolotl["lisa_n_layers"],
            f"with adapter={run.axolotl['adapter']} the model has no {attribute}, and LISA ends the run with an "
            "AttributeError; it is a way to train all weights",
            "Choose one: lora=none, or ~lisa_n_layers ~lisa_step_interval.",
            LISA,
        )
    found = None if run.axolotl.get("adapter") else _architecture(run)
    if found is not None and f"{attribute}.#" not in found.modules:
        lists = [name.removesuffix(".#") for name in found.modules if name.endswith(".#") and name.count("#") == 1]
        yield error(
            "lisa_layers_attribute",
            attribute,
            f"a model of type {found.model_type} has its layers in {', '.join(lists)}, and LISA ends the run with an "
            "AttributeError",
            f"Set lisa_layers_attribute={lists[0] if lists else 'model.layers'}.",
            LISA,
        )


def lisa_of_more_layers_than_there_are(run: RunFacts) -> Iterator[Finding]:
    """LISA draws lisa_n_layers different layers from those of the model."""
    wanted = run.number("lisa_n_layers") or 0
    if not wanted or not run.axolotl.get("lisa_step_interval") or run.axolotl.get("rl"):
        return
    if run.model is not None and wanted > run.model.layers:
        yield error(
            "lisa_n_layers",
            run.axolotl["lisa_n_layers"],
            f"the model has {run.model.layers} layers, and drawing more ends the run with a ValueError",
            f"Set lisa_n_layers={max(1, run.model.layers // 8)}.",
            LISA,
        )


def _architecture(run: RunFacts) -> Architecture | None:
    """None if it is unknown, or if its names may be others: code of the model's own, or a plugin that changes it."""
    own_code = run.axolotl.get("trust_remote_code") or run.axolotl.get("overrides_of_model_config")
    return None if own_code or run.foreign else run.architecture


def _layers(run: RunFacts) -> int | None:
    return run.model.layers if run.model is not None else None


def _others(run: RunFacts) -> bool:
    """Whether the adapter has other targets, so that it is built in any case."""
    return bool(run.axolotl.get("lora_target_linear") or run.axolotl.get("lora_target_parameters"))


RULES = (
    lora_modules_that_the_model_lacks,
    adapter_on_a_router,
    lora_layers_beyond_the_model,
    lora_layers_under_another_name,
    lora_parameters_that_the_model_lacks,
    saved_modules_that_the_model_lacks,
    nothing_left_to_train,
    lisa_without_its_layers,
    lisa_of_more_layers_than_there_are,
)
