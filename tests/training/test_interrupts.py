"""Ctrl-C and SIGTERM wait for the end of a step, take effect then, and find their old handlers in place."""

from __future__ import annotations

import signal
import threading

import pytest

from ebomlc.config import TrainingConfig
from ebomlc.training import engine
from ebomlc.training.checkpoint import FileCheckpoints
from ebomlc.training.interrupts import HELD, HeldSignals
from ebomlc.training.trackers import NullTracker

from .test_engine import Scripted, loader, rows


class TerminatedError(Exception):
    pass


@pytest.fixture(autouse=True)
def handlers():
    """A SIGTERM handler that raises; both are put back."""
    before = {number: signal.getsignal(number) for number in HELD}

    def terminate(*_):
        raise TerminatedError

    signal.signal(signal.SIGTERM, terminate)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TerminatedError)])
def test_a_signal_waits_until_it_is_delivered(number, raised):
    before = signal.getsignal(number)
    with pytest.raises(raised), HeldSignals() as signals:
        signal.raise_signal(number)
        assert signals.received == number
        signals.deliver()
    assert signal.getsignal(number) is before


def test_a_signal_that_nobody_delivered_is_delivered_at_the_end():
    with pytest.raises(KeyboardInterrupt), HeldSignals():
        signal.raise_signal(signal.SIGINT)


def test_a_second_one_is_not_held_back():
    with pytest.raises(KeyboardInterrupt), HeldSignals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one was held back")


def test_a_signal_that_somebody_ignores_ends_nothing():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with HeldSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signals.deliver()
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM, "held back again after the first was ignored"


def test_an_error_goes_before_a_signal():
    with pytest.raises(ValueError, match="mine"), HeldSignals():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("mine")


def test_other_threads_are_left_alone():
    found = []

    def enter():
        with HeldSignals() as signals:
            found.append((signals.received, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(None, signal.default_int_handler)]


class Interrupted(Scripted):
    """Is told to stop in the middle of a step."""

    def __init__(self, stopped_at=None):
        super().__init__()
        self.stopped_at = stopped_at
        self.parts = {}

    def step(self, noisy, trusted, context):
        if self.steps + 1 == self.stopped_at:
            signal.raise_signal(signal.SIGTERM)
        return super().step(noisy, trusted, context)


@pytest.mark.parametrize("step", [3, 4, 6, 12])
def test_the_state_after_the_step_is_kept_first(step, tmp_path):
    """In an epoch of four steps, at the end of one, and at the very end."""

    def train(method, checkpoints=None):
        config = TrainingConfig(lr=0.1, epochs=3)
        return engine.fit(method, loader(), rows(5, 0), config, NullTracker(), checkpoints, quiet=True)

    whole, again = Interrupted(), Interrupted()
    expected = train(whole)
    with pytest.raises(TerminatedError):
        train(Interrupted(stopped_at=step), FileCheckpoints(tmp_path))
    found = train(again, FileCheckpoints(tmp_path))
    assert found.resumed_at == [step]
    assert again.rates == whole.rates[step:]
    assert again.steps == whole.steps == 12
    assert float(again.model.head.bias[1].detach()) == float(whole.model.head.bias[1].detach())
    assert [row["loss"] for row in found.rows] == [row["loss"] for row in expected.rows]
