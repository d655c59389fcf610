"""The search for a hang: suspicion, a question to all ranks, judgement.

Comes in: what was heard of the ranks. Goes out: a `Found`, once a hang is certain. Rank 0 looks at
all ranks; the others look at rank 0, and each notices by itself when that one is silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from electra_dist.parallel.channel import HUB
from electra_dist.train.watch.hang import Hang, Heard, Stand, find_suspects, is_hang

#: For the answers of ranks that are asked where they stand.
_ANSWER_SECONDS = 10.0
#: Without a beat for so long and five ticks, a rank is silent:
#: stopped, or holding the interpreter's lock.
_SILENT_SECONDS = 10.0
#: What the others give rank 0 to find a hang, before they conclude that rank 0 itself is silent.
_HUB_SECONDS = 15.0


class Found(NamedTuple):
    """A hang, and the stamp in the names of the files with its stacks."""

    hang: Hang
    stamp: str


class _Look(NamedTuple):
    """A question that is being answered; `all_signs` are those of all ranks when it was asked."""

    deadline: float
    stamp: str
    all_signs: int


class HangSearch:
    """Of one rank; `stands` are the answers so far."""

    def __init__(self, hosts: Sequence[str], tick: float) -> None:
        """`tick` is the time between two beats."""
        self.stands: dict[int, Stand] = {}
        self._hosts = hosts
        self._silent_seconds = _SILENT_SECONDS + 5 * tick
        self._hub_seconds = _HUB_SECONDS + 5 * tick
        self._look: _Look | None = None

    def among_all(
        self, heard: Mapping[int, Heard], now: float, ask: Callable[[str], None]
    ) -> Found | None:
        """On rank 0: what is found; `ask` has all ranks, this one too, write their stacks under a
        stamp and say where they stand.
        """
        if self._look is None:
            if is_hang(heard, now, self._silent_seconds):
                stamp = _stamp()
                self._look = _Look(now + _ANSWER_SECONDS, stamp, all_signs(heard))
                self.stands.clear()
                ask(stamp)
            return None
        look = self._look
        if all_signs(heard) != look.all_signs:
            self._look = None  # it moves again
            return None
        if now >= look.deadline or len(self.stands) == len(heard):
            return Found(find_suspects(heard, self.stands, self._hosts, now), look.stamp)
        return None

    def of_the_hub(
        self,
        heard: Mapping[int, Heard],
        now: float,
        rank: int,
        stand: Callable[[str], Stand],
    ) -> Found | None:
        """On `rank`, another one than 0: that rank 0 is silent.

        `stand` writes this rank's stacks under a stamp, and gives where it stands.
        """
        hub = heard[HUB]
        own = heard[rank]
        late = now - hub.at > self._hub_seconds
        pair = {HUB: Heard(hub.beat, hub.at + _HUB_SECONDS), rank: own}
        if not late or not is_hang(pair, now, self._silent_seconds):
            return None
        stamp = _stamp()
        stands = {rank: stand(stamp)}
        return Found(find_suspects({HUB: hub, rank: own}, stands, self._hosts, now), stamp)


def all_signs(heard: Mapping[int, Heard]) -> int:
    """Signs of life of all ranks so far."""
    return sum(one.beat.signs for one in heard.values())


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S")
