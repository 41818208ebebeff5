import statistics

from tests.runner.memory_points import FITTED


def test_the_estimates_are_within_a_tenth_of_published_peaks_on_average_and_a_fifth_at_worst() -> None:
    errors = {f"{point.name} {point.setup}": abs(point.error) for point in FITTED}
    assert statistics.mean(errors.values()) <= 0.10
    assert max(errors.values()) <= 0.20, errors
