"""Signals only ask; a second Ctrl-C insists; the handlers of before come back."""

from __future__ import annotations

import os
import signal

import pytest

from electra_dist.train.faults import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.requested is None
        os.kill(os.getpid(), number)
        assert interruption.requested == number
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_insists() -> None:
    with Interruption():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("number", "heard"),
    [
        (signal.SIGUSR1, True),
        (signal.SIGTERM, True),
        (signal.SIGHUP, False),
        (signal.SIGINT, False),
    ],
)
def test_only_what_a_terminal_sends_stays_ignored(number: signal.Signals, heard: bool) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), number)
            assert (interruption.requested == number) == heard
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
