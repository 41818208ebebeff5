"""Replaces all heavy packages by empty ones: sitecustomize.py of the environment that hollow_trainer.py creates.

A package of ROOTS is found, is empty, and has any attribute: for a capitalized name a class that takes type arguments,
otherwise a function that does nothing. What the real server and worker need of a package is put into it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import random
import sys
import time
from types import ModuleType

TYPE_CHECKING = False  # importing typing takes as long as everything here, in each process
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

ROOTS = (
    "accelerate axolotl bitsandbytes datasets deepspeed huggingface_hub numpy peft pyarrow safetensors "
    "torch transformers trl wandb"
).split()


class Hollow(ModuleType):
    __path__: list[str] = []  # noqa: RUF012  # a package's

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        generic = {"__class_getitem__": classmethod(lambda cls, _: cls)}
        value = type(name, (), generic) if name[:1].isupper() else (lambda *_, **__: None)
        setattr(self, name, value)
        return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        is_hollow = name.partition(".")[0] in ROOTS
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_hollow else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return Hollow(spec.name)

    def exec_module(self, module: Any) -> None:
        if (fill := FILLED.get(module.__name__)) is not None:
            fill(module)


def axolotl(module: Any) -> None:
    time.sleep(float(os.environ.get("PYTHON_IMPORTING", 0)))


def train(module: Any) -> None:
    def do_cli(config: str) -> None:
        import yaml

        with open(config) as file:
            exec(yaml.safe_load(file)["probe"], {})

    module.do_cli = do_cli


class NoPlugins:
    plugins: Mapping[str, Any] = {}

    @classmethod
    def get_instance(cls) -> NoPlugins:
        return cls()

    def get_input_args(self) -> list[str]:
        return []


def base(module: Any) -> None:
    module.PluginManager = NoPlugins


class Generator:
    """Counts the calls that seed it."""

    seeds = 0

    def seed(self) -> None:
        self.seeds += 1


def torch(module: Any) -> None:
    module.default_generator = Generator()


def cuda(module: Any) -> None:
    module.is_initialized = lambda: "TORCH_WOKEN" in os.environ


def constants(module: Any) -> None:
    module.HF_HUB_OFFLINE = os.environ.get("HF_HUB_OFFLINE") == "1"


def fingerprint(module: Any) -> None:
    module.fingerprint_rng = random.Random()


def numpy_random(module: Any) -> None:
    seeds: list[tuple[Any, ...]] = []
    module.seed = lambda *given: seeds.append(given)
    module.seeds = seeds


FILLED: Mapping[str, Callable[[Any], None]] = {
    "axolotl": axolotl, "axolotl.cli.train": train, "axolotl.integrations.base": base, "torch": torch,
    "torch.cuda": cuda, "huggingface_hub.constants": constants, "datasets.config": constants,
    "numpy.random": numpy_random, "datasets.fingerprint": fingerprint,
}  # fmt: skip

if __name__ == "sitecustomize":
    sys.meta_path.insert(0, Finder())
    for _name in ("huggingface_hub.constants", "datasets.config", "numpy.random", "torch.cuda"):
        importlib.import_module(_name)
    time.sleep(float(os.environ.get("PYTHON_STARTING", 0)))
