"""Rules on where the time goes."""

from __future__ import annotations

import bisect
from collections import deque
from typing import NamedTuple

from electra_dist.health.known import Known
from electra_dist.health.numbers import ROWS, Recent, number
from electra_dist.health.rule import Above, Look, Rule
from electra_dist.runs import metrics
from electra_dist.runs.metrics_log import Row

# --- waiting for data -----------------------------------------------------------------------------

_STALL = 0.05
_NO_STALL = 0.03


def _data_share(row: Row) -> float | None:
    """Fraction of a step that goes to waiting for data."""
    wait = number(row, metrics.DATA_WAIT_SECONDS.name)
    step = number(row, metrics.STEP_SECONDS.name)
    if wait is None or step is None or step <= 0:
        return None
    return wait / step


def _data_stall(known: Known) -> Above:
    return Above(
        _data_share,
        _STALL,
        _NO_STALL,
        lambda share: f"{share:.0%} of a step goes to waiting for data",
    )


DATA_STALL = Rule(
    name="data-stall",
    severity="warning",
    needs=(metrics.DATA_WAIT_SECONDS.name, metrics.STEP_SECONDS.name),
    begins=f"more than {_STALL:.0%} of a step goes to waiting for data",
    ends=f"less than {_NO_STALL:.0%} does",
    advice=(
        "give each rank more CPU cores; put the shards, or data.cache, on a local disk; raise"
        " data.prefetch_steps"
    ),
    source=(
        "rows are prepared while the device computes, so that this should be 0; AnswerDotAI/"
        "ModernBERT issue 236: a fifth of the published speed, the loader suspected"
    ),
    watch=_data_stall,
)

# --- one slow rank --------------------------------------------------------------------------------

_BEHIND = 1.10
_CLOSE = 1.05


class _Straggler:
    def __init__(self, known: Known) -> None:
        self._spread = Recent()
        self._rank = Recent()

    def look(self, row: Row) -> Look | None:
        spread = number(row, metrics.RANK_SPREAD.name)
        rank = number(row, metrics.SLOWEST_RANK.name)
        if spread is None or rank is None:
            return None
        self._rank.add(rank)
        median = self._spread.add(spread)
        if median is None:
            return None
        sentence = (
            f"the slowest rank takes {median:.2f} times as long as the median rank; most often"
            f" it is rank {self._rank.most_common:.0f}"
        )
        return Look(median > _BEHIND, median < _CLOSE, sentence)


STRAGGLER = Rule(
    name="straggler",
    severity="warning",
    needs=(metrics.RANK_SPREAD.name, metrics.SLOWEST_RANK.name),
    begins=f"the slowest rank takes more than {_BEHIND:g} times as long as the median rank",
    ends=f"it takes less than {_CLOSE:g} times as long",
    advice=(
        "look at the node of that rank (its log names it): other jobs, heat, clock; leave it out"
        " with --exclude when you launch again"
    ),
    source="all ranks wait for the slowest one in every step; arXiv 2402.15627: slow hosts of 10%",
    watch=_Straggler,
)

# --- slower than before ---------------------------------------------------------------------------

_FALLEN = 0.7
_RECOVERED = 0.85
#: Rows of a start that its median speed needs.
_ENOUGH = 20
#: Another job on the machine comes and goes: longer than other rules wait.
_SLOW_ROWS = 10


class _Slowing:
    """Speed against the median of the same start; rows during the finding do not count in it."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._start: int | None = None
        self._sorted: list[float] = []
        self._recent = Recent(_SLOW_ROWS)
        self._slow = False

    def look(self, row: Row) -> Look | None:
        speed = number(row, metrics.TOKENS_PER_SECOND.name)
        if speed is None or speed <= 0:
            return None
        start = self._known.start_of(int(row["step"]))
        if start != self._start:
            self._start = start
            self._sorted.clear()
            self._recent.clear()
        now = self._recent.add(speed)
        if not self._slow:
            bisect.insort(self._sorted, speed)
        if now is None or len(self._sorted) < _ENOUGH:
            return None
        usual = self._sorted[len(self._sorted) // 2]
        begins = now < _FALLEN * usual
        ends = now > _RECOVERED * usual
        self._slow = begins or (self._slow and not ends)
        sentence = (
            f"{now:,.0f} real tokens/s, {now / usual:.0%} of this start's median {usual:,.0f}"
        )
        return Look(begins, ends, sentence)


SLOWING = Rule(
    name="slowing-down",
    severity="warning",
    needs=(metrics.TOKENS_PER_SECOND.name,),
    begins=(
        f"the median speed of {_SLOW_ROWS} logged rows is below {_FALLEN:.0%} of the median of"
        f" this start, which has {_ENOUGH} rows or more"
    ),
    ends=f"it is above {_RECOVERED:.0%} of it",
    advice=(
        "compare the speed/ metrics before and after; look for other jobs on the nodes, a file"
        " system under load, GPUs that throttle (nvidia-smi -q -d PERFORMANCE)"
    ),
    source=(
        "AnswerDotAI/ModernBERT issue 228: batches per second that fall in the course of a run"
    ),
    watch=_Slowing,
)

# --- slower than promised -------------------------------------------------------------------------

_KEPT = 0.7
_KEPT_AGAIN = 0.8


class _BelowPromise:
    def __init__(self, known: Known) -> None:
        self._known = known
        self._recent = Recent()

    def look(self, row: Row) -> Look | None:
        promised = self._known.promised_tokens_per_s
        speed = number(row, metrics.TOKENS_PER_SECOND.name)
        if not promised or speed is None or not self._is_of_last_start(row):
            return None
        now = self._recent.add(speed)
        if now is None:
            return None
        sentence = f"{now:,.0f} real tokens/s, {now / promised:.0%} of the {promised:,.0f} planned"
        return Look(now < _KEPT * promised, now > _KEPT_AGAIN * promised, sentence)

    def _is_of_last_start(self, row: Row) -> bool:
        """The promise is that of the last start's device."""
        return self._known.start_of(int(row["step"])) == len(self._known.starts) - 1


