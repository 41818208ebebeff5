"""The points of a sweep that can be chosen before its first run: its space, then grid or random."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from runner.composing.axes import NO_RULES, AxisRules, Points, SearchSpace
from runner.composing.draw import draw
from runner.composing.hydra_inside import plain
from runner.composing.job_product import grid
from runner.composing.read_axes import read_space, rules_of, with_file_rules, with_rules
from runner.config.vocabulary import Vocabulary
from runner.request import SearchChoice, SearchMethod

DECIDED_BY_RESULTS = (SearchMethod.COORDINATE, SearchMethod.TPE)
"""The methods whose points are not known before the first run has ended."""


def space_of(
    config: DictConfig,
    overrides: Sequence[str],
    arguments: Sequence[str],
    rules: AxisRules,
    method: SearchMethod,
    loader: ConfigLoader,
    vocabulary: Vocabulary,
) -> SearchSpace:
    """`overrides`: all of them, canonical; `arguments`: those of the command line; `rules`: of its flags, which are
    added to those of the config. Only a grid is shuffled: other methods come to the same points again.
    """
    space = read_space(overrides, loader, vocabulary, shuffled=method is SearchMethod.GRID)
    of_config = NO_RULES if config.hydra.sweeper.alone else rules_of(plain(config.hydra.sweeper, resolve=True))
    space = with_file_rules(space, of_config, [*arguments, *config.hydra.overrides.hydra], vocabulary)
    return with_rules(space, rules, vocabulary)


def points_of(space: SearchSpace, search: SearchChoice) -> Points:
    """Raises SweepError for a space that the method cannot search."""
    match search.method:
        case SearchMethod.GRID:
            return grid(space)
        case SearchMethod.RANDOM:
            return draw(space, search)
        case _:
            raise AssertionError(f"the points of search={search.method} are not known before its first run")
