"""A trainer environment in which everything heavy is hollow: the real server and worker run, and "training" is a line
of Python from the config (`probe`), so that what a step finds itself in can be looked at in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import Step, StepKind, Tracking
from tests.modal_app.steps import Warm

ROOTS = (
    "accelerate axolotl bitsandbytes datasets deepspeed huggingface_hub numpy peft pyarrow safetensors "
    "torch transformers trl wandb"
).split()

_SITECUSTOMIZE = """\
import importlib.abc, importlib.machinery, os, random, sys, time, types

ROOTS = {roots!r}


class Hollow(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (), {{}}) if name[:1].isupper() else (lambda *_, **__: None)
        setattr(self, name, value)
        return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ROOTS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Hollow(spec.name)

    def exec_module(self, module):
        fill = FILLED.get(module.__name__)
        if fill is not None:
            fill(module)


def axolotl(module):
    time.sleep(float(os.environ.get("PYTHON_IMPORTING", 0)))


def train(module):
    def do_cli(config):
        import yaml
        exec(yaml.safe_load(open(config))["probe"], {{}})
    module.do_cli = do_cli


def base(module):
    class Manager:
        plugins = {{}}

        @classmethod
        def get_instance(cls):
            return cls()

        def get_input_args(self):
            return []
    module.PluginManager = Manager


def torch(module):
    class Generator:
        seeds = 0

        def seed(self):
            Generator.seeds += 1
    module.default_generator = Generator()


def cuda(module):
    module.is_initialized = lambda: "TORCH_WOKEN" in os.environ


def constants(module):
    module.HF_HUB_OFFLINE = os.environ.get("HF_HUB_OFFLINE") == "1"


def fingerprint(module):
    module.fingerprint_rng = random.Random()


def numpy_random(module):
    seeds = []
    module.seed = lambda *given: seeds.append(given)
    module.seeds = seeds


FILLED = {{
    "axolotl": axolotl, "axolotl.cli.train": train, "axolotl.integrations.base": base, "torch": torch,
    "torch.cuda": cuda, "huggingface_hub.constants": constants, "datasets.config": constants,
    "numpy.random": numpy_random, "datasets.fingerprint": fingerprint,
}}
sys.meta_path.insert(0, Finder())
import huggingface_hub.constants, datasets.config, numpy.random, torch.cuda
time.sleep(float(os.environ.get("PYTHON_STARTING", 0)))
"""


def make_trainer(folder: Path) -> Path:
    """The python of a hollow environment."""
    python, packages = folder / "bin" / "python", folder / "lib" / "python3" / "site-packages"
    python.parent.mkdir(parents=True)
    for name in ("old", "old-1.dist-info"):
        (packages / name).mkdir(parents=True)
    (packages / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(roots=ROOTS))
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages}${{PYTHONPATH:+:$PYTHONPATH}} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@contextlib.contextmanager
def serving(python: Path, store: Store, **variables: str) -> Iterator[Warm]:
    """A preloaded trainer, and the command that has started it."""
    warm = Warm.start(python, store, {**os.environ, **variables})
    try:
        yield warm
    finally:
        with contextlib.suppress(ProcessLookupError):
            warm.process.kill()
        warm.process.wait()


def make_store(root: Path) -> Store:
    """A store with a dataset that is prepared, as far as anybody here looks."""
    store = Store(root)
    store.manifest("data").parent.mkdir(parents=True)
    store.manifest("data").write_text("{}")
    return store


def probing(key: str, probe: str, **config: Any) -> Step:
    """A step that runs `probe` where it would train, and fails afterwards, since it has trained nothing."""
    return Step(StepKind.TRAIN, key, {"probe": probe, **config}, "data", tracking=Tracking("disabled"))


def found(store: Store, key: str) -> Any:
    """What a probe has written to found.json in its attempt's folder."""
    attempt = store.folder(StepKind.TRAIN, key).attempts()[-1]
    return json.loads((attempt.path / "found.json").read_text())
