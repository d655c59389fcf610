"""Rules on numbers that go out of range: losses, gradients, updates."""

from __future__ import annotations

import statistics
from collections import deque

from electra_dist.config import Network
from electra_dist.health.known import Known
from electra_dist.health.numbers import ROWS, Recent, number
from electra_dist.health.rule import Look, Rule
from electra_dist.runs import metrics
from electra_dist.runs.metrics_log import Row

_LOSSES = (metrics.GENERATOR_LOSS.name, metrics.DISCRIMINATOR_LOSS.name)

# --- no number any more ---------------------------------------------------------------------------

_LOST_ROWS = 2


class _NotFinite:
    def __init__(self, known: Known) -> None:
        self._lost: deque[bool] = deque(maxlen=ROWS)

    def look(self, row: Row) -> Look | None:
        there = [name for name in _LOSSES if name in row]
        if not there:
            return None
        lost = [name for name in there if number(row, name) is None]
        self._lost.append(bool(lost))
        newest = list(self._lost)[-_LOST_ROWS:]
        begins = len(newest) == _LOST_ROWS and all(newest)
        ends = len(self._lost) == ROWS and not any(self._lost)
        if lost:
            sentence = f"no finite number: {' and '.join(lost)}"
        else:
            sentence = "both losses are finite numbers"
        return Look(begins, ends, sentence)


NOT_FINITE = Rule(
    name="loss-not-finite",
    severity="critical",
    needs=_LOSSES,
    begins=f"a loss is NaN or infinite in {_LOST_ROWS} logged rows one after the other",
    ends=f"both are finite in {ROWS} rows",
    advice=(
        "stop the run, and start it from an older checkpoint with a lower optim.lr or"
        " precision.mode=bf16; leave guard.enabled on, which goes back by itself"
    ),
    source="a loss that is no number trains nothing",
    watch=_NotFinite,
)

# --- overflow -------------------------------------------------------------------------------------

#: The first loss scale of fp16 is found by overflows.
_SEARCH_STEPS = 100
_OFTEN = 0.02
_SELDOM = 0.005


class _Overflow:
    def __init__(self, known: Known) -> None:
        self._share = Recent()
        self._last_step = 0

    def look(self, row: Row) -> Look | None:
        skipped = number(row, metrics.SKIPPED_STEPS.name)
        if skipped is None:
            return None
        steps = int(row["step"]) - self._last_step
        self._last_step = int(row["step"])
        if steps <= 0 or self._last_step <= _SEARCH_STEPS:
            return None
        share = self._share.add(skipped / steps)
        if share is None:
            return None
        sentence = f"{share:.0%} of the steps are skipped, because a gradient is not finite"
        return Look(share > _OFTEN, share < _SELDOM, sentence)


OVERFLOW = Rule(
    name="overflow",
    severity="warning",
    needs=(metrics.SKIPPED_STEPS.name,),
    begins=f"more than {_OFTEN:.0%} of the steps after step {_SEARCH_STEPS} are skipped",
    ends=f"fewer than {_SELDOM:.1%} are",
    advice=(
        "use precision.mode=bf16 where the GPU has it; else lower optim.lr, or raise"
        " precision.scale_window"
    ),
    source=(
        "dynamic loss scaling (arXiv 1710.03740, section 3.2) skips about one step per"
        " precision.scale_window, which is 1000 by default"
    ),
    watch=_Overflow,
)

# --- updates --------------------------------------------------------------------------------------

_HUGE = 0.03
_LARGE = 0.02
_TINY = 1e-5
_SMALL = 2e-5
_RATIOS: dict[Network, str] = {
    "generator": metrics.GENERATOR_UPDATE_RATIO.name,
    "discriminator": metrics.DISCRIMINATOR_UPDATE_RATIO.name,
}


