"""A call in the background, whose result or error is kept for whoever started it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Job(threading.Thread):
    """A call in the background; what it gave or raised."""

    def __init__(self, name: str, call: Callable[[], Any]) -> None:
        super().__init__(name=name, daemon=True)
        self._call = call
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._call()
        except Exception as error:
            self.error = error

    def wait(self) -> None:
        """Until it has ended; it may have been called without a thread."""
        if self.ident is not None:
            self.join()
