"""Verdicts on settings that are truly equal. benchmarks/verdict_calibration.py measures the same more exactly."""

from dataclasses import replace

from benchmarks.verdict_calibration import Case, share_separated
from tests.runner.synthetic_losses import Truth

ROWS_ALONE = Case("rows alone", Truth((0.0,) * 10, documents=60, of_documents=0.2), 0, 1)
WITH_SEEDS = Case("with seeds", Truth((0.0,) * 6, seeds=2, documents=60, of_seeds=0.02), 0, 1)


def test_equal_settings_are_told_apart_by_chance_in_one_of_twenty_cases() -> None:
    assert 0.01 <= share_separated(ROWS_ALONE, 250, draws=500) <= 0.09


def test_equal_settings_are_told_apart_by_chance_in_one_of_twenty_cases_whatever_their_seeds_do() -> None:
    assert 0.01 <= share_separated(WITH_SEEDS, 250, draws=500) <= 0.09


def test_rows_of_one_document_are_not_taken_for_independent() -> None:
    assert share_separated(replace(ROWS_ALONE, rows_as_documents=True), 60, draws=500) > 0.15