class _UpdateRatio:
    """Of both networks; a small ratio is compared with what is left of the learning rate."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._ratio = {network: Recent() for network in known.trained}
        self._relative = {network: Recent() for network in known.trained}

    def look(self, row: Row) -> Look | None:
        step = int(row["step"])
        if step < self._known.settled:
            return None
        begins = False
        ends = []
        said = []
        for network in self._known.trained:
            ratio = number(row, _RATIOS[network])
            share = self._known.lr_share(network, step)
            if ratio is None or share == 0:
                continue
            middle = self._ratio[network].add(ratio)
            relative = self._relative[network].add(ratio / share)
            if middle is None or relative is None:
                continue
            begins = begins or middle > _HUGE or relative < _TINY
            ends.append(middle < _LARGE and relative > _SMALL)
            said.append(
                f"a step changes the {network}'s weights by {middle:.1e} of their norm, at"
                f" {share:.0%} of its peak learning rate"
            )
        if not ends:
            return None
        return Look(begins, all(ends), "; ".join(said))


UPDATE_RATIO = Rule(
    name="update-ratio",
    severity="warning",
    needs=tuple(_RATIOS.values()),
    begins=(
        f"after the warm-up a step changes the weights of a network by more than {_HUGE:g} of"
        f" their norm, or by less than {_TINY:g} times the share of the peak learning rate"
    ),
    ends=f"the change is below {_LARGE:g} and above {_SMALL:g} times that share",
    advice=(
        "too large: lower optim.lr, or that of the network (optim.generator.lr,"
        " optim.discriminator.lr); too small: raise it"
    ),
    source=(
        "1e-3 is the old rule of thumb (Stanford CS231n, notes on learning); 30 times and a"
        " hundredth of it lie far outside. Adam changes a weight by about the learning rate at"
        " most: 5e-4 on weights of 0.02 gives 0.025. Small trainings of this project lie between"
        " 1e-4 and 5e-3"
    ),
    watch=_UpdateRatio,
)

# --- the reference --------------------------------------------------------------------------------

_INSIDE = 0.9


class _Mean:
    """The mean of a number over the last steps, as many as a value of the reference is a mean of.

    Rows that are logged more often have more noise than the reference.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._values: deque[tuple[int, float]] = deque()

    def add(self, step: int, value: float) -> float:
        self._values.append((step, value))
        while self._values[0][0] <= step - self._steps:
            self._values.popleft()
        return statistics.fmean(value for _, value in self._values)


class _OffReference:
    """Both training losses, measured in half widths of the band: within 1 is inside."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._mean = {name: _Mean(known.band_every) for name in known.bands}
        self._distance = {name: Recent() for name in known.bands}

    def look(self, row: Row) -> Look | None:
        step = int(row["step"])
        outside = []
        distances = []
        for name, band in self._known.bands.items():
            logged = number(row, name)
            if logged is None:
                continue
            value = self._mean[name].add(step, logged)
            limits = band.at(step)
            if limits is None or limits.high <= limits.middle or step < self._known.settled:
                continue
            away = (value - limits.middle) / (limits.high - limits.middle)
            distance = self._distance[name].add(away)
            if distance is None:
                continue
            distances.append(abs(distance))
            if abs(distance) > 1:
                side = "above" if distance > 0 else "below"
                outside.append(
                    f"{name} is {value:.4f}, lately {abs(distance):.1f} half widths of the band"
                    f" {side} its middle ({limits.middle:.4f})"
                )
        if not distances:
            return None
        sentence = f"the losses are in the band of {self._known.reference}"
        if outside:
            sentence = f"{'; '.join(outside)}; the reference is {self._known.reference}"
        return Look(bool(outside), max(distances) < _INSIDE, sentence)


OFF_REFERENCE = Rule(
    name="off-reference",
    severity="warning",
    needs=_LOSSES,
    begins=(
        "after the warm-up a training loss lies outside the band of the"
        " [reference](reference-curves.md) of the same recipe and text; silent where there is none"
    ),
    ends=f"both lie within {_INSIDE:.0%} of the band's half width",
    advice=(
        "compare the curves: electra-dist report RUN --reference; above the band, look at the"
        " learning rate and the data; below it, look for text that leaks or repeats"
    ),
    source="the band: three standard deviations of what another seed gives, at least 2%",
    watch=_OffReference,
)

RULES = (NOT_FINITE, OVERFLOW, UPDATE_RATIO, OFF_REFERENCE)
