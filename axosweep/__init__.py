"""axosweep for Python programs: plan a sweep, launch it, and read its results.

    >>> import axosweep
    >>> planned = axosweep.plan("learning_rate=1e-3,3e-3", "max_steps=20")  # doctest: +SKIP
    >>> sweep = axosweep.launch("learning_rate=1e-3,3e-3", "max_steps=20")  # doctest: +SKIP
    >>> sweep.best.params  # doctest: +SKIP

The overrides are those of the command line. docs/python-api.ipynb shows more.
"""

from runner.api.plans import PlannedRun, PlannedSweep, plan
from runner.api.records import Records
from runner.api.sweeps import Sweep, launch, load
from runner.compare.ranking import Row
from runner.compare.settings import OverSeeds
from runner.compare.verdict_types import JudgedSetting, Verdict
from runner.cost.types import Range
from runner.errors import SweepError
from runner.preflight.findings import Finding, Severity

__all__ = [
    "Finding",
    "JudgedSetting",
    "OverSeeds",
    "PlannedRun",
    "PlannedSweep",
    "Range",
    "Records",
    "Row",
    "Severity",
    "Sweep",
    "SweepError",
    "Verdict",
    "launch",
    "load",
    "plan",
]
