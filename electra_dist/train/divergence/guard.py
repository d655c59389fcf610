"""The guard: says from the losses of every step whether training has diverged. Plain numbers, no
tensors.

Comes in: one `Signal` a step, in order, the same on every rank. Goes out: an `Incident`, once
training has diverged.

A step counts against the run when its gradient is not finite (it is skipped), or when one of its
losses *spikes*:

    not finite                                       or
    above `max_loss_factor` times that of a uniform guess (ln V for masked tokens, ln 2 for
    replaced ones)
                                                     or
    above   median + spike_deviations * max(1.4826 * MAD, 2% of the median)

over the last `window` losses that did not spike; MAD is the median absolute deviation from the
median, and 1.4826 * MAD the standard deviation of a normal distribution, which outliers do not move
(Rousseeuw and Croux 1993). Training has diverged after `max_skips` skipped steps in a row or
`spike_steps` spikes in a row, and at once when a loss is not finite although the step was not
skipped. With fp16 a step that is skipped while the loss scale can still fall is part of the search
for that scale, and counts for nothing.

What it remembers goes into the checkpoint, so that a resumed run decides as one that was never
interrupted.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from electra_dist.config import GuardConfig
from electra_dist.objectives import objectives

#: Smallest robust standard deviation, as a fraction of the median.
_FLOOR = 0.02
#: Standard deviation of a normal distribution, in median absolute deviations.
_MAD_TO_DEVIATION = 1.4826
#: Bad steps in a row from which a checkpoint counts as unhealthy; one alone is a hard batch.
_SUSPICIOUS = 2


class Signal(NamedTuple):
    """What one step tells.

    step, data_step   number of the step of training, and of the step of data that it took
                      (`data.skips`), from 0
    losses            global means, one for each objective
    skipped           the gradient was not finite, so the weights stayed as they were
    searching         fp16: the loss scale can still fall, which may be all that is wrong
    """

    step: int
    data_step: int
    losses: tuple[float, ...]
    skipped: bool
    searching: bool = False


class Place(NamedTuple):
    """A step of training and the step of data that it took."""

    step: int
    data_step: int


class Streak(NamedTuple):
    """Bad steps in a row: how many, where the first is, and the place `margin_steps` before it."""

    length: int
    first: Place
    margin: Place


@dataclass(frozen=True)
class Incident:
    """A divergence.

    first, last   the offending steps of training, both included
    back_to       a checkpoint of this step, or an earlier one, holds none of the rows to pass over
    rows          steps of data to pass over: from, and up to (not included)
    reason        what was seen, for a sentence
    """

    first: int
    last: int
    back_to: int
    rows: tuple[int, int]
    reason: str

    def to_json(self) -> dict[str, Any]:
        return self.__dict__ | {"rows": list(self.rows)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Incident:
        first, stop = content["rows"]
        return cls(**content | {"rows": (int(first), int(stop))})


class Guard:
    """Watches one run; `observe` every step in order, and look at `incident`."""

    def __init__(
        self, config: GuardConfig, vocab_size: int, saved: dict[str, Any] | None = None
    ) -> None:
        """`saved` is what `to_json` gave of the run up to here; None begins anew."""
        self.incident: Incident | None = None
        self._config = config
        self._called = tuple(objective.called for objective in objectives())
        self._ceilings = tuple(
            config.max_loss_factor * math.log(objective.choices or vocab_size)
            for objective in objectives()
        )
        self._losses: deque[tuple[float, ...]] = deque(maxlen=config.window)
        self._last: deque[Place] = deque(maxlen=config.margin_steps + 1)
        self._skips: Streak | None = None
        self._spikes: Streak | None = None
        if saved:
            # of another number where an objective came or went: those begin anew
            self._losses.extend(
                tuple(float(loss) for loss in losses)
                for losses in saved["losses"]
                if len(losses) == len(self._ceilings)
            )
            self._last.extend(Place(*place) for place in saved["last"])
            self._skips = _streak(saved["skips"])
            self._spikes = _streak(saved["spikes"])

    # --- watching ---------------------------------------------------------------------------------

    def observe(self, signal: Signal) -> None:
        """Take in the next step; after an incident nothing is watched any more."""
        if self.incident:
            return
        self._last.append(Place(signal.step, signal.data_step))
        spike = self._impossible(signal.losses) or self._unusual(signal.losses)
        if spike:
            self._spikes = self._longer(self._spikes)
        else:
            self._spikes = None
            self._losses.append(signal.losses)
        if not signal.skipped:
            self._skips = None
        elif not signal.searching:
            self._skips = self._longer(self._skips)
        reason = self._verdict(signal, spike)
        if reason:
            self.condemn(reason)

    def hear_validation(self, losses: tuple[float, ...]) -> None:
        """Take in a validation of the weights that the last observed step left:
        an impossible loss is an incident.
        """
        reason = self._impossible(losses)
        if reason and not self.incident:
            self.condemn(f"on the held-out rows {reason}")

    def condemn(self, reason: str) -> None:
        """An incident: its offending steps are those of the open streaks,
        or else the last step observed.
        """
        if self.incident or not self._last:
            return
        last = self._last[-1]
        streaks = [streak for streak in (self._skips, self._spikes) if streak]
        first = min((streak.first for streak in streaks), default=last)
        margin = min((streak.margin for streak in streaks), default=self._last[0])
        self.incident = Incident(
            first.step, last.step, margin.step, (margin.data_step, last.data_step + 1), reason
        )

    def finish(self) -> None:
        """Training ends here: bad steps in a row that nothing follows are an incident."""
        if self.suspicion:
            self.condemn(f"{self.suspicion} when training ended")

    # --- what it says -----------------------------------------------------------------------------

    @property
    def suspicion(self) -> str:
        """What may be the beginning of a divergence, in words; empty when nothing is."""
        if self.incident:
            return self.incident.reason
        streaks = ((self._skips, "skipped steps"), (self._spikes, "spikes of the loss"))
        found = [
            f"{s.length} {what} in a row" for s, what in streaks if s and s.length >= _SUSPICIOUS
        ]
        return " and ".join(found)

    @property
    def clear(self) -> int:
        """No incident, whatever comes, will go back to before a checkpoint of this step."""
        streaks = [streak for streak in (self._skips, self._spikes) if streak]
        if streaks:
            return min(streak.margin.step for streak in streaks)
        if not self._last:
            return 0
        next_step = self._last[-1].step + 1
        return max(self._last[0].step, next_step - self._config.margin_steps)

    # --- the rules --------------------------------------------------------------------------------

    def _longer(self, streak: Streak | None) -> Streak:
        if streak:
            return streak._replace(length=streak.length + 1)
        return Streak(1, self._last[-1], self._last[0])

    def _impossible(self, losses: tuple[float, ...]) -> str | None:
        for called, loss, ceiling in zip(self._called, losses, self._ceilings, strict=True):
            if not math.isfinite(loss):
                return f"{called} was not finite"
            if loss > ceiling:
                return (
                    f"{called} was {loss:.4g}, more than guard.max_loss_factor ="
                    f" {self._config.max_loss_factor:g} times that of a guess"
                )
        return None

    def _unusual(self, losses: tuple[float, ...]) -> str | None:
        if len(self._losses) < self._config.window // 4:
            return None
        for number, called in enumerate(self._called):
            seen = [past[number] for past in self._losses]
            middle = median(seen)
            spread = _MAD_TO_DEVIATION * median(abs(loss - middle) for loss in seen)
            deviation = max(spread, _FLOOR * middle)
            if losses[number] > middle + self._config.spike_deviations * deviation:
                far = (losses[number] - middle) / deviation
                return (
                    f"{called} was {losses[number]:.4g}, {far:.3g} robust standard"
                    f" deviations above its median of {middle:.4g}"
                )
        return None

    def _verdict(self, signal: Signal, spike: str | None) -> str | None:
        """Why training has diverged, in words, or None."""
        if spike and not signal.skipped and not all(map(math.isfinite, signal.losses)):
            return spike
        if self._spikes and self._spikes.length >= self._config.spike_steps:
            return f"{spike}, the last of {_steps(self._spikes.length)} in a row that spiked"
        if self._skips and self._skips.length >= self._config.max_skips:
            return f"the gradient was not finite in {_steps(self._skips.length)} in a row"
        return None

    # --- memory -----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """All that later decisions depend on."""
        return {
            "losses": [list(losses) for losses in self._losses],
            "last": [list(place) for place in self._last],
            "skips": self._skips,
            "spikes": self._spikes,
        }


def _streak(saved: list[Any] | None) -> Streak | None:
    if saved is None:
        return None
    length, first, margin = saved
    return Streak(int(length), Place(*first), Place(*margin))


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"