BELOW_PROMISE = Rule(
    name="below-plan",
    severity="warning",
    needs=(metrics.TOKENS_PER_SECOND.name,),
    begins=(
        f"speed is below {_KEPT:.0%} of what `electra-dist plan` gives for the device; silent where"
        " the plan does not know it"
    ),
    ends=f"it is above {_KEPT_AGAIN:.0%} of it",
    advice=(
        "measure each part: electra-dist bench; raise train.micro_rows until memory is full; see"
        " that train.compile is on and attention is flash"
    ),
    source="AnswerDotAI/ModernBERT issue 236: a fifth of the published speed, unseen for weeks",
    watch=_BelowPromise,
)

# --- waiting for checkpoints ----------------------------------------------------------------------


class _Span(NamedTuple):
    """What lies between two logged rows: the last step, seconds in all and those of saving."""

    step: int
    seconds: float
    saving: float


class _CheckpointStall:
    """Saving is rare: its share is taken over the last two checkpoints' worth of steps."""

    def __init__(self, known: Known) -> None:
        self._every = known.config.checkpoint.every
        self._spans: deque[_Span] = deque()
        self._last_step = 0

    def look(self, row: Row) -> Look | None:
        share = number(row, metrics.CHECKPOINT_STALL.name)
        step_seconds = number(row, metrics.STEP_SECONDS.name)
        step = int(row["step"])
        steps = step - self._last_step
        if share is None or step_seconds is None or not 0 <= share < 1 or steps <= 0:
            return None
        self._last_step = step
        seconds = steps * step_seconds / (1 - share)
        self._spans.append(_Span(step, seconds, share * seconds))
        while self._spans[0].step <= step - 2 * self._every:
            self._spans.popleft()
        if step < 2 * self._every or len(self._spans) < ROWS:
            return None
        total = sum(span.seconds for span in self._spans)
        if total <= 0:
            return None
        stalled = sum(span.saving for span in self._spans) / total
        sentence = f"{stalled:.0%} of the time goes to waiting for checkpoints"
        return Look(stalled > _STALL, stalled < _NO_STALL, sentence)


CHECKPOINT_STALL = Rule(
    name="checkpoint-stall",
    severity="warning",
    needs=(metrics.CHECKPOINT_STALL.name, metrics.STEP_SECONDS.name),
    begins=(
        f"over the steps of two checkpoints, more than {_STALL:.0%} of the time goes to waiting"
        " for them"
    ),
    ends=f"less than {_NO_STALL:.0%} does",
    advice=(
        "leave checkpoint.asynchronous on; raise checkpoint.every; put the run on a faster file"
        " system"
    ),
    source="a copy to memory takes a step or two; the disk is written while training goes on",
    watch=_CheckpointStall,
)

# --- padding --------------------------------------------------------------------------------------

_WASTE = 0.10
_LITTLE_WASTE = 0.07


def _padding(known: Known) -> Above:
    return Above(
        lambda row: number(row, metrics.PADDING.name),
        _WASTE,
        _LITTLE_WASTE,
        lambda share: f"{share:.0%} of the tokens of a step are padding",
    )


PADDING = Rule(
    name="padding",
    severity="note",
    needs=(metrics.PADDING.name,),
    begins=f"more than {_WASTE:.0%} of the tokens of a step are padding",
    ends=f"less than {_LITTLE_WASTE:.0%} are",
    advice=(
        "raise data.max_documents_per_row where documents are short; choose a data.row_length that"
        " is no longer than the documents need"
    ),
    source="packed rows of real corpora waste 0.2 to 2.1% (the design, decision D3)",
    watch=_padding,
)

RULES = (DATA_STALL, STRAGGLER, SLOWING, BELOW_PROMISE, CHECKPOINT_STALL, PADDING)
