"""What a step downloads or tokenizes before it trains, in its line."""

from __future__ import annotations

from dataclasses import replace

from modal_app.process.bars import BYTES, BarsState
from modal_app.store.layout import StepFolder
from modal_app.store.read_json import parsed_as, read_json
from modal_app.store.step import StepKind
from runner.console.transfer import size_text
from runner.show.line import Line
from runner.store.run_state import RunStatus


def with_progress(line: Line, folder: StepFolder) -> Line:
    """The line of a dataset or run, with what its worker is at, if it has not begun to train."""
    if line.status is not RunStatus.RUNNING or line.step or not (attempts := folder.attempts()):
        return line
    path = attempts[-1].progress
    raw = read_json(path, lenient=True)
    bars = parsed_as(path, raw, lambda found: BarsState(**found)) if raw else None
    if bars is None or bars.of <= 0:
        return line
    amounts = (size_text(bars.done), size_text(bars.of)) if bars.unit == BYTES else (str(bars.done), str(bars.of))
    shown = replace(line, counted=" of ".join(amounts), message=line.message or bars.doing)
    if line.kind is not StepKind.PREPROCESS or line.timing is None or line.timing.started_at is None:
        return shown
    timing = replace(
        line.timing,
        part=min(bars.done / bars.of, 1.0),
        startup_s=max(bars.since - line.timing.started_at, 0.0),
        logged_at=path.stat().st_mtime if path.exists() else None,
    )
    return replace(shown, timing=timing)
