"""A plan -> estimates of its time and cost, for each run and in total, before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from types import MappingProxyType

from modal_app.cloud.meter import CPU_STEP
from modal_app.halving.choose import audited_of
from modal_app.store.facts import DataManifest
from modal_app.store.hub import fetch_names
from modal_app.store.layout import Store
from modal_app.store.smaller_batch import BATCH, changes_after
from runner.config.gpus import GPUS
from runner.cost.length import data_ranks, length_of, rest_of, saves_of, shape_of
from runner.cost.prices import CPU, MEMORY, Rates
from runner.cost.spent import fetch_folder
from runner.cost.types import NOTHING, Length, Prediction, Range, Rows, Shape
from runner.estimate.disk import GIB, reserved_for, saved_of
from runner.estimate.predict import BOOT_MODAL, predict
from runner.estimate.records import KnownRecords, read_past, rows_of
from runner.estimate.rows import rows_before_preparing
from runner.estimate.seeds import OFF
from runner.estimate.types import PlanCost, Pool, RunCost, Saving
from runner.estimate.wall import wall
from runner.memory.disk import SavedBytes
from runner.memory.sharding import with_files
from runner.preflight.memory import facts_for
from runner.types import Experiment, ModelFacts, Plan, PlannedDataset, Run

# Guesses, for what was not recorded.
PREPARE_START = Range(5.0, 20.0, 60.0)
ROWS_S = Range(300.0, 1000.0, 3000.0)
"""Rows that are tokenized per second."""
UNKNOWN_PREPARE = Range(10.0, 60.0, 900.0)
FETCH_BYTES_S = Range(5e7, 2e8, 5e8)
BETWEEN_RUNS = Range(0.0, 1.0, 4.0)
"""In a container that does several: it waits for the next one, two seconds at most, and commits files."""


def plan_cost(
    plan: Plan,
    store: Store,
    stores: Sequence[Store],
    rates: Rates | None,
    pools: Mapping[str, Pool],
    failing: Mapping[str, int] = MappingProxyType({}),
    hosts: Mapping[str, int] = MappingProxyType({}),
) -> PlanCost:
    """`store`: the store of the plan's datasets. `stores`: those whose records are used. `rates`: None if nothing is
    rented. `pools`: run key -> pool, of each pending run. `failing`: run key -> how many tries will be out of memory
    before one has a micro batch that fits (on_oom=halve). `hosts`: run key -> bytes of host memory that it needs for
    offloading.
    """
    known = read_past(stores)
    estimator = _Estimator(store, known, rates, {}, hosts)
    sizes = Counter(pools[one.run.key] for one in plan.pending)
    boots = {pool: pool.containers(runs) / runs for pool, runs in sizes.items()}
    runs = tuple(estimator.run(one.run, failing.get(one.run.key, 0), boots[pools[one.run.key]]) for one in plan.pending)
    wanted = {planned.run.data_key for planned in plan.pending}
    missing = [one for one in plan.datasets if one.key in wanted and not one.done]
    experiments = {planned.run.key: planned.run.experiment for planned in plan.pending}
    parts = [estimator.preparing(one, experiments) for one in missing]
    preparing_s = sum(parts, NOTHING)
    rent = None if rates is None else _dollars_s(rates, {}, Range.exactly(CPU_STEP.cores),
                                                 Range.exactly(CPU_STEP.memory_gib))  # fmt: skip
    return PlanCost(
        runs=runs,
        preparing_s=preparing_s,
        preparing=None if rent is None else preparing_s * rent,
        wall=wall(runs, pools, parts),
        at_a_time=sum(min(runs, pool.most or runs) for pool, runs in sizes.items()),
        rates=rates,
        preparing_each={one.key: seconds for one, seconds in zip(missing, parts, strict=True)},
        rungs=next((one.step.rungs for one in plan.pending if one.step.rungs), None),
        boots=sum(pool.containers(runs) for pool, runs in sizes.items()) if any(pool.reused for pool in sizes) else 0,
        at_rungs=sum(bool(one.at_rung) for one in plan.pending),
        audited=_audited(plan),
    )


def _audited(plan: Plan) -> int:
    """The runs of a search that never stop, and have not stopped before it."""
    audited = audited_of([one.run.key for one in plan.runs])
    pending = [one for one in plan.pending if one.run.key in audited and not one.at_rung]
    return sum(one.step.rungs is not None and one.step.rungs.audit for one in pending)


@dataclass(slots=True)
class _Estimator:
    store: Store
    known: KnownRecords
    rates: Rates | None
    facts: dict[str, ModelFacts]
    hosts: Mapping[str, int]
    _rows: dict[str, Rows | None] = field(default_factory=dict)
    _found: dict[tuple[Shape, Length, SavedBytes | None], Prediction | str] = field(default_factory=dict)
    """Most runs of a sweep have the same shape and length, so each prediction is made once."""

    def run(self, run: Run, failing: int, boots: float) -> RunCost:
        """`failing`: as in `plan_cost`. Each of these tries boots, starts, and fails in one of its first steps.
        `boots`: how many boots its last try pays for."""
        key, data_key, experiment = run.key, run.data_key, run.experiment
        smaller = changes_after(experiment.axolotl, failing)
        config, gpu = {**with_files(experiment.axolotl), **smaller}, experiment.gpu
        length = length_of(config, data_ranks(config, gpu.count), self.rows(data_key, experiment))
        if isinstance(length, str):
            return self._rented(RunCost(key, reason=length), experiment)
        if experiment.start_checkpoint:
            length = rest_of(length, experiment.start_checkpoint.step)
        shape = shape_of(config, gpu.type, gpu.count, experiment.executor.type)
        identity = next((one.identity for one in run.inputs if one.at == "base_model"), None)
        shape = replace(shape, base_model=self.known.name_of(shape.base_model, identity))
        unknown = self._learn(shape.base_model, experiment)
        saved = saved_of(experiment) if gpu.type in GPUS else None
        if (shape, length, saved) not in self._found:
            self._found[shape, length, saved] = predict(shape, length, self.known.runs, self.facts, saved)
        found = self._found[shape, length, saved]
        if isinstance(found, str):
            why = f"{unknown}, and no similar run was trained here" if unknown and gpu.type in GPUS else found
            return self._rented(RunCost(key, length, reason=why), experiment)
        found = _with_starts(_booting(found, boots), failing)
        cost = self._rented(RunCost(key, length, found), experiment)
        if smaller:
            cost = replace(cost, healed=f"{BATCH}={smaller[BATCH]}")
        if found.phases.save * 2 <= found.rented.likely:
            return cost
        return replace(cost, fewer_saves=self._fewer_saves(cost, shape, experiment, boots))

    def _fewer_saves(self, cost: RunCost, shape: Shape, experiment: Experiment, boots: float) -> Saving | None:
        """One checkpoint an epoch, if the run writes more of them now."""
        length = cost.length
        config = {**with_files(experiment.axolotl), "saves_per_epoch": 1, "save_steps": None}
        if length is None or (saves := saves_of(config, length.steps)) >= length.saves:
            return None
        then = predict(shape, replace(length, saves=saves), self.known.runs, self.facts, saved_of(experiment))
        if isinstance(then, str):
            return None
        then = _booting(then, boots)
        dollars = self._rented(RunCost(cost.key, length, then), experiment).dollars
        key = "saves_per_epoch" if experiment.axolotl.get("saves_per_epoch") else "save_steps"
        override = "saves_per_epoch=1" + (" ~save_steps" if key == "save_steps" else "")
        return Saving(override, then.rented.likely, None if dollars is None else dollars.likely)

    def _learn(self, base_model: str, experiment: Experiment) -> str:
        """Returns why nothing is known of the model, if that is so."""
        if base_model not in self.facts:
            shape = facts_for(experiment)
            if shape.facts is None:
                return shape.problem
            self.facts[base_model] = shape.facts
        return ""

    def _rented(self, cost: RunCost, experiment: Experiment) -> RunCost:
        if self.rates is None:
            return cost
        gpu, found = experiment.gpu, cost.prediction
        cores = found.cores if found else Range.exactly(float(gpu.count))
        memory = found.memory_gib if found else Range.exactly(8.0 * gpu.count)
        # Modal bills the larger of what is reserved and what is used.
        reserved = reserved_for(experiment)
        least_gib = max(reserved.memory_gib, self.hosts.get(cost.key, 0) / GIB)
        cores, memory = _at_least(cores, reserved.cores), _at_least(memory, least_gib)
        names = [name for name in dict.fromkeys((gpu.type, *gpu.fallback)) if name in GPUS]
        rents = [_dollars_s(self.rates, {name: gpu.count}, cores, memory) for name in names]
        rents = rents or [_dollars_s(self.rates, {}, cores, memory)]
        if any(self.rates.of(name) is None for name in names):
            return RunCost(cost.key, cost.length, found, cost.reason or f"there is no price for {', '.join(names)}")
        rent = Range(min(one.low for one in rents), rents[0].likely, max(one.high for one in rents))
        return RunCost(
            cost.key,
            cost.length,
            found,
            cost.reason,
            None if found is None else found.rented * rent,
            rent.high,
            tuple(names),
        )

    def rows(self, data_key: str, experiment: Experiment) -> Rows | None:
        if data_key not in self._rows:
            prepared = rows_of(DataManifest.read(self.store.manifest(data_key)))
            self._rows[data_key] = prepared or rows_before_preparing(experiment, self.known)
        return self._rows[data_key]

    def preparing(self, dataset: PlannedDataset, experiments: Mapping[str, Experiment]) -> Range:
        """Seconds for a dataset, and for downloads that it needs first."""
        experiment = next(experiments[key] for key in dataset.runs if key in experiments)
        rows = self.rows(dataset.key, experiment)
        if rows is None:
            seconds = UNKNOWN_PREPARE
        else:
            every = rows.rows + rows.eval_rows
            tokenizing = Range(every / ROWS_S.high, every / ROWS_S.likely, every / ROWS_S.low)
            before = [one.seconds for one in self.known.data if 0.5 * every <= one.rows <= 2 * every]
            seconds = PREPARE_START + (Range.about(median(before), 0.5) if before else tokenizing)
        if experiment.executor.type != "modal":
            return seconds
        seconds += BOOT_MODAL
        names = fetch_names(dataset.step.config)
        if names and not fetch_folder(self.store, names[0]).path.exists():
            facts = self.facts.get(str(experiment.axolotl.get("base_model")))
            size = 2.0 * facts.parameters if facts else 1e9
            seconds += BOOT_MODAL + Range(*(size / one for one in _down(FETCH_BYTES_S)))
        return seconds


def _booting(prediction: Prediction, boots: float) -> Prediction:
    """The prediction with the mean of the boots that a run pays for. Where containers do several runs, they wait
    between two of them, which may not be recorded yet."""
    known = boots == 1 or prediction.around != NOTHING
    return replace(prediction, boots=boots, around=prediction.around if known else BETWEEN_RUNS)


def _with_starts(prediction: Prediction, many: int) -> Prediction:
    """The prediction with so many more starts, each in a container of its own: a container in which a run has failed
    does no other run."""
    if not many:
        return prediction
    starts = Range.about(prediction.phases.start, OFF).scaled(many)
    return replace(
        prediction,
        seconds=prediction.seconds + starts,
        phases=replace(prediction.phases, start=prediction.phases.start * (1 + many)),
        boots=prediction.boots + many,
    )


def _down(speed: Range) -> tuple[float, float, float]:
    return speed.high, speed.likely, speed.low


def _at_least(amount: Range, least: float) -> Range:
    return Range(*(max(least, one) for one in (amount.low, amount.likely, amount.high)))


def _dollars_s(rates: Rates, cards: Mapping[str, int], cores: Range, memory: Range) -> Range:
    """Dollars per second of a container with these cards."""
    gpus = sum((rates.of(name) or 0.0) * count for name, count in cards.items())
    return Range.exactly(gpus) + cores.scaled(rates.of(CPU) or 0.0) + memory.scaled(rates.of(MEMORY) or 0.0)
