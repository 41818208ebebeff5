"""Which runs go on from a rung, from the entries that are there at the moment. Pure.

Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934): of the n runs that have reached a rung, the best
floor(n / eta) go on, and no run waits for the others. A run that has stopped goes on later if more runs come and it is
among the best of them. Three other kinds of runs go on, too: see `Why`.

At rest, when no run works, all runs that `who_goes_on` names have gone on, in whatever order they came: a run puts its
loss before it looks, and looks again after it has put its stop. Earlier, when fewer runs were there, others may have
been among the best; they have gone on, too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from modal_app.halving.margin import within_noise
from modal_app.halving.snapshot import Reading, Snapshot, Why

AUDITED = 10
"""One in so many runs never stops; a search with so many runs has at least one such run."""


def who_goes_on(snapshot: Snapshot, rung: int) -> Mapping[str, Why]:
    """The runs at a rung that go on from it, and why; without those that have diverged. One that has diverged or failed
    after this rung takes no other run's place."""
    if rung not in snapshot.goes:
        snapshot.goes[rung] = _who_goes_on(snapshot, rung)
    return snapshot.goes[rung]


def _who_goes_on(snapshot: Snapshot, rung: int) -> dict[str, Why]:
    terms, there = snapshot.terms, _comparable(snapshot, rung)
    finite = {run: one for run, one in snapshot.at(rung).items() if one.loss is not None}
    ranked = sorted((run for run in there if run in finite), key=lambda run: (there[run].ranked_loss, run))
    able = [run for run in ranked if not _is_lost_after(snapshot, run, rung)]
    quota = len(there) // terms.eta or int(bool(able) and all_are_in(snapshot, rung))
    top = able[:quota]
    goes = {run: Why.OTHER_ROWS for run in finite if run not in there}
    if terms.audit:
        goes |= dict.fromkeys(finite.keys() & audited_of(terms.rates), Why.AUDIT)
    if terms.keep_rate and rung == 1 and (kept := _best_of_largest_rate(snapshot, able)) is not None:
        goes[kept] = Why.RATE
    if terms.margin and top:
        goes |= dict.fromkeys(within_noise(there, able[quota:], top), Why.MARGIN)
    return goes | dict.fromkeys(top, Why.TOP)


def all_are_in(snapshot: Snapshot, rung: int) -> bool:
    """Whether no further run can come to a rung at present."""
    return all(_is_in(snapshot, run, rung) for run in snapshot.terms.rates)


def audited_of(members: Collection[str]) -> frozenset[str]:
    """The members of a search that never stop: by their keys, so that all processes agree."""
    chosen = frozenset(run for run in members if is_audited(run))
    if not chosen and len(members) >= AUDITED:
        return frozenset([min(members, key=_drawn)])
    return chosen


def is_audited(run: str) -> bool:
    """Whether it never stops in any search that audits."""
    return _drawn(run) % AUDITED == 0


def _drawn(run: str) -> int:
    return int.from_bytes(hashlib.sha256(run.encode()).digest()[:8], "big")


def to_be_started(snapshot: Snapshot) -> dict[str, tuple[int, Why]]:
    """The stopped runs that are to go on, and that have no entry for it yet: run -> its rung, and why."""
    found: dict[str, tuple[int, Why]] = {}
    for rung, stopped in snapshot.stopped.items():
        goes = who_goes_on(snapshot, rung)
        found |= {run: (rung, goes[run]) for run in stopped if run in goes and not snapshot.has_gone(rung, run)}
    return found


def waits(snapshot: Snapshot, run: str, rung: int) -> bool:
    """Whether a run that has stopped at a rung goes on from there, and has not been seen at a later one."""
    is_there = snapshot.last_rung(run) <= rung and not _is_lost_after(snapshot, run, rung)
    return is_there and snapshot.has_gone(rung, run)


def _is_lost_after(snapshot: Snapshot, run: str, rung: int) -> bool:
    """Whether it has diverged or failed after this rung, and has not come further since."""
    last = snapshot.last_rung(run)
    return snapshot.out.get(run, -1) == last or (last > rung and snapshot.at(last)[run].loss is None)


def _is_in(snapshot: Snapshot, run: str, rung: int) -> bool:
    """Whether a run is at a rung, or cannot come there."""
    if run in snapshot.at(rung) or run in snapshot.out:
        return True
    before = [one for one in range(1, rung) if run in snapshot.at(one)]
    if not before or snapshot.has_gone(before[-1], run):
        return False
    return run not in who_goes_on(snapshot, before[-1])


def _comparable(snapshot: Snapshot, rung: int) -> dict[str, Reading]:
    """Those with the rows and the number of steps that most have, without runs that are there for the audit alone."""
    there = {run: one for run, one in snapshot.at(rung).items() if not _is_audit_alone(snapshot, run, rung)}
    kinds = Counter((one.eval_fingerprint, one.max_steps) for one in there.values())
    if not kinds:
        return {}
    usual = max(kinds, key=lambda kind: (kinds[kind], str(kind)))
    return {run: one for run, one in there.items() if (one.eval_fingerprint, one.max_steps) == usual}


def _is_audit_alone(snapshot: Snapshot, run: str, rung: int) -> bool:
    """Whether it would have stopped at an earlier rung, but for the audit."""
    return any(
        snapshot.gone.get(one, {}).get(run) is Why.AUDIT and who_goes_on(snapshot, one).get(run) in (None, Why.AUDIT)
        for one in range(1, rung)
    )


def _best_of_largest_rate(snapshot: Snapshot, able: Sequence[str]) -> str | None:
    """The best run with the largest learning rate of which a run has neither diverged nor failed, once all runs with it
    and all with a larger one are at rung 1 or out. None where all members have one rate. `able`: the best first."""
    rates = snapshot.terms.rates
    distinct = sorted({rate for rate in rates.values() if rate is not None}, reverse=True)
    for rate in distinct if len(distinct) > 1 else ():
        if not all(run in snapshot.at(1) or run in snapshot.out for run, one in rates.items() if one == rate):
            return None
        if (kept := next((run for run in able if rates.get(run) == rate), None)) is not None:
            return kept
    return None
