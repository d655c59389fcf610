"""The lines that a person watches: one a logged step, with rate and time left.
Plain text, good in a log file too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from electra_dist.console import human_bytes, human_count, human_seconds, say
from electra_dist.data.sources import RunData
from electra_dist.parallel import signs
from electra_dist.runs import metrics
from electra_dist.runs.metrics import Metric, Metrics


class Stopwatch:
    """Seconds of training, without those spent in validation and saving."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap or `skip`; starts the next lap."""
        now = time.perf_counter()
        seconds = now - self._start
        self._start = now
        return seconds

    def pause(self) -> float:
        """Seconds of the lap so far; give them to `resume` to leave out what happens in between."""
        return time.perf_counter() - self._start

    def resume(self, seconds: float) -> None:
        """Go on with a lap that already lasted `seconds`."""
        self._start = time.perf_counter() - seconds


class Passes:
    """Counts the epochs of each source where several are mixed, and says when one begins again."""

    def __init__(self, data: RunData) -> None:
        self._names = [source.name for source in data.sources]
        self._whole = [0] * len(self._names)  # epochs that were said, or are behind a resume

    def begin(self, epochs: Sequence[float]) -> None:
        """Go on from where `epochs` of each source are consumed; none is the start of the run."""
        self._whole = [int(epoch) for epoch in epochs] or [0] * len(self._names)

    def of_sources(self, epochs: Sequence[float], aloud: bool) -> Metrics:
        """`epochs` of the sources by name; nothing where there is one source alone.

        Where a source has ended since the last call, it is said once (`aloud` is rank 0).
        """
        if len(self._names) < 2 or not epochs:
            return {}
        before = self._whole
        self._whole = [int(epoch) for epoch in epochs]
        for name, now, then in zip(self._names, self._whole, before, strict=True):
            if aloud and now > then:
                say(f"source {name}: all of it has been seen, epoch {now + 1} of it begins")
        return {
            metrics.EPOCH.name_of(name): epoch
            for name, epoch in zip(self._names, epochs, strict=True)
        }


#: Between two lines about a long check.
_CHECKING_SECONDS = 10.0


class Checking:
    """Says now and then how far a long check of files is: called with the bytes done and those in
    total.

    Each call is a sign of life too; `aloud` is rank 0.
    """

    def __init__(self, what: str, aloud: bool = True) -> None:
        self._what = what
        if aloud:
            self._every = _CHECKING_SECONDS
        else:
            self._every = float("inf")
        self._start = self._said = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        signs.sign(f"{self._what}: {human_bytes(done)} of {human_bytes(total)}")
        now = time.perf_counter()
        if now - self._said < self._every or not done:
            return
        self._said = now
        rate = done / (now - self._start)
        say(
            f"{self._what}: {done / 1e9:.1f} of {total / 1e9:.1f} GB a rank, {rate / 1e6:,.0f}"
            f" MB/s, {human_seconds((total - done) / rate)} left"
        )


def training_line(row: Metrics, steps: int) -> str:
    """The line of a logged step: losses and scores of both networks, learning rate, speed.

    `step 400/4000 10.0%  G 6.810 acc 0.120  D 0.2140 P 0.61 R 0.12 AUC 0.612  lr 4.9e-04
    10.2k tok/s  MFU 41%  5m12s left`, in one line.
    """
    step = int(row[metrics.STEP.name])
    left = (steps - step) * row[metrics.STEP_SECONDS.name]
    parts = (
        f"{_place(step, steps)} {step / steps:6.1%}",
        _scores(row, ""),
        f"lr {_text(row, metrics.LEARNING_RATE)}",
        f"{human_count(row[metrics.TOKENS_PER_SECOND.name])} tok/s",
        f"MFU {_text(row, metrics.MFU)}",
        f"{human_seconds(left)} left",
    )
    return "  ".join(parts)


def validation_line(row: Metrics, steps: int) -> str:
    """The held-out losses, marked so that they stand out between training lines."""
    place = _place(int(row[metrics.STEP.name]), steps)
    return f"{place}  held out  {_scores(row, metrics.HELD_OUT)}"


def _place(step: int, steps: int) -> str:
    return f"step {step:>{len(str(steps))}}/{steps}"


def _scores(row: Metrics, prefix: str) -> str:
    """Losses and scores of both networks; `prefix` chooses training or held-out ones."""
    generator = (("G", metrics.GENERATOR_LOSS), ("acc", metrics.GENERATOR_ACCURACY))
    discriminator = (
        ("D", metrics.DISCRIMINATOR_LOSS),
        ("P", metrics.PRECISION),
        ("R", metrics.RECALL),
        ("AUC", metrics.AUC),
    )
    return "  ".join(
        " ".join(f"{short} {_text(row, metric, prefix)}" for short, metric in shown)
        for shown in (generator, discriminator)
    )


def _text(row: Metrics, metric: Metric, prefix: str = "") -> str:
    return metric.text(row[prefix + metric.name])
