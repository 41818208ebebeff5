"""One job after the other as Hydra composes it, with the loader of a command, which reads each config file once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from runner.composing.experiment import experiment_from
from runner.composing.hydra_inside import CachingLoader
from runner.composing.resolvers import register_resolvers
from runner.config.overrides import canonical
from runner.config.shipped import shipped_root
from runner.config.vocabulary import read_vocabulary
from runner.types import Experiment

ComposeJob = Callable[..., Experiment]


@contextmanager
def composed_jobs() -> Iterator[ComposeJob]:
    """Gives a function: `composed("lora=r8", "seed=1")`."""
    register_resolvers()
    vocabulary = read_vocabulary()

    def composed(*words: str) -> Experiment:
        return experiment_from(compose("config", [canonical(word, vocabulary) for word in words]), words)

    with initialize_config_dir(str(shipped_root() / "conf"), version_base="1.3"):
        application = GlobalHydra.instance().hydra
        assert application is not None
        application.config_loader = CachingLoader(application.config_loader)
        yield composed
