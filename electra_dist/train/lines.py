"""The lines that a person watches: one a logged step, with rate and time left.
Plain text, good in a log file too.
"""

from __future__ import annotations

import time

from electra_dist.console import human_count, human_seconds, say
from electra_dist.parallel import signs
from electra_dist.tracking.sinks import Metrics


def _score(value: float, digits: int) -> str:
    """A score, or dashes of the same width where it is undefined (no token was predicted, say)."""
    if value != value:
        return "-" * (digits + 2)
    return f"{value:.{digits}f}"


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


class Checking:
    """Says now and then how far a long check of files is: called with the bytes done and those in
    total.

    Each call is a sign of life too; `aloud` is rank 0.
    """

    def __init__(self, what: str, aloud: bool = True, every: float = 10.0) -> None:
        self._what = what
        if aloud:
            self._every = every
        else:
            self._every = float("inf")
        self._start = self._said = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        signs.sign(f"{self._what}: {done / 1e9:.1f} of {total / 1e9:.1f} GB")
        now = time.perf_counter()
        if now - self._said < self._every or not done:
            return
        self._said = now
        rate = done / (now - self._start)
        say(
            f"{self._what}: {done / 1e9:.1f} of {total / 1e9:.1f} GB a rank, {rate / 1e6:,.0f}"
            f" MB/s, {human_seconds((total - done) / rate)} left"
        )


def training_line(metrics: Metrics, steps: int) -> str:
    """`step 400/4000 10.0%  G 6.81 acc .12  D .214 P .61 R .12 AUC
    .612  lr 4.9e-04  10.2k tok/s 5m12s left`.
    """
    step = int(metrics["step"])
    left = (steps - step) * metrics["speed/step_seconds"]
    return (
        f"step {step:>{len(str(steps))}}/{steps} {step / steps:6.1%}  {_losses(metrics, '')}"
        f"  lr {metrics['optim/lr']:.1e}  {human_count(metrics['speed/real_tokens_per_s'])} tok/s"
        f"  MFU {metrics['speed/mfu']:.0%}  {human_seconds(left)} left"
    )


def validation_line(metrics: Metrics, steps: int) -> str:
    """The held-out losses, marked so that they stand out between training lines."""
    return (
        f"step {int(metrics['step']):>{len(str(steps))}}/{steps}  held out "
        f" {_losses(metrics, 'validation/')}"
    )


def _losses(metrics: Metrics, prefix: str) -> str:
    """Losses and scores of both networks; `prefix` chooses training or held-out ones."""
    generator = f"{prefix}generator"
    discriminator = f"{prefix}discriminator"
    return (
        f"G {metrics[f'{prefix}loss/generator']:.3f} acc {metrics[f'{generator}/accuracy']:.3f}  D"
        f" {metrics[f'{prefix}loss/discriminator']:.4f} P"
        f" {_score(metrics[f'{discriminator}/precision'], 2)} R"
        f" {_score(metrics[f'{discriminator}/recall'], 2)} AUC"
        f" {_score(metrics[f'{discriminator}/auc'], 3)}"
    )
