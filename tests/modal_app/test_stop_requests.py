"""Several requests to stop that come to a container, as the signals that it gets from Modal."""

from __future__ import annotations

import signal

import pytest

from modal_app.cloud.stop_requests import only_the_first


class Cancelled(BaseException):
    """As Modal's InputCancellation."""


def request(first: signal.Signals, *further: signal.Signals) -> None:
    """Requests to stop that come while the first one is handled."""
    with only_the_first():
        try:
            signal.raise_signal(first)
        finally:
            for number in further:
                signal.raise_signal(number)
            handled.append(first)


handled: list[signal.Signals] = []


@pytest.mark.parametrize(
    ("requests", "raised"),
    [
        ([signal.SIGUSR1], Cancelled),
        ([signal.SIGUSR1, signal.SIGUSR1], Cancelled),
        ([signal.SIGUSR1, signal.SIGUSR1, signal.SIGINT], KeyboardInterrupt),
        ([signal.SIGINT, signal.SIGUSR1, signal.SIGTERM], KeyboardInterrupt),
        ([signal.SIGTERM], KeyboardInterrupt),
    ],
)
def test_of_several_requests_to_stop_only_the_first_interrupts_and_one_that_ends_the_container_is_raised_at_the_end(
    requests: list[signal.Signals], raised: type[BaseException]
) -> None:
    def cancel(number: int, frame: object) -> None:
        raise Cancelled

    before = signal.signal(signal.SIGUSR1, cancel)
    handled.clear()
    try:
        with pytest.raises(raised):
            request(*requests)
        assert handled == requests[:1]
        assert signal.getsignal(signal.SIGUSR1) is cancel
    finally:
        signal.signal(signal.SIGUSR1, before)
