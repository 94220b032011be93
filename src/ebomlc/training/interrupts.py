"""Signals that ask a training to stop, held back until a step is done and its state is kept."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

HELD = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Inside the block, Ctrl-C and SIGTERM only set `received`; `deliver` lets them do what they do otherwise.

    A second one is not held back. Outside the main thread, which no signal reaches, this does nothing.

    Attributes
    ----------
    received : int or None
        Number of the signal that is held back.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> HeldSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hold) for number in HELD}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        if self.received is not None and error[0] is None:
            signal.raise_signal(self.received)

    def deliver(self) -> None:
        """Let the signal that is held back take its course; returns where somebody chose to ignore it."""
        number, self.received = self.received, None
        if number is not None:
            self._restore()
            signal.raise_signal(number)
            self.__enter__()

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self.deliver()
        self.received = number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
