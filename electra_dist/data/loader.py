"""The loader: whole steps (`steps`), prepared ahead by a background thread.

The state is that of the last step *consumed*.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from electra_dist.batch import Step
from electra_dist.config import Config
from electra_dist.data.manifest import Manifest
from electra_dist.data.skips import Interval
from electra_dist.data.steps import StepSource
from electra_dist.data.streams import LoaderState

#: Between two looks whether a step that does not come is still wanted; for the thread to end.
_WAIT_SECONDS, _CLOSE_SECONDS = 0.2, 2.0


class TrainLoader:
    """The steps of a `StepSource`, whose arguments it takes; prepared ahead by a thread.

    An error of the thread is raised by the next `next`. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        rank: int,
        world_size: int,
        state: LoaderState | None = None,
        skipped: Iterable[Interval] = (),
    ) -> None:
        self._source = StepSource(config, manifest, rank, world_size, state, skipped)
        self.state = self._source.state
        self._queue: queue.Queue[tuple[Step, LoaderState] | BaseException | None] = queue.Queue(
            config.data.prefetch_steps
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="electra-dist-loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        step = self.next_unless(lambda: False)
        assert step is not None
        return step

    def next_unless(self, asked_to_end: Callable[[], bool]) -> Step | None:
        """The next step; None as soon as `asked_to_end` says so and no step is ready, however long the data take.

        Raises what `next` raises.
        """
        if self._closed.is_set():
            raise StopIteration
        while True:
            try:
                item = self._queue.get(timeout=_WAIT_SECONDS)
                break
            except queue.Empty:
                if asked_to_end():
                    return None
        if isinstance(item, BaseException):
            self.close()
            raise item
        if item is None:
            self.close()
            raise StopIteration
        step, self.state = item
        return step

    def close(self) -> None:
        """Stop the thread and wait for it, not for ever: it may be reading from a file system that is gone.

        More calls do nothing.
        """
        self._closed.set()
        self._thread.join(_CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _produce(self) -> None:
        try:
            for step in self._source:
                self._put((step, self._source.state))
                if self._closed.is_set():
                    return
            self._put(None)
        except BaseException as error:  # whatever it is, the consumer raises it
            self._put(error)

    def _put(self, item: tuple[Step, LoaderState] | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return
