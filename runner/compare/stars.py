"""Which rows and groups of a table are marked as the best. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner.compare.groups import Group
from runner.compare.ranking import Row
from runner.compare.verdict_types import JudgedSetting, Verdict, settings_by_run


def starred(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[bool]:
    """The runs of every setting that is not shown to be worse than another. A run that is not judged: if it is best."""
    judged = settings_by_run(verdicts)
    return [judged[row.key].in_best_group if row.key in judged else row.is_best for row in rows]


def groups_judged(groups: Sequence[Group], verdicts: Sequence[Verdict]) -> list[JudgedSetting | None]:
    """The setting that each group is: those over seeds are settings, those over other parameters are not."""
    of = settings_by_run(verdicts)
    found = [[of[key] for key in group.runs if key in of] for group in groups]
    return [ones[0] if ones and all(one is ones[0] for one in ones) else None for ones in found]


def groups_starred(groups: Sequence[Group], verdicts: Sequence[Verdict]) -> list[bool]:
    """As `starred`, if the groups are settings; otherwise, those with the best mean."""
    judged = groups_judged(groups, verdicts)
    if not all(one is not None or not group.n for group, one in zip(groups, judged, strict=True)):
        return [group.is_best for group in groups]
    return [one is not None and one.in_best_group for one in judged]
